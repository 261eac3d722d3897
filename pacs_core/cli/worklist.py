"""`pacs-core worklist`: ask a peer for its worklist; keep one in an archive."""

from __future__ import annotations

import datetime
import re
from contextlib import closing, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pacs_core.cli.asking import (
    aec_option,
    format_option,
    host_argument,
    keys_of,
    limit_option,
    port_argument,
)
from pacs_core.cli.calling import Tls, client_for, tls_options
from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.progress import Progress
from pacs_core.cli.tables import lines
from pacs_core.errors import IdentifierError, InvalidValueError, MissingValueError, NotFoundError, PacsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pacs_core.dicom.dataset import Dataset
    from pacs_core.workflow import Worklist
    from pacs_core.workflow.scheduling import Entry

R = TypeVar("R")

_STATUS = "ScheduledProcedureStepStatus"
_ISO_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_AT_ONCE = 500  # steps that are kept in one transaction

_COLUMNS = (
    *("PatientName", "PatientID", "AccessionNumber", "Modality", "ScheduledStationAETitle"),
    *("ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"),
    *("ScheduledProcedureStepDescription", _STATUS),
)
_NAMED = ("StudyInstanceUID", "ScheduledProcedureStepID")

_KEYS_HELP = """\b
KEY is a keyword, a tag (00100010) or a path (RequestedProcedureCodeSequence.0.CodeValue); attributes of the
step are written without the path into its sequence.
  Modality                      to be returned
  'PatientName=Doe*'            wildcards, in names and other text
  ScheduledProcedureStepStartDate=20260101-20260131   a range, open at either end
Without keys that are to be returned: a useful choice of them."""


class _Group(click.Group):
    """Subcommands, and without the name of one: the query of a peer."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["query", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "HOST PORT [KEY[=VALUE]]… | COMMAND [ARGS]…")


@click.group(cls=_Group)
def command() -> None:
    """Ask a peer for its worklist, or keep one: what is scheduled for whom, where and when.

    \b
    pacs-core worklist HOST PORT   asks a peer, as `pacs-core worklist query`; its --help has the options
    The other commands work on an archive of ours, also while it is served.
    """


def _selecting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name the usual keys."""
    for option in (
        limit_option,
        format_option,
        click.option("--modality", metavar="CS", help="Modality, such as CT."),
        click.option("--station", metavar="AET", help="Scheduled Station AE Title."),
        click.option(
            "--date", metavar="DATE", help="Start: today, 20260105, 2026-01-05, or a range: 20260105-."
        ),
    ):
        function = option(function)
    return function


@command.command("query", epilog=_KEYS_HELP)
@host_argument
@port_argument
@click.argument("words", nargs=-1, metavar="[KEY[=VALUE]]…")
@aec_option
@_selecting
@tls_options
@common(aet="server.aet")
def query(
    call: Invocation,
    host: str,
    port: int,
    words: tuple[str, ...],
    aec: str,
    tls: Tls,
    date: str | None,
    station: str | None,
    modality: str | None,
    form: str | None,
    limit: int | None,
) -> int:
    """C-FIND in Modality Worklist: what is scheduled, a line for each step; --json: an object a line."""
    keys = _asked(words, date, station, modality)
    found = _or_usage(lambda: client_for(call, host, port, aec, tls).worklist(keys))
    with closing(found):
        _tell(call, islice(found, limit), keys, form)
    return 0


@command.command("list", epilog=_KEYS_HELP)
@click.argument("words", nargs=-1, metavar="[KEY[=VALUE]]…")
@_selecting
@click.option("--all", "finished", is_flag=True, help="Also steps that are completed or discontinued.")
@common()
def list_steps(
    call: Invocation,
    words: tuple[str, ...],
    date: str | None,
    station: str | None,
    modality: str | None,
    form: str | None,
    limit: int | None,
    finished: bool,
) -> int:
    """List the steps that are kept in the archive; as JSON, all that is known of them."""
    keys = _asked(words, date, station, modality)
    asked = {**keys, _STATUS: keys.get(_STATUS) or "*"} if finished else keys
    with open_archive(call, create=False) as archive:
        found = _or_usage(lambda: archive.worklist.search(asked))
        _tell(call, islice(found, limit), keys, form)
    return 0


@command.command("add")
@click.argument("words", nargs=-1, required=True, metavar="KEY=VALUE…")
@common()
def add(call: Invocation, words: tuple[str, ...]) -> None:
    """Schedule a step: KEY is a keyword, a tag or a path, attributes of the step without its sequence.

    It needs PatientName, PatientID, Modality, ScheduledStationAETitle, ScheduledProcedureStepStartDate and
    -StartTime, and ScheduledProcedureStepDescription. UIDs and IDs that are not given are made. What has the
    Study Instance UID and Scheduled Procedure Step ID of a step that is there takes its place.

    \b
    pacs-core worklist add PatientName=Doe^Jane PatientID=7 Modality=CT ScheduledStationAETitle=CT1 \\
        ScheduledProcedureStepStartDate=2026-01-05 ScheduledProcedureStepStartTime=09:30 \\
        ScheduledProcedureStepDescription=Head
    """
    from pacs_core.workflow.scheduling import plain

    dataset = _or_usage(lambda: plain(keys_of(words)))
    with open_archive(call, create=True) as archive:
        names = archive.worklist.schedule(dataset)
    call.show(
        [name._asdict() for name in names],
        "\n".join(f"{name.study_instance_uid}  {name.scheduled_procedure_step_id}" for name in names),
    )


