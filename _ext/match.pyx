# cython: auto_pickle=False
"""The matcher of queries: compiled once, decides without the GIL. `dicom.query` says what each rule means."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport strtod
from libc.string cimport memchr, memcmp, memcpy

from pacs_core._ext.arena cimport Arena, keep, release, take
from pacs_core._ext.keys cimport KEY_DATE, KEY_NAME, Out, Text, normal, trimmed

FORMS = {
    "PN": FORM_NAME, "DA": FORM_DATE, "TM": FORM_TIME, "DT": FORM_MOMENT,
    **dict.fromkeys(("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"), FORM_NUMBER),
}
MATCHINGS = {"values": MATCH_VALUES, "wildcard": MATCH_WILDCARD, "range": MATCH_RANGE, "empty": MATCH_EMPTY}

cdef enum:
    GROUPS = 3


# --- wildcards --------------------------------------------------------------------------------------------

cdef inline size_t character(Text text, size_t at) noexcept nogil:
    """The size of the UTF-8 character at a place; 1 of what is none."""
    cdef size_t n = 1
    while at + n < text.size and text.data[at + n] & 0xC0 == 0x80 and n < 4:
        n += 1
    return n


cdef bint wild(Text pattern, Text text) noexcept nogil:
    """Whether a text is what a pattern says: '*' any characters, '?' exactly one."""
    cdef size_t p = 0, t = 0
    cdef size_t star = 0, resume = 0
    cdef bint starred = False
    while t < text.size:
        if p < pattern.size and pattern.data[p] == c'*':
            starred = True
            p += 1
            star = p
            resume = t
        elif p < pattern.size and pattern.data[p] == c'?':
            p += 1
            t += character(text, t)
        elif p < pattern.size and pattern.data[p] == text.data[t]:
            p += 1
            t += 1
        elif starred:
            p = star
            resume += character(text, resume)
            t = resume
        else:
            return False
    while p < pattern.size and pattern.data[p] == c'*':
        p += 1
    return p == pattern.size


cdef inline bint same(Text a, Text b) noexcept nogil:
    return a.size == b.size and memcmp(a.data, b.data, a.size) == 0


cdef inline bint has(Text text, uint8_t byte) noexcept nogil:
    return text.size != 0 and memchr(text.data, byte, text.size) != NULL


# --- names ------------------------------------------------------------------------------------------------

cdef bint group_matches(const Operand* operand, bint pattern, Text group) noexcept nogil:
    """Whether one component group of a name is what an operand says."""
    cdef uint8_t[LONGEST_NAME + 4] buffer
    cdef Out out
    cdef Text found
    cdef size_t carets = 0, i
    out.data = buffer
    out.size = 0
    out.room = LONGEST_NAME
    normal(KEY_NAME, group, &out)
    found.data = buffer
    found.size = out.size
    if not pattern:
        return same(operand.text, found)
    if found.size == 0:
        return False
    if wild(operand.text, found):
        return True
    # DOE^* is DOE, too: components at the end may be left out.
    for i in range(found.size):
        carets += buffer[i] == c'^'
    while carets < 4:
        buffer[found.size] = c'^'
        found.size += 1
        carets += 1
    return has(operand.text, c'^') and wild(operand.text, found)


cdef bint name_matches(const Operand* operand, bint pattern, Text value) noexcept nogil:
    cdef size_t start = 0, i
    cdef int group = 0
    cdef Text part
    for i in range(value.size + 1):
        if i < value.size and not (value.data[i] == c'=' and group < GROUPS - 1):
            continue
        part.data = value.data + start
        part.size = i - start
        if (operand.group < 0 or operand.group == group) and group_matches(operand, pattern, part):
            return True
        start = i + 1
        group += 1
    return False


# --- dates and times --------------------------------------------------------------------------------------

cdef inline bint digit(uint8_t c) noexcept nogil:
    return c'0' <= c <= c'9'


cdef Text plain_time(Text text, uint8_t* buffer) noexcept nogil:
    """A time without colons, of at least six digits, its fraction without zeros at the end; empty if it is none."""
    cdef Text found
    cdef size_t i, n = 0, whole
    found.data = buffer
    found.size = 0
    for i in range(text.size):
        if text.data[i] == c':':
            continue
        if n == LONGEST_TIME - 2 or not (digit(text.data[i]) or text.data[i] == c'.'):
            return found
        buffer[n] = text.data[i]
        n += 1
    whole = 0
    while whole < n and digit(buffer[whole]):
        whole += 1
    if whole < 2 or whole > 6 or whole & 1 or (whole < n and whole != 6):
        return found
    if whole == n:
        while n < 6:
            buffer[n] = c'0'
            n += 1
    else:
        while buffer[n - 1] == c'0':
            n -= 1
        if buffer[n - 1] == c'.':
            n -= 1
    found.size = n
    return found


cdef int compare(Text a, Text b) noexcept nogil:
    cdef int order = memcmp(a.data, b.data, min(a.size, b.size))
    return order if order else (a.size > b.size) - (a.size < b.size)


cdef inline int compare_prefix(Text value, Text end) noexcept nogil:
    """A value against the end of a range, as far as that says anything."""
    return memcmp(value.data, end.data, min(value.size, end.size)) or (-1 if value.size < end.size else 0)


cdef inline int64_t two(const uint8_t* p) noexcept nogil:
    return (p[0] - 48) * 10 + p[1] - 48


cdef inline int64_t days(int64_t year, int64_t month, int64_t day) noexcept nogil:
    """Days since 0000-03-01, of the calendar that is in force for ever."""
    if month <= 2:
        year -= 1
        month += 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 1


cdef bint moment_of(Text text, bint latest, bint with_offset, int64_t* moment) noexcept nogil:
    """The first or the last microsecond that a DT denotes, in UTC if its offset is to count."""
    cdef size_t n = 0, i, end
    cdef int64_t fraction = 0, unit, offset = 0
    cdef int64_t[6] part
    cdef int64_t span
    cdef int64_t second = 1000000  # in microseconds
    part[0], part[1], part[2], part[3], part[4], part[5] = 0, 1, 1, 0, 0, 0
    while n < text.size and digit(text.data[n]):
        n += 1
    if n < 4 or n > 14 or n & 1:
        return False
    part[0] = two(text.data) * 100 + two(text.data + 2)
    for i in range((n - 4) // 2):
        part[i + 1] = two(text.data + 4 + 2 * i)
    end = n
    unit = second
    if n == 14 and n < text.size and text.data[n] == c'.':
        end = n + 1
        while end < text.size and digit(text.data[end]) and unit > 1:
            unit //= 10
            fraction += unit * (text.data[end] - 48)
            end += 1
    if part[1] < 1 or part[1] > 12 or part[2] < 1 or part[2] > 31 or part[3] > 23 or part[4] > 59 or part[5] > 60:
        return False
    if text.size - end == 5 and (text.data[end] == c'+' or text.data[end] == c'-'):
        for i in range(1, 5):
            if not digit(text.data[end + i]):
                return False
        offset = two(text.data + end + 1) * 60 + two(text.data + end + 3)
        if text.data[end] == c'-':
            offset = -offset
    elif text.size != end:
        return False
    moment[0] = (((days(part[0], part[1], part[2]) * 24 + part[3]) * 60 + part[4]) * 60 + part[5]) * second + fraction
    if latest:
        if n == 4:
            span = days(part[0] + 1, 1, 1) - days(part[0], 1, 1)
            span *= 86400 * second
        elif n == 6:
            span = days(part[0] + part[1] // 12, part[1] % 12 + 1, 1) - days(part[0], part[1], 1)
            span *= 86400 * second
        elif n == 8:
            span = 86400 * second
        elif n == 10:
            span = 3600 * second
        elif n == 12:
            span = 60 * second
        else:
            span = unit
        moment[0] += span - 1
    if with_offset:
        moment[0] -= offset * 60 * second
    return True


# --- one value --------------------------------------------------------------------------------------------

cdef bint number_of(Text text, double* value) noexcept nogil:
    cdef char[64] buffer
    cdef char* end
    if text.size == 0 or text.size >= 64:
        return False
    memcpy(buffer, text.data, text.size)
    buffer[text.size] = 0
    value[0] = strtod(buffer, &end)
    return end == buffer + text.size


cdef bint in_range(const Test* test, Text value) noexcept nogil:
    cdef const Operand* first = test.operands
    cdef const Operand* last = test.operands + 1
    cdef uint8_t[LONGEST_TIME] buffer
    cdef Out out
    cdef Text found
    cdef int64_t early, late
    if test.form == FORM_MOMENT:
        if not moment_of(value, False, test.offset, &early) or not moment_of(value, True, test.offset, &late):
            return False
        return late >= first.moment and early <= last.until
    if test.form == FORM_TIME:
        found = plain_time(value, buffer)
        if found.size == 0:
            return False
    else:
        out.data = buffer
        out.size = 0
        out.room = LONGEST_TIME
        normal(KEY_DATE, value, &out)
        found.data = buffer
        found.size = out.size
        if found.size == 0 or not digit(buffer[0]):
            return False
    if first.text.size and compare_prefix(found, first.text) < 0:
        return False
    return last.text.size == 0 or compare_prefix(found, last.text) <= 0


cdef bint one_matches(const Test* test, const Operand* operand, Text value) noexcept nogil:
    """Whether one value of an attribute is what one operand says."""
    cdef uint8_t[LONGEST_TIME] buffer
    cdef Out out
    cdef Text found
    cdef double number
    cdef int64_t early, late
    if test.form == FORM_NAME:
        return name_matches(operand, test.matching == MATCH_WILDCARD, value)
    if test.form == FORM_NUMBER and operand.number:
        return number_of(value, &number) and number == operand.value
    if test.form == FORM_DATE and value.size == 10:
        out.data = buffer
        out.size = 0
        out.room = LONGEST_TIME
        normal(KEY_DATE, value, &out)
        found.data = buffer
        found.size = out.size
        return same(operand.text, found)
    if test.form == FORM_TIME:
        found = plain_time(value, buffer)
        return found.size != 0 and same(operand.text, found)
    if test.form == FORM_MOMENT and operand.number:
        return (
            moment_of(value, False, test.offset, &early) and moment_of(value, True, test.offset, &late)
            and early == operand.moment and late == operand.until
        )
    if test.matching == MATCH_WILDCARD:
        return wild(operand.text, value)
    return same(operand.text, value)


cdef bint value_matches(const Test* test, Text value) noexcept nogil:
    cdef int at = 0, which = 0, i
    cdef bint all_match
    if test.matching == MATCH_RANGE:
        return in_range(test, value)
    while at < test.count:
        all_match = True
        for i in range(test.values[which]):
            all_match = all_match and one_matches(test, &test.operands[at + i], value)
        if all_match:
            return True
        at += test.values[which]
        which += 1
    return False


cdef bint fits(const Test* test, Text value) noexcept nogil:
    """Whether an attribute matches: one of its values does."""
    cdef size_t start = 0, i
    cdef Text part
    if test.matching == MATCH_EMPTY:
        return trimmed(value.data, value.size).size == 0
    for i in range(value.size + 1):
        if i < value.size and value.data[i] != c'\\':
            continue
        part = trimmed(value.data + start, i - start)
        if part.size and value_matches(test, part):
            return True
        start = i + 1
    return False


# --- compiling --------------------------------------------------------------------------------------------

@cython.final
cdef class Matcher:
    """Tests for attribute values as text.

    Parameters
    ----------
    tests : sequence of (VR, matching, values)
        The VR as text; "values", "wildcard", "range" or "empty"; values as str: any of them, or the two ends.
    """

    def __init__(self, tests):
        cdef list wanted = list(tests)
        cdef Py_ssize_t i
        if self.tests != NULL:
            raise TypeError("a matcher is made once")
        self.tests = <Test*>take(&self.arena, (len(wanted) + 1) * sizeof(Test))
        if self.tests == NULL:
            raise MemoryError
        for i, (vr, matching, values) in enumerate(wanted):
            self.tests[i].form = FORMS.get(vr, FORM_TEXT)
            self.tests[i].matching = MATCHINGS[matching]
            self.compile(&self.tests[i], [value.encode("utf-8", "surrogatepass") for value in values])
        self.count = len(wanted)

    def __dealloc__(self):
        release(&self.arena)

    cdef int compile(self, Test* test, list values) except -1:
        cdef list parts = []
        cdef Py_ssize_t i
        for value in values:
            parts.append(self.groups(value) if test.form == FORM_NAME else [(-1, value)])
        if test.matching == MATCH_RANGE and len(values) != 2:
            raise ValueError("a range has two ends")
        test.count = sum(map(len, parts))
        test.operands = <Operand*>take(&self.arena, (test.count + 1) * sizeof(Operand))
        test.values = <int*>take(&self.arena, (len(parts) + 1) * sizeof(int))
        if test.operands == NULL or test.values == NULL:
            raise MemoryError
        for i, group in enumerate(parts):
            test.values[i] = len(group)
        test.offset = test.form == FORM_MOMENT and any(b"+" in value or b"-" in value for value in values)
        for i, (which, value) in enumerate(sum(parts, [])):
            test.operands[i].group = which
            self.operand(test, &test.operands[i], value, i == 1)
        return 0

    cdef list groups(self, bytes value):
        """The component groups of a name that have to match, and where: any, if there is but one."""
        cdef list groups = value.split(b"=", GROUPS - 1)
        if len(groups) == 1:
            return [(-1, value)]
        return [(i, group) for i, group in enumerate(groups) if group.strip(b" ^*")] or [(-1, b"*")]

    cdef int operand(self, Test* test, Operand* operand, bytes value, bint last) except -1:
        cdef Text text = trimmed(<const uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        cdef Out out
        cdef Text found
        cdef uint8_t[LONGEST_TIME] buffer
        out.size = 0
        out.room = LONGEST_NAME if test.form == FORM_NAME else text.size
        out.data = <uint8_t*>take(&self.arena, max(out.room, <size_t>LONGEST_TIME))
        if out.data == NULL:
            raise MemoryError
        if test.form == FORM_NAME:
            normal(KEY_NAME, text, &out)
        elif test.form == FORM_DATE:
            normal(KEY_DATE, text, &out)
        elif test.form == FORM_TIME and test.matching != MATCH_RANGE:
            found = plain_time(text, buffer)
            memcpy(out.data, found.data, found.size)
            out.size = found.size
        else:
            normal(0, text, &out)
            if test.form == FORM_TIME:
                out.size = self.range_time(out.data, out.size, last)
        operand.text.data = out.data
        operand.text.size = out.size
        if test.form == FORM_NUMBER:
            operand.number = number_of(text, &operand.value)
        elif test.form == FORM_MOMENT:
            operand.moment, operand.until = -(1 << 62), 1 << 62
            operand.number = moment_of(text, False, test.offset, &operand.moment) and moment_of(
                text, True, test.offset, &operand.until
            )
        return 0

    cdef size_t range_time(self, uint8_t* data, size_t size, bint last) noexcept:
        """The end of a range of times without colons; a zero fraction at the beginning says nothing."""
        cdef size_t i, n = 0
        for i in range(size):
            if data[i] != c':':
                data[n] = data[i]
                n += 1
        if not last:
            while n > 6 and (data[n - 1] == c'0' or data[n - 1] == c'.'):
                n -= 1
        return n

    cdef bint passes(self, int test, Text value) noexcept nogil:
        return fits(&self.tests[test], value)

    def matches(self, int test, bytes value not None):
        """Whether an attribute, as text in UTF-8, passes the test of that number."""
        cdef Text text
        if not 0 <= test < self.count:
            raise IndexError(test)
        text.data = <const uint8_t*>PyBytes_AS_STRING(value)
        text.size = PyBytes_GET_SIZE(value)
        return self.passes(test, text)
