from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

def isa_names() -> tuple[str, ...]: ...
def active_isa() -> str: ...
def rounded_products() -> str | None: ...
def openmp_enabled() -> bool: ...
def default_threads() -> int: ...
def loss_names() -> tuple[str, ...]: ...
def loss_info(name: str) -> dict[str, Any]: ...
def class_numbers(
    y: npt.NDArray[Any], n_threads: int | None = None
) -> tuple[list[Any], npt.NDArray[np.int8]] | None: ...
def draw_rows(
    n: int,
    m: int,
    start: float,
    weights: npt.NDArray[Any] | None = None,
    shares: npt.NDArray[np.float64] | None = None,
    apart: Any = None,
    lift: float = 0.0,
    n_threads: int | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], float]: ...
def row_mean(
    x: npt.NDArray[Any],
    shares: npt.NDArray[np.float64] | None = None,
    n_threads: int | None = None,
) -> float: ...
def mean_size(
    x: npt.NDArray[Any],
    shares: npt.NDArray[np.float64] | None = None,
    minus: npt.NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> float: ...
def rows_unlike(
    z: npt.NDArray[Any], value: float, n_threads: int | None = None
) -> npt.NDArray[np.int64]: ...
def off_usual(
    X: npt.NDArray[Any], rows: npt.NDArray[np.int64], n_threads: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]: ...
def take_rows(
    X: npt.NDArray[Any], rows: npt.NDArray[np.int64], n_threads: int | None = None
) -> npt.NDArray[Any]: ...
def empty_rows(shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]: ...
def narrow_copy(
    x: npt.NDArray[np.float64],
    out: npt.NDArray[Any],
    origin: Any = None,
    step: Any = None,
    by_line: bool = False,
    n_threads: int = 0,
) -> bool: ...
def stream_read(x: npt.NDArray[Any], n_threads: int = 0) -> int: ...
def stream_update(
    p: npt.NDArray[np.float32],
    g: npt.NDArray[np.float32],
    b: npt.NDArray[np.float32],
    n_threads: int = 0,
) -> None: ...

def fit_by_newton(
    problem: Problem,
    l1: float,
    l2: float,
    reuse: bool,
    steps: int,
    tol: float,
    rounding: float,
    curvature: float,
) -> tuple[
    float,
    npt.NDArray[np.float64],
    list[tuple[float, float, float, float, int, bool]] | None,
    npt.NDArray[np.float64] | None,
    list[tuple[int, float, float]] | None,
]: ...

class Newton:
    def __init__(
        self,
        problem: Any,
        w: Any,
        margins: npt.NDArray[Any],
        other: npt.NDArray[Any],
        l2: float = 0.0,
        origin: Any = None,
        linear: Any = None,
    ) -> None: ...
    def run(
        self, steps: int = 1, tol: float = 0.0, null_value: float = 0.0, floor: float = 0.0
    ) -> tuple[
        list[tuple[float, float, float, float, float, bool, bool, bool]],
        npt.NDArray[np.float64],
        npt.NDArray[np.float64],
        npt.NDArray[np.float64],
    ]: ...
    @property
    def current(self) -> int: ...
    @property
    def sizes(self) -> npt.NDArray[np.float64]: ...

class ProxNewton:
    def __init__(
        self,
        problem: Any,
        w: Any,
        margins: npt.NDArray[Any],
        other: npt.NDArray[Any],
        l1: float,
        l2: float = 0.0,
        origin: Any = None,
        reuse: bool = False,
        hessian: Any = None,
        known: tuple[float, Any] | None = None,
    ) -> None: ...
    def run(
        self, steps: int = 1, tol: float = 0.0, null_value: float = 0.0, floor: float = 0.0
    ) -> tuple[
        list[tuple[float, float, float, float, float, float, int, bool, bool, bool]],
        npt.NDArray[np.float64],
        npt.NDArray[np.float64],
        npt.NDArray[np.float64],
    ]: ...
    @property
    def current(self) -> int: ...
    @property
    def sizes(self) -> npt.NDArray[np.float64]: ...
    @property
    def hessian(self) -> npt.NDArray[np.float64] | None: ...

class Lbfgs:
    def __init__(
        self,
        problem: Problem,
        v: Any,
        margins: npt.NDArray[Any],
        other: npt.NDArray[Any],
        L: Any,
        scale: Any,
        mean: Any,
        scale_b: float,
        rms: Any,
        l2: float = 0.0,
        origin: Any = None,
        linear: Any = None,
    ) -> None: ...
    def know(self, data_value: float, w: Any, u: Any) -> None: ...
    def propose(self, step: Any) -> None: ...
    def remember(self, s: Any, y: Any) -> None: ...
    @property
    def pairs(self) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]: ...
    def run(
        self, steps: int = 1, tol: float = 0.0, null_value: float = 0.0, floor: float = 0.0
    ) -> tuple[
        list[tuple[float, float, float, float, bool, bool, bool]],
        npt.NDArray[np.float64],
        npt.NDArray[np.float64],
        npt.NDArray[np.float64],
        npt.NDArray[np.float64],
    ]: ...
    @property
    def current(self) -> int: ...

