"""One-file models: what comes back, and what is refused."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest

from nagcore import model_io
from nagcore.model_io import Model, load_model, save_model


def _model(k=None, **more):
    rng = np.random.default_rng(3)
    shape = (4,) if k is None else (4, k)
    classes = np.array(["ja", "nein"]) if k is None else np.arange(k) * 10
    return Model(
        "logistic" if k is None else "softmax", rng.normal(size=shape), rng.normal(size=shape[1:]),
        classes, ("a", "b", "c=u", "c=v"), ("a", "b", "c"), {"c": ("u", "v")}, None, "t",
        {"l2": 0.5, "gap": float("inf")}, [{"passes": 1, "value": 0.5}], **more,
    )  # fmt: skip


@pytest.mark.parametrize("k", [None, 3])
def test_model_roundtrip_is_exact(tmp_path, k):
    model, path = _model(k), tmp_path / "m.nagcore"
    save_model(model, path)
    back = load_model(path)
    for name in ("coef", "intercept", "classes"):
        a, b = getattr(model, name), getattr(back, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    for name in ("loss", "feature_names", "columns", "categories", "index_base", "target"):
        assert getattr(back, name) == getattr(model, name)
    assert back.history == model.history
    assert back.info == {"l2": 0.5, "gap": None}  # JSON has no infinity


def test_model_prediction_matches_formulas():
    X = np.random.default_rng(0).normal(size=(50, 4)) * 100
    two, many = _model(), _model(3)
    z = X @ two.coef + two.intercept
    p = two.predict_proba(X)
    np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp(-z)), rtol=1e-12)
    with np.errstate(over="raise"):
        assert two.predict_proba(1e4 * X).sum() == pytest.approx(50, rel=1e-14)
    np.testing.assert_array_equal(two.predict(X), np.where(z > 0, "nein", "ja"))
    q = many.predict_proba(X)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_array_equal(
        many.predict(X), 10 * np.argmax(X @ many.coef + many.intercept, axis=1)
    )


def test_model_poisson_predicts_rates():
    model = Model("poisson", np.array([0.5]), np.array(1.0))
    np.testing.assert_allclose(model.predict(np.array([[2.0]])), [np.exp(2.0)])
    with pytest.raises(ValueError, match="'poisson', which gives no probabilities"):
        model.predict_proba(np.array([[2.0]]))


def test_model_margins_same_in_blocks_and_sparse(monkeypatch):
    sparse = pytest.importorskip("scipy.sparse")
    X = np.random.default_rng(0).integers(0, 3, size=(101, 4)).astype(np.uint8)
    model = _model(3)
    whole = model.margins(X)
    np.testing.assert_allclose(model.margins(sparse.csr_matrix(X)), whole, rtol=1e-12)
    monkeypatch.setattr(model_io, "_BLOCK_BYTES", 8 * 4 * 10)
    np.testing.assert_allclose(model.margins(X), whole, rtol=1e-14)


def test_model_refuses_other_widths():
    with pytest.raises(ValueError, match=r"shape \(5, 3\) and the model takes 4 features"):
        _model().predict(np.zeros((5, 3)))


def test_load_refuses_every_truncation(tmp_path):
    path = tmp_path / "m.nagcore"
    save_model(_model(), path)
    whole = path.read_bytes()
    for length in [0, 1, 4, 100, *range(200, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a whole nagcore model"):
            load_model(path)


def test_load_refuses_flipped_bits(tmp_path):
    path = tmp_path / "m.nagcore"
    save_model(_model(), path)
    whole = bytearray(path.read_bytes())
    at = whole.index(np.float64(_model().coef[0]).tobytes())
    whole[at] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(ValueError, match="not a whole nagcore model"):
        load_model(path)


def test_load_refuses_other_versions(tmp_path, monkeypatch):
    path = tmp_path / "m.nagcore"
    with monkeypatch.context() as patch:
        patch.setattr(model_io, "VERSION", 2)
        save_model(_model(), path)
    with pytest.raises(ValueError, match="has model format 2; this nagcore reads 1"):
        load_model(path)


@pytest.mark.parametrize("content", [{"X": np.ones(3)}, {"meta": np.frombuffer(b"[1]", np.uint8)}])
def test_load_refuses_other_npz(tmp_path, content):
    path = tmp_path / "m.npz"
    np.savez(path, **content)
    with pytest.raises(ValueError, match="not a whole nagcore model"):
        load_model(path)


def test_load_refuses_pickles(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, meta=np.array([{"format": "nagcore-model"}], dtype=object))
    with pytest.raises(ValueError, match="not a whole nagcore model"):
        load_model(path)


def test_load_refuses_inconsistent_shapes(tmp_path):
    path = tmp_path / "m.nagcore"
    model = _model()
    model.feature_names = ("a",)
    save_model(model, path)
    with pytest.raises(ValueError, match=r"damaged.*1 names for 4 coefficients"):
        load_model(path)


def test_load_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model"):
        load_model(tmp_path / "none")


def test_file_holds_no_pickle(tmp_path):
    path = tmp_path / "m.nagcore"
    save_model(_model(), path)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == [
            "classes.npy", "coef.npy", "intercept.npy", "meta.npy"
        ]  # fmt: skip
    np.load(path, allow_pickle=False)["meta"]


def test_atomic_write_leaves_the_old_file_on_error(tmp_path):
    path = tmp_path / "m.nagcore"
    path.write_bytes(b"old")

    def fail():
        with model_io.atomic_write(path) as stream:
            stream.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.nagcore"]
    with model_io.atomic_write(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["m.nagcore"]


def test_atomic_write_honours_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with model_io.atomic_write(tmp_path / "a", "w") as stream:
            stream.write("x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_atomic_write_names_missing_folder(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="does not exist; make it first"),
        model_io.atomic_write(tmp_path / "no" / "m"),
    ):
        pass
