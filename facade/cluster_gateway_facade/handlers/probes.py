"""Health checks, in the text that kube-apiserver answers: /livez, /readyz and /healthz.

Source:
    kubernetes/apiserver, pkg/server/healthz/healthz.go, handleRootHealth and adaptCheckToHandler.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from cluster_gateway_facade import status
from cluster_gateway_facade.exchange import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_gateway_facade.exchange import ApiRequest

_TEXT: Final = "text/plain; charset=utf-8"
_HEADERS: Final = (("Cache-Control", "no-cache, private"), ("X-Content-Type-Options", "nosniff"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must be well.

    Attributes:
        name: Shown, and the path below the probe; for example "trust-anchors".
        probe: Returns None when it is well, else one line that says why not and holds no secret. It must
            answer at once: it looks at what is known and asks nobody.
        note: Returns what is degraded though the check passes, else ""; shown with `?verbose`.
    """

    name: str
    probe: Callable[[], str | None]
    note: Callable[[], str] = str


PING: Final = Check(name="ping", probe=lambda: None)
"""The check that a process passes by answering at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe path with its checks.

    Attributes:
        name: The path without slash, for example "readyz".
        checks: In the order shown.
    """

    name: str
    checks: tuple[Check, ...]

    async def answer(self, request: ApiRequest) -> Answer:
        """Answer for all checks, or for the one that the path names.

        A failure tells which checks failed; why is told to who asks with `?verbose`.
        """
        below = request.path.strip("/").removeprefix(self.name).strip("/")
        if not below:
            return self._answer_all(request)
        check = next((check for check in self.checks if check.name == below), None)
        if check is None:
            return status.not_served()
        reason = check.probe()
        return _text("ok") if reason is None else _failure(f"internal server error: {reason}\n")

    def _answer_all(self, request: ApiRequest) -> Answer:
        excluded = {value for key, value in request.query if key == "exclude"}
        verbose = request.parameter("verbose") is not None
        lines: list[str] = []
        failed = False
        for check in self.checks:
            if check.name in excluded:
                lines.append(f"[+]{check.name} excluded: ok\n")
            elif (reason := check.probe()) is None:
                lines.append(_passed(check))
            else:
                failed = True
                lines.append(f"[-]{check.name} failed: {reason if verbose else 'reason withheld'}\n")
        unknown = sorted(excluded - {check.name for check in self.checks})
        if unknown:
            names = ",".join(f'"{name}"' for name in unknown)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}\n")
        if failed:
            return _failure("".join(lines) + f"{self.name} check failed\n")
        return _text("".join(lines) + f"{self.name} check passed\n" if verbose else "ok")


def _passed(check: Check) -> str:
    note = check.note()
    return f"[+]{check.name} ok ({note})\n" if note else f"[+]{check.name} ok\n"


def _text(body: str) -> Answer:
    return Answer(content_type=_TEXT, body=body.encode(), headers=_HEADERS)


def _failure(body: str) -> Answer:
    return Answer(status=HTTPStatus.INTERNAL_SERVER_ERROR, content_type=_TEXT, body=body.encode(), headers=_HEADERS)
