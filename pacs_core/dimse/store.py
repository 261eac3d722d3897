"""C-STORE SCP (PS3.4 Annex B): a thin handler between the wire and the archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacs_core.archive import Arriving, Ingest, Stored
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
from pacs_core.errors import NotPermittedError, PacsError
from pacs_core.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from pacs_core.archive import Arrival

log = get_logger("dimse.store")


class StoreService:
    """Keeps what arrives; answers success once it is durable and indexed.

    Parameters
    ----------
    may
        Whether the sender of a request may store here.
    """

    def __init__(self, ingest: Ingest, may: Callable[[StoreRequest], bool] = lambda _: True) -> None:
        self._ingest = ingest
        self._may = may

    def store(self, request: StoreRequest, data: Buffer) -> Answer:
        """Keep a data set that is here in full."""
        self._permit(request)
        return answer_of(self._ingest.store(_arriving(request), data))

    def begin(self, request: StoreRequest) -> StoreArrival:
        """Keep a data set while it arrives."""
        self._permit(request)
        return StoreArrival(self._ingest.begin(_arriving(request)))

    def _permit(self, request: StoreRequest) -> None:
        if not self._may(request):
            raise NotPermittedError("this peer may not store here")


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
