"""The child's end of the lifeline."""

from __future__ import annotations

import os
import threading

from cluster_gateway.child import follow_lifeline, read_line

_WAIT_SECONDS = 30.0


def test_line_is_read_whole_and_a_cut_one_is_told_apart() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"settings\n")
    assert read_line(reading) == b"settings\n"
    os.write(writing, b"half")
    os.close(writing)
    assert read_line(reading) == b"half"
    os.close(reading)


def test_lifeline_is_cut_when_its_other_end_closes_and_not_before() -> None:
    reading, writing = os.pipe()
    cut = threading.Event()
    follow_lifeline(reading, cut.set)
    os.write(writing, b"anything")
    assert not cut.is_set()
    os.close(writing)
    assert cut.wait(_WAIT_SECONDS)
    os.close(reading)
