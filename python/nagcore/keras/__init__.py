"""Keras 3: the fused Nesterov update as a drop-in for keras.optimizers.SGD, on every backend.

What happens on which backend, and what it costs, stands in docs/keras.md.

>>> import keras
>>> from nagcore.keras import SGD
>>> weights = keras.Variable([1.0, -2.0])
>>> optimizer = SGD(learning_rate=0.5, momentum=0.9, nesterov=True)
>>> optimizer.apply([keras.ops.convert_to_tensor([1.0, 0.0])], [weights])
>>> [round(w, 3) for w in weights.numpy().tolist()]
[0.05, -2.0]
"""

from __future__ import annotations

from nagcore._extras import require

require("keras", "keras", "nagcore.keras")

from . import callbacks  # noqa: E402  (a missing keras is said before its modules are read)
from .sgd import SGD  # noqa: E402

__all__ = ["SGD", "callbacks"]
