"""Being told to stop while starting is clean, whatever the moment and though the hub never answers."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.support.answering_hub import HubStage
from tests.support.gateway_process import GatewayProcess, run_gateway
from tests.support.hub_certificates import make_identity
from tests.support.processes import children_of, is_running

from cluster_gateway.control_planes import pick_free_ports

if TYPE_CHECKING:
    from pathlib import Path

_WAIT_SECONDS = 60.0


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, list[str]]:
    """Command lines by role, before a hub that is not there."""
    hub, https, grpc_port = pick_free_ports(3)
    kubeconfig = tmp_path / "hub.kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "hub",
                "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": "gateway"}}],
                "clusters": [{"name": "hub", "cluster": {"server": f"http://127.0.0.1:{hub}"}}],
                "users": [{"name": "gateway", "user": {"token": "made-up"}}],
            }
        )
    )
    stage = HubStage(directory=tmp_path, gateway_kubeconfig=str(kubeconfig), authority=make_identity("ca"))
    stage.write_serving_certificate(tmp_path)
    (tmp_path / "ca.crt").write_bytes(stage.authority.certificate_pem)
    serving = [
        "--bind-address=127.0.0.1",
        f"--tls-cert-file={tmp_path / 'serving.crt'}",
        f"--tls-private-key-file={tmp_path / 'serving.key'}",
    ]
    to_hub = [f"--kubeconfig={kubeconfig}", "--shutdown-grace-duration=5s"]
    to_core = [
        f"--core-target=dns:///127.0.0.1:{grpc_port}",
        f"--core-ca-file={tmp_path / 'ca.crt'}",
        f"--core-client-cert-file={tmp_path / 'serving.crt'}",
        f"--core-client-key-file={tmp_path / 'serving.key'}",
    ]
    return {
        "apiserver": ["apiserver", f"--secure-port={https}", *serving, *to_hub],
        "core": ["core", f"--grpc-port={grpc_port}", f"--facade-ca-file={tmp_path / 'ca.crt'}", *serving, *to_hub],
        "facade": ["facade", f"--secure-port={https}", *serving, *to_core],
    }


async def until_logged(process: GatewayProcess, text: str) -> None:
    async with asyncio.timeout(_WAIT_SECONDS):
        while text not in process.log.read_text():  # noqa: ASYNC110 - of another process's log nothing tells
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("role", ["core", "facade"])
async def test_a_process_that_never_became_ready_ends_in_order(
    arguments: dict[str, list[str]], tmp_path: Path, role: str
) -> None:
    async with run_gateway(arguments[role], directory=tmp_path) as process:
        await until_logged(process, f"{role} serving on")
        assert await process.stop() == 0, process.log.read_text()
    assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize("moment", ["started the core", "started the facade", "core serving on", "facade serving on"])
async def test_a_gateway_ends_with_all_its_parts_whenever_it_is_told(
    arguments: dict[str, list[str]], tmp_path: Path, moment: str
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    variables = {"TMPDIR": str(temporary)}
    async with run_gateway(arguments["apiserver"], directory=tmp_path, variables=variables) as process:
        await until_logged(process, moment)
        children = children_of(process.process.pid)
        assert await process.stop() == 0, process.log.read_text()
    assert [pid for pid in children.values() if is_running(pid)] == []
    assert os.listdir(temporary) == []  # noqa: PTH208 - what is left, by name
    assert "Traceback" not in process.log.read_text()
