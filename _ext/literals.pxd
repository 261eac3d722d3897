"""Dates, times and decimal strings in their standard forms, made without Python code."""

from libc.stdint cimport uint8_t


# None for any other form. The type is one of `dicom.values`: a subclass with an attribute `_text`.
cdef object decimal_of(const uint8_t* p, size_t size, type made)
cdef object date_of(const uint8_t* p, size_t size, type made)
cdef object time_of(const uint8_t* p, size_t size, type made)
cdef object date_time_of(const uint8_t* p, size_t size, type made)
