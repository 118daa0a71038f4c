"""Starting and stopping a facade leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

import pytest
from aiohttp import http_parser
from tests.support.fake_core import FakeCore
from tests.support.raw_client import raw_client
from tests.support.running_facade import client_tls, make_hub_identities, write_pair

from cluster_gateway_facade.app import run_facade, serve_facade
from cluster_gateway_facade.settings import CoreSettings, FacadeSettings, ServingSettings

if TYPE_CHECKING:
    from pathlib import Path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def settings_for(folder: Path, port: int, target: str) -> FacadeSettings:
    certificate, key = write_pair(make_hub_identities().serving, folder, "serving")
    return FacadeSettings(
        serving=ServingSettings(
            bind_address="127.0.0.1", port=port, certificate_file=certificate, private_key_file=key, grace_seconds=1.0
        ),
        core=CoreSettings(target=target),
    )


async def test_a_facade_serves_until_told_and_leaves_no_task_and_no_socket(tmp_path: Path) -> None:
    identities, port, stopping = make_hub_identities(), free_port(), asyncio.Event()
    before = asyncio.all_tasks()
    async with FakeCore(tmp_path / "core.sock") as core:
        core.trust(identities.trust())
        settings = settings_for(tmp_path, port, core.target)
        tls = client_tls(identities.serving_ca, None, tmp_path)
        tls.verify_mode = 0  # type: ignore[assignment]
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(serve_facade(settings, stopping, asyncio.Event()))
            async with asyncio.timeout(20):
                while True:
                    try:
                        async with raw_client(port, tls) as client:
                            if (await client.get("/readyz")).status == 200:
                                break
                    except ConnectionRefusedError:
                        await asyncio.sleep(0.01)
            stopping.set()
            async with asyncio.timeout(20):
                await serving
    async with asyncio.timeout(20):
        # gRPC ends its own tasks a moment after its server.
        while asyncio.all_tasks() - before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


def test_an_address_in_use_is_told_in_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run_facade(settings_for(tmp_path, port, f"unix:{tmp_path}/none")) == 1
    assert "the facade cannot run: " in caplog.text
    assert "Traceback" not in caplog.text


def test_a_missing_certificate_is_told_in_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_for(tmp_path, 0, f"unix:{tmp_path}/none")
    (tmp_path / "serving.crt").unlink()
    assert run_facade(settings) == 1
    assert [record.levelno for record in caplog.records if "cannot run" in record.message] == [logging.ERROR]


def test_a_facade_does_not_start_on_aiohttp_s_lenient_parser_a4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    assert run_facade(settings_for(tmp_path, 0, f"unix:{tmp_path}/none")) == 1
    assert "compiled HTTP parser" in caplog.text
