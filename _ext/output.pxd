"""Bytes being written: a buffer that grows."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.stdint cimport uint8_t
from libc.string cimport memcpy


cdef struct Output:
    uint8_t* data
    size_t size
    size_t room


cdef inline uint8_t* grow(Output* out, size_t size) except NULL:
    """Room for `size` bytes more, which then count as written."""
    cdef size_t room
    cdef uint8_t* data
    if out.room - out.size < size:
        room = out.room * 2 + size + 1024
        data = <uint8_t*>PyMem_RawRealloc(out.data, room)
        if data == NULL:
            raise MemoryError
        out.data = data
        out.room = room
    out.size += size
    return out.data + out.size - size


cdef inline int put(Output* out, const void* data, size_t size) except -1:
    if size:
        memcpy(grow(out, size), data, size)
    return 0


cdef inline bytes taken(Output* out):
    """What was written; the buffer is empty then."""
    cdef bytes data = PyBytes_FromStringAndSize(<const char*>out.data, out.size)
    out.size = 0
    return data


cdef inline void discard(Output* out) noexcept:
    PyMem_RawFree(out.data)
    out.data = NULL
    out.size = out.room = 0
