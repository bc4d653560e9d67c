"""The problems: mean loss + (l2/2)‖w‖² + l1‖w‖₁ without an intercept, so that every peer solves the same one.

Dense tables that want an intercept have a last column of ones, which is penalised like the others. Real data
come from a folder whose load.py defines load(name) → dict(X_train=…, y_train=…); without one, those problems
are skipped. Synthetic tables are drawn from seed 0.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PROBLEMS", "Problem", "is_path", "make"]


@dataclass
class Problem:
    """One fit, or one path of fits: data of one dtype, a loss, and penalties of the mean loss."""

    name: str
    kind: str  # "logistic", "softmax", "squared"
    X: Any
    y: np.ndarray  # 0 and 1, class numbers, or real
    l2: float
    l1: float = 0.0
    strengths: np.ndarray = field(default_factory=lambda: np.zeros(0))  # of a path: l1 of each fit, falling

    @property
    def n(self) -> int:
        return self.X.shape[0]

    @property
    def d(self) -> int:
        return self.X.shape[1]

    @property
    def sparse(self) -> bool:
        return not isinstance(self.X, np.ndarray)

    @property
    def nbytes(self) -> int:
        if self.sparse:
            return self.X.data.nbytes + self.X.indices.nbytes + self.X.indptr.nbytes
        return self.X.nbytes


def _loader(folder: str | None) -> Callable[[str], dict[str, Any]]:
    if folder is None or not (path := Path(folder) / "load.py").is_file():
        raise FileNotFoundError("no data folder: use --data DIR or NAGCORE_DATA")
    spec: Any = importlib.util.spec_from_file_location("nagcore_peers_load", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load


def _with_ones(X: Any) -> np.ndarray:
    X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
    return np.hstack([X, np.ones((len(X), 1), X.dtype)])


def _real_binary(name: str, folder: str | None) -> tuple[Any, np.ndarray]:
    data = _loader(folder)(name)
    return _with_ones(data["X_train"]), (data["y_train"] > 0).astype(float)


def _real_csr(name: str, folder: str | None) -> tuple[Any, np.ndarray]:
    data = _loader(folder)(name)
    return data["X_train"].tocsr(), (data["y_train"] > 0).astype(float)


def _mnist_parity(folder: str | None) -> tuple[Any, np.ndarray]:
    data = _loader(folder)("mnist")
    return _with_ones(data["X_train"].astype(np.float32) / 255), (data["y_train"] % 2).astype(float)


def _mnist(folder: str | None) -> tuple[Any, np.ndarray]:
    data = _loader(folder)("mnist")
    return _with_ones(data["X_train"].astype(np.float32) / 255), data["y_train"].astype(int)


def _news(folder: str | None) -> tuple[Any, np.ndarray]:
    data = _loader(folder)("20news")
    return data["X_train"].tocsr(), np.unique(data["y_train"], return_inverse=True)[1]


def _regression(name: str, folder: str | None) -> tuple[Any, np.ndarray]:
    data = _loader(folder)(name)
    X, y = np.asarray(data["X_train"], float), np.asarray(data["y_train"], float)
    X = (X - X.mean(0)) / np.maximum(X.std(0), 1e-12) if name == "protein_casp" else X
    return _with_ones(X), (y - y.mean()) / y.std()


def _labels(rng: np.random.Generator, margins: np.ndarray) -> np.ndarray:
    return (rng.random(len(margins)) < 1 / (1 + np.exp(-margins))).astype(float)


def _conditioned(n: int, d: int, condition: float, folder: str | None) -> tuple[Any, np.ndarray]:
    """Gaussian rows whose covariance has eigenvalues from 1 to 1/condition in a rotated basis."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    root = (Q * condition ** (-np.arange(d) / (2 * max(d - 1, 1)))) @ Q.T
    X = rng.standard_normal((n, d)) @ root
    w = rng.standard_normal(d)
    margins = X @ (w * 2 / np.std(X @ w))
    return _with_ones(X), _labels(rng, margins)


def _separable(n: int, d: int, folder: str | None) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    margins = X @ rng.standard_normal(d)
    X += 0.02 * np.sign(margins)[:, None] * rng.random((n, 1))
    return _with_ones(X), (margins > 0).astype(float)


