"""How much of a repeated test is done: little in every run, all of it where somebody asks."""

from __future__ import annotations

import os


def effort(name: str, usual: int) -> int:
    """How often, or how much: `usual`, or what an environment variable of that name says."""
    return int(os.environ.get(name, usual))
