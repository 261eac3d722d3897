"""The upper layer's byte side (PS3.8 9.3): PDUs in, DIMSE messages out; no sockets, no services.

`Engine` takes bytes as they come and gives events: whole association PDUs, whole DIMSE messages, or the
pieces of a message too large to be held. Nothing is allocated because a length field says so: memory
follows the bytes that really arrived.

A P-DATA-TF PDU (PS3.8 9.3.5) holds PDV items:

    | 04 | 00 | length (4) | item length (4) | context ID | control | fragment … | item length (4) | …
                             counts from the context ID on            bit 0: command, bit 1: last
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from pacs_core._ext.buffer cimport block_give, block_take
from pacs_core._ext.command cimport C_CANCEL_RQ, FINE, NO_DATA_SET, decode_fields


cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int, int)
    int EFD_CLOEXEC
    int EFD_NONBLOCK

cdef extern from "<unistd.h>" nogil:
    int close(int)
    ssize_t read(int, void*, size_t)
    ssize_t write(int, const void*, size_t)

ASSOCIATE_RQ = PDU_ASSOCIATE_RQ
ASSOCIATE_AC = PDU_ASSOCIATE_AC
ASSOCIATE_RJ = PDU_ASSOCIATE_RJ
RELEASE_RQ = PDU_RELEASE_RQ
RELEASE_RP = PDU_RELEASE_RP
ABORT = PDU_ABORT
MESSAGE = EV_MESSAGE
CHUNK = EV_CHUNK
PDU = EV_PDU
CLOSED = EV_CLOSED
TIMEOUT = EV_TIMEOUT
WAKE = EV_WAKE
PROTOCOL_ERROR = EV_PROTOCOL_ERROR

AWAIT_REQUEST = PH_AWAIT_REQUEST
AWAIT_REPLY = PH_AWAIT_REPLY
TRANSFER = PH_TRANSFER
RELEASING = PH_RELEASING
CLOSING = PH_CLOSING

# Provider's reasons for an A-ABORT (PS3.8 Table 9-26).
cdef enum:
    UNSPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6

cdef enum:
    AT_PDU = 0
    AT_RAW = 1
    AT_PDV = 2
    AT_FRAGMENT = 3

cdef enum:
    MOST_ASSOCIATE = 1 << 20  # bytes of an A-ASSOCIATE PDU
    MOST_COMMAND = 1 << 16  # bytes of a command set
    MOST_PDU = 16 << 20  # bytes of a P-DATA-TF PDU when we said "unlimited"
    FIRST_BLOCK = 1 << 16

_NAMES = {
    PDU_ASSOCIATE_RQ: "ASSOCIATE_RQ", PDU_ASSOCIATE_AC: "ASSOCIATE_AC", PDU_ASSOCIATE_RJ: "ASSOCIATE_RJ",
    PDU_RELEASE_RQ: "RELEASE_RQ", PDU_RELEASE_RP: "RELEASE_RP", PDU_ABORT: "ABORT", EV_MESSAGE: "MESSAGE",
    EV_CHUNK: "CHUNK", EV_PDU: "PDU", EV_CLOSED: "CLOSED", EV_TIMEOUT: "TIMEOUT", EV_WAKE: "WAKE",
    EV_PROTOCOL_ERROR: "PROTOCOL_ERROR",
}


cdef inline uint32_t _u32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef class Event:
    """What came out of the engine; which attributes mean something depends on `kind`."""

    def __init__(self, int kind, str text=None):
        self.kind = kind
        self.text = text

    def __repr__(self) -> str:
        name = _NAMES.get(self.kind, self.kind)
        if self.kind in (EV_MESSAGE, EV_CHUNK):
            size = 0 if self.data is None else len(self.data)
            return f"<Event {name} context {self.context_id}, {self.command!r}, data {size}>"
        return f"<Event {name}{' ' + self.text if self.text else ''}>"


@cython.no_gc_clear  # __dealloc__ gives back to the budget
cdef class Engine:
    """Bytes in, events out, for one association in either role.

    Feed it with `feed`, or, without a copy, write into `get_buffer()` and tell `buffer_updated` how much;
    then call `next_event` until it gives None. `wake_fd` is an eventfd that `wake` makes readable.
    """

    def __cinit__(self, *args, **kwargs):
        self.waiter.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.waiter.wake_fd < 0:
            raise OSError("no descriptor left for an eventfd")

    def __init__(
        self,
        int phase=PH_AWAIT_REQUEST,
        *,
        maximum_pdu=0,
        spool_at=4 << 20,
        chunk=1 << 20,
        read_size=256 << 10,
        Budget budget=None,
    ):
        if not 4096 <= read_size <= 16 << 20 or not 4096 <= chunk <= spool_at:
            raise ValueError("read_size is 4 KiB to 16 MiB, chunk 4 KiB to spool_at")
        self._phase = phase
        self.maximum_pdu = min(maximum_pdu or MOST_PDU, MOST_PDU)
        self.spool_at = spool_at
        self.chunk = chunk
        self.budget = budget
        if self.stage != NULL:
            raise RuntimeError("an engine is made once")
        self.stage_size = read_size
        self.stage = <uint8_t*>malloc(read_size)
        if self.stage == NULL:
            raise MemoryError()

    def __dealloc__(self):
        if self.budget is not None:
            self.budget.forget(&self.waiter)
        self._drop_data()
        free(self.stage)
        free(self.raw)
        free(self.command)
        if self.waiter.wake_fd >= 0:
            close(self.waiter.wake_fd)

    # -- settings -------------------------------------------------------------------------------------

    @property
    def phase(self) -> int:
        return self._phase

    @phase.setter
    def phase(self, int value):
        self._phase = value

    @property
    def trace(self) -> bool:
        """Whether every PDU is also given as a PDU event before what it holds; from the next PDU on."""
        return self._trace

    @trace.setter
    def trace(self, bint value):
        self._trace = value

    @property
    def wake_fd(self) -> int:
        return self.waiter.wake_fd

    @property
    def stalled(self) -> bool:
        """Whether the engine stopped because the budget has no room for a new message."""
        return self.wanted > 0

    @property
    def in_message(self) -> bool:
        """Whether part of a message has arrived and the rest has not."""
        return self.message_context != 0

    def accept_contexts(self, ids) -> None:
        """The presentation context IDs on which messages may arrive: odd, 1 to 255 (PS3.8 9.3.3.2)."""
        memset(self.contexts, 0, sizeof(self.contexts))
        for context_id in ids:
            if not 1 <= context_id <= 255 or not context_id & 1:
                raise ValueError(f"not a presentation context ID: {context_id}")
            self.contexts[context_id >> 1] = 1

    def discard_message(self) -> None:
        """Throw away what still comes of the message in hand; its MESSAGE event will have no data."""
        if self.message_context:
            self.discarding = True
            self.wanted = 0
            self._drop_data()

    def wake(self) -> None:
        """Make `wake_fd` readable, from any thread: whoever waits gets a WAKE event."""
        cdef uint64_t one = 1
        self.wake_flag = 1
        write(self.waiter.wake_fd, &one, 8)

    def woken(self) -> bool:
        """Whether `wake` was called since the last look; resets `wake_fd`."""
        cdef uint64_t count
        cdef bint was = self.wake_flag
        self.wake_flag = 0
        read(self.waiter.wake_fd, &count, 8)
        return was

    # -- bytes in, events out ---------------------------------------------------------------------------

    def get_buffer(self, Py_ssize_t size_hint=-1) -> memoryview:
        """Free space to read into, valid until the next call of any other method; empty when `stalled`."""
        if self.head == self.tail:
            self.head = self.tail = 0
        elif self.head:
            self._compact()
        return PyMemoryView_FromMemory(<char*>self.stage + self.tail, self.stage_size - self.tail, PyBUF_WRITE)

    cdef void _compact(self) noexcept nogil:
        # What is left is part of a header, or, when the engine is stalled, all that was read.
        memmove(self.stage, self.stage + self.head, self.tail - self.head)
        self.tail -= self.head
        self.head = 0

    def buffer_updated(self, size_t size) -> None:
        """Say that `size` bytes were written into the space that `get_buffer` gave."""
        if size > self.stage_size - self.tail:
            raise ValueError("more bytes than there was space")
        self.tail += size

    def feed(self, data not None) -> list:
        """Take all of `data`, up to a protocol error; returns the events it led to."""
        cdef const uint8_t[::1] view = memoryview(data).cast("B")
        cdef size_t done = 0, room
        events = []
        while True:
            event = self.next_event()
            if event is not None:
                events.append(event)
                if (<Event>event).kind == EV_PROTOCOL_ERROR:
                    return events
                continue
            if done == <size_t>view.shape[0]:
                return events
            room = len(self.get_buffer())
            if room == 0:
                raise BufferError("the engine is stalled: its budget has no room")
            room = min(room, view.shape[0] - done)
            memcpy(self.stage + self.tail, &view[done], room)
            self.tail += room
            done += room

    def next_event(self) -> Event | None:
        """The next event out of the bytes at hand; None when more are needed, or `stalled`."""
        cdef int kind
        with nogil:
            kind = self.step()
        if kind == EV_NONE or kind == EV_STALLED:
            return None
        return self._event(kind)

    cdef int refuse(self, int reason, const char* text) noexcept nogil:
        self.error_reason = reason
        self.error_text = text
        return EV_PROTOCOL_ERROR

    cdef size_t _source(self, const uint8_t** p) noexcept nogil:
        if self.replay:
            p[0] = self.raw + self.replay
            return self.raw_used - self.replay
        p[0] = self.stage + self.head
        return self.tail - self.head

    cdef void _advance(self, size_t size) noexcept nogil:
        if self.replay:
            self.replay += size
            if self.replay == self.raw_used:
                self.replay = 0
        else:
            self.head += size

    cdef int step(self) noexcept nogil:
        cdef:
            const uint8_t* p
            size_t size, room
            int kind
        while True:
            if self._phase == PH_CLOSING:
                self.head = self.tail = self.wanted = 0
                return EV_NONE
            if self.error_text != NULL:
                return EV_PROTOCOL_ERROR
            if self.state == AT_PDV and self.pdu_left == 0:
                self.state = AT_PDU
            size = self._source(&p)
            if self.state == AT_PDU:
                if size < 6:
                    return EV_NONE
                kind = self._pdu_header(p)
                if kind:
                    return kind
                self._advance(6)
            elif self.state == AT_RAW:
                size = min(size, self.pdu_left)
                if size == 0 and self.pdu_left:
                    return EV_NONE
                if self._raw_room(self.raw_used + size):
                    return EV_NO_MEMORY
                memcpy(self.raw + self.raw_used, p, size)
                self.raw_used += size
                self.pdu_left -= size
                self._advance(size)
                if self.pdu_left == 0:
                    self.state = AT_PDU
                    if self.pdu_type != PDU_DATA:
                        return self.pdu_type
                    self.state = AT_PDV
                    self.replay = 6
                    self.pdu_left = self.raw_used - 6
                    return EV_PDU
            elif self.state == AT_PDV:
                if self.pdu_left < 6:
                    return self.refuse(INVALID_PARAMETER, b"a PDV item without context ID and control header")
                if size < 6:
                    return EV_NONE
                kind = self._pdv_header(p)
                if kind:
                    return kind
                self._advance(6)
                self.pdu_left -= 6
            elif self.pdv_left == 0:
                kind = self._fragment_end()
                if kind:
                    return kind
            else:
                size = min(size, self.pdv_left)
                if self.pdv_control & 1:
                    if size == 0:
                        return EV_NONE
                    if self._command_room(self.command_size + size):
                        return EV_NO_MEMORY
                    memcpy(self.command + self.command_size, p, size)
                    self.command_size += size
                elif not self.discarding:
                    kind = self._data_room()
                    if kind:
                        return kind
                    size = min(size, self.block.capacity - self.data_size)
                    memcpy(self.block.data + self.data_size, p, size)
                    self.data_size += size
                if size == 0:
                    return EV_NONE
                self._advance(size)
                self.pdv_left -= size
                self.pdu_left -= size

    cdef int _pdu_header(self, const uint8_t* p) noexcept nogil:
        cdef int kind = p[0]
        cdef size_t length = _u32(p + 2)
        cdef bint expected
        if kind < PDU_ASSOCIATE_RQ or kind > PDU_ABORT:
            return self.refuse(UNRECOGNIZED_PDU, b"a PDU of unknown type")
        if kind == PDU_ABORT:
            expected = True
        elif self._phase == PH_AWAIT_REQUEST:
            expected = kind == PDU_ASSOCIATE_RQ
        elif self._phase == PH_AWAIT_REPLY:
            expected = kind == PDU_ASSOCIATE_AC or kind == PDU_ASSOCIATE_RJ
        else:
            expected = kind == PDU_DATA or kind == PDU_RELEASE_RQ or (
                kind == PDU_RELEASE_RP and self._phase == PH_RELEASING
            )
        if not expected:
            return self.refuse(UNEXPECTED_PDU, b"a PDU that the association's state does not allow")
        if kind == PDU_DATA:
            if length > self.maximum_pdu:
                return self.refuse(INVALID_PARAMETER, b"a P-DATA-TF PDU longer than the maximum we gave")
            if length == 0:
                return self.refuse(INVALID_PARAMETER, b"a P-DATA-TF PDU without a PDV item")
        elif kind <= PDU_ASSOCIATE_AC:
            if length > MOST_ASSOCIATE or length < 68:
                return self.refuse(INVALID_PARAMETER, b"an A-ASSOCIATE PDU of impossible length")
        elif length != 4:
            return self.refuse(INVALID_PARAMETER, b"a PDU of fixed length with another length")
        if kind != PDU_DATA and self.message_context and kind == PDU_RELEASE_RQ:
            return self.refuse(UNEXPECTED_PDU, b"a release request in the middle of a message")
        self.pdu_type = kind
        self.pdu_left = length
        if kind == PDU_DATA and not self._trace:
            self.state = AT_PDV
            return EV_NONE
        self.state = AT_RAW
        if self._raw_room(6):
            return EV_NO_MEMORY
        memcpy(self.raw, p, 6)
        self.raw_used = 6
        return EV_NONE

    cdef int _pdv_header(self, const uint8_t* p) noexcept nogil:
        cdef size_t length = _u32(p)
        cdef bint is_command = p[5] & 1
        if length < 2 or length + 4 > self.pdu_left:
            return self.refuse(INVALID_PARAMETER, b"a PDV item that does not fit in its PDU")
        # A C-CANCEL needs no context of its own: some requestors send it on any. What it is shows at its end.
        if not p[4] & 1 or not (self.contexts[p[4] >> 1] or is_command):
            return self.refuse(INVALID_PARAMETER, b"a PDV item of a presentation context that was not accepted")
        if self.message_context and self.message_context != p[4]:
            return self.refuse(UNEXPECTED_PARAMETER, b"fragments of two presentation contexts interleaved")
        if is_command and self.command_done:
            return self.refuse(UNEXPECTED_PARAMETER, b"a command fragment where a data set goes on")
        if not is_command and not self.command_done:
            return self.refuse(UNEXPECTED_PARAMETER, b"a data set fragment before the command is complete")
        if is_command and self.command_size + length - 2 > MOST_COMMAND:
            return self.refuse(INVALID_PARAMETER, b"a command set of more than 64 KiB")
        self.message_context = p[4]
        self.pdv_context = p[4]
        self.pdv_control = p[5]
        self.pdv_left = length - 2
        self.state = AT_FRAGMENT
        return EV_NONE

    cdef int _fragment_end(self) noexcept nogil:
        cdef size_t offset = 0
        self.state = AT_PDV
        if not self.pdv_control & 2:
            return EV_NONE
        if not self.pdv_control & 1:
            return EV_MESSAGE
        if decode_fields(self.command, self.command_size, &self.fields, &offset) != FINE:
            return self.refuse(UNSPECIFIED, b"a command set that can't be decoded")
        if not self.contexts[self.pdv_context >> 1] and (
            self.fields.command_field != C_CANCEL_RQ or self.fields.data_set_type != NO_DATA_SET
        ):
            return self.refuse(INVALID_PARAMETER, b"a message on a presentation context that was not accepted")
        self.command_done = True
        return EV_MESSAGE if self.fields.data_set_type == NO_DATA_SET else EV_NONE

    cdef int _raw_room(self, size_t size) noexcept nogil:
        cdef uint8_t* more
        if size > self.raw_size:
            size = max(size, 2 * self.raw_size, <size_t>512)
            more = <uint8_t*>realloc(self.raw, size)
            if more == NULL:
                return -1
            self.raw = more
            self.raw_size = size
        return 0

    cdef int _command_room(self, size_t size) noexcept nogil:
        cdef uint8_t* more
        if size > self.command_room:
            size = max(size, 2 * self.command_room, <size_t>512)
            more = <uint8_t*>realloc(self.command, size)
            if more == NULL:
                return -1
            self.command = more
            self.command_room = size
        return 0

    cdef int _data_room(self) noexcept nogil:
        # Room for at least one more byte of the data set, or an event that says why there is none yet.
        cdef:
            Block larger
            size_t capacity
        if self.block.data == NULL:
            # The peer's next message is likely as large as its last one was.
            capacity = self.chunk if self.streaming else min(max(self.expected, <size_t>FIRST_BLOCK), self.spool_at)
            if block_take(&larger, capacity):
                return EV_NO_MEMORY
            if self.budget is not None and not self.budget.take(larger.capacity, self.streaming):
                self.wanted = larger.capacity
                block_give(&larger)
                return EV_STALLED
            self.wanted = 0
            self.block = larger
            self.data_size = 0
            return EV_NONE
        if self.data_size < self.block.capacity:
            return EV_NONE
        if self.data_size >= (self.chunk if self.streaming else self.spool_at):
            return EV_CHUNK
        if block_take(&larger, 2 * self.block.capacity):
            return EV_NO_MEMORY
        if self.budget is not None and not self.budget.take(larger.capacity, False):
            block_give(&larger)
            return EV_CHUNK  # no room to grow: what is there is handed over early
        memcpy(larger.data, self.block.data, self.data_size)
        capacity = self.data_size
        self._drop_data()
        self.block = larger
        self.data_size = capacity
        return EV_NONE

    cdef void _drop_data(self) noexcept nogil:
        cdef size_t capacity = self.block.capacity
        if self.block.data == NULL:
            return
        block_give(&self.block)
        self.data_size = 0
        if self.budget is not None:
            self.budget.give(capacity)

    cdef void _forget_message(self) noexcept nogil:
        self.message_context = 0
        self.command_done = False
        self.command_size = 0
        self.streaming = False
        self.discarding = False

    cdef Event _event(self, int kind):
        cdef Event event = Event.__new__(Event)
        if kind == EV_NO_MEMORY:
            raise MemoryError("no memory for a received message")
        event.kind = kind
        if kind == EV_MESSAGE or kind == EV_CHUNK:
            event.context_id = self.message_context
            if self.streamed_command is None:
                event.command = Command.wrap(
                    PyBytes_FromStringAndSize(<char*>self.command, self.command_size), &self.fields
                )
            else:
                event.command = self.streamed_command
            if self.block.data != NULL:
                if not self.streaming and kind == EV_MESSAGE:
                    self.expected = self.data_size
                event.data = Buffer.adopt(&self.block, self.data_size, self.budget)
                self.data_size = 0
            if kind == EV_CHUNK:
                self.streaming = True
                self.streamed_command = event.command
                event.streamed = True
            else:
                event.streamed = self.streaming
                self.streamed_command = None
                self._forget_message()
        elif kind == EV_PDU:
            event.raw = PyBytes_FromStringAndSize(<char*>self.raw, self.raw_used)
        elif kind < EV_MESSAGE:
            event.raw = PyBytes_FromStringAndSize(<char*>self.raw, self.raw_used)
            if kind == PDU_ABORT:
                event.source = self.raw[8]
                event.reason = self.raw[9]
        elif kind == EV_PROTOCOL_ERROR:
            event.reason = self.error_reason
            event.source = 2
            event.text = self.error_text.decode("ascii")
        return event


def fragment(int context_id, data not None, bint is_command, size_t maximum_pdu) -> list:
    """One P-DATA-TF PDU for each fragment of a command or data set, none longer than `maximum_pdu`.

    `maximum_pdu` is the peer's Maximum Length Received (PS3.8 D.1): it bounds what follows the PDU's own
    header of six bytes. Fragments have an even length (PS3.8 Annex E) but for a last one that is odd.
    """
    cdef const uint8_t[::1] view = memoryview(data).cast("B")
    cdef:
        size_t payload = (maximum_pdu - 6) & ~<size_t>1
        size_t at = 0, size
        size_t total = view.shape[0]
        bytes pdu
        uint8_t* p
    if maximum_pdu < 8 or maximum_pdu > 0x7FFFFFFF:
        raise ValueError("a maximum PDU length is at least 8 bytes")
    pdus = []
    while True:
        size = min(payload, total - at)
        pdu = PyBytes_FromStringAndSize(NULL, size + 12)
        p = <uint8_t*>PyBytes_AS_STRING(pdu)
        write_header(p, size, context_id, is_command, at + size == total)
        if size:
            memcpy(p + 12, &view[at], size)
        pdus.append(pdu)
        at += size
        if at == total:
            return pdus


cdef void write_header(uint8_t* p, size_t size, int context_id, bint is_command, bint last) noexcept nogil:
    p[0] = PDU_DATA
    p[1] = 0
    p[2] = ((size + 6) >> 24) & 0xFF
    p[3] = ((size + 6) >> 16) & 0xFF
    p[4] = ((size + 6) >> 8) & 0xFF
    p[5] = (size + 6) & 0xFF
    p[6] = ((size + 2) >> 24) & 0xFF
    p[7] = ((size + 2) >> 16) & 0xFF
    p[8] = ((size + 2) >> 8) & 0xFF
    p[9] = (size + 2) & 0xFF
    p[10] = context_id & 0xFF
    p[11] = (1 if is_command else 0) | (2 if last else 0)