@command.command("remove")
@click.argument("study", required=False, metavar="[STUDY_UID")
@click.argument("step", required=False, metavar="[STEP_ID]]")
@click.option("--before", metavar="DATE", help="All that start before that day, whatever became of them.")
@common()
def remove(call: Invocation, study: str | None, step: str | None, before: str | None) -> int:
    """Remove steps: one, all of a study, those of the past. Exit code 1 when what is named is not there."""
    if (study is None) == (before is None):
        raise click.UsageError("name a study, or give --before DATE")
    with open_archive(call, create=False) as archive:
        if before is not None:
            removed = archive.worklist.remove_before(_day(before))
        else:
            removed = _remove_named(archive.worklist, str(study), step)
    call.show({"removed": removed}, f"{removed:,} removed")
    return 0


@command.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@common()
def import_steps(call: Invocation, files: tuple[str, ...]) -> int:
    """Schedule what files say: JSON, CSV, or data sets (.wl) as DCMTK's wlmscpfs reads.

    FILE is a file, a pattern, or a folder, of which the files .json, .csv and .wl are taken. JSON is in the
    DICOM JSON Model or of keywords and values; CSV begins with a line of keywords. Exit code 1 when something
    could not be scheduled; the rest is.
    """
    from pacs_core.workflow.scheduling import entries_of

    scheduled, failures = 0, []
    with (
        open_archive(call, create=True) as archive,
        Progress("import", unit="step", quiet=call.json) as bar,
    ):
        entries = (entry for path in _paths(files) for entry in entries_of(path))
        while batch := list(islice(entries, _AT_ONCE)):
            for where, names, error in _schedule(archive.worklist, batch):
                scheduled += names
                bar.advance(names)
                if error is not None:
                    failures.append({"where": where, "error": str(error)})
                    if not call.json:
                        bar.note(f"{where}: {error}")
    call.show(
        {"scheduled": scheduled, "failures": failures}, f"{scheduled:,} scheduled, {len(failures):,} failed"
    )
    return 1 if failures else 0


def _schedule(worklist: Worklist, batch: Sequence[Entry]) -> Iterator[tuple[str, int, PacsError | None]]:
    """How many steps each entry of a batch scheduled, or why none: all at once, if none of them is wrong."""
    readable = [entry for entry in batch if entry.dataset is not None]
    yield from ((entry.where, 0, entry.error) for entry in batch if entry.dataset is None)
    try:
        names = worklist.schedule_all(entry.dataset for entry in readable if entry.dataset is not None)
    except (InvalidValueError, MissingValueError):
        yield from (_scheduled(worklist, entry) for entry in readable)
    else:
        yield "", len(names), None


def _scheduled(worklist: Worklist, entry: Entry) -> tuple[str, int, PacsError | None]:
    try:
        return entry.where, len(worklist.schedule(entry.dataset)), None
    except (InvalidValueError, MissingValueError) as exc:
        return entry.where, 0, exc


def _paths(files: Sequence[str]) -> Iterator[Path]:
    from pacs_core.dicom.media import files_of
    from pacs_core.workflow.scheduling import SUFFIXES

    return (one.path for one in files_of(files) if not one.found or one.path.suffix.lower() in SUFFIXES)


def _remove_named(worklist: Worklist, study: str, step: str | None) -> int:
    if step is not None:
        worklist.remove((study, step))
        return 1
    from pacs_core.workflow import StepId

    names = [StepId.of(one) for one in worklist.search({"StudyInstanceUID": study, _STATUS: "*"})]
    if not names:
        raise NotFoundError("no scheduled procedure step of that study", uid=study)
    for name in names:
        worklist.remove(name)
    return len(names)


def _asked(
    words: Sequence[str], date: str | None, station: str | None, modality: str | None
) -> dict[str, object]:
    """The keys of arguments and options, those that are to be returned among them."""
    keys = keys_of(words)
    options = {
        "ScheduledProcedureStepStartDate": None if date is None else _days(date),
        "ScheduledStationAETitle": station,
        "Modality": modality,
    }
    keys |= {key: value for key, value in options.items() if value is not None}
    if all(keys.values()):
        keys = {key: keys.get(key) for key in (*_COLUMNS, *_NAMED)} | keys
    return keys


def _days(text: str) -> str:
    """A date or a range of dates as DICOM writes it; what is neither is wrong usage."""
    written = _written(text)
    ends = [end for end in written.split("-", 1) if end]
    for end in ends or [text]:
        _day(end)
    return written


def _written(text: str) -> str:
    if text.lower() == "today":
        return f"{datetime.date.today():%Y%m%d}"
    return _ISO_DATE.sub(r"\1\2\3", text)


def _day(text: str) -> datetime.date:
    written = _written(text)
    with suppress(ValueError):
        day = datetime.date.fromisoformat(written)
        if f"{day:%Y%m%d}" == written:  # a week is none
            return day
    raise click.UsageError(f"{text!r} is no date: today, 20260105 or 2026-01-05")


def _tell(call: Invocation, found: Iterator[Dataset], keys: dict[str, object], form: str | None) -> None:
    from pacs_core.dicom.worklist import path_of

    columns = {key: path_of(key) for key in keys}
    for line in lines(found, columns, "json" if call.json else form or "table"):
        click.echo(line)


def _or_usage(make: Callable[[], R]) -> R:
    """What a function makes of arguments; what it can't is wrong usage."""
    try:
        return make()
    except KeyError as exc:
        raise click.UsageError(str(exc.args[0])) from None
    except (IdentifierError, InvalidValueError) as exc:
        raise click.UsageError(str(exc)) from None
