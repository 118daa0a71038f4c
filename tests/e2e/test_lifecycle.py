"""How a gateway ends and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import aiohttp
import pytest
from tests.support.gateway import NAMESPACE, SERVICE, children_of, proxy_path
from tests.support.gateway_process import open_session

from cluster_gateway.control_planes import API_SERVICE, register_gateway, wait_available, wait_until

if TYPE_CHECKING:
    from tests.support.gateway import Gateway, Stage
    from tests.support.kubectl import Kubectl

_NAMESPACE_PATH = "/api/v1/namespaces/default"
_END_SECONDS = 20.0
_WAIT_SECONDS = 60.0
_WATCHES = 20


@pytest.mark.parametrize("role", ["core", "facade"])
async def test_a_gateway_that_loses_a_half_ends_as_failed(stage: Stage, gateway: Gateway, role: str) -> None:
    async with stage.run_gateway() as other:
        children = children_of(other.process.process.pid)
        assert set(children) == {"core", "facade"}
        os.kill(children[role], signal.SIGKILL)
        async with asyncio.timeout(_END_SECONDS):
            assert await other.process.process.wait() == 1
        assert f"the {role} died" in other.process.log.read_text()
        assert list(other.temporary.iterdir()) == []
        assert [pid for pid in children.values() if _is_running(pid)] == []


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_killed_gateway_leaves_no_process(stage: Stage, gateway: Gateway) -> None:
    async with stage.run_gateway() as other:
        children = children_of(other.process.process.pid)
        other.process.process.kill()
        await other.process.process.wait()

        async def are_gone() -> bool:
            return not any(_is_running(pid) for pid in children.values())

        await wait_until(are_gone, what="both halves are gone", timeout_seconds=_END_SECONDS)


async def test_a_gateway_that_is_told_to_stop_ends_watches_whole_and_lets_execs_finish(
    stage: Stage, gateway: Gateway
) -> None:
    async with stage.run_gateway("--shutdown-grace-duration=20s") as other:
        user = stage.hub.issue_client_certificate("root", ["system:masters"])
        context = stage.ssl_context(stage.ca_path, user)
        kubectl = stage.kubectl_at(other.url + proxy_path("managed1"), other.ca_path)
        connector = aiohttp.TCPConnector(ssl=context)
        timeout = aiohttp.ClientTimeout(total=_WAIT_SECONDS)
        command = ("exec", "-i", "pod1", "-c", "main", "--", "cat")
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(other.url + proxy_path("managed1", f"{_NAMESPACE_PATH}/pods?watch=1")) as watch,
            kubectl.start(*command) as shell,
        ):
            assert b"pod1" in await watch.content.readline()
            shell.write(b"before\n")
            assert await shell.line() == "before"
            other.process.process.terminate()
            # Read to its end: a watch that were cut would raise.
            assert await watch.content.read() == b""
            shell.write(b"after\n")
            assert await shell.line() == "after"
            shell.close_stdin()
            finished = await shell.finish()
            assert (finished.exit_code, finished.stderr) == (0, "")
            async with asyncio.timeout(_END_SECONDS):
                assert await other.process.process.wait() == 0, other.process.log.read_text()
        assert list(other.temporary.iterdir()) == []


async def test_an_exec_that_outlasts_the_grace_is_cut_and_the_gateway_ends(stage: Stage, gateway: Gateway) -> None:
    async with stage.run_gateway("--shutdown-grace-duration=1s") as other:
        kubectl = stage.kubectl_at(other.url + proxy_path("managed1"), other.ca_path)
        async with kubectl.start("exec", "-i", "pod1", "-c", "main", "--", "cat") as shell:
            shell.write(b"hello\n")
            assert await shell.line() == "hello"
            other.process.process.terminate()
            async with asyncio.timeout(_END_SECONDS):
                assert await other.process.process.wait() == 0, other.process.log.read_text()
            assert (await shell.finish()).exit_code != 0


async def test_the_api_service_recovers_when_the_gateway_comes_back(
    stage: Stage, gateway: Gateway, admin: Kubectl
) -> None:
    try:
        async with stage.run_gateway() as first:
            port = first.port
            await _register(stage, port)
            await wait_available(stage.hub)
            assert await first.process.stop() == 0
        # The hub looks again at what changes, and then again and again while it fails.
        await admin.ok("annotate", "apiservice", API_SERVICE, "e2e=restart", "--overwrite")
        await _wait_condition(admin, "False")
        answer = await stage.ask_hub(proxy_path("managed1", _NAMESPACE_PATH))
        assert answer.status == 503
        async with stage.run_gateway(port=port) as second:
            await wait_available(stage.hub)
            await _wait_condition(admin, "True")
            answer = await stage.ask_hub(proxy_path("managed1", _NAMESPACE_PATH))
            assert answer.status == 200
            assert await second.process.stop() == 0
    finally:
        await _register(stage, gateway.port)
        await wait_available(stage.hub)


async def test_a_gateway_behind_the_hub_stops_in_order_and_breaks_nothing(
    stage: Stage, gateway: Gateway, admin: Kubectl
) -> None:
    """GS-8: not ready but serving; then nothing new, watches end whole, a shell finishes; then the end."""
    flags = ("--shutdown-delay-duration=3s", "--shutdown-grace-duration=20s")
    command = ("exec", "-i", "pod1", "-c", "main", "--", "cat")
    timeout = aiohttp.ClientTimeout(total=_WAIT_SECONDS)
    connector = aiohttp.TCPConnector(ssl=stage.hub.ssl_context(), limit=0)
    try:
        async with stage.run_gateway(*flags) as other:
            await _register(stage, other.port)
            await _until_watches_arrive(stage, other)
            async with (
                aiohttp.ClientSession(stage.hub.url, connector=connector, timeout=timeout) as session,
                contextlib.AsyncExitStack() as stack,
                stage.kubectl("managed1").start(*command) as shell,
            ):
                path = proxy_path("managed1", f"{_NAMESPACE_PATH}/pods?watch=1")
                watches = [await stack.enter_async_context(session.get(path)) for _ in range(_WATCHES)]
                for watch in watches:
                    assert b"pod1" in await watch.content.readline()
                shell.write(b"before\n")
                assert await shell.line() == "before"
                other.process.process.terminate()
                await _wait_readiness(other, 500)
                answer = await stage.ask_hub(proxy_path("managed1", _NAMESPACE_PATH))
                assert answer.status == 200
                # Read to their ends: a watch that were cut would raise.
                assert await asyncio.gather(*(watch.content.read() for watch in watches)) == [b""] * _WATCHES
                shell.write(b"after\n")
                assert await shell.line() == "after"
                shell.close_stdin()
                finished = await shell.finish()
                assert (finished.exit_code, finished.stderr) == (0, "")
                async with asyncio.timeout(_END_SECONDS):
                    assert await other.process.process.wait() == 0, other.process.log.read_text()
            log = other.process.log.read_text()
            order = [log.index(line) for line in ("the facade drains first", "facade draining", "core draining 0")]
            assert order == sorted(order)
    finally:
        await _register(stage, gateway.port)
        await wait_available(stage.hub)


async def test_a_second_signal_ends_a_gateway_at_once(stage: Stage, gateway: Gateway) -> None:
    async with stage.run_gateway("--shutdown-grace-duration=10m") as other:
        kubectl = stage.kubectl_at(other.url + proxy_path("managed1"), other.ca_path)
        async with kubectl.start("exec", "-i", "pod1", "-c", "main", "--", "cat") as shell:
            shell.write(b"hello\n")
            assert await shell.line() == "hello"
            other.process.process.terminate()
            await _wait_log(other, "facade draining")
            other.process.process.send_signal(signal.SIGINT)
            async with asyncio.timeout(_END_SECONDS):
                assert await other.process.process.wait() in {0, 1}
            assert (await shell.finish()).exit_code != 0
        assert list(other.temporary.iterdir()) == []


async def test_open_shells_and_watches_end_with_the_right_to_have_them(
    stage: Stage, gateway: Gateway, admin: Kubectl
) -> None:
    """Research, part a2: a user whose role is revoked keeps nothing open."""
    flags = (
        "--reauthorization-interval=1s",
        "--authorization-webhook-cache-authorized-ttl=1s",
        "--authorization-webhook-cache-unauthorized-ttl=1s",
    )
    user = stage.hub.issue_client_certificate("leaver")
    keeper = stage.hub.issue_client_certificate("stayer")
    rule = {
        "apiGroups": ["cluster.core.oam.dev"],
        "resources": ["clustergateways/proxy"],
        "resourceNames": ["managed1"],
        "verbs": ["get", "create"],
    }
    await stage.grant("e2e-leaver", [rule], "leaver")
    await stage.grant("e2e-stayer", [rule], "stayer")
    command = ("exec", "-i", "pod1", "-c", "main", "--", "cat")
    watching = ("get", "pods", "-w", "--no-headers")
    async with stage.run_gateway(*flags) as other:
        server = other.url + proxy_path("managed1")
        leaver, stayer = (stage.kubectl_at(server, other.ca_path, one) for one in (user, keeper))
        async with (
            leaver.start(*command) as shell,
            leaver.start(*watching) as watch,
            stayer.start(*command) as kept,
        ):
            for one in (shell, kept):
                one.write(b"hello\n")
                assert await one.line() == "hello"
            assert "pod1" in await watch.line()
            await admin.ok("delete", "clusterrolebinding", "e2e-leaver")
            assert (await shell.finish()).exit_code != 0
            await watch.finish()  # kubectl takes the end of a watch for no failure
            kept.write(b"still here\n")
            assert await kept.line() == "still here"
            kept.close_stdin()
            assert (await kept.finish()).exit_code == 0
        assert await other.process.stop() == 0
    await admin.ok("delete", "clusterrolebinding", "e2e-stayer")
    await admin.ok("delete", "clusterrole", "e2e-leaver", "e2e-stayer")


async def _until_watches_arrive(stage: Stage, other: Gateway) -> None:
    """Wait until the hub sends requests to a gateway that was just registered: its old connections may live on."""

    async def arrives() -> bool:
        answer = await stage.ask_hub(proxy_path("managed1", _NAMESPACE_PATH))
        return answer.status == 200 and await _serves(stage, other)

    await wait_until(arrives, what="the hub has turned to the new gateway", timeout_seconds=_WAIT_SECONDS)


async def _serves(stage: Stage, other: Gateway) -> bool:
    answer = await stage.ask_hub(proxy_path("never-registered", "/which"))
    return b"no such cluster" in answer.body and "never-registered" in other.process.log.read_text()


async def _wait_readiness(other: Gateway, status: int) -> None:
    async def has() -> bool:
        async with open_session(other.port) as session, session.get("/readyz") as response:
            return response.status == status

    await wait_until(has, what=f"readiness {status}", timeout_seconds=_END_SECONDS)


async def _wait_log(other: Gateway, text: str) -> None:
    async def has() -> bool:
        return text in other.process.log.read_text()

    await wait_until(has, what=f"the log says {text}", timeout_seconds=_END_SECONDS)


async def _register(stage: Stage, port: int) -> None:
    await register_gateway(stage.hub, port, stage.authority.certificate, namespace=NAMESPACE, service_name=SERVICE)


async def _wait_condition(admin: Kubectl, status: str) -> None:
    arguments = ("wait", f"--for=condition=Available={status}", f"apiservice/{API_SERVICE}", "--timeout=30s")
    await admin.ok(*arguments)
