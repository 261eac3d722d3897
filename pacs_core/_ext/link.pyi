"""The engine on a plain socket: reads, waits and writes without the GIL.

A requestor's life with it:

    sock = socket.create_connection(address)
    link = Link(AWAIT_REPLY, fd=sock.fileno(), maximum_pdu=what_we_offer)
    link.send_raw(a_associate_rq)
    reply = link.receive(deadline=time.monotonic() + 30)   # ASSOCIATE_AC, its PDU in reply.raw
    link.phase = TRANSFER
    link.accept_contexts(accepted_ids)
    link.maximum_send = peers_maximum_length               # 0: unlimited
    link.send_file(context_id, encode_store_rq(…), fd, offset, length)
    response = link.receive(timeout=30)                    # MESSAGE, response.command.status
    link.phase = RELEASING
    link.send_raw(a_release_rq)
    link.receive(timeout=30)                               # RELEASE_RP; then close the socket
"""

from collections.abc import Iterable

from typing_extensions import Buffer, disjoint_base

from pacs_core._ext.buffer import Budget
from pacs_core._ext.pdu import Engine, Event

@disjoint_base
class Link(Engine):
    """An engine bound to a connected TCP socket, which stays the caller's to close.

    One thread at a time receives. Sending is serialised by a lock inside: messages of several threads are
    never mixed. `maximum_send` is the peer's Maximum Length Received, 0 for unlimited (PS3.8 D.1).
    """

    maximum_send: int

    def __init__(
        self,
        phase: int,
        *,
        fd: int,
        write_timeout: float | None = 60.0,
        maximum_pdu: int = 0,
        spool_at: int = 4194304,
        chunk: int = 1048576,
        read_size: int = 262144,
        budget: Budget | None = None,
    ) -> None: ...
    @property
    def fd(self) -> int: ...
    @property
    def received(self) -> int:
        """Bytes read from the socket so far."""

    @property
    def sent(self) -> int:
        """Bytes written to the socket so far."""

    def receive(self, timeout: float | None = None, deadline: float | None = None) -> Event:
        """Wait for the next event, without the GIL.

        `timeout` seconds without a byte from the peer, or the moment `deadline` of `time.monotonic()`,
        give TIMEOUT; `wake` from another thread gives WAKE. A timeout of 0 only looks. The state of a
        message in hand is kept: call again to go on. CLOSED comes for an end or an error of the connection.

        In the main thread a signal's handler runs at once, and what it raises (KeyboardInterrupt) is raised.
        """

    def send_raw(self, data: Buffer) -> None:
        """Send bytes as they are: an association PDU, or fragments made elsewhere."""

    def send_now(self, data: Buffer) -> bool:
        """Send bytes only if the peer takes them now; says whether it did.

        Another thread's message is waited for a fifth of a second: longer, and that thread is stuck.
        """

    def send_message(self, context_id: int, command: Buffer, data: Buffer | None = None) -> None:
        """Send one message: a command set and, unless None, a data set (empty: one empty fragment)."""

    def send_batch(self, context_id: int, messages: Iterable[tuple[Buffer, Buffer | None]]) -> None:
        """Send several messages, pairs of a command set and a data set or None, with as few writes as go.

        Raises TimeoutError when the peer takes nothing for `write_timeout` seconds, OSError when the
        connection is gone. Part of the messages may have been sent then: the association is over.
        """

    def send_file(self, context_id: int, command: Buffer, fd: int, offset: int, length: int) -> None:
        """Send a command set and, as its data set, `length` bytes of an open file from `offset` on.

        The file's own position is not used. Raises as `send_batch` does; OSError also when the file can't be
        read, EOFError when it is too short: the message is incomplete then and the association must go.
        """
