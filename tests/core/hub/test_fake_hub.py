from __future__ import annotations

import aiohttp
from tests.support.fake_hub import Answer, FakeHub, make_list, make_status


async def test_answers_in_the_order_written_and_records_what_came(hub: FakeHub) -> None:
    hub.script("LIST", Answer(body=make_list()), Answer(status=503, body=make_status(503)))
    async with aiohttp.ClientSession(hub.url) as session:
        for status in (200, 503, 501):
            async with session.get("/x", params={"limit": "1"}) as response:
                assert response.status == status
        async with session.post("/y", json={"a": 1}) as response:
            assert response.status == 501
    assert [(r.kind, r.path, r.query) for r in hub.received[:3]] == [("LIST", "/x", {"limit": "1"})] * 3
    assert hub.received[3].body == {"a": 1}
    await hub.wait_for("POST", 1)


async def test_a_watch_sends_its_lines_and_ends_as_told(hub: FakeHub) -> None:
    hub.script("WATCH", Answer(events=({"type": "ADDED"}, b"raw\n"), end="close"))
    async with (
        aiohttp.ClientSession(hub.url) as session,
        session.get("/x", params={"watch": "true"}) as response,
    ):
        assert await response.text() == '{"type": "ADDED"}\nraw\n'
