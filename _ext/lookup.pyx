# cython: auto_pickle=False
"""Queries on the index: walks of key ranges; the sieve that keeps what matches and makes responses of it.

Each call is one snapshot and gives the GIL up; a walk is resumed by the key and the id that it came to.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, qsort, strtod, strtoull
from libc.string cimport memcmp, memcpy, memmove, memset

from pacs_core._ext.arena cimport Arena, keep, release, take
from pacs_core._ext.browse cimport Line, fetch
from pacs_core._ext.catalog cimport TABLE_KEY
from pacs_core._ext.cursor cimport le16, le32
from pacs_core._ext.digits cimport put32, put_unsigned, width
from pacs_core._ext.keys cimport KEY_MAX, Text
from pacs_core._ext.kv cimport (
    MDB_CORRUPTED, MDB_GET_BOTH_RANGE, MDB_GET_CURRENT, MDB_NEXT, MDB_NEXT_NODUP, MDB_NOTFOUND, MDB_SET_RANGE,
    MDB_SUCCESS, Environment, MDB_cursor, MDB_txn, MDB_val, begin_read, fail, mdb_cursor_close, mdb_cursor_get,
    mdb_cursor_open, number, view,
)
from pacs_core._ext.leaf cimport Siblings, next_sibling, siblings
from pacs_core._ext.match cimport Matcher
from pacs_core._ext.rows cimport (
    IMAGE, PATIENT, SERIES, STUDY, Instance, Layout, Node, Schema, Tally, decode_instance, decode_node,
    next_attribute,
)
from pacs_core._ext.sink cimport Sink, grow
from pacs_core._ext.text cimport is_plain
from pacs_core._ext.values cimport is_long, kind_of, letters_of
from pacs_core._ext.vr cimport VR_AT, VR_FD, VR_FL, VR_OPAQUE, VR_SQ, VR_US
from pacs_core._ext.walk cimport ITEM

import mmap

from pacs_core._ext.kv import library_version

cdef uint64_t ALL_IDS = <uint64_t>-2    # behind all of a key that does not count

# The largest page that is read directly: of 0.9, on 64 bits, and so that the map begins where one does.
cdef size_t READABLE = mmap.PAGESIZE if library_version()[:2] == (0, 9) and sizeof(void*) == 8 else 0

cdef enum:
    CHARACTER_SET = 0x00080005
    LETTERS_UI = 0x5549

# What a column is, if it is not the slot of an attribute.
cdef enum:
    OF_UID = -1
    OF_ISSUER = -2
    OF_STUDIES = -3
    OF_SERIES = -4
    OF_INSTANCES = -5
    OF_MODALITIES = -6
    OF_CLASSES = -7
    OF_SYNTAX = -8

cdef dict COMPUTED = {
    0x00100020: (PATIENT, OF_UID),
    0x00100021: (PATIENT, OF_ISSUER),
    0x00201200: (PATIENT, OF_STUDIES),
    0x00201202: (PATIENT, OF_SERIES),
    0x00201204: (PATIENT, OF_INSTANCES),
    0x0020000D: (STUDY, OF_UID),
    0x00080061: (STUDY, OF_MODALITIES),
    0x00080062: (STUDY, OF_CLASSES),
    0x00201206: (STUDY, OF_SERIES),
    0x00201208: (STUDY, OF_INSTANCES),
    0x0020000E: (SERIES, OF_UID),
    0x00201209: (SERIES, OF_INSTANCES),
    0x00080018: (IMAGE, OF_UID),
    0x00083002: (IMAGE, OF_SYNTAX),
}


cdef struct Column:
    int level
    int what


cdef struct Part:           # one element of a response
    uint32_t tag
    uint16_t vr
    uint8_t kind
    bint constant
    Text text               # of a constant
    Column column
    Part* parts             # of a sequence: the elements of each item
    int part_count
    Group* group            # of a sequence: what an item has to match, NULL if nothing


cdef struct Group:          # the tests of one sequence: one of its items has to pass them all
    Column column
    uint32_t tag
    int first               # of the matcher's tests
    int count
    uint32_t* tags


cdef struct Rows:           # what is known of one id, decoded when it is asked for
    const Line* line
    const void* decoded[4]  # from which record
    Node nodes[3]
    Instance instance
    uint8_t[24] digits
    bint failed


cdef bint find_column(const Layout* layout, uint32_t tag, Column* column):
    """Where the index has an attribute; whether it has it."""
    cdef int i
    cdef object computed = COMPUTED.get(tag)
    if computed is not None:
        column.level, column.what = computed
        return True
    for i in range(layout.count):
        if layout.by_tag[i].tag == tag:
            column.level = layout.by_tag[i].level
            column.what = layout.by_tag[i].slot
            return not layout.pending[column.level][column.what]
    return False


def level_of(Schema schema not None, uint32_t tag):
    """The level at which the index has an attribute, None if it does not, or not of all instances yet."""
    cdef Column column
    return column.level if find_column(&schema.layout, tag, &column) else None


def keys_of(Schema schema not None, uint32_t tag):
    """(code, kind) of the ordered keys of an attribute in the `key` table, None if it has none."""
    cdef const Layout* layout = &schema.layout
    cdef int i
    for i in range(layout.count):
        if layout.by_tag[i].tag == tag:
            kind = layout.key_of[layout.by_tag[i].level][layout.by_tag[i].slot]
            return (layout.by_tag[i].code, kind) if kind else None
    return None


# --- one row ----------------------------------------------------------------------------------------------

cdef Text counted(Rows* rows, uint64_t count) noexcept nogil:
    cdef Text text
    text.data = rows.digits
    text.size = put_unsigned(rows.digits, count)
    return text


cdef int order_names(const void* a, const void* b) noexcept nogil:
    cdef Text left = (<Tally**>a)[0].name
    cdef Text right = (<Tally**>b)[0].name
    cdef int order = memcmp(left.data, right.data, min(left.size, right.size))
    return order if order else (left.size > right.size) - (left.size < right.size)


cdef Text joined(Arena* arena, Rows* rows, Tally* tallies) noexcept nogil:
    """The names of tallies in order, joined by backslashes."""
    cdef Tally* tally = tallies
    cdef Tally** found
    cdef uint8_t* out
    cdef size_t count = 0, size = 0, i
    cdef Text text
    text.data = NULL
    text.size = 0
    while tally != NULL:
        count += 1
        size += tally.name.size + 1
        tally = tally.next
    if count == 0:
        return text
    found = <Tally**>take(arena, count * sizeof(Tally*))
    out = <uint8_t*>take(arena, size)
    if found == NULL or out == NULL:
        rows.failed = True
        return text
    tally = tallies
    for i in range(count):
        found[i] = tally
        tally = tally.next
    qsort(found, count, sizeof(Tally*), order_names)
    text.data = out
    for i in range(count):
        if i:
            out[text.size] = c'\\'
            text.size += 1
        memcpy(out + text.size, found[i].name.data, found[i].name.size)
        text.size += found[i].name.size
    return text


cdef Text of_instance(const Layout* layout, const Instance* instance, int slot) noexcept nogil:
    cdef Instance rest = instance[0]
    cdef uint8_t code
    cdef Text text
    while next_attribute(&rest, &code, &text):
        if layout.level_of[code] == IMAGE and layout.slot_of[code] == slot:
            return text
    text.data = NULL
    text.size = 0
    return text


cdef Text text_of(const Layout* layout, Arena* arena, Rows* rows, const Column* column) noexcept nogil:
    """The value of a column, valid until the next call for a computed one."""
    cdef const void* data = rows.line.rows[column.level].mv_data
    cdef size_t size = rows.line.rows[column.level].mv_size
    cdef Node* node
    cdef Text nothing
    nothing.data = NULL
    nothing.size = 0
    if column.level == IMAGE:
        if rows.decoded[IMAGE] != data:
            if decode_instance(<const uint8_t*>data, size, &rows.instance) < 0:
                rows.failed = True
                return nothing
            rows.decoded[IMAGE] = data
        if column.what == OF_UID:
            return rows.instance.uid
        if column.what == OF_SYNTAX:
            return rows.instance.syntax
        return of_instance(layout, &rows.instance, column.what)
    node = &rows.nodes[column.level]
    if rows.decoded[column.level] != data:
        memset(node, 0, sizeof(Node))
        if decode_node(layout, arena, <const uint8_t*>data, size, column.level, node) < 0:
            rows.failed = True
            return nothing
        rows.decoded[column.level] = data
    if column.what >= 0:
        return node.values[column.what].text
    if column.what == OF_UID:
        return node.uid
    if column.what == OF_ISSUER:
        return node.issuer
    if column.what == OF_STUDIES:
        return counted(rows, node.studies)
    if column.what == OF_SERIES:
        return counted(rows, node.series)
    if column.what == OF_INSTANCES:
        return counted(rows, node.instances)
    return joined(arena, rows, node.modalities if column.what == OF_MODALITIES else node.classes)


# --- responses --------------------------------------------------------------------------------------------

cdef inline void put16(uint8_t* out, uint32_t value) noexcept nogil:
    out[0] = value & 0xFF
    out[1] = value >> 8 & 0xFF


cdef size_t binary(const Part* part, Text text, uint8_t* out) noexcept nogil:
    """Text, as `dataset` makes it, as binary numbers in little endian; `out` has room for 4 bytes a character."""
    cdef uint32_t step = width(part.kind)
    cdef char[32] digits
    cdef size_t start = 0, i, n = 0, length
    cdef uint64_t whole
    cdef double real
    cdef float single
    for i in range(text.size + 1):
        if i < text.size and text.data[i] != c'\\':
            continue
        length = i - start
        if 0 < length < 32:
            memcpy(digits, text.data + start, length)
            digits[length] = 0
            if part.kind == VR_FD or part.kind == VR_FL:
                real = strtod(digits, NULL)
                single = <float>real
                memcpy(out + n, <void*>&real if part.kind == VR_FD else <void*>&single, step)
            elif part.kind == VR_AT:
                whole = strtoull(digits, NULL, 16)
                put16(out + n, whole >> 16)
                put16(out + n + 2, whole)
            else:
                whole = strtoull(digits, NULL, 10)  # of a negative number its two's complement
                memcpy(out + n, &whole, step)
            n += step
        start = i + 1
    return n


cdef void put_part(Sink* sink, const Part* part, Text text, bint implicit) noexcept nogil:
    """One element; a value that its VR can't hold is left empty."""
    cdef bint numeric = VR_US <= part.kind < VR_OPAQUE
    cdef bint wide = not implicit and is_long(part.vr)
    cdef size_t header = 12 if wide else 8
    cdef size_t room = text.size * 4 + 8 if numeric else text.size + 1
    cdef uint8_t* out = grow(sink, header + room)
    cdef size_t size = 0
    if out == NULL:
        return
    put16(out, part.tag >> 16)
    put16(out + 2, part.tag)
    if numeric:
        size = binary(part, text, out + header)
    elif text.size < 0xFFFF:
        size = text.size
        if size:
            memcpy(out + header, text.data, size)
        if size & 1:
            out[header + size] = 0 if part.vr == LETTERS_UI else 0x20
            size += 1
    if not implicit:
        out[4] = part.vr >> 8
        out[5] = part.vr & 0xFF
    if implicit or wide:
        put32(out + header - 4, <uint32_t>size)
    else:
        put16(out + 6, size)
    if wide:
        put16(out + 6, 0)
    sink.size -= room - size


