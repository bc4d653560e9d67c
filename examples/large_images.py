"""The whole road on a large image set on disk: clean, prepare, train, evaluate, and see.

Cleaning finds corrupt pictures, duplicates and wrong labels. Training is softmax regression on the
bytes where they lie: a memory map of uint8, which nagcore reads as scale·x without copying it.

With --data the set is read from MNIST, Fashion-MNIST or CIFAR-10 files. Without, a large set is made
from scikit-learn's digits by turning, stretching and shifting, and damage is planted in it, so that
what was found can be counted against what is there.

    python examples/large_images.py --rows 40000 --out large_images.png
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from image_files import load

import nagcore
from nagcore import plots

SIDE = 16  # of the pictures made from digits
PARTS = {"corrupt": 0.01, "duplicate": 0.02, "mislabelled": 0.02}  # of the rows, planted


class Found(NamedTuple):
    """Rows that cleaning doubts, and the label it would give to those it thinks mislabelled."""

    corrupt: np.ndarray
    duplicate: np.ndarray
    original: np.ndarray
    mislabelled: np.ndarray
    proposed: np.ndarray


# ----- a large set, with damage whose places are known ------------------------------------------


def vary(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each picture turned by up to 12°, stretched, shifted, resampled to SIDE × SIDE, with noise."""
    n, side = len(pictures), pictures.shape[1]
    angle = rng.uniform(-0.21, 0.21, (n, 1, 1))
    across, up = rng.uniform(0.9, 1.15, (2, n, 1, 1))
    grid = (np.arange(SIDE) + 0.5) / SIDE * side - 0.5 - (side - 1) / 2
    v, u = np.meshgrid(grid, grid, indexing="ij")
    x = (np.cos(angle) * u - np.sin(angle) * v) * across + rng.uniform(-0.5, 0.5, (n, 1, 1))
    y = (np.sin(angle) * u + np.cos(angle) * v) * up + rng.uniform(-0.5, 0.5, (n, 1, 1))
    x, y = (np.clip(a + (side - 1) / 2, 0, side - 1.001) for a in (x, y))
    i, j = y.astype(int), x.astype(int)
    a, b, row = y - i, x - j, np.arange(n)[:, None, None]
    P = pictures.astype(np.float32)
    smooth = (1 - a) * ((1 - b) * P[row, i, j] + b * P[row, i, j + 1]) + a * (
        (1 - b) * P[row, i + 1, j] + b * P[row, i + 1, j + 1]
    )
    smooth += rng.normal(0, 6, smooth.shape)
    return np.clip(np.round(smooth), 0, 255).astype(np.uint8)


