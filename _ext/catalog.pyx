"""The write side of the index: a batch of removals, entries and heirs becomes one transaction.

The rules of identity and merging are in `pacs_core.index`; what a batch works on is `batch`, how it is written
back `settle`. The native functions give 0 or an LMDB or errno code.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from pacs_core._ext.arena cimport Arena, release, take
from pacs_core._ext.batch cimport (
    BUCKETS, Work, claim_of, count_name, del_child, del_row, del_uid, find_uid, joined, load, new_node,
    no_memory, put_child, put_row, put_uid, read_instance, take_in, withdraw,
)
from pacs_core._ext.keys cimport UID_INSTANCE, UID_NAMELESS, UID_SERIES, UID_STUDY, Text, same_text
from pacs_core._ext.kv cimport (
    MDB_CORRUPTED, MDB_KEYEXIST, MDB_NOTFOUND, MDB_PANIC, MDB_SUCCESS, Environment, MDB_val, begin_write,
    end_write, fail, mdb_get, mdb_put, number, view,
)
from pacs_core._ext.rows cimport (
    IMAGE, PATIENT, SERIES, STUDY, Claim, Fields, Instance, Layout, Node, Schema, encode_instance,
    next_attribute, owner, parse_fields,
)
from pacs_core._ext.settle cimport write_back

from pacs_core.errors import UnparsableError

cdef enum:
    INSERTED = 0
    HELD = 1
    REPLACED = 2
    REMOVED = 3
    ABSENT = 4
    OTHER_PATIENT = 1
    OTHER_SERIES = 2

cdef int NOTHING = MDB_KEYEXIST   # to `end_write`: there is nothing to commit


# One entry, heir or removal of a batch, and what became of it.
cdef struct Item:
    const uint8_t* blob
    size_t blob_size
    Text uid
    Item* chain          # of its hash bucket
    Item* prior          # the entry before it in the batch with the same UID
    bint superseded      # there is a later one that replaces it
    Instance row
    int outcome
    int conflicts
    bint had_previous
    uint64_t previous[3]


# --- identity ---------------------------------------------------------------------------------------------

cdef int find_study(Work* work, Fields* fields, Node** found) noexcept nogil:
    """The study of an instance, made if need be. Without UID it is keyed by its patient, or, to merge
    nobody with anybody else, by its series or instance."""
    cdef Text none, text = fields.study_uid
    cdef uint64_t id
    cdef int kind = UID_STUDY, code
    cdef Node* study
    none.data = NULL
    none.size = 0
    if text.size == 0:
        kind = UID_NAMELESS
        if fields.patient_id.size:
            text = joined(&work.arena, c'p', fields.patient_id, fields.issuer)
        elif fields.series_uid.size:
            text = joined(&work.arena, c's', fields.series_uid, none)
        else:
            text = joined(&work.arena, c'i', fields.sop_uid, none)
        if text.data == NULL:
            return no_memory()
    code = find_uid(work, kind, text, 0, &id)
    if code == MDB_SUCCESS:
        return load(work, STUDY, id, found)
    if code != MDB_NOTFOUND:
        return code
    study = new_node(work, STUDY)
    if study == NULL:
        return no_memory()
    study.uid = fields.study_uid
    if kind == UID_NAMELESS:
        study.alias = text
    found[0] = study
    return put_uid(work, kind, text, 0, study.id)


cdef int find_series(Work* work, Node* study, Fields* fields, Node** found) noexcept nogil:
    cdef uint64_t id
    cdef int code = find_uid(work, UID_SERIES, fields.series_uid, study.id, &id)
    cdef Node* series
    if code == MDB_SUCCESS:
        return load(work, SERIES, id, found)
    if code != MDB_NOTFOUND:
        return code
    series = new_node(work, SERIES)
    if series == NULL:
        return no_memory()
    series.uid = fields.series_uid
    series.parent = study.id
    study.series += 1
    found[0] = series
    code = put_child(work, study.id, series.id)
    return code if code else put_uid(work, UID_SERIES, fields.series_uid, study.id, series.id)


cdef Claim* find_claim(Work* work, Node* study, Fields* fields) noexcept nogil:
    """The claim of an instance's patient identity in its study, made if need be (NULL: no memory)."""
    cdef Claim* claim = study.claims
    cdef uint64_t following = 0
    while claim != NULL:
        if same_text(claim.patient_id, fields.patient_id) and same_text(claim.issuer, fields.issuer):
            return claim
        if claim.number >= following:
            following = claim.number + 1
        claim = claim.next
    claim = <Claim*>take(&work.arena, sizeof(Claim))
    if claim != NULL:
        claim.number = following
        claim.patient_id = fields.patient_id
        claim.issuer = fields.issuer
        claim.next = study.claims
        study.claims = claim
    return claim


