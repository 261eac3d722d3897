"""Modality Performed Procedure Step SCP, and its retrieval (PS3.4 F.7, F.8): requests to `workflow.mpps`."""

from __future__ import annotations

from collections.abc import Iterator

from pacs_core.config import Right
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.operations import Operation
from pacs_core.dicom.performed import MPPS, MPPS_RETRIEVE
from pacs_core.dimse.normalized import NormalizedRequest, Reply
from pacs_core.dimse.service import DimseService, Offer, Permit
from pacs_core.dimse.status import UNRECOGNIZED_OPERATION
from pacs_core.workflow.mpps import Performed


class MppsService(DimseService):
    """Keeps and gives back performed procedure steps."""

    name = "mpps"
    sop_classes = frozenset({MPPS, MPPS_RETRIEVE})

    def __init__(self, steps: Performed, may: Permit = lambda *_: True) -> None:
        super().__init__(may)
        self._steps = steps

    def offers(self) -> Iterator[Offer]:
        return map(Offer, (MPPS, MPPS_RETRIEVE))

    def perform(self, request: NormalizedRequest, dataset: Dataset) -> Reply:
        """Do what a request asks.

        Raises
        ------
        NotPermittedError
            The peer may not use MPPS here.
        PacsError
            As `Performed.create`, `update` and `get`.
        """
        self.require(request, Right.MPPS)
        uid, ours = request.sop_instance_uid, request.sop_class_uid == MPPS
        if request.operation is Operation.N_CREATE and ours:
            return Reply(sop_instance_uid=self._steps.create(dataset, uid))
        if request.operation is Operation.N_SET and ours:
            self._steps.update(uid, dataset)
            return Reply()
        if (
            request.operation is Operation.N_GET
        ):  # some name the class of the step, some that of its retrieval
            return Reply(self._steps.get(uid, request.attributes))
        return Reply(status=UNRECOGNIZED_OPERATION)
