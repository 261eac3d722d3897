"""Dates, times and numbers in their standard forms, made without Python code."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t


cdef class DecimalString(float):
    cdef PyObject* longer    # its text, if that has no room in `short`; else NULL
    cdef uint8_t size
    cdef char[16] short      # as many characters as DS allows


# Where a class has its slot `_text`, 0 if it has none.
cdef Py_ssize_t text_slot(type made) except -1

# None for any other form. The type is one of `dicom.values`, with an attribute `_text`, and `slot` where that is.
cdef object decimal_of(const uint8_t* p, size_t size)
cdef object integer_of(const uint8_t* p, size_t size, type made)
cdef object date_of(const uint8_t* p, size_t size, type made, Py_ssize_t slot)
cdef object time_of(const uint8_t* p, size_t size, type made, Py_ssize_t slot)
cdef object date_time_of(const uint8_t* p, size_t size, type made, Py_ssize_t slot)
