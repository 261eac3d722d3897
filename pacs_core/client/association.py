"""An association that we request (PS3.8 section 7): made, used, released, aborted.

C-ECHO and C-STORE are its own; Query/Retrieve (`exchange`) is made of `send` and `receive`.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Self

from pacs_core._ext import associate, pdu
from pacs_core._ext.associate import MalformedError
from pacs_core._ext.command import Command, encode_echo_rq, encode_store_rq
from pacs_core._ext.pdu import Event
from pacs_core.client.refusals import CONTEXT_RESULTS, abort_words, rejection_words
from pacs_core.client.remote import Remote
from pacs_core.client.sources import Part, part_of_bytes, part_of_file
from pacs_core.client.transport import InterruptedTransportError, Transport, connect
from pacs_core.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_core.errors import AssociationError, from_os_error

if TYPE_CHECKING:
    from typing_extensions import Buffer

VERIFICATION = "1.2.840.10008.1.1"
MOST_CONTEXTS = 128
"""Presentation contexts of one association: their IDs are odd and one byte (PS3.8 9.3.2.2)."""

_C_STORE_RSP = 0x8001
_C_ECHO_RSP = 0x8030

_CONTROL = re.compile(r"[^\x20-\x7e]")


class Answer(NamedTuple):
    """A response: its status, and what the peer says about it (Error Comment, Offending Element)."""

    status: int
    comment: str = ""
    offending_elements: tuple[int, ...] = ()


class Association:
    """One association, requested by us; made when the constructor returns. A context manager that releases.

    Parameters
    ----------
    remote
        Whom to call.
    contexts
        Pairs of abstract syntax and its transfer syntaxes, 128 at most; each becomes one presentation
        context, of which the peer accepts one transfer syntax.
    receives
        The SOP classes of which the peer is to send us instances: for them we are the SCP (PS3.7 D.3.3.4).
    extended
        What to ask for by SOP Class Extended Negotiation (PS3.7 D.3.3.5), by SOP class.

    Attributes
    ----------
    extended : dict[str, bytes]
        What the peer agreed to of that.
    accepted : dict[tuple[str, str], int]
        (abstract syntax, transfer syntax) → the ID of the context.
    contexts : dict[int, tuple[str, str]]
        The same the other way round.
    refused : dict[tuple[str, str], str]
        What was proposed and not accepted, and why, in the words of PS3.8 9.3.3.2.

    Raises
    ------
    AssociationError
        No association; the message names the peer and, for a rejection, result, source and reason.
    ValueError
        An AE title, a UID or the number of contexts is impossible.
    """

    def __init__(
        self,
        remote: Remote,
        contexts: Sequence[tuple[str, Sequence[str]]],
        *,
        receives: Iterable[str] = (),
        extended: Mapping[str, bytes] | None = None,
    ) -> None:
        if not 0 < len(contexts) <= MOST_CONTEXTS:
            raise ValueError(f"1 to {MOST_CONTEXTS} presentation contexts, not {len(contexts)}")
        self.remote = remote
        self.accepted: dict[tuple[str, str], int] = {}
        self.contexts: dict[int, tuple[str, str]] = {}
        self.refused: dict[tuple[str, str], str] = {}
        self.extended: dict[str, bytes] = {}
        self._message_id = 0
        self._open = False
        proposed = {2 * n + 1: context for n, context in enumerate(contexts)}
        request = associate.encode_request(
            called_ae_title=remote.aec,
            calling_ae_title=remote.aet,
            contexts=[(ident, abstract, syntaxes) for ident, (abstract, syntaxes) in proposed.items()],
            maximum_length=remote.maximum_pdu,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            roles=dict.fromkeys(receives, (False, True)),
            extended=extended or {},
            user_identity=remote.user_identity,
        )
        self._transport = self._connect()
        try:
            self._negotiate(request, proposed)
        except BaseException:
            self._transport.close()
            raise

    def _connect(self) -> Transport:
        remote = self.remote
        try:
            return connect(
                remote.host,
                remote.port,
                tls=remote.tls,
                tls_name=remote.tls_name,
                connect_timeout=remote.timeouts.connect,
                write_timeout=remote.timeouts.write,
                maximum_pdu=remote.maximum_pdu,
            )
        except ssl.SSLError as exc:
            why = getattr(exc, "verify_message", None) or exc.reason or exc
            raise AssociationError(f"no TLS with {remote}: {why}") from exc
        except TimeoutError as exc:
            raise AssociationError(
                f"no connection to {remote}: no answer in {remote.timeouts.connect:g} seconds"
            ) from exc
        except OSError as exc:
            raise AssociationError(f"no connection to {remote}: {exc.strerror or exc}") from exc

    def _negotiate(self, request: bytes, proposed: dict[int, tuple[str, Sequence[str]]]) -> None:
        remote = self.remote
        try:
            self._transport.send_raw(request)
            event = self._transport.receive(remote.timeouts.acse)
        except TimeoutError as exc:
            self._abort(wait=False)
            raise AssociationError(
                f"no association with {remote}: no answer in {remote.timeouts.acse:g} seconds"
            ) from exc
        except OSError as exc:
            raise AssociationError(f"no association with {remote}: {_reason_of(exc)}") from exc
        raw = event.raw or b""
        try:
            if event.kind == pdu.ASSOCIATE_RJ:
                rejection = associate.decode_reject(raw)
                raise AssociationError(
                    f"{remote} rejected the association: {rejection_words(*rejection)}",
                    rejection=rejection,
                )
            if event.kind != pdu.ASSOCIATE_AC:
                self._over(event)
            accept = associate.decode_accept(raw)
        except MalformedError as exc:
            self._abort(source=2, reason=6)
            raise AssociationError(f"no association with {remote}: its answer is malformed: {exc}") from exc
        self.extended = accept.extended
        for ident, (abstract, syntaxes) in proposed.items():
            result, syntax = accept.results.get(ident, (2, ""))
            if result == 0 and syntax in syntaxes:
                self.accepted.setdefault((abstract, syntax), ident)
                self.contexts[ident] = (abstract, syntax)
                continue
            why = "a transfer syntax that was not proposed" if result == 0 else CONTEXT_RESULTS.get(result)
            for one in syntaxes:
                self.refused[abstract, one] = why or f"result {result}"
        try:
            self._transport.begin(sorted(self.contexts), accept.maximum_length)
        except ValueError as exc:
            self._abort(source=2, reason=6)
            raise AssociationError(f"no association with {remote}: {exc}") from exc
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent, as far as we know."""
        return self._open

    # -- services -------------------------------------------------------------------------------------------

    def echo(self) -> Answer:
        """C-ECHO (PS3.7 9.1.5).

        Raises
        ------
        AssociationError
            Verification is not accepted, or the association is lost.
        """
        ident, _ = self.context_of(VERIFICATION, "Verification")
        message_id = self.next_id()
        self.send(ident, encode_echo_rq(message_id))
        return self._answer(message_id, _C_ECHO_RSP)

    def store_file(self, path: str | Path, *, priority: int = 0) -> Answer:
        """C-STORE a file: its data set goes out as it is. Raises as `store` and `part_of_file`."""
        part = part_of_file(Path(path))
        return self.store(part, priority=priority)

    def store_bytes(self, data: Buffer, *, priority: int = 0) -> Answer:
        """C-STORE a file in memory, or a bare data set. Raises as `store` and `part_of_bytes`."""
        return self.store(part_of_bytes(data), priority=priority)

    def store(self, part: Part, *, priority: int = 0, originator: tuple[str, int] | None = None) -> Answer:
        """C-STORE a data set (PS3.7 9.1.1), from file to socket without decoding.

        Parameters
        ----------
        priority
            0 medium, 1 high, 2 low.
        originator
            AE title and message ID of the C-MOVE that this is a part of.

        Raises
        ------
        AssociationError
            No context was accepted for its SOP class and transfer syntax (then the association goes on), or
            the association is lost.
        PacsError
            The file can't be read; when that happens half-way, the association is aborted.
        """
        ident = self.context_for(part)
        message_id = self.next_id()
        title, number = originator or (None, None)
        command = encode_store_rq(
            message_id, part.sop_class_uid, part.sop_instance_uid, priority, title, number
        )
        data = part.padded() or part.data
        if data is not None:
            self.send(ident, command, data)
        else:
            self._send_file(ident, command, part)
        return self._answer(message_id, _C_STORE_RSP)

    def context_for(self, part: Part) -> int:
        """The presentation context for a data set; AssociationError that says why there is none."""
        key = (part.sop_class_uid, part.transfer_syntax_uid)
        ident = self.accepted.get(key)
        if ident is None:
            why = self.refused.get(key, "not proposed")
            raise AssociationError(f"no presentation context for {part.what}: {why} by {self.remote}")
        return ident

    def _send_file(self, ident: int, command: bytes, part: Part) -> None:
        if part.fd is not None:
            self._send_from(part.fd, ident, command, part)
            return
        assert part.path is not None
        self._must_be_open()
        try:
            fd = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise from_os_error(exc, f"opening {part.path}") from exc
        try:
            self._send_from(fd, ident, command, part)
        finally:
            os.close(fd)

    def _send_from(self, fd: int, ident: int, command: bytes, part: Part) -> None:
        try:
            self._transport.send_file(ident, command, fd, part.offset, part.length)
        except EOFError as exc:
            self.abort()
            raise from_os_error(OSError(None, str(exc)), f"reading {part.path or part.what}") from exc
        except OSError as exc:
            if not _of_the_file(fd, part):
                self._lost(exc)
            self.abort()
            raise from_os_error(exc, f"reading {part.path or part.what}") from exc

    # -- messages of other services -------------------------------------------------------------------------

    def context_of(self, sop_class_uid: str, name: str) -> tuple[int, str]:
        """The presentation context of a SOP class, and its transfer syntax.

        Raises
        ------
        AssociationError
            None was accepted, in words that call the class `name`.
        """
        for ident, (abstract, syntax) in self.contexts.items():
            if abstract == sop_class_uid:
                return ident, syntax
        why = next(
            (w for (abstract, _), w in self.refused.items() if abstract == sop_class_uid), "not proposed"
        )
        raise AssociationError(f"{self.remote} does not accept {name}: {why}")

    def next_id(self) -> int:
        """A message ID that was not used lately."""
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def send(self, context_id: int, command: Buffer, data: Buffer | None = None) -> None:
        """Send one message. AssociationError when the association is lost."""
        self._must_be_open()
        try:
            self._transport.send_message(context_id, command, data)
        except OSError as exc:
            self._lost(exc)

    def receive(self, timeout: float | None = None) -> Event:
        """The next MESSAGE or CHUNK, with its command.

        Parameters
        ----------
        timeout
            Seconds without a byte from the peer; None: those of the remote.

        Raises
        ------
        AssociationError
            The association is over: nothing came in time, it was interrupted, or the peer ended or broke it.
        """
        event = self._next(self.remote.timeouts.dimse if timeout is None else timeout)
        if isinstance(event, Event):
            return event
        self._abort()
        raise AssociationError(f"association with {self.remote} aborted: {_reason_of(event)}") from event

    def hear(self, seconds: float) -> Event | None:
        """As `receive`, but None when nothing came in time: the association goes on."""
        event = self._next(seconds)
        return event if isinstance(event, Event) else None

    def _next(self, timeout: float) -> Event | OSError:
        """The next message, or why none came in time."""
        self._must_be_open()
        try:
            event = self._transport.receive(timeout)
        except (TimeoutError, InterruptedTransportError) as exc:
            return exc
        except OSError as exc:
            self._lost(exc)
        if event.kind not in (pdu.MESSAGE, pdu.CHUNK) or event.command is None:
            self._over(event)
        return event

    def misbehaved(self, why: str) -> NoReturn:
        """Abort, for what the peer did; raises AssociationError."""
        self._abort()
        raise AssociationError(f"association with {self.remote} aborted: {why}")

    # -- the end --------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Release (PS3.8 7.2): wait for the peer's word. Does nothing when the association is over.

        A peer that does not answer is hung up on: nothing of what was sent depends on it.
        """
        if not self._open:
            return
        self._open = False
        try:
            self._transport.end(pdu.RELEASING)
            self._transport.send_raw(associate.RELEASE_RQ)
            deadline = time.monotonic() + self.remote.timeouts.acse
            while True:
                event = self._transport.receive(None, deadline)
                if event.kind == pdu.RELEASE_RQ:  # a collision (PS3.8 9.2, Sta9): ours is the first word
                    self._transport.send_raw(associate.RELEASE_RP)
                elif event.kind in (pdu.RELEASE_RP, pdu.ABORT):
                    break
                elif event.kind == pdu.PROTOCOL_ERROR:
                    self._abort(source=2, reason=event.reason)
                    break
        except OSError:
            self._abort(wait=False)
        finally:
            self._transport.close()

    def abort(self) -> None:
        """Abort (PS3.8 7.3), and wait a little for the peer to close. Does nothing when it is over."""
        if self._open:
            self._abort()

    def interrupt(self) -> None:
        """From any thread: whoever waits for an answer here stops and aborts, with an AssociationError."""
        self._transport.interrupt()

    def sever(self) -> None:
        """From any thread: cut the connection, also under a thread that is sending."""
        self._transport.sever()

    def _abort(self, *, source: int = 0, reason: int = 0, wait: bool = True) -> None:
        self._open = False
        try:
            self._transport.send_raw(associate.encode_abort(source, reason))
            self._transport.end(pdu.CLOSING)
            if wait:  # Sta13: who closes with bytes unread resets the connection, and the abort is lost
                self._transport.receive(None, time.monotonic() + self.remote.timeouts.artim)
        except OSError:
            pass
        finally:
            self._transport.close()

    # -- inside ---------------------------------------------------------------------------------------------

    def _must_be_open(self) -> None:
        if not self._open:
            raise AssociationError(f"the association with {self.remote} is over")

    def _answer(self, message_id: int, expected: int) -> Answer:
        command = self.receive().command
        assert command is not None
        if command.command_field != expected or command.message_id_being_responded_to != message_id:
            what = f"a message of type {command.command_field:04X}H"
            self.misbehaved(f"{what} instead of the answer to message {message_id}")
        return self.answer_of(command)

    def answer_of(self, command: Command) -> Answer:
        """What a response says; the association is aborted if it has no status."""
        if command.status is None:
            self.misbehaved("an answer without a status")
        return Answer(command.status, _printable(command.error_comment), command.offending_elements)

    def _over(self, event: Event) -> NoReturn:
        """What came is not a message: end the association, and say why."""
        self._open = False
        remote = self.remote
        if event.kind == pdu.ABORT:
            self._transport.close()
            raise AssociationError(
                f"{remote} aborted the association: {abort_words(event.source, event.reason)}"
            )
        if event.kind == pdu.RELEASE_RQ:
            with suppress(OSError):
                self._transport.send_raw(associate.RELEASE_RP)
            self._transport.close()
            raise AssociationError(f"{remote} released the association")
        self._abort(source=2, reason=event.reason if event.kind == pdu.PROTOCOL_ERROR else 2)
        why = event.text or f"an unexpected PDU or message ({event!r})"
        raise AssociationError(f"association with {remote} aborted, protocol error of the peer: {why}")

    def _lost(self, exc: OSError) -> NoReturn:
        """The connection failed: perhaps the peer said why before."""
        if not self._open:
            raise AssociationError(f"the association with {self.remote} is over") from exc
        self._open = False
        text = f"association with {self.remote} lost: {_reason_of(exc)}"
        with suppress(OSError):
            event = self._transport.receive(0)
            if event.kind == pdu.ABORT:
                words = abort_words(event.source, event.reason)
                text = f"{self.remote} aborted the association: {words}"
        self._transport.close()
        raise AssociationError(text) from exc


def _reason_of(exc: OSError) -> str:
    return exc.strerror or str(exc) or type(exc).__name__


def _of_the_file(fd: int, part: Part) -> bool:
    """Whether it is the file that can't be read any more, not the connection that can't be written to."""
    try:
        os.pread(fd, 1, part.offset)
        os.pread(fd, 1, part.offset + max(0, part.length - 1))
    except OSError:
        return True
    return False


def _printable(text: str) -> str:
    return _CONTROL.sub("?", text)
