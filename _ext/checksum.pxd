"""CRC-32C (Castagnoli) for the other native modules."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

# The checksum of `length` bytes at `data`, going on from `value` (0 to begin). Any thread, no GIL needed.
cdef uint32_t crc32c_update(uint32_t value, const unsigned char *data, size_t length) noexcept nogil