# --- the three things a batch is made of ------------------------------------------------------------------

cdef void set_previous(Item* item, Instance* row) noexcept nogil:
    item.had_previous = True
    item.previous[0] = row.container
    item.previous[1] = row.offset
    item.previous[2] = row.length


cdef int family(Work* work, Instance* row, Node** series, Node** study) noexcept nogil:
    cdef int code = load(work, SERIES, row.series, series)
    return code if code else load(work, STUDY, series[0].parent, study)


cdef int remove_row(Work* work, uint64_t id, Instance* row) noexcept nogil:
    """Take an instance out: its row and keys at once, what it gave to its parents from the nodes."""
    cdef Node* series = NULL
    cdef Node* study = NULL
    cdef Claim* claim
    cdef Instance rest = row[0]
    cdef uint8_t attribute
    cdef Text text
    cdef int code = family(work, row, &series, &study)
    if code:
        return code
    claim = claim_of(study, row.claim)
    if claim == NULL or not claim.instances or not series.instances or not study.instances:
        return MDB_CORRUPTED
    withdraw(work.layout, SERIES, series.values, row.stamp)
    withdraw(work.layout, STUDY, study.values, row.stamp)
    withdraw(work.layout, PATIENT, claim.values, row.stamp)
    series.instances -= 1
    series.bytes -= row.length
    study.instances -= 1
    study.bytes -= row.length
    claim.instances -= 1
    claim.stale = claim.stale or claim.first == row.stamp
    while next_attribute(&rest, &attribute, &text):
        if work.layout.slot_of[attribute] == work.layout.sop_class and work.layout.level_of[attribute] == IMAGE:
            code = count_name(work, &study.classes, text, -1)
            if code:
                return code
    series.dirty = study.dirty = work.changed = True
    work.counters[1] -= row.length
    code = del_row(work, IMAGE, id)
    if code == 0:
        code = del_child(work, series.id, id)
    if code == 0:
        code = del_uid(work, UID_INSTANCE, row.uid, 0)
    return MDB_CORRUPTED if code == MDB_NOTFOUND else code


cdef int remove(Work* work, Item* item) noexcept nogil:
    cdef uint64_t id
    cdef int code = find_uid(work, UID_INSTANCE, item.uid, 0, &id)
    item.outcome = ABSENT
    if code == MDB_NOTFOUND:
        return 0
    if code == 0:
        code = read_instance(work, id, &item.row)
    if code:
        return code
    item.outcome = REMOVED
    set_previous(item, &item.row)
    return remove_row(work, id, &item.row)


cdef int already_held(Work* work, Item* item, uint64_t* id, Instance* old) noexcept nogil:
    """Look for the entry's UID; if it is held, note its locator and whether it is elsewhere."""
    cdef Fields* fields = &work.fields
    cdef Node* series = NULL
    cdef Node* study = NULL
    cdef int code = find_uid(work, UID_INSTANCE, item.uid, 0, id)
    if code == 0:
        code = read_instance(work, id[0], old)
    if code == 0:
        code = family(work, old, &series, &study)
    if code:
        return code
    set_previous(item, old)
    parse_fields(work.layout, item.blob, item.blob_size, fields)
    if not same_text(series.uid, fields.series_uid) or not same_text(study.uid, fields.study_uid):
        item.conflicts |= OTHER_SERIES
    return 0


