"""Parsing to tapes, without the interpreter: at once and with pauses, which must give the same sound tape.

Input: encoding and levels around (a byte), headers between pauses (a byte), then the data set; or, in levels of
others, the items of a sequence.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport abort

from pacs_core._ext.tape cimport (
    MOST_LEVELS, N_FRAGMENTS, N_ITEMS, N_UNSORTED, P_DONE, P_PAUSED, P_TOO_DEEP, Node, Parse, find, parse_begin,
    parse_free, parse_run, past,
)
from pacs_core._ext.walk cimport F_COUNT, ITEM

cdef enum:
    IMPLICIT = 1
    BIG = 2
    META = 4
    HEAD = 2
    LOOKED_UP = 8  # of the elements of a set: each time all before them are looked at


cdef bint is_sound_set(const Node* nodes, uint32_t set) noexcept nogil:
    """Whether what is directly in a node lies in it, one after the other, and is found by its tag."""
    cdef uint64_t at = nodes[set].at
    cdef uint64_t end = nodes[set].at + nodes[set].length
    cdef uint32_t child = set + 1
    cdef uint32_t place = 0
    cdef uint32_t found
    cdef bint of_items = (nodes[set].flags & (N_ITEMS | N_FRAGMENTS)) != 0
    cdef bint ascending = True
    cdef uint32_t last = 0
    cdef const Node* node
    while child < nodes[set].next:
        node = &nodes[child]
        if node.header < 8 or node.at < at + node.header or past(node) > end:
            return False
        if node.next <= child or node.next > nodes[set].next:
            return False
        if (node.tag == ITEM) != of_items:
            return False
        if place and node.tag <= last:
            ascending = False
        if not of_items and place < LOOKED_UP:
            found = find(nodes, set, node.tag)
            if found < child or found >= nodes[set].next or nodes[found].tag != node.tag:
                return False
        last = node.tag
        at = past(node)
        child = node.next
        place += 1
    return of_items or ascending != (nodes[set].flags & N_UNSORTED != 0)


cdef bint is_sound(Parse* p, uint64_t size) noexcept nogil:
    cdef uint32_t i
    cdef Node* node
    if p.nodes[0].next != p.count or p.nodes[0].at + p.nodes[0].length > size:
        return False
    for i in range(p.count):
        node = &p.nodes[i]
        if node.next != i + 1 and i and node.tag != ITEM and not node.flags & (N_ITEMS | N_FRAGMENTS):
            return False
        if not is_sound_set(p.nodes, i):
            return False
    return True


cdef bint same(Parse* a, Parse* b) noexcept nogil:
    cdef uint32_t i
    cdef Node* x
    cdef Node* y
    if a.count != b.count or a.at != b.at or a.truncated != b.truncated or a.walk.implicit != b.walk.implicit or (
        a.walk.little != b.walk.little
    ):
        return False
    for i in range(<uint32_t>F_COUNT):
        if a.walk.odd[i].count != b.walk.odd[i].count or a.walk.odd[i].offset != b.walk.odd[i].offset:
            return False
    for i in range(a.count):
        x = &a.nodes[i]
        y = &b.nodes[i]
        if x.at != y.at or x.length != y.length or x.tag != y.tag or x.next != y.next:
            return False
        if x.vr != y.vr or x.flags != y.flags or x.header != y.header or x.level != y.level:
            return False
    return True


cdef inline int above(uint8_t how) noexcept nogil:
    return (how >> 4) * 34


cdef Parse* begin(uint8_t how, const uint8_t* data, size_t size) noexcept nogil:
    return parse_begin(
        data, 0, size, (how & IMPLICIT) != 0, not how & BIG, above(how), 2 if how & META else 0
    )


cdef api int one_input(const uint8_t* data, size_t size) except -1 nogil:
    cdef Parse* whole
    cdef Parse* paused
    cdef int how, again
    if size < HEAD:
        return 0
    whole = begin(data[0], data + HEAD, size - HEAD)
    paused = begin(data[0], data + HEAD, size - HEAD)
    how = parse_run(whole, 0xFFFFFFFFU)
    again = parse_run(paused, data[1])
    while again == P_PAUSED:
        again = parse_run(paused, 1 + data[1])
    if how != again or not same(whole, paused) or whole.count > 1 + (size - HEAD) // 8:
        abort()
    if how == P_DONE:
        if not is_sound(whole, size - HEAD):
            abort()
    elif how != P_TOO_DEEP or whole.count < MOST_LEVELS - above(data[0]):
        abort()
    parse_free(whole)
    parse_free(paused)
    return 0
