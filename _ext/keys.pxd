"""Order-preserving keys of the index: what equality, prefix and range searches walk.

A key of the `key` table is: code of the attribute (1 byte), then 00 for an empty value, or 01 and the
normalised value, cut at `KEY_CUT` bytes. Values compare as bytes, so UTF-8 sorts by code point and DICOM
dates by time. A key that was cut, or that normalisation made equal to another, is rechecked on the record.

A key of the `uid` table is: kind (1 byte), the text, and for a series the id of its study (8 bytes, big
endian). Texts of more than `TEXT_CUT` bytes (no valid UID is that long) are cut and followed by their
SipHash-2-4 under the index's own secret, so that nobody can make two of them meet.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from pacs_core._ext.arena cimport Arena


cdef struct Text:
    const uint8_t* data
    size_t size


cdef enum KeyKind:
    KEY_NONE = 0
    KEY_TEXT = 1   # as it is, each value of a multi-valued attribute
    KEY_NAME = 2   # PN: each component group, case-folded, components trimmed, trailing ^ dropped
    KEY_DATE = 3   # DA: also the old form yyyy.mm.dd
    KEY_SPARSE = 16  # with one of these: an empty value has no key


cdef enum UidKind:
    UID_PATIENT = 0
    UID_STUDY = 1
    UID_SERIES = 2
    UID_INSTANCE = 3
    UID_NAMELESS = 4   # a study without a Study Instance UID, by what else it says


cdef enum:
    KEY_CUT = 200
    KEY_MAX = 202
    TEXT_CUT = 400
    UID_MAX = 420
    CODE_PATIENT_ID = 254      # codes of attributes end at 239
    CODE_MODALITY_DATE = 255   # compound: each modality in the study, 00, study date (none if several)


cdef struct Key:
    Key* next
    size_t size
    uint8_t data[KEY_MAX]


cdef inline bint same_text(Text a, Text b) noexcept nogil:
    return a.size == b.size and (a.size == 0 or memcmp(a.data, b.data, a.size) == 0)


cdef struct Out:            # normalised text on its way; what goes beyond `room` is cut
    uint8_t* data
    size_t size
    size_t room
    uint8_t* inner          # unless NULL: set to 1 where a folded character goes on, not where it begins


cdef inline size_t code_point(const uint8_t* data, size_t size, uint32_t* point) noexcept nogil:
    """The character that UTF-8 begins with, and its size: 1 in ASCII, 0 if it is none."""
    cdef size_t more, k
    if size == 0:
        return 0
    if data[0] < 0x80:
        point[0] = data[0]
        return 1
    if data[0] >= 0xF0:
        more, point[0] = 3, data[0] & 0x07
    elif data[0] >= 0xE0:
        more, point[0] = 2, data[0] & 0x0F
    elif data[0] >= 0xC2:
        more, point[0] = 1, data[0] & 0x1F
    else:
        return 0
    if more >= size:
        return 0
    for k in range(1, more + 1):
        point[0] = point[0] << 6 | (data[k] & 0x3F)
    return more + 1


cdef inline const void* find_point(const void* table, size_t count, size_t stride, uint32_t point) noexcept nogil:
    """The row of a code point, with which its row begins, in a table that ascends by it; NULL without one."""
    cdef const uint8_t* rows = <const uint8_t*>table
    cdef size_t low = 0, high = count, middle
    while low < high:
        middle = (low + high) // 2
        if (<const uint32_t*>(rows + middle * stride))[0] < point:
            low = middle + 1
        else:
            high = middle
    if low < count and (<const uint32_t*>(rows + low * stride))[0] == point:
        return rows + low * stride
    return NULL


cdef inline void put(Out* out, uint8_t byte) noexcept nogil:
    if out.size < out.room:
        out.data[out.size] = byte
        out.size += 1


cdef Text trimmed(const uint8_t* data, size_t size) noexcept nogil
cdef void normal(int kind, Text text, Out* out) noexcept nogil
cdef int add_keys(Arena* arena, uint8_t code, int kind, Text value, Key** keys) noexcept nogil
cdef int add_pair_key(Arena* arena, uint8_t code, Text first, Text second, Key** keys) noexcept nogil
cdef int sort_keys(Arena* arena, Key** keys) noexcept nogil
cdef int order_keys(const Key* a, const Key* b) noexcept nogil
cdef size_t uid_key(const uint8_t* secret, int kind, Text text, uint64_t scope, uint8_t* out) noexcept nogil
