"""The end of a batch: what it touched is written back, with the difference of its keys.

Series first, since they make their study's modalities; then studies, which choose their patient; then
patients. What has no instance left goes, with all that led to it.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from pacs_core._ext.arena cimport Arena, keep, release, take
from pacs_core._ext.batch cimport (
    Work, claim_of, count_name, del_child, del_row, del_uid, find_uid, joined, load, loaded, new_node,
    no_memory, put_child, put_row, put_uid,
)
from pacs_core._ext.catalog cimport TABLE_CHILD, TABLE_KEY, TABLE_ROWS
from pacs_core._ext.keys cimport (
    CODE_MODALITY_DATE, CODE_PATIENT_ID, KEY_TEXT, UID_NAMELESS, UID_PATIENT, UID_SERIES, UID_STUDY, Key,
    Text, add_keys, add_pair_key, order_keys, same_text, sort_keys,
)
from pacs_core._ext.kv cimport (
    MDB_CORRUPTED, MDB_NEXT_DUP, MDB_NOTFOUND, MDB_SET, MDB_SUCCESS, MDB_cursor, MDB_val, mdb_cursor_close,
    mdb_cursor_get, mdb_cursor_open, mdb_del, mdb_get, mdb_put, number, view,
)
from pacs_core._ext.rows cimport (
    IMAGE, PATIENT, SERIES, SLOTS, STUDY, Claim, Instance, Layout, Node, Tally, Value, decode_instance,
    decode_node, encode_node, given, merge, owner,
)


cdef int node_keys(Work* work, Node* node, Value* values, Tally* modalities, Key** keys) noexcept nogil:
    cdef const Layout* layout = work.layout
    cdef Tally* tally = modalities
    cdef int slot, code = 0
    if node.level == PATIENT:
        code = add_keys(&work.arena, CODE_PATIENT_ID, KEY_TEXT, node.uid, keys)
    for slot in range(layout.slots[node.level]):
        if layout.key_of[node.level][slot] and code == 0:
            code = add_keys(&work.arena, layout.code_of[node.level][slot], layout.key_of[node.level][slot],
                            values[slot].text, keys)
    if node.level == STUDY:
        while tally != NULL and code == 0:
            if tally.count:
                code = add_pair_key(&work.arena, CODE_MODALITY_DATE, tally.name, values[layout.study_date].text, keys)
            tally = tally.next
    return no_memory() if code < 0 else 0


cdef bint in_tallies(Tally* tally, Tally* tallies) noexcept nogil:
    while tallies != NULL:
        if tallies.count and same_text(tallies.name, tally.name):
            return True
        tallies = tallies.next
    return False


cdef bint same_keys(Work* work, Node* node) noexcept nogil:
    """Whether nothing that makes the keys of a loaded node has changed."""
    cdef const Layout* layout = work.layout
    cdef Tally* tally
    cdef int slot
    for slot in range(layout.slots[node.level]):
        if layout.key_of[node.level][slot] and not same_text(node.values[slot].text, node.had[slot].text):
            return False
    tally = node.modalities
    while tally != NULL:
        if tally.count and not in_tallies(tally, node.had_modalities):
            return False
        tally = tally.next
    tally = node.had_modalities
    while tally != NULL:
        if not in_tallies(tally, node.modalities):
            return False
        tally = tally.next
    return True


cdef int write_keys(Work* work, Node* node, bint gone) noexcept nogil:
    cdef Key* old = NULL
    cdef Key* new = NULL
    cdef MDB_val key, value = number(&node.id)
    cdef int code = 0, order
    if node.fresh:
        if gone:
            return 0
    elif not gone and same_keys(work, node):
        return 0
    if not node.fresh:
        code = node_keys(work, node, node.had, node.had_modalities, &old)
    if code == 0 and not gone:
        code = node_keys(work, node, node.values, node.modalities, &new)
    if code == 0 and (sort_keys(&work.arena, &old) < 0 or sort_keys(&work.arena, &new) < 0):
        code = no_memory()
    while code == 0 and (old != NULL or new != NULL):
        order = 1 if old == NULL else -1 if new == NULL else order_keys(old, new)
        if order < 0:
            key = view(old.data, old.size)
            code = mdb_del(work.txn, work.tables[TABLE_KEY], &key, &value)
        elif order > 0:
            key = view(new.data, new.size)
            code = mdb_put(work.txn, work.tables[TABLE_KEY], &key, &value, 0)
        if order <= 0:
            old = old.next
        if order >= 0:
            new = new.next
    return MDB_CORRUPTED if code == MDB_NOTFOUND else code


cdef int write_series(Work* work, Node* series) noexcept nogil:
    cdef Node* study = NULL
    cdef int slot = work.layout.modality
    cdef int code = load(work, STUDY, series.parent, &study)
    if code == 0 and not series.fresh:
        code = count_name(work, &study.modalities, series.had[slot].text, -1)
    if code == 0 and series.instances:
        code = count_name(work, &study.modalities, series.values[slot].text, 1)
    if code == 0:
        code = write_keys(work, series, series.instances == 0)
    if code:
        return code
    if series.instances:
        encode_node(work.layout, &work.pen, series)
        return put_row(work, SERIES, series.id)
    study.series -= 1
    if not series.fresh:
        code = del_row(work, SERIES, series.id)
    if code == 0:
        code = del_child(work, study.id, series.id)
    return code if code else del_uid(work, UID_SERIES, series.uid, study.id)


cdef int first_child(MDB_cursor* cursor, uint64_t* parent, uint64_t* child) noexcept nogil:
    cdef MDB_val key = number(parent), value
    cdef int code = mdb_cursor_get(cursor, &key, &value, MDB_SET)
    if code == 0:
        memcpy(child, value.mv_data, 8)
    return code


cdef int following_child(MDB_cursor* cursor, uint64_t* child) noexcept nogil:
    cdef MDB_val key, value
    cdef int code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT_DUP)
    if code == 0:
        memcpy(child, value.mv_data, 8)
    return code


cdef int recount_claims(Work* work, Node* study) noexcept nogil:
    """Find the first stamp of each claim whose first instance went, among the instances that are left."""
    cdef MDB_cursor* outer = NULL
    cdef MDB_cursor* inner = NULL
    cdef Claim* claim = study.claims
    cdef Instance row
    cdef uint64_t series_id, id
    cdef MDB_val key, value
    cdef int code, inside
    cdef bint any_stale = False
    while claim != NULL:
        if claim.stale and claim.instances:
            claim.first = ~<uint64_t>0
            any_stale = True
        claim = claim.next
    if not any_stale:
        return 0
    code = mdb_cursor_open(work.txn, work.tables[TABLE_CHILD], &outer)
    if code == 0:
        code = mdb_cursor_open(work.txn, work.tables[TABLE_CHILD], &inner)
    if code == 0:
        code = first_child(outer, &study.id, &series_id)
    while code == 0:
        inside = first_child(inner, &series_id, &id)
        while inside == 0:
            key = number(&id)
            inside = mdb_get(work.txn, work.tables[TABLE_ROWS + IMAGE], &key, &value)
            if inside == 0 and decode_instance(<const uint8_t*>value.mv_data, value.mv_size, &row) < 0:
                inside = MDB_CORRUPTED
            if inside:
                break
            claim = claim_of(study, row.claim)
            if claim != NULL and claim.stale and row.stamp < claim.first:
                claim.first = row.stamp
            inside = following_child(inner, &id)
        if inside != MDB_NOTFOUND:
            code = inside
            break
        code = following_child(outer, &series_id)
    if outer != NULL:
        mdb_cursor_close(outer)
    if inner != NULL:
        mdb_cursor_close(inner)
    return 0 if code == MDB_NOTFOUND else code


cdef int patient_of(Work* work, Node* study, Claim* best, Node* now, Node** found) noexcept nogil:
    """The patient of a study that `best` owns; `now` is the one it has (or NULL)."""
    cdef Text text
    cdef uint64_t id
    cdef int code
    cdef Node* patient
    if now != NULL and same_text(now.uid, best.patient_id) and same_text(now.issuer, best.issuer):
        found[0] = now
        return 0
    if best.patient_id.size:
        text = joined(&work.arena, c'p', best.patient_id, best.issuer)
        if text.data == NULL:
            return no_memory()
        code = find_uid(work, UID_PATIENT, text, 0, &id)
        if code == MDB_SUCCESS:
            return load(work, PATIENT, id, found)
        if code != MDB_NOTFOUND:
            return code
    patient = new_node(work, PATIENT)
    if patient == NULL:
        return no_memory()
    patient.uid = best.patient_id
    patient.issuer = best.issuer
    patient.unnamed = best.patient_id.size == 0
    found[0] = patient
    return 0 if patient.unnamed else put_uid(work, UID_PATIENT, text, 0, patient.id)


cdef int write_study(Work* work, Node* study) noexcept nogil:
    cdef const Layout* layout = work.layout
    cdef Node* before = NULL
    cdef Node* after = NULL
    cdef Value gives[SLOTS]
    cdef int code, slot
    cdef bint gone = study.instances == 0
    memset(gives, 0, sizeof(gives))
    code = recount_claims(work, study)
    if code == 0 and not study.fresh:
        code = load(work, PATIENT, study.parent, &before)
    if code == 0 and not gone:
        code = patient_of(work, study, owner(study), before, &after)
    if code:
        return code
    if not gone:
        given(layout, study, gives)
    if before != NULL:
        before.dirty = True
        before.studies -= 1
        before.series -= study.had_series
        before.instances -= study.had_instances
        for slot in range(layout.slots[PATIENT]):
            if (study.gave[slot].text.size and before.values[slot].stamp == study.gave[slot].stamp
                    and (before != after or gives[slot].stamp != study.gave[slot].stamp
                         or not same_text(gives[slot].text, study.gave[slot].text))):
                before.lost = True
    if after != NULL:
        after.dirty = True
        after.studies += 1
        after.series += study.series
        after.instances += study.instances
        for slot in range(layout.slots[PATIENT]):
            merge(&after.values[slot], gives[slot].text, gives[slot].stamp)
    if before != after:
        if before != NULL:
            code = del_child(work, before.id, study.id)
        if code == 0 and after != NULL:
            code = put_child(work, after.id, study.id)
    if code == 0:
        code = write_keys(work, study, gone)
    if code:
        return code
    if not gone:
        study.parent = after.id
        encode_node(layout, &work.pen, study)
        return put_row(work, STUDY, study.id)
    if not study.fresh:
        code = del_row(work, STUDY, study.id)
    if code == 0:
        if study.alias.size:
            code = del_uid(work, UID_NAMELESS, study.alias, 0)
        else:
            code = del_uid(work, UID_STUDY, study.uid, 0)
    return code


cdef int remerge_patient(Work* work, Node* patient) noexcept nogil:
    """Merge a patient's values anew from what its studies say. Some "patients" (anonymised ones) have very
    many: studies that the batch did not touch are looked at in place and not kept."""
    cdef MDB_cursor* cursor = NULL
    cdef MDB_val key, value
    cdef Arena scratch
    cdef Node* study
    cdef Node* looked_at
    cdef Value gives[SLOTS]
    cdef Text* text
    cdef uint64_t id
    cdef int slot, code
    scratch.head = NULL
    memset(patient.values, 0, sizeof(patient.values))
    code = mdb_cursor_open(work.txn, work.tables[TABLE_CHILD], &cursor)
    if code == 0:
        code = first_child(cursor, &patient.id, &id)
    while code == 0:
        study = loaded(work, id)
        if study == NULL:
            release(&scratch)
            looked_at = <Node*>take(&scratch, sizeof(Node))
            if looked_at == NULL:
                code = no_memory()
                break
            key = number(&id)
            code = mdb_get(work.txn, work.tables[TABLE_ROWS + STUDY], &key, &value)
            if code or decode_node(work.layout, &scratch, <const uint8_t*>value.mv_data, value.mv_size, STUDY,
                                   looked_at) < 0:
                code = MDB_CORRUPTED
                break
            study = looked_at
        given(work.layout, study, gives)
        for slot in range(work.layout.slots[PATIENT]):
            merge(&patient.values[slot], gives[slot].text, gives[slot].stamp)
        code = following_child(cursor, &id)
    if cursor != NULL:
        mdb_cursor_close(cursor)
    release(&scratch)
    for slot in range(work.layout.slots[PATIENT]):
        text = &patient.values[slot].text
        if text.size:  # it may be in a page that the next write moves
            text.data = <const uint8_t*>keep(&work.arena, text.data, text.size)
            if text.data == NULL:
                return no_memory()
    return 0 if code == MDB_NOTFOUND else code


cdef int write_patient(Work* work, Node* patient) noexcept nogil:
    cdef Text text
    cdef int code = 0
    cdef bint gone = patient.studies == 0
    if patient.lost and not gone:
        code = remerge_patient(work, patient)
    if code == 0:
        code = write_keys(work, patient, gone)
    if code:
        return code
    if not gone:
        encode_node(work.layout, &work.pen, patient)
        return put_row(work, PATIENT, patient.id)
    if not patient.fresh:
        code = del_row(work, PATIENT, patient.id)
    if code == 0 and not patient.unnamed:
        text = joined(&work.arena, c'p', patient.uid, patient.issuer)
        code = no_memory() if text.data == NULL else del_uid(work, UID_PATIENT, text, 0)
    return code


cdef int write_back(Work* work) noexcept nogil:
    cdef Node* node
    cdef int level, code = 0
    for level in range(SERIES, -1, -1):
        node = work.first[level]
        while node != NULL and code == 0:
            if node.dirty:
                if level == SERIES:
                    code = write_series(work, node)
                elif level == STUDY:
                    code = write_study(work, node)
                else:
                    code = write_patient(work, node)
            node = node.next
    return MDB_CORRUPTED if code == MDB_NOTFOUND else code
