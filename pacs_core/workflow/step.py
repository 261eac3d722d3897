"""A scheduled procedure step as it is kept: a data set, and the keys that it is found by.

The record of a step is a version byte, a byte that is 1 when nothing is left to do, and its data set, in
explicit VR little endian and UTF-8, of defined lengths, with one item in Scheduled Procedure Step Sequence.

It stands at a place of its own: its start, and a number of 8 bytes, big endian; so those of a day lie side
by side. A key under which the place stands is a letter, the normalised value as the index has it
(`_ext.keys`), a zero, and the place again.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pacs_core._ext import keys as native
from pacs_core.dicom import dictionary
from pacs_core.dicom.dataset import Dataset, Element, Sequence
from pacs_core.dicom.packing import BULK, NUMBERS, TEXT
from pacs_core.dicom.recoding import CHARACTER_SET, of_bytes
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, is_valid_uid, new_uid
from pacs_core.dicom.worklist import (
    DESCRIPTION,
    FINISHED,
    MODALITY,
    PROTOCOL_CODES,
    START_DATE,
    START_TIME,
    STATION_AE_TITLE,
    STATUS,
    STEP_ID,
    STEP_SEQUENCE,
    STUDY_INSTANCE_UID,
    identifier_of,
)
from pacs_core.errors import CorruptError, InvalidValueError, MissingValueError

PATIENT_NAME: Final = 0x0010_0010
PATIENT_ID: Final = 0x0010_0020
ACCESSION_NUMBER: Final = 0x0008_0050
PROCEDURE_ID: Final = 0x0040_1001
_PROCEDURE_DESCRIPTION: Final = 0x0032_1060
_PROCEDURE_CODES: Final = 0x0032_1064

IDENTITY: Final = b"i"
BY_STATION: Final = ord("s")
BY_MODALITY: Final = ord("m")
KEYED: Final = {
    PATIENT_ID: (ord("p"), native.TEXT),
    PATIENT_NAME: (ord("n"), native.NAME),
    ACCESSION_NUMBER: (ord("a"), native.TEXT),
    PROCEDURE_ID: (ord("r"), native.TEXT),
}
"""The other attributes that steps are found by: the letter and the kind of their keys."""

_VERSION: Final = 1
_HEAD: Final = 2
_LONGEST_ID: Final = 16  # characters of an SH (PS3.5 6.2)
_LONGEST_KEY: Final = 200
_ASCII: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_FORMS: Final = frozenset({"DA", "DS", "DT", "IS", "TM"})
_KNOWN: Final = frozenset({*TEXT, *BULK, *NUMBERS, *_ASCII, "AT", "SQ"})


class StepId(NamedTuple):
    """What names a step, here and in what a modality reports of it."""

    study_instance_uid: str
    scheduled_procedure_step_id: str

    @classmethod
    def of(cls, whole: Dataset) -> StepId:
        """The name of the step of a data set."""
        return cls(str(whole[STUDY_INSTANCE_UID]), str(whole[STEP_SEQUENCE][0][STEP_ID]))

    def key(self) -> bytes:
        """The key that its place stands under; cut where nothing that is kept is as long."""
        study, step = (text.encode("utf-8", "replace") for text in self)
        return (IDENTITY + study + b"\0" + step)[:_LONGEST_KEY]


class Step(NamedTuple):
    """A step to be kept.

    Attributes
    ----------
    start : bytes
        Its start in letters.
    keys : list of bytes
        But for the place at their end.
    has_status : bool
        Somebody gave it its status; otherwise it is new.
    """

    id: StepId
    record: bytes
    start: bytes
    keys: list[bytes]
    has_status: bool


def dataset_of(keys: Mapping[Any, object]) -> Dataset:
    """The data set of keys and values, as `dicom.worklist.identifier_of` takes them.

    Raises as that; InvalidValueError also for text that could be asked for, but is no date, time or number.
    """
    dataset = identifier_of(keys)
    for element in dataset.walk():
        if element.vr in _FORMS and any(isinstance(value, str) and value for value in element.values):
            shown = bytes(element.raw).decode("ascii", "replace")
            raise InvalidValueError(f"not a value of {element.vr}", value=shown, tag=element.tag)
    return dataset


def steps_of(dataset: Dataset) -> Iterator[Step]:
    """The steps that a data set schedules: one for each item of its Scheduled Procedure Step Sequence.

    What is missing and can be made up is: Study Instance UID, Scheduled Procedure Step ID, Requested
    Procedure ID (that of the step), Status (SCHEDULED), and of the descriptions of step and requested
    procedure the one that is not there.

    Raises
    ------
    MissingValueError
        It does not tell what it has to (PS3.4 K.6.1.2.2); the keywords are named.
    InvalidValueError
        A start that is no date and time, a UID or an ID that can't be.
    """
    little = dataset
    if not dataset.encoding[1]:
        little = of_bytes(dataset.to_bytes(EXPLICIT_VR_LITTLE_ENDIAN))
    whole = _in_utf8(little)
    items = whole.get(STEP_SEQUENCE)
    if not isinstance(items, Sequence) or not len(items):
        raise MissingValueError(
            "a worklist item needs a scheduled procedure step, of which it tells Modality, "
            "ScheduledStationAETitle, ScheduledProcedureStepStartDate and ScheduledProcedureStepStartTime",
            tag=STEP_SEQUENCE,
        )
    if not whole.get(STUDY_INSTANCE_UID):
        whole[STUDY_INSTANCE_UID] = new_uid()
    for item in list(items):
        one = whole.copy()
        one.set(STEP_SEQUENCE, [item])
        has_status = bool(item.get(STATUS))
        _complete(one, item)
        yield Step(StepId.of(one), packed(one), _start_of(one), keys_of(one), has_status)


def packed(whole: Dataset) -> bytes:
    """The record of a step."""
    if CHARACTER_SET in whole:
        del whole[CHARACTER_SET]
    if any(element.vr in TEXT and not bytes(element.raw).isascii() for element in whole.walk()):
        whole[CHARACTER_SET] = "ISO_IR 192"
    finished = whole[STEP_SEQUENCE][0].get(STATUS) in FINISHED
    return bytes((_VERSION, finished)) + whole.to_bytes(EXPLICIT_VR_LITTLE_ENDIAN)


def unpacked(record: bytes) -> Dataset:
    """The data set of a record. CorruptError if it is none."""
    if record[:1] != bytes((_VERSION,)):
        raise CorruptError("not the record of a scheduled procedure step")
    return of_bytes(record[_HEAD:])


def replacing(step: Step, before: bytes) -> bytes:
    """The record of a step that takes the place of another: it stays in the status that it was in, if nobody
    gave it one. An order that is told again does not begin again."""
    if step.has_status:
        return step.record
    return with_status(step.record, unpacked(before)[STEP_SEQUENCE][0][STATUS])


def with_status(record: bytes, status: str) -> bytes:
    """The record of the same step in another Scheduled Procedure Step Status."""
    whole = _in_utf8(unpacked(record))
    whole[STEP_SEQUENCE][0][STATUS] = status
    return packed(whole)


def keys_of(whole: Dataset) -> list[bytes]:
    """The keys of a step but for the place at their end."""
    item = whole[STEP_SEQUENCE][0]
    found = [
        *_normal(item, STATION_AE_TITLE, BY_STATION, native.TEXT),
        *_normal(item, MODALITY, BY_MODALITY, native.TEXT),
    ]
    for tag, (letter, kind) in KEYED.items():
        found += _normal(whole, tag, letter, kind)
    return [key + b"\0" for key in found]


def _start_of(whole: Dataset) -> bytes:
    item = whole[STEP_SEQUENCE][0]
    return f"{item[START_DATE].text}{item[START_TIME].text}".encode()


def _normal(dataset: Dataset, tag: int, letter: int, kind: int) -> list[bytes]:
    raw = bytes(dataset.element(tag).raw) if tag in dataset else b""
    return native.attribute_keys(letter, kind, raw)


def _in_utf8(dataset: Dataset) -> Dataset:
    """A data set of its own of the same elements, as if each had been set in UTF-8."""
    made = type(dataset)()
    for element in dataset:
        if element.tag & 0xFFFF == 0 or element.tag >> 16 <= 2 or element.tag == CHARACTER_SET:
            continue
        vr = element.vr
        made._put(element.tag, vr if vr in _KNOWN else "UN", _data_of(element))
    return made


def _data_of(element: Element) -> Any:
    if element.vr == "SQ":
        return Sequence(_in_utf8(item) for item in element.value)
    if element.vr in TEXT:
        return "\\".join(map(str, element.values)).encode("utf-8", "replace")
    raw = bytes(element.raw)
    return raw.rstrip(b" \0") if element.vr in _ASCII else raw


def _complete(whole: Dataset, item: Dataset) -> None:
    """Fill in what can be, and check the rest."""
    if not item.get(STEP_ID):
        item[STEP_ID] = secrets.token_hex(5).upper()
    if not item.get(STATUS):
        item[STATUS] = "SCHEDULED"
    if not whole.get(PROCEDURE_ID):
        whole[PROCEDURE_ID] = str(item[STEP_ID])
    described = item.get(DESCRIPTION) or whole.get(_PROCEDURE_DESCRIPTION)
    if described and not item.get(DESCRIPTION) and not item.get(PROTOCOL_CODES):
        item[DESCRIPTION] = described
    if described and not whole.get(_PROCEDURE_DESCRIPTION) and not whole.get(_PROCEDURE_CODES):
        whole[_PROCEDURE_DESCRIPTION] = described
    missing = [
        dictionary.keyword_of(tag)
        for dataset, tags in (
            (whole, (PATIENT_NAME, PATIENT_ID)),
            (item, (MODALITY, STATION_AE_TITLE, START_DATE, START_TIME)),
        )
        for tag in tags
        if dataset.get(tag) in (None, "")
    ]
    if not item.get(DESCRIPTION) and not item.get(PROTOCOL_CODES):
        missing.append(dictionary.keyword_of(DESCRIPTION))
    if missing:
        raise MissingValueError(f"a scheduled procedure step needs {', '.join(missing)}")
    _check(whole, item)


def _check(whole: Dataset, item: Dataset) -> None:
    uid, step_id = whole[STUDY_INSTANCE_UID], item[STEP_ID]
    if not is_valid_uid(str(uid)):
        raise InvalidValueError("no UID", value=uid, tag=STUDY_INSTANCE_UID)
    if not isinstance(step_id, str) or len(step_id) > _LONGEST_ID or "\\" in step_id:
        raise InvalidValueError("an ID has at most 16 characters", value=step_id, tag=STEP_ID)
    day, clock = item[START_DATE], item[START_TIME]
    if not isinstance(day, datetime.date):
        raise InvalidValueError("one date, YYYYMMDD", value=day, tag=START_DATE)
    if not isinstance(clock, datetime.time):
        raise InvalidValueError("one time, HHMMSS", value=clock, tag=START_TIME)
    item[START_DATE] = datetime.date(day.year, day.month, day.day)
    item[START_TIME] = datetime.time(clock.hour, clock.minute, clock.second, clock.microsecond)
