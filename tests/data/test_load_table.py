"""Reading files: every format gives the same numbers, and every bad file one clear error."""

from __future__ import annotations

import bz2
import gzip

import numpy as np
import pytest

from nagcore.data import BUILTIN, load_table, match_classes

N, D = 57, 4


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    X = np.round(rng.normal(size=(N, D)), 3)
    X[np.abs(X) < 0.3] = 0.0  # so that svmlight has something to leave out
    X[0] = [1.5, 0.0, 2.5, -3.5]
    return X, rng.integers(0, 3, size=N).astype(float)


def _csv(path, X, y, delimiter=",", end="\n"):
    names = [f"f{j}" for j in range(X.shape[1])] + ["kind"]
    rows = [names, *[[repr(float(v)) for v in row] + [f"k{int(t)}"] for row, t in zip(X, y)]]
    path.write_bytes("".join(delimiter.join(row) + end for row in rows).encode())
    return path


# ---- every format, the same numbers


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_reads_numbers_and_classes(tmp_path, numbers, delimiter, end):
    X, y = numbers
    table = load_table(_csv(tmp_path / "t.csv", X, y, delimiter, end), target="kind")
    np.testing.assert_array_equal(table.X, X)
    np.testing.assert_array_equal(table.y, y)
    assert table.X.flags.c_contiguous
    assert table.X.dtype == np.float64
    assert table.feature_names == ("f0", "f1", "f2", "f3")
    assert table.classes.tolist() == ["k0", "k1", "k2"]


@pytest.mark.parametrize(("opener", "suffix"), [(gzip.open, ".gz"), (bz2.open, ".bz2")])
def test_csv_compressed(tmp_path, numbers, opener, suffix):
    X, y = numbers
    plain = _csv(tmp_path / "t.csv", X, y)
    packed = tmp_path / f"t.csv{suffix}"
    with opener(packed, "wb") as stream:
        stream.write(plain.read_bytes())
    np.testing.assert_array_equal(load_table(packed, target="kind").X, X)
    cut = tmp_path / f"cut.csv{suffix}"
    cut.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(ValueError, match="truncated"):
        load_table(cut, target="kind")


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_arrow_formats(tmp_path, numbers, kind):
    import pyarrow
    from pyarrow import feather, parquet

    X, y = numbers
    columns = {f"f{j}": X[:, j].astype(np.float32) for j in range(D)}
    columns["whole"] = np.arange(N)
    columns["flag"] = np.arange(N) % 2 == 0
    columns["kind"] = pyarrow.array([f"k{int(t)}" for t in y]).dictionary_encode()
    table = pyarrow.table(columns)
    path = tmp_path / f"t.{kind}"
    (parquet.write_table if kind == "parquet" else feather.write_feather)(table, path)
    back = load_table(path, target="kind", dtype="float32")
    expected = np.column_stack([X, np.arange(N), np.arange(N) % 2 == 0]).astype(np.float32)
    np.testing.assert_array_equal(back.X, expected)
    assert back.X.dtype == np.float32
    np.testing.assert_array_equal(back.y, y)
    renamed = tmp_path / "no-suffix"  # told by its first bytes
    renamed.write_bytes(path.read_bytes())
    np.testing.assert_array_equal(load_table(renamed, target="kind").X, expected)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=f"cannot be read as {kind}.*truncated"):
        load_table(path, target="kind")


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("suffix", ["", ".bz2"])
def test_svmlight(tmp_path, numbers, base, suffix):
    sparse = pytest.importorskip("scipy.sparse")
    from sklearn.datasets import dump_svmlight_file

    X, y = numbers
    path = tmp_path / "rows.trn"
    dump_svmlight_file(X, y, str(path), zero_based=base == 0)
    if suffix:
        packed = tmp_path / f"rows.trn{suffix}"
        packed.write_bytes(bz2.compress(path.read_bytes()))
        path = packed
    table = load_table(path)
    assert sparse.issparse(table.X)
    assert table.X.format == "csr"
    assert table.X.indices.dtype == np.int32
    np.testing.assert_array_equal(table.X.toarray(), X)
    np.testing.assert_array_equal(table.y, y)
    assert table.index_base == base
    # A second file without the last features, and none that shows the base: the model's win.
    few = tmp_path / "few.svm"
    few.write_text(f"1 {1 + base}:2.5\n")
    second = load_table(few, n_features=D, index_base=base)
    np.testing.assert_array_equal(second.X.toarray(), [[0, 2.5, 0, 0]])
    few.write_text(f"1 {D + base}:2.5\n")
    with pytest.raises(ValueError, match=f"has feature {D + base} .* fitted on {D} features"):
        load_table(few, n_features=D, index_base=base)


