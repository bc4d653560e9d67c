"""Texts of five topics as a sparse matrix, and one softmax model: CSR is read where it lies.

python examples/sparse_text.py
"""

import argparse
import time

import numpy as np
from scipy import sparse

import nagcore

TOPICS = ("sea", "stars", "kitchen", "music", "law")


def word_counts(n: int, vocabulary: int, seed: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """n texts: most words are common to all topics, one in twenty is the topic's own."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, len(TOPICS), n)
    length = rng.integers(40, 200, n)
    row = np.repeat(np.arange(n), length)
    # Zipf's law: the word of rank r occurs in proportion to 1/r. The last words belong to topics.
    common = vocabulary - 100 * len(TOPICS)
    word = np.exp(rng.random(len(row)) * np.log(common)).astype(np.int64)
    own = rng.random(len(row)) < 0.05
    word[own] = common + 100 * topic[row[own]] + rng.integers(0, 100, own.sum())
    counts = sparse.csr_matrix((np.ones(len(row)), (row, word)), shape=(n, vocabulary))
    counts.sum_duplicates()  # also sorts the indices, as nagcore wants them
    counts.data = 1 + np.log(counts.data)
    length = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    counts.data /= np.repeat(length, np.diff(counts.indptr))
    return counts, topic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few texts")
    n, vocabulary = (600, 2_000) if parser.parse_args().quick else (10_000, 50_000)

    X, y = word_counts(n, vocabulary, seed=0)
    X_test, y_test = word_counts(n // 4, vocabulary, seed=1)
    print(f"{n:,} texts × {vocabulary:,} words, {X.nnz / n:.0f} different words a text")

    objective = nagcore.Objective(X, y, loss="softmax", l2=0.1 / n)
    start = time.perf_counter()
    result = nagcore.minimize(objective, tol=1e-4)
    print(
        f"{result.message} after {result.n_passes} passes over {objective.nbytes / 1e6:.1f} MB "
        f"in {time.perf_counter() - start:.2f} s"
    )
    guess = np.argmax(X_test @ result.coef + result.intercept, axis=1)
    print(f"test accuracy {np.mean(guess == y_test):.4f}")


if __name__ == "__main__":
    main()
