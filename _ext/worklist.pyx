# cython: auto_pickle=False
"""Queries on the worklist: walks of its keys; which steps match, and the responses that they make.

The record of a step is told in `workflow.step`. Each call is one snapshot and gives the GIL up.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memmove, memset

from pacs_core._ext.arena cimport Arena, release, take
from pacs_core._ext.cursor cimport Cursor, be64, cursor_over, le16, le32, le64, left, take as bytes_of, take_part
from pacs_core._ext.digits cimport put32, put_hex, put_signed, put_unsigned, width
from pacs_core._ext.keys cimport Text
from pacs_core._ext.kv cimport (
    MDB_CORRUPTED, MDB_FIRST, MDB_NEXT, MDB_NOTFOUND, MDB_SET_RANGE, MDB_SUCCESS, Environment, MDB_cursor, MDB_dbi, MDB_txn,
    MDB_val, begin_read, fail, mdb_cursor_close, mdb_cursor_get, mdb_cursor_open, mdb_get, view,
)
from pacs_core._ext.match cimport Matcher
from pacs_core._ext.sink cimport Sink, grow
from pacs_core._ext.text cimport is_plain
from pacs_core._ext.values cimport is_long, letters_of
from pacs_core._ext.vr cimport (
    VR_AT, VR_FD, VR_FL, VR_KIND, VR_LONG, VR_OPAQUE, VR_PROSE, VR_NAME, VR_SQ, VR_SS, VR_SV, VR_SL, VR_TEXT,
    VR_UNLIMITED, VR_US, vr_kind,
)

cdef enum:
    RECORD_VERSION = 1
    RECORD_HEAD = 2
    CHARACTER_SET = 0x00080005
    STEP_SEQUENCE = 0x00400100
    START_DATE = 0x00400002
    START_TIME = 0x00400003
    ITEM = 0xFFFEE000
    LONGEST_KEY = 511
    LONGEST_NUMBER = 32     # of a number as text
    LONGEST_NUMBERS = 1024  # of several
    LOOKED_AT = 4096        # steps that one call looks at, at most
    COMPARED = 1 << 20      # values and attributes that one call looks for in them, all together
    LARGEST = 1 << 20       # bytes of responses after which a call ends


cdef struct Element:
    uint32_t tag
    uint16_t vr             # its two letters
    uint8_t kind
    Text value
    const uint8_t* head


cdef struct Wanted:         # an attribute that is asked for
    uint32_t tag
    uint16_t vr             # in a response, where the step does not have it
    uint8_t kind
    int test                # the first of its tests
    int tests
    bint asked              # of a sequence: an item has to match
    int first               # of a sequence: what is asked for in its items
    int count               # 0: all that is there


cdef struct Answer:
    Sink sink
    bint implicit
    bint plain              # no text in it needs a character set
    bint torn               # a record that breaks off


cdef inline bint next_element(Cursor* cursor, Element* element) noexcept nogil:
    """The next element of a data set in explicit VR little endian, of defined length."""
    cdef const uint8_t* head
    cdef uint32_t size
    if left(cursor) == 0:
        return False
    head = bytes_of(cursor, 8)
    if head == NULL:
        return False
    element.head = head
    element.tag = <uint32_t>le16(head) << 16 | le16(head + 2)
    element.vr = head[4] << 8 | head[5]
    element.kind = vr_kind(head + 4)
    size = le16(head + 6)
    if element.kind & VR_LONG:
        head = bytes_of(cursor, 4)
        size = 0 if head == NULL else le32(head)
    element.kind &= VR_KIND
    element.value.data = bytes_of(cursor, size)
    element.value.size = size
    return not cursor.torn


cdef inline bint next_item(Cursor* cursor, Cursor* item) noexcept nogil:
    cdef const uint8_t* head
    if left(cursor) == 0:
        return False
    head = bytes_of(cursor, 8)
    if head == NULL or (<uint32_t>le16(head) << 16 | le16(head + 2)) != <uint32_t>ITEM:
        cursor.torn = True
        return False
    item[0] = take_part(cursor, le32(head + 4))
    return not cursor.torn


# --- matching ---------------------------------------------------------------------------------------------

cdef Text numbers(const Element* element, uint8_t* out) noexcept nogil:
    """Binary values as text; `out` has room for LONGEST_NUMBERS, which is where they end."""
    cdef uint32_t step = 4 if element.kind == VR_AT else width(element.kind)
    cdef const uint8_t* at = element.value.data
    cdef size_t i, n = 0
    cdef float single
    cdef double real
    cdef uint32_t bits
    cdef uint64_t longer
    cdef Text text
    for i in range(element.value.size // step):
        if n + LONGEST_NUMBER + 1 > LONGEST_NUMBERS:
            break
        if i:
            out[n] = c'\\'
            n += 1
        if element.kind == VR_AT:
            n += put_hex(out + n, <uint32_t>le16(at) << 16 | le16(at + 2))
        elif element.kind == VR_FL:
            bits = le32(at)
            memcpy(&single, &bits, 4)
            n += snprintf(<char*>out + n, LONGEST_NUMBER, "%.9g", <double>single)
        elif element.kind == VR_FD:
            longer = le64(at)
            memcpy(&real, &longer, 8)
            n += snprintf(<char*>out + n, LONGEST_NUMBER, "%.17g", real)
        elif element.kind == VR_SS:
            n += put_signed(out + n, <int16_t>le16(at))
        elif element.kind == VR_SL:
            n += put_signed(out + n, <int32_t>le32(at))
        elif element.kind == VR_SV:
            n += put_signed(out + n, <int64_t>le64(at))
        else:
            n += put_unsigned(out + n, le16(at) if step == 2 else le32(at) if step == 4 else le64(at))
        at += step
    text.data = out
    text.size = n
    return text


@cython.final
cdef class Selector:
    """Keeps the steps that match, and makes responses of them.

    Parameters
    ----------
    parts : sequence of (tag, VR, tests, parts)
        What is asked for, ascending by tag: the tests, as `Matcher` has them, that a value has to pass; of a
        sequence what is asked for in its items, in the same way: nothing if it is to be told as it is.
    start : (first, last) or None
        The range of dates and times (DT) in which a step has to start.
    finished : bool
        Also those of which nothing is left to do.
    """

    cdef Matcher matcher
    cdef Arena arena
    cdef Wanted* wanted
    cdef int count
    cdef int start          # the test of the start, -1 without one
    cdef int most           # steps that one call looks at
    cdef bint finished

    def __init__(self, parts, start, *, bint finished):
        cdef list flat = []
        cdef list tests = []
        cdef Py_ssize_t i
        if self.wanted != NULL:
            raise TypeError("a selector is made once")
        self.count = self.flatten(list(parts), flat, tests)
        self.wanted = <Wanted*>take(&self.arena, (len(flat) + 1) * sizeof(Wanted))
        if self.wanted == NULL:
            raise MemoryError
        for i, (tag, vr, test, count, asked, first, below) in enumerate(flat):
            self.wanted[i].tag = tag
            self.wanted[i].vr = letters_of(vr)
            self.wanted[i].kind = vr_kind(<const uint8_t*>PyBytes_AS_STRING(vr.encode("ascii")))
            self.wanted[i].test = test
            self.wanted[i].tests = count
            self.wanted[i].asked = asked
            self.wanted[i].first = first
            self.wanted[i].count = below
        self.start = -1
        if start is not None:
            self.start = <int>len(tests)
            tests.append(("DT", "range", start))
        self.matcher = Matcher(tests)
        self.finished = finished
        # A call can't be broken off: whoever asks for much waits less for each.
        self.most = max(1, min(LOOKED_AT, COMPARED // (1 + len(flat) + sum(len(values) for _, _, values in tests))))

    def __dealloc__(self):
        release(&self.arena)

    cdef int flatten(self, list parts, list flat, list tests) except -1:
        """Put the attributes of one data set side by side, behind them those of its sequences."""
        cdef Py_ssize_t at = len(flat), i, before
        flat.extend([None] * len(parts))
        for i, (tag, vr, own, below) in enumerate(parts):
            test = len(tests)
            tests.extend(own)
            first, before = len(flat), len(tests)
            count = self.flatten(list(below), flat, tests)
            flat[at + i] = (tag, vr, test, len(own), len(tests) > before, first, count)
        return <int>len(parts)

    cdef bint fits(self, const Wanted* wanted, const Element* element, bint* torn) noexcept nogil:
        """Whether an element is what is asked for; one without a value for one that is not there."""
        cdef uint8_t[LONGEST_NUMBERS] digits
        cdef Text value = element.value
        cdef int i
        if wanted.asked:
            return element.kind == VR_SQ and self.any_fits(wanted, element, torn)
        if wanted.tests and VR_US <= element.kind < VR_OPAQUE:
            value = numbers(element, digits)
        for i in range(wanted.tests):
            if not self.matcher.passes(wanted.test + i, value, False):
                return False
        return True

    cdef bint any_fits(self, const Wanted* wanted, const Element* element, bint* torn) noexcept nogil:
        cdef Cursor items = cursor_over(element.value.data, element.value.size)
        cdef Cursor item
        while next_item(&items, &item):
            if self.matches(item, wanted.first, wanted.count, wanted.tag == STEP_SEQUENCE, torn):
                return True
        torn[0] = torn[0] or items.torn
        return False

    cdef bint matches(self, Cursor cursor, int first, int count, bint step, bint* torn) noexcept nogil:
        """Whether a data set is what is asked for."""
        cdef int i = first
        cdef int end = first + count
        cdef Element element
        cdef Element nothing
        cdef uint8_t[64] clock
        cdef Text moment
        step = step and self.start >= 0
        moment.data = clock
        moment.size = 0
        memset(&nothing, 0, sizeof(Element))
        while (i < end or step) and next_element(&cursor, &element):
            while i < end and self.wanted[i].tag < element.tag:
                if not self.fits(&self.wanted[i], &nothing, torn):
                    return False
                i += 1
            if i < end and self.wanted[i].tag == element.tag:
                if not self.fits(&self.wanted[i], &element, torn):
                    return False
                i += 1
            if step and (element.tag == START_DATE or element.tag == START_TIME):
                while element.value.size and element.value.data[element.value.size - 1] == c' ':
                    element.value.size -= 1
                if moment.size + element.value.size <= sizeof(clock):
                    memcpy(clock + moment.size, element.value.data, element.value.size)
                    moment.size += element.value.size
        torn[0] = torn[0] or cursor.torn
        while i < end:
            if not self.fits(&self.wanted[i], &nothing, torn):
                return False
            i += 1
        return not step or self.matcher.passes(self.start, moment, True)

    # --- responses ----------------------------------------------------------------------------------------

    cdef void respond(self, Answer* answer, Cursor cursor, int first, int count) noexcept nogil:
        """Append what is asked for of a data set; without a value what it does not have."""
        cdef int i = first
        cdef int end = first + count
        cdef Element element
        while i < end and next_element(&cursor, &element):
            while i < end and self.wanted[i].tag < element.tag:
                put_empty(answer, &self.wanted[i])
                i += 1
            if i < end and self.wanted[i].tag == element.tag:
                self.put(answer, &element, self.wanted[i].first, self.wanted[i].count)
                i += 1
        answer.torn = answer.torn or cursor.torn
        while i < end:
            put_empty(answer, &self.wanted[i])
            i += 1

    cdef void put(self, Answer* answer, const Element* element, int first, int count) noexcept nogil:
        cdef size_t size = element.value.size
        cdef uint8_t* out
        if element.kind == VR_SQ:
            self.put_items(answer, element, first, count)
            return
        if answer.implicit:
            out = put_head(answer, element.tag, element.vr, element.kind, size, size)
            if out == NULL or size == 0:
                return
            memcpy(out, element.value.data, size)
        else:
            # As it is kept, its head with it.
            out = grow(&answer.sink, element.value.data + size - element.head)
            if out == NULL:
                return
            memcpy(out, element.head, element.value.data + size - element.head)
            out += element.value.data - element.head
        if VR_TEXT <= element.kind <= VR_PROSE or element.kind == VR_UNLIMITED:
            answer.plain = answer.plain and is_plain(out, size)

    cdef void put_items(self, Answer* answer, const Element* element, int first, int count) noexcept nogil:
        cdef Cursor items = cursor_over(element.value.data, element.value.size)
        cdef Cursor item
        cdef Element inner
        cdef size_t begin, start
        cdef uint8_t* out
        if put_head(answer, element.tag, element.vr, element.kind, 0, 0) == NULL:
            return
        begin = answer.sink.size
        while next_item(&items, &item):
            out = grow(&answer.sink, 8)
            if out == NULL:
                return
            put_tag(out, ITEM)
            start = answer.sink.size
            if count:
                self.respond(answer, item, first, count)
            else:
                while next_element(&item, &inner):
                    self.put(answer, &inner, 0, 0)
                answer.torn = answer.torn or item.torn
            if answer.sink.failed:
                return
            put32(answer.sink.data + start - 4, <uint32_t>(answer.sink.size - start))
        answer.torn = answer.torn or items.torn
        put32(answer.sink.data + begin - 4, <uint32_t>(answer.sink.size - begin))

    cdef void respond_all(self, Answer* answer, Cursor cursor) noexcept nogil:
        """Append one response, in front of it the character set if it needs one."""
        cdef size_t start = answer.sink.size, body
        cdef uint8_t* out = put_head(answer, CHARACTER_SET, 0x4353, 0, 10, 10)
        if out == NULL:
            return
        memcpy(out, b"ISO_IR 192", 10)
        body = answer.sink.size
        answer.plain = True
        self.respond(answer, cursor, 0, self.count)
        if answer.plain and not answer.sink.failed:
            # All is moved over the character set, which says nothing then.
            memmove(answer.sink.data + start, answer.sink.data + body, answer.sink.size - body)
            answer.sink.size -= body - start

    def select(
        self, Environment env not None, int steps, int keys, bytes start not None, bytes stop not None, *,
        bytes after=None, bint implicit=False, bint whole=False, int limit=512,
    ):
        """The matching steps under the keys from `start` up to, not with, `stop`: (numbers, responses, key),
        to be resumed `after` that key, None at the end. They may be none though the end is not reached.

        Parameters
        ----------
        steps, keys : int
            The table of records, and that of keys under which their places stand: it may be the same.
        whole : bool
            The records' data sets instead of responses.
        limit : int
            Of responses.
        """
        cdef MDB_dbi records = env.table(steps)
        cdef MDB_dbi places = env.table(keys)
        cdef MDB_txn* txn
        cdef MDB_cursor* cursor = NULL
        cdef MDB_val key, place, record
        cdef Arena arena
        cdef Answer answer
        cdef Cursor body
        cdef uint64_t* found
        cdef size_t* ends
        cdef int matched = 0, looked = 0, code
        cdef uint8_t[LONGEST_KEY] last
        cdef size_t last_size = 0, at = 0
        cdef bint resumed = after is not None, more = False
        cdef bytes begin = after if resumed else start
        cdef const char* first = begin
        cdef size_t first_size = len(begin)
        cdef const char* end = stop
        cdef size_t end_size = len(stop)
        cdef uint8_t* out
        if limit < 1:
            raise ValueError("a limit of at least one step")
        arena.head = NULL
        memset(&answer, 0, sizeof(Answer))
        answer.implicit = implicit
        found = <uint64_t*>take(&arena, limit * sizeof(uint64_t))
        ends = <size_t*>take(&arena, limit * sizeof(size_t))
        try:
            if found == NULL or ends == NULL:
                raise MemoryError
            env.enter()
            txn = env.reader()
            with nogil:
                code = begin_read(env.env, &txn)
                if code == MDB_SUCCESS:
                    code = mdb_cursor_open(txn, places, &cursor)
                if code == MDB_SUCCESS:
                    key = view(first, first_size)
                    code = mdb_cursor_get(cursor, &key, &place, MDB_SET_RANGE if first_size else MDB_FIRST)
                    if code == MDB_SUCCESS and resumed and same(&key, first, first_size):
                        code = mdb_cursor_get(cursor, &key, &place, MDB_NEXT)
                while code == MDB_SUCCESS and before(&key, end, end_size):
                    if matched == limit or looked == self.most or answer.sink.size >= LARGEST:
                        more = True
                        break
                    looked += 1
                    record = place
                    if records == places:
                        place = key
                    else:
                        code = mdb_get(txn, records, &place, &record)
                        if code == MDB_NOTFOUND:
                            code = MDB_CORRUPTED  # a key without its record
                        if code != MDB_SUCCESS:
                            break
                    if key.mv_size > LONGEST_KEY or place.mv_size < 8:
                        code = MDB_CORRUPTED
                        break
                    last_size = key.mv_size
                    memcpy(last, key.mv_data, last_size)
                    body = cursor_over(<const uint8_t*>record.mv_data, record.mv_size)
                    out = <uint8_t*>bytes_of(&body, RECORD_HEAD)
                    if out == NULL or out[0] != RECORD_VERSION:
                        code = MDB_CORRUPTED
                        break
                    if (self.finished or not out[1]) and self.matches(body, 0, self.count, False, &answer.torn):
                        if not whole:
                            self.respond_all(&answer, body)
                        else:
                            out = grow(&answer.sink, left(&body))
                            if out != NULL:
                                memcpy(out, body.at, left(&body))
                        found[matched] = be64(<const uint8_t*>place.mv_data + place.mv_size - 8)
                        ends[matched] = answer.sink.size
                        matched += 1
                    if answer.sink.failed or answer.torn:
                        break
                    code = mdb_cursor_get(cursor, &key, &place, MDB_NEXT)
                if cursor != NULL:
                    mdb_cursor_close(cursor)
            env.rest(txn)
            env.leave()
            if answer.sink.failed:
                raise MemoryError
            if answer.torn:
                code = MDB_CORRUPTED
            if code != MDB_SUCCESS and code != MDB_NOTFOUND:
                fail(code, f"read the worklist in {env.path}")
            responses = []
            for i in range(matched):
                responses.append(PyBytes_FromStringAndSize(<const char*>answer.sink.data + at, ends[i] - at))
                at = ends[i]
            return [found[i] for i in range(matched)], responses, (<const char*>last)[:last_size] if more else None
        finally:
            free(answer.sink.data)
            release(&arena)


cdef inline void put_tag(uint8_t* out, uint32_t tag) noexcept nogil:
    out[0] = tag >> 16 & 0xFF
    out[1] = tag >> 24
    out[2] = tag & 0xFF
    out[3] = tag >> 8 & 0xFF


cdef inline uint8_t* put_head(
    Answer* answer, uint32_t tag, uint16_t vr, uint8_t kind, uint32_t size, size_t room
) noexcept nogil:
    """The head of an element; what `room` is behind it, NULL without memory. Lengths come last in it."""
    cdef bint longer = kind >= VR_OPAQUE or is_long(vr)
    cdef size_t head = 12 if longer and not answer.implicit else 8
    cdef uint8_t* out = grow(&answer.sink, head + room)
    if out == NULL:
        return NULL
    put_tag(out, tag)
    if answer.implicit:
        put32(out + 4, size)
        return out + head
    out[4] = vr >> 8
    out[5] = vr & 0xFF
    out[6] = size & 0xFF
    out[7] = size >> 8 & 0xFF
    if longer:
        out[6] = out[7] = 0
        put32(out + 8, size)
    return out + head


cdef inline void put_empty(Answer* answer, const Wanted* wanted) noexcept nogil:
    put_head(answer, wanted.tag, wanted.vr, wanted.kind & VR_KIND, 0, 0)


# --- walks ------------------------------------------------------------------------------------------------

cdef inline bint same(const MDB_val* key, const char* text, size_t size) noexcept nogil:
    return key.mv_size == size and memcmp(key.mv_data, text, size) == 0


cdef inline bint before(const MDB_val* key, const char* end, size_t end_size) noexcept nogil:
    cdef int order = memcmp(key.mv_data, end, min(key.mv_size, end_size))
    return order < 0 or (order == 0 and key.mv_size < end_size)


def count(Environment env not None, int table, bytes start not None, bytes stop not None, int most):
    """How many keys there are from `start` up to, not with, `stop`; no more than `most` are counted."""
    cdef MDB_dbi dbi = env.table(table)
    cdef MDB_txn* txn
    cdef MDB_cursor* cursor = NULL
    cdef MDB_val key, value
    cdef int code, found = 0
    cdef const char* first = start
    cdef size_t first_size = len(start)
    cdef const char* end = stop
    cdef size_t end_size = len(stop)
    env.enter()
    txn = env.reader()
    with nogil:
        code = begin_read(env.env, &txn)
        if code == MDB_SUCCESS:
            code = mdb_cursor_open(txn, dbi, &cursor)
        if code == MDB_SUCCESS:
            key = view(first, first_size)
            code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE if first_size else MDB_FIRST)
        while code == MDB_SUCCESS and found < most and before(&key, end, end_size):
            found += 1
            code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
        if cursor != NULL:
            mdb_cursor_close(cursor)
    env.rest(txn)
    env.leave()
    if code != MDB_SUCCESS and code != MDB_NOTFOUND:
        fail(code, f"read the worklist in {env.path}")
    return found