def _imbalanced(n: int, d: int, odds: float, folder: str | None) -> tuple[Any, np.ndarray]:
    """Rare binary features, each with its own frequency, and one positive among `odds` rows."""
    rng = np.random.default_rng(0)
    frequency = 0.3 * np.exp(-rng.exponential(2.0, d))
    X = (rng.random((n, d)) < frequency).astype(float)
    margins = X @ rng.standard_normal(d) * 1.5
    shift = np.quantile(margins + rng.logistic(size=n), 1 - 1 / odds)
    return _with_ones(X), _labels(rng, margins - shift)


def _heavy_tails(n: int, d: int, folder: str | None) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_t(2.5, (n, d)) * np.exp(rng.standard_normal(d))
    return _with_ones(X), _labels(rng, 0.5 * X[:, :10] @ rng.standard_normal(10))


def _rare_onehot(n: int, groups: int, levels: int, folder: str | None) -> tuple[Any, np.ndarray]:
    """One-hot groups whose levels follow Zipf's law: collinear, and columns of a few ones each."""
    rng = np.random.default_rng(0)
    p = 1 / np.arange(1, levels + 1) ** 1.5
    X = np.zeros((n, groups * levels))
    margins = np.zeros(n)
    for g in range(groups):
        level = rng.choice(levels, n, p=p / p.sum())
        X[np.arange(n), g * levels + level] = 1
        margins += rng.standard_normal(levels)[level]
    return _with_ones(X), _labels(rng, margins)


def _near_separable(folder: str | None) -> tuple[Any, np.ndarray]:
    """Connection records: 38 numbers on scales from 1 to 10⁴, one-hot groups, classes all but separable."""
    rng = np.random.default_rng(0)
    n = 494_021
    kind = rng.choice(23, n, p=(q := 1 / np.arange(1, 24) ** 1.8) / q.sum())
    numbers = np.empty((n, 38))
    for j in range(38):
        centre, spread = rng.standard_normal(23), 0.2 * rng.random(23)
        numbers[:, j] = centre[kind] + spread[kind] * rng.standard_normal(n)
    numbers *= 10.0 ** rng.uniform(0, 4, 38)
    onehot = np.zeros((n, 81))
    at = 0
    for levels in (3, 67, 11):
        favourite = rng.integers(0, levels, 23)
        level = np.where(rng.random(n) < 0.97, favourite[kind], rng.integers(0, levels, n))
        onehot[np.arange(n), at + level] = 1
        at += levels
    y = np.where(rng.random(n) < 0.9995, kind < 5, kind >= 5).astype(float)
    return _with_ones(np.hstack([numbers, onehot])), y


def _synthetic_regression(n: int, d: int, folder: str | None) -> tuple[Any, np.ndarray]:
    X, _ = _conditioned(n, d - 1, 1e3, folder)
    rng = np.random.default_rng(1)
    y = X @ rng.standard_normal(d) + rng.standard_normal(n)
    return X, (y - y.mean()) / y.std()


def _wide_regression(n: int, d: int, folder: str | None) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    w = np.zeros(d)
    w[rng.choice(d, 20, replace=False)] = rng.standard_normal(20)
    y = X @ w + 0.5 * rng.standard_normal(n)
    return X, (y - y.mean()) / y.std()


def _classes(make: Callable[..., tuple[Any, np.ndarray]], n: int, d: int, folder: str | None):
    """The regression problem with its target's sign as the class."""
    X, y = make(n, d, folder)
    return X, (y > 0).astype(float)


