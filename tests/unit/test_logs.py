"""Logs: one line an event, nothing of patients unless asked for, no control characters from the wire."""

import errno
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator

import pytest
import structlog

from pacs_core.config import LogSettings
from pacs_core.errors import NotFoundError
from pacs_core.logs import REDACTED, configure, get_logger

Logged = Callable[..., io.StringIO]


@pytest.fixture
def logged() -> Iterator[Logged]:
    """Sets logging up to write into what it returns; all is put back after the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    talkative = {name: logging.getLogger(name).level for name in ("pynetdicom", "pydicom", "py.warnings")}

    def start(**settings: object) -> io.StringIO:
        stream = io.StringIO()
        configure(LogSettings(**settings), stream)  # type: ignore[arg-type]
        return stream

    yield start
    root.handlers[:], root.level = before
    for name, level in talkative.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines(logged: Logged) -> None:
    stream = logged(format="json")
    with structlog.contextvars.bound_contextvars(association="a-1"):
        get_logger("dimse").info("stored", uid="1.2.3", size=12)
    get_logger("dimse").debug("not at this level")
    [line] = lines(stream)
    assert line.pop("timestamp")
    assert line == {
        "event": "stored",
        "level": "info",
        "part": "dimse",
        "association": "a-1",
        "uid": "1.2.3",
        "size": 12,
    }


def test_patients_stay_out_unless_asked_for(logged: Logged) -> None:
    stream = logged(format="json")
    get_logger("x").info("found", patient_name="Doe^Jane", patient_id="42", uid="1.2")
    [line] = lines(stream)
    assert (line["patient_name"], line["patient_id"], line["uid"]) == (REDACTED, REDACTED, "1.2")
    stream = logged(format="json", patient_data=True)
    get_logger("x").info("found", patient_name="Doe^Jane")
    assert lines(stream)[0]["patient_name"] == "Doe^Jane"


@pytest.mark.parametrize("style", ["console", "json"])
def test_control_characters_are_escaped(logged: Logged, style: str) -> None:
    stream = logged(format=style)
    get_logger("x").info("rejected\n", calling_aet="A\nERROR\x1b[2J\x9b\u202e\u2028", name="Grün")
    logging.getLogger("other").warning("from\r\nelsewhere %s", "\x1b[2J")
    text = stream.getvalue()
    assert len(text.splitlines()) == 2
    assert all(line.isprintable() for line in text.splitlines())
    assert "Grün" in text
    assert "\\x1b[2J" in text


@pytest.mark.parametrize("style", ["console", "json"])
def test_an_exception_is_one_line_without_what_it_quotes(logged: Logged, style: str) -> None:
    stream = logged(format=style)
    try:
        try:
            raise ValueError("bad name 'Doe^Jane'")
        except ValueError as exc:
            raise NotFoundError("nothing there", uid="1.2.3") from exc
    except NotFoundError:
        get_logger("x").exception("failed")
    try:
        raise KeyError("Doe^Jane")
    except KeyError:
        logging.getLogger("other").exception("failed too")
    text = stream.getvalue()
    assert len(text.splitlines()) == 2
    assert "nothing there" in text
    assert "ValueError" in text
    assert "KeyError" in text
    assert "test_an_exception_is_one_line" in text
    assert "Doe" not in text
    stream = logged(format=style, patient_data=True)
    try:
        raise KeyError("Doe^Jane")
    except KeyError:
        get_logger("x").exception("failed")
    assert "Doe^Jane" in stream.getvalue()


def test_libraries_that_print_data_sets_are_quiet(logged: Logged) -> None:
    stream = logged(format="json", level="debug")
    logging.getLogger("pynetdicom.events").info("(0010,0010) Doe^Jane")
    logging.getLogger("pydicom").warning("Doe^Jane")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("invalid value for PN: Doe^Jane", stacklevel=1)
    logging.getLogger("pynetdicom.acse").error("told")
    [line] = lines(stream)
    assert line["event"] == "told"
    assert line["part"] == "pynetdicom.acse"
    assert line["level"] == "error"


def test_setting_up_twice_does_not_log_twice(logged: Logged) -> None:
    logged(format="json")
    stream = logged(format="json")
    logging.getLogger("other").warning("once")
    get_logger("x").warning("once")
    assert len(lines(stream)) == 2


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [Full, closed])
@pytest.mark.usefixtures("logged")
def test_a_line_that_can_not_be_written_harms_nobody(make: Callable[[], io.StringIO]) -> None:
    configure(LogSettings(format="json"), make())
    get_logger("x").error("lost")
    logging.getLogger("other").error("lost too")
