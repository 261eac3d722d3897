"""Rows for people and for spreadsheets: a table as wide as what is in it, or as the terminal; CSV."""

from __future__ import annotations

import csv
import io
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pacs_core.dicom.dataset import Dataset

_LOOKED_AT = 200  # rows that decide how wide the columns are
_NARROWEST = 6
_GAP = "  "
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), ".")


def lines(found: Iterator[Dataset], columns: Mapping[str, str], form: str) -> Iterator[str]:
    """Data sets as lines of a table or of CSV, of the keys that the titles of `columns` stand for; or whole,
    as JSON, one a line."""
    if form == "json":
        return (one.to_json() for one in found)
    titles = list(columns)
    rows = ([cell(one.get(key)) for key in columns.values()] for one in found)
    if form == "csv":
        return csv_lines(titles, rows)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return table(titles, rows, width)


def cell(value: Any) -> str:
    """A value of a data set as DICOM writes it, in one line; of a sequence, how many items it has."""
    from pacs_core.dicom.dataset import Sequence as Items

    if value is None:
        return ""
    if isinstance(value, Items):
        return f"{len(value)} item{'' if len(value) == 1 else 's'}"
    if isinstance(value, tuple):
        return "\\".join(map(cell, value))
    if isinstance(value, bytes | memoryview):
        return f"{len(value)} bytes"
    return str(getattr(value, "text", value)).translate(_CONTROL)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], width: int | None) -> Iterator[str]:
    """The lines of a table, none wider than `width` if it is given; values are cut for it.

    The first rows decide; of those that come later, what is wider than its column is cut, or, without
    `width`, moves the rest of its line.
    """
    rows = iter(rows)
    first = list(islice(rows, _LOOKED_AT))
    widths = [max(map(columns_of, column)) for column in zip(titles, *first, strict=True)]
    if width is not None:
        _shrink(widths, width - len(_GAP) * (len(widths) - 1))
    yield _line(titles, widths, cut=width is not None)
    yield _GAP.join("-" * each for each in widths)
    for row in chain(first, rows):
        yield _line(row, widths, cut=width is not None)


def _shrink(widths: list[int], room: int) -> None:
    """Take what is too much from the widest columns."""
    while sum(widths) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1


def _line(row: Sequence[str], widths: Sequence[int], *, cut: bool) -> str:
    cells = (_cut(text, width) if cut else text for text, width in zip(row, widths, strict=True))
    padded = (text + " " * (width - columns_of(text)) for text, width in zip(cells, widths, strict=True))
    return _GAP.join(padded).rstrip()


def _cut(text: str, width: int) -> str:
    if columns_of(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += columns_of(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def csv_lines(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a CSV file (RFC 4180), titles first; a value may have several lines."""
    for row in chain([titles], rows):
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow(row)
        yield out.getvalue().removesuffix("\n")
