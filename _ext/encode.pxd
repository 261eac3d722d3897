"""Data sets to bytes."""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pacs_core._ext.given cimport Given
from pacs_core._ext.output cimport Output
from pacs_core._ext.tree cimport Element, Sequence, Tree


@cython.final
cdef class Encoder:
    cdef bint implicit
    cdef bint little
    cdef bint meta           # what is written is file meta information
    cdef object encode_text
    cdef list pieces         # what is finished: bytes, and views of bulk data
    cdef Output out          # what follows them
    cdef int depth

    cdef int put16(self, uint32_t value) except -1
    cdef int put32(self, uint32_t value) except -1
    cdef int put_tag(self, uint32_t tag) except -1
    cdef int set_length(self, size_t start) except -1
    cdef int flush(self) except -1
    cdef int refer(self, object view) except -1
    cdef int header(self, uint32_t tag, uint16_t vr, uint64_t length) except -1
    cdef int value(
        self, uint32_t tag, uint16_t vr, const uint8_t* data, uint64_t size, bint little, object view
    ) except -1
    cdef int swapped(self, const uint8_t* data, uint64_t size, uint32_t width) except -1
    cdef int text(self, uint32_t tag, uint16_t vr, str text, tuple sets) except -1
    cdef int fragments(self, uint32_t tag, uint16_t vr, tuple pieces) except -1
    cdef int sequence(self, uint32_t tag, Sequence sequence, bint undefined, tuple sets) except -1
    cdef int item(self, Tree tree, tuple sets) except -1
    cdef int verbatim(self, Tree tree, uint64_t start, uint64_t end) except -1
    cdef bint is_left_out(self, uint32_t tag) noexcept
    cdef int elements(self, Tree tree, tuple sets) except -1
    cdef int read_element(self, Tree tree, uint32_t node, tuple sets) except -1
    cdef int given_element(self, uint32_t tag, Given given, tuple sets) except -1


cdef object value_bytes(Element element)
