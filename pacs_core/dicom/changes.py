"""What becomes of an element that a rule selects: the verbs of `edit`."""

from __future__ import annotations

import datetime
import hmac
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pacs_core._ext.tree import Element, Sequence
from pacs_core.dicom import values
from pacs_core.errors import InvalidValueError

if TYPE_CHECKING:
    from pacs_core.dicom.dataset import Dataset

HASHED = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_HASH_DIGITS = 16  # of five bits each: what the shortest VRs have room for (PS3.5 6.2)
_REGISTERED = "1.2.840.10008."  # UIDs of the standard (PS3.6 Annex A)
# UIDs of kinds, not of instances, beside those of SOP classes and transfer syntaxes.
_KINDS = frozenset({"CodingSchemeUID", "ContextUID", "MappingResourceUID"})


class Left(NamedTuple):
    """An element that a rule selects and could not change: `path` as of `Element.path`; no value is told."""

    path: str
    why: str


Report = Callable[[Left], object]


@dataclass(frozen=True, slots=True)
class Run:
    """What rules know beside an element: the secret, who the patient was, whom to tell what was left."""

    secret: bytes
    patient: str
    report: Report


class Spot(NamedTuple):
    """A place in a data set that a rule selects; `found`: what is there, None if nothing is."""

    tree: Dataset
    tag: int
    found: Element | None
    prefix: str
    run: Run

    @property
    def element(self) -> Element:
        """What is there; for changes that are asked only of what is."""
        assert self.found is not None
        return self.found

    def put(self, data: object) -> None:
        """Give the element that is there another value, of the same VR."""
        self.tree._put(self.tag, self.element.vr, data)

    def text(self) -> str:
        """The bytes of the value that is there as characters, one each: the form of ASCII, whatever it is."""
        return bytes(self.element.raw).decode("latin-1")

    def put_text(self, text: str) -> None:
        """Give the element another value, as `text` gave it; what is the same stays the bytes it was."""
        if text != self.text():
            self.put(text.encode("latin-1"))

    def leave(self, why: str) -> None:
        """Tell that the element stays as it is."""
        self.run.report(Left(self.prefix + self.element.path, why))


@dataclass(frozen=True, slots=True)
class Set:
    """Give an element a value; one that a key or path names is made if it is not there."""

    value: object
    vr: str | None = None
    keyed: ClassVar[bool] = False

    def change(self, spot: Spot) -> None:
        """Do it. InvalidValueError if the VR does not allow the value."""
        value = [copy(each) for each in self.value] if isinstance(self.value, tuple) else self.value
        spot.tree.set(spot.tag, value, self.vr)


@dataclass(frozen=True, slots=True)
class Empty:
    """Leave an element without a value."""

    keyed: ClassVar[bool] = False

    def change(self, spot: Spot) -> None:
        """Do it."""
        spot.put(Sequence() if spot.element.vr == "SQ" else b"")


@dataclass(frozen=True, slots=True)
class Remove:
    """Leave an element out."""

    keyed: ClassVar[bool] = False

    def change(self, spot: Spot) -> None:
        """Do it."""
        spot.tree._remove(spot.tag)


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave an element as it is."""

    keyed: ClassVar[bool] = False

    def change(self, spot: Spot) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Hash:
    """Replace each value by 16 characters of its keyed hash, which are a value of every VR of text."""

    keyed: ClassVar[bool] = True

    def change(self, spot: Spot) -> None:
        """Do it. InvalidValueError for a VR that is not text."""
        if spot.element.vr not in HASHED:
            raise InvalidValueError(f"{spot.element.vr} can't hold a hash", tag=spot.tag)
        read = _canonical_name if spot.element.vr == "PN" else str
        texts = [read(each).strip(" ") for each in spot.element.values]
        spot.put("\\".join(_hashed(spot.run.secret, text) for text in texts).encode())


@dataclass(frozen=True, slots=True)
class ShiftDates:
    """Move dates by days: a number from `least` to `most`, the same for all of a patient (of a Patient ID).

    Only digits of the date change: form, precision and time stay.
    """

    least: int
    most: int

    @property
    def keyed(self) -> bool:
        """Whether it takes a secret."""
        return self.least != self.most

    def change(self, spot: Spot) -> None:
        """Do it, but to what is no date as DA and DT have them today, or would be none."""
        shift = datetime.timedelta(self._days(spot.run))
        read = DATES[spot.element.vr]
        parts = spot.text().split("\\")
        for place, part in enumerate(parts):
            text = part.strip(" \0")
            if text:
                moved = _moved(text, read(text), shift)
                if moved is None:
                    spot.leave("no date that can be shifted")
                else:
                    parts[place] = part.replace(text, moved, 1)
        spot.put_text("\\".join(parts))

    def _days(self, run: Run) -> int:
        if not self.keyed:
            return self.least
        span = self.most - self.least + 1
        return self.least + _digest(run.secret, "days", run.patient) % span


@dataclass(frozen=True, slots=True)
class MapUIDs:
    """Replace UIDs of instances by 2.25.<128 bits of their keyed hash> (PS3.5 B.2); those that the standard
    registers, and of elements that name a kind of thing, stay."""

    keyed: ClassVar[bool] = True

    def change(self, spot: Spot) -> None:
        """Do it."""
        keyword = spot.element.keyword
        if keyword in _KINDS or "Class" in keyword or "TransferSyntax" in keyword:
            return
        uids = [uid.strip(" \0") for uid in spot.text().split("\\")]
        if any(map(_is_of_instance, uids)):
            spot.put_text("\\".join(_mapped(spot.run.secret, uid) for uid in uids))


Change = Set | Empty | Remove | Keep | Hash | ShiftDates | MapUIDs


def _moved(text: str, read: Any, shift: datetime.timedelta) -> str | None:
    """A date, or a date and time, some days later; None if that can't be."""
    if not isinstance(read, datetime.date) or not text[:8].isdecimal() or len(text) < 8:
        return None
    if isinstance(read, values.DateTime) and read.precision < values.Precision.DAY:
        return None
    try:
        day = datetime.date(read.year, read.month, read.day) + shift
    except OverflowError:
        return None
    return f"{values.date_text(day)}{text[8:]}"


DATES: dict[str, Callable[[str], object]] = {"DA": values.date, "DT": values.date_time}


def _digest(secret: bytes, purpose: str, text: str) -> int:
    """128 bits of the keyed hash. What is hashed for one purpose tells nothing about another."""
    message = f"{purpose}\0{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hmac.digest(secret, message, "sha256")[:16])


def _hashed(secret: bytes, text: str) -> str:
    if not text:
        return ""
    number = _digest(secret, "text", text)
    return "".join(_DIGITS[number >> 5 * place & 31] for place in range(_HASH_DIGITS))


def _canonical_name(name: str) -> str:
    """A PN without delimiters at the ends of its groups, which may be there or not (PS3.5 6.2.1)."""
    return "=".join(group.rstrip("^ ") for group in name.split("=")).rstrip("=")


def _is_of_instance(uid: str) -> bool:
    return uid != "" and not uid.startswith(_REGISTERED)


def _mapped(secret: bytes, uid: str) -> str:
    return f"2.25.{_digest(secret, 'uid', uid)}" if _is_of_instance(uid) else uid
