"""C-FIND SCP (PS3.4 C.4.1): hierarchical search on unique keys.

A thin handler: identifier in, keys to the archive, matches out as identifiers in UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)

from pacs_core.archive import Archive
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.dictionary import vr_of
from pacs_core.dicom.packing import packed_text
from pacs_core.dimse.finding import FindRequest
from pacs_core.errors import IdentifierError, NotPermittedError

ROOTS = {
    PatientRootQueryRetrieveInformationModelFind: Level.PATIENT,
    StudyRootQueryRetrieveInformationModelFind: Level.STUDY,
}

CHARACTER_SET = 0x00080005
QUERY_RETRIEVE_LEVEL = 0x00080052
RETRIEVE_AE_TITLE = 0x00080054
INSTANCE_AVAILABILITY = 0x00080056
OURS = frozenset({CHARACTER_SET, QUERY_RETRIEVE_LEVEL, RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY})


class FindService:
    """Answers C-FIND from an archive.

    Parameters
    ----------
    may
        Whether a peer (calling and called AE title, address) may query here.
    """

    sop_classes = frozenset(map(str, ROOTS))

    def __init__(
        self,
        archive: Archive,
        ae_title: str,
        may: Callable[[str, str, str], bool] = lambda *_: True,
    ) -> None:
        self._archive = archive
        self._ae_title = ae_title
        self._may = may

    def find(self, request: FindRequest, identifier: Dataset) -> Iterator[Dataset]:
        """An identifier for each match.

        Raises
        ------
        NotPermittedError
            If the peer may not query here.
        IdentifierError
            If the identifier does not match its SOP class: level or unique keys (C.4.1.3).
        """
        if not self._may(request.calling_ae_title, request.called_ae_title, request.address):
            raise NotPermittedError("this peer may not query here")
        root = ROOTS[request.sop_class_uid]
        level = _level(identifier, root)
        wanted = frozenset(element.tag for element in identifier)
        for match in self._archive.find(level, _keys(identifier), wanted=wanted, hierarchy=root):
            yield self._response(match, level)

    def _response(self, match: Mapping[int, str], level: Level) -> Dataset:
        """An identifier: the requested keys that we hold, and what goes with them (C.4.1.1.3.2)."""
        ds = Dataset()
        ds.set(CHARACTER_SET, "ISO_IR 192", "CS")
        for tag, value in match.items():
            if tag not in OURS:
                vr = vr_of(tag)
                ds._put(tag, vr, packed_text(vr, value))
        ds.set(QUERY_RETRIEVE_LEVEL, level.name, "CS")
        ds.set(RETRIEVE_AE_TITLE, self._ae_title, "AE")
        ds.set(INSTANCE_AVAILABILITY, "ONLINE", "CS")
        return ds


def _keys(identifier: Dataset) -> dict[int, str]:
    """The identifier's UIDs and Patient ID, as text."""
    return {
        element.tag: "\\".join(element.values)
        for element in identifier
        if element.vr == "UI" or element.keyword == "PatientID"
    }


def _level(identifier: Dataset, root: Level) -> Level:
    """Query/Retrieve Level, one of those that the information model has (C.6.1, C.6.2)."""
    level = Level.__members__.get(str(identifier.get(QUERY_RETRIEVE_LEVEL, "")))
    if level is None or level < root:
        raise IdentifierError("no such Query/Retrieve Level in this model", tag=QUERY_RETRIEVE_LEVEL)
    return level
