"""nagcore: the numerical core that trains with Nesterov's accelerated gradient at the speed of memory.

Large linear models (logistic, least squares, softmax and more) with one pass over the data per gradient,
the fused Nesterov update for any parameter list and for PyTorch and Keras, and estimators with scikit-learn's
names. Importing the package imports NumPy and the compiled core alone; everything else is imported when it is
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import _core  # noqa: F401  (a broken build shows at once)

if TYPE_CHECKING:
    from . import callbacks, linear_model, losses, penalties, plots, reference, schedules, solvers
    from .checkup import doctor
    from .objective import Objective, value_and_grad
    from .solvers import Result, minimize
    from .update import NesterovPlan, StepReport, nesterov_step_

__all__ = [
    "NesterovPlan",
    "Objective",
    "Result",
    "StepReport",
    "__version__",
    "callbacks",
    "doctor",
    "linear_model",
    "losses",
    "minimize",
    "nesterov_step_",
    "penalties",
    "plots",
    "reference",
    "schedules",
    "solvers",
    "value_and_grad",
]

# Public name -> module that defines it; None marks a submodule.
_HOME: dict[str, str | None] = {
    "NesterovPlan": "update",
    "StepReport": "update",
    "nesterov_step_": "update",
    "Objective": "objective",
    "value_and_grad": "objective",
    "Result": "solvers",
    "minimize": "solvers",
    "doctor": "checkup",
    "callbacks": None,
    "linear_model": None,
    "losses": None,
    "penalties": None,
    "plots": None,
    "reference": None,
    "schedules": None,
    "solvers": None,
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("nagcore")
    if name not in _HOME:
        raise AttributeError(f"module 'nagcore' has no attribute {name!r}")
    home = _HOME[name]
    if home is None:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