def best_intercept(
    problem: Any,
    z: npt.NDArray[Any],
    curvature: float,
    moved: npt.NDArray[Any],
    residuals: npt.NDArray[Any],
    at_zero: bool = False,
    loss: str = "",
) -> tuple[Any, float, bool, float, Any, float]: ...
def certify(
    problem: Problem,
    w: npt.NDArray[np.float64],
    l1: float,
    l2: float,
    curvature: float,
    z: npt.NDArray[np.float64] | None = None,
    r: npt.NDArray[np.float64] | None = None,
    u: npt.NDArray[np.float64] | None = None,
    spare: npt.NDArray[np.float64] | None = None,
) -> tuple[
    npt.NDArray[np.float64], float, float, float, npt.NDArray[np.float64] | None
]: ...
def combine(
    arrays: Sequence[npt.NDArray[Any]],
    coefficients: Sequence[float],
    out: npt.NDArray[Any],
    n_threads: int | None = None,
) -> None: ...
def inner_products(
    arrays: Sequence[npt.NDArray[Any]], v: npt.NDArray[Any], n_threads: int | None = None
) -> list[float]: ...
def transposed_copy(
    a: npt.NDArray[np.float64], single: bool = False, n_threads: int | None = None
) -> npt.NDArray[Any]: ...

class RowLbfgs:
    def __init__(
        self,
        problem: Problem,
        products: RowProducts,
        x: npt.NDArray[Any],
        Kx: npt.NDArray[Any],
        z: npt.NDArray[Any],
        r: npt.NDArray[Any],
        f: float,
        square: float,
        l2: float,
        scale: float,
        curvature: float,
        pairs: int,
    ) -> None: ...
    def run(
        self, steps: int = 1, tol: float = 0.0, null_value: float = 0.0, floor: float = 0.0
    ) -> tuple[list[tuple[float, float, float, bool]], int]: ...
    @property
    def x(self) -> npt.NDArray[Any]: ...
    @property
    def before(self) -> npt.NDArray[Any]: ...
    @property
    def margins(self) -> npt.NDArray[Any]: ...
    @property
    def residuals(self) -> npt.NDArray[Any]: ...
    @property
    def gradient(self) -> npt.NDArray[Any]: ...
    @property
    def steps(self) -> int: ...
    @property
    def plain(self) -> list[Any]: ...
    @property
    def lifted(self) -> list[Any]: ...
    @property
    def inner(self) -> npt.NDArray[np.float64]: ...
    @property
    def lengths(self) -> npt.NDArray[np.float64]: ...