# --- items of sequences, as `dataset` makes them -----------------------------------------------------------

cdef bint next_item(Text* items, Text* item) noexcept nogil:
    """The next item; what is left into `items`."""
    if items.size < 8:
        return False
    item.data = items.data + 8
    item.size = min(<size_t>le32(items.data + 4), items.size - 8)
    items.data += 8 + item.size
    items.size -= 8 + item.size
    return True


cdef Text of_item(Text item, uint32_t tag) noexcept nogil:
    """The value of an attribute of an item, as it is padded; empty if it is not there."""
    cdef Text found
    while item.size >= 8:
        found.data = item.data + 8
        found.size = min(<size_t>le32(item.data + 4), item.size - 8)
        if (<uint32_t>le16(item.data) << 16 | le16(item.data + 2)) == tag:
            while found.size and found.data[found.size - 1] == 0x20:
                found.size -= 1
            return found
        item.data += 8 + found.size
        item.size -= 8 + found.size
    found.data = NULL
    found.size = 0
    return found


cdef void put_header(Sink* sink, uint32_t tag, bint explicit) noexcept nogil:
    """The header of an item, or of a sequence, whose length is still to come."""
    cdef uint8_t* out = grow(sink, 12 if explicit else 8)
    if out == NULL:
        return
    put16(out, tag >> 16)
    put16(out + 2, tag)
    if explicit:
        out[4], out[5], out[6], out[7] = c'S', c'Q', 0, 0


