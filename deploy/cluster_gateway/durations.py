"""Go's notation of durations, in which the original's flags are written."""

from __future__ import annotations

import re
from decimal import Decimal

_UNIT_SECONDS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),  # U+00B5, micro sign
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_TERM = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_LARGEST_SECONDS = Decimal(2**63 - 1) / 10**9
"""Go counts nanoseconds in 64 bits."""


def parse_duration(text: str) -> float:
    """Read a duration such as "10s", "1m30s", "1.5h" or "0".

    Args:
        text: Terms of a decimal number and a unit, with an optional sign before the first.

    Returns:
        Seconds.

    Raises:
        ValueError: The text is no duration; the message is Go's.

    Source:
        Go, time.ParseDuration.
    """
    sign = -1 if text.startswith("-") else 1
    terms = text[1:] if text[:1] in {"-", "+"} else text
    if terms == "0":
        return 0.0
    seconds = _sum_terms(terms)
    if seconds is None or seconds > _LARGEST_SECONDS:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * float(seconds)


def _sum_terms(terms: str) -> Decimal | None:
    position = 0
    total = Decimal(0)
    while match := _TERM.match(terms, position):
        total += Decimal(match[1]) * _UNIT_SECONDS[match[2]]
        position = match.end()
    return total if position == len(terms) and position else None
