"""Records of ids and of their parents, copied out of one snapshot."""

from libc.stdint cimport uint64_t

from pacs_core._ext.arena cimport Arena
from pacs_core._ext.kv cimport Environment, MDB_val
from pacs_core._ext.rows cimport Schema


# The records of one id: its own and those of its parents, by level. Its own is NULL if it has gone.
cdef struct Line:
    uint64_t id
    MDB_val rows[4]


cdef Line* fetch(Environment env, Schema schema, Arena* arena, int level, int top, ids) except NULL
