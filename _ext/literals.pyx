# cython: auto_pickle=False
"""Dates, times and numbers written as text (PS3.5 6.2) in the forms that nearly all of them have.

What has another form (legacy dates, offsets, leap seconds, no value at all) is for `dicom.values` to read.

Those of a whole series are asked for at once, and Python's garbage collector would look at each again and again.
None of them can be part of a cycle: they hold nothing but their text. So it is told of none.
"""

from cpython.datetime cimport PyDateTime_CAPI, import_datetime
from cpython.object cimport PyObject, PyObject_SetAttr, PyTypeObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_DecodeASCII, PyUnicode_GET_LENGTH
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from "datetime.h":
    PyDateTime_CAPI* PyDateTimeAPI

cdef extern from *:
    """
    #include <float.h>
    #include <structmember.h>
    /* Whether arithmetic on doubles rounds once: only then is a product of two exact ones the nearest. */
    #if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
    #define PC_ROUNDS_ONCE 1
    #else
    #define PC_ROUNDS_ONCE 0
    #endif
    static PyObject *pc_float_of(PyTypeObject *type, double value) {
        PyObject *made = type->tp_alloc(type, 0);
        if (made != NULL) ((PyFloatObject *)made)->ob_fval = value;
        return made;
    }
    /* Where objects of a type have the attribute that a __slots__ of it names, in bytes; 0 if it is no such. */
    static Py_ssize_t pc_slot_of(PyTypeObject *type, PyObject *name) {
        Py_ssize_t offset = 0;
        PyObject *found = PyObject_GetAttr((PyObject *)type, name);
        if (found == NULL)
            PyErr_Clear();
        else if (Py_IS_TYPE(found, &PyMemberDescr_Type))
            offset = ((PyMemberDescrObject *)found)->d_member->offset;
        Py_XDECREF(found);
        return offset;
    }
    static PyObject *pc_int_of(PyTypeObject *type, PyObject *value) {
        PyObject *made = NULL;
        PyObject *arguments = PyTuple_Pack(1, value);
        if (arguments != NULL) {
            made = PyLong_Type.tp_new(type, arguments, NULL);
            Py_DECREF(arguments);
        }
        return made;
    }
    /* Cython has no way to say what comes before the __new__ of a builtin type. */
    static void pc_replace_new(PyObject *type, newfunc new_one) {
        ((PyTypeObject *)type)->tp_new = new_one;
        ((PyTypeObject *)type)->tp_vectorcall = NULL;
        PyType_Modified((PyTypeObject *)type);
    }
    """
    enum:
        PC_ROUNDS_ONCE
    object pc_float_of(type made, double value)
    object pc_int_of(type made, object value)
    Py_ssize_t pc_slot_of(type made, object name)
    void pc_replace_new(object made, object (*new_one)(PyTypeObject*, PyObject*, PyObject*))

cdef extern from "Python.h":
    int PyArg_ParseTupleAndKeywords(
        PyObject* arguments, PyObject* keywords, const char* format, char** names, PyObject** value
    ) except 0
    bint PyUnicode_IS_ASCII(object text)
    double PyOS_string_to_double(const char* text, char** end, PyObject* overflow) except? -1.0
    void PyObject_GC_UnTrack(object made)
    bint PyObject_IS_GC(object made)

from decimal import Decimal, InvalidOperation

import_datetime()

cdef enum:
    LONGEST = 64          # characters of a decimal string that is read here
    EXACT_DIGITS = 15     # of a decimal number, that a double holds whatever they are
    EXACT_POWER = 22      # of ten, that a double holds
    INTEGER_DIGITS = 18   # that an int64_t holds whatever they are

cdef double[23] POWERS = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
    1e20, 1e21, 1e22,
]
cdef str TEXT = "_text"
cdef int[13] DAYS = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


cdef class DecimalString(float):
    """A DS; infinite where a float can't hold it.

    Raises
    ------
    InvalidValueError
        Of a number that no DS can be, or a text that is none.
    """

    def __dealloc__(self):
        Py_XDECREF(self.longer)

    @property
    def text(self):
        """The value as it is written, without padding; as it was, if it was read."""
        return whole(self).strip(" ")

    @property
    def decimal(self):
        """Exactly what is written; as the float where the exponent is beyond a Decimal's, too."""
        try:
            return Decimal(whole(self))
        except InvalidOperation:
            return Decimal(self)

    def __reduce__(self):
        return AGAIN, (whole(self),)


cdef str whole(DecimalString one):
    """Its text, padding and all."""
    if one.longer != NULL:
        return <str>one.longer
    return PyUnicode_DecodeASCII(one.short, one.size, NULL)


cdef object made_decimal(type made, double value, const uint8_t* p, size_t size):
    """A decimal string of an ASCII text and the number that this says."""
    cdef DecimalString found = pc_float_of(made, value)
    if size <= sizeof(found.short):
        found.size = <uint8_t>size
        memcpy(found.short, p, size)
    else:
        text = PyUnicode_DecodeASCII(<const char*>p, size, NULL)
        Py_INCREF(text)
        found.longer = <PyObject*>text
    return found


cdef object new_decimal(PyTypeObject* made, PyObject* arguments, PyObject* keywords):
    """What calling the class does: `float` would take what no DS can be."""
    cdef char* names[2]
    cdef PyObject* given = NULL
    cdef object value, text
    names[:] = [b"value", NULL]
    PyArg_ParseTupleAndKeywords(arguments, keywords, "|O:DecimalString", names, &given)
    value = <object>given if given != NULL else 0.0
    text = AS_WRITTEN(value)
    return made_decimal(<type>made, float(value), PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text))


