"""A study of very many tiny instances goes: how long it takes, and how long others wait.

`pytest -s` shows it; PACS_CORE_DELETE=100000 makes a large one of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pacs_core.archive import Archive
from pacs_core.archive.verify import verify
from tests.make import instance, part10, uid

COUNT = int(os.environ.get("PACS_CORE_DELETE", "20000"))
SERIES = 50


def fill(archive: Archive) -> None:
    """Store a study over 8 threads, so that they share commits."""
    number = uid(1, 1000 + SERIES, 10_000_000)
    series = uid(1, 1000 + SERIES)
    template = part10(instance(10_000_000, series=1000 + SERIES, size=64))
    assert template.count(number.encode()) == 2

    def some(first: int) -> None:
        for n in range(first, COUNT, 8):
            own = uid(1, 1000 + n % SERIES, 10_000_000 + n)
            file = template.replace(number.encode(), own.encode())
            archive.store(file.replace(series.encode(), uid(1, 1000 + n % SERIES).encode()))

    threads = [threading.Thread(target=some, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    archive.store(part10(instance(1, study=2)))


@pytest.mark.timeout(300 + COUNT / 100)
def test_a_study_of_many_instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    with Archive.open(tmp_path / "archive") as archive:
        fill(archive)
        exclusive = archive.index.exclusive

        @contextmanager
        def timed() -> Iterator[None]:
            with exclusive():
                began = time.perf_counter()
                yield
                waits.append(1e3 * (time.perf_counter() - began))

        monkeypatch.setattr(archive.index, "exclusive", timed)
        began = time.perf_counter()
        deleted = archive.delete(study=uid(1))
        seconds = time.perf_counter() - began
        waits.sort()
        print(
            f"\n{COUNT:,} instances in {seconds:.1f} s ({COUNT / seconds:,.0f}/s); the index was held"
            f" {waits[len(waits) // 2]:.1f} ms at a time, at most {waits[-1]:.1f} ms"
        )
        assert deleted.instances == COUNT
        assert archive.stats().instances == 1
        assert verify(archive).findings == []
