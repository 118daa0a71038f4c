from __future__ import annotations

import pytest

from cluster_gateway_transport.pieces import LARGEST_BYTES, SMALLEST_BYTES, Pieces


@pytest.mark.parametrize(
    ("waiting", "size"),
    [(0, LARGEST_BYTES), (7, LARGEST_BYTES), (15, 128 * 1024), (63, 32 * 1024), (127, SMALLEST_BYTES), (9999, 16384)],
)
def test_the_more_streams_stand_still_the_smaller_are_the_pieces_of_all(waiting: int, size: int) -> None:
    pieces = Pieces()
    pieces.waiting = waiting
    assert pieces.size == size
