"""nagcore.keras.SGD against keras.optimizers.SGD on one backend: the table of docs/keras.md.

    KERAS_BACKEND=torch python bench/keras/steps.py [repeats]

One `optimizer.apply` as `fit` takes it (under jit with donated arrays on jax, in a graph on
tensorflow), the two in turn, the least of `repeats` each; then, where keras has a fit, a batch of `fit`.
The results are compared before anything is timed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import keras
import numpy as np

from nagcore.keras import SGD

BACKEND = keras.backend.backend()
SHAPES = {
    "MLP, 4 variables, 0.1 M": [(784, 128), (128,), (128, 10), (10,)],
    "160 variables, 0.3 M": [(64, 64), (64,)] * 80,
    "4 variables, 16 M": [(2000, 2000)] * 4,
}
# Dense networks under fit: inputs and hidden widths.
FITS = {
    "4 variables, 0.1 M": (784, [128]),
    "18 variables, 34 k": (64, [64] * 8),
    "82 variables, 44 k": (64, [32] * 40),
    "6 variables, 4.3 M": (64, [2048] * 2),
}
SETTINGS = {
    "Nesterov": {"momentum": 0.9, "nesterov": True},
    "with decay and EMA": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "use_ema": True},
}


def stepper(optimizer, variables, grads) -> Callable[[], None]:
    """A function that takes one step and waits for it."""
    optimizer.build(variables)
    if BACKEND == "jax":
        import jax

        step = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
        held = [[v.value for v in optimizer.variables], [v.value for v in variables]]

        def run() -> None:
            held[1], held[0] = step(held[0], grads, held[1])
            jax.block_until_ready(held)
            for variable, value in zip(variables, held[1]):
                variable._value = value

    elif BACKEND == "tensorflow":
        import tensorflow as tf

        graph = tf.function(lambda: optimizer.apply(grads, variables), autograph=False)

        def run() -> None:
            graph()

    elif BACKEND == "torch":
        import torch

        def run() -> None:
            with torch.no_grad():
                optimizer.apply(grads, variables)

    else:

        def run() -> None:
            optimizer.apply(grads, variables)

    return run


def least(functions: list[Callable[[], None]], repeats: int) -> list[float]:
    """The shortest time of each, taken in turn, in seconds."""
    best = [np.inf] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            begun = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - begun)
    return best


def one_step(shapes, settings, repeats: int) -> list[float]:
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s).astype("float32") for s in shapes]
    grads = [keras.ops.convert_to_tensor(0.1 * v) for v in values]
    runs, all_variables = [], []
    for make, more in ((keras.optimizers.SGD, {}), (SGD, {"use_kernel": True})):
        variables = [keras.Variable(v) for v in values]
        runs.append(stepper(make(0.01, **settings, **more), variables, grads))
        runs[-1]()
        all_variables.append(variables)
    for a, b in zip(*all_variables):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-5, atol=1e-6)
    return least(runs, repeats)


def one_fit(settings, inputs: int, hidden: list[int], more: dict, repeats: int) -> list[float]:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((640, inputs)).astype("float32"), rng.integers(0, 10, 640)
    models = []
    for make, own in ((keras.optimizers.SGD, {}), (SGD, more)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.layers.Input((inputs,)),
                *(keras.layers.Dense(width, activation="relu") for width in hidden),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile(make(0.01, **settings, **own), "sparse_categorical_crossentropy")
        model.fit(X, y, batch_size=32, verbose=0, shuffle=False)
        models.append(model)
    for a, b in zip(*(model.get_weights() for model in models)):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
    fits = [lambda m=model: m.fit(X, y, batch_size=32, verbose=0, shuffle=False) for model in models]
    return [seconds / 20 for seconds in least(fits, repeats)]


def main(repeats: int) -> None:
    print("| backend | what | rule | keras, ms | nagcore, ms | times keras |\n|---|---|---|---|---|---|")
    for rule, settings in SETTINGS.items():
        for name, shapes in SHAPES.items():
            few = max(3, repeats // 10) if "16 M" in name else repeats
            row(name, rule, one_step(shapes, settings, few))
        # A second fit with averages fails on jax, in keras: they share buffers with the variables.
        if BACKEND != "numpy" and not (BACKEND == "jax" and settings.get("use_ema")):
            for name, (inputs, hidden) in FITS.items():
                for way, more in (("default", {}), ("kernel", {"use_kernel": True})):
                    seconds = one_fit(settings, inputs, hidden, more, max(3, repeats // 10))
                    row(f"a batch of `fit`, {name}, {way}", rule, seconds)


def row(name: str, rule: str, seconds: list[float]) -> None:
    keras_time, ours = (1e3 * s for s in seconds)
    times = f"{keras_time:.2f} | {ours:.2f} | {keras_time / ours:.2f}"
    print(f"| {BACKEND} | {name} | {rule} | {times} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
