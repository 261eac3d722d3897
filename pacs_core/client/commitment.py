"""Storage Commitment SCU, push model (PS3.4 J.3): whether a peer will keep what it was sent.

A request is answered at once, and its result comes later: on the same association, or, where we listen, on
one that the peer makes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pacs_core._ext import pdu
from pacs_core._ext.command import Command, encode
from pacs_core._ext.pdu import Event
from pacs_core.client.association import Answer, Association
from pacs_core.client.exchange import SYNTAXES
from pacs_core.client.listening import listening
from pacs_core.client.remote import Remote
from pacs_core.client.reporting import NAME
from pacs_core.client.sending import Sent, is_buffer, look_at, sources
from pacs_core.client.statuses import PROCESSING_FAILURE, SUCCESS, is_failure, refusal
from pacs_core.dicom.commitment import (
    REQUEST,
    SOP_CLASS,
    SOP_INSTANCE,
    Reference,
    Request,
    Result,
    reason_words,
)
from pacs_core.dicom.operations import RESPONSE, Operation
from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.uids import new_uid
from pacs_core.errors import AssociationError, PacsError, RefusedError

if TYPE_CHECKING:
    from pacs_core.client.sources import Sendable

    Committable = Sendable | tuple[str, str]
    Progress = Callable[["Committed", int], object]

_MOST_REFERENCES = 10_000  # in one request
_LARGEST_RESULT = 1 << 24  # bytes
_TICK = 0.1  # seconds from one look at what came elsewhere to the next


@dataclass(frozen=True, slots=True)
class Committed:
    """What a peer says of one instance.

    Attributes
    ----------
    number : int
        Its place among those that were asked for.
    path : Path | None
        Its file, where it was named by one.
    sop_class_uid, sop_instance_uid : str
        '' when the file could not be read so far.
    reason : int | None
        Failure Reason (PS3.3 C.14.1.1) of one that the peer does not commit to.
    error : PacsError | None
        Why it is not committed, or why that is not known.
    """

    number: int
    path: Path | None
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    reason: int | None = None
    error: PacsError | None = None

    @property
    def committed(self) -> bool:
        """The peer has promised to keep it."""
        return self.error is None


class _Named(NamedTuple):
    number: int
    path: Path | None
    reference: Reference

    def outcome(self, reason: int | None = None, error: PacsError | None = None) -> Committed:
        return Committed(self.number, self.path, *self.reference, reason, error)


def commit(
    remote: Remote,
    what: Committable | Iterable[Committable],
    *,
    timeout: float,
    listen: int | None,
    progress: Progress | None,
) -> Iterator[Committed]:
    """Ask for the commitment of all of `what`; see `Client.commit`."""
    named: list[_Named] = []
    early: list[Committed] = []
    for number, one in enumerate(_named(what)):
        if isinstance(one, Sent):
            if not one.skipped:
                early.append(Committed(number, one.path, "", one.sop_instance_uid, error=one.error))
        else:
            named.append(_Named(number, *one))
    known = len(named) + len(early)

    def told(outcome: Committed) -> Committed:
        if progress is not None:
            progress(outcome, known)
        return outcome

    yield from map(told, early)
    if named:
        yield from map(told, _asked(remote, named, timeout, listen))


def _named(what: Committable | Iterable[Committable]) -> Iterator[tuple[Path | None, Reference] | Sent]:
    """Each instance that is meant, and its file; or why there is none."""
    single = _is_reference(what) or isinstance(what, str | os.PathLike) or is_buffer(what)
    for one in [what] if single else what:  # type: ignore[union-attr]
        if _is_reference(one):
            yield None, Reference(*one)  # type: ignore[misc]
            continue
        for source in sources(one):  # type: ignore[arg-type]
            part = look_at(0, source)
            if isinstance(part, Sent):
                yield part
            else:
                yield part.path, Reference(part.sop_class_uid, part.sop_instance_uid)


def _is_reference(what: object) -> bool:
    return isinstance(what, tuple) and len(what) == 2 and all(isinstance(uid, str) for uid in what)


def _asked(remote: Remote, named: list[_Named], timeout: float, listen: int | None) -> Iterator[Committed]:
    """Outcomes as they come, of requests made over one association."""
    inbox = Inbox()
    with ExitStack() as stack:
        if listen is not None:
            stack.enter_context(listening(listen, remote.aet, inbox.take))
        try:
            conversation = stack.enter_context(_Conversation(remote, inbox))
        except AssociationError as exc:
            yield from (one.outcome(error=exc) for one in named)
            return
        waiting: dict[str, list[_Named]] = {}
        for begin in range(0, len(named), _MOST_REFERENCES):
            group = named[begin : begin + _MOST_REFERENCES]
            references = list(dict.fromkeys(one.reference for one in group))
            request = Request(new_uid(), references)
            error = conversation.ask(request)
            # What got no answer may be in hand all the same, and its result be on its way to where we listen.
            if error is None or (listen is not None and not isinstance(error, RefusedError)):
                waiting[request.transaction_uid] = group
            else:
                yield from (one.outcome(error=error) for one in group)
        deadline = time.monotonic() + timeout
        while waiting:
            results = inbox.results()
            for result in results:
                yield from _outcomes(waiting.pop(result.transaction_uid), result)
            if not results and not conversation.wait(deadline, elsewhere=listen is not None):
                break
        why = conversation.lost or AssociationError(f"no result from {remote} in {timeout:g} seconds")
        for group in waiting.values():
            yield from (one.outcome(error=why) for one in group)


def _outcomes(group: Sequence[_Named], result: Result) -> Iterator[Committed]:
    committed, failed = set(result.committed), dict(result.failed)
    for one in group:
        if one.reference in failed:  # whatever else is said of it
            reason = failed[one.reference]
            yield one.outcome(reason, RefusedError(f"not committed: {reason_words(reason)}"))
        elif one.reference in committed:
            yield one.outcome()
        else:
            yield one.outcome(error=RefusedError("not committed: the result does not name it"))


class Inbox:
    """The results that have come, from whatever thread; only those that are expected are taken."""

    def __init__(self) -> None:
        self._expected: set[str] = set()
        self._results: list[Result] = []
        self._changed = threading.Condition()

    def expect(self, transaction_uid: str) -> None:
        """Take the result of this transaction."""
        with self._changed:
            self._expected.add(transaction_uid)

    def take(self, data: bytes, transfer_syntax_uid: str) -> int:
        """A result as it came; the status to answer. A failure lets the peer try elsewhere, or later."""
        try:
            result = Result.of(read_dataset(data, transfer_syntax_uid, inflate_limit=_LARGEST_RESULT))
        except PacsError:
            return PROCESSING_FAILURE
        with self._changed:
            if result.transaction_uid not in self._expected:
                return PROCESSING_FAILURE
            self._expected.discard(result.transaction_uid)
            self._results.append(result)
            self._changed.notify_all()
        return SUCCESS

    def results(self) -> list[Result]:
        """What has come since this was asked last."""
        with self._changed:
            results, self._results = self._results, []
        return results

    def wait(self, seconds: float) -> None:
        """Wait until something has come."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._results), seconds)