def _news_like(n: int, d: int, folder: str | None) -> tuple[Any, np.ndarray]:
    """Documents as CSR rows of unit length: words by Zipf's law, weighted down where they are common."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    p = 1 / (10.0 + np.arange(d))
    rows = np.repeat(np.arange(n), rng.poisson(120, n) + 1)
    words = rng.permutation(d)[rng.choice(d, len(rows), p=p / p.sum())]
    X = sparse.csr_matrix((np.ones(len(rows)), (rows, words)), shape=(n, d))
    X.sum_duplicates()
    X.data = (1 + np.log(X.data)) * np.log(n / np.bincount(X.indices, minlength=d))[X.indices]
    X.data /= np.sqrt(np.bincount(np.repeat(np.arange(n), np.diff(X.indptr)), X.data**2))[
        np.repeat(np.arange(n), np.diff(X.indptr))
    ]
    w = rng.standard_normal(d) * (rng.random(d) < 0.02)
    margins = X @ w
    y = margins / margins.std() + 0.5 * rng.standard_normal(n)
    return X, (y - y.mean()) / y.std()


_BINARY: dict[str, Callable[[str | None], tuple[Any, np.ndarray]]] = {
    "a9a": partial(_real_binary, "a9a"),
    "ijcnn1": partial(_real_binary, "tick_ijcnn1"),
    "mnist even/odd": _mnist_parity,
    "condition 1e2": partial(_conditioned, 500_000, 100, 1e2),
    "condition 1e3": partial(_conditioned, 500_000, 100, 1e3),
    "condition 1e4": partial(_conditioned, 200_000, 100, 1e4),
    "condition 1e6": partial(_conditioned, 200_000, 100, 1e6),
    "separable": partial(_separable, 200_000, 50),
    "imbalanced 1:33": partial(_imbalanced, 49_749, 300, 33),
    "imbalanced 1:1000": partial(_imbalanced, 200_000, 50, 1000),
    "heavy tails": partial(_heavy_tails, 200_000, 50),
    "rare one-hot": partial(_rare_onehot, 200_000, 4, 30),
    "near-separable": _near_separable,
}
_CSR = {"a9a csr": partial(_real_csr, "a9a"), "reuters csr": partial(_real_csr, "tick_reuters")}
_SOFTMAX = {"mnist softmax": _mnist, "20news softmax": _news}
_RIDGE = {
    "bike_sharing ridge": partial(_regression, "bike_sharing"),
    "protein_casp ridge": partial(_regression, "protein_casp"),
    "synthetic ridge": partial(_synthetic_regression, 1_000_000, 100),
}
_LASSO = {
    "lasso n ≫ d": partial(_synthetic_regression, 200_000, 100),
    "lasso d ≫ n": partial(_wide_regression, 1_000, 20_000),
}
_TALL, _WIDE, _WORDS = (200_000, 100), (1_000, 20_000), (11_314, 100_000)
_LASSO_PATH = {
    "lasso path n ≫ d": partial(_synthetic_regression, *_TALL),
    "lasso path d ≫ n": partial(_wide_regression, *_WIDE),
    "lasso path csr": partial(_news_like, *_WORDS),
}
_LOGISTIC_PATH = {
    "logistic path n ≫ d": partial(_classes, _synthetic_regression, *_TALL),
    "logistic path d ≫ n": partial(_classes, _wide_regression, *_WIDE),
    "logistic path csr": partial(_classes, _news_like, *_WORDS),
}
_PATHS = {**_LASSO_PATH, **_LOGISTIC_PATH}
STRENGTHS, LEAST = 50, 1e-2  # of a path: how many, and the last over the first

PROBLEMS = {
    **dict.fromkeys((*_BINARY, *_CSR), "logistic"),
    **dict.fromkeys(_SOFTMAX, "softmax"),
    **dict.fromkeys((*_RIDGE, *_LASSO, *_LASSO_PATH), "squared"),
    **dict.fromkeys(_LOGISTIC_PATH, "logistic"),
}


def is_path(name: str) -> bool:
    """Whether the problem is a path of strengths."""
    return name in _PATHS


def make(name: str, dtype: str, lambda_n: float, folder: str | None) -> Problem:
    """Draw or load the problem `name` with l2 = lambda_n/n (MNIST softmax: 1e-4; lasso: l1 = l1_max/10).

    A path has l1 from l1_max, the least that leaves all coefficients zero, to l1_max/100.
    """
    kind = PROBLEMS[name]
    X, y = {**_BINARY, **_CSR, **_SOFTMAX, **_RIDGE, **_LASSO, **_PATHS}[name](folder)
    if isinstance(X, np.ndarray):
        X = np.ascontiguousarray(X, dtype)
    else:
        X = X.astype(dtype)
        X.sort_indices()
    l2 = lambda_n / X.shape[0]
    if name in _PATHS:
        slope = X.T @ (y - 0.5 if kind == "logistic" else y)
        largest = float(np.abs(slope).max()) / len(y)
        return Problem(name, kind, X, y, 0.0, strengths=largest * np.geomspace(1, LEAST, STRENGTHS))
    if name in _LASSO:
        return Problem(name, kind, X, y, 0.0, 0.1 * float(np.abs(X.T @ y).max()) / len(y))
    if name == "mnist softmax":
        l2 = 1e-4
    return Problem(name, kind, X, y, l2)
