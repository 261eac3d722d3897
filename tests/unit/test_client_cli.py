"""The commands that call a peer: exit codes, output, options; Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pacs_core._ext import associate, pdu
from pacs_core.cli import main as cli
from tests import make
from tests.scripted import Caller, scripted


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PACS_CORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_echo(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(Caller.serve) as peer:
        words = ["echo", "127.0.0.1", str(peer.port), "--aec", "THEM", "--aet", "ME"]
        assert cli.run([*words, "--count", "5", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["count"] == 5
        assert 0 < told["median_ms"] <= told["max_ms"]
        request = peer.callers[0].request
        assert (request.called_ae_title, request.calling_ae_title) == ("THEM", "ME")
        assert request.maximum_length == 128 << 10
        assert cli.run([*words, "--set", "wire.maximum_pdu_length=32768"]) == 0
        assert peer.callers[1].request.maximum_length == 32768
        assert "THEM at 127.0.0.1" in capsys.readouterr().out


def test_echo_that_fails(capsys: pytest.CaptureFixture[str], free_port: int) -> None:
    with scripted(lambda caller: caller.serve(0x0122)) as peer:
        assert cli.run(["echo", "127.0.0.1", str(peer.port)]) == 1
        assert "with status 0122" in capsys.readouterr().out
    assert cli.run(["echo", "127.0.0.1", str(free_port)]) == 1
    assert f"127.0.0.1:{free_port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["echo", "127.0.0.1"],
        ["echo", "127.0.0.1", "70000"],
        ["echo", "127.0.0.1", "1", "--aec", "SEVENTEEN LETTERS"],
        ["echo", "127.0.0.1", "1", "--aet", "back\\slash"],
        ["echo", "127.0.0.1", "1", "--tls-ca", "none.pem"],
        ["echo", "127.0.0.1", "1", "--tls-key", "key.pem"],
        ["echo", "127.0.0.1", "1", "--tls-insecure", "--tls-name", "pacs"],
        ["store", "127.0.0.1", "1"],
        ["store", "127.0.0.1", "1", "x", "--associations", "0"],
        ["store", "127.0.0.1", "1", "x", "--priority", "urgent"],
    ],
)
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(words) == 2
    assert capsys.readouterr().err


def test_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paths = [make.file(tmp_path, make.instance(n)) for n in range(1, 6)]
    (tmp_path / "notes.txt").write_text("hello")
    with scripted(Caller.serve) as peer:
        words = ["store", "127.0.0.1", str(peer.port)]
        assert cli.run([*words, str(tmp_path), "--associations", "2"]) == 0
        assert "5 stored, 0 failed, 1 skipped" in capsys.readouterr().out
        assert cli.run([*words, "--json", *map(str, paths)]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["stored"], told["failed"], told["failures"]) == (5, 0, [])
        assert told["bytes"] > 5 * 512


def test_store_that_fails_in_part(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    answers = {make.uid(1, 1, 2): 0xA700, make.uid(1, 1, 3): 0xB007}
    folder = tmp_path / "some"
    folder.mkdir()
    for n in range(1, 4):
        make.file(folder, make.instance(n))
    with scripted(lambda caller: caller.serve(lambda uid: answers.get(uid, 0))) as peer:
        words = ["store", "127.0.0.1", str(peer.port), str(folder)]
        assert cli.run(words) == 1
        out, err = capsys.readouterr()
        assert "2 stored (1 with warnings), 1 failed" in out
        assert f"{make.uid(1, 1, 2)}.dcm" in err
        assert "A700H, out of resources" in err
        assert "stored with warning B007H" in err
        assert cli.run([*words, "--json"]) == 1
        out, err = capsys.readouterr()
        [failure] = json.loads(out)["failures"]
        assert failure["sop_instance_uid"] == make.uid(1, 1, 2)
        assert failure["status"] == 0xA700
        assert err == ""


def test_store_of_nothing_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert cli.run(["store", "127.0.0.1", "1", str(tmp_path / "empty")]) == 1
    assert cli.run(["store", "127.0.0.1", "1", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_what_is_wrong_with_the_peer_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], free_port: int
) -> None:
    for n in range(1, 9):
        make.file(tmp_path, make.instance(n))
    assert cli.run(["store", "127.0.0.1", str(free_port), str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "0 stored, 8 failed" in out
    assert err.count("refused") == 1


def test_ctrl_c_releases_and_says_how_far_it_came(tmp_path: Path) -> None:
    for n in range(1, 2001):
        make.file(tmp_path, make.instance(n))
    begun = threading.Event()
    last: list[int] = []

    def script(caller: Caller) -> None:
        caller.accept()
        while (event := caller.event()) is not None:
            last.append(event.kind)
            if event.kind == pdu.MESSAGE:
                if len(last) == 20:
                    begun.set()
                threading.Event().wait(0.005)
                caller.answer(event)
            elif event.kind == pdu.RELEASE_RQ:
                caller.send(associate.RELEASE_RP)

    with scripted(script) as peer:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pacs_core",
                "store",
                "127.0.0.1",
                str(peer.port),
                str(tmp_path),
                "--json",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(cli.__file__).parents[2],
        )
        assert begun.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    told = json.loads(out)
    assert told["interrupted"]
    assert 0 < told["stored"] < 2000
    assert "Traceback" not in err
    assert last[-1] == pdu.RELEASE_RQ


def test_peers_test(capsys: pytest.CaptureFixture[str], free_port: int) -> None:
    with scripted(Caller.serve) as peer:
        assert cli.run(["peers", "add", "GOOD", "127.0.0.1", str(peer.port)]) == 0
        assert cli.run(["peers", "add", "CALLER"]) == 0
        capsys.readouterr()
        assert cli.run(["peers", "test", "--json"]) == 0
        [told] = json.loads(capsys.readouterr().out)
        assert told["aet"] == "GOOD"
        assert told["milliseconds"] > 0
        request = peer.callers[0].request
        assert (request.called_ae_title, request.calling_ae_title) == ("GOOD", "PACSCORE")
        assert cli.run(["peers", "add", "BAD", "127.0.0.1", str(free_port)]) == 0
        assert cli.run(["peers", "test"]) == 1
        out = capsys.readouterr().out
        assert "answers in" in out
        assert "refused" in out
        assert cli.run(["peers", "test", "CALLER"]) == 1
        assert "no host" in capsys.readouterr().out
        assert cli.run(["peers", "test", "NOBODY"]) == 1
        assert "no peer NOBODY" in capsys.readouterr().err
