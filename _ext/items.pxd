"""Items of the association PDUs: type, reserved byte, length, body (PS3.8 9.3.1); and the text in them."""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from pacs_core._ext.cursor cimport Cursor

cdef enum:
    HEADER = 6  # bytes of a PDU's header: type, reserved, length


cdef struct Item:
    int kind
    Cursor body
    Py_ssize_t offset  # of its first byte in the PDU


# Fields inside an item. What is torn reads as empty: Reader.whole tells.
cdef bytes rest(Cursor* c)  # all that is left
cdef bytes counted(Cursor* c)  # behind a length of two bytes
cdef str counted_uid(Cursor* c)

# Text as it is received, without its padding; and what may be sent: ValueError, naming `what`, if it may not.
cdef str uid_of(Cursor body)
cdef str text_of(const uint8_t* p, size_t size)
cdef bint is_uid(str text) except -1
cdef str checked_uid(object value, str what)
cdef bytes checked_text(str text, str what, bint may_be_empty)
cdef uint32_t checked_number(object value, uint32_t most, str what) except? 0

cdef inline bint printable(uint8_t c) noexcept nogil:
    return c" " < c < 0x7F


@cython.final
cdef class Reader:  # one PDU being decoded: holds its buffer, knows the offset of everything
    cdef Py_buffer view
    cdef bint held

    cdef Cursor start(self, object pdu, int kind, size_t least) except *
    cdef Py_ssize_t offset(self, const Cursor* c) noexcept
    cdef bint next(self, Cursor* c, Item* item) except -1
    cdef int whole(self, const Item* item) except -1


@cython.final
cdef class Writer:  # one PDU being encoded
    cdef uint8_t* data
    cdef size_t size
    cdef size_t room

    cdef int begin(self, int kind) except -1
    cdef uint8_t* grow(self, size_t size) except NULL
    cdef int put(self, const void* data, size_t size) except -1
    cdef int u8(self, uint8_t value) except -1
    cdef int u16(self, uint16_t value) except -1
    cdef int u32(self, uint32_t value) except -1
    cdef int raw(self, bytes value) except -1
    cdef int counted(self, bytes value) except -1
    cdef int uid(self, str text) except -1
    cdef int counted_uid(self, str text) except -1
    cdef size_t open(self, int kind) except 0
    cdef int close(self, size_t item) except -1
    cdef int uid_item(self, int kind, str text) except -1
    cdef bytes finish(self)