cdef int make_way(Work* work, Item* items, Py_ssize_t count) noexcept nogil:
    """Remove what the entries replace, all of it before the first is inserted: what an instance leaves
    behind is then the same as `Index.succession` saw. Of several entries of one UID only the last counts."""
    cdef Item* buckets[BUCKETS]
    cdef Item* other
    cdef Item* item
    cdef Instance old
    cdef uint64_t id, hashed
    cdef Py_ssize_t i
    cdef size_t k
    cdef int code
    memset(buckets, 0, sizeof(buckets))
    for i in range(count):
        item = &items[i]
        hashed = 14695981039346656037u
        for k in range(item.uid.size):
            hashed = (hashed ^ item.uid.data[k]) * 1099511628211u
        other = buckets[hashed % BUCKETS]
        while other != NULL and not same_text(other.uid, item.uid):
            other = other.chain
        if other != NULL:  # the newest: it stands before the older ones
            other.superseded = True
            item.prior = other
        item.chain = buckets[hashed % BUCKETS]
        buckets[hashed % BUCKETS] = item
        if item.prior != NULL:
            item.outcome = REPLACED
            set_previous(item, &item.prior.row)
            continue
        code = already_held(work, item, &id, &old)
        if code == MDB_NOTFOUND:
            item.outcome = INSERTED
            continue
        if code == 0:
            item.outcome = REPLACED
            code = remove_row(work, id, &old)
        if code:
            return code
    return 0


cdef int insert(Work* work, Item* item, bint replace) noexcept nogil:
    cdef Fields* fields = &work.fields
    cdef const Layout* layout = work.layout
    cdef Node* series = NULL
    cdef Node* study = NULL
    cdef Claim* claim
    cdef Claim* best
    cdef Instance old
    cdef uint64_t id
    cdef int code
    if item.superseded:
        return 0
    if not replace:
        code = already_held(work, item, &id, &old)
        if code != MDB_NOTFOUND:
            item.outcome = HELD
            return code
        item.outcome = INSERTED
    parse_fields(layout, item.blob, item.blob_size, fields)
    code = find_study(work, fields, &study)
    if code == 0:
        code = find_series(work, study, fields, &series)
    if code:
        return code
    claim = find_claim(work, study, fields)
    if claim == NULL:
        return no_memory()
    best = owner(study)
    if best != NULL and best != claim and claim.patient_id.size and best.patient_id.size:
        item.conflicts |= OTHER_PATIENT

    take_in(layout, SERIES, series.values, fields, item.row.stamp)
    take_in(layout, STUDY, study.values, fields, item.row.stamp)
    take_in(layout, PATIENT, claim.values, fields, item.row.stamp)
    if claim.instances == 0:
        claim.stale = False
    if not claim.instances or item.row.stamp < claim.first:
        claim.first = item.row.stamp
    claim.instances += 1
    series.instances += 1
    series.bytes += item.row.length
    study.instances += 1
    study.bytes += item.row.length
    code = count_name(work, &study.classes, fields.values[IMAGE][layout.sop_class], 1)
    if code:
        return code
    series.dirty = study.dirty = work.changed = True
    work.counters[1] += item.row.length

    item.row.series = series.id
    item.row.claim = claim.number
    item.row.uid = fields.sop_uid
    encode_instance(layout, &work.pen, &item.row, fields)
    id = work.counters[0]
    work.counters[0] += 1
    code = put_row(work, IMAGE, id)
    if code == 0:
        code = put_child(work, series.id, id)
    return code if code else put_uid(work, UID_INSTANCE, fields.sop_uid, 0, id)


cdef int fill_in(Work* work, uint64_t id, Instance* row) noexcept nogil:
    """Give the record of an instance what its fields say of the attributes that are pending."""
    cdef const Layout* layout = work.layout
    cdef Fields* fields = &work.fields
    cdef Instance rest = row[0]
    cdef MDB_val key = number(&id), value
    cdef uint8_t attribute
    cdef Text text
    cdef int slot, code
    for slot in range(layout.slots[IMAGE]):
        if not layout.pending[IMAGE][slot]:
            fields.values[IMAGE][slot].size = 0
    while next_attribute(&rest, &attribute, &text):
        slot = layout.slot_of[attribute]
        if slot >= 0 and layout.level_of[attribute] == IMAGE and not layout.pending[IMAGE][slot]:
            fields.values[IMAGE][slot] = text
    encode_instance(layout, &work.pen, row, fields)
    code = mdb_get(work.txn, work.tables[TABLE_ROWS + IMAGE], &key, &value)
    if code or work.pen.failed:
        return code if code else no_memory()
    if value.mv_size == work.pen.size and memcmp(value.mv_data, work.pen.data, work.pen.size) == 0:
        return 0
    work.changed = True
    return put_row(work, IMAGE, id)


