"""Asking again, for as long as an exchange lasts, whether its caller may still have it.

A shell or a watch would otherwise outlive the right by which it was opened. kube-apiserver itself asks only once; it
can afford to, because its callers' access ends with their connection to it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from cluster_gateway_core.errors import AccessDeniedError, GatewayError, UnauthenticatedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from cluster_gateway_core.settings import ReviewSettings

_log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS: Final = 5.0
"""How late an exchange may be asked about, at most."""
_PARTS_OF_INTERVAL: Final = 10
_TOGETHER: Final = 32
"""How many questions are open at a time: equal ones are one question to the hub, and it has others to answer."""


class _Open:
    """An exchange in progress."""

    __slots__ = ("ask", "confirmed_at", "due", "failure", "task")

    def __init__(self, ask: Callable[[], Awaitable[object]], task: asyncio.Task[Any], now: float) -> None:
        self.ask = ask
        self.task = task
        self.confirmed_at = now
        self.due = now
        self.failure: GatewayError | None = None


class Reauthorization:
    """The long-running exchanges of a core. `run` asks about them."""

    def __init__(self, settings: ReviewSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = settings.reauthorization_seconds
        self._patience = settings.reauthorization_patience_seconds
        self._clock = clock
        self._open: dict[_Open, None] = {}  # in the order in which they are due

    @asynccontextmanager
    async def repeat(self, ask: Callable[[], Awaitable[object]]) -> AsyncGenerator[None]:
        """Have a question asked again from time to time while the context lasts.

        Args:
            ask: Asked without the exchange knowing; raises as when it was first asked.

        Raises:
            AccessDeniedError: The answer has become a no; what the context did was cancelled.
            UnauthenticatedError: Likewise.
            GatewayError: The question could not be answered for too long.
        """
        task = asyncio.current_task()
        if not self._interval or task is None:
            yield
            return
        cancelling = task.cancelling()
        exchange = _Open(ask, task, self._clock())
        exchange.due += self._interval
        self._open[exchange] = None
        try:
            yield
        except asyncio.CancelledError as error:
            if exchange.failure is not None and task.uncancel() <= cancelling:
                raise exchange.failure from error
            raise
        finally:
            self._open.pop(exchange, None)

    async def run(self) -> None:
        """Ask about each exchange once an interval, until cancelled."""
        while self._interval:
            await asyncio.sleep(min(_LONGEST_PAUSE_SECONDS, self._interval / _PARTS_OF_INTERVAL))
            await self.ask_due()

    async def ask_due(self) -> None:
        """Ask about those exchanges whose time has come."""
        now = self._clock()
        due: list[_Open] = []
        for exchange in self._open:
            if exchange.due > now:
                break
            due.append(exchange)
        for exchange in due:
            del self._open[exchange]
            exchange.due = now + self._interval
            self._open[exchange] = None
        for start in range(0, len(due), _TOGETHER):
            await asyncio.gather(*(self._ask(exchange) for exchange in due[start : start + _TOGETHER]))

    async def _ask(self, exchange: _Open) -> None:
        if exchange not in self._open:
            return  # it has ended while others were asked about
        try:
            await exchange.ask()
        except (AccessDeniedError, UnauthenticatedError) as error:
            _log.info("an exchange is cut, because it is not allowed any more: %s", error.message)
            self._end(exchange, error)
        except GatewayError as error:
            self._doubt(exchange, error)
        else:
            exchange.confirmed_at = self._clock()

    def _doubt(self, exchange: _Open, error: GatewayError) -> None:
        """Let an exchange go on while the hub cannot be asked, but not for ever."""
        if self._clock() - exchange.confirmed_at >= self._patience:
            _log.warning("an exchange is cut, because the hub could not be asked about it for too long")
            self._end(exchange, error)

    def _end(self, exchange: _Open, failure: GatewayError) -> None:
        """Cancel what an exchange does, unless it has ended while it was asked about."""
        if exchange in self._open and exchange.failure is None:
            exchange.failure = failure
            exchange.task.cancel()
