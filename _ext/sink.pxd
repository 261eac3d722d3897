"""Bytes being written without the GIL: a buffer that grows, and remembers that it could not."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport realloc


cdef struct Sink:
    uint8_t* data       # to be freed by whoever has the sink
    size_t size
    size_t room
    bint failed


cdef inline uint8_t* grow(Sink* sink, size_t size) noexcept nogil:
    """Room for `size` bytes more; NULL without memory."""
    cdef uint8_t* data
    cdef size_t room
    if sink.room - sink.size < size:
        room = sink.room * 2 + size + 4096
        data = <uint8_t*>realloc(sink.data, room)
        if data == NULL:
            sink.failed = True
            return NULL
        sink.data = data
        sink.room = room
    sink.size += size
    return sink.data + sink.size - size