def test_npy_is_mapped_and_end_targets_are_views(tmp_path, numbers):
    X, y = numbers
    path = tmp_path / "a.npy"
    np.save(path, np.column_stack([X, y]))
    table = load_table(path, target=-1)
    assert isinstance(table.X, np.memmap)
    np.testing.assert_array_equal(table.X, X)
    np.testing.assert_array_equal(table.y, y)
    np.save(path, np.column_stack([y, X]))
    table = load_table(path, target="0")
    assert isinstance(table.X, np.memmap)
    np.testing.assert_array_equal(table.X, X)
    np.testing.assert_array_equal(
        load_table(path, target=2).X, np.column_stack([y, X[:, [0, 2, 3]]])
    )
    np.save(tmp_path / "y.npy", y)
    np.save(path, X)
    table = load_table(path, target=str(tmp_path / "y.npy"))
    assert isinstance(table.X, np.memmap)
    np.testing.assert_array_equal(table.y, y)
    assert load_table(path, require_target=False).y is None


def test_npz_keys_and_test_part(tmp_path, numbers):
    X, y = numbers
    labels = np.array(["a", "b", "c"])[y.astype(int)]
    path = tmp_path / "a.npz"
    np.savez(path, X=X, y=y, other=y + 1)
    np.testing.assert_array_equal(load_table(path).y, y)
    np.testing.assert_array_equal(load_table(path, target="other").y, y + 1)
    pictures = (np.abs(X[:40]) * 50).astype(np.uint8).reshape(40, 2, 2)
    np.savez_compressed(
        path, X_train=pictures, y_train=labels[:40], X_test=pictures[:9], y_test=labels[:9]
    )
    table = load_table(path)
    assert table.X.dtype == np.uint8
    np.testing.assert_array_equal(table.X, pictures.reshape(40, 4))
    np.testing.assert_array_equal(table.test.X, table.X[:9])
    np.testing.assert_array_equal(table.classes[table.test.y], labels[:9])


def test_npz_sparse(tmp_path, numbers):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = numbers
    sparse.save_npz(tmp_path / "a.npz", sparse.csr_matrix(X))
    np.save(tmp_path / "y.npy", y)
    table = load_table(tmp_path / "a.npz", target=str(tmp_path / "y.npy"))
    np.testing.assert_array_equal(table.X.toarray(), X)


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # a folder of that name does not hide the data set
    table = load_table(name)
    assert (
        table.X.shape
        == {"digits": (1797, 64), "breast_cancer": (569, 30), "diabetes": (442, 10)}[name]
    )
    assert len(table.y) == len(table.X)
    assert len(table.feature_names) == table.X.shape[1]
    with pytest.raises(ValueError, match="brings its own target"):
        load_table(name, target="t")


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("i8", "f8"),
        ("u2", "f8"),
        ("u1", "u1"),
        ("?", "u1"),
        ("f2", "f4"),
        ("f4", "f4"),
        (">f8", "<f8"),
    ],
)
def test_npy_dtypes(tmp_path, stored, read):
    X = np.arange(12).reshape(6, 2) % 2
    np.save(tmp_path / "a.npy", X.astype(stored))
    table = load_table(tmp_path / "a.npy", require_target=False)
    assert table.X.dtype == np.dtype(read)
    np.testing.assert_array_equal(table.X, X)


