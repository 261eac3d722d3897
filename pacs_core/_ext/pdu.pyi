"""The upper layer's byte side (PS3.8 9.3): PDUs in, DIMSE messages out; no sockets, no services.

Kinds of events:

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RQ, RELEASE_RP   `raw`: the whole PDU
ABORT            `raw`, `source`, `reason` (PS3.8 9.3.8)
MESSAGE          a message is complete: `context_id`, `command`, `data` (None: no data set, or an empty one).
                 With `streamed`, `data` is only what came after the last CHUNK
CHUNK            the next piece of a data set too large to be held: `context_id`, `command`, `data`
PDU              with `trace`: the whole P-DATA-TF PDU in `raw`; what it holds follows
CLOSED           the peer closed, or the connection failed; `text` says if a message was cut off
TIMEOUT, WAKE    nothing came in time; another thread called `wake`
PROTOCOL_ERROR   the peer broke PS3.8: `text` says how, `reason` is the provider reason for the A-ABORT
"""

from collections.abc import Iterable
from typing import Final, final

from typing_extensions import Buffer as BufferLike
from typing_extensions import disjoint_base

from pacs_core._ext.buffer import Budget, Buffer
from pacs_core._ext.command import Command

ASSOCIATE_RQ: Final = 1
ASSOCIATE_AC: Final = 2
ASSOCIATE_RJ: Final = 3
RELEASE_RQ: Final = 5
RELEASE_RP: Final = 6
ABORT: Final = 7
MESSAGE: Final = 8
CHUNK: Final = 9
PDU: Final = 10
CLOSED: Final = 11
TIMEOUT: Final = 12
WAKE: Final = 13
PROTOCOL_ERROR: Final = 14

AWAIT_REQUEST: Final = 1
"""Phase of an acceptor without A-ASSOCIATE-RQ (PS3.8 9.2, Sta2)."""
AWAIT_REPLY: Final = 2
"""Phase of a requestor that sent its A-ASSOCIATE-RQ (Sta5)."""
TRANSFER: Final = 3
"""Phase of an established association (Sta6)."""
RELEASING: Final = 4
"""Phase after we sent A-RELEASE-RQ (Sta7): messages may still come."""
CLOSING: Final = 5
"""Phase in which everything is thrown away until the peer closes (Sta13)."""

@final
class Event:
    """What came out of the engine; which attributes mean something depends on `kind`."""

    def __init__(self, kind: int, text: str | None = None) -> None: ...
    @property
    def kind(self) -> int: ...
    @property
    def context_id(self) -> int: ...
    @property
    def streamed(self) -> bool: ...
    @property
    def source(self) -> int: ...
    @property
    def reason(self) -> int: ...
    @property
    def command(self) -> Command | None: ...
    @property
    def data(self) -> Buffer | None: ...
    @property
    def raw(self) -> bytes | None: ...
    @property
    def text(self) -> str | None: ...

@disjoint_base
class Engine:
    """Bytes in, events out, for one association in either role.

    Feed it with `feed`, or, without a copy, write into `get_buffer()` and tell `buffer_updated` how much;
    then call `next_event` until it gives None. `wake_fd` is an eventfd that `wake` makes readable.

    Parameters (sizes in bytes)
    ----------
    phase
        What may arrive: one of AWAIT_REQUEST … CLOSING.
    maximum_pdu
        The Maximum Length Received that we offer (PS3.8 D.1); longer P-DATA-TF PDUs are a protocol error.
        0, unlimited, means 16 MiB.
    spool_at
        A data set that grows larger is given in CHUNK events, this much in the first, `chunk` in the next.
    read_size
        The staging area.
    budget
        What received data sets are counted against.
    """

    phase: int
    trace: bool
    """Whether every P-DATA-TF PDU is also given as a PDU event before what it holds; from the next PDU on."""

    def __init__(
        self,
        phase: int = 1,
        *,
        maximum_pdu: int = 0,
        spool_at: int = 4194304,
        chunk: int = 1048576,
        read_size: int = 262144,
        budget: Budget | None = None,
    ) -> None: ...
    @property
    def budget(self) -> Budget | None: ...
    @property
    def wake_fd(self) -> int: ...
    @property
    def stalled(self) -> bool:
        """Whether the engine stopped because the budget has no room for a new message."""

    @property
    def in_message(self) -> bool:
        """Whether part of a message has arrived and the rest has not."""

    def accept_contexts(self, ids: Iterable[int]) -> None:
        """The presentation context IDs on which messages may arrive: odd, 1 to 255 (PS3.8 9.3.3.2)."""

    def discard_message(self) -> None:
        """Throw away what still comes of the message in hand; its MESSAGE event will have no data."""

    def wake(self) -> None:
        """Make `wake_fd` readable, from any thread: whoever waits gets a WAKE event."""

    def woken(self) -> bool:
        """Whether `wake` was called since the last look; resets `wake_fd`."""

    def get_buffer(self, size_hint: int = -1) -> memoryview:
        """Free space to read into, valid until the next call of any other method; empty when `stalled`."""

    def buffer_updated(self, size: int) -> None:
        """Say that `size` bytes were written into the space that `get_buffer` gave."""

    def feed(self, data: BufferLike) -> list[Event]:
        """Take all of `data`, up to a protocol error; returns the events it led to.

        BufferError when the engine is stalled.
        """

    def next_event(self) -> Event | None:
        """The next event out of the bytes at hand; None when more are needed, or `stalled`."""

def fragment(context_id: int, data: BufferLike, is_command: bool, maximum_pdu: int) -> list[bytes]:
    """One P-DATA-TF PDU for each fragment of a command or data set, none longer than `maximum_pdu`.

    `maximum_pdu` is the peer's Maximum Length Received (PS3.8 D.1): it bounds what follows the PDU's own
    header of six bytes. Fragments have an even length (PS3.8 Annex E) but for a last one that is odd.
    """
