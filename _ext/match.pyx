# cython: auto_pickle=False
"""The matcher of queries: compiled once, decides without the GIL. `dicom.query` says what each rule means."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport strtod
from libc.string cimport memchr, memcmp, memcpy, memset

from pacs_core._ext.arena cimport Arena, keep, release, take
from pacs_core._ext.keys cimport KEY_DATE, KEY_NAME, Out, Text, normal, trimmed
from pacs_core._ext.words cimport fold_words, prepare

FORMS = {
    "PN": FORM_NAME, "DA": FORM_DATE, "TM": FORM_TIME, "DT": FORM_MOMENT,
    **dict.fromkeys(("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"), FORM_NUMBER),
}
MATCHINGS = {
    "values": MATCH_VALUES, "wildcard": MATCH_WILDCARD, "range": MATCH_RANGE, "empty": MATCH_EMPTY,
    "fuzzy": MATCH_FUZZY, "combined": MATCH_COMBINED,
}

cdef frozenset WHOLE = frozenset(("LT", "ST", "UR", "UT"))


# --- wildcards --------------------------------------------------------------------------------------------

cdef inline size_t character(Text text, size_t at, const uint8_t* inner) noexcept nogil:
    """The size of the UTF-8 character at a place, 1 of what is none; with `inner` up to where the next one of
    the text before folding begins."""
    cdef size_t n = 1
    while at + n < text.size and text.data[at + n] & 0xC0 == 0x80 and n < 4:
        n += 1
    while inner != NULL and at + n < text.size and inner[at + n]:
        n += 1
    return n


cdef bint wild(Text pattern, Text text, const uint8_t* inner) noexcept nogil:
    """Whether a text is what a pattern says: '*' any characters, '?' exactly one."""
    cdef size_t p = 0, t = 0
    cdef size_t star = 0, resume = 0
    cdef bint starred = False
    cdef const uint8_t* next
    while t < text.size:
        if p < pattern.size and pattern.data[p] == c'*':
            starred = True
            p += 1
            star = p
            resume = t
        elif p < pattern.size and pattern.data[p] == c'?':
            p += 1
            t += character(text, t, inner)
        elif p < pattern.size and pattern.data[p] == text.data[t]:
            p += 1
            t += 1
        elif starred:
            p = star
            resume += character(text, resume, NULL)
            if p < pattern.size and pattern.data[p] != c'?' and pattern.data[p] != c'*':
                next = <const uint8_t*>memchr(text.data + resume, pattern.data[p], text.size - resume)
                if next == NULL:
                    return False
                resume = next - text.data
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
    cdef uint8_t[LONGEST_NAME + 4] inner
    cdef Out out
    cdef Text found
    cdef size_t carets = 0, i
    out.data = buffer
    out.size = 0
    out.room = LONGEST_NAME
    out.inner = NULL
    if operand.one:
        memset(inner, 0, sizeof(inner))
        out.inner = inner
    normal(KEY_NAME, group, &out)
    found.data = buffer
    found.size = out.size
    if not pattern:
        return same(operand.text, found)
    if found.size == 0:
        return False
    if wild(operand.text, found, out.inner):
        return True
    # DOE^* is DOE, too: components at the end may be left out.
    for i in range(found.size):
        carets += buffer[i] == c'^'
    while carets < 4:
        buffer[found.size] = c'^'
        found.size += 1
        carets += 1
    return has(operand.text, c'^') and wild(operand.text, found, out.inner)


cdef bint next_word(Text* words, Text* word) noexcept nogil:
    """Take the first of some words; whether there was one."""
    while words.size and words.data[0] == c' ':
        words.data += 1
        words.size -= 1
    word.data = words.data
    word.size = 0
    while word.size < words.size and words.data[word.size] != c' ':
        word.size += 1
    words.data += word.size
    words.size -= word.size
    return word.size != 0


cdef bint has_word(Text words, Text pattern) noexcept nogil:
    """Whether one of some words is what a pattern says, which is not empty."""
    cdef uint8_t first = pattern.data[0]
    cdef bint any_first = first == c'*' or first == c'?'
    cdef bint begins = True
    cdef Text rest, word
    cdef size_t i
    for i in range(words.size):
        if begins and (any_first or words.data[i] == first):
            rest.data = words.data + i
            rest.size = words.size - i
            if next_word(&rest, &word) and wild(pattern, word, NULL):
                return True
        begins = words.data[i] == c' '
    return False


cdef struct Folded:         # the words of a component group
    Text bare
    Text spelled            # where they differ
    bint differ
    uint8_t[2 * LONGEST_NAME] buffer


cdef void fold_group(Text group, Folded* words) noexcept nogil:
    cdef Out out
    out.data = words.buffer
    out.size = 0
    out.room = LONGEST_NAME
    out.inner = NULL
    words.differ = fold_words(group, False, False, &out)
    words.bare.data = out.data
    words.bare.size = out.size
    words.spelled = words.bare
    if words.differ:
        out.data += LONGEST_NAME
        out.size = 0
        fold_words(group, True, False, &out)
        words.spelled.data = out.data
        words.spelled.size = out.size


cdef bint fuzzy_matches(const Operand* operand, const Folded* words) noexcept nogil:
    """Whether there is each of the words of an operand, bare or spelled out."""
    cdef Text bare = operand.words[0], spelled = operand.words[1]
    cdef Text one, other
    if bare.size == 0:
        return False
    while next_word(&bare, &one):
        next_word(&spelled, &other)
        if not has_word(words.bare, one) and not (
            (words.differ or operand.differ) and other.size and has_word(words.spelled, other)
        ):
            return False
    return True


cdef bint name_matches(const Operand* operand, int matching, Text value) noexcept nogil:
    cdef size_t start = 0, i
    cdef int group = 0
    cdef Text part
    cdef Folded words
    for i in range(value.size + 1):
        if i < value.size and value.data[i] != c'=':
            continue
        part.data = value.data + start
        part.size = i - start
        if operand.group < 0 or operand.group == group:
            if group_matches(operand, matching != MATCH_VALUES, part):
                return True
            if matching == MATCH_FUZZY:
                fold_group(part, &words)
                if fuzzy_matches(operand, &words):
                    return True
        start = i + 1
        group += 1
    return False


# --- dates and times --------------------------------------------------------------------------------------

cdef enum:
    LONGEST_CLOCK = 13      # 101112.123456

# In microseconds.
cdef int64_t SECOND = 1000000
cdef int64_t MINUTE = 60 * SECOND
cdef int64_t HOUR = 60 * MINUTE
cdef int64_t DAY = 24 * HOUR


cdef inline bint digit(uint8_t c) noexcept nogil:
    return c'0' <= c <= c'9'


cdef Text plain_time(Text text, uint8_t* buffer) noexcept nogil:
    """A time without colons, of at least six digits, its fraction without zeros at the end; empty if none."""
    cdef Text found
    cdef size_t i, n = 0, whole = 0
    found.data = buffer
    found.size = 0
    for i in range(text.size):
        if text.data[i] == c':':
            continue
        if n == LONGEST_CLOCK or not (text.data[i] == c'.' if n == 6 else digit(text.data[i])):
            return found
        whole += n < 6
        buffer[n] = text.data[i]
        n += 1
    if whole < 2 or whole & 1:
        return found
    while n < 6:
        buffer[n] = c'0'
        n += 1
    while n > 6 and (buffer[n - 1] == c'0' or buffer[n - 1] == c'.'):
        n -= 1
    found.size = n
    return found


cdef Text plain_date(Text text, uint8_t* buffer) noexcept nogil:
    """A date without dots; empty if there is anything but digits."""
    cdef Out out
    cdef Text found
    cdef size_t i
    out.data = buffer
    out.size = 0
    out.room = LONGEST_TIME
    out.inner = NULL
    normal(KEY_DATE, text, &out)
    found.data = buffer
    found.size = out.size
    for i in range(out.size):
        if not digit(buffer[i]):
            found.size = 0
    return found


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


cdef bint span_of(Text text, Span* span) noexcept nogil:
    """What a DT denotes, as told by its own clock; whether it is one."""
    cdef size_t n = 0, i, end
    cdef int64_t fraction = 0, unit
    cdef int64_t[6] part
    part[0], part[1], part[2], part[3], part[4], part[5] = 0, 1, 1, 0, 0, 0
    while n < text.size and digit(text.data[n]):
        n += 1
    if n < 4 or n > 14 or n & 1:
        return False
    part[0] = two(text.data) * 100 + two(text.data + 2)
    for i in range((n - 4) // 2):
        part[i + 1] = two(text.data + 4 + 2 * i)
    end = n
    unit = SECOND
    if n == 14 and n < text.size and text.data[n] == c'.':
        end = n + 1
        while end < text.size and digit(text.data[end]) and unit > 1:
            unit //= 10
            fraction += unit * (text.data[end] - 48)
            end += 1
    if not (1 <= part[1] <= 12 and 1 <= part[2] <= 31 and part[3] <= 23 and part[4] <= 59 and part[5] <= 60):
        return False
    text.data += end
    text.size -= end
    if not offset_of(text, &span.offset):
        return False
    span.first = days(part[0], part[1], part[2]) * DAY + part[3] * HOUR + part[4] * MINUTE + part[5] * SECOND
    span.first += fraction
    if n == 4:
        unit = (days(part[0] + 1, 1, 1) - days(part[0], 1, 1)) * DAY
    elif n == 6:
        unit = (days(part[0] + part[1] // 12, part[1] % 12 + 1, 1) - days(part[0], part[1], 1)) * DAY
    elif n < 14:
        unit = DAY if n == 8 else HOUR if n == 10 else MINUTE
    span.last = span.first + unit - 1
    return True


cdef bint offset_of(Text text, int* minutes) noexcept nogil:
    """The offset from UTC at the end of a DT, if there is one; whether there is nothing else."""
    cdef size_t i
    minutes[0] = NO_OFFSET
    if text.size == 0:
        return True
    if text.size != 5 or (text.data[0] != c'+' and text.data[0] != c'-'):
        return False
    for i in range(1, 5):
        if not digit(text.data[i]):
            return False
    minutes[0] = <int>(two(text.data + 1) * 60 + two(text.data + 3))
    if text.data[0] == c'-':
        minutes[0] = -minutes[0]
    return True


cdef inline int64_t ahead(const Span* a, const Span* b) noexcept nogil:
    """How far the clock of `a` is ahead of that of `b`; not at all, if one of them does not say."""
    if a.offset == NO_OFFSET or b.offset == NO_OFFSET:
        return 0
    return (a.offset - b.offset) * MINUTE


# --- one value --------------------------------------------------------------------------------------------

cdef bint number_of(Text text, double* value) noexcept nogil:
    cdef char[64] buffer
    cdef char* end
    cdef size_t i
    if text.size == 0 or text.size >= 64:
        return False
    for i in range(text.size):
        if not digit(text.data[i]) and memchr(b"+-.eE", text.data[i], 5) == NULL:
            return False
    memcpy(buffer, text.data, text.size)
    buffer[text.size] = 0
    value[0] = strtod(buffer, &end)
    return end == buffer + text.size


cdef inline bint is_range(const Operand* first, const Operand* last) noexcept nogil:
    """Whether both ends are dates or times, or open."""
    return (first.text.size == 0 or first.number) and (last.text.size == 0 or last.number)


cdef bint touches(const Operand* first, const Operand* last, const Span* span) noexcept nogil:
    if not is_range(first, last):
        return False
    if first.text.size and span.last - ahead(span, &first.span) < first.span.first:
        return False
    return last.text.size == 0 or span.first - ahead(span, &last.span) <= last.span.last


cdef bint in_range(const Test* test, Text value) noexcept nogil:
    cdef const Operand* first = test.operands
    cdef const Operand* last = test.operands + 1
    cdef uint8_t[LONGEST_TIME] buffer
    cdef Text found
    cdef Span span
    if test.form == FORM_MOMENT:
        return span_of(value, &span) and touches(first, last, &span)
    if not is_range(first, last):
        return False
    found = plain_time(value, buffer) if test.form == FORM_TIME else plain_date(value, buffer)
    if found.size == 0 or (first.text.size and compare_prefix(found, first.text) < 0):
        return False
    return last.text.size == 0 or compare_prefix(found, last.text) <= 0


cdef bint moment_of(Text date, Text time, Span* span) noexcept nogil:
    """What a whole date and a time, if there is one, denote together; whether they are that."""
    cdef uint8_t[LONGEST_TIME + LONGEST_CLOCK] buffer
    cdef Text moment = plain_date(date, buffer)
    cdef size_t i
    if moment.size != 8:
        return False
    for i in range(time.size):
        if time.data[i] == c':':
            continue
        if moment.size == 8 + LONGEST_CLOCK or not (digit(time.data[i]) or time.data[i] == c'.'):
            return False
        buffer[moment.size] = time.data[i]
        moment.size += 1
    return span_of(moment, span)


cdef Text next_value(Text* values) noexcept nogil:
    """Take the first of several values; an empty one where there is none."""
    cdef size_t size = 0
    cdef Text value
    while size < values.size and values.data[size] != c'\\':
        size += 1
    value = trimmed(values.data, size)
    size += size < values.size
    values.data += size
    values.size -= size
    return value


cdef bint fits_combined(const Test* test, Text dates, Text times) noexcept nogil:
    """Whether one of the dates, with the time at the same place, is in a range."""
    cdef Text date, time
    cdef Span span
    while dates.size:
        date = next_value(&dates)
        time = next_value(&times)
        if date.size and moment_of(date, time, &span) and touches(test.operands, test.operands + 1, &span):
            return True
    return False


cdef bint same_span(const Span* a, const Span* b) noexcept nogil:
    return a.first - ahead(a, b) == b.first and a.last - ahead(a, b) == b.last


cdef bint one_matches(const Test* test, const Operand* operand, Text value) noexcept nogil:
    """Whether one value of an attribute is what one operand says."""
    cdef uint8_t[LONGEST_TIME] buffer
    cdef Text found
    cdef double number
    cdef Span span
    if test.form == FORM_NAME:
        return name_matches(operand, test.matching, value)
    if test.form == FORM_NUMBER and operand.number:
        return number_of(value, &number) and number == operand.value
    if test.form == FORM_DATE:
        found = plain_date(value, buffer)
        return found.size != 0 and same(operand.text, found)
    if test.form == FORM_TIME:
        found = plain_time(value, buffer)
        return found.size != 0 and same(operand.text, found)
    if test.form == FORM_MOMENT:
        return operand.number and span_of(value, &span) and same_span(&span, &operand.span)
    if test.matching == MATCH_WILDCARD:
        return wild(operand.text, value, NULL)
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


cdef bint says_nothing(const Test* test, Text value) noexcept nogil:
    """Whether an attribute is empty: of a name, also if it is nothing but its delimiters."""
    cdef size_t i
    for i in range(value.size):
        if memchr(b" \0\\^=", value.data[i], 5 if test.form == FORM_NAME else 3) == NULL:
            return False
    return True


cdef bint fits(const Test* test, Text value, bint whole) noexcept nogil:
    """Whether an attribute matches: one of its values does."""
    cdef size_t start = 0, i
    cdef Text part
    if test.matching == MATCH_EMPTY:
        return says_nothing(test, value)
    for i in range(value.size + 1):
        if i < value.size and (whole or test.whole or value.data[i] != c'\\'):
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
        The VR as text; "values", "wildcard", "range", "empty", "fuzzy" or "combined"; values as str: any of
        them, or the two ends, which are dates and times (DT) where the test is a combined one.
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
            self.tests[i].matching = MATCHINGS[matching]
            self.tests[i].form = FORMS.get("DT" if matching == "combined" else vr, FORM_TEXT)
            if self.tests[i].matching == MATCH_FUZZY:
                prepare()
                self.tests[i].form = FORM_NAME
            self.tests[i].whole = vr in WHOLE
            self.compile(&self.tests[i], [value.encode("utf-8", "surrogatepass") for value in values])
        self.count = len(wanted)

    def __dealloc__(self):
        release(&self.arena)

    cdef int compile(self, Test* test, list values) except -1:
        cdef list parts = []
        cdef Py_ssize_t i
        for value in values:
            parts.append(self.groups(value) if test.form == FORM_NAME else [(-1, value)])
        if test.matching in (MATCH_RANGE, MATCH_COMBINED) and len(values) != 2:
            raise ValueError("a range has two ends")
        test.count = sum(map(len, parts))
        test.operands = <Operand*>take(&self.arena, (test.count + 1) * sizeof(Operand))
        test.values = <int*>take(&self.arena, (len(parts) + 1) * sizeof(int))
        if test.operands == NULL or test.values == NULL:
            raise MemoryError
        for i, group in enumerate(parts):
            test.values[i] = len(group)
        i = 0
        for group in parts:
            for which, value in group:
                test.operands[i].group = which
                self.operand(test, &test.operands[i], value, i == 1)
                i += 1
        return 0

    cdef list groups(self, bytes value):
        """The component groups of a name that have to match, and where: any, if there is but one."""
        cdef list groups = value.split(b"=")
        if len(groups) == 1:
            return [(-1, value)]
        return [(i, group) for i, group in enumerate(groups) if group.strip(b" \0^*")]

    cdef int operand(self, Test* test, Operand* operand, bytes value, bint last) except -1:
        cdef Text text = trimmed(<const uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        cdef uint8_t[LONGEST_TIME] buffer
        cdef Out out
        out.size = 0
        out.room = LONGEST_NAME if test.form == FORM_NAME else text.size
        out.data = <uint8_t*>take(&self.arena, max(out.room, <size_t>LONGEST_TIME))
        out.inner = NULL
        if out.data == NULL:
            raise MemoryError
        if test.form == FORM_TIME and test.matching != MATCH_RANGE:
            operand.text = plain_time(text, out.data)
            return 0
        normal({FORM_NAME: KEY_NAME, FORM_DATE: KEY_DATE}.get(test.form, 0), text, &out)
        if test.form == FORM_TIME:
            out.size = self.range_time(out.data, out.size, last)
        operand.text.data = out.data
        operand.text.size = out.size
        operand.one = test.form == FORM_NAME and has(operand.text, c'?')
        if test.matching == MATCH_FUZZY:
            self.add_words(operand, text)
        if test.form == FORM_NUMBER:
            operand.number = number_of(text, &operand.value)
        elif test.form == FORM_DATE:
            operand.number = plain_date(text, buffer).size != 0
        elif test.form == FORM_TIME:
            operand.number = plain_time(text, buffer).size != 0
        elif test.form == FORM_MOMENT:
            operand.number = span_of(text, &operand.span)
        return 0

    cdef int add_words(self, Operand* operand, Text group) except -1:
        """The words of a group, each as a pattern for what begins with it; without those that say nothing."""
        cdef uint8_t[LONGEST_NAME] buffer
        cdef Out out
        cdef bytes words
        cdef int spelled
        for spelled in range(2):
            out.data = buffer
            out.size = 0
            out.room = LONGEST_NAME
            out.inner = NULL
            operand.differ = fold_words(group, spelled, True, &out)
            words = (<const char*>buffer)[:out.size]
            words = b" ".join([word + b"*" for word in words.split(b" ") if word.strip(b"*")])
            operand.words[spelled].size = len(words)
            operand.words[spelled].data = <const uint8_t*>keep(&self.arena, PyBytes_AS_STRING(words), len(words))
            if operand.words[spelled].data == NULL:
                raise MemoryError
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

    cdef bint passes(self, int test, Text value, bint whole) noexcept nogil:
        return fits(&self.tests[test], value, whole)

    cdef bint passes_combined(self, int test, Text date, Text time) noexcept nogil:
        """As `passes`, of a date that is told with its time if the test is for both."""
        if self.tests[test].matching == MATCH_COMBINED:
            return fits_combined(&self.tests[test], date, time)
        return fits(&self.tests[test], date, False)

    cdef bint likes(self, Text key) noexcept nogil:
        """Whether normalised text is as one of the patterns of the first test, or has its words."""
        cdef int i
        cdef bint fuzzy = self.tests[0].matching == MATCH_FUZZY
        cdef Folded words
        if fuzzy:
            fold_group(key, &words)
        for i in range(self.tests[0].count):
            if wild(self.tests[0].operands[i].text, key, NULL):
                return True
            if fuzzy and fuzzy_matches(&self.tests[0].operands[i], &words):
                return True
        return False

    def matches(self, int test, bytes value not None, bytes time not None=b""):
        """Whether an attribute, as text in UTF-8, passes the test of that number; a combined one with the
        attribute of the time."""
        if not 0 <= test < self.count:
            raise IndexError(test)
        return self.passes_combined(test, whole(value), whole(time))


cdef Text whole(bytes value):
    cdef Text text
    text.data = <const uint8_t*>PyBytes_AS_STRING(value)
    text.size = PyBytes_GET_SIZE(value)
    return text
