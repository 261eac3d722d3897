"""`pacs-core mpps`: tell a peer what a modality does, and show what modalities told of an archive."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import click

from pacs_core.cli.asking import aec_option, host_argument, port_argument
from pacs_core.cli.calling import Tls, client_for, tls_options
from pacs_core.cli.opening import open_archive
from pacs_core.cli.options import Invocation, common
from pacs_core.cli.tables import cell, table
from pacs_core.errors import InvalidValueError, UnparsableError

if TYPE_CHECKING:
    from typing import TextIO

    from pacs_core.client.mpps import PerformedStep
    from pacs_core.dicom.dataset import Dataset
    from pacs_core.workflow.mpps import Step

_STATUSES = ("IN PROGRESS", "COMPLETED", "DISCONTINUED")
_TITLES = ("SOP Instance UID", "Status", "Began", "Station", "Modality", "Patient ID", "Study", "Series")
_CODE_PARTS = 3

_uid_argument = click.argument("uid")
_paths_argument = click.argument("paths", nargs=-1, type=click.Path(), metavar="[PATH…]")


@click.group
def command() -> None:
    """Performed procedure steps: start, complete, discontinue at a peer; list those of an archive."""


@command.command("start")
@host_argument
@port_argument
@click.argument("words", nargs=-1, metavar="[KEY=VALUE…]")
@click.option(
    "--item",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Worklist items in the DICOM JSON Model: an object, an array, an object a line; -: standard input.",
)
@click.option("--uid", default="", metavar="UID", help="SOP Instance UID of the step; default: a new one.")
@aec_option
@tls_options
@common(aet="server.aet")
def start(
    call: Invocation,
    host: str,
    port: int,
    words: tuple[str, ...],
    item: TextIO | None,
    uid: str,
    aec: str,
    tls: Tls,
) -> None:
    """Tell the peer at HOST PORT that a step began; prints its SOP Instance UID.

    KEY=VALUE says more than the worklist item, or something else: PerformedStationName=CT-ROOM-2. Without an
    item at least Modality is needed; the study is a new one unless StudyInstanceUID says which.

    \b
    pacs-core worklist ris.example 104 --station CT1 --date today --limit 1 --json > item.json
    pacs-core mpps start ris.example 104 --item item.json
    """
    items = [] if item is None else _items(item.read())
    attributes = dict(_assignment(word) for word in words)
    client = client_for(call, host, port, aec, tls)
    try:
        step = client.mpps(items, attributes, uid=uid)
    except KeyError as exc:
        raise click.UsageError(str(exc.args[0])) from None
    step.start()
    value = {"sop_instance_uid": step.uid, "study_instance_uids": step.study_uids, "status": step.status}
    call.show(value, step.uid)


@command.command("complete")
@host_argument
@port_argument
@_uid_argument
@_paths_argument
@aec_option
@tls_options
@common(aet="server.aet")
def complete(
    call: Invocation, host: str, port: int, uid: str, paths: tuple[str, ...], aec: str, tls: Tls
) -> None:
    """Tell the peer at HOST PORT that the step UID is complete, with the series of the DICOM files PATHS.

    PATHS are files, folders (walked; what is no DICOM object is skipped there) or patterns: all that was
    acquired in the step. Without any it has one series, without instances.
    """
    step = _known(call, host, port, uid, paths, aec, tls)
    step.complete()
    _say(call, step)


@command.command("discontinue")
@host_argument
@port_argument
@_uid_argument
@_paths_argument
@click.option(
    "--reason",
    metavar="CODE",
    help="Of CID 9301, as 110505 (patient refused); or CODE:SCHEME:MEANING.",
)
@aec_option
@tls_options
@common(aet="server.aet")
def discontinue(
    call: Invocation,
    host: str,
    port: int,
    uid: str,
    paths: tuple[str, ...],
    reason: str | None,
    aec: str,
    tls: Tls,
) -> None:
    """Tell the peer at HOST PORT that the step UID is broken off, with the series of PATHS, if any."""
    from pacs_core.client.mpps_reports import reason_item

    parts = () if reason is None else tuple(reason.split(":", _CODE_PARTS - 1))
    code = (parts[0], parts[1], parts[2]) if len(parts) == _CODE_PARTS else reason
    if code is not None:
        try:
            reason_item(code)
        except InvalidValueError as exc:
            raise click.UsageError(f"--reason {reason}: {exc.args[0]}") from None
    step = _known(call, host, port, uid, paths, aec, tls)
    step.discontinue(code)
    _say(call, step)


@command.command("list")
@click.option("--study", metavar="UID", help="Those that belong to a study.")
@click.option("--status", type=click.Choice(_STATUSES, case_sensitive=False), help="Those of a status.")
@common()
def list_(call: Invocation, study: str | None, status: str | None) -> None:
    """The steps that an archive was told of; with --json, an object a line in the DICOM JSON Model."""
    with open_archive(call, create=False) as archive:
        found = archive.performed.list(study=study, status=status)
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        lines = map(_json, found) if call.json else table(_TITLES, map(_row, found), width)
        for line in lines:
            click.echo(line)


def _items(text: str) -> list[Dataset]:
    """The worklist items of a file; UnparsableError if it has none, or something else."""
    from pacs_core.dicom.dataset import Dataset

    try:
        whole = json.loads(text)
        objects = whole if isinstance(whole, list) else [whole]
    except ValueError:
        objects = [line for line in text.splitlines() if line.strip()]
    items = [Dataset.from_json(each) for each in objects]
    if not items:
        raise UnparsableError("--item: no worklist item")
    return items


def _assignment(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise click.UsageError(f"{word}: expected KEY=VALUE")
    return key, value


def _known(
    call: Invocation, host: str, port: int, uid: str, paths: tuple[str, ...], aec: str, tls: Tls
) -> PerformedStep:
    """A step that has begun, with the series of files."""
    from pacs_core.client.mpps import PerformedStep

    step = PerformedStep(client_for(call, host, port, aec, tls).remote, uid=uid)
    step.add(paths)
    return step


def _say(call: Invocation, step: PerformedStep) -> None:
    call.show({"sop_instance_uid": step.uid, "status": step.status}, f"{step.uid} {step.status}")


def _row(step: Step) -> list[str]:
    said = step.dataset
    studies = dict.fromkeys(item.StudyInstanceUID for item in said.ScheduledStepAttributesSequence)
    began = f"{cell(said.PerformedProcedureStepStartDate)} {cell(said.PerformedProcedureStepStartTime)}"
    values = (
        *(step.uid, step.status.value, began, said.PerformedStationAETitle, said.Modality, said.PatientID),
        *("\\".join(studies), str(len(said.PerformedSeriesSequence))),
    )
    return [cell(value) for value in values]


def _json(step: Step) -> str:
    said = step.dataset
    said.SOPInstanceUID = step.uid
    return said.to_json()
