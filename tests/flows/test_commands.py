"""The commands as processes of their own, beside a server that works on the same archive."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pacs_core import Archive
from tests.make import encoded, file, instance, uid
from tests.raw import RawSender
from tests.serving import pacs_core, serving, stats, until

EXPLICIT = "1.2.840.10008.1.2.1"


def test_everything_works_while_the_server_runs(tmp_path: Path) -> None:
    archive, folder = tmp_path / "archive", tmp_path / "in"
    folder.mkdir()
    for number in range(1, 6):
        file(folder, instance(number, study=2, size=100_000))
    with serving(archive) as server:
        with RawSender(server.port, EXPLICIT) as sender:
            assert sender.store(uid(1, 1, 1), encoded(instance(1))).status == 0
        imported = json.loads(pacs_core("import", "--archive", str(archive), "--json", str(folder)).stdout)
        assert imported["stored"] == 5
        with Archive.open(archive) as embedded:
            embedded.store(file(tmp_path, instance(1, study=3)))
            assert embedded.holds(uid(1, 1, 1))
        assert stats(archive)["instances"] == 7
        with RawSender(server.port, EXPLICIT) as sender:  # what the others stored is a duplicate to it
            assert sender.store(uid(3, 1, 1), encoded(instance(1, study=3))).status == 0
        assert stats(archive)["instances"] == 7
        verified = json.loads(pacs_core("verify", "--archive", str(archive), "--json").stdout)
        assert verified["clean"]
        assert verified["instances"] == 7
        assert verified["findings"] == []
        pacs_core("backup", "--archive", str(archive), str(tmp_path / "backup"))
        pacs_core("export", "--archive", str(archive), str(tmp_path / "out"), "--study", uid(2))
        assert len(list((tmp_path / "out").rglob("*.dcm"))) == 5
        refused = pacs_core("reindex", "--archive", str(archive), check=1)
        assert "in use" in refused.stderr
        second = pacs_core("serve", "--archive", str(archive), "--port", "0", check=1)
        assert "in use" in second.stderr
        assert server.stop() == 0
    pacs_core("restore", "--archive", str(tmp_path / "restored"), str(tmp_path / "backup"))
    assert stats(tmp_path / "restored")["instances"] == 7
    pacs_core("verify", "--archive", str(tmp_path / "restored"))


def delete(archive: Path, *words: str, check: int = 0) -> dict[str, Any]:
    """`pacs-core delete --json`."""
    done = pacs_core("delete", "--archive", str(archive), "--json", *words, check=check)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_deletion_while_the_server_receives(tmp_path: Path) -> None:
    archive = tmp_path / "archive"

    def store(sender: RawSender, study: int, number: int) -> None:
        data = encoded(instance(number, study=study, series=number % 2 + 1))
        assert sender.store(uid(study, number % 2 + 1, number), data).status == 0

    with serving(archive) as server:
        with RawSender(server.port, EXPLICIT) as sender:
            for study in (1, 2, 3):
                for number in range(1, 7):
                    store(sender, study, number)
            named = ("--study", uid(1), "--series", uid(2, 1), "--instance", uid(3, 2, 1))
            told = delete(archive, "--yes", *named)
            assert told["instances"] == 6 + 3 + 1
            assert told["bytes"] > 10 * 500
            assert [(one["kind"], one["instances"], one["error"]) for one in told["outcomes"]] == [
                ("instance", 1, None),
                ("series", 3, None),
                ("study", 6, None),
            ]
            assert stats(archive)["instances"] == 8
            assert stats(archive)["dead_bytes"] > 10 * 500
            store(sender, 1, 1)
            assert stats(archive)["instances"] == 9
            told = delete(archive, "--yes", "--study", uid(2), "--study", "1.2.3", check=1)
            assert (told["instances"], [bool(one["error"]) for one in told["outcomes"]]) == (3, [False, True])
        assert server.stop() == 0
    pacs_core("verify", "--archive", str(archive))


def test_a_deletion_asks(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(file(tmp_path, instance(1)))
    words = ["delete", "--archive", str(tmp_path / "archive"), "--study", uid(1)]
    refused = pacs_core(*words, check=2)
    assert "--yes" in refused.stderr
    pacs_core("delete", "--archive", str(tmp_path / "archive"), "--yes", check=2)
    for answer, code, left in (("n", 1, 1), ("y", 0, 0)):
        outside, terminal = pty.openpty()
        os.write(outside, f"{answer}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "pacs_core", *words],
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        os.close(outside)
        os.close(terminal)
        assert "Delete 1 instances for good?" in done.stderr
        assert (done.returncode, stats(tmp_path / "archive")["instances"]) == (code, left)


def test_what_fails_is_said_in_one_line_and_by_the_exit_code(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    for command in (
        *(["stats"], ["verify"], ["reindex"]),
        *(["export", str(tmp_path / "out")], ["delete", "--yes", "--study", "1"]),
    ):
        failed = pacs_core(*command, "--archive", absent, check=1)
        assert "no archive" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert not (tmp_path / "absent").exists()
    pacs_core("stats", "--no-such-flag", check=2)
    pacs_core("stats", "--set", "archive.nonsense=1", check=2)
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\x00")
    failed = pacs_core(
        "import", "--archive", str(tmp_path / "archive"), str(tmp_path / "broken.dcm"), check=1
    )
    assert "broken.dcm" in failed.stderr
    failed = pacs_core(
        "export", "--archive", str(tmp_path / "archive"), str(tmp_path / "o"), "--study", "1", check=1
    )
    assert "no study 1" in failed.stderr


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with serving(tmp_path / "one") as server:
        failed = pacs_core("serve", "--archive", str(tmp_path / "two"), "--port", str(server.port), check=2)
        assert str(server.port) in failed.stderr


def test_an_import_that_is_interrupted_goes_on_later(tmp_path: Path) -> None:
    archive, folder = tmp_path / "archive", tmp_path / "in"
    folder.mkdir()
    for number in range(1, 401):
        file(folder, instance(number, size=100_000))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pacs_core", "import", "--archive", str(archive)),
            *("--set", "archive.small=0", str(folder)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert until(lambda: len(list(archive.glob("objects/*/*/*/*.dcm"))) > 5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    before = stats(archive)["instances"]
    assert 0 < before < 400
    pacs_core("verify", "--archive", str(archive))
    pacs_core("import", "--archive", str(archive), str(folder))
    assert stats(archive)["instances"] == 400
    pacs_core("verify", "--archive", str(archive))


def test_the_server_drains_on_sigterm(tmp_path: Path) -> None:
    """An instance that is on its way when the server is told to stop is taken and acknowledged."""
    archive = tmp_path / "archive"
    data = encoded(instance(1, size=400_000))
    with serving(archive) as server:
        with RawSender(server.port, EXPLICIT) as sender:
            sender.begin(uid(1, 1, 1))
            sender.data(data[:200_000], last=False)
            time.sleep(0.3)
            os.kill(server.process.pid, signal.SIGTERM)
            time.sleep(0.3)
            sender.data(data[200_000:])
            assert sender.response().status == 0
            sender.released = lambda: None  # type: ignore[method-assign]  # the server ends the association
        assert server.process.wait(20) == 0
    assert stats(archive)["instances"] == 1


def test_a_log_that_can_not_be_written_ends_nothing(tmp_path: Path) -> None:
    """The disk of the log is full: instances are still answered, and the server still ends in order."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pacs_core", "serve", "--archive", str(tmp_path / "archive")),
                *("--port", str(port), "--set", "pool.acceptors=2"),
            ],
            stderr=full,
        )
    try:
        assert until(lambda: _connects(port), 30)
        with RawSender(port, EXPLICIT) as sender:
            assert sender.store(uid(1, 1, 2), encoded(instance(1))).status == 0xA900
            assert sender.store(uid(1, 1, 1), encoded(instance(1))).status == 0
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["config", "stats"])
def test_output_that_can_not_be_written_is_one_line(tmp_path: Path, command: str, redirected: str) -> None:
    archive = tmp_path / "archive"
    Archive.open(archive).close()
    done = subprocess.run(
        [
            *("sh", "-c", f'"$@" {redirected}', "sh"),
            *(sys.executable, "-m", "pacs_core", command, "--archive", str(archive)),
        ],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("pacs-core: ")
