"""The command `cluster-gateway` run as its own process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_PROBE_SECONDS = 5.0
_POLL_SECONDS = 0.1

PYTHON = (sys.executable, "-P", "-m", "cluster_gateway")


def open_session(port: int) -> aiohttp.ClientSession:
    """An anonymous HTTPS client of that port of 127.0.0.1, which does not verify whom it speaks to."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    timeout = aiohttp.ClientTimeout(total=_PROBE_SECONDS)
    return aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=connector, timeout=timeout)


class GatewayProcess:
    """A running `cluster-gateway`.

    Attributes:
        process: The process.
        log: File of its standard error.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    async def stop(self) -> int:
        """Ask it to end; returns its exit status."""
        if self.process.returncode is None:
            self.process.terminate()
        return await self.wait()

    async def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        async with asyncio.timeout(_STOP_SECONDS):
            return await self.process.wait()

    async def wait_ready(self, port: int) -> str:
        """Wait until `/readyz?verbose` on that port answers 200; returns the answer.

        Fails with the log if the process ends before or is not ready in time.
        """
        answer = "nothing"
        async with open_session(port) as session:
            try:
                async with asyncio.timeout(_START_SECONDS):
                    while self.process.returncode is None:
                        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                            async with session.get("/readyz?verbose") as response:
                                answer = await response.text()
                                if response.ok:
                                    return answer
                        await asyncio.sleep(_POLL_SECONDS)
            except TimeoutError:
                pass
        raise AssertionError(f"never ready; last answer: {answer}\n{self.log.read_text()}")


@contextlib.asynccontextmanager
async def run_gateway(
    arguments: Sequence[str],
    *,
    directory: Path,
    command: Sequence[str] = PYTHON,
    environment: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[GatewayProcess]:
    """Run the command for the duration of a block; it is killed with the block if it still runs.

    Args:
        arguments: What follows `cluster-gateway`.
        directory: Its working directory.
        command: How it is started.
        environment: Its whole environment; this process's with its import path if None.
        variables: What to set on top.
    """
    if environment is None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    log = directory / f"{arguments[0].strip('-').partition('=')[0]}.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command,
            *arguments,
            cwd=directory,
            env={**environment, **(variables or {})},
            stderr=stderr,
            stdin=asyncio.subprocess.DEVNULL,
        )
    gateway = GatewayProcess(process, log)
    try:
        yield gateway
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