cdef void put_length(Sink* sink, size_t begin) noexcept nogil:
    """The length of what was written from `begin` on, in front of it."""
    if not sink.failed:
        put32(sink.data + begin - 4, <uint32_t>(sink.size - begin))


@cython.final
cdef class Sieve:
    """Keeps the ids of a level whose records match, and makes responses of them.

    Parameters
    ----------
    level : int
        0 patient to 3 image.
    tags : sequence of int, or of (int, int)
        The attribute that each test of the matcher is for, or date and time; all of this level or above.
    parts : sequence of (tag, VR, bytes or None or a tuple of (tag, VR))
        The elements of a response, ascending by tag: what they hold, or None for what the record has. Of a
        sequence the elements that its items are told with. Attributes below the level have no place here.
    sequences : sequence of (tag, tags)
        What the last tests of the matcher are for: attributes of the items of sequences. Of a sequence that
        is tested the items that match are told, of any other all (PS3.4 C.2.2.2.6).
    """

    cdef Schema schema
    cdef Matcher matcher
    cdef Arena arena
    cdef Column* columns
    cdef Column* times      # level -1 where a test is for one attribute
    cdef Part* parts
    cdef int part_count
    cdef int plain          # tests that are not of items
    cdef Group* groups
    cdef int group_count
    cdef int top            # the highest level that is needed
    cdef int level

    def __init__(self, Schema schema not None, int level, Matcher matcher not None, tags, parts, sequences=()):
        cdef list wanted = list(tags)
        cdef list elements = list(parts)
        cdef list nested = [(tag, tuple(inner)) for tag, inner in sequences]
        cdef Py_ssize_t i
        cdef bytes constant
        count = len(wanted) + sum(len(inner) for _, inner in nested)
        if self.columns != NULL or count != matcher.count or not 0 <= level < 4:
            raise ValueError("a sieve is made once, of one attribute for each test")
        self.schema = schema
        self.matcher = matcher
        self.level = self.top = level
        self.columns = <Column*>take(&self.arena, (len(wanted) + 1) * sizeof(Column))
        self.times = <Column*>take(&self.arena, (len(wanted) + 1) * sizeof(Column))
        self.parts = <Part*>take(&self.arena, (len(elements) + 1) * sizeof(Part))
        self.groups = <Group*>take(&self.arena, (len(nested) + 1) * sizeof(Group))
        if self.columns == NULL or self.times == NULL or self.parts == NULL or self.groups == NULL:
            raise MemoryError
        for i, tag in enumerate(wanted):
            date, time = tag if isinstance(tag, tuple) else (tag, None)
            self.place(date, &self.columns[i])
            self.times[i].level = -1
            if time is not None:
                self.place(time, &self.times[i])
        self.plain = <int>len(wanted)
        for tag, inner in nested:
            self.add_group(tag, inner)
        for i, (tag, vr, value) in enumerate(elements):
            self.parts[i].tag = tag
            self.parts[i].vr = letters_of(vr)
            self.parts[i].kind = kind_of(self.parts[i].vr)
            if self.parts[i].kind == VR_SQ and type(value) is tuple:
                self.add_items(&self.parts[i], tag, value)
                continue
            if self.parts[i].kind >= VR_OPAQUE:
                raise ValueError(f"{vr} has no place in a response")
            if value is None:
                self.place(tag, &self.parts[i].column)
                continue
            constant = value
            self.parts[i].constant = True
            self.parts[i].text.size = PyBytes_GET_SIZE(constant)
            self.parts[i].text.data = <const uint8_t*>keep(
                &self.arena, PyBytes_AS_STRING(constant), PyBytes_GET_SIZE(constant)
            )
        self.part_count = <int>len(elements)

    def __dealloc__(self):
        release(&self.arena)

    cdef int place(self, uint32_t tag, Column* column) except -1:
        if not find_column(&self.schema.layout, tag, column) or column.level > self.level:
            raise ValueError(f"no {tag:08X} at this level")
        self.top = min(self.top, column.level)
        return 0

    cdef int add_group(self, uint32_t tag, tuple inner) except -1:
        """Tests of items, which follow those of the group before."""
        cdef Group* group = &self.groups[self.group_count]
        cdef Py_ssize_t i
        group.tag = tag
        group.first = self.plain
        for i in range(self.group_count):
            group.first += self.groups[i].count
        group.count = <int>len(inner)
        group.tags = <uint32_t*>take(&self.arena, (len(inner) + 1) * sizeof(uint32_t))
        if group.tags == NULL:
            raise MemoryError
        for i in range(len(inner)):
            group.tags[i] = inner[i]
        self.place_items(tag, &group.column)
        self.group_count += 1
        return 0

    cdef int add_items(self, Part* part, uint32_t tag, tuple inner) except -1:
        """How the items of a sequence are told."""
        cdef Py_ssize_t i
        cdef int k
        self.place_items(tag, &part.column)
        part.parts = <Part*>take(&self.arena, (len(inner) + 1) * sizeof(Part))
        if part.parts == NULL:
            raise MemoryError
        part.part_count = <int>len(inner)
        for i in range(len(inner)):
            part.parts[i].tag, vr = inner[i]
            part.parts[i].vr = letters_of(vr)
            part.parts[i].kind = kind_of(part.parts[i].vr)
            if part.parts[i].kind >= VR_OPAQUE:
                raise ValueError(f"{vr} has no place in an item of a response")
        for k in range(self.group_count):
            if self.groups[k].tag == tag:
                part.group = &self.groups[k]
        return 0

    cdef int place_items(self, uint32_t tag, Column* column) except -1:
        self.place(tag, column)
        if column.what < 0 or not self.schema.layout.items[column.level][column.what]:
            raise ValueError(f"{tag:08X} has no items")
        return 0

    cdef bint passes_item(self, const Group* group, Text item) noexcept nogil:
        cdef int i
        for i in range(group.count):
            if not self.matcher.passes(group.first + i, of_item(item, group.tags[i]), False):
                return False
        return True

    cdef bint passes_items(self, const Group* group, Text items) noexcept nogil:
        cdef Text item
        while next_item(&items, &item):
            if self.passes_item(group, item):
                return True
        return False

    cdef void respond_items(self, Sink* sink, const Part* part, Text items, bint implicit, bint* plain) noexcept nogil:
        """Append a sequence, of the items that match."""
        cdef size_t start = sink.size, begin
        cdef Text item, text
        cdef int i
        put_header(sink, part.tag, not implicit)
        while next_item(&items, &item) and not sink.failed:
            if part.group != NULL and not self.passes_item(part.group, item):
                continue
            begin = sink.size
            put_header(sink, ITEM, False)
            for i in range(part.part_count):
                text = of_item(item, part.parts[i].tag)
                plain[0] = plain[0] and is_plain(text.data, text.size)
                put_part(sink, &part.parts[i], text, implicit)
            put_length(sink, begin + 8)
        put_length(sink, start + (8 if implicit else 12))

    cdef bint passes(self, Arena* arena, Rows* rows) noexcept nogil:
        cdef int i
        cdef const Column* column
        cdef bint is_uid
        cdef Text text, time
        for i in range(self.plain):
            column = &self.columns[i]
            text = text_of(&self.schema.layout, arena, rows, column)
            if self.times[i].level >= 0:
                time = text_of(&self.schema.layout, arena, rows, &self.times[i])
                if not self.matcher.passes_combined(i, text, time):
                    return False
                continue
            is_uid = column.what == OF_UID and column.level != PATIENT  # it is looked up as a whole
            if not self.matcher.passes(i, text, is_uid):
                return False
        for i in range(self.group_count):
            column = &self.groups[i].column
            if not self.passes_items(&self.groups[i], text_of(&self.schema.layout, arena, rows, column)):
                return False
        return not rows.failed

    cdef void respond(self, Arena* arena, Rows* rows, Sink* sink, bint implicit) noexcept nogil:
        """Append one response, in front of it the character set if it is not ASCII."""
        cdef size_t start = sink.size
        cdef size_t body
        cdef int i
        cdef Part part
        cdef Text text
        cdef bint plain = True
        part.tag = CHARACTER_SET
        part.vr = 0x4353
        part.kind = 1
        text.data = <const uint8_t*>b"ISO_IR 192"
        text.size = 10
        put_part(sink, &part, text, implicit)
        body = sink.size
        for i in range(self.part_count):
            if self.parts[i].constant:
                text = self.parts[i].text
            elif self.parts[i].kind == VR_SQ:
                text = text_of(&self.schema.layout, arena, rows, &self.parts[i].column)
                self.respond_items(sink, &self.parts[i], text, implicit, &plain)
                continue
            else:
                text = text_of(&self.schema.layout, arena, rows, &self.parts[i].column)
                plain = plain and is_plain(text.data, text.size)
            put_part(sink, &self.parts[i], text, implicit)
        if plain and not sink.failed:
            # All is moved over the character set, which says nothing then.
            memmove(sink.data + start, sink.data + body, sink.size - body)
            sink.size -= body - start

    def sift(self, Environment env not None, ids):
        """Those of some ids, in their order, that match."""
        cdef list wanted = list(ids)
        cdef Arena arena
        cdef Line* lines
        cdef Rows rows
        cdef Py_ssize_t i
        cdef list found = []
        arena.head = NULL
        memset(&rows, 0, sizeof(Rows))
        try:
            lines = fetch(env, self.schema, &arena, self.level, self.top, wanted)
            for i in range(len(wanted)):
                if lines[i].rows[self.level].mv_data == NULL:
                    continue
                rows.line = &lines[i]
                if self.passes(&arena, &rows):
                    found.append(wanted[i])
            if rows.failed:
                fail(MDB_CORRUPTED, "decode a record of the index")
            return found
        finally:
            release(&arena)

    def responses(self, Environment env not None, ids, bint implicit):
        """The responses to a query that the matching ones of some ids are, each a data set in little endian,
        (0008,0005) first if it is not ASCII."""
        cdef list wanted = list(ids)
        cdef Py_ssize_t count = len(wanted), i
        cdef Arena arena
        cdef Line* lines
        cdef Rows rows
        cdef Sink sink
        cdef size_t* ends
        cdef Py_ssize_t matched = 0
        cdef size_t start = 0
        arena.head = NULL
        memset(&rows, 0, sizeof(Rows))
        memset(&sink, 0, sizeof(Sink))
        try:
            lines = fetch(env, self.schema, &arena, self.level, self.top, wanted)
            ends = <size_t*>take(&arena, (count + 1) * sizeof(size_t))
            if ends == NULL:
                raise MemoryError
            with nogil:
                for i in range(count):
                    if lines[i].rows[self.level].mv_data == NULL:
                        continue
                    rows.line = &lines[i]
                    if not self.passes(&arena, &rows):
                        continue
                    self.respond(&arena, &rows, &sink, implicit)
                    ends[matched] = sink.size
                    matched += 1
            if sink.failed:
                raise MemoryError
            if rows.failed:
                fail(MDB_CORRUPTED, "decode a record of the index")
            found = []
            for i in range(matched):
                found.append(PyBytes_FromStringAndSize(<const char*>sink.data + start, ends[i] - start))
                start = ends[i]
            return found
        finally:
            free(sink.data)
            release(&arena)


