"""The bounds-checked reader of untrusted bytes, and the loads of both byte orders.

A cursor never passes its end. What asks for more than is left gets nothing: `take` answers NULL, the readers
0, and the cursor is at its end from then on and stays `torn`, so a run of reads needs one check, after the
last. The plain loads (`le16` …) check nothing; they are for bytes that `left` or `take` has granted.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end
    bint torn  # something reached beyond the end


cdef inline Cursor cursor_over(const uint8_t* data, size_t size) noexcept nogil:
    cdef Cursor c
    c.at = data
    c.end = data + size
    c.torn = False
    return c


cdef inline size_t left(const Cursor* c) noexcept nogil:
    return <size_t>(c.end - c.at)


cdef inline const uint8_t* take(Cursor* c, size_t size) noexcept nogil:
    """The next `size` bytes, consumed; NULL if there are fewer."""
    cdef const uint8_t* at = c.at
    if size > left(c):  # never `at + size > end`: that sum may overflow
        c.at = c.end
        c.torn = True
        return NULL
    c.at += size
    return at


cdef inline Cursor take_part(Cursor* c, size_t size) noexcept nogil:
    """A cursor over the next `size` bytes, consumed; an empty, torn one if there are fewer."""
    cdef const uint8_t* at = take(c, size)
    cdef Cursor part = cursor_over(at, 0 if at == NULL else size)
    part.torn = c.torn
    return part


cdef inline uint16_t le16(const uint8_t* p) noexcept nogil:
    return <uint16_t>(p[0] | p[1] << 8)


cdef inline uint16_t be16(const uint8_t* p) noexcept nogil:
    return <uint16_t>(p[0] << 8 | p[1])


cdef inline uint32_t le32(const uint8_t* p) noexcept nogil:
    return <uint32_t>p[0] | <uint32_t>p[1] << 8 | <uint32_t>p[2] << 16 | <uint32_t>p[3] << 24


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | <uint32_t>p[3]


cdef inline uint64_t le64(const uint8_t* p) noexcept nogil:
    return <uint64_t>le32(p) | <uint64_t>le32(p + 4) << 32


cdef inline uint64_t be64(const uint8_t* p) noexcept nogil:
    return <uint64_t>be32(p) << 32 | be32(p + 4)


cdef inline uint8_t read_u8(Cursor* c) noexcept nogil:
    cdef const uint8_t* p = take(c, 1)
    return 0 if p == NULL else p[0]


cdef inline uint16_t read_le16(Cursor* c) noexcept nogil:
    cdef const uint8_t* p = take(c, 2)
    return 0 if p == NULL else le16(p)


cdef inline uint16_t read_be16(Cursor* c) noexcept nogil:
    cdef const uint8_t* p = take(c, 2)
    return 0 if p == NULL else be16(p)


cdef inline uint32_t read_le32(Cursor* c) noexcept nogil:
    cdef const uint8_t* p = take(c, 4)
    return 0 if p == NULL else le32(p)


cdef inline uint32_t read_be32(Cursor* c) noexcept nogil:
    cdef const uint8_t* p = take(c, 4)
    return 0 if p == NULL else be32(p)
