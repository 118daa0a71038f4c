"""What to do with each line of a watch and with each failure; pure.

Source: kubernetes/client-go, tools/cache/reflector.go, handleAnyWatch and watch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from cluster_gateway_core.errors import ExpiredError, GatewayError, HubUnavailableError
from cluster_gateway_core.hub.json_values import as_object, as_text
from cluster_gateway_core.hub.status import error_of_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_gateway_core.hub.json_values import JSONObject

_FIRST_DELAY_SECONDS: Final = 0.2
_LONGEST_DELAY_SECONDS: Final = 10.0
_MAXIMUM_RESUMES: Final = 5
"""Failures in a row after which the version itself is doubted, for example after a restored etcd."""


class Change(Enum):
    """What an event does to the set of objects."""

    UPSERT = auto()
    DELETE = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """One event, understood.

    Attributes:
        change: What it does.
        object: The object; of a bookmark only its version counts.
        version: Resource version from which to resume once the event is applied; empty if it has none.
    """

    change: Change
    object: JSONObject
    version: str


_CHANGES: Final = {
    "ADDED": Change.UPSERT,
    "MODIFIED": Change.UPSERT,
    "DELETED": Change.DELETE,
    "BOOKMARK": Change.NOTHING,
}


def parse_event(path: str, line: bytes) -> WatchEvent:
    """Read one line.

    Raises:
        GatewayError: The line is an ERROR event (`ExpiredError` for code 410), or no event at all.
    """
    try:
        event = as_object(json.loads(line))
    except ValueError as error:
        raise HubUnavailableError(f"the watch of {path} broke off", retry_after_seconds=1) from error
    kind = as_text(event.get("type"))
    if not kind or not isinstance(event.get("object"), dict):
        raise HubUnavailableError(f"the watch of {path} sent something that is no event")
    found = as_object(event["object"])
    if kind == "ERROR":
        raise _error_event(path, found)
    return WatchEvent(change=_CHANGES.get(kind, Change.NOTHING), object=found, version=version_of(found))


def version_of(value: JSONObject) -> str:
    """Resource version of an object or list; empty when it has none."""
    return as_text(as_object(value.get("metadata")).get("resourceVersion"))


def must_relist(error: GatewayError, failures: int) -> bool:
    """Whether a watch cannot resume from its version.

    Args:
        error: Why the watch failed.
        failures: How many tries failed in a row, this one included.

    Returns:
        True after 410 Gone, after an error that another try does not mend, and after several tries.
    """
    lasting = isinstance(error, HubUnavailableError) and error.retry_after_seconds is None
    return isinstance(error, ExpiredError) or lasting or failures >= _MAXIMUM_RESUMES


def retry_delay_seconds(failures: int, uniform: Callable[[float, float], float]) -> float:
    """Delay before the next try: doubled each time from 0.2 to 10 s, of which a random half counts.

    Args:
        failures: How many tries failed in a row, at least 1.
        uniform: `random.uniform`, or a test's.
    """
    longest = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** min(failures - 1, 16))
    return uniform(longest / 2, longest)


def _error_event(path: str, status: JSONObject) -> GatewayError:
    code = status.get("code")
    number = code if isinstance(code, int) else 500
    if status.get("reason") in ("Expired", "Gone"):
        number = 410
    return error_of_status("GET", path, number, json.dumps(status).encode(), None)
