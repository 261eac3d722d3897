"""The read side of the index: look-ups and walks, each one snapshot and one call without the GIL.

Records are copied out while the snapshot lasts and decoded afterwards. Walks are resumed by the last id, so
no snapshot outlives a call; an id whose record has gone meanwhile gives None.
"""

import errno

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from pacs_core._ext.arena cimport Arena, keep, release, take
from pacs_core._ext.catalog cimport TABLE_CHILD, TABLE_KEY, TABLE_ROWS, TABLE_UID
from pacs_core._ext.keys cimport UID_INSTANCE, UID_MAX, UID_SERIES, Text, uid_key
from pacs_core._ext.kv cimport (
    MDB_CORRUPTED, MDB_GET_BOTH_RANGE, MDB_NEXT, MDB_NEXT_DUP, MDB_NOTFOUND, MDB_SET_RANGE,
    MDB_SUCCESS, Environment, MDB_cursor, MDB_dbi, MDB_txn, MDB_val, begin_read, fail, mdb_cursor_close,
    mdb_cursor_get, mdb_cursor_open, mdb_get, number, view,
)
from pacs_core._ext.rows cimport (
    IMAGE, PATIENT, SERIES, STUDY, Claim, Instance, Node, Schema, Tally, Value,
    decode_instance, decode_node, next_attribute,
)

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef int NO_MEMORY = errno.ENOMEM

# Tags of what is computed or belongs to the record, not to the attributes.
cdef object PATIENT_ID = 0x00100020
cdef object ISSUER_OF_PATIENT_ID = 0x00100021
cdef object STUDY_INSTANCE_UID = 0x0020000D
cdef object SERIES_INSTANCE_UID = 0x0020000E
cdef object SOP_INSTANCE_UID = 0x00080018
cdef object TRANSFER_SYNTAX_UID = 0x00020010
cdef object MODALITIES_IN_STUDY = 0x00080061
cdef object SOP_CLASSES_IN_STUDY = 0x00080062
cdef object PATIENT_STUDIES = 0x00201200
cdef object PATIENT_SERIES = 0x00201202
cdef object PATIENT_INSTANCES = 0x00201204
cdef object STUDY_SERIES = 0x00201206
cdef object STUDY_INSTANCES = 0x00201208
cdef object SERIES_INSTANCES = 0x00201209


cdef inline object string(Text text):
    return PyUnicode_DecodeUTF8(<const char*>text.data, text.size, "replace") if text.size else ""


cdef object hexadecimal(Text text):
    return (<const char*>text.data)[:text.size].hex()


cdef inline uint64_t as_id(MDB_val* value) noexcept nogil:
    cdef uint64_t id = 0
    if value.mv_size == 8:
        memcpy(&id, value.mv_data, 8)
    return id


# --- ids --------------------------------------------------------------------------------------------------

def held(Environment env not None, Schema schema not None, str uid not None):
    """Whether an instance of this SOP Instance UID is in the index."""
    cdef Py_ssize_t size
    cdef Text text
    cdef uint8_t buffer[UID_MAX]
    cdef MDB_val key, value
    cdef MDB_txn* txn
    cdef int code
    text.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(uid, &size)
    text.size = size
    env.enter()
    txn = env.reader()
    with nogil:
        key = view(buffer, uid_key(schema.layout.secret, UID_INSTANCE, text, 0, buffer))
        code = begin_read(env.env, &txn)
        if code == MDB_SUCCESS:
            code = mdb_get(txn, env.tables[TABLE_UID], &key, &value)
    env.rest(txn)
    env.leave()
    if code == MDB_SUCCESS:
        return True
    if code != MDB_NOTFOUND:
        fail(code, f"read index {env.path}")
    return False


def lookup(Environment env not None, Schema schema not None, int kind, bytes text not None, uint64_t scope=0):
    """The id of a text in the `uid` table (kinds: see `keys.pxd`), or None."""
    cdef Text wanted
    cdef uint8_t buffer[UID_MAX]
    cdef MDB_val key, value
    cdef MDB_txn* txn
    cdef uint64_t id = 0
    cdef int code
    wanted.data = text
    wanted.size = len(text)
    env.enter()
    txn = env.reader()
    with nogil:
        key = view(buffer, uid_key(schema.layout.secret, kind, wanted, scope, buffer))
        code = begin_read(env.env, &txn)
        if code == MDB_SUCCESS:
            code = mdb_get(txn, env.tables[TABLE_UID], &key, &value)
            if code == MDB_SUCCESS:
                id = as_id(&value)
    env.rest(txn)
    env.leave()
    if code == MDB_NOTFOUND:
        return None
    if code != MDB_SUCCESS:
        fail(code, f"read index {env.path}")
    return id


