"""Data sets as users have them: read, looked at, and as DICOM JSON, both ways.

Input: encoding and what else to ask (a byte), then the data set.
"""

from libc.stdint cimport uint8_t

from pacs_core._ext.parsing import parse

from pacs_core.dicom.dataset import Dataset
from pacs_core.errors import InvalidValueError, UnparsableError

cdef enum:
    IMPLICIT = 1
    BIG = 2
    BY_PATH = 4
    DUMPED = 8
    FROM_JSON = 16
    HEAD = 1


def look(ds, bint by_path):
    """Ask everything about every element."""
    for element in ds.walk():
        element.value, element.raw, element.name, element.undefined, element.offset, element.length, repr(element)
        element.values
        if by_path and ds.element(element.path).tag != element.tag:
            raise AssertionError(f"{element.path} is not {element!r}")


def check(uint8_t how, data):
    try:
        ds = parse(Dataset, data, implicit=(how & IMPLICIT) != 0, little=not how & BIG)
        look(ds, (how & BY_PATH) != 0)
        text = ds.to_json()
    except (UnparsableError, InvalidValueError):
        return
    if ds.changed:
        raise AssertionError("looking at it changed it")
    if how & DUMPED:
        str(ds)
    if how & FROM_JSON:
        try:
            Dataset.from_json(text).to_json()
        except InvalidValueError:
            pass


cdef api int one_input(const uint8_t* data, size_t size) except -1:
    if size > HEAD:  # a view of it, not a copy: one byte too many read is then an overrun
        check(data[0], memoryview(<const uint8_t[:size - HEAD]>(data + HEAD)))
    return 0