class _Conversation:
    """Requests, and whatever reports come between them, on one association.

    `lost`: why it is over, None while it is not.
    """

    def __init__(self, remote: Remote, inbox: Inbox) -> None:
        self._association = Association(remote, [(SOP_CLASS, SYNTAXES)])
        try:
            self._context_id, self._syntax = self._association.context_of(SOP_CLASS, NAME)
        except AssociationError:
            self._association.release()
            raise
        self.lost: AssociationError | None = None
        self._inbox = inbox
        self._pieces: list[bytes] = []

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None or kind is GeneratorExit:
            self._association.release()
        else:
            self._association.abort()

    def ask(self, request: Request) -> AssociationError | RefusedError | None:
        """N-ACTION; None if the peer has taken the request in hand."""
        if self.lost is not None:
            return self.lost
        self._inbox.expect(request.transaction_uid)
        try:
            answer = self._answer_to(request)
        except AssociationError as exc:
            self.lost = exc
            return exc
        if is_failure(answer.status):
            return refusal(self._association.remote, answer.status, answer.comment)
        return None

    def _answer_to(self, request: Request) -> Answer:
        association = self._association
        message_id = association.next_id()
        command = Operation.N_ACTION.request(
            message_id, SOP_CLASS, SOP_INSTANCE, type_id=REQUEST, has_data_set=True
        )
        association.send(self._context_id, encode(command), request.to_dataset().to_bytes(self._syntax))
        while (answer := self._take(association.receive(), message_id)) is None:
            pass
        return answer

    def wait(self, deadline: float, *, elsewhere: bool) -> bool:
        """Wait a moment for a result, on this association or, if that may be, elsewhere.

        False if none can come any more: it is `deadline`, or the association is over.
        """
        left = deadline - time.monotonic()
        if left <= 0 or (self.lost is not None and not elsewhere):
            return False
        if self.lost is not None:
            self._inbox.wait(left)
            return True
        try:
            event = self._association.hear(min(left, _TICK) if elsewhere else left)
            if event is not None:
                self._take(event, None)
        except AssociationError as exc:
            self.lost = exc
        return True

    def _take(self, event: Event, message_id: int | None) -> Answer | None:
        """The answer to that message if this is it; what else may come is answered."""
        association, command = self._association, event.command
        assert command is not None
        field = command.command_field
        if message_id is not None and (field, command.message_id_being_responded_to) == (
            Operation.N_ACTION | RESPONSE,
            message_id,
        ):
            return association.answer_of(command)
        if field != Operation.N_EVENT_REPORT or command.message_id is None:
            association.misbehaved(f"a message of type {field:04X}H while a result was waited for")
        self._pieces.append(bytes(event.data or b""))
        if sum(map(len, self._pieces)) > _LARGEST_RESULT:
            association.misbehaved("a result that does not end")
        if event.kind == pdu.MESSAGE:
            data, self._pieces = b"".join(self._pieces), []
            self._answer(event.context_id, command, self._inbox.take(data, self._syntax))
        return None

    def _answer(self, context_id: int, command: Command, status: int) -> None:
        response = Operation.N_EVENT_REPORT.response(
            *(command.message_id, status, SOP_CLASS, SOP_INSTANCE), type_id=command.event_type_id
        )
        self._association.send(context_id, encode(response))
