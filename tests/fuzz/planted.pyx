"""What a run must report, planted: an overrun, a leak, undefined behaviour, an exception, a hang."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport malloc

cdef volatile int seen = 0


cdef api int one_input(const uint8_t* data, size_t size) except -1:
    global seen
    cdef volatile size_t leaked
    if size < 3 or data[0] != c"B" or data[1] != c"U":
        return 0
    if data[2] == c"G":
        seen = data[size]
    elif data[2] == c"L":
        leaked = <size_t>malloc(100)
        leaked = 0
    elif data[2] == c"S":
        seen = 1 << <int>(size + 29)
    elif data[2] == c"X":
        raise ValueError("planted")
    elif data[2] == c"H":
        while seen != -1:
            pass
    return 0
