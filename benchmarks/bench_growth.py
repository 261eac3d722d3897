"""Does an archive get slower as it fills? The rate of a filled one beside an empty one, in turns.

    python benchmarks/bench_growth.py [--levels 0,300000,1000000,3000000] [--rounds 3] [--folder DIR]

At each level the archive is filled up with tiny instances in many studies (`tools/make_corpus`), then a
server on it and a server on an empty one are sent to in turns (`tools/loadgen`: 2 KB objects, 4 associations,
new studies each time). What counts is the ratio of the two within a round. 3,000,000 instances take about
12 GB of disk.
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
from pathlib import Path

import peers

_TOOLS = Path(__file__).resolve().parent.parent / "tools"
_SECONDS = 5.0
_OF_A_STUDY = 60


def _tool(name: str, *arguments: object) -> dict[str, float]:
    """Run one of our tools; what it printed as JSON."""
    command = [sys.executable, str(_TOOLS / f"{name}.py"), *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _fill(archive: Path, number: int, seed: int) -> float:
    """Enter `number` tiny instances; how many a second."""
    begun = time.perf_counter()
    studies = max(1, number // _OF_A_STUDY)
    _tool("make_corpus", "--archive", archive, "--tiny", number, "--studies", studies, "--seed", seed)
    return number / (time.perf_counter() - begun)


def _rate(port: int) -> float:
    """Instances a second of four associations."""
    result = _tool(
        "loadgen", "127.0.0.1", port, "--aec", peers.AE_TITLE, "--size", 2048, "--duration", _SECONDS
    )
    return result["instances_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--levels", default="0,300000,1000000,3000000", help="instances, ascending")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    given = parser.parse_args()
    serve = peers.ours(_TOOLS.parent, ())
    root = Path(tempfile.mkdtemp(prefix="growth-", dir=given.folder))
    try:
        held = 0
        for seed, level in enumerate(int(text) for text in given.levels.split(",")):
            full = root / "full"
            full.mkdir(exist_ok=True)
            filled = _fill(full / "archive", level - held, seed + 1) if level > held else 0.0
            held = max(held, level)
            empty = root / "empty"
            empty.mkdir()
            rates: list[tuple[float, float]] = []
            with serve(full) as one, serve(empty) as other:
                for _ in range(given.rounds):
                    rates.append((_rate(one.port), _rate(other.port)))
            index = (full / "archive" / "index" / "data.mdb").stat().st_size
            print(
                f"{level:>9,} instances: {statistics.median(a for a, _ in rates):,.0f}/s, "
                f"{statistics.median(a / b for a, b in rates):.2f} of an empty archive's; "
                f"filled at {filled:,.0f}/s; index {index / 2**20:,.0f} MiB",
                flush=True,
            )
            shutil.rmtree(empty)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
