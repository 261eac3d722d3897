"""A child of the supervisor: started as ``python -m pacs_core.pool.child NAME DESCRIPTOR``.

It runs one function, named by the supervisor, with an `Inbox`, which serves connections until
there are no more. SIGINT and SIGTERM are ignored here (a terminal or a service manager sends
them to every process of the group); what the supervisor says on the channel counts. When the
supervisor is gone the inbox ends at once, and soon after so does the process.
"""

import contextlib
import os
import pickle
import resource
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from pacs_core.logs import get_logger
from pacs_core.pool.channel import Channel, Kind, Message

log = get_logger("pool.child")

ORPHAN_SECONDS = 5.0
"""What a child has for its own end once the supervisor is gone."""

_SPARE = 2
"""Threads that wait for connections while nobody else does."""

OVER_LIMIT = 1
"""Flag of a connection beyond the limits: to be refused in the words of its protocol."""


class Connection(NamedTuple):
    """A connection handed over: the socket is the receiver's to close, before `Inbox.closed`."""

    number: int
    socket: socket.socket
    address: str
    port: int
    listener: int
    over_limit: bool


class Inbox:
    """What the supervisor hands to this process. `serve` is for one thread, `closed` for any."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._deadline = 0.0
        self._handle: Callable[[Connection], object]
        self._lock = threading.Lock()
        self._waiting = 0  # threads that wait for a connection
        self._kept: deque[Message] = deque()  # connections that came while nobody waited
        self._unheard = threading.Event()  # nobody waits, and no thread could be had for it
        self._over = threading.Event()

    def ready(self) -> None:
        """Tell the supervisor that connections may come."""
        self._send(Message(Kind.READY))

    def serve(self, handle: Callable[[Connection], object]) -> None:
        """Call `handle` for each connection; return once there will be no more: drain, then return.

        Each call has a thread of its own, the one that waited for the connection: nobody passes it on. Where
        no thread can be had any more, connections wait until a call has ended; that there will be no more is
        heard all the same.
        """
        self._handle = handle
        for _ in range(_SPARE):
            self._one_more()
        while not self._over.is_set():
            self._unheard.wait()
            self._unheard.clear()
            while not self._over.is_set() and self._hear():
                self._over.wait(0.1)

    def _hear(self) -> bool:
        """If nobody waits, take what has come; whether that is so."""
        with self._lock:
            if self._waiting:
                return False
            try:
                message = self._channel.receive(wait=False)
            except BlockingIOError:
                message = Message(Kind.START)  # nothing that matters
            if message is not None and message.kind is Kind.CONNECTION:
                self._kept.append(message)
        if message is None or message.kind is Kind.DRAIN:
            self.end(0.0 if message is None else message.seconds)
        else:
            self._one_more()
        return True

    def closed(self, number: int) -> None:
        """Tell the supervisor that a connection is closed."""
        self._send(Message(Kind.CLOSED, number=number))

    def report(self, payload: bytes) -> None:
        """Tell whoever started the supervisor how this process is; the last word counts."""
        self._send(Message(Kind.REPORT, payload=payload))

    @property
    def remaining(self) -> float:
        """Seconds left to drain in, after `serve` returned."""
        return max(0.0, self._deadline - time.monotonic())

    def _send(self, message: Message) -> None:
        try:
            self._channel.send(message)
        except OSError:
            return  # the supervisor is gone, which whoever waits sees and acts on

    def _one_more(self) -> None:
        """Have one more thread wait."""
        with self._lock:
            self._waiting += 1
        try:
            threading.Thread(target=self._take, name="connection", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._waiting -= 1
            self._unheard.set()

    def _next(self) -> Message | None:
        with self._lock:
            if self._kept:
                return self._kept.popleft()
        return self._channel.receive()

    def _take(self) -> None:
        while True:
            message = self._next()
            if message is None or message.kind is Kind.DRAIN:
                self.end(0.0 if message is None else message.seconds)
                return
            if message.kind is not Kind.CONNECTION:
                continue
            with self._lock:
                self._waiting -= 1
                nobody_waits = not self._waiting
            if nobody_waits:
                self._one_more()
            self._serve(message)
            with self._lock:
                if self._waiting >= _SPARE:
                    return
                self._waiting += 1

    def _serve(self, message: Message) -> None:
        if message.descriptor is None:
            # The kernel drops a descriptor that this process has no room for (MSG_CTRUNC).
            log.error("connection lost, no descriptor is left for it", number=message.number)
            self.closed(message.number)
            return
        address, _, port = message.payload.decode().rpartition(" ")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        # With all of it given the system is not asked what kind of socket it is.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=message.descriptor)
        over_limit = bool(message.flags & OVER_LIMIT)
        connection = Connection(message.number, sock, address, int(port), message.listener, over_limit)
        try:
            self._handle(connection)
        except Exception as exc:
            log.error("connection lost", address=address, exc_info=exc)
            sock.close()
            self.closed(message.number)

    def end(self, seconds: float) -> None:
        """Take no more connections: told to by the supervisor, or because this process can't go on."""
        with self._lock:
            if self._over.is_set():
                return
            self._deadline = time.monotonic() + seconds
            self._over.set()
        self._unheard.set()
        self._channel.end_reading()
        with contextlib.suppress(RuntimeError):  # no thread left: then it ends only by itself
            threading.Thread(target=self._outlive, name="orphan", daemon=True).start()

    def _outlive(self) -> None:
        """Once the supervisor is gone, end; not at once, there may be messages in hand."""
        self._channel.wait_for_end()
        time.sleep(ORPHAN_SECONDS)
        os._exit(1)


def start_payload(target: str, argument: object) -> bytes:
    """What `main` needs: where modules are found, ``module:function``, and its argument."""
    return pickle.dumps((list(sys.path), target, pickle.dumps(argument)))


def main() -> None:
    """Run the function that the supervisor names, to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Each connection is a descriptor, and the usual soft limit of 1,024 is for select().
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    channel = Channel(socket.socket(fileno=int(sys.argv[2])))
    start = channel.receive()
    if start is None:
        return
    # Both ends are this program, and the socket pair is open to nobody else.
    path, target, argument = pickle.loads(start.payload)
    sys.path[:] = path
    module, _, name = target.partition(":")
    function = getattr(import_module(module), name)
    function(Inbox(channel), pickle.loads(argument))


if __name__ == "__main__":
    main()
