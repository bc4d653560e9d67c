"""The oracle's losses, gradients, gap and solvers against scipy, scikit-learn, torch."""

from __future__ import annotations

import ast
import doctest
import importlib
import pathlib
import pkgutil

import numpy as np
import pytest

from nagcore import reference as ref

f32 = np.float32
LOSS = ref.LOSSES
EPS = np.finfo(np.float64).eps


def data(loss, n=40, d=5, k=3, seed=0):
    """X, y, w, z-shaped helpers for one loss, with targets from its domain."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = {
        "real": rng.normal(size=n) * 2,
        "binary": rng.choice([-1.0, 1.0], n),
        "nonnegative": rng.poisson(2.0, n).astype(float),
        "class": rng.integers(0, k, n).astype(float),
    }[ref.LOSSES[loss].targets]
    w = rng.normal(size=(d, k) if loss == "softmax" else d) / 2
    return X, y, w


# ------------------------------------------------------------------------------------ the package
def modules():
    return [ref] + [
        importlib.import_module(f"{ref.__name__}.{m.name}")
        for m in pkgutil.iter_modules(ref.__path__)
    ]


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.__name__)
def test_reference_doctests(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_reference_imports_only_numpy_and_itself():
    for module in modules():
        for node in ast.walk(ast.parse(pathlib.Path(module.__file__).read_text())):
            if isinstance(node, ast.Import):
                assert {a.name for a in node.names} <= {"numpy"}
            if isinstance(node, ast.ImportFrom):
                assert node.level == 1 or node.module in ("__future__", "collections.abc", "typing")


def test_reference_documents_every_function():
    for module in modules():
        for node in ast.walk(ast.parse(pathlib.Path(module.__file__).read_text())):
            if isinstance(node, ast.ClassDef) or (
                isinstance(node, ast.FunctionDef) and node.col_offset == 0
            ):
                doc = ast.get_docstring(node)
                assert doc, f"{node.name} has no docstring"
                assert ">>>" in doc, f"{node.name} has no doctest"


# ------------------------------------------------------------------------------------- the losses
@pytest.mark.parametrize("loss", sorted(ref.LOSSES))
def test_loss_residual_is_derivative_of_value(loss):
    phi = ref.LOSSES[loss]
    X, y, w = data(loss)
    z = X @ w
    y = phi.encode(y, 3)
    r = phi.residual(z, y, 0.7)
    h = 1e-6
    for c in range(1 if z.ndim == 1 else z.shape[1]):
        e = h * (1 if z.ndim == 1 else np.eye(z.shape[1])[c])
        slope = (phi.value(z + e, y, 0.7) - phi.value(z - e, y, 0.7)) / (2 * h)
        np.testing.assert_allclose(slope, r if z.ndim == 1 else r[:, c], rtol=2e-8, atol=2e-8)


@pytest.mark.parametrize("loss", sorted(ref.LOSSES))
def test_loss_curvature_is_derivative_of_residual_and_below_bound(loss):
    phi = ref.LOSSES[loss]
    X, y, w = data(loss)
    z = X @ w
    y = phi.encode(y, 3)
    c = phi.curvature(z, y, 0.7)
    h = 1e-6
    if z.ndim == 1:
        slope = (phi.residual(z + h, y, 0.7) - phi.residual(z - h, y, 0.7)) / (2 * h)
        np.testing.assert_allclose(slope, c, rtol=1e-7, atol=1e-8)
        assert c.max() <= phi.bound
    else:
        for j in range(z.shape[1]):
            e = h * np.eye(z.shape[1])[j]
            slope = (phi.residual(z + e, y) - phi.residual(z - e, y)) / (2 * h)
            np.testing.assert_allclose(slope, c[:, :, j], rtol=1e-7, atol=1e-8)
        assert np.linalg.eigvalsh(c).max() <= phi.bound
    np.testing.assert_array_less(-1e-300, np.linalg.eigvalsh(c) + 1e-16 if z.ndim == 2 else c)


@pytest.mark.parametrize("loss", sorted(ref.LOSSES))
def test_loss_conjugate_meets_fenchel_young(loss):
    """φ(z) + φ*(θ) ≥ zθ for every θ, with equality at θ = r(z)."""
    phi = ref.LOSSES[loss]
    X, y, w = data(loss)
    z, rng = X @ w, np.random.default_rng(1)
    y = phi.encode(y, 3)
    inner = (lambda a, b: a * b) if z.ndim == 1 else (lambda a, b: (a * b).sum(axis=1))
    r = phi.residual(z, y, 0.7)
    np.testing.assert_allclose(
        phi.value(z, y, 0.7) + phi.conjugate(r, y, 0.7), inner(z, r), rtol=1e-12, atol=1e-12
    )
    other = phi.residual(z + rng.normal(size=z.shape), y, 0.7)
    gap = phi.value(z, y, 0.7) + phi.conjugate(other, y, 0.7) - inner(z, other)
    assert (gap >= -1e-12).all()
    assert gap.max() > 1e-3


@pytest.mark.parametrize("loss", sorted(ref.LOSSES))
def test_loss_conjugate_is_infinite_outside_domain(loss):
    phi = ref.LOSSES[loss]
    y = phi.encode(np.array([1.0, 1.0]), 3)
    outside = {"squared": None, "softmax": np.array([[0.5, 0.5, 0.5]])}.get(loss, -y * -5.0)
    if loss == "poisson":
        outside = -y - 1.0
    if outside is not None:
        assert np.isinf(phi.conjugate(outside, y, 0.7)).all()


def test_losses_agree_with_scipy_special():
    special = pytest.importorskip("scipy.special")
    z = np.concatenate([np.linspace(-50, 50, 401), [-1e3, 1e3, -745.0, 745.0]])
    for y in (-1.0, 1.0):
        np.testing.assert_allclose(
            LOSS["logistic"].value(z, y), -special.log_expit(y * z), rtol=4 * EPS, atol=0
        )
        np.testing.assert_allclose(
            LOSS["logistic"].residual(z, y), -y * special.expit(-y * z), rtol=4 * EPS, atol=1e-320
        )
    np.testing.assert_allclose(
        LOSS["logistic"].curvature(z, 1.0),
        special.expit(z) * special.expit(-z),
        rtol=8 * EPS,
        atol=1e-320,
    )
    for delta in (0.5, 1.0, 3.0):
        np.testing.assert_allclose(
            LOSS["huber"].value(z, 1.0, delta), special.huber(delta, z - 1.0), rtol=8 * EPS
        )
    Z = np.random.default_rng(0).normal(size=(50, 4)) * 30
    Y = np.eye(4)[np.arange(50) % 4]
    np.testing.assert_allclose(
        LOSS["softmax"].value(Z, Y),
        special.logsumexp(Z, axis=1) - (Z * Y).sum(1),
        rtol=1e-13,
        atol=1e-13,
    )
    np.testing.assert_allclose(
        LOSS["softmax"].residual(Z, Y), special.softmax(Z, axis=1) - Y, atol=4 * EPS
    )
    np.testing.assert_allclose(
        LOSS["poisson"].conjugate(z[z > 0], 0.0),
        special.xlogy(z[z > 0], z[z > 0]) - z[z > 0],
        rtol=1e-13,
    )


def test_losses_agree_with_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=30), rng.normal(size=30)
    tz, ty = torch.tensor(z), torch.tensor(y)
    F = torch.nn.functional
    pairs = [
        (LOSS["squared"].value(z, y).mean(), F.mse_loss(tz, ty) / 2),
        (LOSS["huber"].value(z, y, 0.7).mean(), F.huber_loss(tz, ty, delta=0.7)),
        (LOSS["logistic"].value(z, np.sign(y)).mean(), F.soft_margin_loss(tz, ty.sign())),
        (LOSS["poisson"].value(z, abs(y)).mean(), F.poisson_nll_loss(tz, ty.abs())),
    ]
    Z, c = rng.normal(size=(30, 4)), rng.integers(0, 4, 30)
    pairs += [
        (
            LOSS["softmax"].value(Z, LOSS["softmax"].encode(c, 4)).mean(),
            F.cross_entropy(torch.tensor(Z), torch.tensor(c)),
        )
    ]
    for ours, theirs in pairs:
        assert float(ours) == pytest.approx(float(theirs), rel=1e-13)


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        ("logistic", [0.0, 0.5]),
        ("logistic", [-1.0, 0.0]),
        ("squared_hinge", [1.0, 2.0]),
        ("poisson", [-1.0]),
        ("squared", [np.nan]),
        ("huber", [np.inf]),
        ("softmax", [0.0, 3.0]),
        ("softmax", [0.5]),
        ("softmax", [[0.5, 0.6, 0.1]]),
        ("softmax", [[0.5, 0.5]]),
        ("softmax", [[1.5, -0.5, 0.0]]),
    ],
)
def test_loss_encode_refuses_targets_outside_domain(loss, y):
    with pytest.raises(ValueError, match=f"y for {loss} must be"):
        ref.LOSSES[loss].encode(y, 3)


# ------------------------------------------------------------------------------ value and gradient
@pytest.mark.parametrize("loss", sorted(ref.LOSSES))
def test_value_and_grad_is_gradient_of_its_value(loss):
    X, y, w = data(loss)
    rng = np.random.default_rng(2)
    w = np.concatenate([w, 0.1 * np.ones_like(w[:1])])
    how = {
        "loss": loss,
        "l2": 0.3,
        "sample_weight": rng.random(len(X)),
        "fit_intercept": True,
        "delta": 0.7,
    }
    how["offset"] = rng.normal(size=len(X) if w.ndim == 1 else (len(X), w.shape[1]))
    _, g = ref.value_and_grad(X, y, w, **how)
    for index in np.ndindex(w.shape):
        e = np.zeros_like(w)
        e[index] = 1e-6
        up, down = (ref.value_and_grad(X, y, w + t * e, **how)[0] for t in (1, -1))
        assert (up - down) / 2e-6 == pytest.approx(g[index], rel=1e-7, abs=1e-8)


def test_value_and_grad_mean_weights_offset_intercept():
    """A weight repeats a row, an offset is a column times 1, an intercept a column of ones."""
    X, y, w = data("logistic")
    base = ref.value_and_grad(np.vstack([X, X[:5]]), np.append(y, y[:5]), w, l2=0.1)
    s = np.ones(len(X))
    s[:5] = 2
    again = ref.value_and_grad(X, y, w, l2=0.1, sample_weight=s)
    assert again[0] == pytest.approx(base[0], rel=1e-14)
    np.testing.assert_allclose(again[1], base[1], rtol=1e-13)
    short = ref.value_and_grad(X[:, :4], y, w[:4], offset=X[:, 4] * w[4])
    whole = ref.value_and_grad(X, y, w)
    assert short[0] == pytest.approx(whole[0], rel=1e-14)
    np.testing.assert_allclose(short[1], whole[1][:4], rtol=1e-12)
    ones = ref.value_and_grad(np.c_[X, np.ones(len(X))], y, np.append(w, 0.5))
    b = ref.value_and_grad(X, y, np.append(w, 0.5), fit_intercept=True)
    assert b[0] == pytest.approx(ones[0], rel=1e-14)
    np.testing.assert_allclose(b[1], ones[1], rtol=1e-12)
    penalised = ref.value_and_grad(X, y, np.append(w, 0.5), fit_intercept=True, l2=2.0)
    assert penalised[0] - b[0] == pytest.approx((w**2).sum())
    np.testing.assert_allclose(penalised[1] - b[1], np.append(2 * w, 0.0), atol=1e-15)


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_value_and_grad_reads_csr_bf16_uint8(loss):
    sparse = pytest.importorskip("scipy.sparse")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    X, y, w = data(loss)
    X = np.where(np.abs(X) < 0.5, 0, X)
    want = ref.value_and_grad(X, y, w, loss=loss)
    got = ref.value_and_grad(sparse.csr_matrix(X), y, w, loss=loss)
    assert got[0] == pytest.approx(want[0], rel=1e-14)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-12, atol=1e-15)
    B = X.astype(ml_dtypes.bfloat16)
    want = ref.value_and_grad(B.astype(np.float64), y, w, loss=loss)
    np.testing.assert_array_equal(ref.value_and_grad(B, y, w, loss=loss)[1], want[1])
    bits = ref.value_and_grad(B.view(np.uint16), y, w, loss=loss, storage="bfloat16")
    np.testing.assert_array_equal(bits[1], want[1])
    U = np.random.default_rng(0).integers(0, 256, X.shape).astype(np.uint8)
    want = ref.value_and_grad(U / 256 - 0.5, y, w, loss=loss)
    got = ref.value_and_grad(U, y, w, loss=loss, scale=1 / 256, shift=-0.5)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-13)


def test_value_and_grad_in_longdouble_is_wider():
    X, y, w = data("logistic")
    value, g = ref.value_and_grad(X, y, w, dtype=np.longdouble)
    assert g.dtype == np.longdouble
    assert np.asarray(value).dtype == np.longdouble
    np.testing.assert_allclose(g.astype(float), ref.value_and_grad(X, y, w)[1], rtol=1e-13)


@pytest.mark.parametrize("loss", sorted(ref.LOSSES))
def test_magnitudes_bound_a_float32_evaluation(loss):
    """The whole computation done naively in float32 stays within n·eps of its magnitudes."""
    X, y, w = data(loss, n=64, d=8)
    X, w, y = X.astype(f32), w.astype(f32), y.astype(f32)
    phi, z = ref.LOSSES[loss], X @ w
    Y = phi.encode(y, 3).astype(f32)
    value, g = ref.value_and_grad(X, y, w, loss=loss)
    of_value, of_g = ref.magnitudes(X, y, w, loss=loss)[:2]
    eps = np.finfo(f32).eps
    naive = X.T @ phi.residual(z, Y, f32(1)).astype(f32) / f32(len(X))
    assert (np.abs(naive - g) <= 16 * eps * of_g).all()
    assert abs(phi.value(z, Y, f32(1)).mean() - value) <= 16 * eps * of_value
    strict = ref.magnitudes(X, y, w, loss=loss, strict=True).gradient
    assert (strict <= of_g).all()


# --------------------------------------------------------------------------------------- the gap
def minimum(loss, X, y, **how):
    optimize = pytest.importorskip("scipy.optimize")
    shape = (X.shape[1] + how.get("fit_intercept", False),) + ((3,) if loss == "softmax" else ())
    fg = lambda v: (lambda a: (a[0], a[1].ravel()))(  # noqa: E731
        ref.value_and_grad(X, y, v.reshape(shape), loss=loss, **how)
    )
    found = optimize.minimize(
        fg,
        np.zeros(shape).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 50000, "ftol": 1e-16, "gtol": 1e-11},
    )
    return found.x.reshape(shape), found.fun


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("loss", sorted(ref.LOSSES))
def test_duality_gap_bounds_and_vanishes(loss, intercept):
    X, y, w = data(loss, n=60)
    rng = np.random.default_rng(3)
    how = {
        "l2": 0.1,
        "sample_weight": rng.random(60) + 0.1,
        "fit_intercept": intercept,
        "delta": 0.7,
    }
    how["offset"] = 0.3 * rng.normal(size=60 if w.ndim == 1 else (60, 3))
    best, value = minimum(loss, X, y, **how)
    if intercept:
        w = np.concatenate([w, w[:1]])
    gap = ref.duality_gap(X, y, w, loss=loss, **how)
    error = ref.value_and_grad(X, y, w, loss=loss, **how)[0] - value
    assert 0 < error <= gap < np.inf
    assert -1e-12 <= ref.duality_gap(X, y, best, loss=loss, **how) <= 1e-8


def test_duality_gap_smooth_equals_gradient_norm():
    X, y, w = data("logistic")
    _, g = ref.value_and_grad(X, y, w, l2=0.2)
    assert ref.duality_gap(X, y, w, l2=0.2) == pytest.approx((g**2).sum() / 0.4, rel=1e-12)


@pytest.mark.parametrize(("l2", "ratio"), [(0.0, 1.0), (0.05, 0.5)])
def test_duality_gap_certifies_lasso_and_elastic_net(l2, ratio):
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y, _ = data("squared", n=80, d=10)
    l1 = 0.05
    model = linear_model.ElasticNet(
        alpha=l1 + l2, l1_ratio=l1 / (l1 + l2), tol=1e-14, max_iter=100000
    ).fit(X, y)
    w = np.append(model.coef_, model.intercept_)
    how = {"loss": "squared", "l1": l1, "l2": l2, "fit_intercept": True}
    assert -1e-13 <= ref.duality_gap(X, y, w, **how) <= 1e-10
    assert ref.duality_gap(X, y, np.zeros(11), **how) > 1e-3


def test_duality_gap_single_class_is_the_value_itself():
    """The best intercept runs to infinity and F* to l2's part alone: θ = 0, D = 0."""
    X, _, w = data("logistic")
    how = {"l2": 1.0, "fit_intercept": True}
    value, _ = ref.value_and_grad(X, np.ones(40), np.append(w, 0), **how)
    assert ref.duality_gap(X, np.ones(40), np.append(w, 0), **how) == pytest.approx(value)