def series_named(Environment env not None, Schema schema not None, bytes uid not None, int limit=1000):
    """Up to `limit` ids of series with this Series Instance UID, in whatever studies."""
    cdef Text text
    cdef uint8_t buffer[UID_MAX]
    cdef size_t size
    cdef MDB_val key, value
    cdef MDB_txn* txn
    cdef MDB_cursor* cursor = NULL
    cdef Arena arena
    cdef uint64_t* ids
    cdef int code, found = 0, i
    arena.head = NULL
    text.data = uid
    text.size = len(uid)
    ids = <uint64_t*>take(&arena, limit * sizeof(uint64_t))
    if ids == NULL:
        raise MemoryError
    try:
        env.enter()
        txn = env.reader()
        with nogil:
            size = uid_key(schema.layout.secret, UID_SERIES, text, 0, buffer)
            key = view(buffer, size)
            code = begin_read(env.env, &txn)
            if code == MDB_SUCCESS:
                code = mdb_cursor_open(txn, env.tables[TABLE_UID], &cursor)
            if code == MDB_SUCCESS:
                code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE)
            while (code == MDB_SUCCESS and found < limit and key.mv_size >= size - 8
                    and memcmp(key.mv_data, buffer, size - 8) == 0):
                if key.mv_size == size:
                    ids[found] = as_id(&value)
                    found += 1
                code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
            if cursor != NULL:
                mdb_cursor_close(cursor)
        env.rest(txn)
        env.leave()
        if code != MDB_SUCCESS and code != MDB_NOTFOUND:
            fail(code, f"read index {env.path}")
        return [ids[i] for i in range(found)]
    finally:
        release(&arena)


def ids_of(Environment env not None, int table, bytes key=None, uint64_t after=0, int limit=1000):
    """Up to `limit` ids greater than `after`, ascending: the keys of a record table, or, with a `key`, the
    values that the `child` or `key` table has under it."""
    cdef MDB_val at, value
    cdef MDB_txn* txn
    cdef MDB_cursor* cursor = NULL
    cdef Arena arena
    cdef uint64_t* ids
    cdef uint64_t start = after + 1
    cdef int code, found = 0, i
    cdef bint under = key is not None
    cdef const char* wanted = NULL
    cdef size_t wanted_size = 0
    arena.head = NULL
    if not TABLE_ROWS <= table <= TABLE_KEY or limit < 1 or under != (table >= TABLE_CHILD):
        raise ValueError("a record table, or child or key with a key")
    if under:
        wanted = key
        wanted_size = len(key)
    ids = <uint64_t*>take(&arena, limit * sizeof(uint64_t))
    if ids == NULL:
        raise MemoryError
    try:
        env.enter()
        txn = env.reader()
        with nogil:
            code = begin_read(env.env, &txn)
            if code == MDB_SUCCESS:
                code = mdb_cursor_open(txn, env.tables[table], &cursor)
            if code == MDB_SUCCESS:
                if under:
                    at = view(wanted, wanted_size)
                    value = number(&start)
                    code = mdb_cursor_get(cursor, &at, &value, MDB_GET_BOTH_RANGE)
                else:
                    at = number(&start)
                    code = mdb_cursor_get(cursor, &at, &value, MDB_SET_RANGE)
            while code == MDB_SUCCESS:
                ids[found] = as_id(&value if under else &at)
                found += 1
                if found == limit:
                    break
                code = mdb_cursor_get(cursor, &at, &value, MDB_NEXT_DUP if under else MDB_NEXT)
            if cursor != NULL:
                mdb_cursor_close(cursor)
        env.rest(txn)
        env.leave()
        if code != MDB_SUCCESS and code != MDB_NOTFOUND:
            fail(code, f"read index {env.path}")
        return [ids[i] for i in range(found)]
    finally:
        release(&arena)


