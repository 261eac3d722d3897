"""A data set as a tape: one record for each element, item and fragment, in the order of the bytes.

Node 0 is the data set itself. What is in a node follows it directly and ends where `next` says: the children
of node n begin at n + 1, and the one after child c is nodes[c].next.
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pacs_core._ext.walk cimport Walk

cdef enum:
    N_UNDEFINED = 1     # of undefined length
    N_OPEN = 2          # its end is missing: cut off, or closed by what came instead
    N_ITEMS = 4         # a sequence, its children being items
    N_FRAGMENTS = 8     # encapsulated, its children being fragments (PS3.5 A.4)
    N_BIG = 16          # the value is big endian
    N_EXPLICIT = 32     # the header has the form with a VR
    N_UNSORTED = 64     # a set whose tags do not ascend
    N_ODD = 128         # the header is none that the standard has

cdef enum:
    MOST_DEPTH = 256    # sequences in each other
    MOST_LEVELS = 2 * MOST_DEPTH + 1    # the data set, and sequences and items in each other
    MOST_NODES = 1 << 25

# How a run ended.
cdef enum:
    P_DONE
    P_PAUSED
    P_TOO_DEEP
    P_TOO_MANY
    P_NO_MEMORY


cdef struct Node:
    uint64_t at         # of the value, in bytes from the start of the buffer
    uint64_t length     # of the value; of undefined length: up to the delimiter
    uint32_t tag
    uint32_t next       # the first node that is not in this one
    uint16_t vr         # its two letters, the first << 8; 0 if the header tells none
    uint8_t flags
    uint8_t header      # bytes of the header before the value
    uint16_t level      # how many sequences and items it is in


cdef struct Level:      # of nesting, while it is parsed
    uint64_t end        # beyond which nothing of it can be
    uint32_t node
    uint32_t last       # tag before
    uint8_t holds
    bint undefined
    bint un             # a UN whose content is implicit began here


cdef struct Parse:
    Walk walk
    const uint8_t* base
    uint64_t at
    uint64_t end
    uint32_t only_group  # an element of another one ends the data set; 0 for any
    int above            # levels around what is parsed
    Node* nodes
    uint32_t count
    uint32_t room
    bint truncated
    uint32_t cut_tag     # what is not whole, if it is truncated, and where that begins
    uint64_t cut_at
    int depth
    Level[MOST_LEVELS] levels


# Of what is between two offsets of a buffer: elements, or, in `above` levels of others, the items of a sequence.
# NULL without memory.
cdef Parse* parse_begin(
    const uint8_t* base, uint64_t start, uint64_t end, bint implicit, bint little, int above, uint32_t only_group
) noexcept nogil
# At most `budget` headers more; the tape is whole when the answer is P_DONE.
cdef int parse_run(Parse* p, uint32_t budget) noexcept nogil
cdef void parse_free(Parse* p) noexcept nogil


@cython.final
cdef class Tape:
    cdef Py_buffer view
    cdef bint held
    cdef Tape owner          # of the buffer, where it is another tape's
    cdef object source       # whose buffer it is
    cdef const uint8_t* base
    cdef Node* nodes
    cdef uint32_t count
    cdef readonly bint implicit
    cdef readonly bint little
    cdef readonly tuple cut  # tag and offset of what the data end in the middle of; None if they don't
    cdef readonly tuple findings

    cdef int parse(self, uint64_t start, uint64_t end, int above, uint32_t only_group) except -1
    cdef Tape within(self, uint32_t node)
    cdef object slice(self, uint64_t at, uint64_t size)


cdef Tape tape_of(object data, uint64_t start, bint implicit, bint little, uint32_t only_group)


cdef inline uint32_t find(const Node* nodes, uint32_t set, uint32_t tag) noexcept nogil:
    """The node of `tag` in a data set or item, the last if there are several; 0 if there is none."""
    cdef uint32_t at = set + 1
    cdef uint32_t end = nodes[set].next
    cdef uint32_t found = 0
    if nodes[set].flags & N_UNSORTED:
        while at < end:
            if nodes[at].tag == tag:
                found = at
            at = nodes[at].next
        return found
    while at < end and nodes[at].tag < tag:
        at = nodes[at].next
    return at if at < end and nodes[at].tag == tag else 0


cdef inline uint64_t past(const Node* node) noexcept nogil:
    """Where the element ends, its delimiter included."""
    return node.at + node.length + (8 if node.flags & (N_UNDEFINED | N_OPEN) == N_UNDEFINED else 0)
