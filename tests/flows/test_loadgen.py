"""The load generator against our own server: what it says was acknowledged is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from pacs_core.archive import Archive
from pacs_core.archive.verify import verify
from tests.serving import serving

LOADGEN = Path(__file__).resolve().parents[2] / "tools" / "loadgen.py"
OF_FILE = str(get_testdata_file("MR_small_bigendian.dcm"))


def loadgen(port: int, *args: str) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, LOADGEN, "127.0.0.1", str(port), "--json", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    "what",
    [("--size", "30000"), ("--size", "2000", "--pdu", "1024"), ("--from", OF_FILE, "--nagle")],
    ids=["generated", "tiny PDUs", "file"],
)
def test_all_that_it_counts_is_kept(tmp_path: Path, what: tuple[str, ...]) -> None:
    with serving(tmp_path / "archive") as server:
        code, report = loadgen(
            server.port,
            "-n",
            "3",
            "--count",
            "7",
            "--uids",
            str(tmp_path / "uids"),
            "--aec",
            "PACSCORE",
            *what,
        )
    assert code == 0
    assert (report["acknowledged"], report["statuses"], report["lost"]) == (21, {"0000": 21}, [])
    uids = (tmp_path / "uids").read_text().split()
    assert len(set(uids)) == 21
    with Archive.open(tmp_path / "archive", create=False) as archive:
        assert all(archive.holds(uid) for uid in uids)
        assert archive.stats().instances == 21
        assert verify(archive).findings == []


def test_a_receiver_that_is_not_there_is_said(free_port: int) -> None:
    code, report = loadgen(free_port, "-n", "2")
    assert code == 1
    assert report["acknowledged"] == 0
    assert len(report["lost"]) == 2  # type: ignore[arg-type]
