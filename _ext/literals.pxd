"""Dates, times and numbers in their standard forms, made without Python code."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t


cdef class DecimalString(float):
    cdef PyObject* longer    # its text, if that has no room in `short`; else NULL
    cdef uint8_t size
    cdef char[16] short      # as many characters as DS allows


# None for any other form. The type is one of `dicom.values`, with an attribute `_text`.
cdef object decimal_of(const uint8_t* p, size_t size)
cdef object integer_of(const uint8_t* p, size_t size, type made)
cdef object date_of(const uint8_t* p, size_t size, type made)
cdef object time_of(const uint8_t* p, size_t size, type made)
cdef object date_time_of(const uint8_t* p, size_t size, type made)
