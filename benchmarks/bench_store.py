"""How fast the store keeps: whole files from several threads, frames by batch size; naive ways beside it.

Run as ``python benchmarks/bench_store.py [--folder DIR] [--rounds N] [--seconds S]``. The ways take
turns; each is reported with its median rate and its ratio to the first of its table. `--folder`: on the disk
in question.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from pacs_core.store import Store, crc32c
from pacs_core.store.local import Staged

META = bytes(128) + b"DICM" + bytes(300)
FIELDS = bytes(400)
LARGE = os.urandom(512 << 10)
SMALL = os.urandom(2 << 10)

Way = Callable[[Path, float], float]


def store_files(threads: int) -> Way:
    """`threads` stage; whoever finds no leader publishes what has gathered, as ingest does."""

    def run(folder: Path, seconds: float) -> float:
        gathered: SimpleQueue[Staged] = SimpleQueue()
        leading = threading.Lock()
        counts = [0] * threads
        end = time.perf_counter() + seconds

        def associate(me: int) -> None:
            while time.perf_counter() < end:
                gathered.put(store.stage(META, LARGE, FIELDS, store.next_stamp()))
                with leading:
                    batch = [gathered.get() for _ in range(gathered.qsize())]
                    if batch:
                        store.publish(batch)
                counts[me] += 1

        with Store.open(folder) as store:
            workers = [threading.Thread(target=associate, args=(me,)) for me in range(threads)]
            begun = time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return sum(counts) / (time.perf_counter() - begun)

    return run


def naive_files(size_of: bytes, threads: int) -> Way:
    """Temporary name, fsync, rename, fsync of the folder: each file for itself."""

    def run(folder: Path, seconds: float) -> float:
        folder.mkdir(exist_ok=True)
        counts = [0] * threads
        end = time.perf_counter() + seconds

        def associate(me: int) -> None:
            parent = os.open(folder, os.O_RDONLY)
            while time.perf_counter() < end:
                name = folder / f"{me}-{counts[me]}"
                with name.with_suffix(".tmp").open("wb", buffering=0) as file:
                    file.write(META)
                    file.write(size_of)
                    os.fsync(file.fileno())
                name.with_suffix(".tmp").rename(name.with_suffix(".dcm"))
                os.fsync(parent)
                counts[me] += 1
            os.close(parent)

        workers = [threading.Thread(target=associate, args=(me,)) for me in range(threads)]
        begun = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(counts) / (time.perf_counter() - begun)

    return run


def store_frames(batch: int) -> Way:
    def run(folder: Path, seconds: float) -> float:
        published = 0
        with Store.open(folder) as store:
            begun = time.perf_counter()
            while time.perf_counter() < begun + seconds:
                store.publish([store.stage(META, SMALL, FIELDS, store.next_stamp()) for _ in range(batch)])
                published += batch
            return published / (time.perf_counter() - begun)

    return run


def empty(folder: Path) -> None:
    """Free the blocks, keep the files: ext4 is slow to make files where some were just deleted."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


def in_turns(title: str, ways: dict[str, Way], folder: Path, rounds: int, seconds: float) -> None:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for number, (name, way) in enumerate(ways.items()):
            here = folder / f"{title}, {turn}-{number}"
            here.mkdir()
            rates[name].append(way(here, seconds))
            empty(here)
    print(f"\n{title} ({rounds} rounds of {seconds:g} s)")
    first = statistics.median(next(iter(rates.values())))
    for name, found in rates.items():
        median = statistics.median(found)
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"  {name:34} {median:10,.0f}/s  {median / first:5.2f}x   {spread}")


def checksums() -> None:
    print("\nCRC-32C")
    for size in (2 << 10, 64 << 10, 16 << 20):
        data = os.urandom(size)
        times = max(1, (64 << 20) // size)
        begun = time.perf_counter()
        for _ in range(times):
            crc32c(data)
        print(f"  {size >> 10:6} KiB {times * size / (time.perf_counter() - begun) / 1e9:6.1f} GB/s")


def reading(folder: Path) -> None:
    folder.mkdir()
    with Store.open(folder) as store:
        batch = [
            store.stage(META, data, FIELDS, store.next_stamp()) for data in [SMALL] * 1000 + [LARGE] * 20
        ]
        found = [outcome for outcome in store.publish(batch).outcomes if isinstance(outcome, tuple)]
        print("\nReading, cached")
        for name, some in (("2 KiB frame", found[:1000]), ("512 KiB file", found[1000:] * 10)):
            begun = time.perf_counter()
            for locator in some:
                store.read(locator)
            print(f"  {name:14} {(time.perf_counter() - begun) / len(some) * 1e6:8.1f} us")
        begun = time.perf_counter()
        count = sum(1 for _ in store.walk(check=True))
        print(f"  walk, checked  {(time.perf_counter() - begun) / count * 1e6:8.1f} us an instance")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder)))
        files = {
            "naive, 1 thread": naive_files(LARGE, 1),
            "store, 1 thread": store_files(1),
            "naive, 4 threads": naive_files(LARGE, 4),
            "store, 4 threads": store_files(4),
        }
        in_turns("512 KiB instances", files, folder, given.rounds, given.seconds)
        frames = {
            "a file each, 1 thread": naive_files(SMALL, 1),
            "a file each, 4 threads": naive_files(SMALL, 4),
        }
        frames |= {f"frames, {batch} to a batch": store_frames(batch) for batch in (1, 4, 16, 64)}
        in_turns("2 KiB instances", frames, folder, given.rounds, given.seconds)
        reading(folder / "reading")
    checksums()


if __name__ == "__main__":
    main()
