"""The walk over a data set, without the interpreter: whole and in pieces, which must see the same.

Input: encoding (a byte), size of the pieces (a byte), then the data set.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcmp, memcpy

from pacs_core._ext.dataset cimport Scanner
from pacs_core._ext.vr cimport VR_UNKNOWN
from pacs_core._ext.walk cimport F_COUNT, Slot, Walk, walk_begin, walk_end, walk_free, walk_run

from pacs_core.dicom.attributes import ATTRIBUTES
from pacs_core.dicom.header import scanner

cdef enum:
    IMPLICIT = 1
    BIG = 2
    HEAD = 2
    MOST_PIECES = 64

cdef Scanner wanted = scanner((attribute.tag, attribute.vr) for attribute in ATTRIBUTES)
cdef Walk whole, pieces


cdef void begin(Walk* w, int encoding) noexcept nogil:
    walk_begin(w, wanted.tags, wanted.kinds, wanted.count)
    w.implicit = (encoding & IMPLICIT) != 0
    w.little = not encoding & BIG


cdef void walk_whole(Walk* w, const uint8_t* data, size_t size, uint32_t budget) noexcept nogil:
    cdef size_t done
    w.whole = True
    done = walk_run(w, data, size, True, budget)
    while w.paused:
        done += walk_run(w, data + done, size - done, True, budget)
    walk_end(w, data + done, size - done)


cdef void walk_pieces(Walk* w, const uint8_t* data, size_t size, size_t piece) noexcept nogil:
    """Each piece, with what the walk left of those before, in memory of its own that ends where it ends."""
    cdef size_t done = 0, there = 0
    cdef uint8_t* copy
    while there < size and not w.failed:
        there = min(size, there + piece)
        copy = <uint8_t*>malloc(there - done)
        memcpy(copy, data + done, there - done)
        done += walk_run(w, copy, there - done, False, 0xFFFFFFFFU)
        free(copy)
    done += walk_run(w, data + done, size - done, True, 0xFFFFFFFFU)
    walk_end(w, data + done, size - done)


cdef bint same(Walk* a, Walk* b, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t i
    cdef Slot* x
    cdef Slot* y
    if a.truncated != b.truncated or a.failed != b.failed or a.stray_count != b.stray_count:
        return False
    if a.stray_count and memcmp(a.strays, b.strays, a.stray_count * sizeof(a.strays[0])):
        return False
    for i in range(<size_t>F_COUNT):
        if a.odd[i].count != b.odd[i].count or a.odd[i].tag != b.odd[i].tag or a.odd[i].offset != b.odd[i].offset:
            return False
    for i in range(a.wanted_count):
        x = &a.slots[i]
        y = &b.slots[i]
        if x.kind != y.kind:
            return False
        if x.kind == VR_UNKNOWN:
            continue
        if x.size != y.size or x.cut != y.cut or x.little != y.little or x.at + x.size > size:
            return False
        if x.size and memcmp(data + x.at, b.arena + y.at, x.size):
            return False
    return True


cdef api int one_input(const uint8_t* data, size_t size) except -1 nogil:
    cdef size_t piece
    if size < HEAD:
        return 0
    piece = max(<size_t>1 + data[1], size // MOST_PIECES)
    begin(&whole, data[0])
    walk_whole(&whole, data + HEAD, size - HEAD, <uint32_t>piece)
    begin(&pieces, data[0])
    walk_pieces(&pieces, data + HEAD, size - HEAD, piece)
    if not same(&whole, &pieces, data + HEAD, size - HEAD):
        abort()
    walk_free(&whole)
    walk_free(&pieces)
    return 0
