"""What "auto" takes for least squares: a Gram matrix of all rows, or passes in the metric of some."""

from __future__ import annotations

import numpy as np
import pytest

from nagcore import Objective, minimize
from nagcore.solvers.auto import choose
from nagcore.solvers.rows import sample_size
from nagcore.solvers.tails import heavy_tailed


def shaped(n, p, dtype):
    """An objective of p coefficients whose X takes no memory until it is read."""
    return Objective(np.zeros((n, p - 1), dtype), np.arange(n) % 2.0, loss="squared", l2=1e-3)


# Measured to 1e-6: milliseconds of "normal" and of "plbfgs".
MEASURED = {
    (20_000, 100, "float32"): (3.2, 4.6), (60_000, 100, "float32"): (8.0, 8.8),
    (100_000, 50, "float32"): (5.6, 9.0), (1_000_000, 50, "float32"): (65, 87),
    (60_000, 200, "float32"): (22, 15), (60_000, 400, "float32"): (93, 34),
    (20_000, 400, "float32"): (37, 20), (20_000, 1000, "float32"): (166, 69),
    (100_000, 700, "float32"): (430, 177), (20_000, 100, "float64"): (3.5, 5.5),
    (60_000, 100, "float64"): (8.6, 11.2), (200_000, 100, "float64"): (32, 48),
    (60_000, 400, "float64"): (106, 72), (20_000, 1000, "float64"): (176, 130),
}  # fmt: skip


@pytest.mark.parametrize(("n", "d", "dtype"), MEASURED)
def test_the_faster_of_two_is_chosen(n, d, dtype):
    name, why = choose(shaped(n, d + 1, dtype))
    normal, sampled = MEASURED[n, d, dtype]
    assert name == ("normal" if normal < sampled else "plbfgs")
    assert ("the next confirms" if name == "normal" else f"the Gram matrix of {d + 1} columns") in why


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_few_rows_or_many_columns_are_solved_exactly(dtype):
    """A sample is no smaller than X, or its metric would be a diagonal."""
    assert sample_size(4_000, 500) == 4_000
    for n, p in ((4_000, 500), (600, 400), (50_000, 1500), (20_000, 2000)):
        assert choose(shaped(n, p, dtype))[0] == "normal"
    no_penalty = Objective(np.zeros((60_000, 400), dtype), np.zeros(60_000), loss="squared")
    assert choose(no_penalty)[0] == "normal"


def tails(kind, shape):
    rng = np.random.default_rng(0)
    return {"normal": rng.standard_normal, "t4": lambda shape: rng.standard_t(4, shape),
            "t2.5": lambda shape: rng.standard_t(2.5, shape),
            "lognormal": lambda shape: rng.lognormal(0, 1.5, shape),
            "rows": lambda shape: rng.standard_normal(shape) * rng.standard_t(2.1, (shape[0], 1)),
            "rare": lambda shape: (rng.random(shape) < 0.01).astype(float),
            "one value": np.ones, "flags": lambda shape: rng.integers(0, 2, shape).astype(float),
            }[kind](shape)  # fmt: skip


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("kind", "heavy"), [
    ("normal", False), ("t4", False), ("t2.5", True), ("lognormal", True), ("rows", True), ("rare", False),
    ("one value", False), ("flags", False),
])  # fmt: skip
def test_tails_are_seen_in_a_few_rows(kind, heavy, order):
    X = np.asarray(tails(kind, (60_000, 40)), np.float32, order=order)
    assert heavy_tailed(X) is heavy
    assert not heavy_tailed(X[:100])
    assert not heavy_tailed(np.zeros(X.shape, np.uint8))
    X[:, 0] = np.nan
    assert not heavy_tailed(X)  # a pass tells of it, and names the place


def test_heavy_tails_are_solved_exactly_where_passes_would_be_twice_as_many():
    y = np.random.default_rng(1).standard_normal(60_000)
    plain, heavy = (Objective(tails(kind, (60_000, 150)).astype(np.float32), y, loss="squared", l2=1e-5)
                    for kind in ("normal", "t2.5"))
    assert choose(plain)[0] == "plbfgs"
    assert choose(heavy)[0] == "normal"
    assert minimize(heavy, solver="plbfgs").n_passes > 1.5 * minimize(plain, solver="plbfgs").n_passes


def test_the_normal_equations_take_one_gram_matrix():
    """In float64 at once: X, a gradient, and what proves it."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40_000, 70)).astype(np.float32)
    assert X.nbytes > 1 << 22
    found = minimize(Objective(X, X[:, 0] + rng.standard_normal(40_000), loss="squared", l2=1e-3), tol=1e-9)
    assert (found.solver, found.converged) == ("normal", True)
    assert found.n_passes == 3
