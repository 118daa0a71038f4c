"""The measurement of isolation can be run; its figures are nobody's test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_isolation_is_measured_for_every_kind_of_neighbour() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.bench.measure_isolation", "--seconds", "0.5", "--rounds", "1", "--rate", "20"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    first_words = [line.partition(" ")[0] for line in result.stdout.splitlines()]
    assert first_words == ["neighbour", "healthy", "mute", "unanswering", "black", "refusing", "dead"]
