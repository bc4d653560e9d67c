"""Guards, records and stops of a run: for `nagcore.minimize`, the estimators, and loops of your own.

`nagcore.minimize` takes any callable that takes a `State`; one that returns True stops the run. The classes
here are such callables, and have methods for plain loops as well. They work on numbers and arrays
and import no framework.

>>> import numpy as np
>>> import nagcore
>>> from nagcore.callbacks import History
>>> history = History()
>>> objective = nagcore.Objective(np.eye(3), np.ones(3), loss="squared", l2=0.1)
>>> result = nagcore.minimize(objective, callbacks=[history])
>>> len(history) == result.n_iter
True
"""

from .batches import Batches
from .checkpoint import Checkpoint, Saved
from .guard import AnomalyError, AnomalyEvent, AnomalyGuard, AnomalyWarning, Verdict
from .history import History
from .progress import Progress
from .state import Callback, State, use
from .state_file import CheckpointError
from .stopping import EarlyStopping

__all__ = [
    "AnomalyError",
    "AnomalyEvent",
    "AnomalyGuard",
    "AnomalyWarning",
    "Batches",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "EarlyStopping",
    "History",
    "Progress",
    "Saved",
    "State",
    "Verdict",
    "use",
]
