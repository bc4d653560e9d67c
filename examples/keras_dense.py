"""A dense network in Keras: checkpoints, early stopping, and the model as ONNX with equal answers.

Dense(128, relu) → Dense(1, sigmoid) tells odd digits from even ones, in batches of 32, with
validation data. A checkpoint is written every N steps and at each best epoch; training stops when
validation gets no better, and the best weights come back. Then the model is exported to ONNX, and
onnxruntime's answers are compared with keras's; where these are not installed, the example says so.

    KERAS_BACKEND=torch python examples/keras_dense.py --out keras_dense.png
"""

import argparse
import importlib.util
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
from image_files import load

if "KERAS_BACKEND" not in os.environ:  # keras asks for tensorflow by itself
    for backend, library in (("torch", "torch"), ("jax", "jax"), ("tensorflow", "tensorflow")):
        if importlib.util.find_spec(library) is not None:
            os.environ["KERAS_BACKEND"] = backend
            break

import keras

import nagcore.keras
from nagcore import plots
from nagcore.keras.callbacks import Checkpoint, EarlyStopping, History


def build(features: int) -> keras.Model:
    """The network, compiled with nagcore's optimizer."""
    model = keras.Sequential(
        [
            keras.layers.Input((features,), name="pixels"),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid", name="odd"),
        ]
    )
    optimizer = nagcore.keras.SGD(learning_rate=0.05, momentum=0.9, nesterov=True)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    return model


def compare_with_onnx(model: keras.Model, X: np.ndarray, folder: Path) -> str:
    """Export, run, and say how far the answers are apart; or say what is missing."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if keras.backend.backend() == "torch" and importlib.util.find_spec("onnxscript") is None:
        missing.append("onnxscript")
    if missing:
        return f"ONNX: left out, {', '.join(missing)} not installed; pip install {' '.join(missing)}"
    import onnxruntime

    path = folder / "model.onnx"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing, about shapes that are fixed here anyway
            model.export(str(path), format="onnx", verbose=False)
    except (ImportError, RuntimeError, ValueError) as error:
        return f"ONNX: left out, keras on {keras.backend.backend()} cannot export here: {error}"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    theirs = np.concatenate([session.run(None, {name: X[i : i + 1]})[0] for i in range(len(X))])
    ours = model.predict(X, verbose=0)
    apart = float(np.abs(ours - theirs).max())
    same = int(((ours > 0.5) == (theirs > 0.5)).sum())
    if apart > 1e-5:
        raise AssertionError(f"onnxruntime's answers differ by {apart:g}")
    return (f"ONNX: {path.stat().st_size / 1e3:.0f} kB, {same} of {len(X)} classes equal, "
            f"probabilities differ by at most {apart:.1e}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with IDX or CIFAR-10 binary files")
    parser.add_argument("--rows", type=int, default=10_000, help="of --data, at most")
    parser.add_argument("--out", type=Path, default=Path("keras_dense.png"), help="the picture")
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--quick", action="store_true", help="600 pictures, at most 6 epochs")
    arguments = parser.parse_args()
    plots.check_path(arguments.out)

    data = load(arguments.data, 600 if arguments.quick else arguments.rows)
    keras.utils.set_random_seed(0)
    X, T = (part.reshape(len(part), -1).astype(np.float32) / 255 for part in (data.X, data.X_test))
    y, t = ((labels % 2).astype(np.float32) for labels in (data.y, data.y_test))
    n = len(X) * 4 // 5
    print(f"{data.name}: {n} to learn from, {len(X) - n} to validate, {len(T)} to test; "
          f"keras on {keras.backend.backend()}")  # fmt: skip

    model = build(X.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder, "run"), every=arguments.every, keep=3)
        stopping = EarlyStopping("val_loss", patience=5, min_delta=1e-3)
        history = History()
        model.fit(
            X[:n], y[:n], batch_size=32, epochs=6 if arguments.quick else 60, verbose=0,
            validation_data=(X[n:], y[n:]), callbacks=[checkpoint, stopping, history],
        )  # fmt: skip
        written = sorted(path.name for path in Path(folder, "run").iterdir())
        loss, accuracy = model.evaluate(T, t, verbose=0)
        print(f"{history.core.rows[-1]['epoch']} epochs; checkpoints kept: {', '.join(written)}")
        again = build(X.shape[1])
        metric = checkpoint.load_best(again)
        same = np.array_equal(again.predict(T, verbose=0), model.predict(T, verbose=0))
        print(f"the best, val_loss {metric:.4f}, read back: predictions "
              f"{'equal to the bit' if same else 'differ'}")  # fmt: skip
        print(compare_with_onnx(model, T, Path(folder)))

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3.8), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row for row in history.core.rows if "val_loss" in row]
    plots.curves({"training": epochs}, x="epoch", y="loss", ax=left, title="binary cross-entropy")
    given = model.predict(T, verbose=0)[:, 0] > 0.5
    plots.confusion_matrix(t.astype(int), given.astype(int), classes=["even", "odd"], ax=right)
    figure.savefig(arguments.out, facecolor="white")
    print(f"picture written to {arguments.out}")
    print(f"test loss {loss:.4f}, test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
