"""Logs of every process of the gateway: one JSON object a line, to standard error."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys

_DEBUG_VERBOSITY = 4
"""klog's convention: -v=4 is "debug level verbosity" (Kubernetes logging conventions)."""

_REDACTED = "REDACTED"
_SECRETS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+"), rf"\1 {_REDACTED}"),
    # A JSON Web Token, which is what Kubernetes' tokens are, without its scheme.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*"), _REDACTED),
    (re.compile(r"(?i)\bbase64url\.bearer\.authorization\.k8s\.io\.[A-Za-z0-9_-]+"), _REDACTED),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL),
        _REDACTED,
    ),
)

# These libraries log bodies (kubernetes_asyncio: whole Secrets) or every event at DEBUG.
_QUIET_LOGGERS = ("kubernetes_asyncio", "asyncio", "grpc", "aiohttp.client", "hpack")


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON, with the process's role, and without credentials.

    Args:
        role: Which process this is: "apiserver", "core" or "facade".
    """

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; line breaks stay inside JSON strings, so nobody can forge a line."""
        moment = dt.datetime.fromtimestamp(record.created, tz=dt.UTC)
        entry = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "process": self._role,
            "logger": record.name,
            "msg": redact(record.getMessage()),
        }
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def redact(text: str) -> str:
    """Take bearer and basic credentials, JSON Web Tokens and PEM private keys out of a text.

    The last line of defence: callers are expected to log none.
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def configure_logging(*, role: str, verbosity: int) -> None:
    """Send the root logger's records to standard error.

    Args:
        role: Which process this is.
        verbosity: The flag `-v`; 4 and above also log at DEBUG.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbosity >= _DEBUG_VERBOSITY else logging.INFO)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
