"""The losses, each once: φ, r, φ'', φ* as docs/maths.md states them."""

from __future__ import annotations

import numpy as np


def _sigmoid(t):
    """σ(t) = 1/(1 + e^{−t}), never through the exponential of a large number.

    >>> _sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    e = np.exp(-np.abs(t))
    return np.where(t >= 0, 1, e) / (1 + e)


def _xlogx(u):
    """u ln u, continued by 0 at u = 0 and by +∞ below, as conjugates need it.

    >>> _xlogx(np.array([0.0, 1.0, -1.0])).tolist()
    [0.0, 0.0, inf]
    """
    return np.where(u < 0, np.inf, u * np.log(np.where(u > 0, u, 1)))


class Loss:
    """One loss: ``value`` φ, ``residual`` r, ``curvature`` φ'', ``conjugate`` φ*(θ), its targets.

    ``targets`` is "real", "binary", "class" or "nonnegative"; ``bound`` bounds φ'' (∞ where nothing
    does).

    >>> sorted(LOSSES)
    ['huber', 'logistic', 'poisson', 'softmax', 'squared', 'squared_hinge']
    """

    name, targets, bound = "", "real", 1.0

    @staticmethod
    def operands(z, y):
        """(Of φ, of r): the sizes of the numbers they are differences of, whose rounding no formula
        avoids; none, unless a loss says otherwise.

        >>> Squared.operands(1.0, 1.0)
        (0.0, 0.0)
        """
        return 0.0, 0.0

    @classmethod
    def encode(cls, y, k: int = 1):
        """Targets as the formulas want them: ±1 for binary, one-hot or probabilities for class.

        >>> Logistic.encode([0, 1, 1]).tolist(), Softmax.encode([1, 0], 2).tolist()
        ([-1.0, 1.0, 1.0], [[0.0, 1.0], [1.0, 0.0]])
        >>> Poisson.encode([-1.0])
        Traceback (most recent call last):
        ValueError: y for poisson must be finite and >= 0
        """
        y = np.asarray(y, dtype=np.float64)
        ok, wants = bool(np.isfinite(y).all()), "finite"
        if cls.targets == "nonnegative":
            ok, wants = ok and bool((y >= 0).all()), "finite and >= 0"
        elif cls.targets == "binary":
            ok = bool(np.isin(y, (-1, 1)).all() or np.isin(y, (0, 1)).all())
            y, wants = np.where(y > 0, 1.0, -1.0), "in {-1, +1} or in {0, 1}"
        elif cls.targets == "class" and y.ndim == 1:
            ok, wants = bool(np.isin(y, np.arange(k)).all()), f"whole numbers in 0..{k - 1}"
            y = (y[:, None] == np.arange(k)).astype(np.float64)
        elif cls.targets == "class":
            ok = ok and y.shape[1] == k and bool((y >= 0).all())
            ok = ok and np.allclose(y.sum(axis=1), 1, atol=1e-6)
            wants = f"rows of {k} probabilities"
        if not ok:
            raise ValueError(f"y for {cls.name} must be {wants}")
        return y


class Squared(Loss):
    """φ = (z − y)²/2,  r = z − y,  φ'' = 1,  φ*(θ) = θ²/2 + θy.

    >>> Squared.value(3.0, 1.0), Squared.residual(3.0, 1.0), Squared.conjugate(2.0, 1.0)
    (2.0, 2.0, 4.0)
    """

    name = "squared"
    value = staticmethod(lambda z, y, delta=1.0: (z - y) ** 2 / 2)
    residual = staticmethod(lambda z, y, delta=1.0: z - y)
    curvature = staticmethod(lambda z, y, delta=1.0: np.ones_like(z))
    conjugate = staticmethod(lambda t, y, delta=1.0: t**2 / 2 + t * y)


class Logistic(Loss):
    """y = ±1: φ = max(−yz, 0) + log1p(e^{−|z|}),  r = −yσ(−yz),  φ'' = σ(z)σ(−z) ≤ 1/4,
    φ*(θ) = a ln a + (1−a) ln(1−a) with a = −yθ in [0, 1].

    >>> float(Logistic.value(np.array(-800.0), 1.0)), float(Logistic.residual(np.array(0.0), 1.0))
    (800.0, -0.5)
    """

    name, targets, bound = "logistic", "binary", 0.25
    residual = staticmethod(lambda z, y, delta=1.0: -y * _sigmoid(-y * z))
    curvature = staticmethod(lambda z, y, delta=1.0: _sigmoid(z) * _sigmoid(-z))
    conjugate = staticmethod(lambda t, y, delta=1.0: _xlogx(-y * t) + _xlogx(1 + y * t))

    @staticmethod
    def value(z, y, delta=1.0):
        return np.maximum(-y * z, 0) + np.log1p(np.exp(-np.abs(z)))


class Softmax(Loss):
    """z and y are (n, k), y one-hot or probabilities, p = softmax(z): φ = logsumexp(z) − yᵀz,
    r = p − y,  φ'' = diag(p) − ppᵀ as (n, k, k), below ½;  φ*(θ) = Σ q ln q with q = θ + y in the
    simplex.

    >>> z, y = np.array([[0.0, 0.0]]), np.array([[1.0, 0.0]])
    >>> Softmax.residual(z, y).tolist(), Softmax.curvature(z, y).tolist()
    ([[-0.5, 0.5]], [[[0.25, -0.25], [-0.25, 0.25]]])
    """

    name, targets, bound = "softmax", "class", 0.5
    residual = staticmethod(lambda z, y, delta=1.0: Softmax.p(z) - y)
    operands = staticmethod(lambda z, y: (0.0, Softmax.p(z) + y))

    @staticmethod
    def p(z):
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    @staticmethod
    def value(z, y, delta=1.0):
        z = z - z.max(axis=-1, keepdims=True)
        return np.log(np.exp(z).sum(axis=-1)) - (y * z).sum(axis=-1)

    @staticmethod
    def curvature(z, y, delta=1.0):
        p = Softmax.p(z)[..., None]
        return p * np.eye(z.shape[-1]) - p * np.swapaxes(p, -1, -2)

    @staticmethod
    def conjugate(t, y, delta=1.0):
        q = t + y
        q = np.where((q < 0) & (q > -1e-12), 0, q)  # θ = p − y comes back a rounding below zero
        return np.where(np.abs(q.sum(axis=-1) - 1) < 1e-9, _xlogx(q).sum(axis=-1), np.inf)


class Huber(Loss):
    """u = z − y: φ = u²/2 where |u| ≤ δ, else δ|u| − δ²/2,  r = clip(u, −δ, δ),  φ'' = 1 inside,
    0 outside,  φ*(θ) = θ²/2 + θy on |θ| ≤ δ.

    >>> float(Huber.value(5.0, 0.0, 2.0)), float(Huber.residual(5.0, 0.0, 2.0))
    (8.0, 2.0)
    """

    name = "huber"
    residual = staticmethod(lambda z, y, delta=1.0: np.clip(z - y, -delta, delta))
    curvature = staticmethod(lambda z, y, delta=1.0: np.where(np.abs(z - y) <= delta, 1.0, 0.0))

    @staticmethod
    def value(z, y, delta=1.0):
        u = np.abs(z - y)
        return np.where(u <= delta, u**2 / 2, delta * u - delta**2 / 2)

    @staticmethod
    def conjugate(t, y, delta=1.0):
        return np.where(np.abs(t) <= delta * (1 + 1e-12), t**2 / 2 + t * y, np.inf)


class Poisson(Loss):
    """y ≥ 0, μ = e^z: φ = μ − yz,  r = μ − y,  φ'' = μ,  φ*(θ) = u ln u − u with u = θ + y ≥ 0.

    >>> float(Poisson.value(0.0, 2.0)), float(Poisson.residual(0.0, 2.0))
    (1.0, -1.0)
    """

    name, targets, bound = "poisson", "nonnegative", np.inf
    value = staticmethod(lambda z, y, delta=1.0: np.exp(z) - y * z)
    residual = staticmethod(lambda z, y, delta=1.0: np.exp(z) - y)
    curvature = staticmethod(lambda z, y, delta=1.0: np.exp(z))
    conjugate = staticmethod(lambda t, y, delta=1.0: _xlogx(t + y) - (t + y))
    operands = staticmethod(lambda z, y: (np.exp(z) + np.abs(y * z), np.exp(z) + y))


class SquaredHinge(Loss):
    """y = ±1, m = max(0, 1 − yz): φ = m²/2,  r = −ym,  φ'' = 1 where yz < 1, else 0,
    φ*(θ) = a²/2 − a with a = −yθ ≥ 0.

    >>> float(SquaredHinge.value(-1.0, 1.0)), float(SquaredHinge.residual(-1.0, 1.0))
    (2.0, -2.0)
    """

    name, targets = "squared_hinge", "binary"
    value = staticmethod(lambda z, y, delta=1.0: np.maximum(0, 1 - y * z) ** 2 / 2)
    residual = staticmethod(lambda z, y, delta=1.0: -y * np.maximum(0, 1 - y * z))
    curvature = staticmethod(lambda z, y, delta=1.0: np.where(y * z < 1, 1.0, 0.0))

    @staticmethod
    def conjugate(t, y, delta=1.0):
        return np.where(-y * t >= 0, t**2 / 2 + y * t, np.inf)


LOSSES = {c.name: c for c in (Squared, Logistic, Softmax, Huber, Poisson, SquaredHinge)}

