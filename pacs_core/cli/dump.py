"""`pacs-core dump`: show what is in files."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from pacs_core.cli.files import bar_of, complain, each, files_argument, is_other, jobs_option, named, read

if TYPE_CHECKING:
    from pacs_core.dicom.media import Named
    from pacs_core.dicom.selectors import Selector

_NARROWEST = 80


@dataclass(frozen=True, slots=True)
class _View:
    """One file, and what of it is shown how."""

    file: Named
    width: int
    depth: int | None
    only: tuple[Selector, ...]
    meta: bool
    findings: bool


@click.command(
    epilog="""\b
Examples:
  pacs-core dump ct.dcm | less
  pacs-core dump ct.dcm --only PatientName --only RequestAttributesSequence.0.ScheduledProcedureStepID
  pacs-core dump 'archive/**/*.dcm' --only '**.CodeMeaning' --no-meta
  pacs-core dump folder --findings
  pacs-core dump - < ct.dcm"""
)
@files_argument
@click.option(
    "--width", type=click.IntRange(_NARROWEST), metavar="N", help="Of a line; default: the terminal's."
)
@click.option("--depth", type=click.IntRange(0), metavar="N", help="How many sequences deep; default: all.")
@click.option(
    "--only",
    multiple=True,
    metavar="KEY",
    help="Only these: keyword, tag, path (A.0.B), **.KEY, 60xx, private.",
)
@click.option("--no-meta", is_flag=True, help="Without file meta information.")
@click.option("--findings", is_flag=True, help="Only what is odd about the files; nothing of the others.")
@jobs_option
def command(
    files: tuple[str, ...],
    width: int | None,
    depth: int | None,
    only: tuple[str, ...],
    no_meta: bool,
    findings: bool,
    jobs: int | None,
) -> int:
    """Show the elements of DICOM files, one a line: tag, VR, value, length, number of values, keyword.

    FILES are files, folders (walked; what is no DICOM is skipped there), patterns or - for standard input.
    What is odd about a file is told at its end. Exit code 1 when some can't be read.
    """
    wanted = tuple(_selector(text) for text in only)
    width = width or max(shutil.get_terminal_size((120, 24)).columns, _NARROWEST)
    items = [_View(file, width, depth, wanted, not no_meta, findings) for file in named(files)]
    failed = False
    with bar_of("dump", items, quiet=sys.stdout.isatty()) as bar:
        for done in each(_shown, items, jobs, ordered=True):
            bar.advance()
            if done.error is not None:
                failed = True
                complain(bar, done.item.file.path, done.error)
            elif done.value:
                click.echo(f"# {done.item.file.path}\n{done.value}" if len(items) > 1 else done.value)
    return 1 if failed or not items else 0


def _selector(text: str) -> Selector:
    from pacs_core.dicom.selectors import parse

    try:
        return parse(text)
    except KeyError as exc:
        raise click.UsageError(f"--only {text}: {exc.args[0]}") from None


def _shown(view: _View) -> str:
    """The text of one file; '' if it is none that was asked for."""
    from pacs_core.dicom import dump

    if is_other(view.file):
        return ""
    dataset = read(view.file.path)
    if view.findings:
        lines = dump.findings(dataset)
    elif view.only:
        lines = dump.selected(dataset, view.only, view.width, view.depth, meta=view.meta)
    else:
        lines = dump.lines(dataset, view.width, view.depth, meta=view.meta)
    return "\n".join(lines)
