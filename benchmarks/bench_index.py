"""How fast the index takes records in, by batch size and processes, beside the same tables through py-lmdb.

Run as ``python benchmarks/bench_index.py [--folder DIR] [--rounds N] [--seconds S]``. The ways take turns;
each is reported with its median rate and ratio. Each worker is a process of its own, since one process may
hold one LMDB only. The records are made before the clock starts. `--folder`: on the disk in question; full
durability on both sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pacs_core.dicom.attributes import BY_KEYWORD, Level

BATCHES = (1, 4, 16, 64)
MOST = 50_000  # records a second that are made ready
SYNTAX = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def fields_of(worker: int, number: int) -> dict[str, str]:
    """A CT of a study with 4 series of 25 instances, every third study of a patient seen before."""
    study, series = number // 100, number // 25
    root = f"1.3.6.1.4.1.5962.99.{worker}.2024101"
    patient = study // 3
    return {
        "PatientID": f"PID{worker}{patient:08d}",
        "PatientName": f"Surname{patient}^Given^Middle",
        "PatientBirthDate": f"19{patient % 90 + 10}0{patient % 9 + 1}15",
        "PatientSex": "FMO"[patient % 3],
        "StudyInstanceUID": f"{root}.{study}",
        "StudyDate": f"20{study % 24:02d}{study % 12 + 1:02d}{study % 28 + 1:02d}",
        "StudyTime": "101112.000000",
        "StudyID": str(study),
        "AccessionNumber": f"A{worker}{study:09d}",
        "StudyDescription": "CT Thorax and Abdomen",
        "ReferringPhysicianName": f"Referrer{study % 50}^Jo",
        "SeriesInstanceUID": f"{root}.{study}.{series}",
        "Modality": "CT",
        "SeriesNumber": str(series % 4),
        "SeriesDescription": "Axial 1.0 soft",
        "BodyPartExamined": "CHEST",
        "InstitutionName": "General Hospital",
        "StationName": "CT01",
        "Manufacturer": "Maker",
        "ManufacturerModelName": "Model 5",
        "SOPInstanceUID": f"{root}.{study}.{series}.{number}",
        "SOPClassUID": CT,
        "InstanceNumber": str(number % 25),
        "ContentDate": "20240102",
        "ContentTime": "101112.123456",
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
        "Rows": "512",
        "Columns": "512",
        "BitsAllocated": "16",
    }


def pack(values: dict[str, str]) -> bytes:
    """The fields blob."""
    items = sorted((BY_KEYWORD[keyword].tag, value.encode()) for keyword, value in values.items())
    return b"\x01" + b"".join(struct.pack("<II", tag, len(value)) + value for tag, value in items)


def locator(number: int) -> bytes:
    """Any place of 512 KB."""
    return struct.pack("<QQQ", 1 << 32 | number, 0, 525_312)


def busy() -> None:
    """A thread that never waits, as a Python service has now and then."""
    while True:
        sum(range(1000))


# --- ways: each makes records and commits them, in a process of its own -----------------------

Make = Callable[[int, int], Any]
Commit = Callable[[list[Any]], None]


def ours(folder: Path) -> tuple[Make, Commit]:
    """The index as it is."""
    from pacs_core.index import Entry, Index

    index = Index.open(folder, map_size=1 << 36)

    def make(worker: int, number: int) -> Entry:
        blob = pack(fields_of(worker, number))
        return Entry(blob, locator(number), number << 12 | worker, number, SYNTAX, "CT01")

    def commit(entries: list[Entry]) -> None:
        index.commit(entries)

    return make, commit


def py_lmdb(folder: Path) -> tuple[Make, Commit]:
    """The same tables kept by a Python program: records by level with counters, keys, children."""
    import lmdb

    env = lmdb.open(str(folder), map_size=1 << 36, max_dbs=16)
    uid, rows, key = (env.open_db(name) for name in (b"uid", b"rows", b"key"))
    child = env.open_db(b"child", dupsort=True)
    keyed = {"PatientName", "PatientBirthDate", "StudyDate", "AccessionNumber", "StudyID", "StudyDescription"}
    levels = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    of_level = [
        [keyword for keyword, attribute in BY_KEYWORD.items() if attribute.level == level]
        for level in range(4)
    ]

    def commit(batch: list[dict[str, str]]) -> None:
        with env.begin(write=True) as txn:
            following = int.from_bytes(txn.get(b"next", db=rows) or bytes(8), "big")
            for values in batch:
                parent = b"top"
                for level, keyword in enumerate(levels):
                    text = bytes([level]) + values[keyword].encode()
                    one = txn.get(text, db=uid)
                    if one is None:
                        following += 1
                        one = following.to_bytes(8, "big")
                        txn.put(text, one, db=uid)
                        txn.put(parent, one, db=child)
                        record = {k: values[k] for k in of_level[level] if k in values}
                        counts = [0, 0]
                        for name in record.keys() & keyed:
                            txn.put(f"{name}\0{record[name].casefold()}".encode() + one, b"", db=key)
                    else:
                        record, counts = json.loads(txn.get(one, db=rows) or b"")
                    counts = [counts[0] + 1, counts[1] + 525_312]
                    txn.put(one, json.dumps([record, counts]).encode(), db=rows)
                    parent = one
            txn.put(b"next", following.to_bytes(8, "big"), db=rows)

    return fields_of, commit


WAYS: dict[str, Callable[[Path], tuple[Make, Commit]]] = {"ours": ours, "py-lmdb": py_lmdb}


def work(way: str, folder: Path, worker: int, batch: int, seconds: float, beside_busy: bool) -> None:
    """One worker: commit for a while, print how many."""
    make, commit = WAYS[way](folder)
    made = [make(worker, number) for number in range(int(MOST * seconds) // batch * batch)]
    if beside_busy:
        threading.Thread(target=busy, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read(1)
    times: list[float] = []
    first = time.perf_counter()
    for start in range(0, len(made), batch):
        begun = time.perf_counter()
        if begun - first > seconds:
            break
        commit(made[start : start + batch])
        times.append(time.perf_counter() - begun)
    rate = len(times) * batch / (time.perf_counter() - first)
    times.sort()
    print(json.dumps({"rate": rate, "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}))


def run(
    way: str, parent: Path, workers: int, batch: int, seconds: float, beside_busy: bool
) -> tuple[float, dict[str, float]]:
    """Records a second of all workers, and the first one's commit times."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        started = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", way, folder, str(worker), str(batch), str(seconds)]
                + (["busy"] if beside_busy else []),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for worker in range(workers)
        ]
        for one in started:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in started:
            assert one.stdin is not None
            one.stdin.write("x")
            one.stdin.flush()
        results = [json.loads(one.communicate()[0]) for one in started]
        return sum(result["rate"] for result in results), results[0]


