"""C-FIND SCP (PS3.4 C.4.1): hierarchical search on unique keys.

A thin handler: identifier in, keys to the archive, matches out as identifiers in UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
)

from pacs_core.archive import Archive
from pacs_core.dicom.attributes import Level
from pacs_core.dimse.status import CANCELLED, PENDING, comment_of, status_of
from pacs_core.errors import IdentifierError, NotPermittedError, PacsError
from pacs_core.logs import get_logger

log = get_logger("dimse.find")

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
    """Answers C-FIND from an archive; `handle` is bound to `evt.EVT_C_FIND`.

    Parameters
    ----------
    may
        Whether a peer (calling and called AE title, address) may query here.
    """

    def __init__(
        self,
        archive: Archive,
        ae_title: str,
        may: Callable[[str, str, str], bool] = lambda *_: True,
    ) -> None:
        self._archive = archive
        self._ae_title = ae_title
        self._may = may

    def handle(self, event: Any) -> Iterator[tuple[int | Dataset, Dataset | None]]:
        """Pending responses, one a match; the final Success is pynetdicom's to send."""
        try:
            assoc = event.assoc
            if not self._may(assoc.calling_ae_title, assoc.called_ae_title, assoc.peer_address):
                raise NotPermittedError("this peer may not query here")
            root = ROOTS[event.request.AffectedSOPClassUID]
            identifier = event.identifier
            level = _level(identifier, root)
            wanted = frozenset(int(element.tag) for element in identifier)
            for match in self._archive.find(level, _keys(identifier), wanted=wanted, hierarchy=root):
                if event.is_cancelled:
                    yield CANCELLED, None
                    return
                yield PENDING, self._response(match, level)
        except PacsError as exc:
            log.warning("query refused", why=str(exc))
            failure = Dataset()
            failure.Status = status_of(exc)
            failure.ErrorComment = comment_of(exc)
            yield failure, None

    def _response(self, match: Mapping[int, str], level: Level) -> Dataset:
        """An identifier: the requested keys that we hold, and what goes with them (C.4.1.1.3.2)."""
        ds = Dataset()
        ds.SpecificCharacterSet = "ISO_IR 192"
        for tag, value in match.items():
            if tag not in OURS:
                ds.add_new(tag, dictionary_VR(tag), value.split("\\") if "\\" in value else value)
        ds.QueryRetrieveLevel = level.name
        ds.RetrieveAETitle = self._ae_title
        ds.InstanceAvailability = "ONLINE"
        return ds


def _keys(identifier: Dataset) -> dict[int, str]:
    """The identifier's UIDs and Patient ID, as text."""
    found = {}
    for element in identifier:
        if element.VR == "UI" or element.keyword == "PatientID":
            value = element.value or ""
            found[int(element.tag)] = value if isinstance(value, str) else "\\".join(map(str, value))
    return found


def _level(identifier: Dataset, root: Level) -> Level:
    """Query/Retrieve Level, one of those that the information model has (C.6.1, C.6.2)."""
    level = Level.__members__.get(str(identifier.get("QueryRetrieveLevel", "")))
    if level is None or level < root:
        raise IdentifierError("no such Query/Retrieve Level in this model", tag=QUERY_RETRIEVE_LEVEL)
    return level
