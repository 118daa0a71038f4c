"""Measures the gateway beside the other ways to a cluster.

usage: python tests/bench/measure.py [--rounds 3] [--seconds 4] [--cases get-16 list-10mb] [--output FILE]

Routes of a case are interleaved, so that a noisy hour of the machine hits all of them: straight to the cluster,
through `kubectl proxy`, through the hub and the gateway, and by gRPC straight to the gateway's core. Every figure is
the median of the rounds; the spread beside it is (highest - lowest) / median of the rate. CPU is that of the processes
in between.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.rig import Rig, Route, cpu_seconds, hold_watches, resident_bytes, run_load, start_rig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LISTED = {"list-100": (100, 100), "list-10mb": (500, 20 * 1024)}
"""Count and bytes of the objects that are listed."""
_ALL = ("direct", "kubectl proxy", "gateway", "gateway grpc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of work.

    Attributes:
        name: What it is called on the command line and in tables.
        arguments: For the load generator.
        routes: Those that can do it.
        watches: How many watches it opens; 0 for other work.
    """

    name: str
    arguments: tuple[str, ...]
    routes: Sequence[str] = _ALL
    watches: int = 0


def make_cases(seconds: float) -> list[Case]:
    """Return all cases, each to last so long on each route."""
    span = ("-seconds", str(seconds))
    return [
        *(Case(name=f"get-{n}", arguments=("-case", "get", "-clients", str(n), *span)) for n in (1, 16, 64)),
        Case(name="crud-100", arguments=("-case", "crud", "-count", "100")),
        *(
            Case(name=name, arguments=("-case", "list", "-size", str(size), *span))
            for name, (_, size) in _LISTED.items()
        ),
        *(Case(name=f"watch-{n}", arguments=(), watches=n) for n in (200, 1000)),
        Case(name="exec", arguments=("-case", "exec", *span), routes=_ALL[:3]),
        Case(name="upload-3mb", arguments=("-case", "upload", "-size", str(2900 * 1024), *span)),
    ]


async def measure(rig: Rig, case: Case, route: Route) -> dict[str, float]:
    """Do the work of a case on a route once; see `_FIGURES` for what is returned."""
    before = cpu_seconds(route.pids)
    seen = await (_watch(rig, case, route) if case.watches else run_load(rig, route, *case.arguments))
    operations, span = seen["operations"], seen["seconds"]
    return seen | {
        "rate": operations / span,
        "mb_per_second": seen["bytes"] / span / 1e6,
        "cpu_ms": (cpu_seconds(route.pids) - before) / operations * 1000,
        "rss_mb": resident_bytes(route.pids) / 1e6,
    }


async def _watch(rig: Rig, case: Case, route: Route) -> dict[str, float]:
    """Open watches, look at the memory that they take, then let one event reach them all."""
    before = resident_bytes(route.pids)
    async with hold_watches(rig, route, case.watches) as watches:
        held = resident_bytes(route.pids) - before
        seen = await watches.send_event()
    return seen | {"opened_seconds": watches.opened_seconds, "kb_per_watch": held / case.watches / 1000}


_FIGURES: Mapping[str, str] = {
    "rate": "operations/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "mb_per_second": "MB/s",
    "cpu_ms": "CPU ms each",
    "rss_mb": "RSS MB",
    "kb_per_watch": "KB a watch",
}


def summarize(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure, and the spread of the rate."""
    medians = {name: statistics.median(one[name] for one in rounds) for name in _FIGURES if name in rounds[0]}
    rates = [one["rate"] for one in rounds]
    return medians | {"spread": (max(rates) - min(rates)) / medians["rate"]}


def compare(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return each route's figures as ratios to those of direct and, for CPU, of `kubectl proxy`."""
    direct, proxy = figures["direct"], figures["kubectl proxy"]
    ratios: dict[str, dict[str, float]] = {}
    for name, own in figures.items():
        ratios[name] = {
            "p50 to direct": own["p50_ms"] / direct["p50_ms"],
            "rate to direct": own["rate"] / direct["rate"],
        }
        if own["cpu_ms"] and proxy["cpu_ms"]:
            ratios[name]["CPU to kubectl proxy"] = own["cpu_ms"] / proxy["cpu_ms"]
    return ratios


def print_case(name: str, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Print a case as a table."""
    columns = [key for key in _FIGURES if any(own.get(key) for own in figures.values())]
    ratios = compare(figures)
    ratio_columns = list(ratios["gateway"])
    heads = [*(_FIGURES[key] for key in columns), "spread", *ratio_columns]
    lines = [f"\n{name:15}" + "".join(f"{head:>{len(head) + 3}}" for head in heads)]
    for route, own in figures.items():
        cells = [f"{own[key]:.2f}" if own.get(key) else "-" for key in columns]
        cells.append(f"{own['spread']:.0%}")
        cells += [f"{ratios[route][key]:.2f}" if key in ratios[route] else "-" for key in ratio_columns]
        lines.append(
            f"  {route:13}" + "".join(f"{cell:>{len(head) + 3}}" for cell, head in zip(cells, heads, strict=True))
        )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


async def run(parsed: argparse.Namespace, directory: Path) -> None:
    """Start everything, measure, print tables and write the figures."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    async with AsyncExitStack() as stack, start_rig(stack, directory) as rig:
        for count, size in _LISTED.values():
            await run_load(rig, rig.routes["direct"], "-case", "prepare", "-count", str(count), "-size", str(size))
        for case in make_cases(parsed.seconds):
            if parsed.cases and case.name not in parsed.cases:
                continue
            rounds: dict[str, list[dict[str, float]]] = {name: [] for name in case.routes}
            for _ in range(parsed.rounds):
                for name in case.routes:
                    rounds[name].append(await measure(rig, case, rig.routes[name]))
            results[case.name] = {name: summarize(seen) for name, seen in rounds.items()}
            print_case(case.name, results[case.name])
    parsed.output.parent.mkdir(parents=True, exist_ok=True)
    parsed.output.write_text(json.dumps({"rounds": parsed.rounds, "cases": results}, indent=1) + "\n")
    sys.stdout.write(f"\nwritten to {parsed.output}\n")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--cases", nargs="*", help="names of cases; all by default")
    parser.add_argument("--output", type=Path, default=Path(".run/bench.json"))
    with tempfile.TemporaryDirectory(prefix="cluster-gateway-bench-") as directory:
        asyncio.run(run(parser.parse_args(), Path(directory)))


if __name__ == "__main__":
    main()