def test_npy_bfloat16(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    X = np.arange(12.0).reshape(6, 2).astype(ml_dtypes.bfloat16)
    np.save(tmp_path / "a.npy", X.view(np.uint16))
    table = load_table(tmp_path / "a.npy", require_target=False, dtype="bfloat16")
    assert table.X.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(table.X.astype(float), X.astype(float))


def test_match_classes():
    new = match_classes(np.array([1, 0]), np.array(["b", "z"]), np.array(["a", "b", "z"]), "t")
    assert new.tolist() == [2, 1]
    with pytest.raises(ValueError, match="'q', which the training data does not have"):
        match_classes(np.array([0]), np.array(["q"]), np.array(["a"]), "t")


# ---- CSV oddities


def test_csv_commented_quoted_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('# "y","a, b"\n1,2\n3,4\n')
    table = load_table(path, target="y")
    assert table.feature_names == ("a, b",)
    assert table.X.tolist() == [[2.0], [4.0]]


def test_csv_byte_order_mark_and_blank_first_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffy,a\n1,2\n3,4\n".encode())
    assert load_table(path, target="y").X.tolist() == [[2.0], [4.0]]
    path.write_bytes(b"\n\ny,a\n1,2\n3,4\n")
    assert load_table(path, target="y").X.tolist() == [[2.0], [4.0]]


def test_csv_without_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1,2\n3,4\n")
    with pytest.raises(ValueError, match=r"begins with numbers.*--no-header"):
        load_table(path, target="c0")
    table = load_table(path, target="c0", header=False)
    assert table.X.tolist() == [[2.0], [4.0]]
    assert table.y.tolist() == [1.0, 3.0]


def test_csv_types_that_change_after_the_first_block(tmp_path):
    rows = 400_000  # beyond the first megabyte, where the reader guesses types
    path = tmp_path / "a.csv"
    path.write_text("a,y\n" + "1,2\n" * rows + "0.5,3\n")
    table = load_table(path, target="y")
    assert table.X[0, 0] == 1
    assert table.X[-1, 0] == 0.5
    path.write_text("a,y\n" + "1,2\n" * rows + "x,3\n")
    with pytest.raises(ValueError, match=f"column 'a' holds text, 'x' in row {rows}"):
        load_table(path, target="y")
    hot = load_table(path, target="y", one_hot=True)
    assert hot.feature_names == ("a=1", "a=x")
    assert hot.X[-1].tolist() == [0, 1]


def test_one_hot_and_reading_for_a_model(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("color,size,y\nred,1,0\nblue,2,1\nred,3,0\n")
    table = load_table(path, target="y", one_hot=True)
    assert table.feature_names == ("color=blue", "color=red", "size")
    assert table.X.tolist() == [[0, 1, 1], [1, 0, 2], [0, 1, 3]]
    assert table.categories == {"color": ("blue", "red")}
    # Other order, more columns, a value fewer: the model's layout.
    path.write_text("note,size,color\nhm,5,red\nhm,6,red\n")
    new = load_table(path, require_target=False, columns=table.columns, categories=table.categories)
    assert new.X.tolist() == [[0, 1, 5], [0, 1, 6]]
    path.write_text("size,color\n5,green\n")
    with pytest.raises(ValueError, match="'green' in row 0, which the model has not seen"):
        load_table(path, require_target=False, columns=table.columns, categories=table.categories)
    path.write_text("size\n5\n")
    with pytest.raises(ValueError, match="no column 'color'"):
        load_table(path, require_target=False, columns=table.columns, categories=table.categories)


# ---- bad files: one clear error each


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, r"is empty \(0 bytes\)"),
        ("\n\n", {}, "holds only empty lines"),
        ("a,y\n", {}, "has 2 columns and no rows"),
        ("a,y\n1,2\n", {"target": None}, r"no target chosen.*--target.*a, y"),
        ("a,y\n1,2\n", {"target": "z"}, "no column 'z', which --target names; it holds a, y"),
        ("a,y\n1,2\n", {"drop": ["b"]}, "no column 'b', which --drop names"),
        ("a,y\n1,2\n", {"drop": ["y"]}, "would drop the target"),
        ("a,y\n1,2\n", {"drop": ["a"]}, "no feature columns left"),
        ("a,a,y\n1,2,3\n", {}, "column 'a' twice"),
        ("a,b,y\n1,2,3\n1,2\n", {}, "cannot be read as CSV.*xpected 3 columns, got 2.*truncated"),
        ("a,b,y\n1,,3\n1,2,3\n", {}, "column 'b' lacks 1 of 2 values, the first in row 0"),
        ("a,b,y\n1,,3\n1,,3\n", {}, "column 'b' holds no values"),
        ("a,y\n1,\n1,3\n", {}, "column 'y' lacks 1 of 2 values"),
        ("a,y\n1,2\nx1,3\n", {}, "column 'a' holds text, 'x1' in row 1.*--drop a.*--one-hot"),
        ("a,y\n2020-01-01,2\n2020-01-02,3\n", {}, "column 'a' has type date32.*--drop"),
        ("a,y\n1,2\n", {"file_format": "excel"}, "choose from csv"),
        ("a,y\n1,2\n", {"dtype": "int8"}, "choose from float64"),
    ],
)  # fmt: skip
def test_csv_errors(tmp_path, text, options, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_table(path, **{"target": "y", **options})


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file.*digits"):
        load_table(tmp_path / "a.csv")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_table(tmp_path)


def test_truncated_npy_and_npz(tmp_path, numbers):
    X, y = numbers
    for name, save in (
        ("a.npy", lambda p: np.save(p, X)),
        ("a.npz", lambda p: np.savez(p, X=X, y=y)),
    ):
        path = tmp_path / name
        save(path)
        whole = path.read_bytes()
        for length in (7, 40, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"truncated|does not begin like"):
                load_table(path, target=-1 if name == "a.npy" else None)


def test_named_like_another_format(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_text("a,y\n1,2\n")
    with pytest.raises(ValueError, match="named like parquet and does not begin like one"):
        load_table(path, target="y")
    assert load_table(path, target="y", file_format="csv").X.tolist() == [[1.0]]


def test_unknown_binary(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x00\x01\x02" * 50)
    with pytest.raises(ValueError, match="no format that nagcore knows"):
        load_table(path)


@pytest.mark.parametrize(
    ("array", "target", "message"),
    [
        (np.ones(5), "-1", "needs two dimensions"),
        (np.ones((0, 3)), "-1", "holds no values"),
        (np.ones((3, 2)), "2", "has 2 columns; --target 2"),
        (np.ones((3, 2)), None, "no target chosen"),
        (np.ones((3, 2)), "nowhere.npy", "column number or an .npy file"),
        (np.array([["a", "b"]]), "-1", "dtype <U1; nagcore reads numbers"),
        (np.ones((3, 2)) * 1j, "-1", "dtype complex128"),
        (np.array([[{}, 1]], dtype=object), "-1", "unpickles nothing"),
    ],
)
def test_npy_errors(tmp_path, array, target, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        load_table(tmp_path / "a.npy", target=target)


@pytest.mark.parametrize(
    ("arrays", "target", "message"),
    [
        ({"a": np.ones((3, 2))}, None, "no array X; it holds a"),
        ({"X": np.ones((3, 2))}, None, "no array y"),
        ({"X": np.ones((3, 2)), "y": np.ones(3)}, "t", "the target 't'; it holds X, y"),
        ({"X": np.ones((3, 2)), "y": np.ones(4)}, None, r"\(4,\).*each of 3 rows"),
        ({"X": np.ones((3, 2)), "y": np.ones((3, 2))}, None, "one value for each of 3 rows"),
        ({"X": np.ones((3, 2)), "y": np.array([{}, 1, 2])}, None, "unpickles nothing"),
    ],
)
def test_npz_errors(tmp_path, arrays, target, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_table(tmp_path / "a.npz", target=target)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2:1.5\n-1 5:2.5 3:1\n", "cannot be read as svmlight"),  # unsorted
        ("1 2:1.5\n-1 5:\n", "cannot be read as svmlight"),
        ("# nothing\n", "holds no rows"),
    ],
)
def test_svmlight_errors(tmp_path, text, message):
    path = tmp_path / "a.svm"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_table(path)


def test_missing_extra_is_one_line(tmp_path, monkeypatch, numbers):
    import sys

    for module in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    path = _csv(tmp_path / "a.csv", *numbers)
    with pytest.raises(ImportError) as caught:
        load_table(path, target="kind")
    assert str(caught.value) == "reading CSV needs pyarrow; pip install 'nagcore[cli]'"
