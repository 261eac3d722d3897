"""Messages between a supervisor and its children, with descriptors, over one Unix socket each.

SOCK_SEQPACKET keeps messages whole, carries descriptors (SCM_RIGHTS) and tells when the other
end is gone. A message is a header, fixed, and a payload.
"""

import array
import select
import socket
import struct
import sys
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct("<BBHQd")  # kind, flags, listener, number, seconds
_ANCILLARY = socket.CMSG_SPACE(array.array("i").itemsize)
LONGEST = 64 * 1024
"""Bytes of a message at most: what the kernel surely passes on in one piece."""


class Kind(IntEnum):
    """What a message says, and which end sends it."""

    START = 1  # supervisor: payload is `start_payload`
    CONNECTION = 2  # supervisor: one accepted descriptor, numbered; payload is the address
    DRAIN = 3  # supervisor: no more connections will come; `seconds` to finish in
    READY = 4  # child: has started, connections may come
    CLOSED = 5  # child: the connection of that number is closed
    REPORT = 6  # child: how it is; payload is for whoever started the supervisor


class Message(NamedTuple):
    """One message; `descriptor` belongs to who received it."""

    kind: Kind
    flags: int = 0
    listener: int = 0
    number: int = 0
    seconds: float = 0.0
    payload: bytes = b""
    descriptor: int | None = None


class Channel:
    """One end. Sends and receives are whole messages; any thread may send."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Two connected sockets for two channels."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send a message; a descriptor in it is duplicated by the kernel and still ours.

        Raises
        ------
        BlockingIOError
            The other end does not read, and this one does not wait.
        OSError
            The other end is gone.
        """
        header = _HEADER.pack(message.kind, message.flags, message.listener, message.number, message.seconds)
        ancillary = []
        if message.descriptor is not None:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [message.descriptor]))]
        self._socket.sendmsg([header, message.payload], ancillary, socket.MSG_NOSIGNAL)

    def receive(self, *, wait: bool = True) -> Message | None:
        """The next message; None when the other end is gone.

        Raises
        ------
        BlockingIOError
            There is none, and this end does not wait, or is not to.
        """
        flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(LONGEST, _ANCILLARY, flags)
        except ConnectionError:
            return None
        if not data:
            return None
        descriptor = None
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptor = int.from_bytes(value[:4], "little")
        kind, flags, listener, number, seconds = _HEADER.unpack_from(data)
        return Message(Kind(kind), flags, listener, number, seconds, data[_HEADER.size :], descriptor)

    def end_reading(self) -> None:
        """Nothing more is read at this end: whoever waits in `receive` gets None."""
        self._socket.shutdown(socket.SHUT_RD)

    def wait_for_end(self) -> None:
        """Return when the other end is gone."""
        poll = select.poll()
        poll.register(self._socket.fileno(), 0)
        while not poll.poll():
            pass

    def close(self) -> None:
        """Close this end; the other one sees it."""
        self._socket.close()

    def set_blocking(self, blocking: bool) -> None:
        """Whether `send` and `receive` wait."""
        self._socket.setblocking(blocking)


def interpreter(module: str, *arguments: str) -> list[str]:
    """The command of a fresh interpreter that runs a module of ours.

    It looks for modules in the working folder only if this process does: a folder with
    somebody's files must not become a source of code.
    """
    here = str(Path.cwd())
    local = any(entry in ("", ".", here) for entry in sys.path)
    return [sys.executable, *([] if local else ["-P"]), "-m", module, *arguments]
