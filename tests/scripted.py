"""A peer that does what a test says, PDU by PDU: the misbehaving acceptor that no toolkit offers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from pacs_core._ext import associate, pdu
from pacs_core._ext.associate import Request, Supported
from pacs_core._ext.command import encode, encode_echo_rsp, encode_store_rsp
from pacs_core._ext.pdu import Engine, Event, fragment

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030


class Caller:
    """One connection, as the acceptor sees it."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.engine = Engine(pdu.AWAIT_REQUEST, maximum_pdu=0, spool_at=1 << 30)
        self.request: Request
        self.longest_send = 16384

    def event(self) -> Event | None:
        """The next event; None when the requestor has closed."""
        while (event := self.engine.next_event()) is None:
            try:
                data = self.sock.recv(self.engine.get_buffer().nbytes)
            except OSError:
                return None
            if not data:
                return None
            view = self.engine.get_buffer()
            view[: len(data)] = data
            del view
            self.engine.buffer_updated(len(data))
        return event

    def await_request(self) -> Request:
        """The A-ASSOCIATE-RQ."""
        event = self.event()
        assert event is not None
        assert event.kind == pdu.ASSOCIATE_RQ
        self.request = associate.decode_request(event.raw or b"")
        return self.request

    def accept(self, *, maximum_length: int = 16384, refusing: Collection[str] = ()) -> None:
        """Read the request and accept every context of it, but for those of some SOP classes."""
        request = self.await_request()
        accepted: dict[str, list[str]] = {}
        for _, abstract, syntaxes in request.contexts:
            if abstract not in refusing:
                accepted.setdefault(abstract, []).extend(syntaxes)
        every = Supported([(abstract, syntaxes, True, True) for abstract, syntaxes in accepted.items()])
        self.engine.phase = pdu.TRANSFER
        self.engine.accept_contexts([ident for ident, _, _ in request.contexts])
        self.send(
            associate.encode_accept(
                request,
                associate.negotiate(every, request),
                maximum_length=maximum_length,
                implementation_class_uid="1.2.3",
                implementation_version_name="SCRIPTED",
            )
        )

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def message(self) -> Event | None:
        """The next message; None when there is none any more, after the last word was said properly."""
        while (event := self.event()) is not None:
            if event.kind == pdu.MESSAGE:
                return event
            if event.kind == pdu.RELEASE_RQ:
                self.send(associate.RELEASE_RP)
            elif event.kind == pdu.ABORT:
                return None
        return None

    def answer(self, event: Event, status: int = 0, *, to: int | None = None, comment: str = "") -> None:
        """Answer a C-ECHO or C-STORE."""
        command = event.command
        assert command is not None
        message_id = command.message_id if to is None else to
        assert message_id is not None
        if command.command_field == C_ECHO_RQ:
            encoded = encode_echo_rsp(message_id, status=status)
        else:
            encoded = encode_store_rsp(
                message_id,
                command.affected_sop_class_uid,
                command.affected_sop_instance_uid,
                status,
                comment or None,
            )
        self.send(b"".join(fragment(event.context_id, encoded, True, self.longest_send)))

    def respond(self, event: Event, status: int, identifier: bytes | None = None, **elements: object) -> None:
        """Answer a request of any kind; `elements` of the response by their number, such as e1020=3."""
        command = event.command
        assert command is not None
        response: dict[int, object] = {
            0x0002: command.affected_sop_class_uid,
            0x0100: command.command_field | 0x8000,
            0x0120: command.message_id,
            0x0800: 0x0101 if identifier is None else 1,
            0x0900: status,
        }
        response |= {int(name[1:], 16): value for name, value in elements.items()}
        self.message_out(event.context_id, encode(response), identifier)  # type: ignore[arg-type]

    def message_out(self, context_id: int, command: bytes, data: bytes | None = None) -> None:
        """Send a message of any kind."""
        pieces = fragment(context_id, command, True, self.longest_send)
        if data is not None:
            pieces += fragment(context_id, data, False, self.longest_send)
        self.send(b"".join(pieces))

    def serve(self, status: int | Callable[[str], int] = 0) -> None:
        """Accept, and answer whatever comes with `status`, or what that makes of the instance's UID."""
        self.accept()
        while (event := self.message()) is not None:
            assert event.command is not None
            uid = event.command.affected_sop_instance_uid
            self.answer(event, status(uid) if callable(status) else status)


class Scripted:
    """Listens, and runs the script for each connection, in a thread of its own."""

    def __init__(self, script: Callable[[Caller], None], port: int = 0) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.callers: list[Caller] = []
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            caller = Caller(sock, len(self.callers))
            self.callers.append(caller)
            thread = threading.Thread(target=self._run, args=(caller,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, caller: Caller) -> None:
        try:
            self._script(caller)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except BaseException as exc:  # noqa: BLE001  raised by `close`
            self.errors.append(exc)
        finally:
            caller.sock.close()

    def close(self) -> None:
        """Stop listening; what went wrong in a script is raised here."""
        # A close alone does not wake the thread in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        if self.errors:
            raise self.errors[0]


@contextmanager
def scripted(script: Callable[[Caller], None]) -> Iterator[Scripted]:
    """A scripted peer for the length of the block."""
    peer = Scripted(script)
    try:
        yield peer
    finally:
        peer.close()
