"""Text on its way into the index: which repertoire it keeps to, padding off, cut where a character ends."""

from libc.stdint cimport uint8_t
from libc.string cimport memmove

from pacs_core._ext.vr cimport VR_PROSE, VR_RESOURCE, VR_UNLIMITED


cdef inline bint is_plain(const uint8_t* p, size_t size) noexcept nogil:
    """Whether there is neither a byte over 127 nor an ESC: then it reads the same in every character set."""
    cdef size_t i
    cdef uint8_t odd = 0
    for i in range(size):
        odd |= (p[i] & 0x80) | <uint8_t>(p[i] == 0x1B)
    return odd == 0


cdef inline bint has_escape(const uint8_t* p, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(size):
        if p[i] == 0x1B:
            return True
    return False


cdef inline bint is_utf8(const uint8_t* p, size_t size) noexcept nogil:
    """Whether the bytes are well-formed UTF-8: no overlong forms, surrogates or code points over 10FFFF."""
    cdef size_t i = 0
    cdef size_t more
    cdef uint8_t lead, low, high
    while i < size:
        lead = p[i]
        i += 1
        if lead < 0x80:
            continue
        low = 0x80
        high = 0xBF
        if 0xC2 <= lead <= 0xDF:
            more = 1
        elif 0xE0 <= lead <= 0xEF:
            more = 2
            if lead == 0xE0:
                low = 0xA0
            elif lead == 0xED:
                high = 0x9F
        elif 0xF0 <= lead <= 0xF4:
            more = 3
            if lead == 0xF0:
                low = 0x90
            elif lead == 0xF4:
                high = 0x8F
        else:
            return False
        if size - i < more or p[i] < low or p[i] > high:
            return False
        i += 1
        more -= 1
        while more:
            if p[i] & 0xC0 != 0x80:
                return False
            i += 1
            more -= 1
    return True


cdef inline size_t from_latin1(uint8_t* out, const uint8_t* p, size_t size) noexcept nogil:
    """Latin-1 to UTF-8; `out` has room for two bytes for each of `size`. The bytes written."""
    cdef size_t i
    cdef size_t n = 0
    for i in range(size):
        if p[i] < 0x80:
            out[n] = p[i]
            n += 1
        else:
            out[n] = 0xC0 | p[i] >> 6
            out[n + 1] = 0x80 | (p[i] & 0x3F)
            n += 2
    return n


cdef inline size_t strip_padding(uint8_t* text, size_t size, uint8_t kind) noexcept nogil:
    """Take the insignificant spaces (PS3.5 6.2) and trailing NULs off each value, in place; the size left."""
    cdef size_t start = 0
    cdef size_t stop, first, last
    cdef size_t n = 0
    cdef bint single = kind == VR_PROSE or kind == VR_RESOURCE
    cdef bint leading = not single and kind != VR_UNLIMITED
    while True:
        stop = start
        if single:
            stop = size
        else:
            while stop < size and text[stop] != 0x5C:
                stop += 1
        first = start
        last = stop
        while last > first and (text[last - 1] == 0x20 or text[last - 1] == 0):
            last -= 1
        if leading:
            while first < last and text[first] == 0x20:
                first += 1
        if n != first:
            memmove(text + n, text + first, last - first)
        n += last - first
        if stop == size:
            return n
        text[n] = 0x5C
        n += 1
        start = stop + 1


cdef inline size_t cut_utf8(const uint8_t* text, size_t size, size_t limit) noexcept nogil:
    """The size of the longest beginning of at most `limit` bytes that ends with a whole character."""
    if size <= limit:
        return size
    while limit and text[limit] & 0xC0 == 0x80:
        limit -= 1
    return limit


cdef inline size_t whole_values(const uint8_t* text, size_t size) noexcept nogil:
    """The size without the last of several values, which may have been cut off; half a number is another one."""
    cdef size_t at = size
    while at and text[at - 1] != 0x5C:
        at -= 1
    return at - 1 if at else size


cdef inline size_t whole_utf8(const uint8_t* text, size_t size) noexcept nogil:
    """The size without a last character that may have been cut off."""
    while size and text[size - 1] & 0xC0 == 0x80:
        size -= 1
    if size and text[size - 1] >= 0xC0:
        size -= 1
    return size
