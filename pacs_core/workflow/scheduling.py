"""What others write down of scheduled procedure steps, read: JSON, CSV, and files as wlmscpfs has them.

`.json`   an object, an array of them, or one a line: in the DICOM JSON Model, or keywords and values
`.csv`    a line of keywords, and a line for each step; separated by commas, semicolons or tabs
others    DICOM data sets, with or without file meta information (`.wl`)

Keywords are those that `workflow.step.dataset_of` takes. Dates and times may also be written as in ISO
8601: 2026-01-05, 09:30.
"""

from __future__ import annotations

import csv
import datetime
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from pacs_core.dicom import dictionary
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read
from pacs_core.errors import InvalidValueError, PacsError, UnparsableError, from_os_error
from pacs_core.workflow.step import dataset_of

SUFFIXES: Final = frozenset({".csv", ".json", ".wl"})
"""Of the files that are taken of a folder."""

_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_DELIMITERS: Final = ",;\t"


class Entry(NamedTuple):
    """One data set of a file, or why there is none."""

    where: str
    dataset: Dataset | None
    error: PacsError | None


def entries_of(path: Path) -> Iterator[Entry]:
    """What a file says, one after the other; what can't be read is an entry with its error."""
    kind = path.suffix.lower()
    parse = {".json": _of_json, ".csv": _of_csv}.get(kind)
    try:
        if parse is None:
            yield Entry(str(path), read(path), None)
            return
        parsed = list(parse(path.read_text("utf-8-sig")))
    except (UnicodeDecodeError, csv.Error) as exc:
        yield Entry(str(path), None, UnparsableError(f"not {kind[1:].upper()} in UTF-8: {exc}"))
    except PacsError as exc:
        yield Entry(str(path), None, exc)
    except OSError as exc:
        yield Entry(str(path), None, from_os_error(exc, "reading"))
    else:
        for where, make in parsed:
            yield _made(f"{path} {where}", make)


def plain(keys: Mapping[Any, object]) -> Dataset:
    """The data set of keywords and values. Raises as `workflow.step.dataset_of`."""
    return dataset_of(_dicom_forms(keys))


def _made(where: str, make: Callable[[], Dataset]) -> Entry:
    try:
        return Entry(where, make(), None)
    except KeyError as exc:
        return Entry(where, None, InvalidValueError(str(exc.args[0])))
    except PacsError as exc:
        return Entry(where, None, exc)
    except RecursionError:
        return Entry(where, None, UnparsableError("more in each other than any data set has"))


Parsed = tuple[str, Callable[[], Dataset]]


def _of_json(text: str) -> Iterator[Parsed]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as exc:
        try:
            parsed = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise UnparsableError(f"not JSON: {exc}") from None
    for number, one in enumerate(parsed if isinstance(parsed, list) else [parsed], 1):
        yield f"entry {number}", partial(_of_object, one)


def _of_object(parsed: Any) -> Dataset:
    if not isinstance(parsed, Mapping):
        raise UnparsableError("a data set is a JSON object")
    if all(_TAG.fullmatch(key) and isinstance(value, Mapping) for key, value in parsed.items()):
        return Dataset.from_json(parsed)
    return plain(parsed)


def _of_csv(text: str) -> Iterator[Parsed]:
    head = text.partition("\n")[0]
    lines = csv.reader(
        text.splitlines(keepends=True), delimiter=max(_DELIMITERS, key=head.count), strict=True
    )
    titles = [title.strip() for title in next(lines, [])]
    for cells in lines:
        if any(cells):
            yield f"line {lines.line_num}", partial(_of_cells, titles, cells)


def _of_cells(titles: list[str], cells: list[str]) -> Dataset:
    if len(cells) > len(titles):
        raise InvalidValueError(f"{len(cells)} values for {len(titles)} keywords")
    return plain({title: text for title, text in zip(titles, cells, strict=False) if text.strip()})


def _dicom_forms(keys: Mapping[Any, object]) -> dict[Any, object]:
    return {key: _dicom_form(key, value) for key, value in keys.items()}


def _dicom_form(key: object, value: object) -> object:
    """A date or a time that is written as in ISO 8601 as one; what is in items, too."""
    if isinstance(value, Mapping):
        return _dicom_forms(value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_dicom_form(key, one) for one in value]
    if isinstance(value, str):
        with suppress(KeyError, ValueError):
            vr = dictionary.vr_of(dictionary.parse_tag(str(key).rpartition(".")[2]))
            if vr == "DA" and "-" in value:
                return datetime.date.fromisoformat(value.strip())
            if vr == "TM" and ":" in value:
                return datetime.time.fromisoformat(value.strip()).replace(tzinfo=None)
    return value
