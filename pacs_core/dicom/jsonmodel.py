"""The DICOM JSON Model (PS3.18 Annex F) to data sets; the other way is native (`_ext.jsonmodel`)."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pacs_core.dicom import values
from pacs_core.dicom.packing import BULK, TEXT, packed
from pacs_core.dicom.part10 import fragments_of
from pacs_core.errors import InvalidValueError, UnparsableError

if TYPE_CHECKING:
    from pacs_core.dicom.dataset import Dataset

_T = TypeVar("_T", bound="Dataset")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_CHARACTER_SET = 0x0008_0005
_PIXEL_DATA = 0x7FE0_0010
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_MOST_LEVELS = 256

Fetch = Callable[[str], bytes]
"""What a BulkDataURI stands for."""


def from_json(made: type[_T], source: str | bytes | Mapping[str, Any], fetch: Fetch | None = None) -> _T:
    """The data set, of class `made`, of a DICOM JSON Model object (PS3.18 F.2): as text, or as Python has it.

    Digits of decimal strings stay as they are written. Text that is not ASCII makes the data set UTF-8 if it
    names no character set.

    Raises
    ------
    UnparsableError
        For what is not JSON, or not the model; the tag is named.
    InvalidValueError
        For a value that its VR does not allow; for a BulkDataURI, without `fetch`.
    """
    if isinstance(source, Mapping):
        parsed: Any = source
    else:
        try:
            parsed = json.loads(source, parse_float=values.decimal_string)
        except (ValueError, RecursionError) as exc:
            raise UnparsableError(f"not JSON: {exc}") from None
    dataset = _object(made, parsed, fetch, 0)
    if _CHARACTER_SET not in dataset and any(_is_foreign(element) for element in dataset.walk()):
        dataset[_CHARACTER_SET] = "ISO_IR 192"
    return dataset


def _is_foreign(element: Any) -> bool:
    return element.vr in TEXT and not element.raw.isascii()


def _object(made: type[_T], parsed: Any, fetch: Fetch | None, depth: int) -> _T:
    if not isinstance(parsed, Mapping):
        raise UnparsableError(f"a data set is a JSON object, not {_kind(parsed)}")
    if depth > _MOST_LEVELS:
        raise UnparsableError(f"more than {_MOST_LEVELS} sequences in each other")
    dataset = made()
    for key, attribute in parsed.items():
        if not _TAG.fullmatch(key):
            raise UnparsableError(f"{key!r} is not a tag of eight hexadecimal digits")
        tag = int(key, 16)
        if not isinstance(attribute, Mapping) or not isinstance(attribute.get("vr"), str):
            raise UnparsableError("an attribute is an object with a vr", tag=tag)
        vr = attribute["vr"]
        try:
            if vr == "SQ":
                items = _values(tag, vr, attribute)
                dataset.set(tag, [_object(made, item or {}, fetch, depth + 1) for item in items], vr)
            elif "BulkDataURI" in attribute or "InlineBinary" in attribute:
                dataset._put(tag, vr, _bulk(tag, attribute, fetch))
            else:
                convert = _ONE.get(vr, _plain)
                dataset._put(tag, vr, packed(vr, [convert(value) for value in _values(tag, vr, attribute)]))
        except InvalidValueError as exc:
            exc.tag = exc.tag or tag
            raise
        except (TypeError, ValueError) as exc:
            raise UnparsableError(f"not a value of {vr}: {exc}", tag=tag) from None
    return dataset


def _values(tag: int, vr: str, attribute: Mapping[str, Any]) -> list[Any]:
    found = attribute.get("Value", [])
    if not isinstance(found, list):
        raise UnparsableError(f"Value is an array, not {_kind(found)}", tag=tag)
    if vr in BULK and found:
        raise UnparsableError(f"{vr} has no Value, but InlineBinary", tag=tag)
    return found


def _bulk(tag: int, attribute: Mapping[str, Any], fetch: Fetch | None) -> Any:
    """The bytes of a value that is given by reference or in base64."""
    if "InlineBinary" in attribute:
        data = binascii.a2b_base64(attribute["InlineBinary"])
    elif fetch is None:
        raise InvalidValueError("a value by reference, and nothing to fetch it with")
    else:
        data = fetch(attribute["BulkDataURI"])
    fragments = fragments_of(data) if tag == _PIXEL_DATA else None
    return data if fragments is None else tuple(fragments)


def _plain(value: Any) -> Any:
    return "" if value is None else value


def _name(value: Any) -> str:
    if isinstance(value, Mapping):
        return "=".join(value.get(group) or "" for group in _GROUPS).rstrip("=")
    return "" if value is None else value


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) else value


def _tag(value: Any) -> int:
    if not isinstance(value, str) or not _TAG.fullmatch(value):
        raise UnparsableError(f"{value!r} is not a tag of eight hexadecimal digits")
    return int(value, 16)


_ONE: dict[str, Callable[[Any], Any]] = {
    "AT": _tag,
    "FD": _number,
    "FL": _number,
    "PN": _name,
    "SV": _whole,
    "UV": _whole,
}


def _kind(value: Any) -> str:
    return {dict: "an object", list: "an array", str: "a string", type(None): "null"}.get(
        type(value), "a number"
    )
