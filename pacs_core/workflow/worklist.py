"""The worklist: scheduled procedure steps, kept in the state of an archive until they are removed."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, Final

from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.worklist import identifier_of
from pacs_core.errors import NotFoundError
from pacs_core.workflow.state import STEP, STEP_KEY, Change, State
from pacs_core.workflow.step import BY_START, Step, StepId, keys_of, steps_of, unpacked, with_status

_LAST: Final = b"\0"  # under which the number of the last step stands
_NUMBER: Final = 8
_AT_ONCE: Final = 500  # that are removed in one transaction

Scheduled = Dataset | Mapping[Any, object]
"""What can be scheduled: a data set, or keys and values as `dicom.worklist.identifier_of` takes them."""


class Worklist:
    """The scheduled procedure steps of an archive (PS3.4 K.6.1).

    A step is named by its Study Instance UID and Scheduled Procedure Step ID: what is scheduled under the
    same name takes the place of what was.

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
            Of keys and values, as `dicom.worklist.identifier_of`.
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
        number = self._state.get(STEP_KEY, StepId(*step).key())
        record = self._state.get(STEP, number) if number is not None else None
        if record is None:
            raise NotFoundError("no such scheduled procedure step", uid=step[0])
        return unpacked(record)

    def __len__(self) -> int:
        return self._state.entries(STEP)

    def __iter__(self) -> Iterator[Dataset]:
        """All steps, by their start; changes made meanwhile may or may not show."""
        for _, number in self._state.scan(STEP_KEY, BY_START):
            record = self._state.get(STEP, number)
            if record is not None:
                yield unpacked(record)

    def remove(self, step: tuple[str, str]) -> None:
        """Remove a step, durably. NotFoundError if there is none of that name."""
        named = StepId(*step)

        def decide(change: Change) -> bool:
            number = change.get(STEP_KEY, named.key())
            return number is not None and _drop(change, number)

        if not self._state.change(decide):
            raise NotFoundError("no such scheduled procedure step", uid=step[0])

    def remove_before(self, day: datetime.date) -> int:
        """Remove the steps that start before a day, whatever became of them; how many there were."""
        removed = 0
        stop = BY_START + f"{day:%Y%m%d}".encode()
        while True:
            walk = self._state.scan(STEP_KEY, BY_START, stop=stop)
            numbers = [number for _, (_, number) in zip(range(_AT_ONCE), walk, strict=False)]
            if not numbers:
                return removed
            removed += self._state.change(partial(_drop_all, numbers=numbers))


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
        number = change.get(STEP_KEY, step.key())
        record = change.get(STEP, number) if number is not None else None
        if number is not None and record is not None:
            change.put(STEP, number, with_status(record, status))
            found += 1
    return found


def _dataset(what: Scheduled) -> Dataset:
    return what if isinstance(what, Dataset) else identifier_of(what)


def _keep(change: Change, steps: Iterable[Step]) -> None:
    last = int.from_bytes(change.get(STEP_KEY, _LAST) or b"", "big")
    for step in steps:
        before = change.get(STEP_KEY, step.id.key())
        if before is not None:
            _drop(change, before)
        last += 1
        number = last.to_bytes(_NUMBER, "big")
        change.put(STEP, number, step.record)
        change.put(STEP_KEY, step.id.key(), number)
        for key in step.keys:
            change.put(STEP_KEY, key + number, number)
    change.put(STEP_KEY, _LAST, last.to_bytes(_NUMBER, "big"))


def _drop_all(change: Change, numbers: Iterable[bytes]) -> int:
    return sum(_drop(change, number) for number in numbers)


def _drop(change: Change, number: bytes) -> bool:
    """Remove what is kept of a step; whether there was something."""
    record = change.get(STEP, number)
    if record is None:
        return False
    whole = unpacked(record)
    change.delete(STEP, number)
    change.delete(STEP_KEY, StepId.of(whole).key())
    for key in keys_of(whole):
        change.delete(STEP_KEY, key + number)
    return True
