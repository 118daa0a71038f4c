"""Run a program that the kernel kills as soon as the process that asked for it is gone, even by kill -9.

Started as a file by `processes`, in a bare interpreter: `launcher.py PARENT_PID PROGRAM [ARGUMENT ...]`.
A step between fork and exec would do the same but may deadlock in a process with threads, which is
why `preexec_fn` is not used.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
"""prctl(2); Linux keeps the setting across execve(2)."""


def main(arguments: list[str]) -> NoReturn:
    """Ask for the parent's death to end us, then become the program.

    Returns:
        Never: it has become the program, or ends with exit code 1 if the parent has gone already.
    """
    parent, program = int(arguments[0]), arguments[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # It may have died before the call above, which then has nothing to watch.
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606  # to become the program is the very purpose  # the very purpose; there is no shell in it


if __name__ == "__main__":
    main(sys.argv[1:])
