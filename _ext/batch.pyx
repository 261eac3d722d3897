"""What one batch works on. See `batch.pxd`."""

import errno

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from pacs_core._ext.arena cimport Arena, keep, take
from pacs_core._ext.catalog cimport TABLE_CHILD, TABLE_ROWS, TABLE_UID
from pacs_core._ext.keys cimport UID_MAX, Text, same_text, uid_key
from pacs_core._ext.kv cimport (
    MDB_CORRUPTED, MDB_NOTFOUND, MDB_SUCCESS, MDB_val, mdb_del, mdb_get, mdb_put, number, view,
)
from pacs_core._ext.rows cimport (
    IMAGE, STUDY, Claim, Fields, Instance, Layout, Node, Tally, Value, decode_instance, decode_node, given,
    merge,
)

cdef int NO_MEMORY = errno.ENOMEM


cdef int no_memory() noexcept nogil:
    """The code that says so."""
    return NO_MEMORY


# --- tables -----------------------------------------------------------------------------------------------

cdef int find_uid(Work* work, int kind, Text text, uint64_t scope, uint64_t* found) noexcept nogil:
    cdef uint8_t buffer[UID_MAX]
    cdef MDB_val key, value
    cdef int code
    key = view(buffer, uid_key(work.layout.secret, kind, text, scope, buffer))
    code = mdb_get(work.txn, work.tables[TABLE_UID], &key, &value)
    if code == MDB_SUCCESS:
        if value.mv_size != 8:
            return MDB_CORRUPTED
        memcpy(found, value.mv_data, 8)
    return code


cdef int put_uid(Work* work, int kind, Text text, uint64_t scope, uint64_t id) noexcept nogil:
    cdef uint8_t buffer[UID_MAX]
    cdef MDB_val key, value
    key = view(buffer, uid_key(work.layout.secret, kind, text, scope, buffer))
    value = number(&id)
    return mdb_put(work.txn, work.tables[TABLE_UID], &key, &value, 0)


cdef int del_uid(Work* work, int kind, Text text, uint64_t scope) noexcept nogil:
    cdef uint8_t buffer[UID_MAX]
    cdef MDB_val key
    key = view(buffer, uid_key(work.layout.secret, kind, text, scope, buffer))
    return mdb_del(work.txn, work.tables[TABLE_UID], &key, NULL)


cdef int put_child(Work* work, uint64_t parent, uint64_t child) noexcept nogil:
    cdef MDB_val key = number(&parent), value = number(&child)
    return mdb_put(work.txn, work.tables[TABLE_CHILD], &key, &value, 0)


cdef int del_child(Work* work, uint64_t parent, uint64_t child) noexcept nogil:
    cdef MDB_val key = number(&parent), value = number(&child)
    return mdb_del(work.txn, work.tables[TABLE_CHILD], &key, &value)


cdef int put_row(Work* work, int level, uint64_t id) noexcept nogil:
    """What `work.pen` wrote, as the record of `id`."""
    cdef MDB_val key = number(&id), value = view(work.pen.data, work.pen.size)
    if work.pen.failed:
        return NO_MEMORY
    return mdb_put(work.txn, work.tables[TABLE_ROWS + level], &key, &value, 0)


cdef int del_row(Work* work, int level, uint64_t id) noexcept nogil:
    cdef MDB_val key = number(&id)
    return mdb_del(work.txn, work.tables[TABLE_ROWS + level], &key, NULL)


cdef int read_instance(Work* work, uint64_t id, Instance* row) noexcept nogil:
    """The record of an instance, copied: pages move when the transaction writes."""
    cdef MDB_val key = number(&id), value
    cdef int code = mdb_get(work.txn, work.tables[TABLE_ROWS + IMAGE], &key, &value)
    cdef void* copy
    if code != MDB_SUCCESS:
        return MDB_CORRUPTED if code == MDB_NOTFOUND else code
    copy = keep(&work.arena, value.mv_data, value.mv_size)
    if copy == NULL:
        return NO_MEMORY
    return MDB_CORRUPTED if decode_instance(<const uint8_t*>copy, value.mv_size, row) < 0 else 0


# --- nodes ------------------------------------------------------------------------------------------------

