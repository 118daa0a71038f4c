"""Whether it is worth trying to connect to a cluster: after some failures in a row, only now and then.

What counts is whether a connection can be opened; how a cluster answers on one does not. A synchronous state machine
without a clock of its own: `now` is in monotonic seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_gateway_core.errors import ClusterUnreachableError

if TYPE_CHECKING:
    from cluster_gateway_core.errors import GatewayError


class Breaker:
    """Closed while attempts succeed; open after `failures` in a row, for `delay_seconds`; then one attempt decides."""

    def __init__(self, cluster_name: str, address: str, *, failures: int, delay_seconds: float) -> None:
        self._cluster_name = cluster_name
        self._address = address
        self._failures_to_open = failures
        self._delay_seconds = delay_seconds
        self._failures = 0
        self._last: GatewayError | None = None
        self._retry_at = 0.0
        self._probing = False

    def __repr__(self) -> str:
        return f"<Breaker: {self._failures} failures{', open' if self.is_open else ''}>"

    @property
    def is_open(self) -> bool:
        """Whether attempts are being refused, but for one now and then."""
        return self._failures >= self._failures_to_open

    def check(self, now: float) -> None:
        """Refuse where `enter` would, but begin nothing. Raises as `enter`."""
        if self._failures >= self._failures_to_open and (self._probing or now < self._retry_at):
            raise self.refusal(now)

    def enter(self, now: float) -> bool:
        """Begin an attempt; it must end with `succeed`, `fail` or `abandon`.

        Returns:
            Whether this is the one attempt that decides; `fail` and `abandon` want to know.

        Raises:
            ClusterUnreachableError: There must be none now; the message holds `dial tcp` and the last failure's cause.
        """
        self.check(now)
        probe = self.is_open
        self._probing = self._probing or probe
        return probe

    def succeed(self) -> None:
        """End an attempt that opened a connection."""
        self._failures = 0
        self._probing = False
        self._last = None

    def fail(self, error: GatewayError, now: float, *, probe: bool) -> None:
        """End an attempt that failed."""
        self._failures += 1
        self._last = error
        self._retry_at = now + self._delay_seconds
        self.abandon(probe=probe)

    def abandon(self, *, probe: bool) -> None:
        """End an attempt of which nothing was learned: who asked for it has gone."""
        if probe:
            self._probing = False

    def refusal(self, now: float) -> ClusterUnreachableError:
        """What is told to whom it refuses."""
        last, unreachable = self._last, f"cluster {self._cluster_name} cannot be reached: "
        cause = last.message.removeprefix(unreachable) if last else ""
        delay = max(self._retry_at - now, 1.0)
        return ClusterUnreachableError(
            f"{unreachable}dial tcp {self._address}: not tried, because the last {self._failures} attempts failed; "
            f"the last one: {cause}",
            cluster_name=self._cluster_name,
            hop=last.hop if last else None,
            hint=last.hint if last else "",
            retry_after_seconds=delay,
        )
