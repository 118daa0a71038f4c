"""The current fault of a part that depends on the hub."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cluster_gateway_core.model.condition import Condition

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

__all__ = ["Condition", "FaultReport"]

_LOG_INTERVAL_SECONDS: Final = 60.0


class FaultReport:
    """The current fault of one part: readable as text, logged at most once a minute.

    Attributes:
        text: What is wrong now; empty when nothing is.
    """

    def __init__(self, logger: logging.Logger, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.text = ""
        self._logger = logger
        self._title = title
        self._clock = clock
        self._quiet_until = float("-inf")

    def report(self, text: str) -> None:
        """Set the fault; a repeated one is not logged again within a minute."""
        self.text = text
        now = self._clock()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL_SECONDS
            self._logger.warning("%s: %s", self._title, text)

    def clear(self) -> None:
        """Say that it works; logged when it did not before."""
        if self.text:
            self.text = ""
            self._quiet_until = float("-inf")
            self._logger.info("%s: works again", self._title)
