"""Stand-ins for the two processes of `apiserver`: they note what happens to them in a file a process."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

from cluster_gateway.supervisor import ChildCommand

if TYPE_CHECKING:
    from pathlib import Path

# Follows its lifeline with the very functions of the real children. A file named after the role tells its
# process id, and then what happened; `journal` collects the order over both.
_CHILD = textwrap.dedent(
    """
    import os, pathlib, signal, sys, time
    from cluster_gateway.child import follow_lifeline, read_line, take_standard_input
    role, folder, behaviour = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    def note(text):
        with (folder / "journal").open("a") as journal:
            journal.write(role + " " + text + "\\n")
    lifeline = take_standard_input()
    line = read_line(lifeline)
    def orphaned():
        note("orphaned")
        os._exit(1)
    follow_lifeline(lifeline, orphaned)
    def stop(number, frame):
        note("told")
        if behaviour != "stubborn":
            note("ended")
            os._exit(4 if behaviour == "failing" else 0)
    signal.signal(signal.SIGTERM, stop)
    (folder / (role + ".handover")).write_bytes(line)
    pending = folder / (role + ".pending")
    pending.write_text(str(os.getpid()))
    pending.rename(folder / (role + ".pid"))
    while behaviour != "brief":
        time.sleep(60)
    sys.exit(3)
    """
)


def make_child(role: str, folder: Path, behaviour: str = "obedient", *, grace_seconds: float = 20.0) -> ChildCommand:
    """Describe a stand-in.

    Args:
        role: "core" or "facade".
        folder: Where it notes its process id (`<role>.pid`), its handover and the common `journal`.
        behaviour: "obedient" ends on SIGTERM with 0, "failing" with 4, "stubborn" not at all, and "brief"
            ends unasked with 3.
        grace_seconds: What the supervisor grants it.
    """
    return ChildCommand(
        role=role,
        arguments=(sys.executable, "-c", _CHILD, role, str(folder), behaviour),
        handover=f"settings of the {role}\n".encode(),
        grace_seconds=grace_seconds,
    )


def read_journal(folder: Path) -> list[str]:
    """What happened to both, in order."""
    journal = folder / "journal"
    return journal.read_text().splitlines() if journal.exists() else []
