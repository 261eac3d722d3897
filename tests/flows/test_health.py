"""`pacs-core health` beside a real server: who asks learns what works, and that nobody is there."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.serving import pacs_core, serving, until


def test_health_of_a_server_that_runs_and_of_one_that_does_not(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    asked = ("health", "--archive", str(archive))
    assert "no archive" in pacs_core(*asked, check=1).stderr
    with serving(archive, "--set", "pool.acceptors=2") as server:
        said = json.loads(pacs_core(*asked, "--json").stdout)
        assert {"processes", "associations", "store", "find", "retrieve"} <= said.keys()
        assert all(one["well"] for one in said.values())
        assert pacs_core(*asked).stdout.count("well") == len(said)
        assert server.stop() == 0
        assert not server.said("service is not well")  # what is drained is not looked at any more
    assert "no server is up" in pacs_core(*asked, check=1).stderr
    with serving(archive) as server:
        server.kill()
    assert "no server runs" in pacs_core(*asked, check=1).stderr


def test_a_process_that_is_gone_is_told_until_another_has_taken_its_place(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    asked = ("health", "--archive", str(archive))
    with serving(archive, "--set", "pool.acceptors=2") as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        assert pacs_core(*asked).returncode == 0
        os.kill(int(children[0]), signal.SIGKILL)
        assert until(lambda: server.said("child died"))
        assert until(lambda: pacs_core(*asked, check=None).returncode == 0, 30)
        assert server.stop() == 0
