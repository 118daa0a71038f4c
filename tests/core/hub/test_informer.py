from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.fake_hub import Answer, FakeHub, make_list, make_status

from cluster_gateway_core.hub.informer import Collection, Informer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cluster_gateway_core.hub.client import HubClient

PATH = "/api/v1/namespaces/n/secrets"


class RecordingSink:
    def __init__(self) -> None:
        self.objects: dict[str, str] = {}
        self._changed = asyncio.Event()

    def replace(self, objects: Sequence[dict[str, Any]]) -> None:
        self.objects = {}
        for value in objects:
            self.upsert(value)

    def upsert(self, value: dict[str, Any]) -> None:
        self.objects[value["metadata"]["name"]] = value["metadata"]["resourceVersion"]
        self._notify()

    def delete(self, value: dict[str, Any]) -> None:
        del self.objects[value["metadata"]["name"]]
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for(self, **objects: str) -> None:
        async with asyncio.timeout(10):
            while self.objects != objects:
                await self._changed.wait()


def without_delay(low: float, _: float) -> float:
    return low if low >= 100 else 0.0


def make_object(name: str, version: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}}


def make_event(kind: str, name: str, version: str) -> dict[str, Any]:
    return {"type": kind, "object": make_object(name, version)}


@asynccontextmanager
async def running(client: HubClient, sink: RecordingSink) -> AsyncIterator[Informer]:
    collection = Collection(name="things", path=PATH, selector={"labelSelector": "a"}, denied_hint="bind Role reader")
    informer = Informer(client, collection, sink, uniform=without_delay)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        yield informer
        task.cancel()


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


async def test_lists_all_pages_then_watches_from_their_version(
    hub: FakeHub, client: HubClient, sink: RecordingSink
) -> None:
    hub.script(
        "LIST",
        Answer(body=make_list(make_object("a", "1"), next_page="more")),
        Answer(body=make_list(make_object("b", "2"))),
    )
    hub.script("WATCH", Answer(events=(make_event("MODIFIED", "b", "101"), make_event("DELETED", "a", "102"))))
    async with running(client, sink) as informer:
        await sink.wait_for(b="101")
        assert informer.synced.is_set()
        assert informer.condition().ready
    assert hub.of_kind("LIST")[0].query == {"labelSelector": "a", "limit": "500"}
    assert hub.of_kind("LIST")[1].query["continue"] == "more"
    watch = hub.of_kind("WATCH")[0].query
    assert watch["resourceVersion"] == "100"
    assert watch["allowWatchBookmarks"] == "true"
    assert 300 <= int(watch["timeoutSeconds"]) <= 600


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_resumes_a_watch_that_ended_from_its_last_version(
    hub: FakeHub, client: HubClient, sink: RecordingSink, end: Any
) -> None:
    hub.script("LIST", Answer(body=make_list()))
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "150"}}}
    hub.script("WATCH", Answer(events=(make_event("ADDED", "a", "101"), bookmark), end=end))
    async with running(client, sink):
        await hub.wait_for("WATCH", 2)
        assert sink.objects == {"a": "101"}
    assert hub.of_kind("WATCH")[1].query["resourceVersion"] == "150"
    assert len(hub.of_kind("LIST")) == 1


@pytest.mark.parametrize(
    "gone",
    [
        Answer(status=410, body=make_status(410, "Expired")),
        Answer(events=({"type": "ERROR", "object": make_status(410, "Expired")},), end="close"),
        Answer(events=({"type": "ERROR", "object": make_status(500, "Gone")},), end="close"),
        Answer(status=400, body=make_status(400, "BadRequest", "invalid resource version")),
    ],
)
async def test_lists_again_when_the_version_is_gone(
    hub: FakeHub, client: HubClient, sink: RecordingSink, gone: Answer
) -> None:
    hub.script("LIST", Answer(body=make_list(make_object("a", "1"))))
    hub.script("LIST", Answer(body=make_list(make_object("b", "2"), version="200")))
    hub.script("WATCH", gone)
    async with running(client, sink):
        await sink.wait_for(b="2")
        await hub.wait_for("WATCH", 2)
    assert hub.of_kind("WATCH")[1].query["resourceVersion"] == "200"


async def test_a_list_that_expires_between_pages_is_read_in_one(
    hub: FakeHub, client: HubClient, sink: RecordingSink
) -> None:
    hub.script(
        "LIST",
        Answer(body=make_list(make_object("a", "1"), next_page="more")),
        Answer(status=410, body=make_status(410, "Expired")),
        Answer(body=make_list(make_object("a", "1"), make_object("b", "2"))),
    )
    async with running(client, sink):
        await sink.wait_for(a="1", b="2")
    assert "limit" not in hub.of_kind("LIST")[2].query


