"""The walk over a data set: one pass, any chunks, no trust in lengths (PS3.5 section 7). Rules: walk.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    LOOKAHEAD = 16      # bytes from which the longest header is told from every other
    CARRY = 2 * LOOKAHEAD
    KEEP = 8192         # of one wanted value; the rest is skipped
    WANTED_LIMIT = 256
    STRAY_LIMIT = 1024  # ranges of elements that belong to groups 0000 and 0002
    DEEP = 128          # sequences in each other; more is a finding

cdef enum:
    ITEM = 0xFFFEE000
    ITEM_END = 0xFFFEE00D
    SEQUENCE_END = 0xFFFEE0DD
    UNDEFINED = 0xFFFFFFFF

# The findings, in the order of KINDS.
cdef enum:
    F_MISLABELLED = 0
    F_IMPLICIT_ELEMENT
    F_EXPLICIT_ELEMENT
    F_UNKNOWN_VR
    F_TWO_BYTE_LENGTH
    F_ODD_LENGTH
    F_OUT_OF_ORDER
    F_DUPLICATE
    F_WRONG_VR
    F_DELIMITER
    F_DEEP_NESTING
    F_TRAILING
    F_BAD_DEFLATE
    F_CHARACTER_SET
    F_CHARACTERS
    F_CUT
    F_BAD_LENGTH
    F_COUNT

# Why a walk can't go on.
cdef enum:
    FAIL_NO = 0
    FAIL_MEMORY
    FAIL_STRAYS

# What the elements inside a UN of undefined length turned out to be.
cdef enum:
    FORM_OPEN = 0
    FORM_IMPLICIT
    FORM_EXPLICIT


cdef struct Slot:
    uint64_t at         # of the value: in the input (a whole data set) or in the arena
    uint32_t size       # bytes kept
    uint32_t room       # bytes reserved in the arena
    uint8_t kind        # what the value holds, VR_UNKNOWN while absent
    bint little
    bint cut
    bint un             # a sequence: its items are implicit VR (CP-246)


cdef struct Odd:        # the first of its kind, and how many
    uint64_t offset
    uint32_t tag
    uint32_t count


cdef struct Range:
    uint64_t start
    uint64_t end


cdef struct Element:
    uint64_t length
    uint32_t tag
    uint32_t size       # of the header
    uint16_t vr         # its two letters, the first << 8; 0 where it has none, or none that could be
    uint8_t kind
    bint undefined
    bint explicit       # the header has the form with a VR, even if that is none
    bint little
    bint un             # explicitly UN: an undefined length means implicit VR inside (CP-246)


cdef struct Walk:
    const uint32_t* wanted   # tags, ascending
    const uint8_t* kinds     # what the standard says each holds
    uint32_t wanted_count
    bint whole               # the input is one buffer that stays: values are not copied
    bint implicit            # VR form of the data set; set right by the first element if mislabelled
    bint little
    bint oriented
    bint mixed               # explicit elements were met in implicit VR
    uint64_t offset          # bytes consumed
    uint64_t skip            # bytes of the current value still to come
    uint32_t keep            # of those, bytes to be kept
    int slot                 # of the current value, -1 if it is not wanted
    int taped                # slot of the wanted sequence of undefined length that is open, -1 if none
    uint8_t pending          # what that value holds, for its slot once it is complete
    uint32_t last            # top-level tag before
    uint32_t next            # first wanted tag not below it
    uint64_t depth           # open sequences and items of undefined length: odd in a sequence, even in an item
    uint64_t un_depth        # depth from which a UN makes all implicit, 0 if none
    uint64_t blob_depth      # depth of an undefined length that need not hold items, 0 if none
    bint un_little
    bint un_fresh
    uint8_t un_form
    bint searching           # for the sequence delimiter, the value being no items
    bint stray
    uint64_t stray_start
    uint32_t stray_count
    uint32_t stray_room
    Range* strays
    uint8_t* arena
    size_t arena_size
    size_t arena_room
    bint paused              # the budget of a run was used up
    bint truncated
    int failed
    Odd[F_COUNT] odd
    Slot[WANTED_LIMIT] slots


cdef void walk_begin(Walk* w, const uint32_t* wanted, const uint8_t* kinds, uint32_t count) noexcept nogil
cdef void walk_free(Walk* w) noexcept nogil
cdef size_t walk_run(Walk* w, const uint8_t* data, size_t size, bint final, uint32_t budget) noexcept nogil
cdef void walk_end(Walk* w, const uint8_t* rest, size_t size) noexcept nogil
cdef void walk_note(Walk* w, int kind, uint32_t tag, uint64_t offset) noexcept nogil
cdef void walk_header(Walk* w, const uint8_t* p, size_t size, uint64_t at, Element* e) noexcept nogil
