"""Fuzzes invariants with coverage in view: `python -m tests.fuzz.run [--runs N] [--seed S] [NAME ...]`.

Each invariant runs in a process of its own, for libFuzzer ends its process. An input that breaks one is written to
`.run/fuzz/` and its bytes are printed; give the file to `--again` to see it once more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_FOLDER = Path(".run/fuzz")
_LONGEST_INPUT_BYTES = 2048
_SLOWEST_INPUT_SECONDS = 10
_ROOTS = ("core", "facade", "deploy", "proto/gen", ".")
_INSTRUMENTED = (
    *("cluster_gateway_core.routing", "cluster_gateway_core.upstream", "cluster_gateway_core.registry"),
    *("cluster_gateway_core.server", "cluster_gateway_facade.handlers", "cluster_gateway_facade.serving"),
    "tests.fuzz.simple_readings",
)


def main() -> int:
    """Run what the command line names, by default every invariant; returns how many were broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20_000, help="inputs for each invariant (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the inputs (default: %(default)s)")
    parser.add_argument("--again", type=Path, help="a file with one input to try once more")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    sys.path[:0] = _ROOTS
    if options.child:
        return _fuzz(options.names[0], options.runs, options.seed)
    from tests.fuzz.invariants import INVARIANTS  # noqa: PLC0415 - after the path is set

    unknown = set(options.names) - INVARIANTS.keys()
    if unknown:
        parser.error(f"no such invariant: {', '.join(sorted(unknown))}; there are {', '.join(INVARIANTS)}")
    names = options.names or list(INVARIANTS)
    if options.again is not None:
        for name in names:
            INVARIANTS[name](options.again.read_bytes())
        return 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as workers:
        return sum(not held for held in workers.map(lambda name: _run(name, options.runs, options.seed), names))


def _run(name: str, runs: int, seed: int) -> bool:
    start = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.run", "--child", f"--runs={runs}", f"--seed={seed}", name]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    if ended.returncode == 0:
        print(f"{name}: holds on {runs} inputs ({seconds:.1f} s)")  # noqa: T201 - a command
        return True
    print(f"{name}: BROKEN\n{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}")  # noqa: T201
    return False


def _fuzz(name: str, runs: int, seed: int) -> int:
    import atheris  # noqa: PLC0415 - installed for fuzzing alone, with `make fuzz`

    with atheris.instrument_imports(include=list(_INSTRUMENTED)):
        from tests.fuzz.invariants import INVARIANTS  # noqa: PLC0415 - must be imported under instrumentation

    _FOLDER.mkdir(parents=True, exist_ok=True)
    options = (f"-runs={runs}", f"-seed={seed}", f"-max_len={_LONGEST_INPUT_BYTES}", "-len_control=20")
    limits = (f"-timeout={_SLOWEST_INPUT_SECONDS}", f"-artifact_prefix={_FOLDER}/{name}-", "-rss_limit_mb=2048")
    atheris.Setup([sys.argv[0], *options, *limits], INVARIANTS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
