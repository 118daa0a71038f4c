"""Reading what a client received with http.client, which knows nothing of this project."""

from __future__ import annotations

import http.client
import io
from dataclasses import dataclass, field
from typing import Any


class MoreToRead(Exception):  # noqa: N818 - no error
    """The connection has not ended."""


@dataclass(slots=True)
class Outcome:
    """What a client got.

    Attributes:
        answers: Status and body of each response that is whole.
        cut: Whether there was another, that is not.
    """

    answers: list[tuple[int, bytes]] = field(default_factory=list)
    cut: bool = False


class _Received(io.BytesIO):
    """The bytes of a connection, which ends as the connection did."""

    def __init__(self, data: bytes, end: BaseException | None) -> None:
        super().__init__(data)
        self._end = end

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self._end is not None and (size is None or size < 0 or len(data) < size):
            raise self._end
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if self._end is not None and not line.endswith(b"\n"):
            raise self._end
        return line

    def close(self) -> None:
        """Stay open for the next response."""


def parse_responses(data: bytes, end: BaseException | None) -> Outcome:
    """Read all responses of a connection.

    Args:
        data: What was received.
        end: How the connection ended: None in good order, ConnectionResetError, or MoreToRead where it has not.

    Raises:
        MoreToRead: The connection has not ended, and the last response is not whole yet.
    """
    outcome = Outcome()
    received: Any = _Received(data, end)
    fake: Any = type("Socket", (), {"makefile": lambda *_: received})
    while received.tell() < len(data):
        response = http.client.HTTPResponse(fake)
        try:
            if b"\r\n\r\n" not in data[received.tell() :]:  # http.client takes half a head for a whole one
                raise end or EOFError
            response.begin()
            outcome.answers.append((response.status, response.read()))
        except (http.client.HTTPException, OSError, EOFError):
            outcome.cut = True
            return outcome
    return outcome