cdef int walk_children(MDB_cursor* cursor, uint64_t* parents, uint64_t* after, Py_ssize_t count,
                       uint64_t* ids, int limit, int* found) noexcept nogil:
    cdef MDB_val at, value
    cdef uint64_t start
    cdef int code = MDB_SUCCESS
    cdef Py_ssize_t i
    for i in range(count):
        start = after[i] + 1
        at = number(&parents[i])
        value = number(&start)
        code = mdb_cursor_get(cursor, &at, &value, MDB_GET_BOTH_RANGE)
        while code == MDB_SUCCESS:
            if found[0] == limit:
                return code
            after[i] = ids[found[0]] = as_id(&value)
            found[0] += 1
            code = mdb_cursor_get(cursor, &at, &value, MDB_NEXT_DUP)
        if code != MDB_NOTFOUND:
            return code
    return MDB_SUCCESS


def children(Environment env not None, parents, after, int limit=1000):
    """Up to `limit` children of some parents, of each those greater than its id in `after`, ascending:
    (their ids, what is to be `after` in the next call)."""
    cdef list wanted = list(parents)
    cdef list given = list(after)
    cdef Py_ssize_t count = len(wanted), i
    cdef MDB_txn* txn
    cdef MDB_cursor* cursor = NULL
    cdef Arena arena
    cdef uint64_t* ids
    cdef uint64_t* of
    cdef uint64_t* behind
    cdef int code, found = 0
    arena.head = NULL
    if limit < 1 or len(given) != count:
        raise ValueError("a limit of at least one id, an id for each parent")
    try:
        ids = <uint64_t*>take(&arena, limit * sizeof(uint64_t))
        of = <uint64_t*>take(&arena, (count + 1) * sizeof(uint64_t))
        behind = <uint64_t*>take(&arena, (count + 1) * sizeof(uint64_t))
        if ids == NULL or of == NULL or behind == NULL:
            raise MemoryError
        for i in range(count):
            of[i], behind[i] = wanted[i], given[i]
        env.enter()
        txn = env.reader()
        with nogil:
            code = begin_read(env.env, &txn)
            if code == MDB_SUCCESS:
                code = mdb_cursor_open(txn, env.tables[TABLE_CHILD], &cursor)
            if code == MDB_SUCCESS:
                code = walk_children(cursor, of, behind, count, ids, limit, &found)
            if cursor != NULL:
                mdb_cursor_close(cursor)
        env.rest(txn)
        env.leave()
        if code != MDB_SUCCESS:
            fail(code, f"read index {env.path}")
        return [ids[i] for i in range(found)], [behind[i] for i in range(count)]
    finally:
        release(&arena)


# --- records ----------------------------------------------------------------------------------------------

cdef int copy_row(MDB_txn* txn, MDB_dbi dbi, Arena* arena, uint64_t id, MDB_val* row) noexcept nogil:
    cdef MDB_val key = number(&id)
    cdef int code = mdb_get(txn, dbi, &key, row)
    if code == MDB_SUCCESS:
        row.mv_data = keep(arena, row.mv_data, row.mv_size)
        if row.mv_data == NULL:
            return NO_MEMORY
    return code


cdef int copy_lines(Environment env, MDB_txn* txn, Arena* arena, int level, int top, Line* lines,
                    Py_ssize_t count) noexcept nogil:
    """Copy the record of each id, and of its parents up to level `top`. A row stays NULL if it is not there;
    a parent that the line before has already is taken from there."""
    cdef Py_ssize_t i
    cdef int at, code
    cdef uint64_t id, parent
    cdef uint64_t seen[4]
    memset(seen, 0, sizeof(seen))
    for i in range(count):
        id = lines[i].id
        for at in range(level, top - 1, -1):
            if at < level and i and seen[at] == id:
                lines[i].rows[at] = lines[i - 1].rows[at]
            else:
                code = copy_row(txn, env.tables[TABLE_ROWS + at], arena, id, &lines[i].rows[at])
                if code == MDB_NOTFOUND and at == level:
                    lines[i].rows[at].mv_data = NULL
                    break
                if code != MDB_SUCCESS:
                    return MDB_CORRUPTED if code == MDB_NOTFOUND else code
            seen[at] = id
            if lines[i].rows[at].mv_size < 9:
                return MDB_CORRUPTED
            if at > PATIENT:
                memcpy(&parent, <char*>lines[i].rows[at].mv_data + 1, 8)
                id = parent
        if lines[i].rows[level].mv_data == NULL:
            memset(seen, 0, sizeof(seen))
    return MDB_SUCCESS


