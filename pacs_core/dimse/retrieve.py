"""C-GET and C-MOVE SCP (PS3.4 C.4.2, C.4.3): by unique keys, hierarchical unless relational was negotiated.

A thin handler: identifier in, keys to the archive, instances out.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence

from pacs_core.archive import Archive, Held, Outgoing
from pacs_core.config import Right
from pacs_core.dicom.dataset import Dataset
from pacs_core.dimse.identifier import GET, MOVE, QueryRequest, keys_of, level_of
from pacs_core.dimse.retrieving import C_MOVE_RQ, Sender
from pacs_core.dimse.service import DimseService, Offer, Permit


class RetrieveService(DimseService):
    """Answers C-GET and C-MOVE from an archive.

    Parameters
    ----------
    sender_to
        What sends to the destination of that AE title; None for one that is not known.
    """

    name = "retrieve"

    def __init__(
        self,
        archive: Archive,
        may: Permit = lambda *_: True,
        sender_to: Callable[[str], Sender | None] = lambda _: None,
    ) -> None:
        super().__init__(may)
        self._archive = archive
        self._sender_to = sender_to
        self.outgoing: Callable[[Held, Container[str]], Outgoing] = archive.outgoing

    def offers(self) -> Iterator[Offer]:
        return map(Offer, (*GET, *MOVE))

    def permit(self, request: QueryRequest) -> None:
        """NotPermittedError if the peer may not retrieve here, this way."""
        self.require(request, Right.MOVE if request.command_field == C_MOVE_RQ else Right.GET)

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

    def sender(self, request: QueryRequest) -> Sender | None:
        """What sends to the destination of a C-MOVE; None if that is not known."""
        return self._sender_to(request.move_destination)
