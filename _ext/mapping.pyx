# cython: auto_pickle=False
"""Files as bytes in memory: mapped, or read where they are small."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.exc cimport PyErr_SetFromErrnoWithFilenameObject
from libc.errno cimport EINTR, EINVAL, EISDIR, errno
from libc.stdint cimport uint8_t
from posix.fcntl cimport O_NONBLOCK, O_RDONLY, open as open_file
from posix.mman cimport MAP_FAILED, MAP_PRIVATE, PROT_READ, mmap, munmap
from posix.stat cimport S_ISDIR, S_ISREG, fstat, struct_stat
from posix.unistd cimport close, read

import os

cdef extern from "<fcntl.h>":
    enum: O_CLOEXEC

cdef enum:
    SMALL = 16384  # bytes that are sooner copied than mapped


@cython.final
cdef class Mapping:
    """A file mapped for reading, by the buffer protocol; unmapped when nothing needs it any more.

    No descriptor is held. As with every mapping, who cuts the file short in place while it is in use ends the
    process (SIGBUS); a file that is replaced or deleted stays what it was.
    """

    cdef uint8_t* start
    cdef Py_ssize_t size

    def __init__(self):
        raise TypeError("mappings are made by map_file")

    def __dealloc__(self):
        if self.start != NULL:
            munmap(self.start, self.size)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.start, self.size, 1, flags)

    def __len__(self):
        return self.size


cdef bytes read_all(int fd, Py_ssize_t size):
    """Up to `size` bytes of a file; None and errno if that fails."""
    cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
    cdef char* start = PyBytes_AS_STRING(data)
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t got
    while done < size:
        got = read(fd, start + done, size - done)
        if got < 0 and errno != EINTR:
            return None
        if got == 0:
            return data[:done]
        done += max(got, 0)
    return data


def map_file(path):
    """The bytes of a file: a Mapping, or bytes where it is small. OSError if it can't be opened."""
    cdef bytes name = os.fsencode(path)
    cdef char* c_name = name
    cdef struct_stat status
    cdef Mapping mapping
    cdef void* start
    cdef bytes data
    cdef int fd
    if b"\0" in name:
        raise ValueError("a path with a NUL")
    with nogil:
        fd = open_file(c_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    if fd < 0:
        PyErr_SetFromErrnoWithFilenameObject(OSError, path)
    try:
        if fstat(fd, &status) < 0:
            PyErr_SetFromErrnoWithFilenameObject(OSError, path)
        if S_ISDIR(status.st_mode):
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR), path)
        if not S_ISREG(status.st_mode):
            raise OSError(EINVAL, "not a regular file", path)
        if status.st_size <= SMALL:
            data = read_all(fd, status.st_size)
            if data is None:
                PyErr_SetFromErrnoWithFilenameObject(OSError, path)
            return data
        with nogil:
            start = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0)
        if start == MAP_FAILED:
            PyErr_SetFromErrnoWithFilenameObject(OSError, path)
        mapping = Mapping.__new__(Mapping)
        mapping.start = <uint8_t*>start
        mapping.size = status.st_size
        return mapping
    finally:
        close(fd)
