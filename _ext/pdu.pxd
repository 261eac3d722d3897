"""The upper layer's byte side (PS3.8 9.3): PDUs in, DIMSE messages out; no sockets, no services."""

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint32_t

from pacs_core._ext.buffer cimport Block, Budget, Buffer, Waiter
from pacs_core._ext.command cimport Command, Fields

cdef enum:  # PDU types (PS3.8 9.3.1)
    PDU_ASSOCIATE_RQ = 1
    PDU_ASSOCIATE_AC = 2
    PDU_ASSOCIATE_RJ = 3
    PDU_DATA = 4
    PDU_RELEASE_RQ = 5
    PDU_RELEASE_RP = 6
    PDU_ABORT = 7

# Event kinds. The first seven but DATA are PDU types; those above are the engine's own.
cdef enum:
    EV_NONE = 0  # more bytes are wanted
    EV_MESSAGE = 8
    EV_CHUNK = 9
    EV_PDU = 10
    EV_CLOSED = 11
    EV_TIMEOUT = 12
    EV_WAKE = 13
    EV_PROTOCOL_ERROR = 14
    EV_STALLED = 15  # the budget has no room for a new message; never leaves this module's users
    EV_NO_MEMORY = 16

cdef enum:  # what may arrive (PS3.8 9.2)
    PH_AWAIT_REQUEST = 1  # Sta2
    PH_AWAIT_REPLY = 2  # Sta5
    PH_TRANSFER = 3  # Sta6
    PH_RELEASING = 4  # Sta7: we asked for release
    PH_CLOSING = 5  # Sta13: everything is thrown away until the peer closes

@cython.final
cdef class Event:
    cdef readonly int kind
    cdef readonly int context_id
    cdef readonly bint streamed
    cdef readonly int source
    cdef readonly int reason
    cdef readonly Command command
    cdef readonly Buffer data
    cdef readonly bytes raw
    cdef readonly str text


cdef class Engine:
    # input not yet understood: stage[head:tail]
    cdef uint8_t* stage
    cdef size_t stage_size
    cdef size_t head
    cdef size_t tail
    # the PDU in hand
    cdef int state
    cdef int pdu_type
    cdef size_t pdu_left
    cdef uint8_t* raw
    cdef size_t raw_size
    cdef size_t raw_used
    cdef size_t replay  # position in raw of a traced P-DATA that is being parsed; 0: none
    # the PDV in hand
    cdef size_t pdv_left
    cdef uint8_t pdv_context
    cdef uint8_t pdv_control
    # the message in hand
    cdef int message_context  # 0: none begun
    cdef bint command_done
    cdef bint streaming
    cdef bint discarding
    cdef uint8_t* command
    cdef size_t command_size
    cdef size_t command_room
    cdef Fields fields
    cdef Block block
    cdef size_t data_size
    cdef size_t expected  # bytes that the last message's data set had
    cdef Command streamed_command
    # limits
    cdef size_t maximum_pdu
    cdef size_t spool_at
    cdef size_t chunk
    cdef uint8_t contexts[128]
    cdef int _phase
    cdef bint _trace
    # what went wrong
    cdef int error_reason
    cdef const char* error_text
    # others
    cdef readonly Budget budget
    cdef Waiter waiter
    cdef size_t wanted
    cdef int wake_flag

    cdef int step(self) noexcept nogil
    cdef int refuse(self, int reason, const char* text) noexcept nogil
    cdef int _pdu_header(self, const uint8_t* p) noexcept nogil
    cdef int _pdv_header(self, const uint8_t* p) noexcept nogil
    cdef int _fragment_end(self) noexcept nogil
    cdef int _raw_room(self, size_t size) noexcept nogil
    cdef int _command_room(self, size_t size) noexcept nogil
    cdef int _data_room(self) noexcept nogil
    cdef void _drop_data(self) noexcept nogil
    cdef void _forget_message(self) noexcept nogil
    cdef void _compact(self) noexcept nogil
    cdef size_t _source(self, const uint8_t** p) noexcept nogil
    cdef void _advance(self, size_t size) noexcept nogil
    cdef Event _event(self, int kind)
cdef void write_header(uint8_t* p, size_t size, int context_id, bint is_command, bint last) noexcept nogil
