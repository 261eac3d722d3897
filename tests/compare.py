"""Data sets beside each other: ours and pydicom's, ours and ours, element by element."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pydicom
from pydicom.multival import MultiValue

from pacs_core.dicom.dataset import Dataset, Element

BULK = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
_WRITTEN = {"DA", "DS", "DT", "IS", "TM"}
_UNITS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"


def with_pydicom(theirs: pydicom.Dataset, ours: Dataset, path: str = "") -> Iterator[str]:
    """Each difference, as the path of the element, in tags, and what differs: tag, vr, items or value."""
    mine = {element.tag: element for element in ours}
    for tag in sorted({*mine, *map(int, theirs.keys())}):
        here = f"{path}{tag:08X}"
        if tag not in mine or tag not in theirs:
            yield f"{here} tag"
            continue
        its, element = theirs[tag], mine[tag]
        if element.vr != its.VR:
            yield f"{here} vr"
        elif element.vr == "SQ":
            if len(its.value) != len(element.value):
                yield f"{here} items"
            for place, (one, other) in enumerate(zip(its.value, element.value, strict=False)):
                yield from with_pydicom(one, other, f"{here}.{place}.")
        elif _of_pydicom(its) != _of_ours(element):
            yield f"{here} value"


def _of_pydicom(element: pydicom.DataElement) -> list[object]:
    value = element.value
    if element.VR in BULK:
        data = bytes(value or b"")
        return [data.removesuffix(_END)] if data else []
    if value is None or value == "":
        return []
    return [_plain(element.VR, each) for each in (value if isinstance(value, MultiValue | list) else [value])]


def _of_ours(element: Element) -> list[object]:
    if element.vr in BULK:
        data = bulk(element)
        return [data] if data else []
    return [_plain(element.vr, value) for value in element.values]


def _plain(vr: str, value: Any) -> object:
    """One value in a form that both can have: text, a number, the name of NaN."""
    if value is None or value == "":
        return ""
    if vr in _WRITTEN:
        return str(getattr(value, "text", getattr(value, "original_string", value))).strip()
    if vr == "PN":
        return str(value).rstrip("=")
    if isinstance(value, float):
        return value if value == value else "NaN"
    return int(value) if isinstance(value, int) else str(value)


def bulk(element: Element) -> bytes:
    """Bulk data as one piece; fragments as items."""
    value = element.value
    if isinstance(value, tuple):
        return b"".join(_ITEM + len(piece).to_bytes(4, "little") + piece for piece in value)
    return bytes(value or b"")


def little(element: Element) -> bytes:
    """Bulk data in little endian, of even length."""
    data = bulk(element)
    unit = _UNITS.get(element.vr, 1)
    if element.offset is not None and not element.dataset.encoding[1] and unit > 1:
        data = swapped(data, unit)
    return data + bytes(len(data) & 1)


def swapped(data: bytes, unit: int) -> bytes:
    """Words of `unit` bytes in the other byte order; what is left of the last one as it is."""
    out = bytearray(data)
    whole = len(data) - len(data) % unit
    for at in range(unit):
        out[at:whole:unit] = data[unit - 1 - at : whole : unit]
    return bytes(out)


def with_ours(
    one: Dataset, other: Dataset, *, implicit: bool = False, digits: bool = True, path: str = ""
) -> Iterator[str]:
    """Each difference; group lengths (PS3.5 7.2), padding, byte order and empty component groups are none.

    `implicit`: one of them has been without VRs, so those that no dictionary has are lost. `digits`: whether
    numbers in text are written alike, not only the same.
    """
    mine, its = ({element.tag: element for element in each if element.tag & 0xFFFF} for each in (one, other))
    for tag in sorted({*mine, *its}):
        here = f"{path}{tag:08X}"
        if tag not in mine or tag not in its:
            yield f"{here} tag"
            continue
        a, b = mine[tag], its[tag]
        if a.vr != b.vr:
            lost = implicit and (tag >> 16 & 1 or b.vr in {"OW", "UN"} or (a.vr, b.vr) == ("OW", "OB"))
            if not lost or (a.vr != "SQ" and (len(a.raw) + 1) // 2 != (len(b.raw) + 1) // 2):
                yield f"{here} vr"
        elif a.vr == "SQ":
            if len(a.value) != len(b.value):
                yield f"{here} items"
            for place, (left, right) in enumerate(zip(a.value, b.value, strict=False)):
                yield from with_ours(left, right, implicit=implicit, digits=digits, path=f"{here}.{place}.")
        elif not digits and a.vr in {"DS", "IS"}:
            if a.values != b.values:
                yield f"{here} value"
        elif (little(a) != little(b)) if a.vr in BULK else _of_ours(a) != _of_ours(b):
            yield f"{here} value"
