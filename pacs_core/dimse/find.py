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
from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacs_core.dimse.finding import Matches
from pacs_core.dimse.identifier import FIND, QueryRequest, level_of
from pacs_core.dimse.service import DimseService, Offer, Permit
from pacs_core.dimse.status import PENDING, PENDING_WARNING
from pacs_core.errors import InvalidValueError

CHARACTER_SET = 0x00080005
RETRIEVE_AE_TITLE = 0x00080054
INSTANCE_AVAILABILITY = 0x00080056
_UNIVERSAL = frozenset({b"", b"ISO_IR 6", b"ISO_IR 192"})
_TO_CHARACTER_SET = {
    IMPLICIT_VR_LITTLE_ENDIAN: b"\x08\0\x05\0\x0a\0\0\0",
    EXPLICIT_VR_LITTLE_ENDIAN: b"\x08\0\x05\0CS\x0a\0",
}


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
        native = request.transfer_syntax_uid
        if native not in _TO_CHARACTER_SET:
            native = EXPLICIT_VR_LITTLE_ENDIAN
        constants = {
            QUERY_RETRIEVE_LEVEL: ("CS", level.name.encode()),
            RETRIEVE_AE_TITLE: ("AE", self._ae_title.encode()),
            INSTANCE_AVAILABILITY: ("CS", b"ONLINE"),
        }
        chunks = answer.responses(constants, implicit=native == IMPLICIT_VR_LITTLE_ENDIAN)
        sets = identifier.character_set
        if sets not in _UNIVERSAL or native != request.transfer_syntax_uid:
            chunks = _converted(chunks, native, request.transfer_syntax_uid, sets)
        told = answer.unsupported - constants.keys()
        return Matches(PENDING_WARNING if told else PENDING, chunks)


def _converted(chunks: Iterator[list[bytes]], native: str, wanted: str, sets: bytes) -> Iterator[list[bytes]]:
    """Responses in another transfer syntax; those that are not ASCII in the character set, if it has all."""
    foreign = _TO_CHARACTER_SET[native]
    for chunk in chunks:
        yield [
            _in_sets(response, native, wanted, sets if response.startswith(foreign) else b"")
            if native != wanted or response.startswith(foreign)
            else response
            for response in chunk
        ]


def _in_sets(response: bytes, native: str, wanted: str, sets: bytes) -> bytes:
    dataset = read_dataset(response, native)
    if sets not in _UNIVERSAL:
        other = dataset.copy()
        other.set(CHARACTER_SET, sets.decode("ascii", "replace"), "CS")
        try:
            return other.to_bytes(wanted)
        except InvalidValueError:  # it does not have all: UTF-8, then
            pass
    return dataset.to_bytes(wanted)
