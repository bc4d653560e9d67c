"""Processes that are killed: a fork that runs a function and dies at the k-th call that changes a file."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

CHANGES = {"open", "write", "flush", "close", "__exit__", "fsync", "truncate", "flock", "mkdir", "link",
           "replace", "rename", "unlink", "remove"}


def forked(work: Callable[[], None], calls: int | None = None) -> int:
    """Run `work` in a child and return how it ended: 0, or minus the signal.

    With `calls` the child sends itself SIGKILL at that call into the system that can change a file, or at
    the return from it: all moments that another process can tell apart are met when `calls` runs from
    1 until the child ends well.
    """
    child = os.fork()
    if child == 0:
        try:
            if calls is not None:
                left = calls

                def profile(frame, event, argument):
                    nonlocal left
                    if event.startswith("c_") and argument.__name__ in CHANGES:
                        left -= 1
                        if left == 0:
                            os.kill(os.getpid(), signal.SIGKILL)

                sys.setprofile(profile)
            work()
            sys.setprofile(None)
            os._exit(0)
        except BaseException:
            sys.setprofile(None)
            import traceback

            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
