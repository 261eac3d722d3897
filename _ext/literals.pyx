# cython: auto_pickle=False
"""Dates, times and decimal strings (PS3.5 6.2) in the forms that nearly all of them have.

What has another form (legacy dates, offsets, leap seconds, no value at all) is for `dicom.values` to read.
"""

from cpython.datetime cimport PyDateTime_CAPI, import_datetime
from cpython.object cimport PyObject, PyObject_SetAttr, PyTypeObject
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

cdef extern from "datetime.h":
    PyDateTime_CAPI* PyDateTimeAPI

cdef extern from *:
    """
    static PyObject *pc_float_of(PyTypeObject *type, double value) {
        PyObject *made = type->tp_alloc(type, 0);
        if (made != NULL) ((PyFloatObject *)made)->ob_fval = value;
        return made;
    }
    """
    object pc_float_of(type made, double value)
    double PyOS_string_to_double(const char* text, char** end, PyObject* overflow) except? -1.0

import_datetime()

cdef enum:
    LONGEST = 64  # characters of a decimal string that is read here

cdef str TEXT = "_text"
cdef int[13] DAYS = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


cdef inline object with_text(object made, const uint8_t* p, size_t size):
    PyObject_SetAttr(made, TEXT, PyUnicode_DecodeASCII(<const char*>p, size, NULL))
    return made


cdef inline size_t digits(const uint8_t* p, size_t size) noexcept nogil:
    """How many digits there are at the beginning."""
    cdef size_t n = 0
    while n < size and p[n] - 48 < <unsigned int>10:
        n += 1
    return n


cdef inline int number(const uint8_t* p, int size) noexcept nogil:
    cdef int value = 0
    cdef int i
    for i in range(size):
        value = value * 10 + p[i] - 48
    return value


cdef bint is_decimal(const uint8_t* p, size_t size) noexcept nogil:
    """Whether it is a fixed point or floating point number of DS, without padding."""
    cdef size_t at = 1 if size and (p[0] == 0x2B or p[0] == 0x2D) else 0
    cdef size_t whole = digits(p + at, size - at)
    cdef size_t fraction = 0
    at += whole
    if at < size and p[at] == 0x2E:
        fraction = digits(p + at + 1, size - at - 1)
        at += 1 + fraction
    if whole + fraction == 0:
        return False
    if at < size and (p[at] == 0x45 or p[at] == 0x65):
        at += 1
        if at < size and (p[at] == 0x2B or p[at] == 0x2D):
            at += 1
        whole = digits(p + at, size - at)
        if whole == 0:
            return False
        at += whole
    return at == size


cdef object decimal_of(const uint8_t* p, size_t size, type made):
    cdef char[LONGEST + 1] text
    if size > LONGEST or not is_decimal(p, size):
        return None
    memcpy(text, p, size)
    text[size] = 0
    return with_text(pc_float_of(made, PyOS_string_to_double(text, NULL, NULL)), p, size)


cdef inline bint is_date(const uint8_t* p) noexcept nogil:
    """Whether eight digits are a day of the calendar."""
    cdef int year = number(p, 4)
    cdef int month = number(p + 4, 2)
    cdef int day = number(p + 6, 2)
    if year == 0 or month == 0 or month > 12 or day == 0:
        return False
    if month == 2 and day == 29:
        return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return day <= DAYS[month]


cdef inline bint is_time(const uint8_t* p) noexcept nogil:
    """Whether six digits are a time of the day."""
    return number(p, 2) < 24 and number(p + 2, 2) < 60 and number(p + 4, 2) < 60


cdef inline int microseconds(const uint8_t* p, size_t size) noexcept nogil:
    """Of a point and up to six digits; 0 of nothing, -1 of anything else."""
    cdef int value
    if size == 0:
        return 0
    if p[0] != 0x2E or size < 2 or size > 7 or digits(p + 1, size - 1) != size - 1:
        return -1
    value = number(p + 1, <int>size - 1)
    while size < 7:
        value *= 10
        size += 1
    return value


cdef object date_of(const uint8_t* p, size_t size, type made):
    if size != 8 or digits(p, 8) != 8 or not is_date(p):
        return None
    return with_text(
        PyDateTimeAPI.Date_FromDate(number(p, 4), number(p + 4, 2), number(p + 6, 2), <PyTypeObject*>made), p, size
    )


cdef object time_of(const uint8_t* p, size_t size, type made):
    cdef int fraction
    if size < 6 or digits(p, 6) != 6 or not is_time(p):
        return None
    fraction = microseconds(p + 6, size - 6)
    if fraction < 0:
        return None
    return with_text(
        PyDateTimeAPI.Time_FromTime(number(p, 2), number(p + 2, 2), number(p + 4, 2), fraction, None, <PyTypeObject*>made), p, size
    )


cdef object date_time_of(const uint8_t* p, size_t size, type made):
    cdef int fraction
    if size < 14 or digits(p, 14) != 14 or not is_date(p) or not is_time(p + 8):
        return None
    fraction = microseconds(p + 14, size - 14)
    if fraction < 0:
        return None
    return with_text(
        PyDateTimeAPI.DateTime_FromDateAndTime(
            number(p, 4), number(p + 4, 2), number(p + 6, 2), number(p + 8, 2), number(p + 10, 2), number(p + 12, 2),
            fraction, None, <PyTypeObject*>made,
        ),
        p, size,
    )
