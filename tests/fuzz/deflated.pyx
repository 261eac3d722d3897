"""The scan of deflated data sets: as `scan`, with the stream's breaks, ends and bombs.

Input: size of the pieces (a byte), then the deflated data set.
"""

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t

from fuzz_scan import check


cdef api int one_input(const uint8_t* data, size_t size) except -1:
    if size:
        check(PyMemoryView_FromMemory(<char*>data + 1, size - 1, PyBUF_READ), "1.2.840.10008.1.2.1.99", 1 + data[0])
    return 0
