"""How many requests may be sent a second time."""

from __future__ import annotations

from typing import Final

_SHARE: Final = 0.1
"""Part of the requests that may be repeated: cores that are in trouble must not get twice the work."""
_RESERVE: Final = 10.0
"""How many may be repeated at once, when there was no trouble before: those that a dying core had in hand."""


class RetryBudget:
    """One client's."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _RESERVE

    def note_request(self) -> None:
        """Count a request that is sent for the first time."""
        if self._left < _RESERVE:
            self._left += _SHARE

    def take(self) -> bool:
        """Whether one more request may be repeated; counts it if so."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
