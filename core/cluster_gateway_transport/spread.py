"""Ending many streams without ending them all at once."""

from __future__ import annotations

import asyncio
from math import ceil
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_PAUSE_SECONDS: Final = 0.05
_ENDS_PER_SECOND: Final = 200

StreamT = TypeVar("StreamT")


async def spread(streams: Sequence[StreamT], within_seconds: float) -> AsyncIterator[StreamT]:
    """Yield streams that are to end now: not all at once, for each informer begins anew elsewhere.

    Args:
        streams: All that are to end.
        within_seconds: When the last one is due, at the latest; two hundred a second are due sooner.

    Source:
        kubernetes/apiserver, pkg/server/genericapiserver.go, where watches are drained.
    """
    pauses = max(int(within_seconds / _PAUSE_SECONDS), 1)
    together = max(ceil(len(streams) / pauses), int(_ENDS_PER_SECOND * _PAUSE_SECONDS))
    for index, stream in enumerate(streams):
        if index and index % together == 0:
            await asyncio.sleep(_PAUSE_SECONDS)
        yield stream
