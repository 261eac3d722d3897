"""C-FIND while others store: how much longer answers take when four associations send at full rate.

    python benchmarks/bench_busy.py [--studies 20000] [--peers pacs_core,Orthanc] [--rounds 5]

The queries of `bench_find.py`, asked in turns: idle, and while a process of its own (`tools/loadgen`) sends
as fast as it is taken. The sender, the client and the receiver share the machine: on few cores a part of the
wait is for a processor.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import peers
import studies
from bench_find import Subject, subjects

LOADGEN = Path(__file__).resolve().parent.parent / "tools" / "loadgen.py"
QUERIES = ("Study Instance UID", "Accession Number", "DOE^A*", "a week")
_SETTLE = 1.0


@contextmanager
def load(port: int, size: int, seconds: float, rates: list[float]) -> Iterator[None]:
    """Four associations that store for so long; the instances a second are added to `rates`."""
    command = [sys.executable, str(LOADGEN), "--json", "-n", "4", "--size", str(size)]
    process = subprocess.Popen(
        [*command, "--duration", str(_SETTLE + seconds), "--aec", peers.AE_TITLE, "127.0.0.1", str(port)],
        stdout=subprocess.PIPE,
    )
    time.sleep(_SETTLE)
    yield
    said, _ = process.communicate(timeout=60 + seconds)
    rates.append(json.loads(said)["instances_per_second"])


def p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--studies", type=int, default=studies.COMMON)
    parser.add_argument("--peers", default="pacs_core,Orthanc")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--size", type=int, default=512 << 10, help="bytes of an instance that is sent")
    parser.add_argument("--archive", type=Path, help="of ours, with the index of --studies studies")
    given = parser.parse_args()
    given.large = None
    root = Path(tempfile.mkdtemp(prefix="busy-"))
    try:
        with ExitStack() as stack:
            print(f"{'query':<20}{'of':<24}{'idle p50, p99 ms':>18}{'busy p50, p99':>18}{'ratio of p99':>14}")
            for subject in subjects(given, root, stack):
                measure(subject, given)
                subject.client.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def measure(subject: Subject, given: argparse.Namespace) -> None:
    """Ask idle and busy in turns, and print what came of it."""
    idle: dict[str, list[float]] = {query: [] for query in QUERIES}
    busy: dict[str, list[float]] = {query: [] for query in QUERIES}
    rates: list[float] = []
    for _ in range(given.rounds):
        for times in (idle, busy):
            with ExitStack() as stack:
                if times is busy:
                    seconds = 1.2 * len(QUERIES) * given.seconds
                    stack.enter_context(load(subject.receiver.port, given.size, seconds, rates))
                for query in QUERIES:
                    subject.times = {}
                    subject.turn(query, given.seconds)
                    times[query] += subject.times[query]
    for query in QUERIES:
        row = f"{query:<20}{subject.name:<24}"
        for times in (idle, busy):
            row += f"{statistics.median(times[query]) * 1e3:>9.2f}{p99(times[query]) * 1e3:>9.2f}"
        print(f"{row}{p99(busy[query]) / p99(idle[query]):>14.1f}", flush=True)
    print(f"{'':20}{subject.name:<24}stored meanwhile: {statistics.median(rates):,.0f}/s", flush=True)


if __name__ == "__main__":
    main()