cdef Line* fetch(Environment env, Schema schema, Arena* arena, int level, int top, ids) except NULL:
    cdef Py_ssize_t count = len(ids), i
    cdef Line* lines = <Line*>take(arena, (count or 1) * sizeof(Line))
    cdef MDB_txn* txn
    cdef int code
    if lines == NULL:
        raise MemoryError
    for i in range(count):
        lines[i].id = ids[i]
    env.enter()
    txn = env.reader()
    with nogil:
        code = begin_read(env.env, &txn)
        if code == MDB_SUCCESS:
            code = copy_lines(env, txn, arena, level, top, lines, count)
    env.rest(txn)
    env.leave()
    if code != MDB_SUCCESS:
        fail(code, f"read index {env.path}")
    return lines


cdef int open_node(Schema schema, Arena* arena, MDB_val* row, int level, Node* node) except -1:
    memset(node, 0, sizeof(Node))
    if decode_node(&schema.layout, arena, <const uint8_t*>row.mv_data, row.mv_size, level, node) < 0:
        fail(MDB_CORRUPTED, "decode a record of the index")
    return 0


cdef int open_instance(MDB_val* row, Instance* instance) except -1:
    if decode_instance(<const uint8_t*>row.mv_data, row.mv_size, instance) < 0:
        fail(MDB_CORRUPTED, "decode a record of the index")
    return 0


cdef object names(Tally* tally):
    cdef list found = []
    while tally != NULL:
        found.append(string(tally.name))
        tally = tally.next
    return "\\".join(sorted(found))


cdef int describe(Schema schema, int level, Node* node, dict into) except -1:
    """Put what a patient, study or series answers to a query into a dictionary."""
    cdef int slot
    if level == PATIENT:
        into[PATIENT_ID] = string(node.uid)
        into[ISSUER_OF_PATIENT_ID] = string(node.issuer)
        into[PATIENT_STUDIES] = str(node.studies)
        into[PATIENT_SERIES] = str(node.series)
        into[PATIENT_INSTANCES] = str(node.instances)
    elif level == STUDY:
        into[STUDY_INSTANCE_UID] = string(node.uid)
        into[STUDY_SERIES] = str(node.series)
        into[STUDY_INSTANCES] = str(node.instances)
        into[MODALITIES_IN_STUDY] = names(node.modalities)
        into[SOP_CLASSES_IN_STUDY] = names(node.classes)
    else:
        into[SERIES_INSTANCE_UID] = string(node.uid)
        into[SERIES_INSTANCES] = str(node.instances)
    for slot in range(schema.layout.slots[level]):
        if (node.values[slot].text.size and not schema.layout.pending[level][slot]
                and not schema.layout.items[level][slot]):
            into[schema.layout.tag_of[level][slot]] = string(node.values[slot].text)
    return 0


cdef int describe_instance(Schema schema, Instance* instance, dict into) except -1:
    cdef Instance rest = instance[0]
    cdef uint8_t code
    cdef int level, slot
    cdef Text text
    into[SOP_INSTANCE_UID] = string(instance.uid)
    into[TRANSFER_SYNTAX_UID] = string(instance.syntax)
    while next_attribute(&rest, &code, &text):
        level, slot = schema.layout.level_of[code], schema.layout.slot_of[code]
        if slot >= 0 and not schema.layout.pending[level][slot]:
            into[schema.layout.tag_of[level][slot]] = string(text)
    return 0


def matches(Environment env not None, Schema schema not None, int level, ids):
    """What each id of a level answers to a query: {tag: value}, with its parents' attributes and what is
    computed (counts, modalities, SOP classes); None for an id that has gone. Empty values are left out, and
    sequences, which are no text."""
    cdef list wanted = list(ids)
    cdef Arena arena
    cdef Line* lines
    cdef Node node
    cdef Instance instance
    cdef Py_ssize_t i
    cdef int at
    cdef list found = []
    cdef list parents = [None] * 4
    cdef const void* from_row[4]
    cdef dict row
    memset(from_row, 0, sizeof(from_row))
    arena.head = NULL
    if not 0 <= level < 4:
        raise ValueError(f"no level {level}")
    try:
        lines = fetch(env, schema, &arena, level, PATIENT, wanted)
        for i in range(len(wanted)):
            if lines[i].rows[level].mv_data == NULL:
                found.append(None)
                continue
            for at in range(level):
                if from_row[at] != lines[i].rows[at].mv_data:
                    row = dict(parents[at - 1]) if at else {}
                    open_node(schema, &arena, &lines[i].rows[at], at, &node)
                    describe(schema, at, &node, row)
                    parents[at] = row
                    from_row[at] = lines[i].rows[at].mv_data
            row = dict(parents[level - 1]) if level else {}
            if level == IMAGE:
                open_instance(&lines[i].rows[IMAGE], &instance)
                describe_instance(schema, &instance, row)
            else:
                open_node(schema, &arena, &lines[i].rows[level], level, &node)
                describe(schema, level, &node, row)
            found.append(row)
        return found
    finally:
        release(&arena)


