"""Small objects at full rate: memory, threads, descriptors and latency stay what they are.

PACS_CORE_SOAK=60 makes an hour of it; `pytest -s` shows the table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.load.footprint import Footprint, footprint, settled
from tests.serving import pacs_core, serving, stats

MINUTES = float(os.environ.get("PACS_CORE_SOAK", "0.1"))
INTERVALS = 9
ASSOCIATIONS = 4
LOADGEN = Path(__file__).resolve().parents[2] / "tools" / "loadgen.py"


class Interval(NamedTuple):
    rate: float
    p99: float
    footprint: Footprint


@pytest.mark.timeout(180 + 90 * MINUTES)
def test_an_hour_at_full_rate_is_as_its_first_minutes(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    intervals: list[Interval] = []
    acknowledged = 0
    with serving(archive) as server:
        idle = footprint(server)
        print("\ninstances   inst/s  p99 ms  memory MB  threads  descriptors")
        for _ in range(INTERVALS):
            done = subprocess.run(
                [
                    *(
                        sys.executable,
                        str(LOADGEN),
                        "127.0.0.1",
                        str(server.port),
                        "--aec",
                        "PACSCORE",
                        "--json",
                    ),
                    *("-n", str(ASSOCIATIONS), "--size", "2048", "--duration", str(60 * MINUTES / INTERVALS)),
                ],
                capture_output=True,
                text=True,
                check=True,
            )
            report = json.loads(done.stdout)
            assert report["statuses"] == {"0000": report["acknowledged"]}
            acknowledged += report["acknowledged"]
            found = settled(server, lambda found: found.threads <= idle.threads)
            intervals.append(Interval(report["instances_per_second"], report["p99_ms"], found))
            print(
                f"{acknowledged:9,} {report['instances_per_second']:8,.0f} {report['p99_ms']:7.1f}"
                f" {found.memory / 1e6:10.1f} {found.threads:8} {found.descriptors:12}"
            )
        assert stats(archive)["instances"] == acknowledged
        assert server.stop() == 0
    pacs_core("verify", "--archive", str(archive))
    second, last = (intervals[INTERVALS // 3 * n : INTERVALS // 3 * (n + 1)] for n in (1, 2))
    if MINUTES >= 5:  # in seconds it shows what else the machine does
        assert min(each.p99 for each in last) < 2 * min(each.p99 for each in second)
    for measure in ("threads", "descriptors"):
        assert max(getattr(each.footprint, measure) for each in last) <= max(
            getattr(each.footprint, measure) for each in second
        )
    least = [min(each.footprint.memory for each in third) for third in (second, last)]
    assert least[1] - least[0] < 4 << 20
