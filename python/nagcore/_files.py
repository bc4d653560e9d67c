"""Files that are whole or absent: a temporary beside the target, synced, renamed over it, folder synced."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ModuleNotFoundError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

_DAY = 86400.0


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[Any]:
    """A stream that becomes ``path`` when the block ends well, and nothing when it does not.

    A process that is killed leaves its temporary behind; `remove_abandoned` finds those.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> with atomic_write(path, "w") as stream:
    ...     _ = stream.write("whole")
    >>> path.read_text()
    'whole'
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file to write.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; make it first.")
    temporary, stream = _temporary(path, mode)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _temporary(path: Path, mode: str) -> tuple[Path, IO[Any]]:
    while True:
        temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
        # open() and not mkstemp: a result gets the permissions that the user's umask gives it.
        stream = open(temporary, "x" + mode[1:], encoding=None if "b" in mode else "utf-8")
        # The lock tells `remove_abandoned` that the writer lives. Until it is taken the file could be
        # taken for abandoned; then it has lost its name by now, and another one is made.
        _lock(stream.fileno())
        if temporary.exists():
            return temporary, stream
        stream.close()


def _lock(descriptor: int) -> bool:
    """Whether this descriptor has the file for itself now; False as well where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Delete the temporaries of `atomic_write` for targets ``pattern`` whose writers no longer live.

    Where the file system has no locks to tell, those that are a day old.

    >>> remove_abandoned(Path("."), "*.nagcore")
    """
    for temporary in folder.glob(f".{pattern}.????????.tmp"):
        with suppress(OSError):
            with open(temporary, "rb") as stream:
                if _lock(stream.fileno()) or temporary.stat().st_mtime < time.time() - _DAY:
                    temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut; not all systems can.

    >>> sync_folder(Path("."))
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)
