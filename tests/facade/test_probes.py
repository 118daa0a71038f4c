"""Health checks in kube-apiserver's text."""

from __future__ import annotations

import json

import pytest

from cluster_gateway_facade.exchange import ApiRequest
from cluster_gateway_facade.handlers.probes import PING, Check, Probe

GOOD = Check(name="trust-anchors", probe=lambda: None)
BAD = Check(name="poststarthook/registry", probe=lambda: "no list of clusters yet")
HEALTHY = Probe(name="readyz", checks=(PING, GOOD))
FAILING = Probe(name="readyz", checks=(PING, GOOD, BAD))


def asked(path: str = "/readyz", *query: tuple[str, str]) -> ApiRequest:
    return ApiRequest(method="GET", path=path, query=query)


@pytest.mark.parametrize(
    ("probe", "query", "code", "text"),
    [
        (HEALTHY, [], 200, "ok"),
        (HEALTHY, [("verbose", "")], 200, "[+]ping ok\n[+]trust-anchors ok\nreadyz check passed\n"),
        (
            FAILING,
            [],
            500,
            (
                "[+]ping ok\n[+]trust-anchors ok\n"
                "[-]poststarthook/registry failed: reason withheld\nreadyz check failed\n"
            ),
        ),
        (
            FAILING,
            [("verbose", "")],
            500,
            (
                "[+]ping ok\n[+]trust-anchors ok\n"
                "[-]poststarthook/registry failed: no list of clusters yet\nreadyz check failed\n"
            ),
        ),
        (FAILING, [("exclude", "poststarthook/registry")], 200, "ok"),
        (
            FAILING,
            [("verbose", ""), ("exclude", "poststarthook/registry"), ("exclude", "ping"), ("exclude", "x")],
            200,
            (
                "[+]ping excluded: ok\n[+]trust-anchors ok\n[+]poststarthook/registry excluded: ok\n"
                'warn: some health checks cannot be excluded: no matches for "x"\nreadyz check passed\n'
            ),
        ),
    ],
)
async def test_probe(probe: Probe, query: list[tuple[str, str]], code: int, text: str) -> None:
    answer = await probe.answer(asked("/readyz", *query))
    assert (answer.status, answer.body.decode()) == (code, text)
    assert answer.content_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/readyz/ping", 200, "ok"),
        ("/readyz/poststarthook/registry", 500, "internal server error: no list of clusters yet\n"),
        ("/readyz/", 500, None),
    ],
)
async def test_single_check(path: str, code: int, text: str | None) -> None:
    answer = await FAILING.answer(asked(path))
    assert answer.status == code
    if text is not None:
        assert answer.body.decode() == text


async def test_unknown_check_is_not_found() -> None:
    answer = await HEALTHY.answer(asked("/readyz/nothing"))
    assert answer.status == 404
    assert json.loads(answer.body)["kind"] == "Status"
