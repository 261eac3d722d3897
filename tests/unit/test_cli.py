"""The command line's frame: options, output, errors and exit codes."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from pacs_core.cli import main as cli
from pacs_core.cli.progress import Progress
from pacs_core.errors import NotFoundError


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PACS_CORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    out = capsys.readouterr().out
    for name, about in cli.COMMANDS.items():
        assert name in out
        assert about in out


def test_every_command_has_its_file_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.COMMANDS:
        assert cli.run([name, "--help"]) == 0, name
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert set(cli.COMMANDS) <= files
    capsys.readouterr()


def test_help_imports_only_what_it_needs() -> None:
    code = (
        "import sys; from pacs_core.cli.main import run; run(['--help'])\n"
        "print(sorted({'msgspec', 'tomlkit', 'pydicom', 'pynetdicom', 'numpy', 'tqdm'} & set(sys.modules)))"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_config_prints_what_is_in_force(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text("[server]\nport = 1\n[pool]\nworkers = 3\n")
    monkeypatch.setenv("PACS_CORE_LOG__LEVEL", "error")
    words = ["config", "--config", "s.toml", "--port", "2", "--set", "server.aet=X", "--archive", "elsewhere"]
    assert cli.run(words) == 0
    out = capsys.readouterr().out
    values = tomllib.loads(out)
    assert values["server"]["port"] == 2
    assert values["server"]["aet"] == "X"
    assert values["log"]["level"] == "error"
    assert values["pool"]["workers"] == 3
    assert values["archive"]["path"] == "elsewhere"
    assert "# --port" in out
    assert "# s.toml, line 4" in out
    assert cli.run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["server"]["port"] == 2
    assert told["origins"]["server.aet"] == "--set server.aet"


def test_a_named_flag_counts_over_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "--port", "2", "--set", "server.port=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["server"]["port"] == 2


def test_config_default_and_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(["config", "--default"]) == 0
    (tmp_path / "t.toml").write_text(capsys.readouterr().out)
    assert cli.run(["config", "--check", "t.toml"]) == 0
    assert capsys.readouterr().out == "t.toml: fine\n"
    (tmp_path / "t.toml").write_text("[server]\nport = 'x'\nprot = 1\n")
    assert cli.run(["config", "--check", "t.toml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        'pacs-core: server.port: expected an integer from 0 to 65535, got "x" (t.toml, line 2)',
        "pacs-core: server.prot: unknown key, did you mean server.port? (t.toml, line 3)",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["config", "--nonsense"],
        ["config", "--set", "nonsense"],
        ["config", "--set", "server.nonsense=1"],
        ["config", "--port", "99999"],
        ["config", "--config", "missing.toml"],
        ["peers", "add"],
        ["peers", "add", "A", "h", "0"],
        ["peers", "add", "A", "--may", "fly"],
        ["peers", "add", "A", "--from", "nowhere"],
        ["peers", "add", "A", "--associations", "65"],
    ],
)
def test_usage_and_settings_that_are_wrong_exit_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == 2
    err = capsys.readouterr().err
    assert err
    assert "Traceback" not in err


def test_peers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    archive = ["--archive", str(tmp_path / "a")]
    assert cli.run(["peers", "list", *archive]) == 0
    assert capsys.readouterr().out == "no peers known\n"
    assert cli.run(["peers", "add", "CT1", "192.0.2.10", "104", "--may", "echo,store", *archive]) == 0
    assert cli.run(["peers", "add", "MR1", "--from", "10.0.0.0/8", "--from", "192.0.2.1", *archive]) == 0
    capsys.readouterr()
    assert cli.run(["peers", "list", "--json", *archive]) == 0
    listed = {peer["aet"]: peer for peer in json.loads(capsys.readouterr().out)}
    assert listed["CT1"]["may"] == ["echo", "store"]
    assert (listed["CT1"]["host"], listed["CT1"]["port"]) == ("192.0.2.10", 104)
    assert listed["MR1"]["from"] == ["10.0.0.0/8", "192.0.2.1"]
    assert listed["CT1"]["associations"] == 0
    assert cli.run(["peers", "add", "CT1", "--associations", "4", *archive]) == 0
    assert capsys.readouterr().out.endswith("may echo,store  from 192.0.2.10  associations 4\n")
    assert cli.run(["peers", "remove", "CT1", *archive]) == 0
    assert cli.run(["peers", "remove", "CT1", *archive]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"pacs-core: no peer CT1 in {tmp_path / 'a' / 'peers.toml'}\n"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command `fail` that raises what its argument says."""

    @click.command
    @click.argument("how")
    @click.option("-v", "verbose", count=True)
    def fail(how: str, verbose: int) -> int:  # noqa: ARG001
        if how == "interrupt":
            raise KeyboardInterrupt
        if how == "pacs":
            raise NotFoundError("nothing there", uid="1.2.3")
        return int(how)

    original = cli.group.get_command
    monkeypatch.setattr(
        type(cli.group), "get_command", lambda _, ctx, name: fail if name == "fail" else original(ctx, name)
    )


@pytest.mark.usefixtures("failing")
def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fail", "0"]) == 0
    assert cli.run(["fail", "1"]) == 1
    assert cli.run(["fail", "interrupt"]) == 130
    capsys.readouterr()
    assert cli.run(["fail", "pacs"]) == 1
    assert capsys.readouterr().err == "pacs-core: nothing there [UID '1.2.3']\n"
    assert cli.run(["fail", "pacs", "-vv"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error_worth_a_traceback() -> None:
    path = os.pathsep.join(filter(None, sys.path))
    code = "from pacs_core.cli.main import main; main(['config', '--default'])"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=write,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": path},
        check=False,
    )
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == b""


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("sending", total=3) as progress:
        progress.advance()
        progress.expect(5)
        progress.advance(2)
        progress.note("one failed")
    assert progress.done == 3
    assert capsys.readouterr().err == "one failed\n"
