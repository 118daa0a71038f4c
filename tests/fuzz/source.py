"""Turns a fuzzer's bytes into decisions, so that one input means the same to hypothesis and to atheris."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

OptionT = TypeVar("OptionT")

_LITERAL: Final = 0xC0
"""Bytes from here on announce a literal byte; those below choose a word."""


class Source:
    """Bytes that are consumed from the front; an empty one decides zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._position

    def byte(self) -> int:
        """Take one byte."""
        if self._position >= len(self._data):
            return 0
        value = self._data[self._position]
        self._position += 1
        return value

    def pick(self, options: Sequence[OptionT]) -> OptionT:
        """Choose one of several."""
        return options[self.byte() % len(options)]

    def take(self, count: int) -> bytes:
        """Take so many bytes, or those that are left."""
        piece = self._data[self._position : self._position + count]
        self._position += len(piece)
        return piece

    def join(self, words: Sequence[bytes], most: int = 1 << 20) -> bytes:
        """Put words and literal bytes together, until nothing or a zero byte is left."""
        pieces: list[bytes] = []
        while self.left and len(pieces) < most:
            choice = self.byte()
            if choice == 0:
                break
            pieces.append(self.take(1) if choice >= _LITERAL else words[choice % len(words)])
        return b"".join(pieces)

    def cut(self, data: bytes) -> list[bytes]:
        """Cut bytes into pieces, none of them empty."""
        pieces: list[bytes] = []
        while data:
            length = 1 + self.byte() % 64 if self.left else len(data)
            pieces.append(data[:length])
            data = data[length:]
        return pieces
