"""How fast instances are retrieved, beside others: dcmqrscp, Orthanc, pynetdicom's qrscp.

Run as ``python benchmarks/bench_retrieve.py [--rounds N]`` in a checkout that is built in place. Each
archive holds the same four studies of 126 CT images of 512 KB (66 MB each, warm); one is asked for, or all
four by as many clients at a time, each four times in a row: a client of DCMTK takes 50 ms to start. C-GET:
DCMTK's getscu, which throws away what it gets. C-MOVE: DCMTK's movescu, and for all one storescp, which
throws away what it gets, too; what that can take is measured as well. The archives take turns, A B C D A B
C D…; what counts is the ratio to a peer, the median of the ratios within each round. The time is that of the
clients, from the start of the first to the end of the last.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import archives
import bench_ingest
import data
import peers
import senders
from bench_ingest import Row
from data import Corpus
from peers import Receiver
from pydicom import dcmread

import pacs_core

GETSCU = Path("/usr/bin/getscu")
MOVESCU = Path("/usr/bin/movescu")
AT_A_TIME = (1, 4)
_TIMES = 4
_SECONDS = 300

Work = tuple[str, Path, list[str], int]


def retrieve(program: Path, port: int, studies: Sequence[str], options: Sequence[str]) -> float:
    """Have each study retrieved by a process of its own, all at the same time; the seconds it took."""
    begun = time.perf_counter()
    running = [
        subprocess.Popen(
            [*_command(program, port, study), *options, "--repeat", str(_TIMES)],
            env=peers.no_delay(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for study in studies
    ]
    # With a timeout of its own `wait` looks only every 50 ms.
    watch = threading.Timer(_SECONDS, lambda: [process.kill() for process in running])
    watch.start()
    try:
        codes = [process.wait() for process in running]
        seconds = time.perf_counter() - begun
    finally:
        watch.cancel()
    if any(codes):
        raise senders.RunError(f"{program.name}: exit codes {codes}")
    return seconds


def check(program: Path, port: int, study: str, options: Sequence[str], count: int) -> None:
    """Retrieve a study once with all that its client can say, and see that each instance arrived."""
    command = [*_command(program, port, study), *options, "-d"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    completed = re.findall(r"Completed Suboperations *: (\d+)", done.stdout + done.stderr)
    if done.returncode or not completed or int(completed[-1]) != count:
        raise senders.RunError(f"{program.name}: {completed[-1:]} of {count}, exit code {done.returncode}")


def _command(program: Path, port: int, study: str) -> list[str]:
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    return [str(program), "-S", "-aec", peers.AE_TITLE, *keys, "127.0.0.1", str(port)]


def works(count: int) -> list[Work]:
    """Title, program, options and number of clients of each row."""
    get = ["--ignore", "-pdu", "131072"]
    move = ["-aem", archives.DESTINATION]
    return [
        (f"{name}, {count} CT of 512 KB, {clients} at a time", program, options, clients)
        for name, program, options in (("C-MOVE", MOVESCU, move), ("C-GET", GETSCU, get))
        for clients in AT_A_TIME
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each archive")
    parser.add_argument("--count", type=int, default=126, help="instances of each study")
    parser.add_argument("--associations", type=int, default=1, help="of ours, for one C-MOVE")
    parser.add_argument("--peers", metavar="NAMES", help="only these beside ours, separated by commas")
    parser.add_argument("--only", metavar="TEXT", default="", help="only rows with this in their title")
    parser.add_argument("--folder", type=Path, help="keep the archives below this folder")
    given = parser.parse_args()
    if not GETSCU.exists():
        print("DCMTK's getscu and movescu are needed: apt-get install dcmtk", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        destination = stack.enter_context(archives.receiver())
        found = archives.archives(destination, given.associations)
        if given.peers is not None:
            found = [peer for peer in found if peer.name in {"pacs_core", *given.peers.split(",")}]
        for peer in found:
            if peer.missing:
                print(f"skipped: {peer.missing}")
        installed = [peer for peer in found if not peer.missing]
        names = [peer.name for peer in installed]
        print(", ".join(f"{key} {value}" for key, value in bench_ingest.machine().items()))
        print(f"{'; '.join(peer.version for peer in installed)}; {given.rounds} rounds, medians")
        print("in brackets: how many times better ours was, the median over the rounds\n")
        print(f"{'':58}{' '.join(f'{name:>10}         ' for name in names)}")
        memory = Path("/dev/shm")
        sending = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None))
        )
        keeping = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder)))
        corpus = Corpus.make(sending, data.ct(), max(AT_A_TIME), given.count)
        corpus.renew()
        studies = [
            str(dcmread(folder / "00000.dcm", stop_before_pixels=True).StudyInstanceUID)
            for folder in corpus.folders
        ]
        running: list[tuple[str, Receiver]] = []
        for peer in installed:
            place = keeping / peer.name
            place.mkdir()
            archive = stack.enter_context(peer.start(place))
            for folder in corpus.folders:
                senders.storescu(archive.port, [folder])
            running.append((peer.name, archive))
        chosen = [work for work in works(given.count) if given.only in work[0]]
        failed = measure(running, chosen, studies, given.count, given.rounds)
        for associations in sorted({1, given.associations, *AT_A_TIME}):
            rate = straight(destination, corpus.folders, associations, given.rounds)
            print(
                f"the receiver itself, sent to by our client over {associations} associations: {rate:,.0f}/s"
            )
        return failed


def straight(port: int, folders: Sequence[Path], associations: int, rounds: int) -> float:
    """Instances a second that the receiver takes when nobody moves them: what a C-MOVE can't exceed."""
    client = pacs_core.Client("127.0.0.1", port, aec=archives.DESTINATION)
    rates = []
    for _ in range(rounds):
        begun = time.perf_counter()
        outcomes = client.store(folders, associations=associations)
        rates.append(len(outcomes) / (time.perf_counter() - begun))
    return statistics.median(rates)


def measure(
    running: list[tuple[str, Receiver]], chosen: Sequence[Work], studies: list[str], count: int, rounds: int
) -> int:
    """Have all archives do the work that was chosen, in turns, and show it."""
    names = [name for name, _ in running]
    failed = False
    for title, program, options, clients in chosen:
        rate = Row(title, "inst/s")
        cpu = Row("… CPU of the archive per 1,000", "s", more_is_better=False)
        for name, archive in running:
            for study in studies[:clients]:
                try:
                    check(program, archive.port, study, options, count)
                except (senders.RunError, subprocess.TimeoutExpired) as exc:
                    print(f"  {name}: {exc}", file=sys.stderr)
        for _ in range(rounds):
            for name, archive in running:
                measured = turn(archive, program, studies[:clients], options, count)
                rate.values.setdefault(name, []).append(measured and measured[0])
                cpu.values.setdefault(name, []).append(measured and measured[1])
        bench_ingest.show(rate, names)
        bench_ingest.show(cpu, names)
        failed |= rate.median(names[0]) is None
    return int(failed)


def turn(
    archive: Receiver, program: Path, studies: Sequence[str], options: Sequence[str], count: int
) -> tuple[float, float] | None:
    """Instances per second, and CPU-seconds of the archive per 1,000; None if it failed."""
    before = archive.cpu_seconds()
    try:
        seconds = retrieve(program, archive.port, studies, options)
    except (senders.RunError, OSError) as exc:
        print(f"  {exc}", file=sys.stderr)
        return None
    number = len(studies) * count * _TIMES
    return number / seconds, (archive.cpu_seconds() - before) / number * 1000


if __name__ == "__main__":
    sys.exit(main())
