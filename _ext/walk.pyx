"""The walk over a data set: one pass, any chunks, no trust in lengths (PS3.5 section 7).

A state machine without a stack. What has a defined length is skipped in one step, sequences and items too; of
what has an undefined length only the depth is counted: odd in a sequence or among fragments, where items are
expected, even in an item, where elements are. So nesting costs nothing, however deep.

A decision is made when LOOKAHEAD bytes are there, or the end is: hence a data set gives the same result in
whatever chunks it arrives. Every step consumes at least eight bytes or leaves a level of nesting: the time is
bounded by the size. Memory is bounded by the number of wanted tags: of each, KEEP bytes are kept. Of a wanted
sequence those are its items as they are encoded.

What is not as the standard has it is walked as follows, and noted:

- The first element of the data set (of a group over 0002) tells whether the transfer syntax is mislabelled:
  bytes swapped, or a VR where none should be, or none where one should.
- Any other element in explicit VR whose VR is not two printable characters is read as implicit; in implicit VR,
  one that has a VR and whose length would be odd without it is read as explicit.
- Two capital letters that are no VR we know are a VR to come, with the long header (PS3.5 7.1.2); other
  printable characters a broken one, with the short header.
- A long header whose reserved bytes are not zero has them for a length of two bytes.
- A delimiter where it does not belong closes what it names; an element where an item should be closes the
  sequence. An undefined length that is neither SQ nor UN and holds no items ends at the sequence delimiter.
- UN of undefined length is implicit VR little endian inside (CP-246), though items show their byte order. Where
  its elements have VRs they are read as explicit, if the first that tells is: by an odd length, or what follows.
- Of duplicate elements the last is kept.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy, memset

from pacs_core._ext.cursor cimport Cursor, be16, be32, le16, le32, left
from pacs_core._ext.vr cimport (
    VR_KIND, VR_LONG, VR_OPAQUE, VR_SQ, VR_UN, VR_UNKNOWN, VR_US, vr_capital, vr_kind,
)

cdef void walk_begin(Walk* w, const uint32_t* wanted, const uint8_t* kinds, uint32_t count) noexcept nogil:
    """Make ready; the caller then sets `whole`, `implicit` and `little`."""
    cdef uint32_t i
    memset(w, 0, sizeof(Walk) - sizeof(w.slots))
    for i in range(count):
        memset(&w.slots[i], 0, sizeof(Slot))
    w.wanted = wanted
    w.kinds = kinds
    w.wanted_count = count
    w.slot = w.taped = -1


cdef void walk_free(Walk* w) noexcept nogil:
    free(w.arena)
    free(w.strays)
    w.arena = NULL
    w.strays = NULL


cdef void walk_note(Walk* w, int kind, uint32_t tag, uint64_t offset) noexcept nogil:
    """Count a finding; the first of its kind is kept."""
    cdef Odd* odd = &w.odd[kind]
    if odd.count == 0:
        odd.tag = tag
        odd.offset = offset
    if odd.count != 0xFFFFFFFFU:
        odd.count += 1


cdef inline uint32_t load16(const uint8_t* p, bint little) noexcept nogil:
    return le16(p) if little else be16(p)


cdef inline uint32_t load32(const uint8_t* p, bint little) noexcept nogil:
    return le32(p) if little else be32(p)


cdef inline uint32_t load_tag(const uint8_t* p, bint little) noexcept nogil:
    return load16(p, little) << 16 | load16(p + 2, little)


cdef inline bint is_printable(uint8_t c) noexcept nogil:
    return 0x20 <= c < 0x7F


cdef inline bint is_header(const uint8_t* p, bint little) noexcept nogil:
    """Whether an element with a VR seems to begin at `p`, and not text: its length would be letters, too."""
    cdef uint8_t kind = vr_kind(p + 4)
    if kind == VR_UNKNOWN:
        return False
    if kind & VR_LONG:
        return load16(p + 6, little) == 0
    return not (is_printable(p[6]) and is_printable(p[7]))


cdef bint is_explicit(const uint8_t* p, size_t size, bint little) noexcept nogil:
    """Whether the element at `p` has a VR where implicit VR is expected, and not a length that spells one."""
    cdef uint32_t length
    cdef size_t i
    if vr_kind(p + 4) == VR_UNKNOWN:
        return False
    if not little or load32(p + 4, True) & 1:
        return True  # else its length would be over a gigabyte, or odd
    # All VRs that begin with an even letter have the short header.
    length = load16(p + 6, True)
    if length == 0:
        return size >= 16 and (
            load_tag(p + 8, True) == ITEM_END
            or (is_header(p + 8, True) and load_tag(p + 8, True) > load_tag(p, True))
        )
    for i in range(8, min(size, <size_t>LOOKAHEAD, 8 + <size_t>length)):
        if p[i] < 0x20:
            return False
    return length & 1 == 0


cdef void orient(Walk* w, const uint8_t* p, size_t size, uint64_t at) noexcept nogil:
    """Let the first element of the data set say how all is encoded, where that contradicts the label."""
    cdef uint32_t group = load16(p, w.little)
    cdef uint32_t swapped = load16(p, not w.little)
    cdef bint capital = vr_capital(p[4]) and vr_capital(p[5])
    cdef bint wrong = False
    if group > 0xFF and 2 < swapped <= 0xFF and (
        capital or load32(p + 4, not w.little) < load32(p + 4, w.little)
    ):
        w.little = not w.little
        wrong = True
    if w.implicit:
        if is_explicit(p, size, w.little):
            w.implicit = False
            wrong = True
    elif not capital and not (is_printable(p[4]) and is_printable(p[5])):
        if le32(p + 4) == 0:
            return  # no value: both forms read alike, the next element tells
        w.implicit = True
        wrong = True
    w.oriented = True
    if wrong:
        walk_note(w, F_MISLABELLED, load_tag(p, w.little), at)


cdef void decode_long(Walk* w, const uint8_t* p, size_t size, uint64_t at, Element* e) noexcept nogil:
    """The rest of a header whose VR has the long form: `e.size` over `size` if it is cut off."""
    cdef uint32_t reserved = load16(p + 6, e.little)
    cdef uint32_t length, following
    e.size = 12
    if size < 12:
        e.length = 0
        if reserved:
            e.size = 8
            e.length = reserved
            walk_note(w, F_TWO_BYTE_LENGTH, e.tag, at)
        return
    length = load32(p + 8, e.little)
    if reserved == 0:
        # A two-byte length of zero? Then another element follows at once, a little further on.
        if size >= 16 and length != UNDEFINED and is_header(p + 8, e.little):
            following = load_tag(p + 8, e.little)
            if following > e.tag and (following >> 16) - (e.tag >> 16) <= 0x10 and following & 0xFFFF:
                e.size = 8
                e.length = 0
                walk_note(w, F_TWO_BYTE_LENGTH, e.tag, at)
                return
    elif length != UNDEFINED:
        e.size = 8
        e.length = reserved
        walk_note(w, F_TWO_BYTE_LENGTH, e.tag, at)
        return
    e.length = length
    e.undefined = length == UNDEFINED


cdef inline void decode(Walk* w, const uint8_t* p, size_t size, uint64_t at, Element* e) noexcept nogil:
    """The header at `p`, of which `size` bytes are there, at least 8."""
    cdef bint implicit = w.implicit
    cdef bint known
    cdef uint8_t kind
    cdef uint32_t length
    e.little = w.little
    if w.un_depth:
        if w.un_fresh:
            w.un_fresh = False
            w.un_little = not (p[0] == 0xFF and p[1] == 0xFE)
        e.little = w.un_little
        implicit = True
    e.tag = load_tag(p, e.little)
    e.undefined = False
    e.un = False
    e.explicit = False
    e.kind = VR_UNKNOWN
    e.vr = 0
    if e.tag >> 16 == 0xFFFE:
        e.size = 8
        e.length = load32(p + 4, e.little)
        e.undefined = e.length == UNDEFINED
        return
    if not w.oriented and w.depth == 0 and e.tag >> 16 > 2:
        orient(w, p, size, at)
        implicit = w.implicit
        e.little = w.little
        e.tag = load_tag(p, e.little)
    kind = vr_kind(p + 4)
    if implicit:
        length = load32(p + 4, e.little)
        if w.un_depth == 0:
            known = w.mixed
        elif w.un_form == FORM_OPEN:
            known = is_explicit(p, size, e.little)
        else:
            known = w.un_form == FORM_EXPLICIT
        if kind == VR_UNKNOWN or not (length & 1 or known):
            if w.un_form == FORM_OPEN:
                w.un_form = FORM_IMPLICIT
            e.size = 8
            e.length = length
            e.undefined = length == UNDEFINED
            return
        if w.un_depth:
            w.un_form = FORM_EXPLICIT
        else:
            w.mixed = True
        walk_note(w, F_EXPLICIT_ELEMENT, e.tag, at)
    elif kind == VR_UNKNOWN:
        if vr_capital(p[4]) and vr_capital(p[5]):
            walk_note(w, F_UNKNOWN_VR, e.tag, at)
            e.explicit = True
            e.vr = be16(p + 4)
            decode_long(w, p, size, at, e)
            return
        e.size = 8
        if is_printable(p[4]) and is_printable(p[5]) or (
            p[4] == 0 and p[5] == 0 and (p[6] or p[7]) and w.depth == 0 and e.tag >> 16 != 0x7FE0
        ):
            walk_note(w, F_UNKNOWN_VR, e.tag, at)
            e.explicit = True
            e.length = load16(p + 6, e.little)
            return
        walk_note(w, F_IMPLICIT_ELEMENT, e.tag, at)
        e.length = load32(p + 4, e.little)
        e.undefined = e.length == UNDEFINED
        return
    e.explicit = True
    e.kind = kind & VR_KIND
    e.vr = be16(p + 4)
    if kind & VR_LONG:
        e.un = e.kind == VR_UN
        decode_long(w, p, size, at, e)
    else:
        e.size = 8
        e.length = load16(p + 6, e.little)


cdef void walk_header(Walk* w, const uint8_t* p, size_t size, uint64_t at, Element* e) noexcept nogil:
    """Decode one header by the rules above, for who keeps account of sequences and items himself.

    `size` bytes are there from `p` on, at least 8; `at` is where that is. Of the walk, the encoding, `depth`,
    the `un_` fields and the findings are used.
    """
    decode(w, p, size, at, e)


cdef int find_wanted(Walk* w, uint32_t tag) noexcept nogil:
    """The place of `tag` among the wanted, or of the first over it."""
    cdef uint32_t low = 0
    cdef uint32_t high = w.wanted_count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) >> 1
        if w.wanted[middle] < tag:
            low = middle + 1
        else:
            high = middle
    return low


cdef int reserve(Walk* w, Slot* slot, uint32_t size) noexcept nogil:
    """Room for `size` bytes of a value in the arena. A slot is given room twice at most: then it has all."""
    cdef size_t room
    cdef uint8_t* arena
    if slot.room >= size:
        return 0
    if slot.room:
        size = KEEP
    if w.arena_room - w.arena_size < size:
        room = w.arena_room * 2 + size + 1024
        arena = <uint8_t*>realloc(w.arena, room)
        if arena == NULL:
            w.failed = FAIL_MEMORY
            return -1
        w.arena = arena
        w.arena_room = room
    slot.at = w.arena_size
    slot.room = size
    w.arena_size += size
    return 0


cdef inline bint fits(const Element* e, uint8_t kind) noexcept nogil:
    """Whether what is wanted as a sequence may be one, and what is not, not."""
    return e.kind == kind or e.kind == VR_UNKNOWN or e.un if kind == VR_SQ else e.kind != VR_SQ


cdef int open_tape(Walk* w, Element* e, uint64_t at) noexcept nogil:
    """Begin to keep the items of a wanted sequence of undefined length; -1 without memory."""
    cdef Slot* slot = &w.slots[w.slot]
    if slot.kind != VR_UNKNOWN:
        walk_note(w, F_DUPLICATE, e.tag, at - e.size)
        slot.kind = VR_UNKNOWN
    slot.size = 0
    slot.cut = False
    slot.un = e.un
    slot.little = e.little or e.un
    if w.whole:
        slot.at = at
    elif reserve(w, slot, KEEP) < 0:
        return -1
    w.taped = w.slot
    return 0


cdef void tape(Walk* w, const uint8_t* start, const uint8_t* end) noexcept nogil:
    """Keep what was passed of the open sequence, as far as there is room."""
    cdef Slot* slot = &w.slots[w.taped]
    cdef size_t size = end - start
    if size > KEEP - slot.size:
        size = KEEP - slot.size
        slot.cut = True
    if size and not w.whole:
        memcpy(w.arena + slot.at + slot.size, start, size)
    slot.size += <uint32_t>size


cdef inline void close_tape(Walk* w, const uint8_t* start, const uint8_t* end) noexcept nogil:
    """The open sequence has ended."""
    tape(w, start, end)
    w.slots[w.taped].kind = VR_SQ
    w.taped = -1


cdef inline int capture(Walk* w, Element* e, uint64_t at) noexcept nogil:
    """Prepare the slot of a wanted element whose value begins at `at`; -1 without memory."""
    cdef Slot* slot = &w.slots[w.slot]
    cdef uint8_t kind = w.kinds[w.slot]
    if slot.kind != VR_UNKNOWN:
        walk_note(w, F_DUPLICATE, e.tag, at - e.size)
        slot.kind = VR_UNKNOWN
    if not fits(e, kind):
        walk_note(w, F_WRONG_VR, e.tag, at - e.size)
        w.slot = -1
        return 0
    w.keep = <uint32_t>e.length if e.length < KEEP else <uint32_t>KEEP
    slot.cut = e.length > KEEP
    slot.little = e.little
    slot.un = e.un
    slot.size = 0
    if w.whole:
        slot.at = at
    elif reserve(w, slot, w.keep) < 0:
        return -1
    # What the value says it holds counts, but for what says nothing. UN is little endian (PS3.5 6.2.2).
    if e.kind != VR_UNKNOWN and e.kind != VR_OPAQUE and e.kind != VR_UN:
        if e.kind != kind and (e.kind >= VR_US or kind >= VR_US):
            walk_note(w, F_WRONG_VR, e.tag, at - e.size)
            kind = e.kind
    elif e.un:
        slot.little = True
    w.pending = kind
    return 0


cdef inline void close_stray(Walk* w, uint64_t end) noexcept nogil:
    """End the open range of stray elements; neighbours are one range already."""
    cdef Range* strays
    w.stray = False
    if w.stray_count == STRAY_LIMIT:
        w.failed = FAIL_STRAYS
        return
    if w.stray_count == w.stray_room:
        strays = <Range*>realloc(w.strays, (w.stray_room * 2 + 4) * sizeof(Range))
        if strays == NULL:
            w.failed = FAIL_MEMORY
            return
        w.strays = strays
        w.stray_room = w.stray_room * 2 + 4
    w.strays[w.stray_count].start = w.stray_start
    w.strays[w.stray_count].end = end
    w.stray_count += 1


cdef inline void top_level(Walk* w, Element* e, uint64_t at) noexcept nogil:
    """What only elements outside sequences are looked at for: order, strays, whether they are wanted."""
    cdef uint32_t group = e.tag >> 16
    if group == 0 or group == 2:
        if not w.stray:
            w.stray = True
            w.stray_start = at
        return
    if w.stray:
        close_stray(w, at)
    if e.tag <= w.last:
        w.next = find_wanted(w, e.tag)
        if e.tag < w.last:
            walk_note(w, F_OUT_OF_ORDER, e.tag, at)
        elif w.next == w.wanted_count or w.wanted[w.next] != e.tag:
            walk_note(w, F_DUPLICATE, e.tag, at)
    w.last = e.tag
    while w.next < w.wanted_count and w.wanted[w.next] < e.tag:
        w.next += 1
    if w.next < w.wanted_count and w.wanted[w.next] == e.tag:
        w.slot = w.next


cdef inline void complete(Walk* w) noexcept nogil:
    """The value of the current slot is whole."""
    w.slots[w.slot].kind = w.pending
    w.slot = -1


cdef inline void ascend(Walk* w, uint64_t levels) noexcept nogil:
    """Leave open sequences or items."""
    w.depth -= levels
    if w.depth < w.un_depth:
        w.un_depth = 0
    if w.depth < w.blob_depth:
        w.blob_depth = 0


cdef inline void descend(Walk* w, Element* e, uint64_t at) noexcept nogil:
    """Enter an element of undefined length."""
    w.depth += 1
    if w.depth == 2 * DEEP + 1:
        walk_note(w, F_DEEP_NESTING, e.tag, at)
    if e.kind != VR_SQ:
        w.blob_depth = w.depth
    if e.un and w.un_depth == 0:
        w.un_depth = w.depth
        w.un_fresh = True
        w.un_form = FORM_OPEN


cdef void delimiter(Walk* w, Element* e, uint64_t at) noexcept nogil:
    """An item or the end of one or of a sequence (PS3.5 7.5); where it does not belong, what it closes."""
    cdef bint in_sequence = w.depth & 1
    if e.tag == ITEM:
        if in_sequence:
            if w.depth == w.blob_depth:
                w.blob_depth = 0
            if e.undefined:
                w.depth += 1
            else:
                w.skip = e.length
            return
        walk_note(w, F_DELIMITER, e.tag, at)
        if not e.undefined:
            w.skip = e.length
            if w.depth:
                ascend(w, 1)  # out of the item whose end is missing
        elif w.depth == 0:
            w.depth = 2       # into an item of a sequence whose beginning is missing
        return
    if w.depth == 0 or (e.tag != ITEM_END and e.tag != SEQUENCE_END):
        walk_note(w, F_DELIMITER, e.tag, at)
    elif e.tag == ITEM_END:
        if in_sequence:
            walk_note(w, F_DELIMITER, e.tag, at)
        else:
            ascend(w, 1)
    elif in_sequence:
        ascend(w, 1)
    else:
        walk_note(w, F_DELIMITER, e.tag, at)
        ascend(w, 2)


cdef const uint8_t* search(Walk* w, const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Look for the sequence delimiter; where to go on from. Up to seven bytes may be left unseen."""
    cdef bint little = w.un_little if w.un_depth else w.little
    cdef uint8_t first = 0xFE if little else 0xFF
    while end - at >= 8:
        at = <const uint8_t*>memchr(at, first, end - at - 7)
        if at == NULL:
            return end - 7
        if load_tag(at, little) == SEQUENCE_END and load32(at + 4, little) == 0:
            w.searching = False
            ascend(w, 1)
            return at + 8
        at += 1
    return at


