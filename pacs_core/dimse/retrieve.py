"""C-GET and C-MOVE SCP (PS3.4 C.4.2, C.4.3): by unique keys, hierarchical unless relational was negotiated.

A thin handler: identifier in, keys to the archive, instances out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from pacs_core.archive import Archive, Held, Outgoing
from pacs_core.config import Service
from pacs_core.dicom.dataset import Dataset
from pacs_core.dimse.identifier import GET, MOVE, QueryRequest, keys_of, level_of
from pacs_core.dimse.retrieving import C_MOVE_RQ, Sender
from pacs_core.errors import NotPermittedError


class RetrieveService:
    """Answers C-GET and C-MOVE from an archive.

    Parameters
    ----------
    may
        Whether a peer (calling and called AE title, address) may use a service here.
    sender_to
        What sends to the destination of that AE title; None for one that is not known.
    """

    def __init__(
        self,
        archive: Archive,
        may: Callable[[str, str, str, Service], bool] = lambda *_: True,
        sender_to: Callable[[str], Sender | None] = lambda _: None,
    ) -> None:
        self._archive = archive
        self._may = may
        self._sender_to = sender_to
        self.outgoing: Callable[[Held, Container[str]], Outgoing] = archive.outgoing

    def select(self, request: QueryRequest, identifier: Dataset) -> Sequence[Held]:
        """The instances that a request names.

        Raises
        ------
        IdentifierError
            If the identifier does not match its SOP class: level or unique keys (C.4.2.2.1, C.4.3.2.1).
        OutOfResourcesError
            If they are too many.
        """
        model = (GET | MOVE)[request.sop_class_uid]
        level = level_of(identifier, model)
        hierarchy = None if request.relational else model.top
        return self._archive.retrieve(level, keys_of(identifier), hierarchy=hierarchy)

    def permit(self, request: QueryRequest) -> None:
        """NotPermittedError if the peer may not retrieve here, this way."""
        service = Service.MOVE if request.command_field == C_MOVE_RQ else Service.GET
        if not self._may(request.calling_ae_title, request.called_ae_title, request.address, service):
            raise NotPermittedError(f"this peer may not use C-{service.upper()} here")

    def sender(self, request: QueryRequest) -> Sender | None:
        """What sends to the destination of a C-MOVE; None if that is not known."""
        return self._sender_to(request.move_destination)
