"""Records of the index as a damaged file may hold them: decoded without the interpreter, and written again.

Input: which record (a byte), then its bytes.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport abort, free
from libc.string cimport memset

from pacs_core._ext.arena cimport Arena, release
from pacs_core._ext.keys cimport Text
from pacs_core._ext.record cimport Field, fields_find
from pacs_core._ext.rows cimport (
    IMAGE, PATIENT, SLOTS, STUDY, Fields, Instance, Layout, Node, Pen, Schema, Value, decode_instance, decode_node,
    encode_node, given, next_attribute, parse_fields,
)

from pacs_core.index.schema import assign_codes, native_rows

cdef enum:
    FIELDS = IMAGE + 1  # beside the levels
    KINDS = FIELDS + 1
    PATIENT_NAME = 0x00100010

cdef Schema schema = Schema(native_rows(assign_codes({})), bytes(16))
cdef Pen pen
memset(&pen, 0, sizeof(pen))


cdef void read_node(const uint8_t* data, size_t size, int level) noexcept nogil:
    cdef Node node, again
    cdef Value said[SLOTS]
    cdef Arena arena
    arena.head = NULL
    memset(&node, 0, sizeof(node))
    memset(&again, 0, sizeof(again))
    if decode_node(&schema.layout, &arena, data, size, level, &node) == 0:
        if level == STUDY:
            given(&schema.layout, &node, said)
        encode_node(&schema.layout, &pen, &node)
        if decode_node(&schema.layout, &arena, pen.data, pen.size, level, &again) < 0:
            abort()
    release(&arena)


cdef void read_instance(const uint8_t* data, size_t size) noexcept nogil:
    cdef Instance instance
    cdef uint8_t code
    cdef Text text
    if decode_instance(data, size, &instance) == 0:
        while next_attribute(&instance, &code, &text):
            pass


cdef void read_fields(const uint8_t* data, size_t size) noexcept nogil:
    cdef Fields fields
    cdef Field field
    parse_fields(&schema.layout, data, size, &fields)
    fields_find(data, size, PATIENT_NAME, &field)


cdef api int one_input(const uint8_t* data, size_t size) except -1 nogil:
    cdef int kind
    if size == 0:
        return 0
    kind = data[0] % KINDS
    if kind == FIELDS:
        read_fields(data + 1, size - 1)
    elif kind == IMAGE:
        read_instance(data + 1, size - 1)
    else:
        read_node(data + 1, size - 1, kind)
    return 0
