"""Matching rules of PS3.4 C.2.2.2 on values as text; what they mean is told in `dicom.query`."""

cimport cython
from libc.stdint cimport int64_t, uint8_t

from pacs_core._ext.arena cimport Arena
from pacs_core._ext.keys cimport Text

cdef enum:
    MATCH_VALUES = 0
    MATCH_WILDCARD
    MATCH_RANGE
    MATCH_EMPTY
    MATCH_FUZZY
    MATCH_COMBINED

cdef enum:
    FORM_TEXT = 0
    FORM_NAME
    FORM_DATE
    FORM_TIME
    FORM_MOMENT    # date and time
    FORM_NUMBER

cdef enum:
    LONGEST_NAME = 1024  # bytes of a component group that are compared
    LONGEST_TIME = 16
    NO_OFFSET = 1 << 20


cdef struct Span:       # what a date and time denotes: from its first to its last microsecond
    int64_t first
    int64_t last
    int offset          # minutes from UTC, NO_OFFSET if it does not say


cdef struct Operand:
    Text text          # normalised; a name: its group
    int group          # of a name: which one has to match, -1 any
    bint one           # whether there is a '?' in a name
    Text[2] words      # of a fuzzy name: what its words begin with, as patterns, bare and spelled out
    bint differ        # whether those differ
    bint number        # whether it is a number, or an end of a range is a date or time
    double value
    Span span


cdef struct Test:
    int matching
    int form
    bint whole         # an attribute of this VR has one value, backslashes and all
    int count
    Operand* operands  # any of them; of names, those of one value follow each other and all have to match
    int* values        # how many operands each value has


@cython.final
cdef class Matcher:
    cdef Arena arena
    cdef Test* tests
    cdef readonly int count

    cdef int compile(self, Test* test, list values) except -1
    cdef list groups(self, bytes value)
    cdef int operand(self, Test* test, Operand* operand, bytes value, bint last) except -1
    cdef size_t range_time(self, uint8_t* data, size_t size, bint last) noexcept
    cdef int add_words(self, Operand* operand, Text group) except -1
    cdef bint passes(self, int test, Text value, bint whole) noexcept nogil
    cdef bint passes_combined(self, int test, Text date, Text time) noexcept nogil
    cdef bint likes(self, Text key) noexcept nogil
