"""C-FIND SCP (PS3.4 C.4.1): what is asked becomes a query, what matches becomes responses.

Responses hold the keys that were asked for as far as the index has them at the level or above, the level
itself, Retrieve AE Title and Instance Availability (C.4.1.1.3.2). They are in the character set of the
identifier if it names one that has what they say; otherwise in UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterator

from pacs_core.archive import Archive
from pacs_core.config import Right
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.query import QUERY_RETRIEVE_LEVEL, Negotiated, query_of
from pacs_core.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN
from pacs_core.dimse.finding import Matches
from pacs_core.dimse.identifier import FIND, QueryRequest, level_of
from pacs_core.dimse.service import DimseService, Offer, Permit
from pacs_core.dimse.status import PENDING, PENDING_WARNING
from pacs_core.dimse.telling import native_syntax, told_in

RETRIEVE_AE_TITLE = 0x00080054
INSTANCE_AVAILABILITY = 0x00080056


class FindService(DimseService):
    """Answers C-FIND from an archive."""

    name = "find"
    sop_classes = frozenset(FIND)

    def __init__(self, archive: Archive, ae_title: str, may: Permit = lambda *_: True) -> None:
        super().__init__(may)
        self._archive = archive
        self._ae_title = ae_title

    def offers(self) -> Iterator[Offer]:
        return map(Offer, FIND)

    def find(self, request: QueryRequest, identifier: Dataset) -> Matches:
        """An identifier for each match.

        Raises
        ------
        NotPermittedError
            If the peer may not query here.
        IdentifierError
            If the identifier does not match its SOP class: level or unique keys (C.4.1.3).
        """
        self.require(request, Right.FIND)
        model = FIND[request.sop_class_uid]
        level = level_of(identifier, model)
        query = query_of(identifier, level, model.top, Negotiated.of(request.extended))
        answer = self._archive.search(query)
        native = native_syntax(request.transfer_syntax_uid)
        constants = {
            QUERY_RETRIEVE_LEVEL: ("CS", level.name.encode()),
            RETRIEVE_AE_TITLE: ("AE", self._ae_title.encode()),
            INSTANCE_AVAILABILITY: ("CS", b"ONLINE"),
        }
        chunks = answer.responses(constants, implicit=native == IMPLICIT_VR_LITTLE_ENDIAN)
        chunks = told_in(chunks, native, request.transfer_syntax_uid, identifier.character_set)
        told = answer.unsupported - constants.keys()
        return Matches(PENDING_WARNING if told else PENDING, chunks)