# --- walks of the key table -------------------------------------------------------------------------------

def key_ids(
    Environment env not None, bytes start not None, bytes stop not None, *, bytes after=None, uint64_t after_id=0,
    Matcher matcher=None, int limit=1024, int keys=20000,
):
    """The ids under the keys from `start` up to, not with, `stop`: (ids, key, id), to be resumed `after` that
    key and id; key None at the end.

    A `matcher` decides by the patterns of its first test which keys count, as they are, normalised; one that
    was cut always does. No more than so many `keys` are looked at in a call: the ids may be none though the
    end is not reached.
    """
    cdef MDB_val at, value
    cdef MDB_txn* txn
    cdef MDB_cursor* cursor = NULL
    cdef Arena arena
    cdef uint64_t* ids
    cdef uint64_t id, following = after_id + 1
    cdef int code, found = 0, i, looked = 0
    cdef bytes begin = start if after is None else after
    cdef uint8_t[KEY_MAX] last
    cdef size_t last_size = 0
    cdef int passed
    cdef const char* first = begin
    cdef size_t first_size = len(begin)
    cdef const char* end = stop
    cdef size_t end_size = len(stop)
    cdef bint resumed = after is not None
    cdef bint more = False
    cdef uintptr_t page = 0
    arena.head = NULL
    if limit < 1 or keys < 1 or (matcher is not None and matcher.count == 0):
        raise ValueError("a limit of at least one id and one key, a matcher of at least one test")
    ids = <uint64_t*>take(&arena, limit * sizeof(uint64_t))
    if ids == NULL:
        raise MemoryError
    try:
        env.enter()
        txn = env.reader()
        with nogil:
            code = begin_read(env.env, &txn)
            if code == MDB_SUCCESS:
                code = mdb_cursor_open(txn, env.tables[TABLE_KEY], &cursor)
            if code == MDB_SUCCESS and resumed:
                at = view(first, first_size)
                value = number(&following)
                code = mdb_cursor_get(cursor, &at, &value, MDB_GET_BOTH_RANGE)
                if code == MDB_SUCCESS:
                    code = mdb_cursor_get(cursor, &at, &value, MDB_GET_CURRENT)     # the key as it lies in the map
                elif code == MDB_NOTFOUND:
                    # All of that key is behind us, or it has gone: on with the one after it.
                    at = view(first, first_size)
                    code = mdb_cursor_get(cursor, &at, &value, MDB_SET_RANGE)
                    if code == MDB_SUCCESS and at.mv_size == first_size and memcmp(at.mv_data, first, first_size) == 0:
                        code = mdb_cursor_get(cursor, &at, &value, MDB_NEXT_NODUP)
            elif code == MDB_SUCCESS:
                at = view(first, first_size)
                code = mdb_cursor_get(cursor, &at, &value, MDB_SET_RANGE)
            while code == MDB_SUCCESS:
                if matcher is not None:
                    fetch_page(at.mv_data, &page)
                if beyond(&at, end, end_size):
                    break
                if at.mv_size > KEY_MAX or value.mv_size != 8:
                    code = MDB_CORRUPTED
                    break
                if found == limit or looked == keys:
                    more = True
                    break
                if last_size != at.mv_size or memcmp(last, at.mv_data, last_size) != 0:
                    last_size = at.mv_size
                    memcpy(last, at.mv_data, last_size)
                    looked += 1
                    if matcher is not None and not counts(matcher, last, last_size):
                        following = ALL_IDS
                        passed = 0
                        if env.page_size <= READABLE:
                            passed = pass_over(matcher, &at, env.page_size, keys - looked)
                        if passed:
                            looked += passed
                            last_size = at.mv_size
                            memcpy(last, at.mv_data, last_size)
                            code = mdb_cursor_get(cursor, &at, &value, MDB_SET_RANGE)
                        if code == MDB_SUCCESS:
                            code = mdb_cursor_get(cursor, &at, &value, MDB_NEXT_NODUP)
                        continue
                memcpy(&following, value.mv_data, 8)
                ids[found] = following
                found += 1
                code = mdb_cursor_get(cursor, &at, &value, MDB_NEXT)
            if cursor != NULL:
                mdb_cursor_close(cursor)
        env.rest(txn)
        env.leave()
        if code != MDB_SUCCESS and code != MDB_NOTFOUND:
            fail(code, f"read index {env.path}")
        place = (<const char*>last)[:last_size] if more else None
        return [ids[i] for i in range(found)], place, following
    finally:
        release(&arena)


