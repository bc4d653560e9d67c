"""Optional libraries: imported at first use, and a missing one is one clear line."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

# The name on the package index, where it is not the name one imports.
_DISTRIBUTION = {"sklearn": "scikit-learn"}


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import ``module``, or say which extra brings it.

    Parameters
    ----------
    module : str
        What to import, dots allowed (``"pyarrow.csv"``).
    extra : str
        The extra of nagcore's own package that installs it.
    purpose : str
        Who asks, at the start of the message: ``"reading CSV"``.

    Raises
    ------
    ModuleNotFoundError
        ``"reading CSV needs pyarrow; pip install 'nagcore[cli]'"``. An error inside an installed
        library passes through unchanged: it is not a missing extra.

    Examples
    --------
    >>> require("json", "cli", "this example").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != root:
            raise
        library = _DISTRIBUTION.get(root, root)
        raise ModuleNotFoundError(
            f"{purpose} needs {library}; pip install 'nagcore[{extra}]'", name=root
        ) from None


def child_environment(**more: str) -> dict[str, str]:
    """The environment for a Python process that is to import this very nagcore, installed or not.

    >>> child_environment(NAGCORE_ISA="baseline")["NAGCORE_ISA"]
    'baseline'
    """
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}