async def test_a_hub_that_fails_keeps_the_last_good_objects(
    hub: FakeHub, client: HubClient, sink: RecordingSink
) -> None:
    failing = Answer(status=503, body=make_status(503))
    hub.script("LIST", Answer(body=make_list(make_object("a", "1"))))
    hub.script("WATCH", failing, failing, failing)
    async with running(client, sink) as informer:
        await hub.wait_for("WATCH", 3)
        assert sink.objects == {"a": "1"}
        assert informer.condition().ready
        await hub.wait_for("WATCH", 4)
    assert len(hub.of_kind("LIST")) == 1
    assert hub.of_kind("WATCH")[3].query["resourceVersion"] == "100"


async def test_doubts_its_version_after_five_failures(hub: FakeHub, client: HubClient, sink: RecordingSink) -> None:
    hub.script("LIST", Answer(body=make_list()), Answer(body=make_list(make_object("a", "1"))))
    hub.script("WATCH", *[Answer(status=500, body=make_status(500))] * 5)
    async with running(client, sink):
        await sink.wait_for(a="1")
    assert len(hub.of_kind("WATCH")) >= 5


async def test_a_refusal_says_which_right_is_missing(
    hub: FakeHub, client: HubClient, sink: RecordingSink, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = Answer(status=403, body=make_status(403, message='User "gateway" cannot list'))
    again = asyncio.Event()
    hub.script("LIST", refusal, Answer(body=make_list(make_object("a", "1")), held=again))
    async with running(client, sink) as informer:
        await hub.wait_for("LIST", 2)
        condition = informer.condition()
        assert not condition.ready
        assert "403" in condition.detail
        assert "bind Role reader" in condition.detail
        assert "bind Role reader" in caplog.text
        again.set()
        await sink.wait_for(a="1")
        assert informer.condition().detail == ""


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "ADDED", "object": {}},
        {"type": "ADDED", "object": {"metadata": {"name": None}}},
        {"type": "DELETED", "object": {"metadata": {"name": "unknown"}}},
        {"type": "SURPRISE", "object": {}},
    ],
)
async def test_one_broken_object_never_stops_the_stream(
    hub: FakeHub, client: HubClient, sink: RecordingSink, broken: dict[str, Any]
) -> None:
    hub.script("LIST", Answer(body=make_list()))
    hub.script("WATCH", Answer(events=(broken, make_event("ADDED", "a", "101"))))
    async with running(client, sink):
        await sink.wait_for(a="101")
    assert len(hub.of_kind("WATCH")) == 1


@pytest.mark.parametrize("line", [b"{half\n", b"[]\n", b'{"type":"ADDED","object":{"metad'])
async def test_a_broken_line_ends_the_watch_and_it_resumes_or_relists(
    hub: FakeHub, client: HubClient, sink: RecordingSink, line: bytes
) -> None:
    hub.script("LIST", Answer(body=make_list()), Answer(body=make_list(make_object("a", "101"))))
    hub.script("WATCH", Answer(events=(line,), end="close"))
    hub.script("WATCH", Answer(events=(make_event("ADDED", "a", "101"),)))
    async with running(client, sink):
        await sink.wait_for(a="101")


async def test_a_watch_that_ends_at_once_counts_as_failed(hub: FakeHub, client: HubClient, sink: RecordingSink) -> None:
    again = asyncio.Event()
    hub.script("LIST", Answer(body=make_list()))
    hub.script("WATCH", Answer(end="close"), Answer(held=again))
    async with running(client, sink) as informer:
        await hub.wait_for("WATCH", 2)
        assert "at once" in informer.condition().detail
        again.set()


async def test_a_watch_that_is_silent_for_too_long_is_resumed_without_a_fault(
    hub: FakeHub, client: HubClient, sink: RecordingSink
) -> None:
    """A frozen hub holds its connections open; a healthy one sends bookmarks."""

    def briefly(low: float, high: float) -> float:
        return 0.05 if high < 300 else low

    hub.script("LIST", Answer(body=make_list(make_object("a", "1"), version="7")))
    hub.script("WATCH", Answer(events=({"type": "BOOKMARK", "object": make_object("", "9")},)))
    hub.script("WATCH", Answer(events=(make_event("ADDED", "b", "10"),)))
    collection = Collection(name="things", path=PATH)
    informer = Informer(client, collection, sink, uniform=briefly)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await sink.wait_for(a="1", b="10")
        assert informer.condition().detail == ""
        task.cancel()
    assert [received.query["resourceVersion"] for received in hub.of_kind("WATCH")][:2] == ["7", "9"]
    assert len(hub.of_kind("LIST")) == 1
