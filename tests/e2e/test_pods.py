"""Logs, exec, attach, cp and port-forward: kubectl speaks WebSocket by default and SPDY when told."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pty
import re
import signal
import struct
import termios
from typing import TYPE_CHECKING

import pytest
from tests.support.kubectl import RUN_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.gateway import Stage
    from tests.support.kubectl import Kubectl

_PORT_FORWARD_BYTES = 5 * 1024 * 1024


@pytest.fixture(params=["websocket", "spdy"])
def protocol(request: pytest.FixtureRequest) -> dict[str, str]:
    """Environment that chooses the protocol of every stream."""
    wanted = str(request.param == "websocket").lower()
    return {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": wanted, "KUBECTL_PORT_FORWARD_WEBSOCKETS": wanted}


async def test_logs_can_be_cut_and_chosen_by_container(kubectl: Kubectl, cluster_name: str, stage: Stage) -> None:
    kubelet = stage.kubelets[cluster_name]
    kubelet.container_log("pod1").write_text("one\ntwo\nthree\n")
    kubelet.container_log("pod1", "side").write_text(f"side of {cluster_name}\n")
    assert await kubectl.ok("logs", "pod1", "-c", "main", "--tail=2") == "two\nthree\n"
    assert await kubectl.ok("logs", "pod1", "-c", "side") == f"side of {cluster_name}\n"


async def test_followed_logs_show_each_new_line_and_end_with_the_container(
    kubectl: Kubectl, cluster_name: str, stage: Stage
) -> None:
    """UP-33."""
    log = stage.kubelets[cluster_name].container_log("pod1")
    log.write_text("first\n")
    done = log.with_name(f"{log.name}.done")
    try:
        async with kubectl.start("logs", "-f", "pod1", "-c", "main") as following:
            assert await following.line() == "first"
            for text in ("second", "third"):
                with log.open("a") as file:
                    file.write(f"{text}\n")
                assert await following.line() == text
            done.touch()
            ended = await following.finish()
            assert (ended.exit_code, ended.stdout) == (0, "")
    finally:
        done.unlink(missing_ok=True)


async def test_exec_keeps_stdout_and_stderr_apart(kubectl: Kubectl, protocol: dict[str, str]) -> None:
    """UP-33, RC-1."""
    command = "echo out; echo err >&2"
    result = await kubectl("exec", "pod1", "-c", "main", "--", "sh", "-c", command, environment=protocol)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n", "err\n")


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 1", 1), ("kill -9 $$", 137)])
async def test_exec_ends_with_the_exit_code_of_the_command(
    clusters: dict[str, Kubectl], protocol: dict[str, str], command: str, code: int
) -> None:
    """UP-33, RC-8."""
    arguments = ("exec", "pod1", "-c", "main", "--", "sh", "-c", command)
    assert (await clusters["managed1"](*arguments, environment=protocol)).exit_code == code


async def test_exec_of_a_missing_command_is_explained(clusters: dict[str, Kubectl], protocol: dict[str, str]) -> None:
    result = await clusters["managed1"]("exec", "pod1", "-c", "main", "--", "/no/such", environment=protocol)
    assert result.exit_code == 1
    assert "no such file or directory" in result.stderr


async def test_exec_reads_stdin_to_its_end(kubectl: Kubectl, protocol: dict[str, str]) -> None:
    """UP-33, RC-4."""
    sent = os.urandom(300_000)
    printed = await kubectl.ok("exec", "-i", "pod1", "-c", "main", "--", "sha256sum", stdin=sent, environment=protocol)
    assert printed.split()[0] == hashlib.sha256(sent).hexdigest()


async def test_exec_is_a_conversation(clusters: dict[str, Kubectl], protocol: dict[str, str]) -> None:
    """UP-33."""
    script = 'while read word; do echo "got $word"; done; echo end'
    arguments = ("exec", "-i", "pod1", "-c", "main", "--", "sh", "-c", script)
    async with clusters["managed1"].start(*arguments, environment=protocol) as talk:
        for word in ("one", "two"):
            talk.write(f"{word}\n".encode())
            assert await talk.line() == f"got {word}"
        talk.close_stdin()
        assert await talk.line() == "end"
        assert (await talk.finish()).exit_code == 0


async def test_a_big_output_of_exec_arrives_whole(clusters: dict[str, Kubectl], protocol: dict[str, str]) -> None:
    """UP-33, RC-2."""
    script = "head -c 8000000 /dev/zero | tr '\\0' x"
    printed = await clusters["managed1"].ok(
        "exec", "pod1", "-c", "main", "--", "sh", "-c", script, environment=protocol
    )
    assert printed == "x" * 8_000_000


async def test_attach_answers_every_line(kubectl: Kubectl, protocol: dict[str, str]) -> None:
    """UP-33."""
    printed = await kubectl.ok("attach", "-i", "pod1", "-c", "main", stdin=b"one\ntwo\n", environment=protocol)
    assert printed == "attached\ngot:one\ngot:two\n"


async def test_files_are_copied_both_ways(kubectl: Kubectl, protocol: dict[str, str], tmp_path: Path) -> None:
    """UP-33. Pods of the test's kubelet share this host's files."""
    original, there, back = tmp_path / "original", tmp_path / "there", tmp_path / "back"
    original.write_bytes(os.urandom(2_000_000))
    await kubectl.ok("cp", "-c", "main", str(original), f"pod1:{there}", environment=protocol)
    await kubectl.ok("cp", "-c", "main", f"pod1:{there}", str(back), environment=protocol)
    digests = {hashlib.sha256(path.read_bytes()).digest() for path in (original, there, back)}
    assert len(digests) == 1


@contextlib.asynccontextmanager
async def digest_server() -> AsyncIterator[tuple[int, bytes]]:
    """A server that sends 5 MiB, reads as many, and sends their digest; its port and bytes."""
    sent = os.urandom(_PORT_FORWARD_BYTES)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(RUN_SECONDS):
                writer.write(sent)
                await writer.drain()
                received = await reader.readexactly(_PORT_FORWARD_BYTES)
                writer.write(hashlib.sha256(received).digest())
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], sent


async def test_port_forward_carries_five_mebibytes_each_way(kubectl: Kubectl, protocol: dict[str, str]) -> None:
    """UP-33."""
    sending = os.urandom(_PORT_FORWARD_BYTES)
    async with (
        digest_server() as (port, expected),
        kubectl.start("port-forward", "pod1", f":{port}", "--address=127.0.0.1", environment=protocol) as forward,
    ):
        match = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> ", await forward.line())
        assert match
        async with asyncio.timeout(RUN_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(match[1]))
            received = await reader.readexactly(_PORT_FORWARD_BYTES)
            writer.write(sending)
            await writer.drain()
            writer.write_eof()
            digest = await reader.readexactly(hashlib.sha256().digest_size)
            writer.close()
            await writer.wait_closed()
    assert hashlib.sha256(received).digest() == hashlib.sha256(expected).digest()
    assert digest == hashlib.sha256(sending).digest()


async def test_port_forward_serves_several_connections(clusters: dict[str, Kubectl], protocol: dict[str, str]) -> None:
    """UP-33, RC-15."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        clusters["managed1"].start(
            "port-forward", "pod1", f":{port}", "--address=127.0.0.1", environment=protocol
        ) as forward,
    ):
        local = int((await forward.line()).split(" -> ")[0].rpartition(":")[2])
        for number in range(5):
            async with asyncio.timeout(RUN_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", local)
                writer.write(b"%d\n" % number)
                assert await reader.readline() == b"%d\n" % number
                writer.close()
                await writer.wait_closed()


async def test_a_terminal_is_one_and_follows_its_size(clusters: dict[str, Kubectl], protocol: dict[str, str]) -> None:
    """UP-33."""
    kubectl = clusters["managed1"]
    script = 'test -t 0 || exit 9; while read line; do [ "$line" = end ] && exit 3; stty size; done'
    master, slave = pty.openpty()
    try:
        os.set_blocking(master, False)
        _resize(master, rows=30, columns=100)
        process = await asyncio.create_subprocess_exec(
            kubectl.program,
            *("exec", "-it", "pod1", "-c", "main", "--", "sh", "-c", script),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "KUBECONFIG": str(kubectl.kubeconfig), **protocol},
        )
        try:
            await _wait_size(master, b"30 100")
            _resize(master, rows=41, columns=123)
            process.send_signal(signal.SIGWINCH)  # it has no controlling terminal that would send it
            await _wait_size(master, b"41 123")
            os.write(master, b"end\n")
            async with asyncio.timeout(RUN_SECONDS):
                assert await process.wait() == 3
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    finally:
        os.close(master)
        os.close(slave)


def _resize(terminal: int, *, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def _wait_size(master: int, expected: bytes) -> None:
    """Ask again and again: the size travels on a stream of its own, behind or ahead of what is typed."""
    sizes: list[bytes] = []
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(master, readable.set)
    try:
        async with asyncio.timeout(RUN_SECONDS):
            while expected not in sizes:
                os.write(master, b"\n")
                sizes.append(await _read_size(master, readable))
    except TimeoutError as error:
        raise AssertionError(sizes) from error
    finally:
        asyncio.get_running_loop().remove_reader(master)


async def _read_size(master: int, readable: asyncio.Event) -> bytes:
    seen = b""
    while not (match := re.search(rb"(\d+ \d+)\r\n", seen)):
        await readable.wait()
        readable.clear()
        with contextlib.suppress(BlockingIOError):
            seen += os.read(master, 65536)
    return match[1]
