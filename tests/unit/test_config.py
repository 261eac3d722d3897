"""Settings: who wins, what is refused and how it is told, and that what is printed loads again."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_core.config import Flag, Settings, load
from pacs_core.config.load import read_toml
from pacs_core.config.render import effective, template, toml_value
from pacs_core.config.schema import KEYS, SECTIONS
from pacs_core.errors import ConfigError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text, "utf-8")
    return path


def problems(path: Path | None, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ)
    return str(caught.value).splitlines()


def test_defaults() -> None:
    loaded = load(environ={})
    assert loaded.settings == Settings()
    assert loaded.settings.server.host == "127.0.0.1"
    assert loaded.settings.server.port == 11112
    assert loaded.settings.server.aet == "PACSCORE"
    assert loaded.settings.archive.path == "archive"
    assert set(loaded.origins.values()) == {"default"}


def test_later_sources_count_over_earlier_ones(tmp_path: Path) -> None:
    path = written(tmp_path, '[server]\nport = 1\naet = "FILE"\nhost = "192.0.2.1"\n')
    environ = {
        "PACS_CORE_SERVER__PORT": "2",
        "PACS_CORE_SERVER__AET": "ENV",
        "PACS_CORE_DATA": "not a setting",
    }
    loaded = load(
        path, environ=environ, flags=[Flag("server.port", "3", "--set"), Flag("server.port", "4", "--port")]
    )
    assert (loaded.settings.server.port, loaded.settings.server.aet) == (4, "ENV")
    assert loaded.settings.server.host == "192.0.2.1"
    assert loaded.origins["server.port"] == "--port"
    assert loaded.origins["server.aet"] == "PACS_CORE_SERVER__AET"
    assert loaded.origins["server.host"] == f"{path}, line 4"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("log.patient_data", "true", True),
        ("log.patient_data", "0", False),
        ("wire.network_timeout", "1.5", 1.5),
        ("wire.network_timeout", "2", 2.0),
        ("wire.sop_classes", "1.2.3, 1.2.4,", ("1.2.3", "1.2.4")),
        ("wire.sop_classes", "", ()),
        ("archive.small", "1 MiB", 1 << 20),
        ("archive.small", "64kib", 64 << 10),
        ("archive.duplicates", "replace", "replace"),
    ],
)
def test_words_become_values(key: str, text: str, value: object) -> None:
    section, _, name = key.partition(".")
    settings = load(environ={}, flags=[Flag(key, text, "--set")]).settings
    found = getattr(getattr(settings, section), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[server]\n\nport = "a"', 'server.port: expected an integer from 0 to 65535, got "a" ({}, line 3)'),
        (
            "[server]\nport = 70000",
            "server.port: expected an integer from 0 to 65535, got 70000 ({}, line 2)",
        ),
        ("[server]\nport = true", "server.port: expected an integer from 0 to 65535, got true ({}, line 2)"),
        ("[log]\npatient_data = 1", "log.patient_data: expected true or false, got 1 ({}, line 2)"),
        (
            '[archive]\nduplicates = "x"',
            'archive.duplicates: expected one of "keep", "replace", "reject", got "x" ({}, line 2)',
        ),
        (
            "[wire]\nnetwork_timeout = 0",
            "wire.network_timeout: expected a number above 0, up to 86400 (seconds), got 0 ({}, line 2)",
        ),
        (
            '[server]\naet = "SEVENTEEN_LETTERS"',
            "server.aet: expected 1 to 16 printable ASCII characters without a backslash, "
            'got "SEVENTEEN_LETTERS" ({}, line 2)',
        ),
        ("[server]\nprot = 1", "server.prot: unknown key, did you mean server.port? ({}, line 2)"),
        ("[log]\nport = 1", "log.port: unknown key, did you mean log.format? ({}, line 2)"),
        ("[srever]\nport = 1", "srever: unknown section, did you mean server? ({}, line 1)"),
        ("port = 1", "port: unknown section ({}, line 1)"),
        ("server = 1", "server: expected a table ({}, line 1)"),
        ("peer = 1", "peer: expected [[peer]] tables ({}, line 1)"),
        ('[[peer]]\nhost = "h"', "peer: aet is missing ({}, line 1)"),
        (
            '[[peer]]\naet="A"\n\n[[peer]]\naet="B"\nmay=["stroe"]',
            'peer.may: expected a list of one of "echo", "store", "find", "get", "move", "worklist", '
            '"mpps", "commit", got [\'stroe\'] ({}, line 6)',
        ),
        (
            '[[peer]]\naet="A"\nfrom=["10.0.0.300"]',
            "peer.from: expected addresses or networks, got ['10.0.0.300'] ({}, line 3)",
        ),
        (
            '[[peer]]\naet="A"\nprot=1',
            "peer.prot: unknown key, did you mean port? ({}, line 3)",
        ),
        (
            '[tls]\ncertificate = "c.pem"',
            "tls.certificate: needs tls.key beside it ({}, line 2)",
        ),
        ("[tls]\nonly = true", "tls.only: needs tls.certificate and tls.key ({}, line 2)"),
        (
            "[wire]\nmaximum_pdu_length = 7",
            "wire.maximum_pdu_length: must be 0 or at least 4096 bytes ({}, line 2)",
        ),
        (
            '[wire]\nmemory_budget = "1 MiB"',
            "wire.memory_budget: must not be less than wire.spool_at, 4194304 bytes ({}, line 2)",
        ),
    ],
)
def test_errors_name_key_and_line(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, text)
    assert problems(path)[0] == expected.format(path)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "[server]\nport = -1\nprot = 3\n")
    told = problems(path, PACS_CORE_LOG__LEVEL="loud", PACS_CORE_LOG__LEVLE="info")
    assert [line.split(":")[0] for line in told] == ["server.port", "server.prot", "log.level", "log.levle"]
    assert told[2].endswith("(PACS_CORE_LOG__LEVEL)")


def test_tls_that_checks_callers_needs_something_to_check_by(tmp_path: Path) -> None:
    path = written(tmp_path, '[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n')
    assert "needs tls.ca" in problems(path)[0]
    assert load(path, environ={"PACS_CORE_TLS__CLIENT": "none"}).settings.tls.certificate


def test_a_file_that_is_missing_or_is_not_toml(tmp_path: Path) -> None:
    assert "can't be read: No such file" in problems(tmp_path / "none.toml")[0]
    assert "line 2" in problems(written(tmp_path, "[server]\nport = = 1\n"))[0]
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "can't be read" in problems(binary)[0]


def test_lines_of_every_way_to_write_a_key(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "# a comment [server]\n"
        'log = { level = "info", format = "json" }\n'
        'server.aet = """\nPORT = 3\n[wire]"""\n'
        "[wire]\n"
        "sop_classes = [  # and [archive]\n"
        '  "1.2",\n'
        "]\n"
        "network_timeout = 3\n"
        "[ archive ]\n"
        '"small" = 0\n',
    )
    document = read_toml(path)
    lines = {path: line for path, line in document.lines.items() if len(path) > 1}
    assert lines == {
        ("log", "level"): 2,
        ("log", "format"): 2,
        ("server", "aet"): 3,
        ("wire", "sop_classes"): 7,
        ("wire", "network_timeout"): 10,
        ("archive", "small"): 12,
    }


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path) -> None:
    path = written(tmp_path, '[archive]\npath = "data"\n[tls]\nca = "/etc/ca.pem"\n')
    settings = load(path, environ={}).settings
    assert settings.archive.path == str(tmp_path / "data")
    assert settings.tls.ca == "/etc/ca.pem"
    assert (
        load(path, environ={}, flags=[Flag("archive.path", "here", "--archive")]).settings.archive.path
        == "here"
    )


def test_what_is_printed_loads_to_the_same(tmp_path: Path) -> None:
    text = (
        '[server]\nport = 104\n[wire]\nsop_classes = ["1.2.3"]\n[log]\nformat = "json"\n'
        '[[peer]]\naet = "A \\"B"\nmay = ["echo"]\nfrom = ["10.0.0.0/8"]\n'
    )
    loaded = load(written(tmp_path, text), environ={})
    printed = effective(loaded)
    again = load(written(tmp_path, printed), environ={}).settings
    at_home = msgspec.structs.replace(loaded.settings.archive, path=str(tmp_path / "archive"))
    assert again == msgspec.structs.replace(loaded.settings, archive=at_home)
    assert "# default" in printed


def test_the_template_says_everything_and_changes_nothing(tmp_path: Path) -> None:
    text = template()
    assert load(written(tmp_path, text), environ={}).settings == Settings()
    live = "\n".join(
        line.removeprefix("#") if not line.startswith("# ") else "" for line in text.splitlines()
    )
    values = tomllib.loads(live)
    assert {f"{s}.{k}" for s in SECTIONS for k in values[s]} == set(KEYS)
    assert len(values["peer"]) == 1


def test_every_setting_is_described() -> None:
    for key in KEYS.values():
        assert key.description, key.name
        assert key.expected, key.name
        msgspec.convert(key.default, key.type)


@pytest.mark.parametrize(
    ("host", "called", "unknown"),
    [
        ("127.0.0.1", "any", "any"),
        ("::1", "any", "any"),
        ("localhost", "any", "any"),
        ("0.0.0.0", "own", "known"),
        ("::", "own", "known"),
        ("192.0.2.1", "own", "known"),
        ("pacs.example", "own", "known"),
    ],
)
def test_open_on_loopback_known_peers_only_elsewhere(host: str, called: str, unknown: str) -> None:
    settings = load(environ={"PACS_CORE_SERVER__HOST": host}).settings
    assert (settings.called_policy, settings.unknown_policy) == (called, unknown)
    forced = {
        "PACS_CORE_SERVER__HOST": host,
        "PACS_CORE_SERVER__CALLED_AET": "own",
        "PACS_CORE_SERVER__UNKNOWN_CALLERS": "any",
    }
    settings = load(environ=forced).settings
    assert (settings.called_policy, settings.unknown_policy) == ("own", "any")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_toml(text: str) -> None:
    assert tomllib.loads(f"x = {toml_value(text)}")["x"] == text
