"""The header scan, whole and in pieces, and what ingest makes of it for the index.

Input: encoding (a byte), size of the pieces (a byte), then the data set. (Deflated ones are for `deflated`:
inflating takes twenty times as long.)
"""

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t
from libc.stdlib cimport free
from libc.string cimport memset

from pacs_core._ext.arena cimport Arena, release
from pacs_core._ext.dataset cimport Header, Scan, Scanner
from pacs_core._ext.keys cimport (
    CODE_MODALITY_DATE, KEY_NONE, UID_MAX, UID_SERIES, Key, Text, add_keys, add_pair_key, same_text, sort_keys,
    uid_key,
)
from pacs_core._ext.rows cimport (
    IMAGE, SERIES, STUDY, Fields, Instance, Layout, Pen, Schema, decode_instance, encode_instance, next_attribute,
    parse_fields,
)

from pacs_core.dicom.attributes import ATTRIBUTES
from pacs_core.dicom.header import scanner
from pacs_core.errors import UnparsableError
from pacs_core.index.schema import assign_codes, native_rows

cdef enum:
    HEAD = 2
    INFLATE_LIMIT = 1 << 18
    MOST_PIECES = 16

cdef tuple syntaxes = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2")
cdef Scanner wanted = scanner(((a.tag, a.vr) for a in ATTRIBUTES), inflate_limit=INFLATE_LIMIT)
cdef Schema schema = Schema(native_rows(assign_codes({})), bytes(16))


cdef Header scan_whole(view, str syntax):
    try:
        return wanted.scan(view, syntax)
    except UnparsableError:
        return None


cdef Header scan_pieces(view, str syntax, Py_ssize_t piece):
    cdef Scan scan = Scan(wanted, syntax)
    cdef Py_ssize_t at
    try:
        for at in range(0, len(view), piece):
            scan.feed(view[at:at + piece])
        return scan.finish()
    except UnparsableError:
        return None


cdef int index(bytes blob) except -1:
    """The keys and the record of an instance; the record holds what the fields say."""
    cdef const Layout* layout = &schema.layout
    cdef Fields fields
    cdef Instance instance, read
    cdef Pen pen
    cdef Arena arena
    cdef Key* keys = NULL
    cdef Text text, modality
    cdef uint8_t code
    cdef uint8_t[UID_MAX] uid
    cdef int level, slot, kind
    if parse_fields(layout, blob, len(blob), &fields) < 0:
        raise AssertionError("malformed fields out of a scan")
    arena.head = NULL
    for level in range(IMAGE + 1):
        for slot in range(layout.slots[level]):
            kind = layout.key_of[level][slot]
            if kind != KEY_NONE:
                add_keys(&arena, layout.code_of[level][slot], kind, fields.values[level][slot], &keys)
    modality = fields.values[SERIES][layout.modality]
    add_pair_key(&arena, CODE_MODALITY_DATE, modality, fields.values[STUDY][layout.study_date], &keys)
    sort_keys(&arena, &keys)
    uid_key(layout.secret, UID_SERIES, fields.series_uid, 1, uid)
    release(&arena)
    memset(&pen, 0, sizeof(pen))
    memset(&instance, 0, sizeof(instance))
    instance.uid = fields.sop_uid
    encode_instance(layout, &pen, &instance, &fields)
    try:
        if decode_instance(pen.data, pen.size, &read) < 0 or not same_text(read.uid, fields.sop_uid):
            raise AssertionError("a record that can't be read")
        while next_attribute(&read, &code, &text):
            if not same_text(text, fields.values[IMAGE][layout.slot_of[code]]):
                raise AssertionError("a record that says something else")
    finally:
        free(pen.data)
    return 0


def check(view not None, str syntax not None, Py_ssize_t piece):
    """Scan a data set in both ways, and index it."""
    cdef Header whole = scan_whole(view, syntax)
    cdef Header pieces = scan_pieces(view, syntax, max(piece, len(view) // MOST_PIECES))
    if whole is None or pieces is None:
        if whole is not pieces:
            raise AssertionError("refused only in pieces, or only as a whole")
        return
    if (whole.fields, whole.findings, whole.stray, whole.truncated) != (
        pieces.fields, pieces.findings, pieces.stray, pieces.truncated
    ):
        raise AssertionError(f"whole {whole!r} {whole.findings}, in pieces {pieces!r} {pieces.findings}")
    index(whole.fields)


cdef api int one_input(const uint8_t* data, size_t size) except -1:
    if size >= HEAD:
        view = PyMemoryView_FromMemory(<char*>data + HEAD, size - HEAD, PyBUF_READ)
        check(view, syntaxes[data[0] % len(syntaxes)], 1 + data[1])
    return 0
