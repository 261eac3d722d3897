"""One request of Query/Retrieve and its responses (PS3.7 9.1.2 to 9.1.4, PS3.4 C.4)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from typing import NoReturn

from pacs_core._ext import pdu
from pacs_core._ext.command import Command, encode
from pacs_core._ext.pdu import Event
from pacs_core.client.association import Answer, Association
from pacs_core.client.statuses import PENDING, is_failure, refusal
from pacs_core.dicom import worklist
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.identifier import Asked
from pacs_core.dicom.operations import NO_DATA_SET, RESPONSE
from pacs_core.dicom.query import PATIENT_ROOT, STUDY_ROOT
from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacs_core.errors import AssociationError, UnparsableError

C_STORE_RQ = 0x0001
_C_CANCEL_RQ = 0x0FFF
_FAILED_UIDS = 0x0008_0058
_LARGEST_IDENTIFIER = 1 << 24  # bytes that one may inflate to

SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""The transfer syntaxes that identifiers are offered in."""

_MODELS = {model.top: model for model in (PATIENT_ROOT, STUDY_ROOT)}


class Service(Enum):
    """The services of Query/Retrieve: the command field of their requests (PS3.7 E.1)."""

    FIND = 0x0020
    GET = 0x0010
    MOVE = 0x0021

    def sop_class(self, asked: Asked | worklist.Asked) -> str:
        """The SOP class of the service in the model that is asked."""
        if isinstance(asked, worklist.Asked):
            return worklist.MODALITY_WORKLIST_FIND
        uid: str = getattr(_MODELS[asked.root], self.name.lower())
        return uid

    def words(self, asked: Asked | worklist.Asked) -> str:
        """Service and model, for people."""
        if isinstance(asked, worklist.Asked):
            return f"C-{self.name} in Modality Worklist"
        return f"C-{self.name} in {asked.root.name.title()} Root"


class Exchange:
    """One request, sent when it is made. Iterated, it gives what comes until the final response.

    Those are the pending responses and, of a C-GET, the peer's C-STORE requests: MESSAGE and CHUNK events.

    Attributes
    ----------
    final : Answer | None
        The final response, None before.
    last : Event | None
        The last response: its counters of sub-operations, and its identifier.
    cancelled : bool
        C-CANCEL was sent.

    Raises
    ------
    AssociationError
        The service is not accepted, the association is lost, or the peer does what it must not.
    """

    def __init__(
        self,
        association: Association,
        service: Service,
        asked: Asked | worklist.Asked,
        *,
        destination: str | None = None,
    ) -> None:
        self.final: Answer | None = None
        self.last: Event | None = None
        self.cancelled = False
        self._association = association
        self._service = service
        self._asked = frozenset(element.tag for element in asked.identifier)
        self._timeout: float | None = None
        sop_class = service.sop_class(asked)
        self._context_id, self._syntax = association.context_of(sop_class, service.words(asked))
        self._message_id = association.next_id()
        request = {
            0x0002: sop_class,
            0x0100: service.value,
            0x0110: self._message_id,
            0x0600: destination,
            0x0700: 0,
            0x0800: 1,
        }
        association.send(self._context_id, encode(request), asked.identifier.to_bytes(self._syntax))

    def __iter__(self) -> Iterator[Event]:
        while self.final is None:
            event = self._association.receive(self._timeout)
            command = event.command
            assert command is not None
            if self._service is Service.GET and command.command_field == C_STORE_RQ:
                yield event
                continue
            self._check(command)
            self.last = event
            answer = self._association.answer_of(command)
            if answer.status in PENDING:
                yield event
            else:
                self.final = answer

    def _check(self, command: Command) -> None:
        field, to = command.command_field, command.message_id_being_responded_to
        if field != self._service.value | RESPONSE or to != self._message_id:
            what = f"a message of type {field:04X}H" + (f" to message {to}" if to is not None else "")
            self._association.misbehaved(f"{what} instead of a response to message {self._message_id}")

    def identifier_of(self, event: Event) -> Dataset:
        """The identifier of a response; one without any element that was asked for is garbage."""
        if event.kind == pdu.CHUNK:
            self._association.misbehaved("an identifier that does not end")
        data = bytes(event.data or b"")
        if not data:
            self._association.misbehaved("a pending response without an identifier")
        try:
            identifier = read_dataset(data, self._syntax, inflate_limit=_LARGEST_IDENTIFIER)
        except UnparsableError as exc:
            self._garbage(exc)
        if not any(element.tag in self._asked for element in identifier):
            self._garbage(None)
        return identifier

    def failed_uids(self) -> tuple[str, ...]:
        """Failed SOP Instance UID List of the final response (PS3.4 C.4.2.1.4.2); none that can't be read."""
        data = bytes(self.last.data or b"") if self.last is not None and self.final is not None else b""
        try:
            listed = read_dataset(data, self._syntax, inflate_limit=_LARGEST_IDENTIFIER)
        except UnparsableError:
            return ()
        return tuple(map(str, listed.element(_FAILED_UIDS).values)) if _FAILED_UIDS in listed else ()

    def _garbage(self, cause: UnparsableError | None) -> NoReturn:
        why = f": {cause}" if cause is not None else ""
        self._association.misbehaved(f"an identifier that can't be understood{why}")

    def cancel(self) -> None:
        """C-CANCEL (PS3.7 9.3.2.3), once. The final response is still to come, and others before it."""
        if not self.cancelled and self.final is None:
            self.cancelled = True
            command = {0x0100: _C_CANCEL_RQ, 0x0120: self._message_id, 0x0800: NO_DATA_SET}
            self._association.send(self._context_id, encode(command))

    def break_off(self) -> None:
        """C-CANCEL, and wait for the final response. A peer that goes on all the same is aborted.

        Does nothing if the final response is there, or the association is over.
        """
        if self.final is not None or not self._association.is_open:
            return
        self._timeout = self._association.remote.timeouts.artim
        deadline = time.monotonic() + self._timeout
        with suppress(AssociationError):
            self.cancel()
            for _ in self:
                if time.monotonic() > deadline:
                    self._association.abort()

    def check(self) -> None:
        """Raises RefusedError if the final response is neither success nor a warning."""
        answer = self.final
        if answer is not None and is_failure(answer.status):
            raise refusal(self._association.remote, answer.status, answer.comment)


def matches(association: Association, asked: Asked | worklist.Asked) -> Iterator[Dataset]:
    """C-FIND: an identifier for each match, as they come. Broken off, it cancels.

    Raises
    ------
    AssociationError
        As `Exchange`.
    RefusedError
        The peer refused or failed; after what it found until then.
    """
    exchange = Exchange(association, Service.FIND, asked)
    try:
        for event in exchange:
            yield exchange.identifier_of(event)
    finally:
        exchange.break_off()
    exchange.check()
