"""How a requestor's bytes get to the peer and back: the native engine on a plain socket, or on TLS.

Both transports have one face. One thread uses a transport; `interrupt` is for all others.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from pacs_core._ext import pdu
from pacs_core._ext.link import Link
from pacs_core._ext.pdu import Engine, Event, fragment

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MOST_SEND = 1 << 20
_PIECE = 1 << 18
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_PDV_HEADER = struct.Struct(">BxLLBB")


class InterruptedTransportError(OSError):
    """Another thread called `interrupt`."""


class Transport(Protocol):
    """What an association needs of its connection.

    Receiving raises TimeoutError, ConnectionError, InterruptedTransportError; sending TimeoutError, OSError.
    """

    @property
    def secure(self) -> bool: ...
    def begin(self, context_ids: list[int], maximum_send: int) -> None:
        """The association is made: messages may come on these contexts, and go out in PDUs of this length."""

    def end(self, phase: int) -> None:
        """It is being released (RELEASING) or is over (CLOSING)."""

    def receive(self, timeout: float | None, deadline: float | None = None) -> Event:
        """The next event; at most `timeout` seconds without a byte from the peer.

        `deadline`: a moment of `time.monotonic()` by which it has to be there, whatever bytes come.
        """

    def send_raw(self, data: Buffer) -> None: ...
    def send_message(self, context_id: int, command: Buffer, data: Buffer | None = None) -> None: ...
    def send_file(self, context_id: int, command: Buffer, fd: int, offset: int, length: int) -> None: ...
    def interrupt(self) -> None:
        """End every wait for the peer's bytes, now and from any thread."""

    def sever(self) -> None:
        """Cut the connection, also under a thread that sends."""

    def close(self) -> None: ...


def connect(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None,
    tls_name: str | None,
    connect_timeout: float,
    write_timeout: float,
    maximum_pdu: int,
) -> Transport:
    """Connect, with the TLS handshake if `tls`; `connect_timeout` is for each of the two. Raises OSError.

    `tls_name` is the name that the peer's certificate must be for, where it is not `host`.
    """
    bare = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
    sock = socket.create_connection((bare, port), timeout=connect_timeout)
    try:
        if tls is None:
            return PlainTransport(sock, write_timeout=write_timeout, maximum_pdu=maximum_pdu)
        secured = tls.wrap_socket(sock, server_hostname=tls_name or bare)
        return SecureTransport(secured, write_timeout=write_timeout, maximum_pdu=maximum_pdu)
    except BaseException:
        sock.close()
        raise


