"""Appending to a file: all bytes and their sync in one call without the GIL."""

import errno
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EINTR
from libc.errno cimport errno as c_errno
from libc.stdlib cimport free, malloc


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    ssize_t pwritev(int fd, const iovec* pieces, int count, long long offset)

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int fd)

cdef enum:
    MOST_PIECES = 1024  # IOV_MAX

cdef int NO_PROGRESS = errno.EIO


class SyncError(OSError):
    """The bytes were written, and their sync failed: what is on disk is not known."""


cdef int _write(int fd, iovec* pieces, int count, long long offset) noexcept nogil:
    """All of `pieces`, whatever the system takes at a time; 0 or an errno."""
    cdef ssize_t taken
    while count:
        taken = pwritev(fd, pieces, min(count, MOST_PIECES), offset)
        if taken < 0:
            if c_errno == EINTR:
                continue
            return c_errno
        if taken == 0:
            return NO_PROGRESS
        offset += taken
        while count and <size_t>taken >= pieces.iov_len:
            taken -= pieces.iov_len
            pieces += 1
            count -= 1
        if taken:
            pieces.iov_base = <char*>pieces.iov_base + taken
            pieces.iov_len -= taken
    return 0


def append(int fd, buffers, long long offset):
    """Write `buffers` one after the other from `offset`, then sync the data (fdatasync). Gives their bytes.

    Raises OSError if the write failed, and then what was written is not known; SyncError if the sync did.
    """
    cdef list given = [buffer for buffer in buffers]
    cdef Py_ssize_t count = len(given), held = 0, i
    cdef int pieces = 0, failed, unsynced = 0
    cdef long long size = 0
    cdef Py_buffer* views = <Py_buffer*>malloc((count or 1) * sizeof(Py_buffer))
    cdef iovec* vectors = <iovec*>malloc((count or 1) * sizeof(iovec))
    try:
        if views == NULL or vectors == NULL:
            raise MemoryError
        for i in range(count):
            PyObject_GetBuffer(given[i], &views[i], PyBUF_SIMPLE)
            held += 1
            if views[i].len:
                vectors[pieces].iov_base = views[i].buf
                vectors[pieces].iov_len = views[i].len
                size += views[i].len
                pieces += 1
        with nogil:
            failed = _write(fd, vectors, pieces, offset)
            while failed == 0 and fdatasync(fd) != 0:
                if c_errno != EINTR:
                    unsynced = c_errno
                    break
    finally:
        for i in range(held):
            PyBuffer_Release(&views[i])
        free(views)
        free(vectors)
    if failed:
        raise OSError(failed, os.strerror(failed))
    if unsynced:
        raise SyncError(unsynced, os.strerror(unsynced))
    return size