cdef inline bint consume(Walk* w, Cursor* c) noexcept nogil:
    """Pass over the current value as far as it is there; whether it ended."""
    cdef size_t size = left(c)
    cdef size_t kept
    cdef Slot* slot
    if size > w.skip:
        size = w.skip
    if w.slot >= 0:
        slot = &w.slots[w.slot]
        kept = w.keep - slot.size
        if kept > size:
            kept = size
        if kept and not w.whole:
            memcpy(w.arena + slot.at + slot.size, c.at, kept)
        slot.size += <uint32_t>kept
    c.at += size
    w.skip -= size
    if w.skip:
        return False
    if w.slot >= 0:
        complete(w)
    return True


cdef size_t walk_run(Walk* w, const uint8_t* data, size_t size, bint final, uint32_t budget) noexcept nogil:
    """Walk on through `data`, at most `budget` headers (then `paused` is set); the bytes consumed.

    Unless `final`, up to LOOKAHEAD - 1 bytes are left and have to be given again before those that follow.
    """
    cdef Cursor c
    cdef Element e
    cdef uint64_t start = w.offset
    cdef uint64_t here
    cdef size_t least = 8 if final else LOOKAHEAD
    cdef const uint8_t* passed = data  # up to here the open sequence is kept
    c.at = data
    c.end = data + size
    w.paused = False
    while not w.failed:
        if w.searching:
            c.at = search(w, c.at, c.end)
            if w.searching:
                break
        if w.taped >= 0 and w.depth == 0:
            close_tape(w, passed, c.at)
        if (w.skip or w.slot >= 0) and not consume(w, &c):
            break
        if left(&c) < least:
            break
        if budget == 0:
            w.paused = True
            break
        budget -= 1
        here = start + <uint64_t>(c.at - data)
        decode(w, c.at, left(&c), here, &e)
        if e.tag >> 16 == 0xFFFE:
            c.at += 8
            delimiter(w, &e, here)
            continue
        if w.depth & 1:
            # An element where an item should be.
            if w.depth == w.blob_depth:
                w.searching = True
                continue
            walk_note(w, F_DELIMITER, e.tag, here)
            ascend(w, 1)
            continue
        if e.size > left(&c):
            w.truncated = True
            c.at = c.end
            break
        c.at += e.size
        if w.depth == 0:
            top_level(w, &e, here)
        if e.undefined:
            if w.slot >= 0:
                if w.kinds[w.slot] != VR_SQ or not fits(&e, VR_SQ):
                    walk_note(w, F_WRONG_VR, e.tag, here)
                elif open_tape(w, &e, here + e.size) < 0:
                    break
                passed = c.at
                w.slot = -1
            descend(w, &e, here)
            continue
        if e.length & 1:
            walk_note(w, F_ODD_LENGTH, e.tag, here)
        w.skip = e.length
        if w.slot >= 0 and capture(w, &e, here + e.size) < 0:
            break
    if w.taped >= 0:
        tape(w, passed, c.at)
    w.offset = start + <uint64_t>(c.at - data)
    return <size_t>(c.at - data)


cdef void walk_end(Walk* w, const uint8_t* rest, size_t size) noexcept nogil:
    """The data set has ended, `size` bytes of it being too few for a header."""
    cdef size_t i
    cdef bint padding = True
    for i in range(size):
        padding &= rest[i] == 0
    if w.skip or w.searching or w.depth:
        w.truncated = True
    elif size and padding:
        walk_note(w, F_TRAILING, 0, w.offset)
    elif size:
        w.truncated = True
    if w.stray and not w.failed:
        close_stray(w, w.offset)
