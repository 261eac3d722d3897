"""Logging: structured, one line an event, on standard error; nothing that identifies a patient.

Values that came over the wire are untrusted: control characters in them are escaped, so that a
line of the log is a line we wrote. Names and identifiers of patients are left out unless
`log.patient_data` is on; so are the messages of other people's exceptions and warnings, which
like to quote values.

Bind what belongs together for the current thread or task with
``structlog.contextvars.bound_contextvars(association=…)``; every line inside carries it.
"""

import contextlib
import io
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from pacs_core.config import LogSettings
from pacs_core.errors import PacsError

REDACTED = "[redacted]"

PATIENT_KEYS = frozenset(
    {
        "patient",
        "patient_id",
        "patient_name",
        "patient_birth_date",
        "patient_birth_time",
        "patient_sex",
        "patient_address",
        "patient_comments",
        "other_patient_ids",
        "issuer_of_patient_id",
        "accession_number",
        "referring_physician_name",
        "identifier",
        "dataset",
    }
)
"""Keys whose values never reach the log unless `log.patient_data` is on."""

_EXTRA = ("association", "calling_ae_title", "called_ae_title", "address", "contexts")
"""What `extra` of a record of the standard library may add to its line; anything may be in the rest."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# At their lower levels these libraries print data sets and quote values.
_TALKATIVE = ("pynetdicom", "pydicom", "py.warnings")


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger; `name` says which part of the project speaks, such as ``dimse.association``."""
    logger: FilteringBoundLogger = structlog.get_logger(part=name)
    return logger


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set logging up for this process, the standard library's included; may be called again.

    Parameters
    ----------
    stream
        Where to write, by default standard error.
    """
    out = _Lossy(_standard_error() if stream is None else stream)
    level = _LEVELS[settings.level]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=0)
    )
    finish: list[Processor] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Exceptions(settings.patient_data),
        *([] if settings.patient_data else [redact]),
        escape,
        renderer,
    ]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write a line: lines of several processes do not mix.
        logger_factory=lambda *_: structlog.WriteLogger(cast("TextIO", out)),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(out, [structlog.contextvars.merge_contextvars, *finish])
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(level if settings.patient_data else logging.ERROR)


def redact(_: Any, __: str, event: EventDict) -> EventDict:
    """A processor: values of `PATIENT_KEYS` give way to a marker."""
    for key in event.keys() & PATIENT_KEYS:
        event[key] = REDACTED
    return event


def escape(_: Any, __: str, event: EventDict) -> EventDict:
    """A processor: control characters and such in texts become escapes."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = printable(value)
    return event


def printable(text: str) -> str:
    """Text on one line: every character that is not printable (C0, C1, bidi, …) escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class _Exceptions:
    """A processor: ``exc_info`` becomes ``raised`` (what) and ``where`` (the calls, last first)."""

    def __init__(self, patient_data: bool) -> None:
        self._patient_data = patient_data

    def __call__(self, _: Any, __: str, event: EventDict) -> EventDict:
        given = event.pop("exc_info", None)
        if given is True:
            given = sys.exc_info()
        exc = given[1] if isinstance(given, tuple) else given
        if isinstance(exc, BaseException):
            event["raised"] = self._chain(exc)
            event["where"] = _frames(exc)
        return event

    def _chain(self, exc: BaseException) -> str:
        said = type(exc).__name__
        # Our own messages hold no values of patients; those of other people may.
        if self._patient_data or isinstance(exc, PacsError):
            said += f": {exc}"
        elif isinstance(exc, OSError) and exc.strerror:
            said += f": {exc.strerror}"
        cause = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
        return f"{said}, from {self._chain(cause)}" if cause is not None else said


def _frames(exc: BaseException) -> str:
    found = traceback.extract_tb(exc.__traceback__)
    return " < ".join(f"{frame.name} {frame.filename}:{frame.lineno}" for frame in reversed(found))


class _Lossy:
    """A stream for lines that may be lost: a full disk or a closed pipe ends no association and no server."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, or do not."""
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
                self._stream.write(text)

    def flush(self) -> None:
        """Flush, or do not."""
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether somebody looks at it."""
        return self._stream is not None and self._stream.isatty()


class _Handler(logging.Handler):
    """Records of the standard library become lines as our own do, and say which part speaks."""

    def __init__(self, out: _Lossy, processors: Sequence[Processor]) -> None:
        super().__init__()
        self._out = out
        self._processors = processors

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        event: Any = {"event": record.getMessage(), "level": record.levelname.lower(), "part": record.name}
        event |= {key: value for key in _EXTRA if (value := record.__dict__.get(key)) is not None}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        for processor in self._processors:
            event = processor(None, record.levelname, event)
        self._out.write(f"{event}\n")


def _standard_error() -> TextIO | None:
    """Standard error; that of the process without its buffer, None where it was closed at the start."""
    stream = sys.__stderr__
    if stream is None or stream is not sys.stderr:
        return sys.stderr
    # The buffer would keep a line that can't be written, and the exit code would tell of it.
    raw = open(stream.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115  as long as the process
    return io.TextIOWrapper(raw, stream.encoding, stream.errors, write_through=True)