class PlainTransport:
    """The native link: reads, waits and writes without the GIL."""

    secure = False

    def __init__(self, sock: socket.socket, *, write_timeout: float, maximum_pdu: int) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._link = Link(
            pdu.AWAIT_REPLY, fd=sock.fileno(), write_timeout=write_timeout, maximum_pdu=maximum_pdu
        )
        self.send_raw = self._link.send_raw
        self.send_message = self._link.send_message
        self.send_file = self._link.send_file

    def begin(self, context_ids: list[int], maximum_send: int) -> None:
        """See `Transport`."""
        self._link.phase = pdu.TRANSFER
        self._link.accept_contexts(context_ids)
        self._link.maximum_send = maximum_send

    def end(self, phase: int) -> None:
        """See `Transport`."""
        self._link.phase = phase

    def receive(self, timeout: float | None, deadline: float | None = None) -> Event:
        """See `Transport`."""
        event = self._link.receive(timeout, deadline)
        if event.kind == pdu.TIMEOUT:
            raise TimeoutError("no answer in time")
        if event.kind == pdu.CLOSED:
            raise ConnectionResetError(_closed(event.text))
        if event.kind == pdu.WAKE:
            raise InterruptedTransportError("interrupted")
        return event

    def interrupt(self) -> None:
        """See `Transport`."""
        self._link.wake()

    def sever(self) -> None:
        """See `Transport`."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class SecureTransport:
    """The native engine, fed from an `ssl` socket.

    The socket blocks with a timeout: a requestor sends, then waits for the answer, never both at a time.
    """

    secure = True

    def __init__(self, sock: ssl.SSLSocket, *, write_timeout: float, maximum_pdu: int) -> None:
        self._sock = sock
        self._engine = Engine(pdu.AWAIT_REPLY, maximum_pdu=maximum_pdu)
        self._write_timeout = write_timeout
        self._maximum_send = _MOST_SEND
        self._interrupted = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def begin(self, context_ids: list[int], maximum_send: int) -> None:
        """See `Transport`."""
        self._engine.phase = pdu.TRANSFER
        self._engine.accept_contexts(context_ids)
        if maximum_send and maximum_send < 8:
            raise ValueError(f"a maximum PDU length of {maximum_send} leaves no room for data")
        self._maximum_send = min(maximum_send or _MOST_SEND, _MOST_SEND)

    def end(self, phase: int) -> None:
        """See `Transport`."""
        self._engine.phase = phase

    def receive(self, timeout: float | None, deadline: float | None = None) -> Event:
        """See `Transport`."""
        if self._interrupted:
            self._interrupted = False
            raise InterruptedTransportError("interrupted")
        while True:
            event = self._engine.next_event()
            if event is not None:
                return event
            if _QUICK_ACK is not None:
                # A peer with Nagle's algorithm on sends the tail of its answer once we acknowledged the head:
                # at once, not after the kernel's 40 ms.
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            self._sock.settimeout(_patience(timeout, deadline))
            try:
                got = self._sock.recv_into(self._engine.get_buffer())
            except TimeoutError:
                raise TimeoutError("no answer in time") from None
            except (OSError, ValueError) as exc:  # ValueError: closed under us
                if self._interrupted:
                    raise InterruptedTransportError("interrupted") from exc
                raise ConnectionResetError(f"{_closed(None)}: {exc}") from exc
            if got == 0:
                if self._interrupted:
                    raise InterruptedTransportError("interrupted")
                raise ConnectionResetError(_closed(None))
            self._engine.buffer_updated(got)

    def send_raw(self, data: Buffer) -> None:
        """Send bytes as they are."""
        self._sock.settimeout(self._write_timeout)
        try:
            self._sock.sendall(data)
        except TimeoutError:
            raise TimeoutError("the peer does not take what we send") from None
        except ssl.SSLError as exc:
            raise ConnectionResetError(f"{_closed(None)}: {exc}") from exc

    def send_message(self, context_id: int, command: Buffer, data: Buffer | None = None) -> None:
        """See `Transport`."""
        pieces = fragment(context_id, command, True, self._maximum_send)
        if data is not None:
            pieces += fragment(context_id, data, False, self._maximum_send)
        self.send_raw(b"".join(pieces))

    def send_file(self, context_id: int, command: Buffer, fd: int, offset: int, length: int) -> None:
        """See `Transport`. EOFError when the file is too short."""
        payload = (self._maximum_send - 6) & ~1
        out = bytearray().join(fragment(context_id, command, True, self._maximum_send))
        while True:
            size = min(payload, length)
            length -= size
            # PS3.8 9.3.5, E.2: header of the PDU and of its one PDV; bit 1: the last fragment.
            out += _PDV_HEADER.pack(4, size + 6, size + 2, context_id, 0 if length else 2)
            while size:
                data = os.pread(fd, size, offset)
                if not data:
                    raise EOFError("the file is shorter than what was to be sent of it")
                out += data
                size -= len(data)
                offset += len(data)
            if not length or len(out) >= _PIECE:
                self.send_raw(out)
                out.clear()
            if not length:
                return

    def interrupt(self) -> None:
        """See `Transport`."""
        # Only reading: what is left to be sent, an abort, still can be. (SSLSocket's own shutdown would drop
        # the encryption under the other thread.)
        self._interrupted = True
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RD)

    def sever(self) -> None:
        """See `Transport`."""
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Say so to the peer's TLS, without waiting for its word, and close the socket."""
        with suppress(OSError, ValueError):
            self._sock.setblocking(False)
            self._sock.unwrap()
        self._sock.close()


def _patience(timeout: float | None, deadline: float | None) -> float | None:
    """The seconds to wait. A moment, not zero: zero would make the socket one that does not block."""
    left = [] if timeout is None else [timeout]
    if deadline is not None:
        left.append(deadline - time.monotonic())
        if left[-1] <= 0:
            raise TimeoutError("no answer in time")
    return max(min(left), 0.001) if left else None


def _closed(text: str | None) -> str:
    return f"connection closed {text}" if text else "connection closed"
