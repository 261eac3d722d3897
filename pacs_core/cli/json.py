"""`pacs-core json`: files in the DICOM JSON Model, and back."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pacs_core.cli.files import (
    STDIN,
    bar_of,
    complain,
    each,
    files_argument,
    is_other,
    jobs_option,
    named,
    read,
)

if TYPE_CHECKING:
    from pacs_core.dicom.dataset import Dataset
    from pacs_core.dicom.media import Named

_BULK_OVER = 1024
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|\{\}|\[\]|[][{}:,]|[^][{}:,"\s]+')
_DEEPER = {"{": 1, "[": 1, "}": -1, "]": -1}


@dataclass(frozen=True, slots=True)
class _Asked:
    """One file, and how it is to be written."""

    file: Named
    bulk: str
    pretty: bool


@click.command(
    epilog="""\b
Examples:
  pacs-core json ct.dcm --pretty
  pacs-core json folder --bulk omit > folder.jsonl
  pacs-core json ct.dcm --bulk https://pacs.example/bulk/
  pacs-core json --reverse ct.json -o ct.dcm"""
)
@files_argument
@click.option("--array", is_flag=True, help="One array of all, as DICOMweb has it; default: a line each.")
@click.option("--pretty", is_flag=True, help="Indented, for people.")
@click.option(
    "--bulk",
    default="inline",
    show_default=True,
    metavar="inline|omit|URI",
    help=f"Binary values of more than {_BULK_OVER:,} bytes: in base64, left out, or as BulkDataURI: "
    "URI, SOP Instance UID and path, with / between them.",
)
@click.option("--reverse", is_flag=True, help="Make a DICOM file of one JSON object.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="OUT", help="With --reverse: the file."
)
@jobs_option
def command(
    files: tuple[str, ...],
    array: bool,
    pretty: bool,
    bulk: str,
    reverse: bool,
    output: Path | None,
    jobs: int | None,
) -> int:
    """Write DICOM files in the DICOM JSON Model (PS3.18 Annex F); file meta information is no part of it.

    FILES are files, folders (walked; what is no DICOM is skipped there), patterns or - for standard input.
    One gives an object, several an object a line. Exit code 1 when some can't be read.
    """
    if reverse != (output is not None) or (reverse and len(files) > 1):
        raise click.UsageError("--reverse takes one FILE and -o OUT, and nothing else takes -o")
    if output is not None:
        return _reverse(Path(files[0]), output)
    return _forward([_Asked(file, bulk, pretty) for file in named(files)], array, jobs)


def _forward(items: list[_Asked], array: bool, jobs: int | None) -> int:
    failed = False
    between = "[" if array else ""
    with bar_of("json", items) as bar:
        for done in each(_json, items, jobs, ordered=True):
            bar.advance()
            if done.error is not None:
                failed = True
                complain(bar, done.item.file.path, done.error)
            elif done.value:
                click.echo(between + done.value, nl=not array)
                between = ",\n" if array else ""
    if array:
        click.echo("]" if between != "[" else "[]")
    return 1 if failed or not items else 0


def _json(asked: _Asked) -> str:
    """One file as JSON; '' if it is none that was asked for."""
    if is_other(asked.file):
        return ""
    dataset = read(asked.file.path)
    if asked.bulk == "inline":
        text = dataset.to_json()
    elif asked.bulk == "omit":
        text = _without_bulk(dataset).to_json()
    else:
        prefix = f"{asked.bulk.rstrip('/')}/{dataset.get('SOPInstanceUID') or ''}"
        text = dataset.to_json(lambda element: f"{prefix}/{element.path}", bulk_over=_BULK_OVER)
    return _indented(text) if asked.pretty else text


def _indented(text: str) -> str:
    """JSON on many lines. Not by way of Python's numbers: the digits stay."""
    depth, out = 0, []
    for token in _TOKEN.findall(text):
        depth += _DEEPER.get(token, 0)
        line = f"\n{depth * '  '}"
        if token in ("}", "]"):
            out.append(line + token)
        elif token in ("{", "[", ","):
            out.append(token + line)
        else:
            out.append(": " if token == ":" else token)
    return "".join(out)


def _without_bulk(dataset: Dataset) -> Dataset:
    from pacs_core.dicom.packing import BULK

    for element in dataset.walk():
        if element.vr in BULK and (element.length or 0) > _BULK_OVER:
            del element.dataset[element.tag]
    return dataset


def _reverse(source: Path, target: Path) -> int:
    from pacs_core.dicom.dataset import Dataset

    text = sys.stdin.buffer.read() if str(source) == STDIN else source.read_bytes()
    Dataset.from_json(text).save(target)
    return 0
