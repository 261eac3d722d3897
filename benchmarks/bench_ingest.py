"""How fast instances are received, beside others: DCMTK's storescp and dcmqrscp, Orthanc, bare pynetdicom.

Run as ``python benchmarks/bench_ingest.py [--quick]`` in a checkout that is built in place. All receivers
of a row run side by side and are sent to in turns, A B C D A B C D…; what counts is the ratio to a peer, the
median of the ratios within each round. Ours keeps every instance durable and indexed before it answers;
storescp and pynetdicom write files, without sync and without an index; Orthanc indexes. Acknowledgements are
counted, not sends. Everything runs on 127.0.0.1, in a temporary folder that is removed at the end.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import data
import peers
import senders
from data import Corpus
from peers import Peer, Receiver

Measure = Callable[[Receiver], dict[str, float]]


@dataclass
class Row:
    """One line of the table: what each receiver did, by round; None where a run failed."""

    title: str
    unit: str
    more_is_better: bool = True
    values: dict[str, list[float | None]] = field(default_factory=dict)

    def median(self, peer: str) -> float | None:
        found = [value for value in self.values.get(peer, []) if value is not None]
        return statistics.median(found) if found else None

    def ratio(self, peer: str, first: str) -> float | None:
        """How many times better `first` was than `peer`."""
        pairs = zip(self.values.get(first, []), self.values.get(peer, []), strict=False)
        found = [a / b if self.more_is_better else b / a for a, b in pairs if a and b and a > 0 and b > 0]
        return statistics.median(found) if found else None


@dataclass(frozen=True)
class Work:
    """A piece of work that all receivers are given in turns; `measure` returns a value per row."""

    rows: Sequence[Row]
    measure: Measure
    warm: Callable[[Receiver], object]
    rounds: int


@dataclass(frozen=True)
class Sizes:
    """How much work."""

    ct: int
    small: int
    nagle: int
    python: int
    seconds: float
    large: int


FULL = Sizes(ct=150, small=1000, nagle=60, python=100, seconds=2.0, large=2 << 30)
QUICK = Sizes(ct=75, small=400, nagle=30, python=50, seconds=1.0, large=512 << 20)


def works(folder: Path, sizes: Sizes, rounds: int) -> Iterable[Work]:
    """Every piece of work, with the files for it in `folder`."""
    ct = Corpus.make(folder / "ct", data.ct(), 4, sizes.ct)
    small = Corpus.make(folder / "small", data.small(), 4, sizes.small)
    warming = Corpus.make(folder / "warming", data.ct(), 4, 4)

    def warm(receiver: Receiver) -> None:
        warming.renew()
        senders.storescu(receiver.port, warming.folders)

    def rate(corpus: Corpus, associations: int, *, nagle: bool = False) -> Measure:
        def measure(receiver: Receiver) -> dict[str, float]:
            corpus.renew()
            before = receiver.cpu_seconds()
            seconds = senders.storescu(receiver.port, corpus.folders[:associations], nagle=nagle)
            number = associations * corpus.count
            used = receiver.cpu_seconds() - before
            return {"rate": number / seconds, "cpu": used / number * 1000}

        return measure

    def python(receiver: Receiver) -> dict[str, float]:
        few.renew()
        return {"rate": few.count / senders.pynetdicom_scu(receiver.port, few.folders[0])}

    def associations(receiver: Receiver) -> dict[str, float]:
        return {"rate": senders.associations(receiver.port, sizes.seconds)}

    def echoes(receiver: Receiver) -> dict[str, float]:
        return {"rate": senders.echoes(receiver.port, sizes.seconds)}

    def growth(receiver: Receiver) -> dict[str, float]:
        return {"rate": senders.growth(receiver, sizes.large) / (1 << 20)}

    few = Corpus.make(folder / "few", data.ct(), 1, sizes.python)
    nagle = Corpus.make(folder / "nagle", data.ct(), 1, sizes.nagle)
    cpu = Row("CT 512 KB, 4 associations: CPU-seconds per 1,000", "s", more_is_better=False)
    yield Work([Row("CT 512 KB, 4 associations", "inst/s"), cpu], rate(ct, 4), warm, rounds)
    yield Work([Row("CT 512 KB, 1 association", "inst/s")], rate(ct, 1), warm, rounds)
    yield Work([Row("2 KB objects, 4 associations", "inst/s")], rate(small, 4), warm, rounds)
    yield Work(
        [Row("CT 512 KB, 1 association, Nagle on", "inst/s")], rate(nagle, 1, nagle=True), warm, rounds
    )
    yield Work([Row("CT 512 KB, 1 association, pynetdicom's SCU", "inst/s")], python, warm, rounds)
    yield Work([Row("associate + C-ECHO + release", "per s")], associations, warm, rounds)
    yield Work([Row("C-ECHO on one association", "per s")], echoes, warm, rounds)
    large = f"{sizes.large >> 30} GB" if sizes.large >> 30 else f"{sizes.large >> 20} MB"
    yield Work(
        [Row(f"resident memory, growth with one {large} object", "MB", more_is_better=False)],
        growth,
        lambda _: None,
        1,
    )


def run(work: Work, installed: Sequence[Peer], folder: Path) -> None:
    """Give a piece of work to all receivers, in turns."""
    kept = folder / "kept"
    with ExitStack() as stack:
        stack.callback(peers.empty, kept)
        running: list[tuple[str, Receiver]] = []
        for peer in installed:
            place = kept / peer.name
            place.mkdir(parents=True)
            receiver = stack.enter_context(peer.start(place))
            with suppress(senders.RunError):  # one that fails now fails in its turns, and is heard there
                work.warm(receiver)
            running.append((peer.name, receiver))
        for _ in range(work.rounds):
            for name, receiver in running:
                os.sync()  # else one pays for what another left to be written
                try:
                    measured: list[float | None] = list(work.measure(receiver).values())
                except (senders.RunError, OSError) as exc:
                    print(f"  {name}: {exc}", file=sys.stderr)
                    measured = [None] * len(work.rows)
                for row, value in zip(work.rows, measured, strict=False):
                    row.values.setdefault(name, []).append(value)


def machine() -> dict[str, str]:
    """What it was measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / (1 << 30):.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def show(row: Row, names: Sequence[str]) -> None:
    """One line of the table."""
    cells = []
    for name in names:
        median, ratio = row.median(name), row.ratio(name, names[0])
        shown = "-" if median is None else f"{median:,.1f}" if abs(median) < 100 else f"{median:,.0f}"
        cells.append(f"{shown:>10} {'' if name == names[0] or ratio is None else f'({ratio:.2f}x)':8}")
    print(f"{f'{row.title}, {row.unit}':58}{' '.join(cells)}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: about three minutes")
    parser.add_argument("--rounds", type=int, default=None, help="turns of each receiver (5; 3 with --quick)")
    parser.add_argument("--only", metavar="TEXT", help="only rows with this in their title")
    parser.add_argument("--peers", metavar="NAMES", help="only these beside ours, separated by commas")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all values to this file as well")
    parser.add_argument(
        "--folder", type=Path, help="receive below this folder: on the disk in question (default: $TMPDIR)"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="a setting for pacs-core serve"
    )
    parser.add_argument(
        "--baseline", metavar="DIR", type=Path, help="another checkout of pacs_core, built, to compare with"
    )
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if not peers.STORESCU.exists():
        print("DCMTK's storescu is needed to send: apt-get install dcmtk", file=sys.stderr)
        return 1
    found = peers.peers(given.set, given.baseline)
    if given.peers is not None:
        wanted = {"pacs_core", "baseline", *given.peers.split(",")}
        found = [peer for peer in found if peer.name in wanted]
    for peer in found:
        if peer.missing:
            print(f"skipped: {peer.missing}")
    installed = [peer for peer in found if not peer.missing]
    names = [peer.name for peer in installed]
    rounds = given.rounds or (3 if given.quick else 5)
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    print(f"{when}; {', '.join(f'{k} {v}' for k, v in machine().items())}")
    print(f"{'; '.join(peer.version for peer in installed)}; {rounds} rounds, medians")
    print("in brackets: how many times better ours was, the median over the rounds\n")
    print(f"{'':58}{' '.join(f'{name:>10}         ' for name in names)}")
    rows = []
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as sending,
        tempfile.TemporaryDirectory(dir=given.folder) as receiving,
    ):
        for work in works(Path(sending), QUICK if given.quick else FULL, rounds):
            if given.only and not any(given.only in row.title for row in work.rows):
                continue
            run(work, installed, Path(receiving))
            for row in work.rows:
                show(row, names)
                rows.append(row)
    if given.json:
        report = {
            "date": when,
            "machine": machine(),
            "versions": {peer.name: peer.version for peer in installed},
            "rounds": rounds,
            "rows": [
                asdict(row)
                | {
                    "median": {name: row.median(name) for name in names},
                    "ratio": {name: row.ratio(name, names[0]) for name in names[1:]},
                }
                for row in rows
            ],
        }
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(row.median(names[0]) is not None for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
