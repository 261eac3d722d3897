"""A peer that speaks bytes: what it sends is up to the test, right or wrong."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES
from pynetdicom.sop_class import CTImageStorage, Verification

from pacs_core._ext import associate
from pacs_core._ext.command import Command, encode_echo_rq, encode_store_rq
from pacs_core.dimse.server import AssociationServer, Wire
from pacs_core.dimse.storage import Answer, StoreRequest

CT = str(CTImageStorage)
ECHO = str(Verification)
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


class Kept:
    """A storage handler that keeps all it gets, and fails when told to."""

    def __init__(self) -> None:
        self.requests: list[StoreRequest] = []
        self.data: list[bytes] = []
        self.chunks: list[int] = []
        self.discarded = 0
        self.answer: Answer | int = 0
        self.fail: Exception | None = None
        self.fail_begin: Exception | None = None
        self.fail_write: Exception | None = None
        self.hold = threading.Event()
        self.hold.set()

    def store(self, request: StoreRequest, data: Any) -> Answer | int:
        self.requests.append(request)
        self.hold.wait(10)
        if self.fail is not None:
            raise self.fail
        self.data.append(bytes(data))
        return self.answer

    def begin(self, request: StoreRequest) -> KeptIncoming:
        self.requests.append(request)
        if self.fail_begin is not None:
            raise self.fail_begin
        return KeptIncoming(self)


class KeptIncoming:
    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.parts: list[bytes] = []

    def write(self, chunk: Any) -> None:
        if self.kept.fail_write is not None:
            raise self.kept.fail_write
        self.parts.append(bytes(chunk))
        self.kept.chunks.append(len(chunk))

    def finish(self) -> Answer | int:
        self.kept.data.append(b"".join(self.parts))
        return self.kept.answer

    def discard(self) -> None:
        self.kept.discarded += 1


@contextlib.contextmanager
def serving(
    ae: AE | None = None, *, handlers: Any = (), ssl_context: Any = None, **settings: Any
) -> Iterator[Any]:
    """A server on a free port; on leaving it nothing of it may be left."""
    if ae is None:
        ae = AE("PACSCORE")
    if not ae.supported_contexts:
        ae.add_supported_context(ECHO)
        ae.add_supported_context(CT, ALL_TRANSFER_SYNTAXES)
    server = ae.make_server(
        ("127.0.0.1", 0),
        server_class=AssociationServer,
        wire=Wire(**settings),
        evt_handlers=list(handlers),
        ssl_context=ssl_context,
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.wire.hurry = True
        server.drain(time.monotonic() + 2)
        thread.join(5)
        assert not thread.is_alive()
        assert server.active == 0


def request(
    contexts: Any = ((1, ECHO, [IMPLICIT]), (3, CT, [IMPLICIT])), called: str = "PACSCORE", **settings: Any
) -> bytes:
    return associate.encode_request(
        called_ae_title=called,
        calling_ae_title=settings.pop("calling", "RAWPEER"),
        contexts=contexts,
        maximum_length=settings.pop("maximum_length", 16384),
        implementation_class_uid="1.2.3",
        implementation_version_name="RAW",
        **settings,
    )


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    return struct.pack(">LBB", len(data) + 2, context_id, control) + data


def p_data(*items: bytes) -> bytes:
    body = b"".join(items)
    return struct.pack(">BBL", 4, 0, len(body)) + body


def store(context_id: int, message_id: int, data: bytes, size: int = 16000, uid: str = "1.2.3") -> bytes:
    out = [p_data(pdv(context_id, 3, encode_store_rq(message_id, CT, uid)))]
    pieces = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
    out += [p_data(pdv(context_id, 2 if i == len(pieces) - 1 else 0, p)) for i, p in enumerate(pieces)]
    return b"".join(out)


def echo(context_id: int = 1, message_id: int = 1) -> bytes:
    return p_data(pdv(context_id, 3, encode_echo_rq(message_id)))


class Peer:
    def __init__(self, server: Any, timeout: float = 5, context: Any = None) -> None:
        sock = socket.create_connection(server.server_address[:2], timeout=timeout)
        self.sock = sock if context is None else context.wrap_socket(sock)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def exactly(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size:
            piece = self.sock.recv(size - len(out))
            if not piece:
                raise EOFError(bytes(out))
            out += piece
        return bytes(out)

    def pdu(self) -> bytes:
        header = self.exactly(6)
        return header + self.exactly(int.from_bytes(header[2:], "big"))

    def associated(self, **settings: Any) -> bytes:
        self.send(request(**settings))
        answer = self.pdu()
        assert answer[0] == 2, answer
        return answer

    def response(self) -> Command:
        """The command of the next message (all ours fit in one PDV here)."""
        answer = self.pdu()
        assert answer[0] == 4, answer
        assert answer[11] == 3
        return Command.decode(answer[12:])

    def released(self) -> None:
        self.send(associate.RELEASE_RQ)
        assert self.pdu() == associate.RELEASE_RP

    def at_end(self) -> bool:
        """Whether the server has closed."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


def until(condition: Any, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
