"""CRC-32C (Castagnoli, RFC 3720 B.4), the checksum of all that the store writes.

With SSE 4.2 the processor's own instruction does the work. It takes 8 bytes in 3 cycles of latency but can
begin one each cycle, so long buffers are cut in three lanes that run side by side, and the lanes are joined
by advancing each over the length of what follows it: a linear map over GF(2), kept as four tables of 256.
Elsewhere, eight tables take 8 bytes a step. Which of the two is decided once, when the module is loaded.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    #define PC_POLYNOMIAL 0x82F63B78u  /* 0x1EDC6F41, bits reversed */
    #define PC_LONG 4096u              /* bytes of a lane; multiples of 8 */
    #define PC_SHORT 256u

    static uint32_t pc_slices[8][256];
    static uint32_t pc_long[4][256];
    static uint32_t pc_short[4][256];

    /* table[t][b]: what a checksum whose byte t is b becomes when `length` zero bytes follow. */
    static void pc_prepare_shift(uint32_t table[4][256], size_t length) {
        for (int bit = 0; bit < 32; bit++) {
            uint32_t crc = (uint32_t)1 << bit;
            for (size_t i = 0; i < length; i++)
                crc = pc_slices[0][crc & 0xFF] ^ (crc >> 8);
            table[bit >> 3][1u << (bit & 7)] = crc;
        }
        for (int t = 0; t < 4; t++) {
            table[t][0] = 0;
            for (unsigned b = 1; b < 256; b++)
                table[t][b] = table[t][b & (b - 1)] ^ table[t][b & (~b + 1)];
        }
    }

    static void pc_prepare(void) {
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t crc = b;
            for (int k = 0; k < 8; k++)
                crc = crc & 1 ? (crc >> 1) ^ PC_POLYNOMIAL : crc >> 1;
            pc_slices[0][b] = crc;
        }
        for (int t = 1; t < 8; t++)
            for (uint32_t b = 0; b < 256; b++)
                pc_slices[t][b] = pc_slices[0][pc_slices[t - 1][b] & 0xFF] ^ (pc_slices[t - 1][b] >> 8);
        pc_prepare_shift(pc_long, PC_LONG);
        pc_prepare_shift(pc_short, PC_SHORT);
    }

    static uint32_t pc_crc_table(uint32_t crc, const unsigned char *p, size_t n) {
        crc = ~crc;
        while (n >= 8) {
            uint32_t a = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
            crc = pc_slices[7][a & 0xFF] ^ pc_slices[6][(a >> 8) & 0xFF] ^ pc_slices[5][(a >> 16) & 0xFF]
                ^ pc_slices[4][a >> 24] ^ pc_slices[3][p[4]] ^ pc_slices[2][p[5]] ^ pc_slices[1][p[6]]
                ^ pc_slices[0][p[7]];
            p += 8;
            n -= 8;
        }
        while (n--)
            crc = pc_slices[0][(crc ^ *p++) & 0xFF] ^ (crc >> 8);
        return ~crc;
    }

    #if defined(__x86_64__) && defined(__GNUC__)
    #include <nmmintrin.h>

    static inline uint32_t pc_shift(uint32_t table[4][256], uint32_t crc) {
        return table[0][crc & 0xFF] ^ table[1][(crc >> 8) & 0xFF] ^ table[2][(crc >> 16) & 0xFF]
             ^ table[3][crc >> 24];
    }

    static inline uint64_t pc_load(const unsigned char *p) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        return word;
    }

    __attribute__((target("sse4.2")))
    static inline uint64_t pc_lanes(uint64_t a, const unsigned char *p, size_t lane, uint32_t table[4][256]) {
        uint64_t b = 0, c = 0;
        for (size_t i = 0; i < lane; i += 8) {
            a = _mm_crc32_u64(a, pc_load(p + i));
            b = _mm_crc32_u64(b, pc_load(p + lane + i));
            c = _mm_crc32_u64(c, pc_load(p + 2 * lane + i));
        }
        a = pc_shift(table, (uint32_t)a) ^ b;
        return pc_shift(table, (uint32_t)a) ^ c;
    }

    __attribute__((target("sse4.2")))
    static uint32_t pc_crc_sse42(uint32_t value, const unsigned char *p, size_t n) {
        uint64_t crc = (uint32_t)~value;
        while (n >= 3 * PC_LONG) {
            crc = pc_lanes(crc, p, PC_LONG, pc_long);
            p += 3 * PC_LONG;
            n -= 3 * PC_LONG;
        }
        while (n >= 3 * PC_SHORT) {
            crc = pc_lanes(crc, p, PC_SHORT, pc_short);
            p += 3 * PC_SHORT;
            n -= 3 * PC_SHORT;
        }
        for (; n >= 8; n -= 8, p += 8)
            crc = _mm_crc32_u64(crc, pc_load(p));
        for (; n; n--)
            crc = _mm_crc32_u8((uint32_t)crc, *p++);
        return ~(uint32_t)crc;
    }

    static int pc_has_sse42(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("sse4.2") != 0;
    }
    #else
    #define pc_crc_sse42 pc_crc_table
    static int pc_has_sse42(void) { return 0; }
    #endif
    """
    void pc_prepare()
    int pc_has_sse42()
    uint32_t pc_crc_table(uint32_t crc, const unsigned char *data, size_t length) noexcept nogil
    uint32_t pc_crc_sse42(uint32_t crc, const unsigned char *data, size_t length) noexcept nogil

# Over this many bytes the GIL is given up: below, giving it up costs more than the sum.
cdef Py_ssize_t _RELEASE_OVER = 65536

pc_prepare()
cdef bint _sse42 = pc_has_sse42()

ACCELERATED = bool(_sse42)


cdef uint32_t crc32c_update(uint32_t value, const unsigned char *data, size_t length) noexcept nogil:
    if _sse42:
        return pc_crc_sse42(value, data, length)
    return pc_crc_table(value, data, length)


def crc32c(data, unsigned int value=0) -> int:
    """The CRC-32C of `data`, any contiguous buffer; `value` is that of the bytes before it, to go on from.

    Gives up the GIL over 64 KiB.
    """
    cdef Py_buffer view
    cdef uint32_t result
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len > _RELEASE_OVER:
            with nogil:
                result = crc32c_update(value, <const unsigned char *> view.buf, view.len)
        else:
            result = crc32c_update(value, <const unsigned char *> view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return result


def crc32c_portable(data, unsigned int value=0) -> int:
    """As `crc32c`, by tables whatever the processor: what runs where there is no instruction for it."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return pc_crc_table(value, <const unsigned char *> view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
