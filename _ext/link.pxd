"""The engine on a plain socket: reads, waits and writes without the GIL."""

from libc.stdint cimport uint8_t

from pacs_core._ext.buffer cimport pthread_mutex_t
from pacs_core._ext.pdu cimport Engine


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len

cdef enum:
    FRAGMENTS = 256  # fragments a system call sends at most

cdef struct Part:  # a command or a data set to send
    const uint8_t* data
    size_t size
    uint8_t context_id
    bint is_command

cdef struct Batch:  # what one sendmsg sends
    iovec vectors[2 * FRAGMENTS]
    uint8_t headers[FRAGMENTS][12]
    int used
    int fragments

cdef class Link(Engine):
    cdef readonly int fd
    cdef bint drained  # the last read took all there was
    cdef bint unacknowledged  # something was read since TCP_QUICKACK was armed
    cdef bint gone
    cdef bint interrupted
    cdef int _maximum_send
    cdef double _write_timeout
    cdef readonly unsigned long long received
    cdef readonly unsigned long long sent
    cdef int send_error
    cdef pthread_mutex_t write_mutex

    cdef int _run(self, double idle, double deadline) noexcept nogil
    cdef int _read(self) noexcept nogil
    cdef int _poll(self, int events, double until) noexcept nogil
    cdef int _flush(self, Batch* batch, int flags) noexcept nogil
    cdef int _append(self, Batch* batch, Part* part, bint more) noexcept nogil
    cdef int _send_parts(self, Part* parts, int count) noexcept nogil
    cdef int _send_from_file(self, Part* command, int fd, long long offset, long long length) noexcept nogil
    cdef int _raise(self, int wrong) except -1
