"""A child of the supervisor: started as ``python -m pacs_core.pool.child NAME DESCRIPTOR``.

It runs one function, named by the supervisor, with an `Inbox`: connections come out of it until
there are no more. SIGINT and SIGTERM are ignored here (a terminal or a service manager sends
them to every process of the group); what the supervisor says on the channel counts. When the
supervisor is gone the inbox ends at once, and soon after so does the process.
"""

import os
import pickle
import queue
import resource
import signal
import socket
import sys
import threading
import time
from importlib import import_module
from typing import NamedTuple

from pacs_core.logs import get_logger
from pacs_core.pool.channel import Channel, Kind, Message

log = get_logger("pool.child")

ORPHAN_SECONDS = 5.0
"""What a child has for its own end once the supervisor is gone."""

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
    """What the supervisor hands to this process. `receive` is for one thread, `closed` for any."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._queue: queue.SimpleQueue[Connection | None] = queue.SimpleQueue()
        self._deadline = 0.0
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def ready(self) -> None:
        """Tell the supervisor that connections may come."""
        self._send(Message(Kind.READY))

    def receive(self) -> Connection | None:
        """The next connection, waited for; None once there will be no more: drain, then return."""
        return self._queue.get()

    def closed(self, number: int) -> None:
        """Tell the supervisor that a connection is closed."""
        self._send(Message(Kind.CLOSED, number=number))

    @property
    def remaining(self) -> float:
        """Seconds left to drain in, after `receive` gave None."""
        return max(0.0, self._deadline - time.monotonic())

    def _send(self, message: Message) -> None:
        try:
            self._channel.send(message)
        except OSError:
            return  # the supervisor is gone, which the reader sees and acts on

    def _read(self) -> None:
        while (message := self._channel.receive()) is not None:
            if message.kind is Kind.DRAIN:
                self._deadline = time.monotonic() + message.seconds
                self._queue.put(None)
            elif message.kind is Kind.CONNECTION and message.descriptor is None:
                # The kernel drops a descriptor that this process has no room for (MSG_CTRUNC).
                log.error("connection lost, no descriptor is left for it", number=message.number)
                self.closed(message.number)
            elif message.kind is Kind.CONNECTION:
                address, _, port = message.payload.decode().rpartition(" ")
                self._queue.put(
                    Connection(
                        message.number,
                        socket.socket(fileno=message.descriptor),
                        address,
                        int(port),
                        message.listener,
                        bool(message.flags & OVER_LIMIT),
                    )
                )
        self._deadline = time.monotonic()
        self._queue.put(None)
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
