"""Storage Commitment SCP, push model (PS3.4 J.3): requests are noted and answered, results told later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pacs_core.config import Right
from pacs_core.dicom.commitment import REQUEST, SOP_CLASS, SOP_INSTANCE, Request
from pacs_core.dicom.operations import Operation
from pacs_core.dimse.normalized import NormalizedRequest, Reply
from pacs_core.dimse.reporting import Reporting
from pacs_core.dimse.service import DimseService, Offer, Permit
from pacs_core.dimse.status import UNRECOGNIZED_OPERATION
from pacs_core.errors import NoSuchActionError, NotFoundError, OutOfResourcesError
from pacs_core.lifecycle import Health

if TYPE_CHECKING:
    from pacs_core.dicom.dataset import Dataset
    from pacs_core.dimse.association import Association
    from pacs_core.workflow import Commitments

MOST_REFERENCES = 65_535
"""Instances of one request; of more it has to make several."""


class CommitmentService(DimseService):
    """Notes what peers ask to be committed, durably, and answers; `reporting` does the rest.

    Success says no more than that the request is in hand (J.3.2.1.3).
    """

    name = "commitment"
    sop_classes = frozenset({SOP_CLASS})

    def __init__(self, commitments: Commitments, reporting: Reporting, may: Permit = lambda *_: True) -> None:
        super().__init__(may)
        self._commitments = commitments
        self._reporting = reporting

    def offers(self) -> Iterator[Offer]:
        """SCP. On associations that we request the roles are the other way round."""
        yield Offer(SOP_CLASS)

    def perform(self, request: NormalizedRequest, dataset: Dataset) -> Reply:
        """Note a request (N-ACTION); there is nothing else to ask for.

        Raises
        ------
        NotPermittedError, NotFoundError, NoSuchActionError, InvalidArgumentError
            The peer may not, or asks for what there is not.
        OutOfResourcesError
            More instances than one request, or all together, may have; or no room.
        """
        if request.operation is not Operation.N_ACTION:
            return Reply(status=UNRECOGNIZED_OPERATION)
        self.require(request, Right.COMMIT)
        if request.sop_instance_uid != SOP_INSTANCE:
            raise NotFoundError("requests are for the well-known instance only", uid=request.sop_instance_uid)
        if request.type_id != REQUEST:
            raise NoSuchActionError(f"there is no action {request.type_id}")
        wanted = Request.of(dataset)
        if len(wanted.references) > MOST_REFERENCES:
            raise OutOfResourcesError(f"more than {MOST_REFERENCES} instances in one request")
        transaction, ours = self._commitments.request(
            wanted,
            self._reporting.owner,
            request.calling_ae_title.strip(),
            request.called_ae_title.strip(),
            request.address,
        )
        return Reply(then=lambda: self._reporting.requested(transaction, request.association, begin=ours))

    def established(self, association: Association) -> None:
        """Look whether whoever called can be told something on this association."""
        if any(one[1] == SOP_CLASS and one[2] == 0 for one in association.results) and self._may(
            association.calling_ae_title, association.called_ae_title, association.peer_address, Right.COMMIT
        ):
            self._reporting.established(association)

    # -- the life of what follows a request --------------------------------------------------------------

    def start(self) -> None:
        """Begin with what an earlier process left."""
        self._reporting.start()

    def health(self) -> Health:
        """Whether results are found and told."""
        return self._reporting.health()

    def drain(self, deadline: float) -> None:
        """Finish what is in hand; the rest is found again after the next start."""
        self._reporting.drain(deadline)

    def stop(self) -> None:
        """Let go of everything."""
        self._reporting.stop()
