"""How many requests may be in progress at once: for each cluster, for each user, and for the core as a whole.

A cluster that hangs holds its requests until their time is up, and a user that floods holds as many as are let in; what
they hold must never be what the others need. So besides its own bound, a cluster or a user never gets more than what is
then still free for all others: however many of them hang, a fair share of the whole stays free. (Dynamic thresholds, as
switches divide their buffers. Source: A. Choudhury and E. Hahne, IEEE/ACM Transactions on Networking 6(2), 1998.)

Short and long-running requests are counted apart, as in kube-apiserver, so that neither can use up the other's room.
Source: kubernetes/apiserver, pkg/server/filters/maxinflight.go.

Nothing here waits or touches a socket. Whatever is counted belongs to a request in progress, so that the tables cannot
outgrow the bounds themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from cluster_gateway_core.errors import OverloadedError

if TYPE_CHECKING:
    from cluster_gateway_core.settings import InFlightLimit, LimitSettings

_KeyT = TypeVar("_KeyT", str, tuple[str, str])

_RETRY_SECONDS: Final = 1.0
"""Source: kubernetes/apiserver, pkg/server/filters/maxinflight.go, retryAfter."""


class Guard:
    """Admits requests, or refuses them before anything is forwarded."""

    def __init__(self, limits: LimitSettings) -> None:
        self._short = _Counts(limits.short, "requests")
        self._long_running = _Counts(limits.long_running, "long-running requests")

    def __repr__(self) -> str:
        return f"<Guard: {self._short.total} short, {self._long_running.total} long-running>"

    @property
    def in_progress(self) -> int:
        """How many requests are admitted now."""
        return self._short.total + self._long_running.total

    def admit(self, cluster_name: str, username: str, *, long_running: bool) -> Admission:
        """Count one request until the admission is left, as a context manager.

        Raises:
            OverloadedError: A bound is reached; nothing was counted.
        """
        counts = self._long_running if long_running else self._short
        counts.add(cluster_name, username)
        return Admission(counts, cluster_name, username)


class Admission:
    """One request that is counted; leaving it, for whatever reason, gives back what it took."""

    __slots__ = ("_cluster_name", "_counts", "_username")

    def __init__(self, counts: _Counts, cluster_name: str, username: str) -> None:
        self._counts = counts
        self._cluster_name = cluster_name
        self._username = username

    def __enter__(self) -> None:
        """Go on with the request."""

    def __exit__(self, *_: object) -> None:
        """Count it no longer."""
        self._counts.remove(self._cluster_name, self._username)


class _Counts:
    """Requests of one kind that are in progress."""

    __slots__ = ("_clusters", "_kind", "_limit", "_pairs", "_users", "total")

    def __init__(self, limit: InFlightLimit, kind: str) -> None:
        self._limit = limit
        self._kind = kind
        self.total = 0
        self._clusters: dict[str, int] = {}
        self._users: dict[str, int] = {}
        self._pairs: dict[tuple[str, str], int] = {}

    def add(self, cluster_name: str, username: str) -> None:
        limit = self._limit
        free = limit.total - self.total
        of_cluster = self._clusters.get(cluster_name, 0)
        of_user = self._users.get(username, 0)
        pair = (cluster_name, username)
        of_pair = self._pairs.get(pair, 0)
        if (
            of_cluster >= limit.per_cluster
            or of_user >= limit.per_user
            or of_cluster >= free
            or of_user >= free
            or of_pair >= limit.per_cluster - of_cluster
        ):
            raise self._refusal(cluster_name, of_cluster, of_user)
        self.total += 1
        self._clusters[cluster_name] = of_cluster + 1
        self._users[username] = of_user + 1
        self._pairs[pair] = of_pair + 1

    def remove(self, cluster_name: str, username: str) -> None:
        self.total -= 1
        _decrement(self._clusters, cluster_name)
        _decrement(self._users, username)
        _decrement(self._pairs, (cluster_name, username))

    def _refusal(self, cluster_name: str, of_cluster: int, of_user: int) -> OverloadedError:
        """Say which bound it was."""
        limit, kind = self._limit, self._kind
        free = limit.total - self.total
        if free <= 0:
            cause = f"the gateway carries {self.total} {kind} at once, and no more"
        elif of_cluster >= limit.per_cluster:
            cause = f"the gateway carries {limit.per_cluster} {kind} to cluster {cluster_name} at once, and no more"
        elif of_user >= limit.per_user:
            cause = f"the gateway carries {limit.per_user} {kind} of one user at once, and no more"
        elif of_cluster >= free:
            cause = f"of the {free} {kind} that the gateway can still carry, none is left to cluster {cluster_name}, "
            cause += f"which has {of_cluster}"
        elif of_user >= free:
            cause = f"of the {free} {kind} that the gateway can still carry, none is left to a user who has {of_user}"
        else:
            cause = f"the rest of the {limit.per_cluster} {kind} to cluster {cluster_name} is for other users"
        return OverloadedError(
            cause,
            cluster_name=cluster_name,
            hint="Ask again later; docs/limits.md has the bounds and their flags.",
            retry_after_seconds=_RETRY_SECONDS,
        )


def _decrement(counts: dict[_KeyT, int], key: _KeyT) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]
