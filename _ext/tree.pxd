"""Data sets as users hold them: what was read, lazily, and what was changed."""

cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pacs_core._ext.tape cimport Node, Tape
from pacs_core._ext.values cimport Types


@cython.final
cdef class Context:          # what it takes to read elements: of a data set, and of what is in it
    cdef Types types
    cdef type made           # the class of data sets
    cdef tuple sets          # the character set of the bytes (values.pxd)
    cdef bint signed         # Pixel Representation: what an ambiguous VR means


@cython.final
cdef class Given:            # an element that was set
    cdef uint16_t vr
    cdef object data         # bytes as they are in UTF-8 and little endian; a tuple of them for fragments


@cython.final
cdef class Sequence:
    cdef Context context
    cdef Tape tape
    cdef list members        # data sets, and the nodes of those not yet looked at
    cdef bint changed        # in number or order

    cdef Tree member(self, Py_ssize_t place)
    cdef bint touched(self) except -1


cdef class Tree:
    cdef Tape tape           # None of one that was not read
    cdef uint32_t root
    cdef Context context
    cdef dict given          # tag: Given, Sequence, or None if deleted; None as long as nothing was changed
    cdef dict opened         # tag: Sequence that was read and looked at
    cdef readonly object meta

    cdef Context reading(self)
    cdef uint32_t locate(self, uint32_t tag)
    cdef uint16_t vr_of(self, uint32_t node) except 0
    cdef Sequence sequence(self, uint32_t node)
    cdef object value(self, uint32_t tag, bint all)
    cdef object node_value(self, uint32_t node, bint all)
    cdef bint holds(self, uint32_t tag) except -1
    cdef bint touched(self) except -1
    cdef str unknown(self, str name)
    cdef int copy_changes(self, Tree copied) except -1
    cdef list elements(self, Element around, Py_ssize_t place)


@cython.final
cdef class Element:
    cdef readonly Tree dataset
    cdef readonly uint32_t tag
    cdef uint32_t node
    cdef object given        # Given or Sequence; None of one that was read
    cdef Element around      # the sequence in which it was found, None if it was not looked for in one
    cdef Py_ssize_t place    # of the item there

    cdef Sequence items(self)
    cdef uint16_t letters(self) except 0


cdef Given given_of(uint16_t vr, object data)
cdef object given_value(Given given, Context context, bint all)
