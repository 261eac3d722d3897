"""DIMSE command sets (PS3.7 6.3.1, Annex E): group 0000 in implicit VR little endian."""

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint32_t

cdef enum:
    NO_DATA_SET = 0x0101  # (0000,0800): no data set follows (PS3.7 E.1)
    ABSENT = -1

cdef enum:
    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_FIND_RSP = 0x8020
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    C_CANCEL_RQ = 0x0FFF

cdef struct Span:  # of a value inside the command set; length is ABSENT when the element is not there
    uint32_t start
    int32_t length

cdef struct Fields:  # numbers are ABSENT when the element is not there or has no value
    int32_t command_field
    int32_t message_id
    int32_t responded_to
    int32_t priority
    int32_t data_set_type
    int32_t status
    int32_t error_id
    int32_t event_type
    int32_t action_type
    int32_t remaining
    int32_t completed
    int32_t failed
    int32_t warning
    int32_t originator_message_id
    Span affected_class
    Span requested_class
    Span affected_instance
    Span requested_instance
    Span move_destination
    Span originator_title
    Span error_comment
    Span offending
    Span attributes

# What decode_fields found wrong; where it stood is left in *offset.
cdef enum:
    FINE = 0
    TORN_HEADER = 1
    TORN_VALUE = 2
    FOREIGN_GROUP = 3
    ODD_NUMBER = 4
    NO_COMMAND_FIELD = 5
    NO_DATA_SET_TYPE = 6

cdef int decode_fields(const uint8_t* data, size_t size, Fields* out, size_t* offset) noexcept nogil

@cython.final
cdef class Command:
    cdef Fields fields
    cdef readonly bytes encoded

    cdef str _uid(self, Span span)
    cdef str _text(self, Span span)
    cdef tuple _tags(self, Span span)

    @staticmethod
    cdef Command wrap(bytes encoded, Fields* fields)
