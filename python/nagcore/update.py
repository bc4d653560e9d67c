"""The fused momentum update: decay, buffer, step and moving average in one trip through memory.

The kernel is in C++; this module holds the signatures and says what they mean. The formulas stand
in docs/maths.md (Updates), the accumulators and roundings in docs/numerics.md (The update).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from nagcore import _core

__all__ = ["NesterovPlan", "StepReport", "nesterov_step_"]

Arrays: TypeAlias = np.ndarray | Sequence[np.ndarray]
Convention: TypeAlias = Literal["torch", "keras", "keras-torch", "keras-jax"]


class StepReport(NamedTuple):
    """What one update did.

    A step that was skipped, because a gradient was not finite and the gradients were read before
    anything was written, has ``found_inf=True`` and zero ``tensors`` and ``elements``.

    Attributes
    ----------
    grad_norm : float
        Euclidean norm over all gradients together, after division by ``grad_scale`` and before
        clipping; summed in float64 in an order that no thread count changes.
    clip_factor : float
        What the gradients were multiplied by to keep to ``max_norm``:
        min(1, ``max_norm``/(``grad_norm`` + 1e-6)), as in torch; 1.0 without ``max_norm``.
    found_inf : bool
        Whether any gradient was infinite or NaN.
    tensors : int
        Parameters that were updated.
    elements : int
        Their elements.

    Examples
    --------
    >>> import numpy as np
    >>> from nagcore import nesterov_step_
    >>> p, g, b = np.zeros(2), np.array([3.0, 4.0]), np.zeros(2)
    >>> report = nesterov_step_(p, g, b, lr=0.1, max_norm=10.0)
    >>> report.grad_norm, report.clip_factor, report.found_inf
    (5.0, 1.0, False)
    """

    grad_norm: float
    clip_factor: float
    found_inf: bool
    tensors: int
    elements: int


def nesterov_step_(
    params: Arrays,
    grads: Arrays,
    buffers: Arrays | None,
    *,
    lr: float,
    momentum: float = 0.9,
    lookahead: float | None = None,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    nesterov: bool = True,
    maximize: bool = False,
    convention: Convention = "torch",
    first_step: bool | Sequence[bool] = False,
    check_finite: bool = False,
    grad_scale: float | None = None,
    max_norm: float | None = None,
    ema: Arrays | None = None,
    ema_decay: float | None = None,
    master: Arrays | None = None,
    seed: int = 0,
    dtype: Any = None,
    n_threads: int | None = None,
) -> StepReport:
    r"""Take one step of SGD with Nesterov momentum, in place, in one trip through memory.

    With ``convention="torch"`` (θ the parameter, g the gradient, b the buffer, μ ``momentum``,
    ν ``lookahead``, τ ``dampening``, λ ``weight_decay``)::

        g ← g + λθ                          or, decoupled,  θ ← θ·(1 − lr·λ)
        b ← μb + (1 − τ)g                   on a first step b ← g
        θ ← θ − lr·(g + νb)                 or, with nesterov=False, θ ← θ − lr·b

    and with ``convention="keras"``, where the buffer holds a velocity with lr inside::

        g ← g + λθ                          or, decoupled,  θ ← θ − (θ·λ)·lr
        b ← μb − lr·g                       on a first step b counts as 0
        θ ← θ + (νb − lr·g)                 or, with nesterov=False, θ ← θ + b

    In this order: the gradient is divided by ``grad_scale``, clipped to ``max_norm`` and negated
    for ``maximize``; decay; update; moving average e ← κe + (1 − κ)θ with κ = ``ema_decay``.
    float32 results equal torch's and eager keras' to the bit on processors with fused
    multiply-add, and within ulps elsewhere. Every number of threads gives the same bits.

    Parameters
    ----------
    params, grads, buffers : ndarray or sequence of ndarray
        Parameters and momentum buffers, written in place, and gradients, only read. Shapes agree
        tensor by tensor; any strides are handled, and equal dense ones (C or Fortran order, or any
        permutation such as channels last) at full speed. Parameters are float64, float32, bfloat16
        (of ml_dtypes, or uint16 with ``dtype="bfloat16"``) or float16. Gradients have their
        parameter's dtype; those of bfloat16 and float16 parameters may be float32. Buffers have
        their parameter's dtype, but are float32 for bfloat16 and float16; beside all but float64
        they may be bfloat16, which halves their size. With ``momentum=0`` and no ``lookahead``
        buffers are left alone and may be None.
    lr : float
        Step size, not negative. Like every scalar here it is rounded to float32 once where
        the arithmetic is float32, as torch does.
    momentum : float
        μ, what the buffer keeps.
    lookahead : float, optional
        ν, what the step takes of the new buffer; None is ``momentum``. A momentum schedule passes
        μ_t and μ_{t+1}.
    dampening : float
        τ of torch; 0 with Nesterov.
    weight_decay : float
        λ, not negative.
    decoupled : bool
        Shrink the parameter itself (SGDW) instead of adding λθ to the gradient.
    nesterov : bool
        False gives heavy-ball momentum.
    maximize : bool
        Step along the gradient instead of against it.
    convention : {"torch", "keras", "keras-torch", "keras-jax"}
        Whose formula and roundings; "keras-torch" is keras's formula with the roundings of its torch
        backend, "keras-jax" with those of XLA, as keras's jax backend has them under jit.
        The buffers of torch and keras are not interchangeable: v = −lr·b.
    first_step : bool or sequence of bool
        Buffer and moving average of these tensors are written without being read. One truth for
        all, or one for each tensor: a parameter may join late.
    check_finite : bool
        Read all gradients once before anything is written; if one is infinite or NaN, write
        nothing. Without it NaN goes where it goes in torch, and the report says so.
    grad_scale : float, optional
        The loss scale to divide gradients by. Implies the reading of ``check_finite``.
    max_norm : float, optional
        Clip the gradients' joint norm to it. Implies the reading of ``check_finite``.
    ema, ema_decay : ndarray or sequence of ndarray, and float, optional
        Moving averages of the parameters in the buffers' dtype, written in the same trip, and
        κ in [0, 1]. They average the parameter before it is rounded to bfloat16 or float16.
    master : ndarray or sequence of ndarray, optional
        float32 copies of bfloat16 or float16 parameters. The step reads and writes them, and the
        parameters become their nearest values.
    seed : int
        0 rounds bfloat16 and float16 parameters and bfloat16 buffers to nearest even. Any other
        integer below 2**64 rounds them stochastically, up or down with the probabilities that
        keep the mean; give another seed at each step, such as the step's number. The random bits
        depend on the seed, the tensor's place in the list and the element's place in the tensor,
        not on threads or instruction sets. Parameters with master weights are rounded to nearest.
    dtype : str or dtype, optional
        ``"bfloat16"`` when uint16 arrays hold bfloat16.
    n_threads : int, optional
        None is all that this process may use.

    Returns
    -------
    StepReport
        The gradients' norm, the clip factor, whether a gradient was not finite, what was updated.

    Raises
    ------
    ValueError
        Unequal lengths or shapes, a dtype that is not read, an array that is not writable,
        misaligned or shares memory with another one that is written, or a scalar out of its range.
        Nothing has been written then.
    TypeError
        Something that is not an array or not a number.

    Notes
    -----
    The sum of squares behind ``grad_norm`` is taken in the update's own trip, where it costs no
    memory traffic, unless ``check_finite``, ``grad_scale`` or ``max_norm`` needs it before. See
    Nesterov (1983), "A method for solving the convex programming problem with convergence rate
    O(1/k²)", and Sutskever et al. (2013), "On the importance of initialization and momentum in deep
    learning".

    Examples
    --------
    >>> import numpy as np
    >>> from nagcore import nesterov_step_
    >>> w = np.array([1.0, -2.0], dtype=np.float32)
    >>> buffer = np.zeros_like(w)
    >>> for step in range(200):
    ...     report = nesterov_step_(w, 2 * w, buffer, lr=0.05, first_step=step == 0)
    >>> bool(abs(w).max() < 1e-3)
    True
    >>> report.tensors, report.elements, report.found_inf
    (1, 2, False)

    A gradient that is not finite, refused before anything is written:

    >>> p, g, b = np.ones(3), np.array([1.0, np.nan, 1.0]), np.zeros(3)
    >>> nesterov_step_(p, g, b, lr=0.1, check_finite=True).found_inf
    True
    >>> p
    array([1., 1., 1.])
    """
    return StepReport(
        *_core.nesterov_step(
            params, grads, buffers, ema, master, dtype,
            lr, momentum, lookahead, dampening, weight_decay, decoupled, nesterov, maximize,
            convention, first_step, check_finite, grad_scale, max_norm, ema_decay, seed, n_threads,
        )
    )  # fmt: skip


class NesterovPlan:
    """The arrays of an update, checked once, for loops that step the same arrays many times.

    The plan holds references to the arrays and their addresses. Values may change freely between
    steps, gradients written in place included; an array that is replaced needs a new plan.
    A plan may be stepped from several threads; steps take turns.

    Parameters
    ----------
    params, grads, buffers, ema, master, dtype
        As for :func:`nesterov_step_`, with the same errors.

    Attributes
    ----------
    tensors : int
        Parameters in the plan.
    elements : int
        Their elements.

    Examples
    --------
    >>> import numpy as np
    >>> from nagcore import NesterovPlan
    >>> params = [np.ones((2, 3), dtype=np.float32), np.ones(5, dtype=np.float32)]
    >>> grads = [np.empty_like(p) for p in params]
    >>> buffers = [np.empty_like(p) for p in params]
    >>> plan = NesterovPlan(params, grads, buffers)
    >>> for step in range(3):
    ...     for p, g in zip(params, grads):
    ...         g[...] = 2 * p
    ...     report = plan.step(lr=0.1, momentum=0.5, first_step=step == 0)
    >>> report.elements
    11
    """

    __slots__ = ("_plan",)

    def __init__(
        self,
        params: Arrays,
        grads: Arrays,
        buffers: Arrays | None,
        *,
        ema: Arrays | None = None,
        master: Arrays | None = None,
        dtype: Any = None,
    ) -> None:
        self._plan = _core.NesterovPlan(params, grads, buffers, ema, master, dtype)

    @property
    def tensors(self) -> int:
        """Parameters in the plan."""
        return self._plan.tensors

    @property
    def elements(self) -> int:
        """Elements of the parameters in the plan."""
        return self._plan.elements

    def __repr__(self) -> str:
        return f"NesterovPlan(tensors={self.tensors}, elements={self.elements})"

    def step(
        self,
        *,
        lr: float,
        momentum: float = 0.9,
        lookahead: float | None = None,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        nesterov: bool = True,
        maximize: bool = False,
        convention: Convention = "torch",
        first_step: bool | Sequence[bool] = False,
        check_finite: bool = False,
        grad_scale: float | None = None,
        max_norm: float | None = None,
        ema_decay: float | None = None,
        seed: int = 0,
        n_threads: int | None = None,
    ) -> StepReport:
        """Take one step on the plan's arrays; arguments and maths are :func:`nesterov_step_`'s.

        Returns
        -------
        StepReport

        Examples
        --------
        >>> import numpy as np
        >>> from nagcore import NesterovPlan
        >>> p, g, b = np.ones(4), np.full(4, 0.5), np.zeros(4)
        >>> NesterovPlan(p, g, b).step(lr=1.0, momentum=0.0, nesterov=False).grad_norm
        1.0
        >>> p
        array([0.5, 0.5, 0.5, 0.5])
        """
        return StepReport(
            *self._plan.step(
                lr, momentum, lookahead, dampening, weight_decay, decoupled, nesterov, maximize,
                convention, first_step, check_finite, grad_scale, max_norm, ema_decay, seed,
                n_threads,
            )
        )  # fmt: skip
