"""The readers of IDX and CIFAR-10 files that the image examples share."""

from __future__ import annotations

import gzip
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).resolve().parents[2] / "examples" / "image_files.py"


@pytest.fixture(scope="module")
def image_files():
    spec = importlib.util.spec_from_file_location("image_files", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist(folder, dotted=False, zipped=False):
    rng = np.random.default_rng(0)
    parts = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": rng.integers(0, 10, 30).astype(np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (7, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": rng.integers(0, 10, 7).astype(np.uint8),
    }
    for name, array in parts.items():
        name = name.replace("-idx", ".idx") if dotted else name
        content = gzip.compress(idx(array)) if zipped else idx(array)
        (folder / (name + (".gz" if zipped else ""))).write_bytes(content)
    return list(parts.values())


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read(image_files, tmp_path, dotted, zipped):
    parts = mnist(tmp_path, dotted, zipped)
    images = image_files.load(tmp_path)
    for got, want in zip((images.X, images.y, images.X_test, images.y_test), parts):
        np.testing.assert_array_equal(got, want)
    assert images.X.dtype == np.uint8
    assert images.y.dtype == np.int64
    assert images.name == "MNIST"


def test_fashion_is_known_by_its_folder(image_files, tmp_path):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    mnist(folder)
    images = image_files.load(folder, most=20)
    assert (images.name, images.classes[8]) == ("Fashion-MNIST", "bag")
    assert images.X.shape == (20, 28, 28)


def test_cifar_files_are_read(image_files, tmp_path):
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, 6).astype(np.uint8)
    rows = np.concatenate([labels[:, None], planes.reshape(6, -1)], axis=1)
    (tmp_path / "cifar-10-batches-bin").mkdir()
    for i in (1, 2):
        part = rows[2 * i - 2 : 2 * i]
        part.tofile(tmp_path / "cifar-10-batches-bin" / f"data_batch_{i}.bin")
    rows[4:].tofile(tmp_path / "cifar-10-batches-bin" / "test_batch.bin")
    images = image_files.load(tmp_path)
    np.testing.assert_array_equal(images.X, planes[:4].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(images.y, labels[:4])
    np.testing.assert_array_equal(images.X_test[1, 5, 9], planes[5, :, 5, 9])
    assert images.classes[int(images.y_test[0])] == image_files.CIFAR[labels[4]]


def test_digits_where_no_folder_is_given(image_files):
    pytest.importorskip("sklearn")
    images = image_files.load(None)
    assert (images.X.shape, images.X_test.shape) == ((1437, 8, 8), (360, 8, 8))
    assert images.X.max() == 255


def test_damaged_files_are_refused(image_files, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds neither"):
        image_files.load(tmp_path)
    parts = mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(parts[0])[:-5])
    with pytest.raises(ValueError, match=r"says \(30, 28, 28\), 23,520 bytes, and holds 23,515"):
        image_files.load(tmp_path)
    path.write_bytes(b"\x00\x00\x0d\x03" + b"\x00" * 20)
    with pytest.raises(ValueError, match="is no IDX file of bytes: it begins with 00000d03"):
        image_files.load(tmp_path)
    path.write_bytes(idx(parts[0][:20]))
    with pytest.raises(ValueError, match="not as many labels"):
        image_files.load(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="not all four"):
        image_files.load(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(b"123")
    with pytest.raises(ValueError, match=r"has 3 bytes, no multiple of 3073"):
        image_files.read_cifar(tmp_path / "data_batch_1.bin")
