"""The entry point of `cluster-gateway`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cluster_gateway.command import APISERVER, CORE, FACADE, MISUSED

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMANDS = {command.name: command for command in (APISERVER, CORE, FACADE)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: The command line without the program's name; None means this process's.

    Returns:
        The exit status: 0, 1 for a failure, 2 for a command line that cannot be read.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_render_usage())
        return 0 if arguments else MISUSED
    command = _COMMANDS.get(arguments[0])
    if command is None:
        sys.stderr.write(f"unknown command: {arguments[0]}\n\n{_render_usage()}")
        return MISUSED
    return command(arguments[1:])


def _render_usage() -> str:
    lines = [f"  {name:<11}{command.summary}" for name, command in _COMMANDS.items()]
    return "\n".join(["usage: cluster-gateway <command> [flags]", "", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
