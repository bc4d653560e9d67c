"""A data set on disk, as bytes: nagcore reads the memory map where it lies, and copies nothing.

Pictures are stored as uint8, a quarter of float32, and read as scale·x. A file larger than memory
works the same way, at the speed of the disk.

    python examples/big_memmap.py --mb 1000
"""

import argparse
import os
import resource
import tempfile
import time

import numpy as np

import nagcore


def write_pictures(path: str, n: int, d: int) -> np.ndarray:
    """n rows of d pixels, in blocks; returns the targets."""
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, d))
    truth, y = rng.standard_normal(d), np.empty(n)
    for start in range(0, n, 4096):
        block = rng.integers(0, 256, size=(min(4096, n - start), d), dtype=np.uint8)
        X[start : start + len(block)] = block
        y[start : start + len(block)] = (block - 127.5) @ truth > 0
    X.flush()
    return y


def peak_memory() -> float:
    """MB that this process has held at most. Pages of the map count while they are in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=200, help="size of the file")
    parser.add_argument("--quick", action="store_true", help="a file of 2 MB")
    arguments = parser.parse_args()
    d = 784
    n = (2 if arguments.quick else arguments.mb) * 1_000_000 // d

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pictures.npy")
        y = write_pictures(path, n, d)
        X = np.load(path, mmap_mode="r")
        print(f"{path}: {X.shape[0]:,} × {X.shape[1]} {X.dtype}, {X.nbytes / 1e6:.0f} MB")
        objective = nagcore.Objective(X, y, loss="logistic", l2=1e-4, scale=1 / 255)
        start = time.perf_counter()
        result = nagcore.minimize(objective, tol=1e-3, max_passes=200)
        seconds = time.perf_counter() - start
        accuracy = np.mean((objective.margins(result.w) > 0) == (y > 0))
        print(
            f"{result.message}: {result.n_passes} passes in {seconds:.2f} s, "
            f"{result.n_passes * X.nbytes / seconds / 1e9:.2f} GB/s"
        )
        print(f"training accuracy {accuracy:.4f}; peak memory {peak_memory():.0f} MB")


if __name__ == "__main__":
    main()
