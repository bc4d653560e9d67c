"""Duality gaps from margins and residuals alone, so that every registered loss has its certificate.

The dual of docs/maths.md asks for the conjugate φ* at a point θ. All points used here are residuals
θ = φ'(z') of some margins z', or multiples of them, and for those the Fenchel-Young inequality
turns into a Bregman divergence, which needs no formula of φ* (and offsets drop out):

    F(w) − D(θ) = (1/S) Σ s_i [φ(z_i) + φ*(θ_i) − z_i θ_i]  +  [Ω(w) + Ω*(−u) + ⟨w, u⟩],   u =
    Xᵀ(s∘θ)/S

The first bracket vanishes at θ = φ'(z). Both are sums of terms ≥ 0, so nothing cancels. An
unpenalised intercept asks for Σ s_i θ_i = 0, which holds at the best intercept for the given w up
to rounding; what rounding leaves is removed, and paid for.

`s` below is the vector of weights divided by their sum, or None for equal weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nagcore import _core
from nagcore.objective.intercept import best_intercept, dot, mean_size, row_mean
from nagcore.penalties import Penalty

__all__ = [
    "Certificate", "best_intercept", "certify", "dot", "imbalance", "infeasibility", "mean_size",
    "penalty_gap", "row_mean",
]

_ROUNDED = 16 * float(np.finfo(np.float64).eps)
_TAIL = 1e-2  # in margins
_BLOCK = 1 << 15  # rows whose numbers stay in cache while a few of them are computed
_FAR = 100.0  # intercepts of classes are bounded to this many times the largest margin


def imbalance(theta: np.ndarray, excess: float, size: float) -> np.ndarray | float:
    """Factors in [0, 1], one per row, that make Σ s_i θ_i vanish: the heavier sign shrinks.

    `excess` is Σ s_i θ_i, `size` is Σ s_i |θ_i|.

    Zero lies in the domain of every conjugate of docs/maths.md, so the products stay inside.
    Returns 1.0 where nothing is to be done.
    """
    total = 0.5 * (size + abs(excess))  # of the heavier sign
    share = abs(excess) / total if total else 0.0
    # Each θ_i is rounded by as much: a mean so small cannot be told from zero.
    if share <= _ROUNDED:
        return 1.0
    return np.where(theta > 0 if excess > 0 else theta < 0, 1 - share, 1.0)


def penalty_gap(w: np.ndarray, u: np.ndarray, penalty: Penalty) -> float:
    """Ω(w) + Ω*(−u) + ⟨w, u⟩ ≥ 0 for Ω = l1‖·‖₁ + (l2/2)‖·‖²; infinite where u is not dual feasible.

    With −u = soft + clip (soft threshold at l1), each coordinate adds (l2 w − soft)²/(2 l2) and
    l1|w| − w·clip, both without cancellation.

    Within bounds: `Box.fenchel`.

    >>> penalty_gap(np.array([1.0]), np.array([-0.5]), Penalty(l2=0.5))
    0.0
    >>> penalty_gap(np.array([0.0]), np.array([2.0]), Penalty(l2=0.5, positive=True))
    0.0
    """
    l1, l2 = penalty.l1, penalty.l2
    if penalty.bounds is not None:
        return penalty.bounds.fenchel(w, u, l1, l2)
    if l1 == 0:
        q = u + l2 * w
        return dot(q, q) / (2 * l2) if l2 else (0.0 if not q.any() else np.inf)
    clip = np.minimum(np.maximum(-u, -l1), l1)
    kept = float((l1 * np.abs(w) - w * clip).sum())
    if l2 == 0:
        return kept if float(np.abs(u).max()) <= l1 * (1 + 4e-16) else np.inf
    q = l2 * w + u + clip
    return kept + dot(q, q) / (2 * l2)


def infeasibility(u: np.ndarray, penalty: Penalty) -> float:
    """What must be within l1 for u to be dual feasible at l2 = 0: max |u|, or over infinite sides only."""
    return float(np.abs(u).max()) if penalty.bounds is None else penalty.bounds.excess(u)


def _scaling_gap(problem, z, r, alpha, s, curvature, moved=None) -> float:
    """A bound on (1/S) Σ s_i [φ(z_i) + φ*(α_i r_i) − α_i z_i r_i], of second order in 1 − α_i.

    The bracket is the divergence between z and the margins z' with φ'(z') = α φ'(z). It is at most
    (φ'(z) − φ'(z'))(z − z'), and that at most (1 − α) φ'(z) (z − z″) for any z″ beyond z', which a
    few O(n) evaluations of the residual find. For classes z″ raises the one margin whose residual
    is negative: by this alone the residual of a class label stays parallel to itself.

    `moved` is a buffer for z″; z itself, where it is not needed any more.
    """
    if alpha == 1 if isinstance(alpha, float) else (alpha == 1).all():
        return 0.0
    if problem.core.loss == "squared":  # exactly ((1 − α_i) r_i)²/2
        left = np.broadcast_to(1 - np.asarray(alpha), r.shape)
        weight = np.broadcast_to(1 / len(r), r.shape) if s is None else s
        return 0.5 * float(np.einsum("i,i,i,i,i->", weight, left, left, r, r, dtype=np.float64))
    moved = np.empty_like(z) if moved is None else moved
    if z.ndim == 1:
        return _rows_gap(problem, z, r, alpha, s, curvature, moved)
    return _classes_gap(problem, z, r, alpha, s, curvature, moved)


def _curved(problem, z, curvature) -> tuple[Any, float]:
    """The curvature at z where there is one to be had, and what serves where that says nothing."""
    bend = min(curvature, 1e3)
    here = None
    if np.isfinite(curvature) and getattr(problem, "second_order", False):
        # What the curvature is here it mostly is on the way to z″, too.
        here = problem.curvature_from_margins(z)
    return here, bend


def _rows_gap(problem, z, r, alpha, s, curvature, moved) -> float:
    """With one margin a row, in blocks of rows: beside z, r and `moved` one vector and a half are made."""
    n = len(z)
    here, bend = _curved(problem, z, curvature)
    residual = np.empty_like(z) if here is None else here
    step = np.empty(n, np.float32)  # any lengths do that take each row beyond its z'
    parts = [slice(i, i + _BLOCK) for i in range(0, n, _BLOCK)]

    def at(values: Any, part: slice) -> Any:
        return values[part] if isinstance(values, np.ndarray) else values

    for part in parts:
        length = np.abs(r[part])
        if here is None:
            length /= bend
        else:
            length /= np.where(here[part] > 1e-4 * bend, 0.9 * here[part], bend)
        # Residuals that are small for good (an exponential's) shrink by 1 − α over a step of about that.
        np.maximum(length, _TAIL, out=length)
        length *= (1 - at(alpha, part)) * (1 + 1e-6)
        step[part] = length
        # The steps as they were rounded are those that the bound is about.
        np.add(z[part], np.where(r[part] > 0, -step[part], step[part]), out=moved[part])
    for _ in range(40):
        problem.loss_from_margins(moved, residual)
        some = False
        for part in parts:
            # The residual beyond, with the sign that it had: more than α of what it was is short.
            limit, down = r[part] * at(alpha, part), r[part] > 0
            short = np.flatnonzero(np.where(down, residual[part] > limit, residual[part] < limit))
            if short.size:
                some, further = True, 3 * step[part][short]
                step[part][short] += further
                moved[part][short] += np.where(down[short], -further, further)
        if not some:
            break
    else:
        return np.inf
    for part in parts:
        np.multiply(np.abs(r[part]), step[part], out=residual[part])
        residual[part] *= 1 - at(alpha, part)
    return float(row_mean(residual, s))


def _classes_gap(problem, z, r, alpha, s, curvature, moved) -> float:
    """With a margin for each class, of which one moves in each row."""
    pick: Any = (np.arange(len(z)), r.argmin(axis=1))
    rp = r[pick]
    down = rp > 0
    step, (here, bend) = np.abs(rp), _curved(problem, z, curvature)
    if here is not None:
        flat = ~(here > 1e-4 * bend)
        here *= 0.9
        here[flat] = bend
        step /= here
        del here
    else:
        step /= bend
    np.maximum(step, _TAIL, out=step)
    step *= (1 - alpha) * (1 + 1e-6)
    residual = np.empty_like(z)
    if moved is not z:
        np.copyto(moved, z)
    moved[pick] += np.where(down, -step, step)
    for _ in range(40):
        problem.loss_from_margins(moved, residual)
        beyond, limit = residual[pick], rp * alpha
        short = np.where(down, beyond > limit, beyond < limit)
        if not short.any():
            break
        further = np.where(short, 3 * step, 0.0)
        step += further
        moved[pick] += np.where(down, -further, further)
    else:
        return np.inf
    ratio = np.divide(residual[pick], rp, out=np.zeros_like(rp), where=rp != 0)
    np.multiply(r, ratio[:, None], out=moved)
    residual -= moved
    if max(residual.max(), -residual.min()) > 1e-12:
        return np.inf  # targets that are probabilities: this argument does not cover them
    step *= np.abs(rp, out=rp)
    step *= 1 - alpha
    return float(row_mean(step, s))


class Certificate(NamedTuple):
    """What one dual point proves about w."""

    w: np.ndarray       # w with the best intercept for it (w itself where there is none)
    value: float        # F at that w
    gap: float          # F at that w minus a lower bound of min F; infinite where there is no bound
    given_value: float  # F at the w that was given
    slope: np.ndarray | None = None  # Xᵀ(s∘θ)/S of the dual point θ


def certify(
    problem, w, penalty: Penalty, s, curvature, *, z=None, r=None, u=None, spare=None
) -> Certificate:
    """Bound F(w) − min F from above.

    Where the core has the problem and w has no bounds, the core does all this (csrc/engine/certificate.cc):
    on small tables it is a third of a fit otherwise.

    Without an intercept the dual point is the residual at w (one pass, or none if `z`, `r` and the
    data gradient `u` are known). With one, the margins (one pass, or none if `z` is known) give the
    best intercept in O(n), and the residuals there, which sum to zero, take one pass of Xᵀ.

    Parameters
    ----------
    problem : _core.Problem with compute="float64"
    w : ndarray of shape (p,) or (p, k), float64
    penalty : Penalty
    s : ndarray of shape (n,) or None
        Weights that sum to one.
    curvature : float
        A bound on φ''.
    z, r, u : ndarray, optional
        Margins, residuals and data gradient at w.
    spare : ndarray like z, optional
        A buffer that may be written.

    Returns
    -------
    Certificate
    """
    core = getattr(problem, "core", problem)
    if penalty.bounds is None and isinstance(core, _core.Problem):
        if core is not problem:
            problem.count(1 + (z is None) if core.fit_intercept else int(u is None))
        return Certificate(*_core.certify(core, w, penalty.l1, penalty.l2, curvature, z, r, u, spare))
    kept: np.ndarray | float
    d, kept, unbalanced, own = problem.d, 1.0, 0.0, False
    if problem.p > d:
        z = problem.margins(w) if z is None else z
        given = z
        b, best_value, z, r, data_value, mean, size = best_intercept(
            problem, z, s, curvature, spare=spare)
        w = w.copy()
        w[d] += b
        if z.ndim == 1:
            kept = imbalance(r, float(mean), size)
        else:
            # Bounds F over all intercepts within this of the best. As above, what cannot be told from
            # zero is taken for it.
            excess = float(np.abs(mean).sum())
            unbalanced = _FAR * (1 + float(np.abs(z).max())) * excess if excess > _ROUNDED * size else 0.0
        if isinstance(kept, float):
            u = problem.rmatvec(r)
        elif z is given:
            u = problem.rmatvec(r * kept)
        else:  # the balanced residuals lie where the margins do, for the length of a pass
            u = problem.rmatvec(np.multiply(r, kept, out=z))
            np.add(given, b, out=z, casting="same_kind")
        own, given = z is not given, None
    else:
        if u is None:
            shape = (problem.n,) if w.ndim == 1 else (problem.n, w.shape[1])
            z, r = np.empty(shape, problem.compute), np.empty(shape, problem.compute)
            data_value, u = problem.value_and_grad(w, margins=z, residuals=r)
        else:
            data_value = problem.loss_from_margins(z)
        best_value = data_value
    wd, ud = w[:d], u[:d]
    scales = [1.0] if penalty.l2 or (penalty.provable and not penalty.l1) else []
    if penalty.l1:
        largest = infeasibility(ud, penalty)
        if largest > penalty.l1 or not scales:
            scales.append(min(1.0, penalty.l1 / largest) if largest else 1.0)
    gap, slope = np.inf, None
    for alpha in scales:
        fenchel = penalty_gap(wd, alpha * ud, penalty) + alpha * unbalanced
        if fenchel < gap:
            last = own and alpha == scales[-1]  # margins of our own are not needed after that
            shrunk = _scaling_gap(problem, z, r, kept if alpha == 1 else alpha * kept, s, curvature,
                                  z if last else None if z is spare else spare)
            if fenchel + shrunk < gap:
                gap, slope = fenchel + shrunk, alpha * ud
    extra = 0.5 * penalty.l2 * dot(wd, wd)
    if penalty.l1:
        extra += penalty.l1 * float(np.abs(wd).sum())
    return Certificate(w, best_value + extra, gap, data_value + extra, slope)
