"""The command ``nagcore``: fit, predict, plot, doctor, bench.

typer and rich are imported when a command runs, so that a missing extra is one clear line.
"""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a check failed, 2 an error, 130 interrupted.

    Parameters
    ----------
    arguments : list of str, optional
        Without the program's name; default ``sys.argv[1:]``.

    Examples
    --------
    >>> try:
    ...     main(["fit", "nowhere.csv"])
    ... except SystemExit as end:
    ...     end.code
    2
    """
    try:
        from .app import run_app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print(
            f"nagcore: the command line needs {error.name}; pip install 'nagcore[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    run_app(arguments)
