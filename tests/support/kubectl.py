"""kubectl as one user at one server: run to its end, or beside the test with its output read line by line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster_gateway.control_planes import CommandResult, run_command, write_private

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from cluster_gateway.control_planes import KeyPair

RUN_SECONDS = 40.0
"""Limit of one command, above the time kubectl itself retries."""


class RunningCommand:
    """A command that runs beside the test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seen = ""

    async def line(self) -> str:
        """The next line of its standard output, without its end; fails when there is none."""
        assert self.process.stdout is not None
        async with asyncio.timeout(RUN_SECONDS):
            raw = await self.process.stdout.readline()
        assert raw.endswith(b"\n"), (self.seen, raw, await self._errors())
        self.seen += raw.decode()
        return raw.decode().rstrip("\n")

    async def read_until(self, text: str) -> str:
        """Everything up to the first occurrence of a text on standard output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(RUN_SECONDS):
            try:
                raw = await self.process.stdout.readuntil(text.encode())
            except asyncio.IncompleteReadError as error:
                raise AssertionError((self.seen, error.partial, await self._errors())) from error
        self.seen += raw.decode()
        return raw.decode()

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def close_stdin(self) -> None:
        """End its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def finish(self) -> CommandResult:
        """Wait for its end; what it printed since the last read."""
        async with asyncio.timeout(RUN_SECONDS):
            stdout, stderr = await self.process.communicate()
            code = await self.process.wait()
        return CommandResult(
            exit_code=code, stdout=stdout.decode(errors="replace"), stderr=stderr.decode(errors="replace")
        )

    async def _errors(self) -> bytes:
        assert self.process.stderr is not None
        async with asyncio.timeout(RUN_SECONDS):
            return await self.process.stderr.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """kubectl with a kubeconfig.

    Attributes:
        program: The executable.
        kubeconfig: Where it goes and as whom.
        cache: Folder of its discovery cache.
    """

    program: Path
    kubeconfig: Path
    cache: Path

    async def __call__(
        self,
        *arguments: str,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = RUN_SECONDS,
    ) -> CommandResult:
        """Run it to its end; any exit code is a result."""
        return await run_command(
            [self.program, *arguments],
            timeout_seconds=timeout_seconds,
            stdin=stdin,
            environment=self._environment(environment),
        )

    async def ok(self, *arguments: str, stdin: bytes = b"", **keywords: Any) -> str:
        """Run it, fail unless it succeeded, and return what it printed."""
        result = await self(*arguments, stdin=stdin, **keywords)
        assert result.exit_code == 0, (arguments, result.stdout[-2000:], result.stderr[-2000:])
        return result.stdout

    async def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json`, parsed."""
        return json.loads(await self.ok("get", *arguments, "-o", "json"))

    async def apply(self, *documents: dict[str, Any]) -> None:
        """Apply objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        await self.ok("apply", "-f", "-", stdin=json.dumps(items).encode())

    @contextlib.asynccontextmanager
    async def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[RunningCommand]:
        """Run it for the duration of a block; it is killed at the end if it still runs."""
        process = await asyncio.create_subprocess_exec(
            self.program,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self._environment(environment)},
            start_new_session=True,
            limit=16 * 1024 * 1024,
        )
        command = RunningCommand(process)
        try:
            yield command
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
            # Also closes the pipes; what is left in them nobody asked for.
            await process.communicate()

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        return {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.cache), **(more or {})}


def write_kubeconfig(path: Path, server: str, ca_bundle_path: Path, user: KeyPair | str) -> Path:
    """Write a kubeconfig for a client certificate or a bearer token.

    Returns:
        The same path.
    """
    if isinstance(user, str):
        credential = {"token": user}
    else:
        certificate, key = path.with_suffix(".crt"), path.with_suffix(".key")
        certificate.write_bytes(user.certificate)
        write_private(key, user.key)
        credential = {"client-certificate": str(certificate), "client-key": str(key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "only",
        "clusters": [{"name": "only", "cluster": {"server": server, "certificate-authority": str(ca_bundle_path)}}],
        "users": [{"name": "only", "user": credential}],
        "contexts": [{"name": "only", "context": {"cluster": "only", "user": "only"}}],
    }
    write_private(path, json.dumps(config).encode())
    return path
