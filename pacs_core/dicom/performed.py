"""What a Modality Performed Procedure Step is and has to say, and when: PS3.4 F.7, Table F.7.2-1.

The types are those that the SCP asks for: 1 is there and has a value, 2 is there, 1C is there and has a value
under its condition. Attributes of type 3 are named only where something in them is checked, or where they
can't be set later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from pacs_core.dicom.dataset import Dataset, Element
from pacs_core.dicom.dictionary import keyword_of, tag_of
from pacs_core.errors import (
    InvalidValueError,
    MissingAttributeError,
    MissingValueError,
    NoSuchAttributeError,
)

MPPS: Final = "1.2.840.10008.3.1.2.3.3"
"""Modality Performed Procedure Step SOP Class."""
MPPS_RETRIEVE: Final = "1.2.840.10008.3.1.2.3.4"
"""Modality Performed Procedure Step Retrieve SOP Class."""

SCHEDULED_STEPS = 0x0040_0270  # Scheduled Step Attributes Sequence
PERFORMED_SERIES = 0x0040_0340  # Performed Series Sequence
STATUS = 0x0040_0252  # Performed Procedure Step Status
STUDY_UID = 0x0020_000D
SERIES_UID = 0x0020_000E
STEP_ID = 0x0040_0009  # Scheduled Procedure Step ID


class Status(StrEnum):
    """Performed Procedure Step Status (PS3.3 C.4.14)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


class Row(NamedTuple):
    """An attribute of the table.

    Attributes
    ----------
    kind : str
        Its type in an N-CREATE and, in items, also in an N-SET: 1, 1C, 2 or 3.
    condition : str
        Of type 1C: `unless` none of others is there, or `with` any of them.
    others : tuple of int
        Those of the condition.
    once : bool
        Only N-CREATE may give it.
    final : str
        What lets it be without a value no longer: `ended`, or `completed`; else empty.
    items : tuple of Row
        What each item of a sequence has.
    """

    tag: int
    kind: str
    condition: str
    others: tuple[int, ...]
    once: bool
    final: str
    items: tuple[Row, ...]


_CODE: Final = """
CodeValue 1C unless LongCodeValue URNCodeValue
CodingSchemeDesignator 1C with CodeValue LongCodeValue
"""
_MEANT: Final = _CODE + "CodeMeaning 1\n"
_ENTITY: Final = """
LocalNamespaceEntityID 1C unless UniversalEntityID
UniversalEntityIDType 1C with UniversalEntityID
"""
_REFERENCE: Final = """
ReferencedSOPClassUID 1
ReferencedSOPInstanceUID 1
"""


def _inside(rows: str) -> str:
    """The rows of a sequence's items."""
    return "".join(f">{line}\n" for line in rows.splitlines() if line)


_TABLE: Final = f"""
ScheduledStepAttributesSequence 1 once
>StudyInstanceUID 1
>ReferencedStudySequence 2
{_inside(_inside(_REFERENCE))}
>AccessionNumber 2
>IssuerOfAccessionNumberSequence 3
{_inside(_inside(_ENTITY))}
>OrderPlacerIdentifierSequence 3
{_inside(_inside(_ENTITY))}
>OrderFillerIdentifierSequence 3
{_inside(_inside(_ENTITY))}
>PlacerOrderNumberImagingServiceRequest 3
>FillerOrderNumberImagingServiceRequest 3
>RequestedProcedureID 2
>RequestedProcedureCodeSequence 3
{_inside(_inside(_MEANT))}
>RequestedProcedureDescription 2
>ScheduledProcedureStepID 2
>ScheduledProcedureStepDescription 2
>ScheduledProtocolCodeSequence 2
{_inside(_inside(_MEANT))}
PatientName 2 once
PatientID 2 once
IssuerOfPatientID 3 once
IssuerOfPatientIDQualifiersSequence 3 once
>UniversalEntityIDType 1C with UniversalEntityID
OtherPatientIDsSequence 3 once
PatientBirthDate 2 once
PatientSex 2 once
ReferencedPatientSequence 2 once
{_inside(_REFERENCE)}
AdmissionID 3 once
IssuerOfAdmissionIDSequence 3 once
{_inside(_ENTITY)}
ServiceEpisodeID 3 once
IssuerOfServiceEpisodeIDSequence 3 once
{_inside(_ENTITY)}
ServiceEpisodeDescription 3 once
PerformedProcedureStepID 1 once
PerformedStationAETitle 1 once
PerformedStationName 2 once
PerformedLocation 2 once
PerformedProcedureStepStartDate 1 once
PerformedProcedureStepStartTime 1 once
PerformedProcedureStepStatus 1
PerformedProcedureStepDescription 2
PerformedProcedureTypeDescription 2
ProcedureCodeSequence 2
{_inside(_CODE)}
ReasonForPerformedProcedureCodeSequence 3
{_inside(_MEANT)}
PerformedProcedureStepEndDate 2 ended
PerformedProcedureStepEndTime 2 ended
PerformedProcedureStepDiscontinuationReasonCodeSequence 3
{_inside(_MEANT)}
Modality 1 once
StudyID 2 once
PerformedProtocolCodeSequence 2
{_inside(_CODE)}
PerformedSeriesSequence 2 completed
>PerformingPhysicianName 2
>ProtocolName 1
>OperatorsName 2
>SeriesInstanceUID 1
>SeriesDescription 2
>RetrieveAETitle 2
>ReferencedImageSequence 2
{_inside(_inside(_REFERENCE))}
>>SpecimenDescriptionSequence 3
>>>SpecimenIdentifier 1
>>>SpecimenUID 1
>ReferencedNonImageCompositeSOPInstanceSequence 2
{_inside(_inside(_REFERENCE))}
"""


