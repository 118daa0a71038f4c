"""A facade whose process has no descriptor left (fault F13), as a process of its own on uvloop."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from tests.support.running_facade import ALICE, PROXY, running_facade

from cluster_gateway_facade.serving.acceptor import affordable_connections

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT_SECONDS = 120


async def exhaust(folder: Path) -> None:
    """Serve, use up every descriptor, connect, and give them back."""
    async with running_facade(folder) as running, running.as_front_proxy() as kept:
        assert (await kept.get(f"{PROXY}/x", *ALICE)).status == 200
        held = []
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        os.close(held.pop())  # for the client's end
        for _ in range(20):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            except OSError:
                continue
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        assert (await kept.get(f"{PROXY}/x", *ALICE)).status == 200
        for descriptor in held:
            os.close(descriptor)
        async with running.as_front_proxy() as client:
            assert (await client.get(f"{PROXY}/x", *ALICE)).status == 200


async def test_without_descriptors_the_open_connections_are_served_and_new_ones_once_there_are_some(
    tmp_path: Path,
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", __file__, str(tmp_path)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(_LIMIT_SECONDS):
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize(
    ("limits", "wanted", "affordable", "soft"),
    [
        ((1024, 1_000_000), 10_000, 10_000, 10_064),
        ((256, 256), 10_000, 192, None),
        ((256, 1000), 10_000, 936, 1000),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 10_000, 10_000, None),
        ((10, 10), 10_000, 1, None),
    ],
)
def test_connections_are_bound_by_the_limit_of_open_files_which_is_raised_first(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], wanted: int, affordable: int, soft: int | None
) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, values: raised.append(values))
    assert affordable_connections(wanted) == affordable
    assert raised == ([] if soft is None else [(soft, limits[1])])


if __name__ == "__main__":
    from pathlib import Path

    resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))
    uvloop.run(exhaust(Path(sys.argv[1])))
