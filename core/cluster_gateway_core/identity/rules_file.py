"""The identity rules of all clusters, from a file that may change while the core runs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster_gateway_core.hub.condition import Condition, FaultReport
from cluster_gateway_core.routing.identity_rules import (
    MAXIMUM_FILE_BYTES,
    InvalidIdentityRulesError,
    parse_identity_rules,
)

if TYPE_CHECKING:
    from cluster_gateway_core.model.identity import IdentityRule

_LOGGER = logging.getLogger(__name__)
_CHECK_SECONDS: Final = 2.0
"""How often the file is looked at: a new one is in force after at most twice this."""


class IdentityRulesFile:
    """The rules in force: the last good ones, whatever the file says now.

    Attributes:
        rules: In the file's order; empty without a file.
    """

    def __init__(self, path: str | None, *, check_seconds: float = _CHECK_SECONDS) -> None:
        """Read the file for the first time.

        Raises:
            RuntimeError: There is a file, and it cannot be used: a core must not start with weaker rules than meant.
        """
        self.rules: tuple[IdentityRule, ...] = ()
        self._path = Path(path) if path else None
        self._check_seconds = check_seconds
        self._faults = FaultReport(_LOGGER, f"identity rules of {path}")
        self._content = b""
        self._in_force = b""
        if self._path is not None:
            try:
                self._content = self._in_force = _read(self._path)
                self.rules = _parse(self._content)
            except (OSError, InvalidIdentityRulesError) as error:
                raise RuntimeError(f"the identity rules of {path} cannot be used: {_reason(error)}") from error

    def condition(self) -> Condition:
        """Always ready; the detail says why the file's newest content is not in force."""
        return Condition(name="identity-rules", ready=True, detail=self._faults.text)

    async def run(self) -> None:
        """Follow the file until cancelled."""
        while self._path is not None:
            await asyncio.sleep(self._check_seconds)
            await self._check(self._path)

    async def _check(self, path: Path) -> None:
        """Take new rules over once the file was the same twice: half of a file that is being written is valid YAML."""
        try:
            content = await asyncio.to_thread(_read, path)
            settled, self._content = content == self._content, content
            if not settled or content == self._in_force:
                if content == self._in_force:
                    self._faults.clear()
                return
            self.rules = await asyncio.to_thread(_parse, content)
        except (OSError, InvalidIdentityRulesError) as error:
            self._faults.report(f"the last good ones stay in force: {_reason(error)}")
            return
        self._in_force = content
        self._faults.clear()
        _LOGGER.info("identity rules of %s: %d are in force now", path, len(self.rules))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAXIMUM_FILE_BYTES + 1)


def _parse(content: bytes) -> tuple[IdentityRule, ...]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidIdentityRulesError("it is not UTF-8") from error
    return parse_identity_rules(text, maximum_bytes=MAXIMUM_FILE_BYTES)


def _reason(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