class RowProducts:
    def __init__(self, problem: Problem, copy: bool | None = None) -> None: ...
    def product(self, v: Any) -> npt.NDArray[Any]: ...
    def both(self, v: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
    @property
    def by_rows(self) -> bool: ...
    def transposed(self, v: Any) -> npt.NDArray[np.float64]: ...
    def square(self, v: Any) -> float: ...
    @property
    def nbytes(self) -> int: ...

class Problem:
    def __init__(
        self,
        X: Any,
        y: Any,
        *,
        loss: str = "logistic",
        sample_weight: Any = None,
        offset: Any = None,
        delta: float = 1.0,
        scale: float = 1.0,
        shift: float = 0.0,
        fit_intercept: bool = False,
        compute: str | None = None,
        n_threads: Any = None,
        isa: str | None = None,
        dtype: str | None = None,
        n_classes: Any = None,
        like: Problem | None = None,
    ) -> None: ...
    def column_spread(self, entries: int) -> float: ...
    def rows_of_rare_columns(self, rows: Any, few: int) -> npt.NDArray[np.int64]: ...
    def value_and_grad(
        self, w: Any, grad: Any = None, margins: Any = None, residuals: Any = None
    ) -> tuple[float, npt.NDArray[np.float64]]: ...
    def margins(self, w: Any, out: Any = None) -> npt.NDArray[Any]: ...
    def loss_from_margins(self, z: Any, residuals: Any = None) -> float: ...
    def slope_along(self, z: Any, z_end: Any, t: float) -> float: ...
    def residual_size(self, z: Any) -> float: ...
    def shifted_loss(
        self, z: Any, b: Any = None, moved: Any = None, residuals: Any = None
    ) -> tuple[float, Any, float]: ...
    def rmatvec(self, v: Any, out: Any = None) -> npt.NDArray[np.float64]: ...
    def gram(
        self,
        weights: Any = None,
        rows: Any = None,
        out: Any = None,
        factors: Any = None,
        rounded: bool = False,
    ) -> npt.NDArray[np.float64]: ...
    def least_squares(
        self, l2: float, correct: float = 1e-4, narrow: bool = False
    ) -> npt.NDArray[np.float64] | None: ...
    def moments(
        self, weights: Any = None, rows: Any = None, origin: float = 0.0
    ) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
    def hessian(
        self,
        w: Any,
        out: Any = None,
        grad: Any = None,
        margins: Any = None,
        residuals: Any = None,
    ) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
    def class_hessian(
        self, w: Any, margins: Any
    ) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
    def curvature_from_margins(self, z: Any, out: Any = None) -> npt.NDArray[Any]: ...
    def hessian_vector(self, v: Any, weights: Any) -> npt.NDArray[np.float64]: ...
    @property
    def n(self) -> int: ...
    @property
    def d(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def p(self) -> int: ...
    @property
    def sum_weights(self) -> float: ...
    @property
    def fit_intercept(self) -> bool: ...
    @property
    def x_dtype(self) -> str: ...
    @property
    def layout(self) -> str: ...
    @property
    def compute(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def loss(self) -> str: ...
    @property
    def isa(self) -> str: ...
    @property
    def n_threads(self) -> int: ...

def equilibrate(
    M: Any, factor: float, mean: Any, scale: Any, out: Any, n_threads: int | None = None
) -> None: ...
def cholesky_(
    A: npt.NDArray[np.float64], n_threads: Any = None, isa: str | None = None
) -> int: ...
def solve_triangular(
    L: npt.NDArray[np.float64] | list[npt.NDArray[np.float64]],
    b: Any,
    trans: bool = False,
    n_threads: Any = None,
    isa: str | None = None,
) -> npt.NDArray[np.float64]: ...
def multiply_triangular(
    L: npt.NDArray[np.float64] | list[npt.NDArray[np.float64]],
    b: Any,
    trans: bool = False,
    n_threads: Any = None,
    isa: str | None = None,
) -> npt.NDArray[np.float64]: ...
def column_products(
    values: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int32] | None,
    starts: npt.NDArray[np.int64] | None,
    r: Any,
    n_threads: int | None = None,
) -> npt.NDArray[np.float64]: ...
def add_columns_(
    values: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int32] | None,
    starts: npt.NDArray[np.int64] | None,
    c: Any,
    t: npt.NDArray[np.float64],
) -> None: ...
def minimise_on_columns(
    values: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int32] | None,
    starts: npt.NDArray[np.int64] | None,
    v: Any,
    g: Any,
    w: Any,
    l1: float,
    l2: float,
    slope_b: float | None = None,
    lower: npt.NDArray[np.float64] | None = None,
    upper: npt.NDArray[np.float64] | None = None,
    accuracy: float = 0.0,
    rounds: int = 1000,
) -> tuple[npt.NDArray[np.float64], float, npt.NDArray[np.float64], float]: ...
def settle_on_gram(
    C: npt.NDArray[np.float64],
    g: Any,
    w: Any,
    l1: float,
    accuracy: float,
    rounds: int,
    positive: bool = False,
) -> npt.NDArray[np.float64] | None: ...
def sweep_on_gram_(
    C: npt.NDArray[np.float64],
    q: npt.NDArray[np.float64],
    w: npt.NDArray[np.float64],
    l1: float,
    accuracy: float,
    sweeps: int,
    lower: npt.NDArray[np.float64] | None = None,
    upper: npt.NDArray[np.float64] | None = None,
) -> float: ...
def secant_(B: npt.NDArray[np.float64], s: Any, y: Any) -> bool: ...
def two_loops(pairs: Any, g: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
def nesterov_step(
    params: Any,
    grads: Any,
    buffers: Any,
    ema: Any,
    master: Any,
    dtype: Any,
    lr: Any,
    momentum: Any,
    lookahead: Any,
    dampening: Any,
    weight_decay: Any,
    decoupled: Any,
    nesterov: Any,
    maximize: Any,
    convention: Any,
    first_step: Any,
    check_finite: Any,
    grad_scale: Any,
    max_norm: Any,
    ema_decay: Any,
    seed: Any,
    n_threads: Any,
) -> tuple[float, float, bool, int, int]: ...

class NesterovPlan:
    def __init__(
        self, params: Any, grads: Any, buffers: Any, ema: Any, master: Any, dtype: Any
    ) -> None: ...
    @property
    def tensors(self) -> int: ...
    @property
    def elements(self) -> int: ...
    def step(
        self,
        lr: Any,
        momentum: Any,
        lookahead: Any,
        dampening: Any,
        weight_decay: Any,
        decoupled: Any,
        nesterov: Any,
        maximize: Any,
        convention: Any,
        first_step: Any,
        check_finite: Any,
        grad_scale: Any,
        max_norm: Any,
        ema_decay: Any,
        seed: Any,
        n_threads: Any,
    ) -> tuple[float, float, bool, int, int]: ...

def advise_large_pages(address: int, bytes: int) -> None: ...

class TensorPlan:
    def __init__(self, exchange: Any, describe: Any, counter: Any, large_pages: bool) -> None: ...
    def gather(
        self, groups: Any, state: Any, momentum: Any, lookahead: Any, ema: bool, master: bool,
        remember: bool,
    ) -> list[tuple[int, str]]: ...
    def norm(self, grad_scale: Any, n_threads: Any) -> float: ...
    def step(
        self,
        first: Any,
        max_norm: Any,
        ema_decay: Any,
        grad_scale: Any,
        read_first: bool,
        known_norm: Any,
        aligned: bool,
        seed: Any,
        n_threads: Any,
    ) -> tuple[float, float, bool, int, int, float]: ...
    def release(self) -> None: ...
    def hand_over(self, place: int) -> None: ...
    @property
    def counters(self) -> list[Any]: ...
    @property
    def pages(self) -> tuple[int, int, int]: ...
    @property
    def layouts(self) -> int: ...
