# cython: auto_pickle=False
"""Data sets to tapes: every element, item and fragment found in one pass (PS3.5 section 7).

Headers are read by the rules of walk.pyx, whatever is wrong with them; here their nesting is kept account of,
sequences of defined length included:

- A length that reaches beyond the item or sequence around it ends with that.
- An element where an item should be ends a sequence of undefined length, and makes the rest of one of defined
  length opaque. Where an undefined length is neither SQ nor UN, it is a value up to the sequence delimiter.
- An item or the end of a sequence where elements should be ends an item of undefined length.
- More than 256 sequences in each other, or 33 million elements, are an error.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memset

from pacs_core._ext.cursor cimport be16, be32, le16, le32
from pacs_core._ext.dictionary cimport Entry, entry_of
from pacs_core._ext.findings cimport findings_of
from pacs_core._ext.vr cimport VR_LONG, VR_OPAQUE, VR_SQ, VR_UNKNOWN, vr_kind
from pacs_core._ext.walk cimport (
    F_BAD_LENGTH, F_DELIMITER, F_DUPLICATE, F_ODD_LENGTH, F_OUT_OF_ORDER, F_TRAILING, FORM_OPEN, ITEM, ITEM_END,
    SEQUENCE_END, Element, walk_begin, walk_header, walk_note,
)

from pacs_core.errors import UnparsableError

cdef enum:
    GIL_BUDGET = 2048   # headers read before the GIL is given up
    PIXEL_DATA = 0x7FE00010
    LETTERS_SQ = 0x5351

# What a level consists of.
cdef enum:
    ELEMENTS
    ITEMS
    FRAGMENTS


cdef inline uint32_t load_tag(const uint8_t* p, bint little) noexcept nogil:
    return <uint32_t>le16(p) << 16 | le16(p + 2) if little else be32(p)


cdef bint widen(Parse* p) noexcept nogil:
    """Room for more nodes; False without memory."""
    cdef Node* nodes = <Node*>PyMem_RawRealloc(p.nodes, <size_t>p.room * 2 * sizeof(Node))
    if nodes == NULL:
        return False
    p.nodes = nodes
    p.room *= 2
    return True


cdef inline Node* add(Parse* p) noexcept nogil:
    """A new node at the end of the tape, NULL without memory."""
    if p.count == p.room and not widen(p):
        return NULL
    p.nodes[p.count].level = <uint16_t>(p.above + p.depth)
    p.count += 1
    return &p.nodes[p.count - 1]


cdef inline int push(Parse* p, uint8_t holds, uint64_t end, bint undefined) noexcept nogil:
    """Enter the node added last; -1 if that is too deep."""
    cdef Level* level
    if p.above + p.depth + 1 >= MOST_LEVELS:
        return -1
    p.depth += 1
    p.walk.depth = p.depth
    level = &p.levels[p.depth]
    level.end = end
    level.node = p.count - 1
    level.last = 0
    level.holds = holds
    level.undefined = undefined
    level.un = False
    return 0


cdef inline void pop(Parse* p, bint whole) noexcept nogil:
    """Leave the level at the current place."""
    cdef Level* level = &p.levels[p.depth]
    cdef Node* node = &p.nodes[level.node]
    node.next = p.count
    if level.undefined:
        node.length = p.at - node.at
        if not whole:
            node.flags |= N_OPEN
    if level.un:
        p.walk.un_depth = 0
    p.depth -= 1
    p.walk.depth = p.depth


cdef inline void note_cut(Parse* p, uint32_t tag, uint64_t at) noexcept nogil:
    """The data end in the middle of what begins at `at`; the innermost is kept."""
    if not p.truncated:
        p.truncated = True
        p.cut_tag = tag
        p.cut_at = at


cdef inline uint64_t bounded(Parse* p, Node* node, uint64_t length, uint64_t end) noexcept nogil:
    """The length that a value can have, and the finding if it claims more."""
    if length <= end - node.at:
        return length
    node.flags |= N_OPEN
    if end == p.end:
        note_cut(p, node.tag, node.at - node.header)
    else:
        walk_note(&p.walk, F_BAD_LENGTH, node.tag, node.at - node.header)
    return end - node.at


cdef void rest(Parse* p, uint64_t end) noexcept nogil:
    """Fewer bytes than a header has are left up to `end`."""
    cdef uint64_t i
    cdef bint padding = True
    for i in range(p.at, end):
        padding &= p.base[i] == 0
    if padding or end != p.end:
        walk_note(&p.walk, F_TRAILING, 0, p.at)
    else:
        note_cut(p, 0, p.at)
    p.at = end


cdef void to_delimiter(Parse* p, Level* level) noexcept nogil:
    """The level is no sequence: its value reaches to the sequence delimiter, wherever that is."""
    cdef bint little = not p.nodes[level.node].flags & N_BIG
    cdef const uint8_t* at = p.base + p.nodes[level.node].at
    cdef const uint8_t* end = p.base + level.end
    p.nodes[level.node].flags &= ~(N_ITEMS | N_FRAGMENTS)
    p.count = level.node + 1
    while end - at >= 8:
        at = <const uint8_t*>memchr(at, 0xFE if little else 0xFF, end - at - 7)
        if at == NULL:
            break
        if load_tag(at, little) == SEQUENCE_END and le32(at + 4) == 0:
            p.at = at - p.base
            pop(p, True)
            p.at += 8
            return
        at += 1
    p.at = level.end
    note_cut(p, p.nodes[level.node].tag, p.nodes[level.node].at - p.nodes[level.node].header)
    pop(p, False)


cdef inline int delimiter(Parse* p, Level* level, Element* e) noexcept nogil:
    """An item, or the end of one or of a sequence (PS3.5 7.5)."""
    cdef Node* node
    if level.holds == ELEMENTS:
        if p.depth and level.undefined:
            if e.tag == ITEM_END:
                pop(p, True)
                p.at += 8
                return P_DONE
            if e.tag == SEQUENCE_END or e.tag == ITEM:
                walk_note(&p.walk, F_DELIMITER, e.tag, p.at)
                pop(p, False)
                return P_DONE
        walk_note(&p.walk, F_DELIMITER, e.tag, p.at)
        p.at += 8
        if e.tag == ITEM and not e.undefined:
            p.at += min(e.length, level.end - p.at)
        return P_DONE
    if e.tag == SEQUENCE_END and level.undefined:
        pop(p, True)
        p.at += 8
        return P_DONE
    if e.tag != ITEM:
        walk_note(&p.walk, F_DELIMITER, e.tag, p.at)
        p.at += 8
        return P_DONE
    if p.count == MOST_NODES:
        return P_TOO_MANY
    node = add(p)
    if node == NULL:
        return P_NO_MEMORY
    p.at += 8
    node.tag = ITEM
    node.vr = 0
    node.header = 8
    node.flags = p.nodes[level.node].flags & N_BIG
    if not e.little:
        node.flags |= N_BIG
    node.at = p.at
    node.length = 0
    node.next = p.count
    if e.undefined:
        if level.holds == FRAGMENTS:
            walk_note(&p.walk, F_BAD_LENGTH, ITEM, node.at - 8)
        node.flags |= N_UNDEFINED
        return P_TOO_DEEP if push(p, ELEMENTS, level.end, True) < 0 else P_DONE
    node.length = bounded(p, node, e.length, level.end)
    if level.holds == ITEMS:
        return P_TOO_DEEP if push(p, ELEMENTS, p.at + node.length, False) < 0 else P_DONE
    p.at += node.length
    return P_DONE


cdef inline bint is_sequence(const uint8_t* value, uint64_t length, Element* e) noexcept nogil:
    """Whether an element of defined length that has no VR is a sequence: by the dictionary, if it begins so."""
    cdef const Entry* entry
    if length < 8 or load_tag(value, e.little) != ITEM:
        return False
    entry = entry_of(e.tag)
    return entry != NULL and entry.vr == LETTERS_SQ


cdef inline bint is_odd(const uint8_t* header, Element* e) noexcept nogil:
    """Whether a header is not of the form that its VR, or having none, asks for."""
    cdef uint8_t kind
    if e.vr == 0:
        return (le32(header + 4) if e.little else be32(header + 4)) != e.length
    kind = vr_kind(header + 4)
    return (e.size == 12) != (kind == VR_UNKNOWN or kind & VR_LONG != 0)


cdef inline int element(Parse* p, Level* level, Element* e) noexcept nogil:
    """An element of a data set or item; its header is there."""
    cdef Node* node
    cdef bint un = False
    cdef uint8_t holds = ITEMS
    if e.tag <= level.last and p.count > level.node + 1:
        p.nodes[level.node].flags |= N_UNSORTED
        walk_note(&p.walk, F_DUPLICATE if e.tag == level.last else F_OUT_OF_ORDER, e.tag, p.at)
    level.last = e.tag
    if p.count == MOST_NODES:
        return P_TOO_MANY
    node = add(p)
    if node == NULL:
        return P_NO_MEMORY
    node.flags = 0 if e.little else N_BIG
    if e.explicit:
        node.flags |= N_EXPLICIT
    if is_odd(p.base + p.at, e):
        node.flags |= N_ODD
    p.at += e.size
    node.at = p.at
    node.tag = e.tag
    node.vr = e.vr
    node.header = <uint8_t>e.size
    node.next = p.count
    if e.undefined:
        un = e.un and p.walk.un_depth == 0
        if e.kind == VR_OPAQUE or (e.kind == VR_UNKNOWN and e.tag == PIXEL_DATA):
            holds = FRAGMENTS
        node.flags |= N_UNDEFINED | (N_FRAGMENTS if holds == FRAGMENTS else N_ITEMS)
        node.length = 0
        if push(p, holds, level.end, True) < 0:
            return P_TOO_DEEP
        if un:
            p.levels[p.depth].un = True
            p.walk.un_depth = 1
            p.walk.un_fresh = True
            p.walk.un_form = FORM_OPEN
        return P_DONE
    if e.length & 1:
        walk_note(&p.walk, F_ODD_LENGTH, e.tag, p.at - e.size)
    node.length = bounded(p, node, e.length, level.end)
    if e.kind == VR_SQ or (e.vr == 0 and is_sequence(p.base + p.at, node.length, e)):
        node.flags |= N_ITEMS
        return P_TOO_DEEP if push(p, ITEMS, p.at + node.length, False) < 0 else P_DONE
    p.at += node.length
    return P_DONE


cdef Parse* parse_begin(
    const uint8_t* base, uint64_t start, uint64_t end, bint implicit, bint little, int above, uint32_t only_group
) noexcept nogil:
    # On the heap: a thread may have no more stack than it takes.
    cdef Parse* p = <Parse*>PyMem_RawMalloc(sizeof(Parse))
    if p == NULL:
        return NULL
    walk_begin(&p.walk, NULL, NULL, 0)
    p.walk.implicit = implicit
    p.walk.little = little
    p.walk.oriented = only_group != 0  # the meta information is always explicit little endian
    p.base = base
    p.at = start
    p.end = end
    p.only_group = only_group
    p.above = above
    p.truncated = False
    p.count = 1
    p.room = <uint32_t>min(<uint64_t>(24 if above or only_group else 320), 1 + (end - start) // 8)
    p.nodes = <Node*>PyMem_RawMalloc(p.room * sizeof(Node))
    if p.nodes == NULL:
        PyMem_RawFree(p)
        return NULL
    memset(p.nodes, 0, sizeof(Node))
    p.nodes[0].at = start
    p.nodes[0].level = <uint16_t>above
    p.nodes[0].flags = N_ITEMS if above else 0
    p.depth = 0
    memset(p.levels, 0, sizeof(Level))
    p.levels[0].end = end
    p.levels[0].holds = ITEMS if above else ELEMENTS
    return p


cdef void parse_free(Parse* p) noexcept nogil:
    PyMem_RawFree(p.nodes)
    PyMem_RawFree(p)


cdef int plain(Parse* p, Level* level) noexcept nogil:
    """Elements of explicit VR little endian with the short header, nothing being odd about them: most there are.

    It ends before the first that is anything else, having said nothing of it: `walk_header` decides.
    """
    cdef const uint8_t* base = p.base
    cdef const uint8_t* at
    cdef uint64_t here = p.at  # in registers, as nothing is that nodes might overlap
    cdef uint64_t end = level.end
    cdef uint32_t count = p.count
    cdef uint32_t last = level.last
    cdef uint16_t deep = <uint16_t>(p.above + p.depth)
    cdef uint32_t tag, length
    cdef uint8_t kind
    cdef Node* node
    cdef int how = P_DONE
    while end - here >= 16:
        at = base + here
        tag = <uint32_t>le16(at) << 16 | le16(at + 2)
        kind = vr_kind(at + 4)
        length = le16(at + 6)
        if (
            kind == VR_UNKNOWN or kind & VR_LONG or tag <= last or tag >> 16 == 0xFFFE or length & 1
            or length > end - here - 8
        ):
            break
        if count == MOST_NODES:
            how = P_TOO_MANY
            break
        if count == p.room and not widen(p):
            how = P_NO_MEMORY
            break
        node = &p.nodes[count]
        count += 1
        node.at = here + 8
        node.length = length
        node.tag = tag
        node.next = count
        node.vr = be16(at + 4)
        node.flags = N_EXPLICIT
        node.header = 8
        node.level = deep
        last = tag
        here += 8 + length
    p.at = here
    p.count = count
    level.last = last
    return how


cdef int parse_run(Parse* p, uint32_t budget) noexcept nogil:
    cdef Level* level
    cdef Element e
    cdef Node* owner
    cdef uint32_t before
    cdef int how
    while True:
        level = &p.levels[p.depth]
        if p.at >= level.end:
            if p.depth == 0:
                break
            if level.undefined and level.end == p.end:
                owner = &p.nodes[level.node]
                note_cut(p, owner.tag, owner.at - owner.header)
            pop(p, False)
            continue
        if level.end - p.at < 8:
            if p.only_group and p.depth == 0:
                break  # for who reads what follows
            rest(p, level.end)
            continue
        if budget == 0:
            return P_PAUSED
        budget -= 1
        if p.only_group and p.depth == 0 and le16(p.base + p.at) != p.only_group:
            break  # before anything of another encoding is found odd
        if level.holds == ELEMENTS and p.walk.oriented and p.walk.little and not (
            p.walk.implicit or p.walk.un_depth or p.only_group
        ):
            before = p.count
            how = plain(p, level)
            if how != P_DONE:
                return how
            if p.count != before:
                budget -= min(budget, p.count - before - 1)
                continue
        walk_header(&p.walk, p.base + p.at, level.end - p.at, p.at, &e)
        if e.tag >> 16 == 0xFFFE:
            how = delimiter(p, level, &e)
        elif level.holds != ELEMENTS:
            owner = &p.nodes[level.node]
            if p.count == level.node + 1 and level.undefined and owner.vr and owner.vr != LETTERS_SQ and (
                not level.un
            ):
                to_delimiter(p, level)
                continue
            walk_note(&p.walk, F_DELIMITER, e.tag, p.at)
            if level.undefined:
                pop(p, False)
            else:
                p.at = level.end
            continue
        elif e.size > level.end - p.at:
            note_cut(p, e.tag, p.at)
            p.at = level.end
            continue
        else:
            how = element(p, level, &e)
        if how != P_DONE:
            return how
    p.nodes[0].next = p.count
    p.nodes[0].length = p.at - p.nodes[0].at
    return P_DONE


@cython.final
@cython.no_gc  # nothing that it holds comes back to it
cdef class Tape:
    """The elements of one data set; made by native modules only."""

    def __init__(self):
        raise TypeError("tapes are made by parsing")

    def __dealloc__(self):
        PyMem_RawFree(self.nodes)
        if self.held:
            PyBuffer_Release(&self.view)

    def __sizeof__(self):
        return sizeof(Node) * self.count + object.__sizeof__(self)

    cdef int parse(self, uint64_t start, uint64_t end, int above, uint32_t only_group) except -1:
        """Fill the tape with what is between two offsets of the buffer: elements, or, in `above` levels of others,
        the items of a sequence.

        Raises UnparsableError for what is nested too deep, or has too many elements.
        """
        cdef int how
        cdef Parse* p = parse_begin(self.base, start, end, self.implicit, self.little, above, only_group)
        if p == NULL:
            raise MemoryError
        how = parse_run(p, GIL_BUDGET)
        if how == P_PAUSED:
            with nogil:
                while how == P_PAUSED:
                    how = parse_run(p, 0xFFFFFFFFU)
        try:
            if how == P_NO_MEMORY:
                raise MemoryError
            if how == P_TOO_DEEP:
                raise UnparsableError(f"more than {MOST_DEPTH} sequences in each other", offset=p.at)
            if how == P_TOO_MANY:
                raise UnparsableError(f"more than {MOST_NODES} elements", offset=p.at)
            if p.room - p.count > p.count // 8 + 16:
                p.nodes = <Node*>PyMem_RawRealloc(p.nodes, p.count * sizeof(Node)) or p.nodes
            self.implicit = p.walk.implicit
            self.little = p.walk.little
            self.cut = (p.cut_tag, p.cut_at) if p.truncated else None
            self.findings = findings_of(&p.walk)
            self.count = p.count
            self.nodes = p.nodes
            p.nodes = NULL
        finally:
            parse_free(p)
        return 0

    cdef Tape within(self, uint32_t node):
        """The items in the value of a node that was not parsed: a UN, or a private element without a VR.

        They are implicit VR little endian (PS3.5 6.2.2), but for what is big endian without a VR.
        """
        cdef Tape tape = Tape.__new__(Tape)
        cdef Node* n = &self.nodes[node]
        tape.owner = self if self.owner is None else self.owner
        tape.base = self.base
        tape.source = self.source
        tape.implicit = True
        tape.little = n.vr != 0 or not n.flags & N_BIG
        tape.parse(n.at, n.at + n.length, n.level + 1, 0)
        return tape

    cdef object slice(self, uint64_t at, uint64_t size):
        """Bytes of the buffer as a view, which keeps the buffer alive."""
        return memoryview(self.source).cast("B")[at:at + size]


cdef Tape tape_of(object data, uint64_t start, bint implicit, bint little, uint32_t only_group):
    """Parse the data set that begins at `start` of a buffer, as far as its group is `only_group` if that is not 0."""
    cdef Tape tape = Tape.__new__(Tape)
    PyObject_GetBuffer(data, &tape.view, PyBUF_SIMPLE)
    tape.held = True
    tape.source = data
    tape.base = <const uint8_t*>tape.view.buf
    tape.implicit = implicit
    tape.little = little
    tape.parse(min(start, <uint64_t>tape.view.len), tape.view.len, 0, only_group)
    return tape
