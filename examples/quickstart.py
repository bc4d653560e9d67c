"""One pass, one fit, one estimator: the three doors of nagcore, on data of two classes.

python examples/quickstart.py
"""

import argparse
import time

import numpy as np

import nagcore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small data")
    n, d = (2_000, 20) if parser.parse_args().quick else (200_000, 100)

    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32)
    truth = rng.standard_normal(d) / np.sqrt(d)
    y = np.where(rng.random(n) < 1 / (1 + np.exp(-3 * X @ truth)), 1.0, -1.0)

    # 1. Value and gradient of the mean logistic loss plus (l2/2)‖w‖², in one pass over X.
    value, gradient = nagcore.value_and_grad(X, y, np.zeros(d), loss="logistic", l2=1e-3)
    print(f"at w = 0: value {value:.6f}, which is ln 2; ‖gradient‖ {np.linalg.norm(gradient):.4f}")

    # 2. The minimum, to a proven relative suboptimality of 1e-6.
    objective = nagcore.Objective(X, y, loss="logistic", l2=1e-3)
    start = time.perf_counter()
    result = nagcore.minimize(objective, tol=1e-6)
    seconds = time.perf_counter() - start
    print(f"{result.message}: F {result.value:.8f}, gap ≤ {result.gap:.1e} ({result.gap_kind})")
    print(f"{result.n_passes} passes over {X.nbytes / 1e6:.0f} MB in {seconds:.2f} s")
    direction = result.coef @ truth / np.linalg.norm(result.coef) / np.linalg.norm(truth)
    print(f"cosine between the coefficients and the truth: {direction:.4f}")

    # 3. The same as an estimator with scikit-learn's names: l2 = 1/(C·n).
    from nagcore.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (1e-3 * n), tol=1e-6).fit(X, y)
    print(f"LogisticRegression: accuracy {model.score(X, y):.4f}")


if __name__ == "__main__":
    main()