cdef extern from *:
    void prefetch "__builtin_prefetch" (const void* at) nogil

cdef enum:
    PAGE = 4096
    CACHE_LINE = 64


cdef inline void fetch_page(const void* key, uintptr_t* page) noexcept nogil:
    """Have the page of a key read ahead, once: its keys lie there in no order that a processor sees through."""
    cdef uintptr_t base = <uintptr_t>key & ~<uintptr_t>(PAGE - 1)
    cdef int i
    if base != page[0]:
        page[0] = base
        for i in range(PAGE // CACHE_LINE):
            prefetch(<const void*>(base + i * CACHE_LINE))


cdef inline bint counts(Matcher matcher, const uint8_t* key, size_t size) noexcept nogil:
    """Whether a key is one that a matcher likes; one that was cut always is."""
    cdef Text text
    if size >= KEY_MAX:
        return True
    text.data = key + 2
    text.size = size - 2 if size > 2 else 0
    return matcher.likes(text)


cdef int pass_over(Matcher matcher, MDB_val* key, size_t page_size, int most) noexcept nogil:
    """Go on from a key to the last one, of those that follow it in its page, before one that counts; over how many."""
    cdef Siblings rest
    cdef MDB_val found
    cdef int passed = 0
    if not siblings(key, page_size, &rest):
        return 0
    while passed < most and next_sibling(&rest, &found):
        if counts(matcher, <const uint8_t*>found.mv_data, found.mv_size):
            break
        key[0] = found
        passed += 1
    return passed


cdef inline bint beyond(const MDB_val* key, const char* end, size_t end_size) noexcept nogil:
    cdef int order = memcmp(key.mv_data, end, min(key.mv_size, end_size))
    return order > 0 or (order == 0 and key.mv_size >= end_size)
