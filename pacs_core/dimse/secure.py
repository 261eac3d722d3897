"""The engine over TLS: the same events as `Link`, fed from an `ssl` socket."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

from pacs_core._ext import pdu
from pacs_core._ext.pdu import Engine, Event, fragment

_MOST_SEND = 1 << 20
_PIECE = 1 << 18


class SecureLink(Engine):
    """An engine bound to a TLS socket, with the interface of `pacs_core._ext.link.Link`.

    OpenSSL allows one call at a time on a connection, so one lock covers each read and each write, but
    never a wait: a thread that sends is not kept waiting by one that listens.
    """

    def __init__(
        self, phase: int, *, sock: ssl.SSLSocket, write_timeout: float | None = 60.0, **settings: Any
    ):
        super().__init__(phase, **settings)
        self._sock = sock
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._write_timeout = write_timeout
        self._ssl = threading.Lock()
        self._message = threading.Lock()
        self._gone = False
        self.received = 0
        self._maximum_send = _MOST_SEND
        self._waits = select.poll()
        self._waits.register(sock.fileno(), select.POLLIN)
        self._waits.register(self.wake_fd, select.POLLIN)
        self._stalls = select.poll()
        self._stalls.register(sock.fileno(), select.POLLRDHUP)
        self._stalls.register(self.wake_fd, select.POLLIN)

    @property
    def maximum_send(self) -> int:
        """The peer's Maximum Length Received, 0 for unlimited (PS3.8 D.1)."""
        return self._maximum_send

    @maximum_send.setter
    def maximum_send(self, value: int) -> None:
        if value and value < 8:
            raise ValueError(f"a maximum PDU length of {value} leaves no room for data")
        self._maximum_send = min(value or _MOST_SEND, _MOST_SEND)

    @property
    def fd(self) -> int:
        return self._sock.fileno()

    def handshake(self, deadline: float) -> None:
        """The TLS handshake, until `deadline` of `time.monotonic()`. Raises OSError."""
        while True:
            try:
                with self._ssl:
                    self._sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            poll = select.poll()
            poll.register(self._sock.fileno(), wanted)
            poll.register(self.wake_fd, select.POLLIN)
            self._wait(poll, deadline)
            if time.monotonic() >= deadline:
                raise TimeoutError("no TLS handshake in time")
            if self.woken():
                raise ConnectionAbortedError("stopped during the TLS handshake")

    def receive(self, timeout: float | None = None, deadline: float | None = None) -> Event:
        """As `Link.receive`."""
        until = _earlier(None if timeout is None else time.monotonic() + timeout, deadline)
        while True:
            if self.woken():
                return _event(pdu.WAKE)
            event = self.next_event()
            if event is not None:
                return event
            if self._gone:
                return _event(pdu.CLOSED, "in the middle of a message" if self.in_message else "")
            if self.stalled:
                # Room in the budget is looked for again at each turn; the wait is short, not a wake-up.
                ready = self._wait(self._stalls, _earlier(until, time.monotonic() + 0.02))
                if ready & 1:
                    return _event(pdu.CLOSED)
            else:
                # What the TLS layer holds already is not seen by poll: read first, wait after.
                got = self._read()
                if got:
                    if timeout is not None:
                        until = _earlier(time.monotonic() + timeout, deadline)
                    continue
                if got is None:
                    continue
                self._quick_ack()
                ready = self._wait(self._waits, until)
            if not ready and until is not None and time.monotonic() >= until:
                return _event(pdu.TIMEOUT)

    def _read(self) -> int | None:
        # bytes read; 0: none there; None: the connection is at its end
        try:
            with self._ssl:
                got = self._sock.recv_into(self.get_buffer())
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except (OSError, ValueError):
            got = 0
        if got == 0:
            self._gone = True
            return None
        self.buffer_updated(got)
        self.received += got
        return got

    def _wait(self, poll: select.poll, until: float | None) -> int:
        # bit 0: the socket, bit 1: woken
        milliseconds = None if until is None else max(0, int((until - time.monotonic()) * 1000) + 1)
        ready = 0
        for fd, _ in poll.poll(milliseconds):
            ready |= 2 if fd == self.wake_fd else 1
        return ready

    def _quick_ack(self) -> None:
        if hasattr(socket, "TCP_QUICKACK") and self._sock.family in (socket.AF_INET, socket.AF_INET6):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _write(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        writable = select.poll()
        writable.register(self._sock.fileno(), select.POLLOUT)
        readable = select.poll()
        readable.register(self._sock.fileno(), select.POLLIN)
        limit = None if self._write_timeout is None else int(self._write_timeout * 1000)
        while view:
            poll = writable
            try:
                with self._ssl:
                    sent = self._sock.send(view[:_PIECE])
                view = view[sent:]
                continue
            except ssl.SSLWantReadError:
                poll = readable
            except ssl.SSLWantWriteError:
                pass
            if not poll.poll(limit):
                raise TimeoutError("the peer does not take what we send")

    def send_raw(self, data: Any) -> None:
        """As `Link.send_raw`."""
        with self._message:
            self._write(data)

    def send_now(self, data: Any) -> bool:
        """As `Link.send_now`."""
        if not self._message.acquire(timeout=0.2):
            return False
        try:
            with self._ssl:
                return self._sock.send(data) == len(data)
        except OSError:
            return False
        finally:
            self._message.release()

    def send_message(self, context_id: int, command: Any, data: Any = None) -> None:
        """As `Link.send_message`."""
        self.send_batch(context_id, ((command, data),))

    def send_batch(self, context_id: int, messages: Iterable[tuple[Any, Any]]) -> None:
        """As `Link.send_batch`."""
        pieces: list[bytes] = []
        for command, data in messages:
            pieces += fragment(context_id, command, True, self._maximum_send)
            if data is not None:
                pieces += fragment(context_id, data, False, self._maximum_send)
        with self._message:
            self._write(b"".join(pieces))

    def send_file(self, context_id: int, command: Any, fd: int, offset: int, length: int) -> None:
        """As `Link.send_file`."""
        payload = (self._maximum_send - 6) & ~1
        piece = max(1, _PIECE // payload) * payload
        with self._message:
            self._write(b"".join(fragment(context_id, command, True, self._maximum_send)))
            while True:
                data = os.pread(fd, min(piece, length), offset)
                if len(data) < min(piece, length):
                    raise EOFError("the file is shorter than what was to be sent of it")
                offset += len(data)
                length -= len(data)
                out = bytearray().join(fragment(context_id, data, False, self._maximum_send))
                if length:
                    # `fragment` marked its last piece as the message's last one.
                    last = len(out) - (len(data) - (len(data) - 1) // payload * payload) - 1
                    out[last] &= ~2
                self._write(out)
                if not length:
                    return


def _earlier(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return first if second is None else second
    return min(first, second)


def _event(kind: int, text: str = "") -> Event:
    return Event(kind, text)