# ---------------------------------------------------------------------------------- the solvers
@pytest.mark.parametrize("method", [ref.fista, ref.acfgm])
def test_solvers_reach_scikit_learn_optimum(method):
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y, _ = data("logistic", n=200)
    smooth = linear_model.LogisticRegression(C=1 / (0.1 * 200), fit_intercept=False, tol=1e-12)
    w = method(lambda w: ref.value_and_grad(X, y, w, l2=0.1), np.zeros(5), n_iter=1500)
    np.testing.assert_allclose(w, smooth.fit(X, y).coef_[0], atol=2e-6)
    X, y, _ = data("squared", n=200)
    lasso = linear_model.Lasso(alpha=0.1, fit_intercept=False, tol=1e-14).fit(X, y)
    w = method(
        lambda w: ref.value_and_grad(X, y, w, loss="squared"),
        np.zeros(5),
        prox=lambda x, eta: ref.prox_l1(x, 0.1 * eta),
        n_iter=1500,
    )
    np.testing.assert_allclose(w, lasso.coef_, atol=2e-6)
    assert ref.duality_gap(X, y, w, loss="squared", l1=0.1) < 1e-9


def test_acfgm_accelerates_on_a_badly_conditioned_quadratic():
    """O(1/k²): after k steps well below gradient descent's L‖x‖²/(2k) on the worst directions."""
    a = np.geomspace(1e-4, 1, 200)
    fg = lambda x: (float((a * x * x).sum() / 2), a * x)  # noqa: E731
    x0 = np.ones(200)
    plain = x0 * (1 - a) ** 400
    for method in (ref.acfgm, ref.fista):
        assert fg(method(fg, x0, n_iter=400))[0] < fg(plain)[0] / 5


def test_prox_l1_minimises():
    grid = np.linspace(-5, 5, 200001)
    for x in (-3.3, -0.2, 0.0, 0.7, 2.1):
        best = grid[np.argmin(0.9 * np.abs(grid) + (grid - x) ** 2 / 2)]
        assert float(ref.prox_l1(np.float64(x), 0.9)) == pytest.approx(best, abs=1e-4)
