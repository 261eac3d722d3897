"""Small objects at full rate: memory, threads, descriptors and latency stay what they are.

PACS_CORE_SOAK=60 makes an hour of it; `pytest -s` shows the table. What is older than two intervals is
deleted while sending goes on, so that the disk holds it; PACS_CORE_KEEP=10 keeps all.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from pacs_core.archive import Archive
from pacs_core.dicom.attributes import Level
from tests.load.footprint import Footprint, footprint, settled
from tests.serving import Serving, pacs_core, serving, stats

MINUTES = float(os.environ.get("PACS_CORE_SOAK", "0.1"))
THIRD = 3
"""Intervals of it."""
KEEP = int(os.environ.get("PACS_CORE_KEEP", "2"))
"""Intervals whose instances stay."""
STUDY_UID = 0x0020000D
LOADGEN = Path(__file__).resolve().parents[2] / "tools" / "loadgen.py"


class Interval(NamedTuple):
    acknowledged: int
    rate: float
    p99: float
    footprint: Footprint

    def __str__(self) -> str:
        memory, _, threads, descriptors = self.footprint
        return (
            f"{self.acknowledged:9,} {self.rate:8,.0f} {self.p99:7.1f}"
            f" {memory / 1e6:10.1f} {threads:8} {descriptors:12}"
        )


def interval(server: Serving, idle: Footprint) -> Interval:
    """Send for one interval over 4 associations; all that is sent is taken, or the exit code says so."""
    seconds = 60 * MINUTES / (3 * THIRD)
    done = subprocess.run(
        [
            *(sys.executable, str(LOADGEN), "127.0.0.1", str(server.port)),
            *("--aec", "PACSCORE", "--size", "2048", "--duration", str(seconds), "--json"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    found = settled(server, lambda found: found.threads <= idle.threads)
    return Interval(report["acknowledged"], report["instances_per_second"], report["p99_ms"], found)


class Rolling:
    """Deletes the studies of old intervals, from another process than those that receive."""

    def __init__(self, root: Path) -> None:
        self._archive = Archive.open(root, create=False)
        self._intervals: list[set[str]] = []
        self._seen: set[str] = set()
        self._thread = threading.Thread(target=self._delete, args=(set(),))
        self._thread.start()
        self.deleted = 0

    def next(self) -> None:
        """One interval is over: delete, from now on, what came before those that are kept."""
        there = {match[STUDY_UID] for match in self._archive.find(Level.STUDY, {}, wanted={STUDY_UID})}
        self._intervals.append(there - self._seen)
        self._seen |= there
        if len(self._intervals) > KEEP:
            self._thread.join()
            self._thread = threading.Thread(target=self._delete, args=(self._intervals.pop(0),))
            self._thread.start()

    def _delete(self, studies: set[str]) -> None:
        for study in studies:
            self.deleted += self._archive.delete(study=study).instances

    def end(self) -> None:
        self._thread.join()
        self._archive.close()


@pytest.mark.timeout(300 + 150 * MINUTES)
def test_an_hour_at_full_rate_is_as_its_first_minutes(tmp_path: Path) -> None:
    """In the last third a server that is new is sent to in turns: what is slow there, too, is the machine."""
    thirds: list[list[Interval]] = [[], [], []]
    new: list[Interval] = []
    print("\n     sent   inst/s  p99 ms  memory MB  threads  descriptors")
    with serving(tmp_path / "old") as server:
        rolling = Rolling(tmp_path / "old")
        idle = footprint(server)
        for third in thirds[:2]:
            for _ in range(THIRD):
                third.append(interval(server, idle))
                print(third[-1])
                rolling.next()
        with serving(tmp_path / "new") as beside:
            for _ in range(THIRD):
                thirds[2].append(interval(server, idle))
                new.append(interval(beside, idle))
                print(f"{thirds[2][-1]}\n{new[-1]}  new")
                rolling.next()
        rolling.end()
        held, sent = stats(tmp_path / "old"), sum(each.acknowledged for third in thirds for each in third)
        print(f"{rolling.deleted:9,} deleted; {held['dead_bytes'] / 1e6:,.0f} MB dead")
        assert held["instances"] == sent - rolling.deleted
        assert rolling.deleted or KEEP >= 3 * THIRD
        assert server.stop() == 0
    pacs_core("verify", "--archive", str(tmp_path / "old"), seconds=240 + 30 * MINUTES)
    second, last = ([each.footprint for each in third] for third in thirds[1:])
    assert max(each.threads for each in last) <= max(each.threads for each in second)
    assert max(each.descriptors for each in last) <= max(each.descriptors for each in second)
    assert min(each.memory for each in last) - min(each.memory for each in second) < 4 << 20
    slower = [old.p99 / each.p99 for old, each in zip(thirds[2], new, strict=True)]
    if MINUTES >= 5:  # a few seconds say nothing of a p99
        assert statistics.median(slower) < 1.5, slower
