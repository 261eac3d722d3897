"""What a modality reports of a step (PS3.4 F.7): made of worklist items and of what it has acquired.

Worklist items are mapped as IHE RAD TF-2, Appendix A, does it: what was requested and scheduled goes to the
Scheduled Step Attributes Sequence, codes and descriptions also to what is performed, until somebody says
otherwise.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.dictionary import tag_of
from pacs_core.dicom.media import files_of, looks_like_dicom
from pacs_core.dicom.performed import (
    PERFORMED_SERIES,
    SCHEDULED_STEPS,
    TABLE,
    Row,
    Status,
    is_empty,
)
from pacs_core.dicom.reading import read
from pacs_core.dicom.recoding import CHARACTER_SET, UNICODE, converted
from pacs_core.dicom.uids import new_uid
from pacs_core.errors import InvalidValueError, MissingValueError, from_os_error

if TYPE_CHECKING:
    from pacs_core.client.sources import Sendable

    Acquired = Sendable | Dataset
    Reason = str | tuple[str, str, str]

REASONS: Final = {
    "110500": "Doctor canceled procedure",
    "110501": "Equipment failure",
    "110502": "Incorrect procedure ordered",
    "110503": "Patient allergic to media/contrast",
    "110504": "Patient died",
    "110505": "Patient refused to continue procedure",
    "110506": "Patient taken for treatment or surgery",
    "110507": "Patient did not arrive",
    "110508": "Patient pregnant",
    "110509": "Change of procedure for correct charging",
    "110510": "Duplicate order",
    "110511": "Nursing unit cancel",
    "110512": "Incorrect side ordered",
    "110513": "Discontinued for unspecified reason",
    "110514": "Incorrect worklist entry selected",
    "110515": "Patient condition prevented continuing",
    "110516": "Equipment change",
}
"""Why a step is discontinued: the codes of DCM in CID 9301 (PS3.16), and their meanings."""

_SCHEDULED = next(row.items for row in TABLE if row.tag == SCHEDULED_STEPS)
_SERIES = next(row.items for row in TABLE if row.tag == PERFORMED_SERIES)
_REASON = tag_of("PerformedProcedureStepDiscontinuationReasonCodeSequence")
_WORKLIST_STEP = tag_of("ScheduledProcedureStepSequence")
_ROWS = tag_of("Rows")
_SAID_BY_INSTANCES = ("ProtocolName", "SeriesDescription", "PerformingPhysicianName", "OperatorsName")
# What is performed, until somebody says otherwise: by the scheduled step, or the request around it.
_PERFORMED_BY_SCHEDULED = {
    "PerformedStationName": "ScheduledStationName",
    "PerformedLocation": "ScheduledProcedureStepLocation",
    "PerformedProcedureStepDescription": "ScheduledProcedureStepDescription",
    "PerformedProtocolCodeSequence": "ScheduledProtocolCodeSequence",
    "ProcedureCodeSequence": "RequestedProcedureCodeSequence",
    "Modality": "Modality",
    "StudyID": "RequestedProcedureID",
}


def created(items: Sequence[Dataset], aet: str, attributes: Mapping[Any, object]) -> Dataset:
    """The data set of an N-CREATE, of one worklist item, of several that are done in one step, or of none.

    Parameters
    ----------
    aet
        Performed Station AE Title.
    attributes
        Others, and what is to be said instead. Those of scheduled steps go to all of them.

    Raises
    ------
    KeyError, InvalidValueError
        An attribute that there is not, or a value that it can't have.
    """
    now = datetime.datetime.now().replace(microsecond=0)
    given = Dataset(SpecificCharacterSet="ISO_IR 192")
    for key, value in attributes.items():
        given[key] = value
    given, items = given.copy(), [item.copy() for item in items]  # their sequences become ours
    steps = [(step, item) for item in items for step in item.get(_WORKLIST_STEP) or [Dataset()]]
    first = steps[0] if steps else (Dataset(), Dataset())
    report = Dataset(
        SpecificCharacterSet="ISO_IR 192",
        ScheduledStepAttributesSequence=[_taken(_SCHEDULED, given, *step) for step in steps or [first]],
        PerformedProcedureStepID=f"{now:%y%m%d%H%M%S}{os.urandom(2).hex()}",
        PerformedStationAETitle=aet,
        PerformedProcedureStepStartDate=now.date(),
        PerformedProcedureStepStartTime=now.time(),
        PerformedProcedureStepStatus=Status.IN_PROGRESS.value,
        PerformedProcedureStepDiscontinuationReasonCodeSequence=[],  # what is not created can't be set
    )
    for keyword, source in _PERFORMED_BY_SCHEDULED.items():
        if (found := _found(tag_of(source), *first)) is not None:
            report[keyword] = found
    for item in report[SCHEDULED_STEPS]:
        if is_empty(item, tag_of("StudyInstanceUID")):
            item.StudyInstanceUID = new_uid()
    for row in TABLE:
        if row.tag not in report and row.kind != "1":
            _take(report, row, given, *first)
    scheduled = {row.tag for row in _SCHEDULED}
    for element in given:
        if element.tag not in scheduled and element.tag != CHARACTER_SET:
            report.set(element.tag, element.value, element.vr)
    return in_set_of(report, items)


def _taken(rows: Iterable[Row], *sources: Dataset) -> Dataset:
    item = Dataset()
    for row in rows:
        _take(item, row, *sources)
    return item


def _take(target: Dataset, row: Row, *sources: Dataset) -> None:
    """Give it an attribute as the first source has it; empty where none has, if it has to be there."""
    found = _found(row.tag, *sources)
    if found is not None or row.kind in ("1", "2"):
        target[row.tag] = found


def _found(tag: int, *sources: Dataset) -> object:
    return next((source[tag] for source in sources if not is_empty(source, tag)), None)


def in_set_of(report: Dataset, sources: Iterable[Dataset]) -> Dataset:
    """In the character set that the sources have, if it is one and has all; else in UTF-8."""
    for inner in [element.dataset for element in report.walk() if element.tag == CHARACTER_SET]:
        if inner is not report and CHARACTER_SET in inner:  # one may be in several sequences
            del inner[CHARACTER_SET]  # said once, for all
    sets = {bytes(source.element(CHARACTER_SET).raw).strip() for source in sources if CHARACTER_SET in source}
    for candidate in (b"", *(sets if len(sets) == 1 else ())):
        with suppress(InvalidValueError):
            return converted(report, candidate)
    return converted(report, UNICODE)


class Series:
    """The series of a step: of instances that were acquired, or declared."""

    def __init__(self) -> None:
        self._items: dict[str, Dataset] = {}
        self._sources: list[Dataset] = []

    def declare(self, attributes: Mapping[Any, object]) -> str:
        """A series, whether it has instances or not; its UID.

        Raises
        ------
        KeyError, InvalidValueError
            An attribute that there is not, or a value that it can't have.
        """
        given = Dataset(attributes).copy()
        uid = str(given.get("SeriesInstanceUID") or new_uid())
        item = self._items.setdefault(uid, _taken(_SERIES, Dataset(SeriesInstanceUID=uid)))
        for element in given:
            item.set(element.tag, element.value, element.vr)
        return uid

    def add(self, what: Acquired | Iterable[Acquired]) -> None:
        """The series of instances: of files, folders (walked), the bytes of files, or data sets.

        Raises
        ------
        UnparsableError
            A file is none of DICOM.
        MissingValueError
            An instance does not say what it is, or of which series.
        StorageError, OutOfResourcesError
            A file can't be read.
        """
        several = isinstance(what, Iterable) and not isinstance(what, str | bytes | memoryview | Dataset)
        for one in what if several else (what,):  # type: ignore[union-attr]
            if isinstance(one, Dataset):
                self._add(one, "a data set")
            elif isinstance(one, str | os.PathLike):
                for named in files_of([os.fspath(one)]):
                    self._add_file(named.path, found=named.found)
            else:
                self._add(read(one), "an instance")  # type: ignore[arg-type]

    def _add_file(self, path: Path, *, found: bool) -> None:
        try:
            if not found or looks_like_dicom(path):
                self._add(read(path), str(path))
        except OSError as exc:
            raise from_os_error(exc, f"reading {path}") from exc

    def _add(self, instance: Dataset, name: str) -> None:
        uids = []
        for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
            uid = instance.get(keyword)
            if not isinstance(uid, str) or not uid:
                raise MissingValueError(f"{name} has no {keyword}", tag=tag_of(keyword))
            uids.append(uid)
        sop_class, uid, series = uids
        if series not in self._items:
            self.declare(
                {"SeriesInstanceUID": series}
                | {keyword: instance.get(keyword) for keyword in _SAID_BY_INSTANCES if instance.get(keyword)}
            )
            self._sources.append(Dataset(SpecificCharacterSet=instance.get("SpecificCharacterSet")))
        kind = "ReferencedImageSequence"
        if _ROWS not in instance:
            kind = "ReferencedNonImageCompositeSOPInstanceSequence"
        references = self._items[series][kind]
        if not any(reference.ReferencedSOPInstanceUID == uid for reference in references):
            references.append(Dataset(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid))

    def ended(self, status: Status, protocol: str, reason: Reason | None = None) -> Dataset:
        """The data set of the N-SET that ends the step.

        Parameters
        ----------
        protocol
            Protocol Name of series of which nothing tells it; it may not be empty.
        reason
            Why it is discontinued: a code of `REASONS`, or (code, coding scheme, meaning).

        Raises
        ------
        InvalidValueError
            No such reason.
        """
        now = datetime.datetime.now().replace(microsecond=0)
        if not self._items and status is Status.COMPLETED:
            self.declare({})  # there has to be one, though without instances (Table F.7.2-1, note 2)
        items = []
        for series in self._items.values():
            item = series.copy()
            if is_empty(item, tag_of("ProtocolName")):
                item.ProtocolName = item.get("SeriesDescription") or protocol
            items.append(item)
        report = Dataset(
            SpecificCharacterSet="ISO_IR 192",
            PerformedProcedureStepStatus=status.value,
            PerformedProcedureStepEndDate=now.date(),
            PerformedProcedureStepEndTime=now.time(),
            PerformedSeriesSequence=items,
        )
        if reason is not None:
            report.set(_REASON, [reason_item(reason)])
        return in_set_of(report, self._sources)


def reason_item(reason: Reason) -> Dataset:
    """A reason as an item of the Discontinuation Reason Code Sequence. InvalidValueError if there is none."""
    if isinstance(reason, str):
        if reason not in REASONS:
            raise InvalidValueError(
                "no such reason: one of CID 9301, or (code, coding scheme, meaning)",
                value=reason,
                tag=_REASON,
            )
        reason = (reason, "DCM", REASONS[reason])
    code, scheme, meaning = reason
    return Dataset(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
