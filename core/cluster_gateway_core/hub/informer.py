"""Keeps a local copy of a collection on the hub: list, then watch, for ever.

The last good copy stays in force while the hub is away. Source of the rules: kubernetes/client-go,
tools/cache/reflector.go.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from cluster_gateway_core.errors import AccessDeniedError, ExpiredError, GatewayError, HubUnavailableError
from cluster_gateway_core.hub.condition import Condition, FaultReport
from cluster_gateway_core.hub.json_values import as_list, as_object, as_text
from cluster_gateway_core.hub.watch_events import (
    Change,
    must_relist,
    parse_event,
    retry_delay_seconds,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from cluster_gateway_core.hub.client import HubClient
    from cluster_gateway_core.hub.json_values import JSONObject
    from cluster_gateway_core.hub.watch_events import WatchEvent

_LOGGER = logging.getLogger(__name__)
_PAGE_SIZE: Final = 500
_WATCH_SECONDS: Final = (300, 600)
"""Random length of a watch, so that replicas do not reconnect at once (client-go's minWatchTimeout)."""
_SILENCE_SECONDS: Final = (100, 140)
"""Random length of a silence after which a watch is resumed on a new connection: a hub that is frozen still holds its
connections, and a healthy one sends a bookmark about every minute. Source: kubernetes/apiserver, pkg/storage/cacher,
bookmarkFrequency."""
_SHORT_WATCH_SECONDS: Final = 1.0
"""A watch that ends sooner without an event counts as failed (client-go, "very short watch")."""


class Sink(Protocol):
    """Who is told of the objects. Calls are synchronous; an exception concerns that object alone."""

    def replace(self, objects: Sequence[JSONObject]) -> None:
        """These are all objects now."""

    def upsert(self, value: JSONObject) -> None:
        """This object is new or changed."""

    def delete(self, value: JSONObject) -> None:
        """This object is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What is informed about.

    Attributes:
        name: Name of the readiness condition.
        path: Path of the collection.
        selector: `labelSelector` or `fieldSelector` with its value; empty for all objects.
        denied_hint: What to do when the hub refuses to show it.
    """

    name: str
    path: str
    selector: Mapping[str, str] = field(default_factory=dict[str, str])
    denied_hint: str = ""


class Informer:
    """One list and watch.

    Attributes:
        synced: Set once the first list has reached the sink; never cleared.
    """

    def __init__(
        self,
        client: HubClient,
        collection: Collection,
        sink: Sink,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.synced = asyncio.Event()
        self._client = client
        self._collection = collection
        self._sink = sink
        self._uniform = uniform
        self._faults = FaultReport(_LOGGER, f"reading {collection.path} from the hub")
        self._version = ""
        self._failures = 0

    def condition(self) -> Condition:
        """Whether the first list has arrived, and what is wrong now."""
        synced = self.synced.is_set()
        detail = self._faults.text or ("" if synced else "waiting for the first list")
        return Condition(name=self._collection.name, ready=synced, detail=detail)

    async def run(self) -> None:
        """Inform the sink until cancelled; failures of the hub are waited out."""
        while True:
            try:
                if not self._version:
                    self._version = await self._list()
                await self._watch()
            except GatewayError as error:
                self._failures += 1
                self._faults.report(self._explain(error))
                if must_relist(error, self._failures):
                    self._version = ""
                await asyncio.sleep(retry_delay_seconds(self._failures, self._uniform))

    async def _list(self) -> str:
        try:
            objects, version = await self._read_pages(_PAGE_SIZE)
        except ExpiredError:
            # The snapshot expired between two pages; one unpaged list cannot (client-go, pager.go).
            objects, version = await self._read_pages(None)
        try:
            self._sink.replace(objects)
        except Exception:
            _LOGGER.exception("the list of %s could not be taken over", self._collection.path)
        self.synced.set()
        self._faults.clear()
        return version

    async def _read_pages(self, page_size: int | None) -> tuple[list[JSONObject], str]:
        objects: list[JSONObject] = []
        query = {**self._collection.selector, **({"limit": str(page_size)} if page_size else {})}
        while True:
            page = await self._client.get(self._collection.path, query)
            if page is None:
                raise HubUnavailableError(f"the hub has no {self._collection.path}", retry_after_seconds=1)
            objects.extend(_items(page))
            token = as_text(as_object(page.get("metadata")).get("continue"))
            if not token:
                return objects, version_of(page)
            query["continue"] = token

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        length = int(self._uniform(*_WATCH_SECONDS))
        silence_seconds = self._uniform(*_SILENCE_SECONDS)
        query = {
            **self._collection.selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(length),
        }
        async with self._client.watch_lines(self._collection.path, query, silence_seconds=silence_seconds) as lines:
            self._faults.clear()
            if not await self._apply_all(lines) and loop.time() - started < _SHORT_WATCH_SECONDS:
                raise HubUnavailableError(
                    f"the hub ended the watch of {self._collection.path} at once", retry_after_seconds=1
                )
        self._failures = 0

    async def _apply_all(self, lines: AsyncIterator[bytes]) -> bool:
        """Apply events until the watch ends; True when there was one."""
        seen = False
        async for line in lines:
            event = parse_event(self._collection.path, line)
            self._apply(event)
            self._version = event.version or self._version
            self._failures = 0
            seen = True
        return seen

    def _apply(self, event: WatchEvent) -> None:
        try:
            if event.change is Change.UPSERT:
                self._sink.upsert(event.object)
            elif event.change is Change.DELETE:
                self._sink.delete(event.object)
        except Exception:
            _LOGGER.exception("an object of %s could not be taken over", self._collection.path)

    def _explain(self, error: GatewayError) -> str:
        hint = self._collection.denied_hint if isinstance(error, AccessDeniedError) else ""
        return f"{error.message}; {hint}" if hint else error.message


def _items(page: JSONObject) -> list[JSONObject]:
    return [item for item in as_list(page.get("items")) if isinstance(item, dict)]
