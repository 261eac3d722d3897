"""Storage commitment, from the request to the report, all bytes read and checked, beside a plain handler.

The other SCP is pynetdicom with a handler as one would write it: SQLite says where each file is and what its
checksum was, each file is read in full, and the report goes out on the same association. Both get the same
instances, 10,000 in one request, from the same SCU (ours), in turns; with the page cache warm, and with the
pages of their files dropped before each round.

    $ .venv/bin/python benchmarks/bench_commitment.py
    $ .venv/bin/python benchmarks/bench_commitment.py --sizes 2048 --count 10000 --rounds 5
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peers

from pacs_core import Client
from pacs_core.archive import Archive, Arriving
from pacs_core.dicom.part10 import encode_meta

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
COMMITMENT = "1.2.840.10008.1.20.1"
WELL_KNOWN = "1.2.840.10008.1.20.1.1"


def instances(count: int, size: int) -> Iterator[tuple[str, bytes]]:
    """UIDs and data sets, of random bytes: no file system makes them smaller."""
    elements = [(0x0008, 0x0016, b"UI", CT), (0x0008, 0x0018, b"UI", ""), (0x0010, 0x0020, b"LO", "P1")]
    elements += [(0x0020, 0x000D, b"UI", "1.2.826.0.1.1"), (0x0020, 0x000E, b"UI", "1.2.826.0.1.1.1")]
    for number in range(count):
        uid = f"1.2.826.0.1.3680043.10.999.{1_000_000 + number}"
        data = bytearray()
        for group, element, vr, text in elements:
            value = (text or uid).encode()
            value += b"\0" * (len(value) & 1)
            data += group.to_bytes(2, "little") + element.to_bytes(2, "little") + vr
            data += len(value).to_bytes(2, "little") + value
        pixels = os.urandom(size - len(data) - 12)
        data += b"\xe0\x7f\x10\0OW\0\0" + len(pixels).to_bytes(4, "little") + pixels
        yield uid, bytes(data)


def fill(folder: Path, count: int, size: int) -> list[tuple[str, str]]:
    """The same instances in our archive, and in files with SQLite."""
    files = folder / "files"
    files.mkdir()
    database = sqlite3.connect(folder / "index.sqlite")
    database.execute("CREATE TABLE instance (uid TEXT PRIMARY KEY, class TEXT, path TEXT, checksum INTEGER)")
    pairs = []
    with Archive.open(folder / "archive") as archive, ThreadPoolExecutor(16) as pool:
        stored: deque[Future[object]] = deque()
        for number, (uid, data) in enumerate(instances(count, size)):
            arriving = Arriving(CT, uid, EXPLICIT, "BENCH")
            stored.append(pool.submit(archive.ingest.store, arriving, data))
            if len(stored) > 64:
                stored.popleft().result()
            path = files / f"{number % 256:02x}" / f"{uid}.dcm"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(whole := encode_meta(CT, uid, EXPLICIT, None) + data)
            row = (uid, CT, str(path), zlib.crc32(whole))
            database.execute("INSERT INTO instance VALUES (?, ?, ?, ?)", row)
            pairs.append((CT, uid))
        for one in stored:
            one.result()
    database.commit()
    database.close()
    os.sync()
    return pairs


def handler(folder: Path, port: int) -> None:
    """The pynetdicom SCP."""
    from pydicom.dataset import Dataset
    from pynetdicom import AE, evt

    def verify(assoc: Any, request: Dataset) -> None:
        database = sqlite3.connect(folder / "index.sqlite")
        result = Dataset()
        result.TransactionUID = request.TransactionUID
        good, bad = [], []
        for item in request.ReferencedSOPSequence:
            row = database.execute(
                "SELECT class, path, checksum FROM instance WHERE uid = ?", (item.ReferencedSOPInstanceUID,)
            ).fetchone()
            if row is None or row[0] != item.ReferencedSOPClassUID:
                item.FailureReason = 0x0112 if row is None else 0x0119
                bad.append(item)
            elif zlib.crc32(Path(row[1]).read_bytes()) != row[2]:
                item.FailureReason = 0x0110
                bad.append(item)
            else:
                good.append(item)
        result.ReferencedSOPSequence = good
        if bad:
            result.FailedSOPSequence = bad
        assoc.send_n_event_report(result, 2 if bad else 1, COMMITMENT, WELL_KNOWN)

    def asked(event: Any) -> tuple[int, None]:
        threading.Thread(target=verify, args=(event.assoc, event.action_information)).start()
        return 0x0000, None

    entity = AE()
    entity.add_supported_context(COMMITMENT)
    entity.maximum_pdu_size = 131072
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_N_ACTION, asked)])


def drop(folder: Path) -> None:
    """Forget the pages of all files below."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def measure(receiver: peers.Receiver, pairs: list[tuple[str, str]]) -> tuple[float, float]:
    """Seconds from the request to the last outcome, and processor seconds of the SCP."""
    client = Client("127.0.0.1", receiver.port, aet="BENCH")
    before, begun = receiver.cpu_seconds(), time.perf_counter()
    outcomes = client.commit(pairs, timeout=3600)
    seconds = time.perf_counter() - begun
    wrong = [one for one in outcomes if not one.committed]
    if wrong:
        raise SystemExit(f"{len(wrong)} not committed: {wrong[0].error}")
    return seconds, receiver.cpu_seconds() - before


def compare(size: int, count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-commitment-", dir=os.environ.get("TMPDIR")) as temporary:
        folder = Path(temporary)
        pairs = fill(folder, count, size)
        repository = Path(__file__).resolve().parent.parent
        plain = peers.program(__file__, "--handler", folder)
        with peers.ours(repository, ())(folder) as ours, plain as theirs:
            for cold in (False, True):
                found: dict[str, list[tuple[float, float]]] = {"ours": [], "pynetdicom": []}
                for _ in range(rounds):
                    for name, receiver in (("ours", ours), ("pynetdicom", theirs)):
                        if cold:
                            drop(folder)
                        found[name].append(measure(receiver, pairs))
                show(size, count, cold, found)


def show(size: int, count: int, cold: bool, found: dict[str, list[tuple[float, float]]]) -> None:
    median: Callable[[list[float]], float] = statistics.median
    print(f"{count:,} instances of {size:,} bytes, pages {'dropped' if cold else 'cached'}")
    for name, measured in found.items():
        seconds = median([one for one, _ in measured])
        print(
            f"  {name:<11} {seconds:7.2f} s  {count / seconds:9,.0f} instances/s  "
            f"{count * size / seconds / 1e6:8,.0f} MB/s  {median([cpu for _, cpu in measured]):6.2f} CPU s"
        )
    ratios = [theirs[0] / ours[0] for ours, theirs in zip(found["ours"], found["pynetdicom"], strict=True)]
    print(
        f"  ours is {median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 524288], help="bytes of a data set")
    parser.add_argument("--count", type=int, default=10_000, help="instances of a commitment, 10,000 at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--handler", nargs=2, metavar=("FOLDER", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.handler:
        handler(Path(options.handler[0]), int(options.handler[1]))
        return
    for size in options.sizes:
        compare(size, options.count, options.rounds)


if __name__ == "__main__":
    main()
