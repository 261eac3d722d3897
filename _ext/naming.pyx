# cython: auto_pickle=False
"""Tags and keywords of elements, as keys and in words."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint32_t

from pacs_core._ext.dictionary cimport Entry, entry_of, entry_of_keyword

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_CHECK_INTERNED(object text)
    bint PyUnicode_IS_ASCII(object text)


cdef enum:
    REMEMBERED = 256  # keywords: more than any code asks for again and again

# The keywords last asked for, by where the str is, which is kept so that no other can be there; and their tags.
cdef PyObject* keywords[REMEMBERED]
cdef uint32_t[REMEMBERED] tags


cdef uint32_t tag_of(object key) except? 0:
    """The tag of a number or a keyword; 0 for anything else, which `_resolve` is then asked."""
    cdef Py_ssize_t size
    cdef const char* text
    cdef const Entry* entry
    cdef PyObject* before
    cdef size_t place = (<size_t><PyObject*>key >> 4) % REMEMBERED
    if keywords[place] == <PyObject*>key:
        return tags[place]
    if isinstance(key, str):
        if not PyUnicode_IS_ASCII(key):
            return 0
        text = PyUnicode_AsUTF8AndSize(key, &size)
        entry = entry_of_keyword(text, size)
        if entry == NULL:
            return 0
        if PyUnicode_CHECK_INTERNED(key):  # as what stands in code is
            before = keywords[place]
            Py_INCREF(key)
            keywords[place] = <PyObject*>key
            tags[place] = entry.tag
            Py_XDECREF(before)
        return entry.tag
    if isinstance(key, int) and 0 <= key <= 0xFFFFFFFF:
        return key
    return 0


cdef str keyword_of(uint32_t tag):
    cdef const Entry* entry = entry_of(tag)
    return "" if entry == NULL else entry.keyword.decode("ascii")


cdef str step_of(uint32_t tag):
    """The keyword, if it means that tag alone; those of repeating groups and private creators do not."""
    cdef str keyword = keyword_of(tag)
    return keyword if keyword and tag_of(keyword) == tag else f"{tag:08X}"


cdef str missing(uint32_t tag):
    return f"no element ({tag >> 16:04X},{tag & 0xFFFF:04X}) {keyword_of(tag)}".rstrip()
