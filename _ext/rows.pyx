"""The packed records of the index's tables. The layouts are described in `rows.pxd`."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcmp, memcpy, memset

from pacs_core._ext.arena cimport Arena, take
from pacs_core._ext.keys cimport Text

cdef enum:
    PATIENT_ID = 0x00100020
    ISSUER_OF_PATIENT_ID = 0x00100021
    STUDY_INSTANCE_UID = 0x0020000D
    SERIES_INSTANCE_UID = 0x0020000E
    SOP_INSTANCE_UID = 0x00080018
    SOP_CLASS_UID = 0x00080016
    MODALITY = 0x00080060
    STUDY_DATE = 0x00080020
    REQUEST_ATTRIBUTES = 0x00400275

UNIQUE = frozenset({
    PATIENT_ID, ISSUER_OF_PATIENT_ID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID
})


@cython.final
@cython.auto_pickle(False)
cdef class Schema:
    """The attributes of the index: (code, tag, level, key kind) of each.

    Codes are 1 to 239 and mean the same for the life of an index. The unique keys (`UNIQUE`) are part of
    every record and have no code. `secret` is the index's own key for hashing overlong texts (16 bytes).

    Parameters
    ----------
    codes : bytes
        What the `meta` table says of the codes: nothing is written where it says something else by then.
        Empty: that is not looked at.
    pending : iterable of int
        Tags of which not all instances were asked yet: they are kept up to date, and not told.
    """

    def __cinit__(self, attributes, bytes secret not None, bytes codes=b"", pending=()):
        cdef Layout* layout = &self.layout
        cdef int level, slot, i
        memset(layout, 0, sizeof(Layout))
        memset(layout.slot_of, 0xFF, sizeof(layout.slot_of))
        layout.modality = layout.study_date = layout.sop_class = -1
        if len(secret) != 16:
            raise ValueError("the secret has 16 bytes")
        memcpy(layout.secret, <const char*>secret, 16)
        self.codes = codes
        untold = frozenset(pending)
        given = sorted((int(tag), int(code), int(lv), int(kind)) for code, tag, lv, kind in attributes)
        if len(given) > 239 or len({row[0] for row in given}) + len({row[1] for row in given}) != 2 * len(given):
            raise ValueError("at most 239 attributes, each with a tag and a code of its own")
        for i, (tag, code, lv, kind) in enumerate(given):
            level = lv
            if not 0 <= level < 4 or not 1 <= code <= 239 or tag in UNIQUE:
                raise ValueError(f"attribute {tag:08X}: level {lv}, code {code}")
            slot = layout.slots[level]
            if slot == SLOTS:
                raise ValueError(f"more than {SLOTS} attributes at level {level}")
            layout.slots[level] += 1
            layout.by_tag[i].tag = tag
            layout.by_tag[i].code = code
            layout.by_tag[i].level = level
            layout.by_tag[i].slot = slot
            layout.code_of[level][slot] = code
            layout.tag_of[level][slot] = tag
            layout.key_of[level][slot] = kind
            layout.pending[level][slot] = tag in untold
            layout.items[level][slot] = tag == REQUEST_ATTRIBUTES
            layout.slot_of[code] = slot
            layout.level_of[code] = level
            if tag == MODALITY and level == SERIES:
                layout.modality = slot
            elif tag == STUDY_DATE and level == STUDY:
                layout.study_date = slot
            elif tag == SOP_CLASS_UID and level == IMAGE:
                layout.sop_class = slot
        layout.count = len(given)
        if layout.modality < 0 or layout.study_date < 0 or layout.sop_class < 0:
            raise ValueError("Modality, Study Date and SOP Class UID belong to every index")


# --- reading ----------------------------------------------------------------------------------------------

cdef struct Eye:
    const uint8_t* at
    const uint8_t* end
    bint bad


cdef inline uint64_t see(Eye* eye, size_t size) noexcept nogil:
    """A little-endian number of `size` bytes; 0 and `bad` beyond the end."""
    cdef uint64_t number = 0
    if <size_t>(eye.end - eye.at) < size:
        eye.bad = True
        return 0
    memcpy(&number, eye.at, size)
    eye.at += size
    return number


cdef uint64_t see_varint(Eye* eye) noexcept nogil:
    cdef uint64_t number = 0
    cdef int shift = 0
    cdef uint8_t byte
    while eye.at < eye.end and shift < 64:
        byte = eye.at[0]
        eye.at += 1
        number |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            return number
        shift += 7
    eye.bad = True
    return 0


cdef Text see_text(Eye* eye) noexcept nogil:
    cdef Text text
    cdef uint64_t size = see_varint(eye)
    if size > <uint64_t>(eye.end - eye.at):
        eye.bad = True
        size = 0
    text.data = eye.at
    text.size = size
    eye.at += size
    return text


cdef void see_merged(const Layout* layout, Eye* eye, int level, Value* values) noexcept nogil:
    cdef int suppliers = <int>see(eye, 1), count, i
    cdef const uint8_t* stamps = eye.at
    cdef int seen[256]
    cdef int slot
    cdef uint8_t code, supplier
    cdef Text text
    if <size_t>(eye.end - eye.at) < <size_t>suppliers * 8:
        eye.bad = True
        return
    eye.at += suppliers * 8
    count = <int>see(eye, 1)
    for i in range(count):
        code = <uint8_t>see(eye, 1)
        text = see_text(eye)
        slot = layout.slot_of[code]
        if slot >= 0 and layout.level_of[code] == level:
            values[slot].text = text
            seen[i] = slot
        else:
            seen[i] = -1
    for i in range(count):
        supplier = <uint8_t>see(eye, 1) if suppliers > 1 else 0
        if supplier >= suppliers or eye.bad:
            eye.bad = True
            return
        if seen[i] >= 0:
            memcpy(&values[seen[i]].stamp, stamps + supplier * 8, 8)


cdef Tally* see_tallies(Eye* eye, Arena* arena) noexcept nogil:
    cdef Tally* first = NULL
    cdef Tally* last = NULL
    cdef Tally* tally
    cdef uint64_t count = see_varint(eye)
    while count and not eye.bad:
        count -= 1
        tally = <Tally*>take(arena, sizeof(Tally))
        if tally == NULL:
            eye.bad = True
            break
        tally.count = see_varint(eye)
        tally.name = see_text(eye)
        if last == NULL:
            first = tally
        else:
            last.next = tally
        last = tally
    return first


cdef void see_claims(const Layout* layout, Eye* eye, Arena* arena, Node* node) noexcept nogil:
    cdef Claim* last = NULL
    cdef Claim* claim
    cdef uint64_t count = see_varint(eye)
    while count and not eye.bad:
        count -= 1
        claim = <Claim*>take(arena, sizeof(Claim))
        if claim == NULL:
            eye.bad = True
            return
        claim.number = see_varint(eye)
        claim.instances = see_varint(eye)
        claim.first = see(eye, 8)
        claim.patient_id = see_text(eye)
        claim.issuer = see_text(eye)
        see_merged(layout, eye, PATIENT, claim.values)
        if last == NULL:
            node.claims = claim
        else:
            last.next = claim
        last = claim


cdef int decode_node(const Layout* layout, Arena* arena, const uint8_t* data, size_t size, int level,
                     Node* node) noexcept nogil:
    """Fill a zeroed `node`; its texts point into `data`. -1: not a record of this level and version."""
    cdef Eye eye
    eye.at = data
    eye.end = data + size
    eye.bad = False
    node.level = level
    if see(&eye, 1) != ROW_VERSION:
        return -1
    if level == PATIENT:
        node.unnamed = see(&eye, 1) != 0
        node.studies = see_varint(&eye)
        node.series = see_varint(&eye)
        node.instances = see_varint(&eye)
        node.uid = see_text(&eye)
        node.issuer = see_text(&eye)
    else:
        node.parent = see(&eye, 8)
        if level == STUDY:
            node.series = see_varint(&eye)
        node.instances = see_varint(&eye)
        node.bytes = see_varint(&eye)
        node.uid = see_text(&eye)
        if level == STUDY:
            node.alias = see_text(&eye)
    see_merged(layout, &eye, level, node.values)
    if level == STUDY:
        node.modalities = see_tallies(&eye, arena)
        node.classes = see_tallies(&eye, arena)
        see_claims(layout, &eye, arena, node)
    return -1 if eye.bad or eye.at != eye.end else 0


cdef int decode_instance(const uint8_t* data, size_t size, Instance* instance) noexcept nogil:
    """Fill `instance`; its texts point into `data`. -1: not an instance record of this version."""
    cdef Eye eye
    eye.at = data
    eye.end = data + size
    eye.bad = False
    if see(&eye, 1) != ROW_VERSION:
        return -1
    instance.series = see(&eye, 8)
    instance.stamp = see(&eye, 8)
    instance.container = see(&eye, 8)
    instance.checksum = <uint32_t>see(&eye, 4)
    instance.claim = see_varint(&eye)
    instance.offset = see_varint(&eye)
    instance.length = see_varint(&eye)
    instance.uid = see_text(&eye)
    instance.syntax = see_text(&eye)
    instance.source = see_text(&eye)
    see(&eye, 1)
    instance.attributes = eye.at
    instance.end = eye.end
    return -1 if eye.bad else 0


cdef bint next_attribute(Instance* instance, uint8_t* code, Text* text) noexcept nogil:
    """The next attribute of an instance record; False at the end."""
    cdef Eye eye
    eye.at = instance.attributes
    eye.end = instance.end
    eye.bad = False
    code[0] = <uint8_t>see(&eye, 1)
    text[0] = see_text(&eye)
    instance.attributes = eye.at
    return not eye.bad


cdef int parse_fields(const Layout* layout, const uint8_t* blob, size_t size, Fields* fields) noexcept nogil:
    """Sort a fields blob (version u8 | tag u32, length u32, value …, ascending) into levels and slots.

    -1: malformed. Attributes that the index does not hold are passed over.
    """
    cdef Eye eye
    cdef uint32_t tag, last = 0
    cdef uint64_t length
    cdef int i = 0
    cdef Text text
    eye.at = blob
    eye.end = blob + size
    eye.bad = False
    memset(fields, 0, sizeof(Fields))
    if see(&eye, 1) != FIELDS_VERSION:
        return -1
    while eye.at < eye.end:
        tag = <uint32_t>see(&eye, 4)
        length = see(&eye, 4)
        if eye.bad or length > <uint64_t>(eye.end - eye.at) or (last and tag <= last):
            return -1
        last = tag
        text.data = eye.at
        text.size = length
        eye.at += length
        if tag == PATIENT_ID:
            fields.patient_id = text
        elif tag == ISSUER_OF_PATIENT_ID:
            fields.issuer = text
        elif tag == STUDY_INSTANCE_UID:
            fields.study_uid = text
        elif tag == SERIES_INSTANCE_UID:
            fields.series_uid = text
        elif tag == SOP_INSTANCE_UID:
            fields.sop_uid = text
        else:
            while i < layout.count and layout.by_tag[i].tag < tag:
                i += 1
            if i < layout.count and layout.by_tag[i].tag == tag:
                fields.values[layout.by_tag[i].level][layout.by_tag[i].slot] = text
    if not fields.patient_id.size:
        fields.issuer.size = 0  # an issuer of nothing identifies nobody
    return 0


# --- merging ----------------------------------------------------------------------------------------------

cdef inline int order_text(Text a, Text b) noexcept nogil:
    cdef int order = memcmp(a.data, b.data, a.size if a.size < b.size else b.size)
    return order if order else (a.size > b.size) - (a.size < b.size)


cdef bint merge(Value* value, Text text, uint64_t stamp) noexcept nogil:
    """Take `text` if it is the first received that is not empty. Between equal stamps the bytes decide,
    so that the result never depends on the order of the calls. True: `value` changed."""
    if text.size == 0:
        return False
    if value.text.size:
        if value.stamp < stamp:
            return False
        if value.stamp == stamp and order_text(value.text, text) <= 0:
            return False
    value.text = text
    value.stamp = stamp
    return True


cdef Claim* owner(Node* study) noexcept nogil:
    """Whose the study is: the named identity that came first, else the nameless claim (or NULL)."""
    cdef Claim* best = NULL
    cdef Claim* claim = study.claims
    cdef int order
    while claim != NULL:
        if claim.instances:
            if best == NULL or best.patient_id.size == 0:
                best = claim
            elif claim.patient_id.size:
                order = (claim.first > best.first) - (claim.first < best.first)
                if order == 0:
                    order = order_text(claim.patient_id, best.patient_id)
                if order == 0:
                    order = order_text(claim.issuer, best.issuer)
                if order < 0:
                    best = claim
        claim = claim.next
    return best


cdef void given(const Layout* layout, Node* study, Value* values) noexcept nogil:
    """What a study says of its patient: its owner's claim, and what came without any Patient ID."""
    cdef Claim* best = owner(study)
    cdef Claim* claim = study.claims
    cdef int slot
    memset(values, 0, SLOTS * sizeof(Value))
    while claim != NULL:
        if claim.instances and (claim == best or claim.patient_id.size == 0):
            for slot in range(layout.slots[PATIENT]):
                merge(&values[slot], claim.values[slot].text, claim.values[slot].stamp)
        claim = claim.next