cdef int inherit(Work* work, Item* item) noexcept nogil:
    """Let an instance that is held take part in the merging again, and tell what is pending of its own.

    One that is not held, or no longer the one received then, is passed over.
    """
    cdef Fields* fields = &work.fields
    cdef Node* series = NULL
    cdef Node* study = NULL
    cdef Claim* claim
    cdef Instance row
    cdef uint64_t id
    cdef int code
    parse_fields(work.layout, item.blob, item.blob_size, fields)
    code = find_uid(work, UID_INSTANCE, fields.sop_uid, 0, &id)
    if code == MDB_NOTFOUND:
        return 0
    if code == 0:
        code = read_instance(work, id, &row)
    if code == 0 and row.stamp != item.row.stamp:
        return 0
    if code == 0:
        code = family(work, &row, &series, &study)
    if code:
        return code
    claim = claim_of(study, row.claim)
    if claim == NULL:
        return MDB_CORRUPTED
    if take_in(work.layout, SERIES, series.values, fields, row.stamp):
        series.dirty = study.dirty = work.changed = True
    if take_in(work.layout, STUDY, study.values, fields, row.stamp):
        study.dirty = work.changed = True
    if take_in(work.layout, PATIENT, claim.values, fields, row.stamp):
        study.dirty = work.changed = True
    return fill_in(work, id, &row)


cdef int put_mark(Work* work, uint64_t* mark) noexcept nogil:
    """mark: writer, file, segment, offset."""
    cdef uint8_t buffer[8]
    cdef uint32_t writer = <uint32_t>mark[0]
    cdef MDB_val key, value
    memcpy(buffer, b"mark", 4)
    memcpy(buffer + 4, &writer, 4)
    key = view(buffer, 8)
    value = view(mark + 1, 24)
    return mdb_put(work.txn, work.tables[TABLE_META], &key, &value, 0)


cdef int apply(Work* work, Item* removals, Py_ssize_t removal_count, Item* entries, Py_ssize_t entry_count,
               Item* heirs, Py_ssize_t heir_count, bint replace, bint all_new, uint64_t* mark) noexcept nogil:
    cdef MDB_val key = view(<const char*>b"counters", 8), value
    cdef Instance old
    cdef uint64_t id
    cdef bint found = False
    cdef Py_ssize_t i
    cdef int code = mdb_get(work.txn, work.tables[TABLE_META], &key, &value)
    if code == MDB_NOTFOUND or (code == 0 and value.mv_size != 24):
        return MDB_CORRUPTED
    if code:
        return code
    memcpy(work.counters, value.mv_data, 24)
    if work.codes.size:
        key = view(<const char*>b"codes", 5)
        code = mdb_get(work.txn, work.tables[TABLE_META], &key, &value)
        if code:
            return MDB_CORRUPTED if code == MDB_NOTFOUND else code
        if value.mv_size != work.codes.size or memcmp(value.mv_data, work.codes.data, work.codes.size) != 0:
            work.stale = True
            return NOTHING
        key = view(<const char*>b"counters", 8)
    if all_new:
        for i in range(entry_count):
            code = already_held(work, &entries[i], &id, &old)
            if code == MDB_SUCCESS:
                entries[i].outcome = HELD
                found = True
            elif code != MDB_NOTFOUND:
                return code
        if found:
            return NOTHING
    for i in range(removal_count):
        code = remove(work, &removals[i])
        if code:
            return code
    if replace:
        code = make_way(work, entries, entry_count)
        if code:
            return code
    for i in range(entry_count):
        code = insert(work, &entries[i], replace)
        if code:
            return code
    for i in range(heir_count):
        code = inherit(work, &heirs[i])
        if code:
            return code
    if not work.changed and mark == NULL:
        return NOTHING
    code = write_back(work)
    if code == 0 and mark != NULL:
        code = put_mark(work, mark)
    if code == 0:
        work.counters[2] += 1
        value = view(work.counters, 24)
        code = mdb_put(work.txn, work.tables[TABLE_META], &key, &value, 0)
    return code


# --- from Python ------------------------------------------------------------------------------------------

cdef Text text_of(bytes value, list kept):
    cdef Text text
    kept.append(value)
    text.data = value
    text.size = len(value)
    return text


