"""The worklist: scheduled procedure steps, kept in the state of an archive until they are removed."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any, Final

from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from pacs_core.dicom.worklist import identifier_of
from pacs_core.errors import NotFoundError
from pacs_core.workflow.selection import Selection
from pacs_core.workflow.state import STEP, STEP_KEY, Change, State
from pacs_core.workflow.step import (
    Step,
    StepId,
    dataset_of,
    keys_of,
    replacing,
    steps_of,
    unpacked,
    with_status,
)

_LAST: Final = b"\0"  # under which the number of the last step stands
_NUMBER: Final = 8
_AT_ONCE: Final = 500  # that are removed in one transaction

Scheduled = Dataset | Mapping[Any, object]
"""What can be scheduled: a data set, or keys and values as `workflow.step.dataset_of` takes them."""


class Worklist:
    """The scheduled procedure steps of an archive (PS3.4 K.6.1).

    A step is named by its Study Instance UID and Scheduled Procedure Step ID: what is scheduled under the
    same name takes the place of what was, in the status that it was in if it says none.

    >>> archive.worklist.schedule(                              # doctest: +SKIP
    ...     PatientName="Doe^Jane", PatientID="7", Modality="CT", ScheduledStationAETitle="CT1",
    ...     ScheduledProcedureStepStartDate="20260105", ScheduledProcedureStepStartTime="0930",
    ...     ScheduledProcedureStepDescription="Head")
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def schedule(self, what: Scheduled | None = None, /, **keywords: object) -> list[StepId]:
        """Keep what a worklist item tells, durably; the names of its steps, one for each item of its
        Scheduled Procedure Step Sequence. Attributes of the step may be given without the sequence.

        Raises
        ------
        MissingValueError, InvalidValueError
            As `workflow.step.steps_of`; nothing is kept then.
        IdentifierError, KeyError, InvalidValueError
            Of keys and values, as `workflow.step.dataset_of`.
        OutOfResourcesError, StorageError
            As `State.change`.
        """
        return self.schedule_all([*([] if what is None else [what]), *([keywords] if keywords else [])])

    def schedule_all(self, several: Iterable[Scheduled]) -> list[StepId]:
        """As `schedule`, of several: all of them, or, if one can't be, none."""
        steps = list(chain.from_iterable(steps_of(_dataset(one)) for one in several))
        if steps:
            self._state.change(lambda change: _keep(change, steps))
        return [step.id for step in steps]

    def get(self, step: tuple[str, str]) -> Dataset:
        """What is kept of a step. NotFoundError if there is none of that name."""
        place = self._state.get(STEP_KEY, StepId(*step).key())
        record = self._state.get(STEP, place) if place is not None else None
        if record is None:
            raise NotFoundError("no such scheduled procedure step", uid=step[0])
        return unpacked(record)

    def select(self, identifier: Dataset) -> Selection:
        """The steps that match an identifier, as `Selection` says, to be told as a C-FIND tells them."""
        return Selection(self._state, identifier)

    def search(self, keys: Mapping[Any, object] | None = None, /, **keywords: object) -> Iterator[Dataset]:
        """All that is kept of the steps that match keys, as of a C-FIND: see `workflow.selection`.

        >>> archive.worklist.search(Modality="CT", PatientName="Doe*")      # doctest: +SKIP

        Raises
        ------
        IdentifierError, KeyError, InvalidValueError
            As `dicom.worklist.identifier_of`, at once.
        """
        selection = self.select(identifier_of({**(keys or {}), **keywords}))
        return (
            read_dataset(record, EXPLICIT_VR_LITTLE_ENDIAN)
            for chunk in selection.records()
            for record in chunk
        )

    def __len__(self) -> int:
        return self._state.entries(STEP)

    def __iter__(self) -> Iterator[Dataset]:
        """All steps, by their start; changes made meanwhile may or may not show."""
        for _, record in self._state.scan(STEP):
            yield unpacked(record)

    def remove(self, step: tuple[str, str]) -> None:
        """Remove a step, durably. NotFoundError if there is none of that name."""
        named = StepId(*step)

        def decide(change: Change) -> bool:
            place = change.get(STEP_KEY, named.key())
            return place is not None and _drop(change, place)

        if not self._state.change(decide):
            raise NotFoundError("no such scheduled procedure step", uid=step[0])

    def remove_before(self, day: datetime.date) -> int:
        """Remove the steps that start before a day, whatever became of them; how many there were."""
        removed = 0
        stop = f"{day:%Y%m%d}".encode()
        while places := [place for place, _ in islice(self._state.scan(STEP, stop=stop), _AT_ONCE)]:
            removed += self._state.change(partial(_drop_all, places=places))
        return removed


def advance(change: Change, steps: Iterable[tuple[str, str]], status: str) -> int:
    """Set Scheduled Procedure Step Status of steps; how many of them there are.

    Parameters
    ----------
    change : Change
        What it is part of.
    steps : iterable of (Study Instance UID, Scheduled Procedure Step ID)
        Each counts once.
    status : str
        A defined term of PS3.3 C.4.10 or, of what is over, COMPLETED or DISCONTINUED.
    """
    found = 0
    for step in {StepId(*step) for step in steps}:
        place = change.get(STEP_KEY, step.key())
        record = change.get(STEP, place) if place is not None else None
        if place is not None and record is not None:
            change.put(STEP, place, with_status(record, status))
            found += 1
    return found


def _dataset(what: Scheduled) -> Dataset:
    return what if isinstance(what, Dataset) else dataset_of(what)


def _keep(change: Change, steps: Iterable[Step]) -> None:
    last = int.from_bytes(change.get(STEP_KEY, _LAST) or b"", "big")
    for step in steps:
        record = step.record
        before = change.get(STEP_KEY, step.id.key())
        if before is not None and (old := change.get(STEP, before)) is not None:
            record = replacing(step, old)
            _drop(change, before)
        last += 1
        place = step.start + last.to_bytes(_NUMBER, "big")
        change.put(STEP, place, record)
        change.put(STEP_KEY, step.id.key(), place)
        for key in step.keys:
            change.put(STEP_KEY, key + place, place)
    change.put(STEP_KEY, _LAST, last.to_bytes(_NUMBER, "big"))


def _drop_all(change: Change, places: Iterable[bytes]) -> int:
    return sum(_drop(change, place) for place in places)


def _drop(change: Change, place: bytes) -> bool:
    """Remove what is kept of a step; whether there was something."""
    record = change.get(STEP, place)
    if record is None:
        return False
    whole = unpacked(record)
    change.delete(STEP, place)
    change.delete(STEP_KEY, StepId.of(whole).key())
    for key in keys_of(whole):
        change.delete(STEP_KEY, key + place)
    return True
