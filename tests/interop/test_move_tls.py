"""C-MOVE to a destination that speaks TLS only: our certificate is shown, the peer's is checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from certificates import Authority, server_settings

import pacs_core
from tests.make import instance, part10
from tests.serving import pacs_core as command
from tests.serving import serving, stats

STUDY = str(instance(1).StudyInstanceUID)


def test_a_destination_is_called_with_tls_and_only_one_that_is_trusted(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    ours, other = (Authority(Path(openssl), tmp_path / name) for name in ("ours", "other"))
    settings = server_settings(ours, ours.issue("node"), client="required")
    stranger = server_settings(other, other.issue("node"), client="none")
    source, target = tmp_path / "source", tmp_path / "target"
    plain = ("--set", "tls.only=false")  # for our client, which the test does not want to burden
    with (
        serving(source, *settings, *plain) as node,
        serving(target, *settings, "--aet", "TARGET") as trusted,
        serving(tmp_path / "stranger", *stranger, "--aet", "STRANGER") as unknown,
    ):
        for aet, server in (("TARGET", trusted), ("STRANGER", unknown)):
            place = ("127.0.0.1", str(server.port), "--archive", str(source))
            command("peers", "add", aet, *place, "--tls")
        tested = command("peers", "test", "--archive", str(source), "--json", *settings, check=1)
        answers = {one["aet"]: one["error"] for one in json.loads(tested.stdout)}
        assert answers["TARGET"] is None
        assert "no TLS" in answers["STRANGER"]

        client = pacs_core.Client("127.0.0.1", node.port)
        assert client.store(part10(instance(1)))[0].status == 0
        assert client.move("TARGET", StudyInstanceUID=STUDY)[0].completed == 1
        assert client.move("STRANGER", StudyInstanceUID=STUDY)[0].failed == 1
        assert stats(target)["instances"] == 1
        assert node.stop() == trusted.stop() == unknown.stop() == 0