cdef object place(Schema schema, Line* line, uint64_t study):
    """(id, series id, study id, SOP Instance UID, SOP class, transfer syntax, source AE title, locator, stamp,
    checksum, claim)"""
    cdef Instance instance, rest
    cdef uint64_t locator[3]
    cdef uint8_t code
    cdef Text text
    cdef object sop_class = ""
    open_instance(&line.rows[IMAGE], &instance)
    rest = instance
    while next_attribute(&rest, &code, &text):
        if schema.layout.level_of[code] == IMAGE and schema.layout.slot_of[code] == schema.layout.sop_class:
            sop_class = string(text)
            break
    locator[0] = instance.container
    locator[1] = instance.offset
    locator[2] = instance.length
    return (
        line.id, instance.series, study, string(instance.uid), sop_class, string(instance.syntax),
        string(instance.source), PyBytes_FromStringAndSize(<const char*>locator, 24), instance.stamp,
        instance.checksum, instance.claim,
    )


def places(Environment env not None, Schema schema not None, ids):
    """Where each instance is kept, as the fields of `pacs_core.index.base.Located`; None if it has gone."""
    cdef list wanted = list(ids)
    cdef Arena arena
    cdef Line* lines
    cdef Py_ssize_t i
    cdef uint64_t study
    cdef list found = []
    arena.head = NULL
    try:
        lines = fetch(env, schema, &arena, IMAGE, SERIES, wanted)
        for i in range(len(wanted)):
            if lines[i].rows[IMAGE].mv_data == NULL:
                found.append(None)
                continue
            memcpy(&study, <char*>lines[i].rows[SERIES].mv_data + 1, 8)
            found.append(place(schema, &lines[i], study))
        return found
    finally:
        release(&arena)


# --- everything, for dump, check and succession -----------------------------------------------------------

cdef dict values_of(Schema schema, int level, Value* values):
    cdef int slot
    return {
        schema.layout.tag_of[level][slot]: (
            hexadecimal(values[slot].text) if schema.layout.items[level][slot] else string(values[slot].text),
            values[slot].stamp,
        )
        for slot in range(schema.layout.slots[level]) if values[slot].text.size
    }


cdef dict tallies_of(Tally* tally):
    cdef dict found = {}
    while tally != NULL:
        found[string(tally.name)] = tally.count
        tally = tally.next
    return found


cdef list claims_of(Schema schema, Claim* claim):
    cdef list found = []
    while claim != NULL:
        found.append({
            "number": claim.number,
            "instances": claim.instances,
            "first": claim.first,
            "patient_id": string(claim.patient_id),
            "issuer": string(claim.issuer),
            "values": values_of(schema, PATIENT, claim.values),
        })
        claim = claim.next
    return found


def records(Environment env not None, Schema schema not None, int level, ids):
    """All that the record of each patient, study or series holds; values as (value, stamp of its supplier), those
    of sequences in hexadecimal."""
    cdef list wanted = list(ids)
    cdef Arena arena
    cdef Line* lines
    cdef Node node
    cdef Py_ssize_t i
    cdef list found = []
    cdef dict record
    arena.head = NULL
    if not 0 <= level < IMAGE:
        raise ValueError(f"no merged level {level}")
    try:
        lines = fetch(env, schema, &arena, level, level, wanted)
        for i in range(len(wanted)):
            if lines[i].rows[level].mv_data == NULL:
                found.append(None)
                continue
            open_node(schema, &arena, &lines[i].rows[level], level, &node)
            record = {
                "uid": string(node.uid),
                "instances": node.instances,
                "values": values_of(schema, level, node.values),
            }
            if level == PATIENT:
                record["issuer"] = string(node.issuer)
                record["unnamed"] = node.unnamed != 0
                record["studies"] = node.studies
                record["series"] = node.series
            else:
                record["parent"] = node.parent
                record["bytes"] = node.bytes
            if level == STUDY:
                record["alias"] = PyBytes_FromStringAndSize(<const char*>node.alias.data, node.alias.size)
                record["series"] = node.series
                record["modalities"] = tallies_of(node.modalities)
                record["classes"] = tallies_of(node.classes)
                record["claims"] = claims_of(schema, node.claims)
            found.append(record)
        return found
    finally:
        release(&arena)
