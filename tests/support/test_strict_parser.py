from __future__ import annotations

import pytest
from tests.support.strict_parser import MoreToRead, parse_responses

_OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "end", "answers", "cut"),
    [
        (_OK + b"Content-Length: 2\r\n\r\nok", None, [(200, b"ok")], False),
        (_OK + b"Content-Length: 3\r\n\r\nok", None, [], True),
        (_OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", None, [(200, b"ok")], False),
        (_OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", None, [], True),
        (_OK + b"\r\nok", None, [(200, b"ok")], False),
        (_OK + b"\r\nok", ConnectionResetError(), [], True),
        (_OK + b"Conte", None, [], True),
        (_OK + b"Content-Length: 0\r\n\r\n" + _OK + b"\r\nok", None, [(200, b""), (200, b"ok")], False),
        (b"", None, [], False),
    ],
)
def test_whole_is_told_from_cut(
    data: bytes,
    end: BaseException | None,
    answers: list[tuple[int, bytes]],
    cut: bool,  # noqa: FBT001
) -> None:
    outcome = parse_responses(data, end)
    assert (outcome.answers, outcome.cut) == (answers, cut)


@pytest.mark.parametrize("data", [_OK + b"Content-Length: 3\r\n\r\nok", _OK + b"\r\nok", _OK])
def test_an_open_connection_is_neither(data: bytes) -> None:
    with pytest.raises(MoreToRead):
        parse_responses(data, MoreToRead())
