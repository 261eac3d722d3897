"""Modality Performed Procedure Step SCU (PS3.4 F.7): tells a peer that a step began, and how it ended.

Each is told over an association of its own: what lies between may take hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pacs_core.client.association import Association
from pacs_core.client.exchange import SYNTAXES
from pacs_core.client.mpps_reports import Series
from pacs_core.client.operations import perform
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.operations import Operation
from pacs_core.dicom.performed import MPPS, SCHEDULED_STEPS, Status, check_created
from pacs_core.dicom.uids import new_uid
from pacs_core.errors import PacsError

if TYPE_CHECKING:
    from pacs_core.client.mpps_reports import Acquired, Reason
    from pacs_core.client.remote import Remote

_NAME = "Modality Performed Procedure Step"


class PerformedStep:
    """A step that we perform and report to a peer; `Client.mpps` makes them.

    A context manager: entered it begins, left it is COMPLETED, or, when the body raises, DISCONTINUED. If the
    peer can't be told then, that is raised or, when the body raised, noted with it; the step is still IN
    PROGRESS, and `complete` or `discontinue` can be tried again.

    Parameters
    ----------
    remote
        Whom to tell.
    dataset
        What the N-CREATE says; None of a step that has begun already, of which `uid` is given.
    uid
        Its SOP Instance UID; without it a new one.

    Attributes
    ----------
    uid : str
        Its SOP Instance UID: images refer to it in their Referenced Performed Procedure Step Sequence.
    status : Status | None
        What the peer was told last; None before it began.
    """

    def __init__(self, remote: Remote, dataset: Dataset | None = None, uid: str = "") -> None:
        self.uid = uid or new_uid()
        self.dataset = dataset
        self.status = None if dataset is not None else Status.IN_PROGRESS
        self._remote = remote
        self._series = Series()
        self._stopped = False
        self._reason: Reason | None = None

    def __repr__(self) -> str:
        return f"<PerformedStep {self.uid}, {self.status or 'not begun'}>"

    @property
    def study_uids(self) -> tuple[str, ...]:
        """Study Instance UIDs of what was scheduled: what is acquired belongs to one of them."""
        items = () if self.dataset is None else self.dataset[SCHEDULED_STEPS]
        return tuple(dict.fromkeys(str(item.StudyInstanceUID) for item in items))

    def start(self) -> None:
        """N-CREATE.

        Raises
        ------
        MissingAttributeError, MissingValueError
            It does not say all that it has to; nobody was asked.
        AssociationError
            No association, or MPPS is not accepted.
        RefusedError
            The peer did not create it.
        """
        assert self.dataset is not None
        check_created(self.dataset)
        self._tell(Operation.N_CREATE, self.dataset)
        self.status = Status.IN_PROGRESS

    def add(self, what: Acquired | Iterable[Acquired]) -> None:
        """Instances that were acquired in it: files, folders, the bytes of files, data sets; one or many.

        Raises
        ------
        UnparsableError, MissingValueError, StorageError, OutOfResourcesError
            As `Series.add`.
        """
        self._series.add(what)

    def series(self, attributes: Mapping[Any, object] | None = None, /, **keywords: object) -> str:
        """A series of it, by what the Performed Series Sequence says of one; its Series Instance UID.

        Raises
        ------
        KeyError, InvalidValueError
            An attribute that there is not, or a value that it can't have.
        """
        return self._series.declare({**(attributes or {}), **keywords})

    def set(self, attributes: Mapping[Any, object] | None = None, /, **keywords: object) -> None:
        """N-SET attributes while it is in progress.

        Raises
        ------
        KeyError, InvalidValueError
            An attribute that there is not, or a value that it can't have.
        AssociationError, RefusedError
            As `complete`.
        """
        self._tell(Operation.N_SET, Dataset({**(attributes or {}), **keywords}))

    def stop(self, reason: Reason | None = None) -> None:
        """When the body is left, let it be DISCONTINUED, even if it was left in order.

        Parameters
        ----------
        reason
            A code of `client.mpps_reports.REASONS` (CID 9301), or (code, coding scheme, meaning).
        """
        self._stopped, self._reason = True, reason

    def complete(self) -> None:
        """N-SET COMPLETED, with its series: what was added, or else one without instances.

        Raises
        ------
        AssociationError
            No association, or MPPS is not accepted: the step is in progress yet.
        RefusedError
            The peer did not set it.
        """
        self._end(Status.COMPLETED, None)

    def discontinue(self, reason: Reason | None = None) -> None:
        """N-SET DISCONTINUED, with what was added; `reason` as of `stop`.

        Raises
        ------
        InvalidValueError
            No such reason.
        AssociationError, RefusedError
            As `complete`.
        """
        self._end(Status.DISCONTINUED, reason)

    def _end(self, status: Status, reason: Reason | None) -> None:
        self._tell(Operation.N_SET, self._series.ended(status, self._protocol(), reason))
        self.status = status

    def _protocol(self) -> str:
        """What was done, where no instance says so."""
        said = self.dataset if self.dataset is not None else Dataset()
        for keyword in ("PerformedProcedureStepDescription", "Modality"):
            if said.get(keyword):
                return str(said[keyword])
        return "UNKNOWN"

    def _tell(self, operation: Operation, dataset: Dataset) -> None:
        with Association(self._remote, [(MPPS, SYNTAXES)]) as association:
            outcome = perform(association, operation, MPPS, self.uid, dataset, name=_NAME)
        self.uid = outcome.sop_instance_uid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.status is not Status.IN_PROGRESS:
            return  # it was ended in the body
        if exc is None:
            self.discontinue(self._reason) if self._stopped else self.complete()
            return
        try:
            self.discontinue(self._reason)
        except PacsError as failure:
            exc.add_note(f"the performed procedure step {self.uid} is still in progress: {failure}")
