"""A bump allocator for one native call: everything taken from it goes at once, at the end of the call.

What `take` gives is zeroed, aligned to 16 bytes, and valid until `release`; NULL when there is no memory.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


cdef struct Block:
    Block* next
    size_t used
    size_t size


cdef struct Arena:
    Block* head


cdef enum:
    BLOCK = 65536
    HEAD = 32


cdef inline void* take(Arena* arena, size_t size) noexcept nogil:
    cdef Block* block = arena.head
    cdef size_t room
    size = (size + 15) & ~<size_t>15
    if block == NULL or block.size - block.used < size:
        room = BLOCK if size <= BLOCK else size
        block = <Block*>calloc(1, HEAD + room)
        if block == NULL:
            return NULL
        block.size = room
        block.next = arena.head
        arena.head = block
    block.used += size
    return <char*>block + HEAD + block.used - size


cdef inline void* keep(Arena* arena, const void* data, size_t size) noexcept nogil:
    """A copy of `data` that lives as long as the arena."""
    cdef void* copy = take(arena, size)
    if copy != NULL and size:
        memcpy(copy, data, size)
    return copy


cdef inline void release(Arena* arena) noexcept nogil:
    cdef Block* block = arena.head
    cdef Block* after
    while block != NULL:
        after = block.next
        free(block)
        block = after
    arena.head = NULL
