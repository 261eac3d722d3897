"""Leaf pages of LMDB 0.9, read as they lie in the map: the keys behind one that a cursor came to, without a step of
the cursor for each.

On disk a page begins with its number (8 bytes), 2 bytes, its flags, where the offsets of its nodes end, and where
the nodes begin (2 bytes each); then come the offsets (2 bytes each), in the order of the keys. A node is the size
of its value (4 bytes), flags, the size of its key (2 bytes each), the key, the value.
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t, uintptr_t

from pacs_core._ext.kv cimport MDB_val


cdef enum:
    LEAF_FLAGS = 2      # a leaf, and nothing else: neither being written nor inside of a node
    LEAF_HEADER = 16
    NODE_HEADER = 8


cdef struct LeafPage:
    uint64_t number
    uint16_t pad
    uint16_t flags
    uint16_t lower
    uint16_t upper
    uint16_t[1] offsets


cdef struct LeafNode:
    uint16_t[2] value_size
    uint16_t flags
    uint16_t key_size
    uint8_t[1] key


cdef struct Siblings:       # the keys of a page behind one of them
    const LeafPage* page
    size_t page_size
    size_t next
    size_t count


cdef inline bint siblings(const MDB_val* key, size_t page_size, Siblings* rest) noexcept nogil:
    """Find the page of a key that lies in the map of a snapshot; whether it is a leaf that has the key."""
    cdef uintptr_t place = <uintptr_t>key.mv_data
    cdef const LeafPage* page = <const LeafPage*>(place & ~<uintptr_t>(page_size - 1))
    cdef size_t offset = place - <uintptr_t>page - NODE_HEADER
    cdef size_t i, count
    if page.flags != LEAF_FLAGS or not LEAF_HEADER < page.lower <= page.upper <= offset < page_size:
        return False
    if (<const LeafNode*>(<const uint8_t*>page + offset)).key_size != key.mv_size:
        return False
    count = (page.lower - LEAF_HEADER) // 2
    for i in range(count):
        if page.offsets[i] == offset:
            rest.page = page
            rest.page_size = page_size
            rest.next = i + 1
            rest.count = count
            return True
    return False


cdef inline bint next_sibling(Siblings* rest, MDB_val* key) noexcept nogil:
    """The next key of the page; whether there is one, whole in the page."""
    cdef const LeafNode* node
    cdef size_t offset
    if rest.next == rest.count:
        return False
    offset = rest.page.offsets[rest.next]
    if not rest.page.upper <= offset <= rest.page_size - NODE_HEADER:
        return False
    node = <const LeafNode*>(<const uint8_t*>rest.page + offset)
    if node.key_size > rest.page_size - NODE_HEADER - offset:
        return False
    key.mv_data = <void*>node.key
    key.mv_size = node.key_size
    rest.next += 1
    return True
