"""DCMTK's clients against the wire."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "flows"))
from rawpeer import ECHO, Kept, serving

SAMPLES = Path(
    os.environ.get("PACS_CORE_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data")
)


def node() -> AE:
    ae = AE("PACSCORE")
    ae.maximum_pdu_size = 131072
    ae.add_supported_context(ECHO)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
    return ae


def client(name: str) -> str:
    path = f"/usr/bin/{name}"
    if not Path(path).exists():
        pytest.skip(f"{path} is not installed")
    return path


def test_echoscu() -> None:
    with serving(node()) as server:
        port = str(server.server_address[1])
        command = [client("echoscu"), "--repeat", "50", "127.0.0.1", port]
        subprocess.run(command, check=True, timeout=30)


def test_dcmsend_sends_every_sample() -> None:
    folder = SAMPLES / "pydicom-data"
    if not folder.is_dir():
        pytest.skip(f"no samples in {folder}")
    kept = Kept()
    with serving(node(), storage=kept, spool_at=1 << 20) as server:
        port = str(server.server_address[1])
        done = subprocess.run(
            [client("dcmsend"), "-v", "+sd", "+r", "--no-uid-checks", "--no-halt", "127.0.0.1", port, folder],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        counts = {what: int(count) for what, count in re.findall(r"^I: +\* (.*?) *: (\d+)", said, re.M)}
        assert counts, said[-2000:]
        assert counts["with status SUCCESS"] == len(kept.data) > 50, said[-2000:]
        assert counts.get("with status FAILURE", 0) == 0


def test_storescu_with_nagle_does_not_wait_for_delayed_acknowledgements() -> None:
    sample = SAMPLES / "pydicom-data" / "CT_small.dcm"
    if not sample.exists():
        sample = next(iter(sorted((SAMPLES / "pydicom-data").glob("MR2_UNC*.dcm"))), sample)
    if not sample.exists():
        pytest.skip(f"no sample {sample}")
    kept = Kept()
    environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"}
    with serving(node(), storage=kept) as server:
        port = str(server.server_address[1])
        command = [client("storescu"), "--repeat", "50", "127.0.0.1", port, str(sample)]
        started = time.monotonic()
        subprocess.run(command, check=True, timeout=60, env=environment)
        elapsed = time.monotonic() - started
    assert len(kept.data) == 50
    # 40 ms each would be 2 s.
    assert elapsed < 1.5