def _rows(lines: list[tuple[int, list[str]]], depth: int = 0) -> Iterator[Row]:
    """The rows of one level, from lines of (depth, words)."""
    while lines and lines[0][0] == depth:
        _, (keyword, kind, *more) = lines.pop(0)
        condition, others = (more[0], more[1:]) if kind == "1C" else ("", [])
        yield Row(
            tag_of(keyword),
            kind,
            condition,
            tuple(map(tag_of, others)),
            "once" in more,
            next((word for word in more if word in ("ended", "completed")), ""),
            tuple(_rows(lines, depth + 1)),
        )


TABLE: Final = tuple(
    _rows(
        [
            (len(line) - len(line.lstrip(">")), line.lstrip(">").split())
            for line in _TABLE.splitlines()
            if line
        ]
    )
)
_BY_TAG: Final = {row.tag: row for row in TABLE}


def check_created(dataset: Dataset) -> None:
    """That an N-CREATE has what it needs, in sequences too.

    Raises
    ------
    MissingAttributeError
        An attribute of type 1 or 2, or of 1C under its condition, is not there.
    MissingValueError
        One of type 1 or 1C has no value.
    InvalidValueError
        A sequence is none.
    """
    _check(dataset, TABLE)


def check_set(changes: Iterable[Element]) -> None:
    """That an N-SET has what it may, and all that its items need.

    Raises
    ------
    NoSuchAttributeError
        Only N-CREATE may give an attribute.
    MissingAttributeError, MissingValueError, InvalidValueError
        As `check_created`, of the items of a sequence.
    """
    for element in changes:
        row = _BY_TAG.get(element.tag)
        if row is None:
            continue
        if row.once:
            raise NoSuchAttributeError(f"{element.keyword} can't be set, only created", tag=row.tag)
        _check_items(element, row)


def check_final(dataset: Dataset, *, completed: bool) -> None:
    """That a step which ended has its final state: when it ended and, if it is complete, a series.

    A step that is discontinued may have none: the table asks for one, but a patient who left before the first
    image leaves no series that could be told of.

    Raises
    ------
    MissingAttributeError, MissingValueError
        It has not.
    """
    for row in TABLE:
        if row.final == "ended" or (row.final == "completed" and completed):
            _require(dataset, row, value=True)


def _check(tree: Dataset, rows: Iterable[Row]) -> None:
    for row in rows:
        if row.kind == "1C":
            found = any(other in tree for other in row.others)
            if found == (row.condition == "with"):
                _require(tree, row, value=True)
        elif row.kind != "3":
            _require(tree, row, value=row.kind == "1")
        if row.items and row.tag in tree:
            _check_items(tree.element(row.tag), row)


def _check_items(element: Element, row: Row) -> None:
    if not row.items:
        return
    if element.vr != "SQ":
        raise InvalidValueError(f"{keyword_of(row.tag)} is no sequence", tag=row.tag)
    for item in element.value:
        _check(item, row.items)


def _require(tree: Dataset, row: Row, *, value: bool) -> None:
    if row.tag not in tree:
        raise MissingAttributeError(f"{keyword_of(row.tag)} is missing", tag=row.tag)
    if value and is_empty(tree, row.tag):
        raise MissingValueError(f"{keyword_of(row.tag)} has no value", tag=row.tag)


def is_empty(tree: Dataset, tag: int) -> bool:
    """Whether an element is not there, or has no value: nothing, spaces, no item."""
    if tag not in tree:
        return True
    element = tree.element(tag)
    if element.vr == "SQ":
        return not len(element.value)
    return not bytes(element.raw).strip(b" \0")