cdef Node* add_node(Work* work, int level, uint64_t id) noexcept nogil:
    cdef Node* node = <Node*>take(&work.arena, sizeof(Node))
    if node == NULL:
        return NULL
    node.level = level
    node.id = id
    node.chain = work.buckets[id % BUCKETS]
    work.buckets[id % BUCKETS] = node
    if work.last[level] == NULL:
        work.first[level] = node
    else:
        work.last[level].next = node
    work.last[level] = node
    return node


cdef Node* loaded(Work* work, uint64_t id) noexcept nogil:
    cdef Node* node = work.buckets[id % BUCKETS]
    while node != NULL and node.id != id:
        node = node.chain
    return node


cdef int load(Work* work, int level, uint64_t id, Node** found) noexcept nogil:
    cdef Node* node = loaded(work, id)
    cdef MDB_val key, value
    cdef void* copy
    cdef int code
    cdef Tally* tally
    cdef Tally* had
    if node != NULL:
        found[0] = node
        return 0
    key = number(&id)
    code = mdb_get(work.txn, work.tables[TABLE_ROWS + level], &key, &value)
    if code != MDB_SUCCESS:
        return MDB_CORRUPTED if code == MDB_NOTFOUND else code
    copy = keep(&work.arena, value.mv_data, value.mv_size)
    node = add_node(work, level, id)
    if copy == NULL or node == NULL:
        return NO_MEMORY
    if decode_node(work.layout, &work.arena, <const uint8_t*>copy, value.mv_size, level, node) < 0:
        return MDB_CORRUPTED
    node.had_series = node.series
    node.had_instances = node.instances
    memcpy(node.had, node.values, sizeof(node.had))
    if level == STUDY:
        given(work.layout, node, node.gave)
        tally = node.modalities
        while tally != NULL:
            had = <Tally*>take(&work.arena, sizeof(Tally))
            if had == NULL:
                return NO_MEMORY
            had[0] = tally[0]
            had.next = node.had_modalities
            node.had_modalities = had
            tally = tally.next
    found[0] = node
    return 0


cdef Node* new_node(Work* work, int level) noexcept nogil:
    cdef Node* node = add_node(work, level, work.counters[0])
    if node != NULL:
        work.counters[0] += 1
        node.fresh = True
        node.dirty = True
    return node


cdef int count_name(Work* work, Tally** tallies, Text name, int by) noexcept nogil:
    cdef Tally* tally = tallies[0]
    if name.size == 0:
        return 0
    while tally != NULL:
        if same_text(tally.name, name):
            tally.count += by
            return 0
        tally = tally.next
    tally = <Tally*>take(&work.arena, sizeof(Tally))
    if tally == NULL:
        return NO_MEMORY
    tally.name = name
    tally.count = by
    tally.next = tallies[0]
    tallies[0] = tally
    return 0


cdef bint take_in(const Layout* layout, int level, Value* values, Fields* fields, uint64_t stamp) noexcept nogil:
    cdef bint changed = False
    cdef int slot
    for slot in range(layout.slots[level]):
        if merge(&values[slot], fields.values[level][slot], stamp):
            changed = True
    return changed


cdef void withdraw(const Layout* layout, int level, Value* values, uint64_t stamp) noexcept nogil:
    cdef int slot
    for slot in range(layout.slots[level]):
        if values[slot].text.size and values[slot].stamp == stamp:
            memset(&values[slot], 0, sizeof(Value))


cdef Text joined(Arena* arena, uint8_t letter, Text first, Text second) noexcept nogil:
    """letter | size of first u16 big endian | first | second; without data if there was no memory."""
    cdef uint8_t* data = <uint8_t*>take(arena, 3 + first.size + second.size)
    cdef Text text
    text.data = data
    text.size = 3 + first.size + second.size
    if data != NULL:
        data[0] = letter
        data[1] = first.size >> 8 & 0xFF
        data[2] = first.size & 0xFF
        if first.size:
            memcpy(data + 3, first.data, first.size)
        if second.size:
            memcpy(data + 3 + first.size, second.data, second.size)
    return text


cdef Claim* claim_of(Node* study, uint64_t claim_number) noexcept nogil:
    cdef Claim* claim = study.claims
    while claim != NULL and claim.number != claim_number:
        claim = claim.next
    return claim
