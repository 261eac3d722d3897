"""C-STORE SCP (PS3.4 Annex B): a thin handler between the wire and the archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetdicom import AllStoragePresentationContexts

from pacs_core.archive import Archive, Arriving, Stored
from pacs_core.config import Right
from pacs_core.dicom.uids import STORABLE
from pacs_core.dimse.service import DimseService, Offer, Permit
from pacs_core.dimse.status import (
    DATA_SET_DOES_NOT_MATCH_WARNING,
    ELEMENTS_DISCARDED,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SUCCESS,
    comment_of,
    status_of,
)
from pacs_core.dimse.storage import Answer, StoreRequest
from pacs_core.errors import PacsError
from pacs_core.lifecycle import Health
from pacs_core.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

    from pacs_core.archive import Arrival

log = get_logger("dimse.store")


class StoreService(DimseService):
    """Keeps what arrives; answers success once it is durable and indexed.

    Parameters
    ----------
    sop_classes
        Storage SOP classes besides those that pynetdicom knows.
    """

    name = "store"

    def __init__(
        self, archive: Archive, may: Permit = lambda *_: True, sop_classes: Iterable[str] = ()
    ) -> None:
        super().__init__(may)
        self._archive = archive
        self._ingest = archive.ingest
        self._sop_classes = tuple(sop_classes)

    def offers(self) -> Iterator[Offer]:
        """SCP for what is sent to us, SCU for what a C-GET brings (PS3.4 C.5.3, PS3.7 D.3.3.4)."""
        known = (str(context.abstract_syntax) for context in AllStoragePresentationContexts)
        for uid in dict.fromkeys([*known, *self._sop_classes]):
            yield Offer(uid, STORABLE, both_roles=True)

    def health(self) -> Health:
        trouble = self._archive.trouble()
        return Health(not trouble, trouble)

    def store(self, request: StoreRequest, data: Buffer) -> Answer:
        """Keep a data set that is here in full."""
        self.require(request, Right.STORE)
        return answer_of(self._ingest.store(_arriving(request), data))

    def begin(self, request: StoreRequest) -> StoreArrival:
        """Keep a data set while it arrives."""
        self.require(request, Right.STORE)
        return StoreArrival(self._ingest.begin(_arriving(request)))


class StoreArrival:
    """A large instance on its way in."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival

    def write(self, chunk: Buffer) -> None:
        """The next bytes."""
        self._arrival.write(chunk)

    def finish(self) -> Answer:
        """All has come."""
        return answer_of(self._arrival.finish())

    def discard(self) -> None:
        """The rest will not come."""
        self._arrival.discard()


def answer_of(stored: Stored) -> Answer:
    """The response for what was kept: Success, or a warning of PS3.4 B.2.3."""
    if stored.mismatch:
        return Answer(DATA_SET_DOES_NOT_MATCH_WARNING, "kept, but its SOP class is not the request's")
    if stored.discarded:
        return Answer(ELEMENTS_DISCARDED, "kept without its elements of groups 0000 and 0002")
    return Answer(SUCCESS)


def failure_of(error: Exception) -> Answer:
    """The response for what was not kept, and its line in the log."""
    status = status_of(error)
    if isinstance(error, PacsError):
        # Ours to mend, or the sender's.
        say = log.error if status in (OUT_OF_RESOURCES, PROCESSING_FAILURE) else log.warning
        say("instance not kept", status=f"{status:04X}", why=str(error))
        elements = () if error.tag is None else (error.tag,)
        return Answer(status, comment_of(error), elements)
    log.error("instance not kept", status=f"{status:04X}", exc_info=error)
    return Answer(status, comment_of(error))


def _arriving(request: StoreRequest) -> Arriving:
    return Arriving(
        request.sop_class_uid,
        request.sop_instance_uid,
        request.transfer_syntax_uid,
        request.calling_ae_title,
    )
