"""Binary numbers (PS3.5 6.2) as text: decimal digits, hexadecimal for tags."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from pacs_core._ext.vr cimport VR_FD, VR_SS, VR_SV, VR_UV


cdef inline size_t put_unsigned(uint8_t* out, uint64_t value) noexcept nogil:
    cdef uint8_t[20] digits
    cdef size_t n = 0
    cdef size_t i
    while True:
        digits[n] = <uint8_t>(48 + value % 10)
        n += 1
        value //= 10
        if value == 0:
            break
    for i in range(n):
        out[i] = digits[n - 1 - i]
    return n


cdef inline size_t put_signed(uint8_t* out, int64_t value) noexcept nogil:
    if value >= 0:
        return put_unsigned(out, <uint64_t>value)
    out[0] = 45
    return 1 + put_unsigned(out + 1, 0 - <uint64_t>value)


cdef inline size_t put_hex(uint8_t* out, uint32_t value) noexcept nogil:
    cdef int i
    cdef uint32_t digit
    for i in range(8):
        digit = value >> (28 - 4 * i) & 15
        out[i] = <uint8_t>(48 + digit if digit < 10 else 55 + digit)
    return 8


cdef inline void put32(uint8_t* out, uint32_t value) noexcept nogil:
    out[0] = value & 0xFF
    out[1] = value >> 8 & 0xFF
    out[2] = value >> 16 & 0xFF
    out[3] = value >> 24


cdef inline uint32_t width(uint8_t kind) noexcept nogil:
    if kind <= VR_SS:
        return 2
    return 8 if kind == VR_UV or kind == VR_SV or kind == VR_FD else 4
