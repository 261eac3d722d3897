"""The fields blob: the packed index attributes of one instance, walked in place without the GIL.

    version u8 (= 1) | then, ascending by tag: tag u32 | length u32 | value

Little endian. Values are UTF-8 text; an element without a value has length 0, an absent one no entry. The bytes
may come from a damaged file: every step checks.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from pacs_core._ext.cursor cimport Cursor, cursor_over, le32, left, take

cdef enum:
    RECORD_VERSION = 1
    RECORD_ENTRY = 8  # bytes before each value


cdef struct Fields:
    Cursor cursor
    int64_t last      # the tag before, -1 at the start


cdef struct Field:
    uint32_t tag
    uint32_t length
    const uint8_t* value


cdef inline bint fields_open(Fields* fields, const uint8_t* blob, size_t size) noexcept nogil:
    """Begin to walk a blob; false if its version is not ours."""
    fields.cursor = cursor_over(blob, 0)
    fields.last = -1
    if size == 0 or blob[0] != RECORD_VERSION:
        return False
    fields.cursor = cursor_over(blob + 1, size - 1)
    return True


cdef inline int fields_next(Fields* fields, Field* field) noexcept nogil:
    """The next entry into `field`: 1; at the end 0; -1 if the blob is malformed there."""
    cdef const uint8_t* head
    if fields.cursor.at == fields.cursor.end:
        return 0
    head = take(&fields.cursor, RECORD_ENTRY)
    if head == NULL:
        return -1
    field.tag = le32(head)
    field.length = le32(head + 4)
    field.value = take(&fields.cursor, field.length)
    if field.value == NULL or <int64_t>field.tag <= fields.last:
        return -1
    fields.last = field.tag
    return 1


cdef inline int fields_find(const uint8_t* blob, size_t size, uint32_t tag, Field* field) noexcept nogil:
    """The entry of `tag` into `field`: 1; 0 if there is none; -1 if the blob is malformed before it."""
    cdef Fields fields
    cdef int got
    if not fields_open(&fields, blob, size):
        return -1
    while True:
        got = fields_next(&fields, field)
        if got <= 0:
            return got
        if field.tag >= tag:
            return field.tag == tag
