"""The worked day of tools/samples, as a user runs it: from the order to the images on the doctor's screen."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

from tests.serving import pacs_core, serving

SAMPLE = Path(__file__).resolve().parents[2] / "tools" / "samples" / "worked_day.py"
STEPS = ["worklist", "MPPS", "stored", "MPPS", "committed", "found", "retrieved", "worklist"]


def steps(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, SAMPLE, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return [line.split()[0] for line in done.stdout.splitlines()]


def test_the_day_with_a_server_of_its_own() -> None:
    assert steps() == ["serving", "scheduled", *STEPS]


def test_the_day_at_a_server_that_is_there(tmp_path: Path) -> None:
    with serving(tmp_path / "archive") as server:
        pacs_core(
            *("worklist", "add", "--archive", str(tmp_path / "archive"), "PatientName=Roe^Richard"),
            *("PatientID=42", "Modality=CT", "ScheduledStationAETitle=CT7", "AccessionNumber=A1"),
            *(f"ScheduledProcedureStepStartDate={date.today()}", "ScheduledProcedureStepStartTime=08:00"),
            "ScheduledProcedureStepDescription=Chest",
        )
        assert steps("--host", "127.0.0.1", "--port", str(server.port), "--station", "CT7") == STEPS
        assert server.stop() == 0
