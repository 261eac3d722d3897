# cython: auto_pickle=False
"""Bytes to data sets of a class made of `Tree`."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t
from libc.string cimport memcmp

from pacs_core._ext.given cimport Context, context_of, plain_context
from pacs_core._ext.tape cimport tape_of
from pacs_core._ext.tree cimport Tree, new_tree
from pacs_core._ext.values cimport sets_of

cdef enum:
    TRANSFER_SYNTAX = 0x00020010


def parse(
    type made not None, data, *, bint implicit=False, bint little=True, uint64_t start=0, meta=None,
    bytes character_set=b"", bint signed=False, tuple found=(), tuple cut=None,
):
    """The data set of class `made` that begins at `start` of a buffer.

    Parameters
    ----------
    character_set, signed
        Specific Character Set and Pixel Representation of what it is in, if that is something.
    found, cut
        Findings that were made before, and what is missing of what the data set was in; None if nothing.

    Raises UnparsableError for more than 256 sequences in each other or 33 million elements, and nothing else:
    what is wrong is among the findings.
    """
    cdef Tree tree = new_tree(made)
    tree.tape = tape_of(data, start, implicit, little, 0)
    tree.tape.findings = found + tree.tape.findings
    tree.tape.cut = tree.tape.cut or cut
    tree.context = plain_context(made)
    tree.context.sets = sets_of(character_set)
    tree.context.signed = signed
    tree.context = context_of(tree.tape, 0, tree.context)
    tree.meta = meta
    return tree


def open_file(type made not None, data, dict encodings not None):
    """The data set of a file that begins as PS3.10 7.1 has it, in a transfer syntax that needs no inflating.

    `encodings`: (implicit, little endian) by transfer syntax UID. None for any other file: `dicom.reading`
    looks closer at it.
    """
    cdef Tree meta, tree
    cdef tuple encoding
    cdef object uid
    cdef Context context
    cdef Py_buffer view
    cdef bint prefixed
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    prefixed = view.len > 132 and memcmp(<const char*>view.buf + 128, b"DICM", 4) == 0
    PyBuffer_Release(&view)
    if not prefixed:
        return None
    context = plain_context(made)
    meta = new_tree(made)
    meta.tape = tape_of(data, 132, False, True, 2)
    meta.context = context
    uid = meta.value(TRANSFER_SYNTAX, False)
    encoding = encodings.get(uid) if isinstance(uid, str) else None
    if encoding is None:
        return None
    tree = new_tree(made)
    tree.tape = tape_of(data, 132 + meta.tape.nodes[0].length, encoding[0], encoding[1], 0)
    tree.context = context_of(tree.tape, 0, context)
    tree.meta = meta
    return tree


def parse_meta(type made not None, data, uint64_t start):
    """The file meta information from `start` of a buffer on, and where it ends (PS3.10 7.1)."""
    cdef Tree tree = new_tree(made)
    tree.tape = tape_of(data, start, False, True, 2)
    tree.context = plain_context(made)
    return tree, tree.tape.nodes[0].length + min(start, <uint64_t>tree.tape.view.len)