# --- writing ----------------------------------------------------------------------------------------------

cdef inline bint ready(Pen* pen, size_t size) noexcept nogil:
    cdef size_t room
    cdef uint8_t* grown
    if pen.size + size > pen.room:
        room = 2 * (pen.size + size) + 4096
        grown = <uint8_t*>realloc(pen.data, room)
        if grown == NULL:
            pen.failed = True
            return False
        pen.data = grown
        pen.room = room
    return True


cdef inline void put(Pen* pen, uint64_t number, size_t size) noexcept nogil:
    if ready(pen, size):
        memcpy(pen.data + pen.size, &number, size)
        pen.size += size


cdef inline void put_varint(Pen* pen, uint64_t number) noexcept nogil:
    while number >= 0x80:
        put(pen, (number & 0x7F) | 0x80, 1)
        number >>= 7
    put(pen, number, 1)


cdef inline void put_text(Pen* pen, Text text) noexcept nogil:
    put_varint(pen, text.size)
    if text.size and ready(pen, text.size):
        memcpy(pen.data + pen.size, text.data, text.size)
        pen.size += text.size


cdef void put_merged(const Layout* layout, Pen* pen, int level, Value* values) noexcept nogil:
    cdef uint64_t stamps[SLOTS]
    cdef uint8_t supplier[SLOTS]
    cdef int suppliers = 0, count = 0, slot, i
    for slot in range(layout.slots[level]):
        if values[slot].text.size == 0:
            continue
        i = 0
        while i < suppliers and stamps[i] != values[slot].stamp:
            i += 1
        if i == suppliers:
            stamps[i] = values[slot].stamp
            suppliers += 1
        supplier[count] = i
        count += 1
    put(pen, suppliers, 1)
    for i in range(suppliers):
        put(pen, stamps[i], 8)
    put(pen, count, 1)
    for slot in range(layout.slots[level]):
        if values[slot].text.size:
            put(pen, layout.code_of[level][slot], 1)
            put_text(pen, values[slot].text)
    if suppliers > 1:
        for i in range(count):
            put(pen, supplier[i], 1)


