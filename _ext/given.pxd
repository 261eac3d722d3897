"""What it takes to read the elements of a data set, and the elements that were set instead of read."""

cimport cython
from libc.stdint cimport uint16_t, uint32_t

from pacs_core._ext.dictionary cimport Entry
from pacs_core._ext.tape cimport Tape
from pacs_core._ext.values cimport Types


@cython.final
cdef class Context:          # what it takes to read elements: of a data set, and of what is in it
    cdef Types types
    cdef type made           # the class of data sets
    cdef tuple sets          # the character set of the bytes (values.pxd)
    cdef int signed          # Pixel Representation is 1: what an ambiguous VR means; -1 not looked for yet
    cdef bint assumed        # what it is taken for if it is not there
    cdef Tape tape           # where it is to be looked for

    cdef bint is_signed(self)


@cython.final
cdef class Given:            # an element that was set
    cdef uint16_t vr
    cdef object data         # bytes as they are in UTF-8 and little endian; a tuple of them for fragments


cdef Context context_of(Tape tape, uint32_t root, Context around)
cdef Context plain_context(type made)
cdef Given given_of(uint16_t vr, object data)
cdef bint is_opaque(uint16_t vr) noexcept nogil
cdef object given_value(Given given, Context context, bint all)
cdef uint16_t resolved(const Entry* entry, bint signed) noexcept nogil