def read_decimal(str text not None):
    """The decimal string of an ASCII text that `float` reads. ValueError for others."""
    cdef double value = float(text)
    if not PyUnicode_IS_ASCII(text):
        raise ValueError(text)
    return made_decimal(DecimalString, value, PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text))


def make_decimals(*, as_written, again):
    """What `dicom.values` knows of DecimalString, once and for all.

    `as_written` gives the text of a value, or raises InvalidValueError; `again` reads that of pickles and copies.
    """
    global AS_WRITTEN, AGAIN
    AS_WRITTEN, AGAIN = as_written, again


cdef object AS_WRITTEN = None
cdef object AGAIN = None
pc_replace_new(DecimalString, new_decimal)


cdef Py_ssize_t text_slot(type made) except -1:
    return pc_slot_of(made, TEXT)


cdef inline object with_text(object made, Py_ssize_t slot, const uint8_t* p, size_t size):
    """A new object, with its text in the slot of its class or, if that has none, in an attribute."""
    text = PyUnicode_DecodeASCII(<const char*>p, size, NULL)
    if slot:
        Py_INCREF(text)
        (<PyObject**>(<char*><PyObject*>made + slot))[0] = <PyObject*>text
    else:
        PyObject_SetAttr(made, TEXT, text)
    return untracked(made)


cdef inline object untracked(object made):
    if PyObject_IS_GC(made):
        PyObject_GC_UnTrack(made)
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


cdef inline uint64_t accumulated(uint64_t value, const uint8_t* p, size_t size) noexcept nogil:
    """Digits put behind those of a number; of no meaning where they are too many for 64 bits."""
    cdef size_t i
    for i in range(size):
        value = value * 10 + p[i] - 48
    return value


cdef bint scanned(const uint8_t* p, size_t size, double* value, bint* exact) noexcept nogil:
    """Whether it is a fixed point or floating point number of DS, without padding; and the double that is nearest to
    it, where one multiplication or division of two exact ones gives that."""
    cdef bint negative = size > 0 and p[0] == 0x2D
    cdef size_t at = 1 if size and (p[0] == 0x2B or p[0] == 0x2D) else 0
    cdef size_t whole = digits(p + at, size - at)
    cdef size_t fraction = 0
    cdef uint64_t mantissa = accumulated(0, p + at, whole)
    cdef int power = 0
    cdef size_t n
    cdef bint down
    at += whole
    if at < size and p[at] == 0x2E:
        fraction = digits(p + at + 1, size - at - 1)
        mantissa = accumulated(mantissa, p + at + 1, fraction)
        at += 1 + fraction
    if whole + fraction == 0:
        return False
    exact[0] = PC_ROUNDS_ONCE and whole + fraction <= EXACT_DIGITS
    if at < size and (p[at] == 0x45 or p[at] == 0x65):
        at += 1
        down = at < size and p[at] == 0x2D
        if at < size and (p[at] == 0x2B or p[at] == 0x2D):
            at += 1
        n = digits(p + at, size - at)
        if n == 0:
            return False
        if n <= 3:
            power = <int>accumulated(0, p + at, n)
            power = -power if down else power
        else:
            exact[0] = False
        at += n
    if at != size:
        return False
    power -= <int>min(fraction, <size_t>LONGEST)
    if not exact[0] or power > EXACT_POWER or power < -EXACT_POWER:
        exact[0] = False
        return True
    value[0] = <double>mantissa
    value[0] = value[0] * POWERS[power] if power >= 0 else value[0] / POWERS[-power]
    if negative:
        value[0] = -value[0]
    return True


cdef object decimal_of(const uint8_t* p, size_t size):
    cdef char[LONGEST + 1] text
    cdef double value
    cdef bint exact
    if size > LONGEST or not scanned(p, size, &value, &exact):
        return None
    if not exact:
        memcpy(text, p, size)
        text[size] = 0
        value = PyOS_string_to_double(text, NULL, NULL)
    return made_decimal(DecimalString, value, p, size)


cdef object integer_of(const uint8_t* p, size_t size, type made):
    """As it is written where the number alone would not say it: with a plus, zeros before it, minus zero."""
    cdef size_t at = 1 if size and (p[0] == 0x2B or p[0] == 0x2D) else 0
    cdef int64_t value
    cdef object found
    if at == size or size - at > INTEGER_DIGITS or digits(p + at, size - at) != size - at:
        return None
    value = <int64_t>accumulated(0, p + at, size - at)
    found = pc_int_of(made, -value if p[0] == 0x2D else value)
    if p[0] == 0x2B or (p[at] == 0x30 and size > 1):
        return with_text(found, 0, p, size)
    return untracked(found)


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


cdef object date_of(const uint8_t* p, size_t size, type made, Py_ssize_t slot):
    if size != 8 or digits(p, 8) != 8 or not is_date(p):
        return None
    return with_text(
        PyDateTimeAPI.Date_FromDate(number(p, 4), number(p + 4, 2), number(p + 6, 2), <PyTypeObject*>made), slot, p, size
    )


cdef object time_of(const uint8_t* p, size_t size, type made, Py_ssize_t slot):
    cdef int fraction
    if size < 6 or digits(p, 6) != 6 or not is_time(p):
        return None
    fraction = microseconds(p + 6, size - 6)
    if fraction < 0:
        return None
    return with_text(
        PyDateTimeAPI.Time_FromTime(number(p, 2), number(p + 2, 2), number(p + 4, 2), fraction, None, <PyTypeObject*>made), slot, p, size
    )


cdef object date_time_of(const uint8_t* p, size_t size, type made, Py_ssize_t slot):
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
        slot, p, size,
    )
