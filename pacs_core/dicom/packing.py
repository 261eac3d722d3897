"""Python values as the bytes of an element: UTF-8, little endian, without padding (PS3.5 6.2)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from pacs_core.dicom import values
from pacs_core.errors import InvalidValueError

NUMBERS = {
    "US": "H",
    "SS": "h",
    "UL": "I",
    "SL": "i",
    "UV": "Q",
    "SV": "q",
    "FL": "f",
    "FD": "d",
}
BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""The VRs whose values are bytes."""

TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""The VRs whose values are text in the Specific Character Set."""

_ONE = frozenset({"LT", "ST", "UR", "UT"})
_SIMPLE = frozenset({"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})
_AS_TEXT: dict[str, Callable[[Any], str]] = {
    "DA": values.date_text,
    "DS": values.decimal_text,
    "DT": values.date_time_text,
    "IS": values.integer_text,
    "TM": values.time_text,
}


def packed(vr: str, value: object) -> Any:
    """The bytes of a value, or of several: what `Dataset` keeps of an element that is set.

    `value`: text, numbers, dates and times by the VR, or an iterable of them; None or nothing for an empty
    value. Text may have several values, joined by backslashes. Bulk data are bytes or an array, little endian
    whatever the data set will be written in, and are not copied; an iterable of bytes are the fragments of
    encapsulated Pixel Data, the Basic Offset Table first (PS3.5 A.4).

    Raises
    ------
    InvalidValueError
        If the VR does not allow the value.
    """
    if value is None:
        return b""
    if vr in BULK:
        return _bulk(vr, value)
    several = list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
    if vr in NUMBERS:
        return _numbers(vr, several)
    if vr == "AT":
        return b"".join(struct.pack("<HH", *divmod(_tag(tag), 0x1_0000)) for tag in several)
    if vr in _AS_TEXT:
        return _in_utf8("\\".join(_texts(vr, several)))
    if vr in _SIMPLE:
        return _in_utf8(_text(vr, several))
    raise InvalidValueError(f"{vr} is not a VR that can be set")


def _in_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidValueError("half of a surrogate pair, which is no character", value=text) from exc


def _bulk(vr: str, value: Any) -> Any:
    if isinstance(value, str):
        raise InvalidValueError(f"a value of {vr} is bytes, not text", value=value)
    if isinstance(value, bytes):
        return value
    try:
        view = memoryview(value)
    except TypeError:
        pass
    else:
        return _flat(vr, view)
    try:
        return tuple(_flat(vr, memoryview(fragment)) for fragment in value) or b""
    except TypeError:
        raise InvalidValueError(f"a value of {vr} is bytes, not {type(value).__name__}") from None


def _flat(vr: str, view: memoryview) -> bytes | memoryview:
    """The bytes of an array, row after row: its own where they lie so."""
    if view.format[0] in ">!" and view.itemsize > 1:
        raise InvalidValueError(f"an array for {vr} is little endian")
    if "O" in view.format:
        raise InvalidValueError(f"an array for {vr} is one of numbers")
    try:
        return view.cast("B").toreadonly()
    except TypeError:  # not in one piece, or empty, or of a format that has no cast
        return view.tobytes()


def _numbers(vr: str, several: list[Any]) -> bytes:
    try:
        return struct.pack(f"<{len(several)}{NUMBERS[vr]}", *several)
    except (struct.error, OverflowError) as exc:
        shown = several[0] if len(several) == 1 else several
        raise InvalidValueError(f"not a value that {vr} allows: {exc}", value=shown) from None


def _tag(value: Any) -> int:
    if isinstance(value, int) and 0 <= value <= 0xFFFF_FFFF:
        return value
    raise InvalidValueError("AT is a tag as a number (0x00100010), or several", value=value)


def _texts(vr: str, several: list[Any]) -> list[str]:
    convert = _AS_TEXT[vr]
    return [
        "\\".join(convert(part) if part.strip(" ") else "" for part in each.split("\\"))
        if isinstance(each, str)
        else convert(each)
        for each in several
    ]


def _text(vr: str, several: list[Any]) -> str:
    for each in several:
        if not isinstance(each, str):
            raise InvalidValueError(f"a value of {vr} is text, not {type(each).__name__}", value=each)
    if vr in _ONE and len(several) > 1:
        raise InvalidValueError(f"{vr} has one value, not {len(several)}")
    return "\\".join(several)
