"""Modality Worklist SCP (PS3.4 K.6.1): C-FIND on the scheduled procedure steps of an archive.

Responses hold the keys that were asked for, and Study Instance UID; one for each step. What matches is told
in `workflow.selection`. There is no Query/Retrieve Level in this model: one that is there says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from pacs_core.config import Right
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from pacs_core.dicom.worklist import MODALITY_WORKLIST_FIND
from pacs_core.dimse.finding import Matches
from pacs_core.dimse.identifier import QueryRequest
from pacs_core.dimse.service import DimseService, Offer, Permit
from pacs_core.dimse.status import PENDING, PENDING_WARNING
from pacs_core.dimse.telling import native_syntax, told_in
from pacs_core.workflow import Worklist


class WorklistService(DimseService):
    """Answers C-FIND from a worklist."""

    name = "worklist"
    sop_classes = frozenset({MODALITY_WORKLIST_FIND})

    def __init__(self, worklist: Worklist, may: Permit = lambda *_: True) -> None:
        super().__init__(may)
        self._worklist = worklist

    def offers(self) -> Iterator[Offer]:
        return map(Offer, self.sop_classes)

    def find(self, request: QueryRequest, identifier: Dataset) -> Matches:
        """An identifier for each step that matches.

        Raises
        ------
        NotPermittedError
            If the peer may not ask for the worklist here.
        IdentifierError
            If a key is a sequence of several items.
        """
        self.require(request, Right.WORKLIST)
        selection = self._worklist.select(identifier)
        wanted = request.transfer_syntax_uid
        native = native_syntax(wanted)
        chunks = selection.responses(implicit=native == IMPLICIT_VR_LITTLE_ENDIAN)
        told = told_in(chunks, native, wanted, identifier.character_set)
        return Matches(PENDING_WARNING if selection.unsupported else PENDING, told)