cdef void put_tallies(Pen* pen, Tally* first) noexcept nogil:
    cdef Tally* tally = first
    cdef uint64_t count = 0
    while tally != NULL:
        count += tally.count != 0
        tally = tally.next
    put_varint(pen, count)
    tally = first
    while tally != NULL:
        if tally.count:
            put_varint(pen, tally.count)
            put_text(pen, tally.name)
        tally = tally.next


cdef void put_claims(const Layout* layout, Pen* pen, Node* study) noexcept nogil:
    cdef Claim* claim = study.claims
    cdef uint64_t count = 0
    while claim != NULL:
        count += claim.instances != 0
        claim = claim.next
    put_varint(pen, count)
    claim = study.claims
    while claim != NULL:
        if claim.instances:
            put_varint(pen, claim.number)
            put_varint(pen, claim.instances)
            put(pen, claim.first, 8)
            put_text(pen, claim.patient_id)
            put_text(pen, claim.issuer)
            put_merged(layout, pen, PATIENT, claim.values)
        claim = claim.next


cdef void encode_node(const Layout* layout, Pen* pen, Node* node) noexcept nogil:
    """Write the record of a patient, study or series; `pen.failed` if there was no memory."""
    pen.size = 0
    put(pen, ROW_VERSION, 1)
    if node.level == PATIENT:
        put(pen, node.unnamed, 1)
        put_varint(pen, node.studies)
        put_varint(pen, node.series)
        put_varint(pen, node.instances)
        put_text(pen, node.uid)
        put_text(pen, node.issuer)
    else:
        put(pen, node.parent, 8)
        if node.level == STUDY:
            put_varint(pen, node.series)
        put_varint(pen, node.instances)
        put_varint(pen, node.bytes)
        put_text(pen, node.uid)
        if node.level == STUDY:
            put_text(pen, node.alias)
    put_merged(layout, pen, node.level, node.values)
    if node.level == STUDY:
        put_tallies(pen, node.modalities)
        put_tallies(pen, node.classes)
        put_claims(layout, pen, node)


cdef void encode_instance(const Layout* layout, Pen* pen, Instance* instance, Fields* fields) noexcept nogil:
    """Write the record of an instance, with the image-level values of its `fields`."""
    cdef int slot, count = 0
    pen.size = 0
    put(pen, ROW_VERSION, 1)
    put(pen, instance.series, 8)
    put(pen, instance.stamp, 8)
    put(pen, instance.container, 8)
    put(pen, instance.checksum, 4)
    put_varint(pen, instance.claim)
    put_varint(pen, instance.offset)
    put_varint(pen, instance.length)
    put_text(pen, instance.uid)
    put_text(pen, instance.syntax)
    put_text(pen, instance.source)
    for slot in range(layout.slots[IMAGE]):
        count += fields.values[IMAGE][slot].size != 0
    put(pen, count, 1)
    for slot in range(layout.slots[IMAGE]):
        if fields.values[IMAGE][slot].size:
            put(pen, layout.code_of[IMAGE][slot], 1)
            put_text(pen, fields.values[IMAGE][slot])