def sizes(parent: Path) -> Iterator[str]:
    """What the index takes on disk, and how long questions take."""
    from pacs_core._ext import browse
    from pacs_core.index import Index

    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        make, commit = ours(folder)
        count = 40_000
        made = [make(0, number) for number in range(count)]
        begun = time.perf_counter()
        for start in range(0, count, 500):
            commit(made[start : start + 500])
        yield f"500 to a commit: {count / (time.perf_counter() - begun):.0f} records/s"
        with Index.open(folder) as index:
            stats = index.stats()
            yield (
                f"{stats.instances} instances in {stats.studies} studies: "
                f"{stats.index_bytes / count:.0f} bytes per instance, "
                f"{stats.index_bytes / stats.studies:.0f} per study of 100"
            )
            env = index._opened.env
            for table, label in ((2, "patient"), (3, "study"), (4, "series"), (5, "instance")):
                rows = env.walk(table, limit=5000)
                yield f"  {label} record: {statistics.mean(len(value) for _, value in rows):.0f} bytes"
            uids = [fields_of(0, n)["SOPInstanceUID"] for n in range(0, count, 7)]
            for label, ask in (
                ("held (method)", index.held),
                ("held (native)", lambda uid: browse.held(env, index._opened.schema, uid)),
                ("locate", index.locate),
            ):
                begun = time.perf_counter()
                for uid in uids:
                    ask(uid)
                yield f"  {label}: {(time.perf_counter() - begun) / len(uids) * 1e6:.2f} us"
            begun = time.perf_counter()
            found = sum(1 for _ in index.find(Level.STUDY))
            yield f"  find, all studies: {found / (time.perf_counter() - begun):.0f} rows/s"
            begun = time.perf_counter()
            problems = len(list(index.check()))
            yield f"  check: {count / (time.perf_counter() - begun):.0f} instances/s, {problems} problems"


def main() -> None:
    """Run all of it and print a table."""
    if sys.argv[1:2] == ["--worker"]:
        given = sys.argv[2:]
        work(given[0], Path(given[1]), int(given[2]), int(given[3]), float(given[4]), given[5:] == ["busy"])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    print(f"{'records/s':<34}{'ours':>9}{'py-lmdb':>9}{'ratio':>7}{'ours p50, p99 of a commit (ms)':>34}")
    for workers, beside_busy in ((1, False), (2, False), (1, True)):
        for batch in BATCHES:
            rates: dict[str, list[float]] = {way: [] for way in WAYS}
            times: list[dict[str, float]] = []
            for _ in range(options.rounds):
                for way in WAYS:
                    rate, result = run(way, options.folder, workers, batch, options.seconds, beside_busy)
                    rates[way].append(rate)
                    if way == "ours":
                        times.append(result)
            mine, theirs = (statistics.median(rates[way]) for way in WAYS)
            label = f"{workers} process{'es' if workers > 1 else ''}, {batch} to a commit"
            label += ", busy thread" if beside_busy else ""
            p50, p99 = (statistics.median(one[which] for one in times) * 1e3 for which in ("p50", "p99"))
            print(
                f"{label:<34}{mine:>9.0f}{theirs:>9.0f}{mine / theirs:>7.2f}{p50:>25.2f}{p99:>9.2f}",
                flush=True,
            )
    for line in sizes(options.folder):
        print(line)


if __name__ == "__main__":
    main()
