"""How many bytes of a body are carried at once.

Large pieces are cheap: each costs some 100 µs at either end of a gRPC stream, whatever its size. But a stream whose
reader stands still holds its last pieces in several copies. So pieces are large while few streams wait for their
readers, and the more of them wait, the smaller the pieces of all.
"""

from __future__ import annotations

from typing import Final

LARGEST_BYTES: Final = 256 * 1024
"""More gains nothing: half the CPU time of 64 KiB, a quarter of that of 16 KiB."""
SMALLEST_BYTES: Final = 16 * 1024
"""A record of TLS."""
_SHARED_BYTES: Final = 2 * 1024 * 1024
"""What the waiting streams share: large pieces for up to eight, the smallest from 128 on."""


class Pieces:
    """The streams of a process that wait for their readers.

    Attributes:
        waiting: How many do; whoever waits counts itself.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = 0

    @property
    def size(self) -> int:
        """Most bytes to carry at once now."""
        return min(LARGEST_BYTES, max(SMALLEST_BYTES, _SHARED_BYTES // (self.waiting + 1)))


PIECES: Final = Pieces()
"""Those of this process: memory is the process's, whichever part of it holds it."""