cdef int fill(const Layout* layout, Item* item, entry, list kept) except -1:
    """Take one entry; what its pointers lead to is kept alive by `kept`."""
    cdef Text fields = text_of(entry.fields, kept)
    cdef bytes locator = entry.locator
    cdef Fields parsed
    if len(locator) != 24:
        raise ValueError("a locator has 24 bytes")
    item.blob = fields.data
    item.blob_size = fields.size
    memcpy(&item.row.container, <const char*>locator, 8)
    memcpy(&item.row.offset, <const char*>locator + 8, 8)
    memcpy(&item.row.length, <const char*>locator + 16, 8)
    item.row.stamp = entry.stamp
    item.row.checksum = entry.checksum
    item.row.syntax = text_of(entry.transfer_syntax_uid.encode(), kept)
    item.row.source = text_of(entry.source_ae.encode(), kept)
    if parse_fields(layout, item.blob, item.blob_size, &parsed) < 0:
        raise UnparsableError("malformed index fields")
    if parsed.sop_uid.size == 0:
        raise UnparsableError("no SOP Instance UID: the instance can't be indexed", tag=0x00080018)
    item.uid = parsed.sop_uid
    return 0


def check_entry(Schema schema not None, entry):
    """Raise `UnparsableError` if `apply_batch` would refuse `entry`."""
    cdef Item item
    cdef list kept = []
    memset(&item, 0, sizeof(Item))
    fill(&schema.layout, &item, entry, kept)


def apply_batch(
    Environment env not None, Schema schema not None, entries, *, removals=(), heirs=(), bint replace=False,
    bint all_new=False, mark=None, int lock_fd=-1
):
    """Apply removals, then entries, then heirs, in one durable transaction without the GIL.

    Entries and heirs have `fields`, `locator` (24 bytes), `stamp`, `checksum`, `transfer_syntax_uid` and
    `source_ae`. `mark` is (writer, file, segment, offset). The commit lock `lock_fd` is held around the
    transaction (-1: the caller holds it). With `all_new` nothing is done if an entry's UID is held: see its outcome. Gives, for each removal and then each entry, (outcome, previous
    locator or None, conflicts). None if attributes were added to the index since `schema` was read: nothing is
    done then.
    """
    cdef list todo = list(entries), gone = [uid.encode() for uid in removals], again = list(heirs)
    cdef Py_ssize_t entry_count = len(todo), removal_count = len(gone), heir_count = len(again), i
    cdef list kept = []
    cdef Item* items
    cdef uint64_t marks[4]
    cdef uint64_t* marked = NULL
    cdef int code
    cdef bint unsynced = False
    cdef Work* work
    cdef Arena arena
    arena.head = NULL
    try:
        work = <Work*>take(&arena, sizeof(Work))
        items = <Item*>take(&arena, (removal_count + entry_count + heir_count) * sizeof(Item))
        if work == NULL or items == NULL:
            raise MemoryError
        for i in range(removal_count):
            items[i].uid = text_of(gone[i], kept)
        for i in range(entry_count):
            fill(&schema.layout, &items[removal_count + i], todo[i], kept)
        for i in range(heir_count):
            fill(&schema.layout, &items[removal_count + entry_count + i], again[i], kept)
        if mark is not None:
            marks[0], marks[1], marks[2], marks[3] = mark
            marked = marks
        work.tables = env.tables
        work.layout = &schema.layout
        work.codes = text_of(schema.codes, kept)
        env.enter_write()
        with nogil:
            code = begin_write(env.env, lock_fd, &work.txn)
            if code == MDB_SUCCESS:
                code = apply(work, items, removal_count, items + removal_count, entry_count,
                             items + removal_count + entry_count, heir_count, replace, all_new, marked)
                code = end_write(work.txn, lock_fd, code, &unsynced)
            free(work.pen.data)
            release(&work.arena)
        if unsynced or code == MDB_PANIC:
            env.unsynced = True
        env.leave()
        if code != MDB_SUCCESS:
            fail(code, f"commit to index {env.path}")
        if work.stale:
            return None
        return [
            (
                items[i].outcome,
                (<const char*>items[i].previous)[:24] if items[i].had_previous else None,
                items[i].conflicts,
            )
            for i in range(removal_count + entry_count)
        ]
    finally:
        release(&arena)
