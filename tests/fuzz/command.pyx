"""DIMSE command sets: decoded without the interpreter; what can be decoded is read, field by field."""

from inspect import isgetsetdescriptor

from libc.stdint cimport uint8_t
from libc.stdlib cimport abort

from pacs_core._ext.command cimport FINE, Command, Fields, decode_fields

cdef tuple NAMES = tuple(name for name, value in vars(Command).items() if isgetsetdescriptor(value))


def read_all(command not None):
    """Read every property of a command set."""
    for name in NAMES:
        getattr(command, name)


cdef api int one_input(const uint8_t* data, size_t size) except -1:
    cdef Fields fields
    cdef size_t offset = 0
    if decode_fields(data, size, &fields, &offset) == FINE:
        read_all(Command.wrap(data[:size], &fields))
    elif offset > size:
        abort()
    return 0