def damage(X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Spoil rows of each kind, in place; returns which."""
    n = len(X)
    sizes = [round(n * part) for part in PARTS.values()]
    chosen = rng.permutation(n)[: sum(sizes)]
    rows = dict(zip(PARTS, np.split(chosen, np.cumsum(sizes)[:-1])))
    for kind, row in enumerate(rows["corrupt"]):
        if kind % 3 == 0:  # a sensor that saw nothing
            X[row] = rng.integers(0, 256)
        elif kind % 3 == 1:  # noise in place of a picture
            X[row] = rng.integers(0, 256, X[row].shape)
        else:  # a file that was cut off, filled with grey by its decoder
            X[row, X.shape[1] // 2 :] = 128
    untouched = np.setdiff1d(np.arange(n), chosen)
    source = rng.choice(untouched, len(rows["duplicate"]), replace=False)
    X[rows["duplicate"]], y[rows["duplicate"]] = X[source], y[source]
    # Of two equal rows cleaning keeps the first, so the later one is the one to be found.
    rows["duplicate"] = np.maximum(rows["duplicate"], source)
    rows["mislabelled"] = np.sort(rows["mislabelled"])
    wrong = rng.integers(1, 10, len(rows["mislabelled"]))
    y[rows["mislabelled"]] = (y[rows["mislabelled"]] + wrong) % 10
    return rows


def make_set(folder: Path, rows: int):
    """A large set from digits in a file, and a clean test set from digits that are in none of it."""
    images, rng = load(None), np.random.default_rng(0)
    X = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.uint8, shape=(rows, SIDE, SIDE)
    )
    pick = rng.integers(0, len(images.X), rows)
    for start in range(0, rows, 4096):
        part = pick[start : start + 4096]
        X[start : start + len(part)] = vary(images.X[part], rng)
    y = images.y[pick]
    planted = damage(X, y, rng)
    X.flush()
    test = rng.integers(0, len(images.X_test), max(1_000, rows // 10))
    T, t = vary(images.X_test[test], rng), images.y_test[test]
    return np.load(folder / "images.npy", mmap_mode="r"), y, T, t, images.classes, planted


# ----- cleaning ---------------------------------------------------------------------------------


def find_corrupt(X: np.ndarray) -> np.ndarray:
    """Pictures without contrast, noise, and those with a third of their rows of one grey level.

    A picture is noise where neighbouring pixels differ as much as pixels that are far apart.
    """
    bad = []
    for start in range(0, len(X), 4096):
        block = X[start : start + 4096].astype(np.float32)
        block = block.mean(axis=3) if block.ndim == 4 else block
        spread = block.std(axis=(1, 2))
        rough = np.abs(np.diff(block, axis=1)).mean(axis=(1, 2)) / np.maximum(spread, 1e-9)
        low, high = block.min(axis=2), block.max(axis=2)
        flat = (high == low) & (low > 8) & (low < 247)  # black and white rows are backgrounds
        bad.append((spread < 4) | (rough > 0.95) | (flat.mean(axis=1) > 1 / 3))
    return np.flatnonzero(np.concatenate(bad))


def find_duplicates(X: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose bytes an earlier row has, and that earlier row. Hashes first, then the bytes."""
    flat = X.reshape(len(X), -1)
    odd = np.random.default_rng(1).integers(0, 2**63, flat.shape[1], dtype=np.uint64) * 2 + 1
    with np.errstate(over="ignore"):
        parts = [flat[part].astype(np.uint64) @ odd for part in np.array_split(rows, 64)]
    hashes = np.concatenate(parts)
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    later = np.flatnonzero(first[group] != np.arange(len(rows)))
    copies, originals = rows[later], rows[first[group[later]]]
    same = np.array([np.array_equal(X[a], X[b]) for a, b in zip(copies, originals)], bool)
    return copies[same], originals[same]


def probabilities(z: np.ndarray) -> np.ndarray:
    """softmax of margins."""
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def fit(X: np.ndarray, y: np.ndarray, weight: np.ndarray, l2: float, tol: float):
    """Softmax regression on bytes; rows of weight 0 take no part. X is not copied."""
    objective = nagcore.Objective(
        X.reshape(len(X), -1), y, loss="softmax", l2=l2, scale=1 / 255, sample_weight=weight
    )
    return objective, nagcore.minimize(objective, tol=tol, max_passes=400)


def find_mislabelled(X, y, usable, folds, l2, tol) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose label a model that has not seen them contradicts with confidence.

    A row is doubted where the likeliest class is another one than its label, and is as likely as
    that class usually is in rows that bear it (Northcutt et al. 2021, "Confident learning").
    """
    fold = np.random.default_rng(2).integers(0, folds, len(y))
    p = np.zeros((len(y), int(y.max()) + 1))
    for k in range(folds):
        objective, result = fit(X, y, (usable & (fold != k)).astype(float), l2, tol)
        out = fold == k
        p[out] = probabilities(objective.margins(result.w)[out])
    own = p[np.arange(len(y)), y]
    usual = np.array([own[usable & (y == c)].mean() for c in range(p.shape[1])])
    best = p.argmax(axis=1)
    rows = np.flatnonzero(usable & (best != y) & (p.max(axis=1) >= usual[best]) & (own < 0.02))
    return rows, best[rows]


def clean(X: np.ndarray, y: np.ndarray, folds: int, l2: float, tol: float) -> Found:
    """All three searches, each on what the one before has left."""
    usable = np.ones(len(X), bool)
    corrupt = find_corrupt(X)
    usable[corrupt] = False
    copies, originals = find_duplicates(X, np.flatnonzero(usable))
    usable[copies] = False
    wrong, proposed = find_mislabelled(X, y, usable, folds, l2, tol)
    return Found(corrupt, copies, originals, wrong, proposed)


def count(found: Found, planted: dict[str, np.ndarray] | None) -> None:
    """What was found, against what was planted where that is known."""
    for kind in PARTS:
        rows = getattr(found, kind)
        line = f"{kind:12s} {len(rows):6,} found"
        if planted is not None:
            right = len(np.intersect1d(rows, planted[kind]))
            line += (f", {len(planted[kind]):6,} planted: {right / len(planted[kind]):6.1%} of the "
                     f"planted found, {right / max(len(rows), 1):6.1%} of the found planted")  # fmt: skip
        print(line)


# ----- the page ---------------------------------------------------------------------------------


def draw(path, X, y, found, result, T, t, given, classes) -> None:
    """What cleaning found, how training went, what the model confuses and what it looks at."""
    from matplotlib.figure import Figure

    shown = [rows[:12] for rows in (found.corrupt, found.duplicate, found.mislabelled)]
    captions = (
        [f"row {row}" for row in shown[0]],
        [f"= row {first}" for first in found.original[:12]],
        [f"{classes[y[row]]} → {classes[c]}" for row, c in zip(shown[2], found.proposed)],
    )
    titles = (
        f"{len(found.corrupt):,} corrupt pictures",
        f"{len(found.duplicate):,} duplicates, each with the row it repeats",
        f"{len(found.mislabelled):,} doubted labels: given → proposed",
    )
    strips = [strip for strip in zip(shown, captions, titles) if len(strip[0])]
    heights = (*[1.3] * len(strips), 3.9, 3.2)
    figure = Figure(figsize=(8.6, sum(heights)), dpi=100, layout="constrained")
    *places, middle, below = figure.subfigures(len(heights), 1, height_ratios=heights)
    for i, (rows, words, title) in enumerate(strips):
        plots.image_grid(np.asarray(X[rows]), words, columns=12, into=places[i], title=title)
    left, right = middle.subplots(1, 2)
    plots.curves({"softmax regression": result}, x="passes", y="gap", ax=left,
                 title="training on the cleaned rows")  # fmt: skip
    plots.confusion_matrix(t, given, classes=classes, ax=right)
    shape = X.shape[1:]
    weights = result.coef.T.reshape(len(classes), *shape)
    weights = weights.sum(axis=-1) if len(shape) == 3 else weights
    grid = below.subplots(2, 5)
    most = np.abs(weights).max()
    for axes, picture, name in zip(grid.flat, weights, classes):
        image = axes.imshow(picture, cmap="PuOr_r", vmin=-most, vmax=most)
        axes.set_title(name, fontsize=9)
    for axes in grid.flat:
        axes.set_axis_off()
    below.colorbar(image, ax=list(grid.flat), label="coefficient", pad=0.02)
    figure.savefig(path, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with IDX or CIFAR-10 binary files")
    parser.add_argument("--rows", type=int, default=40_000, help="of the set made from digits")
    parser.add_argument("--out", type=Path, default=Path("large_images.png"), help="the picture")
    parser.add_argument("--quick", action="store_true", help="2,000 rows")
    arguments = parser.parse_args()
    plots.check_path(arguments.out)
    rows = 2_000 if arguments.quick else arguments.rows
    clock = time.perf_counter()

    def done(what: str) -> None:
        print(f"[{time.perf_counter() - clock:5.1f} s] {what}")

    with tempfile.TemporaryDirectory() as folder:
        planted = None
        if arguments.data is None:
            X, y, T, t, classes, planted = make_set(Path(folder), rows)
        else:
            images = load(arguments.data, 2_000 if arguments.quick else None)
            X, y, T, t, classes = images.X, images.y, images.X_test, images.y_test, images.classes
        done(f"{len(X):,} pictures of {X.shape[1:]} bytes, {X.nbytes / 1e6:.0f} MB")

        folds, l2, tol = (2, 1e-3, 1e-2) if arguments.quick else (3, 1e-4, 1e-4)
        found = clean(X, y, folds, l2, 10 * tol)
        done("cleaned")
        count(found, planted)

        everything = np.ones(len(X))
        kept = everything.copy()
        for doubted in (found.corrupt, found.duplicate, found.mislabelled):
            kept[doubted] = 0
        tests = nagcore.Objective(T.reshape(len(T), -1), t, loss="softmax", scale=1 / 255,
                                  n_classes=len(classes))  # fmt: skip
        accuracy = {}
        for name, weight in (("all rows", everything), ("cleaned rows", kept)):
            _, result = fit(X, y, weight, l2, tol)
            given = tests.margins(result.w).argmax(axis=1)
            accuracy[name] = float(np.mean(given == t))
            done(f"trained on {name} ({int(weight.sum()):,}): {result.n_passes:.4g} passes, "
                 f"{result.message}, test accuracy {accuracy[name]:.4f}")  # fmt: skip
        draw(arguments.out, X, y, found, result, T, t, given, classes)
        done(f"picture written to {arguments.out}")
        print(f"test accuracy {accuracy['cleaned rows']:.4f}")
        del X  # the map, before its file goes


if __name__ == "__main__":
    main()
