"""Tags and keywords of elements, as keys and in words."""

from libc.stdint cimport uint32_t


cdef uint32_t tag_of(object key) except? 0
cdef str keyword_of(uint32_t tag)
cdef str step_of(uint32_t tag)
cdef str missing(uint32_t tag)
