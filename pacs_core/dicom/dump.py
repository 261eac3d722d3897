"""Data sets as lines for people to read.

    (0010,0010) PN [Doe^John]                            #     8, 1 PatientName

Tag, VR, value (text in brackets, of bulk data the first bytes), length in bytes, number of values,
keyword or name of the creator; what is in a sequence is indented.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pacs_core._ext.tree import Element, Sequence, Tree
from pacs_core.dicom import dictionary
from pacs_core.dicom.packing import BULK
from pacs_core.dicom.selectors import Selector, found

if TYPE_CHECKING:
    from pacs_core.dicom.dataset import Dataset

_INDENT = "  "
_SHOWN = 16  # bytes of bulk data
_COLUMN = 72  # what is told of an element begins here, unless its value reaches further
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), ".")


def dump(dataset: Dataset, width: int = 120, depth: int | None = None) -> str:
    """The whole text; see `Dataset.dump`."""
    return "\n".join(lines(dataset, width, depth))


def lines(dataset: Dataset, width: int, depth: int | None, *, meta: bool = True) -> Iterator[str]:
    """The lines, file meta information first, what was odd last."""
    if meta and dataset.meta is not None:
        yield from _lines(dataset.meta, width, depth, 0)
    yield from _lines(dataset, width, depth, 0)
    yield from findings(dataset)


def selected(
    dataset: Dataset, wanted: Iterable[Selector], width: int, depth: int | None, *, meta: bool = True
) -> Iterator[str]:
    """The lines of some elements, each with what is in it; those of sequences come with their path."""
    trees = [tree for tree in (dataset.meta if meta else None, dataset) if tree is not None]
    for selector in wanted:
        for tree in trees:
            for path, element in found(selector, tree):
                yield from _element(element, width, depth, 0, path if "." in path else "")


def findings(dataset: Dataset) -> Iterator[str]:
    """What was odd about a data set, a line each."""
    for finding in dataset.findings:
        where = f"({finding.tag >> 16:04X},{finding.tag & 0xFFFF:04X}) " if finding.tag else ""
        more = f", {finding.times} times" if finding.times > 1 else ""
        yield f"# {finding.kind}: {where}at byte {finding.offset}{more}"
    if dataset.truncated:
        yield "# it ends in the middle of something"


def _lines(tree: Tree, width: int, depth: int | None, level: int) -> Iterator[str]:
    for element in tree:
        yield from _element(element, width, depth, level, "")


def _element(element: Element, width: int, depth: int | None, level: int, name: str) -> Iterator[str]:
    value = element.value
    yield _line(element, value, width, level, name or _name(element.dataset, element))
    if isinstance(value, Sequence) and (depth is None or level < depth):
        for place, item in enumerate(value):
            yield f"{_INDENT * (level + 1)}item {place}"
            yield from _lines(item, width, depth, level + 2)


def _line(element: Element, value: object, width: int, level: int, name: str) -> str:
    tag = element.tag
    head = f"{_INDENT * level}({tag >> 16:04X},{tag & 0xFFFF:04X}) {element.vr} "
    tail = f" # {_size(element, value):>9}, {_multiplicity(element, value)} {name}"
    text = head + _cut(_shown(element, value), max(width - len(head) - len(tail), 16))
    return f"{text:<{_COLUMN}}{tail}"


def _shown(element: Element, value: object) -> str:
    if isinstance(value, Sequence):
        return f"{len(value)} item{'' if len(value) == 1 else 's'}"
    if element.vr in BULK or not element.vr.isalpha():
        if isinstance(value, tuple):
            return f"{len(value) - 1} fragment{'' if len(value) == 2 else 's'}"
        if value is None:
            return "(no value)"
        view = memoryview(value)  # type: ignore[arg-type]
        return f"{view[:_SHOWN].hex(' ')}{' …' if len(view) > _SHOWN else ''}"
    values = element.values
    if not values:
        return "(no value)"
    if element.vr == "AT":
        return "\\".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in values)
    text = "\\".join(str(getattr(each, "text", each)) for each in values)
    return text if isinstance(values[0], int | float) else f"[{text.translate(_CONTROL)}]"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _size(element: Element, value: object) -> str:
    if isinstance(value, Sequence) and (element.undefined or element.length is None):
        return "undefined"
    if element.length is not None:
        return str(element.length)
    raw = element.raw
    return str(sum(map(len, raw)) if isinstance(raw, tuple) else len(raw))


def _multiplicity(element: Element, value: object) -> int:
    return 1 if isinstance(value, Sequence) else len(element.values)


def _name(tree: Tree, element: Element) -> str:
    if element.keyword:
        return element.keyword
    creator = tree.creator_of(element.tag)
    private = dictionary.private_entry(creator, element.tag) if creator else None
    return f"{creator}: {private.name}" if private else creator or "unknown"
