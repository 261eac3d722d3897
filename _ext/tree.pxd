"""Data sets as users hold them: what was read, lazily, and what was changed."""

cimport cython
from libc.stdint cimport uint16_t, uint32_t

from pacs_core._ext.given cimport Context
from pacs_core._ext.tape cimport Tape


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
    cdef dict creators       # node by tag of the private creators that were read; None until one is asked for
    cdef readonly object meta

    cdef Context reading(self)
    cdef uint32_t locate(self, uint32_t tag)
    cdef uint16_t vr_of(self, uint32_t node) except 0
    cdef Sequence sequence(self, uint32_t node)
    cdef object value(self, uint32_t tag, bint all)
    cdef object node_value(self, uint32_t node, bint all)
    cdef bint holds(self, uint32_t tag) except -1
    cdef bint touched(self) except -1
    cdef dict read_creators(self)
    cdef str unknown(self, str name)
    cdef int copy_changes(self, Tree copied) except -1
    cdef list elements(self, Element around, Py_ssize_t place)


cdef extern from *:
    """
    static PyObject *pc_new_of(PyTypeObject *made, PyObject *no_arguments) {
        return made->tp_new(made, no_arguments, NULL);
    }
    """
    object pc_new_of(type made, tuple no_arguments)


cdef inline Tree new_tree(type made):
    """An empty one of a class, as `made.__new__(made)` gives it. TypeError if that is no Tree."""
    return <Tree?>pc_new_of(made, ())


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
