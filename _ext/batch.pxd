"""What one batch works on: the transaction, and the patients, studies and series it touches.

Each is loaded once, changed in memory, and written at the end (`settle`). The functions give 0 or an LMDB or
errno code; a pointer is NULL when there is no memory. Memory is the arena's: records are copied into it,
because pages move when the transaction writes.
"""

from libc.stdint cimport uint8_t, uint64_t

from pacs_core._ext.arena cimport Arena
from pacs_core._ext.keys cimport Text
from pacs_core._ext.kv cimport MDB_dbi, MDB_txn
from pacs_core._ext.rows cimport Claim, Fields, Instance, Layout, Node, Pen, Tally, Value


cdef enum:
    BUCKETS = 512


cdef struct Work:
    MDB_txn* txn
    MDB_dbi* tables
    const Layout* layout
    Arena arena
    Pen pen
    Node* buckets[BUCKETS]
    Node* first[3]
    Node* last[3]
    uint64_t counters[3]   # next id, bytes, commits
    bint changed
    bint stale             # the codes are no longer those of the layout: nothing was done
    Text codes
    Fields fields


cdef int no_memory() noexcept nogil
cdef int find_uid(Work* work, int kind, Text text, uint64_t scope, uint64_t* found) noexcept nogil
cdef int put_uid(Work* work, int kind, Text text, uint64_t scope, uint64_t id) noexcept nogil
cdef int del_uid(Work* work, int kind, Text text, uint64_t scope) noexcept nogil
cdef int put_child(Work* work, uint64_t parent, uint64_t child) noexcept nogil
cdef int del_child(Work* work, uint64_t parent, uint64_t child) noexcept nogil
cdef int put_row(Work* work, int level, uint64_t id) noexcept nogil
cdef int del_row(Work* work, int level, uint64_t id) noexcept nogil
cdef int read_instance(Work* work, uint64_t id, Instance* row) noexcept nogil
cdef Node* add_node(Work* work, int level, uint64_t id) noexcept nogil
cdef Node* loaded(Work* work, uint64_t id) noexcept nogil
cdef int load(Work* work, int level, uint64_t id, Node** found) noexcept nogil
cdef Node* new_node(Work* work, int level) noexcept nogil
cdef int count_name(Work* work, Tally** tallies, Text name, int by) noexcept nogil
cdef bint take_in(const Layout* layout, int level, Value* values, Fields* fields, uint64_t stamp) noexcept nogil
cdef void withdraw(const Layout* layout, int level, Value* values, uint64_t stamp) noexcept nogil
cdef Text joined(Arena* arena, uint8_t letter, Text first, Text second) noexcept nogil
cdef Claim* claim_of(Node* study, uint64_t claim_number) noexcept nogil
