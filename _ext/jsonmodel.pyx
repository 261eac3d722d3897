# cython: auto_pickle=False
"""Data sets to the DICOM JSON Model (PS3.18 Annex F).

Numbers keep the digits that they are written with where JSON allows them; a decimal or integer string that is no
number stays a string, as do the numbers that JSON does not have (NaN, Infinity). Names and text become UTF-8,
bulk data base64, little endian. Group lengths are left out (F.2.2).
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport isfinite
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr

from pacs_core._ext.digits cimport put_hex, width
from pacs_core._ext.encode cimport value_bytes
from pacs_core._ext.given cimport Given
from pacs_core._ext.output cimport Output, discard, grow, put, taken
from pacs_core._ext.tape cimport MOST_DEPTH, N_BIG, Node
from pacs_core._ext.text cimport is_plain
from pacs_core._ext.tree cimport Element, Sequence, Tree
from pacs_core._ext.values cimport (
    LETTERS_SQ, LETTERS_UN, SETS_UTF8, VR_DS, VR_IS, Types, kind_of, numbers_of, text_value,
)
from pacs_core._ext.vr cimport (
    VR_ASCII, VR_AT, VR_FD, VR_FL, VR_NAME, VR_OPAQUE, VR_PROSE, VR_RESOURCE, VR_TEXT, VR_UNKNOWN, VR_UNLIMITED, VR_US,
)

from binascii import b2a_base64

from pacs_core.errors import InvalidValueError

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    MOST_DIGITS = 4300  # that Python's own json reads of a whole number

cdef tuple UTF8 = (b"ISO_IR 192", SETS_UTF8)
cdef list GROUPS = [b'"Alphabetic":', b'"Ideographic":', b'"Phonetic":']


cdef inline int put_string(Output* out, const uint8_t* p, size_t size) except -1:
    """A JSON string of UTF-8 (RFC 8259 section 7)."""
    cdef size_t start = 0
    cdef size_t at
    cdef uint8_t c
    cdef uint8_t* escaped
    grow(out, 1)[0] = 0x22
    for at in range(size):
        c = p[at]
        if c >= 0x20 and c != 0x22 and c != 0x5C:
            continue
        put(out, p + start, at - start)
        start = at + 1
        if c >= 0x20:
            escaped = grow(out, 2)
            escaped[0] = 0x5C
            escaped[1] = c
        else:
            escaped = grow(out, 6)
            escaped[0] = 0x5C
            escaped[1] = 0x75
            escaped[2] = escaped[3] = 0x30
            escaped[4] = 0x30 + (c >> 4)
            c &= 15
            escaped[5] = 0x30 + c if c < 10 else 0x57 + c
    put(out, p + start, size - start)
    grow(out, 1)[0] = 0x22
    return 0


cdef inline int put_python(Output* out, str text) except -1:
    """A JSON string; a lone surrogate, which UTF-8 does not have, as a question mark."""
    cdef Py_ssize_t size
    cdef const char* data
    cdef bytes encoded
    try:
        data = PyUnicode_AsUTF8AndSize(text, &size)
    except UnicodeEncodeError:
        encoded = text.encode("utf-8", "replace")
        return put_string(out, <const uint8_t*>PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
    return put_string(out, <const uint8_t*>data, size)


cdef inline size_t digits(const uint8_t* p, size_t at, size_t size) noexcept nogil:
    while at < size and 0x30 <= p[at] <= 0x39:
        at += 1
    return at


cdef bint is_number(const uint8_t* p, size_t size) noexcept nogil:
    """Whether text is a JSON number (RFC 8259 section 6)."""
    cdef size_t at = 1 if size and p[0] == 0x2D else 0
    cdef size_t start = at
    at = digits(p, at, size)
    if at == start or (p[start] == 0x30 and at > start + 1):
        return False
    if at < size and p[at] == 0x2E:
        start = at + 1
        at = digits(p, start, size)
        if at == start:
            return False
    if at < size and (p[at] == 0x65 or p[at] == 0x45):
        at += 1
        if at < size and (p[at] == 0x2B or p[at] == 0x2D):
            at += 1
        start = at
        at = digits(p, start, size)
        if at == start:
            return False
    return at == size


cdef int put_number(Output* out, const uint8_t* p, size_t size, uint16_t vr, Types types) except -1:
    """One value of DS or IS, ASCII."""
    cdef object value
    if size <= MOST_DIGITS and is_number(p, size) and (vr == VR_DS or (memchr(p, 0x2E, size) == NULL and memchr(p, 0x45, size) == NULL
                                               and memchr(p, 0x65, size) == NULL)):
        return put(out, p, size)
    value = types.of_text[vr]((<const char*>p)[:size].decode("ascii"))
    if isinstance(value, int):
        text = int.__repr__(value).encode()
    elif isinstance(value, float) and isfinite(<double>value):
        text = float.__repr__(value).encode()
    else:
        return put_string(out, p, size)
    return put(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef int put_name(Output* out, const uint8_t* p, size_t size) except -1:
    """One value of PN in UTF-8: the component groups that are not empty (F.2.2)."""
    cdef const uint8_t* end = p + size
    cdef const uint8_t* stop
    cdef size_t length
    cdef int group
    cdef bytes key
    cdef bint first = True
    grow(out, 1)[0] = 0x7B
    for group in range(3):
        stop = <const uint8_t*>memchr(p, 0x3D, end - p) if group < 2 else NULL
        if stop == NULL:
            stop = end
        length = stop - p
        while length and p[length - 1] == 0x20:
            length -= 1
        if length:
            if not first:
                grow(out, 1)[0] = 0x2C
            first = False
            key = <bytes>GROUPS[group]
            put(out, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
            put_string(out, p, length)
        if stop == end:
            break
        p = stop + 1
    grow(out, 1)[0] = 0x7D
    return 0


cdef int put_texts(Output* out, const uint8_t* p, size_t size, uint16_t vr, Types types) except -1:
    """The values of a text VR, in UTF-8: null for those that are empty (F.2.5)."""
    cdef uint8_t kind = kind_of(vr)
    cdef bint single = kind == VR_PROSE or kind == VR_RESOURCE
    cdef bint leading = kind == VR_ASCII or kind == VR_TEXT or kind == VR_NAME
    cdef const uint8_t* end = p + size
    cdef const uint8_t* stop
    cdef const uint8_t* last
    while True:
        stop = NULL if single else <const uint8_t*>memchr(p, 0x5C, end - p)
        if stop == NULL:
            stop = end
        last = stop
        while last > p and ((last - 1)[0] == 0x20 or (last - 1)[0] == 0):
            last -= 1
        while leading and p < last and p[0] == 0x20:
            p += 1
        if last == p:
            put(out, b"null", 4)
        elif kind == VR_NAME:
            put_name(out, p, last - p)
        elif (vr == VR_DS or vr == VR_IS) and is_plain(p, last - p):
            put_number(out, p, last - p, vr, types)
        else:
            put_string(out, p, last - p)
        if stop == end:
            return 0
        grow(out, 1)[0] = 0x2C
        p = stop + 1


cdef int put_numbers(Output* out, const uint8_t* p, size_t size, uint8_t kind, bint little) except -1:
    cdef bint first = True
    cdef bytes text
    cdef object number
    cdef uint8_t* room
    for number in numbers_of(p, size, kind, little):
        if not first:
            grow(out, 1)[0] = 0x2C
        first = False
        if kind == VR_AT:
            room = grow(out, 10)
            room[0] = room[9] = 0x22
            put_hex(room + 1, number)
            continue
        if (kind == VR_FL or kind == VR_FD) and not isfinite(<double>number):
            put_python(out, "NaN" if number != number else "Infinity" if number > 0 else "-Infinity")
            continue
        text = repr(number).encode()
        put(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return 0


cdef inline bint is_bulk(uint16_t vr, uint8_t kind) noexcept nogil:
    """Whether a value can be given by reference (F.2.2)."""
    return (
        kind == VR_UNKNOWN or (kind >= VR_US and kind != VR_AT) or kind == VR_PROSE or kind == VR_UNLIMITED
        or vr == VR_DS or vr == VR_IS
    )


@cython.final
cdef class Writer:
    """Writes one JSON object; `to_json` is its use."""

    cdef Output out
    cdef object bulk_uri
    cdef uint64_t bulk_over
    cdef int depth

    def __dealloc__(self):
        discard(&self.out)

    cdef int tree(self, Tree tree, Element around, Py_ssize_t place) except -1:
        cdef Element element
        cdef uint8_t* key
        cdef bint first = True
        grow(&self.out, 1)[0] = 0x7B
        for element in tree.elements(around, place):
            if element.tag & 0xFFFF == 0:
                continue
            key = grow(&self.out, 11 if first else 12)
            if not first:
                key[0] = 0x2C
                key += 1
            first = False
            key[0] = key[9] = 0x22
            put_hex(key + 1, element.tag)
            key[10] = 0x3A
            self.element(element)
        grow(&self.out, 1)[0] = 0x7D
        return 0

    cdef int element(self, Element element) except -1:
        cdef Tree tree = element.dataset
        cdef Node* node
        cdef Given given
        cdef Py_buffer buffer
        cdef uint16_t vr
        cdef object sequence = element.items()
        if sequence is not None:
            self.begin(LETTERS_SQ)
            self.items(<Sequence>sequence, element)
        elif element.given is None:
            node = &tree.tape.nodes[element.node]
            vr = tree.vr_of(element.node)
            self.begin(vr)
            self.value(
                element, vr, tree.tape.base + node.at, node.length, not node.flags & N_BIG or node.vr == LETTERS_UN,
                tree.context.sets,
            )
        else:
            given = <Given>element.given
            self.begin(given.vr)
            PyObject_GetBuffer(
                value_bytes(element) if isinstance(given.data, tuple) else given.data, &buffer, PyBUF_SIMPLE
            )
            try:
                self.value(element, given.vr, <const uint8_t*>buffer.buf, buffer.len, True, UTF8)
            finally:
                PyBuffer_Release(&buffer)
        grow(&self.out, 1)[0] = 0x7D
        return 0

    cdef int begin(self, uint16_t vr) except -1:
        cdef uint8_t* out
        put(&self.out, b'{"vr":"', 7)
        out = grow(&self.out, 3)
        out[0] = vr >> 8
        out[1] = vr & 0xFF
        out[2] = 0x22
        return 0

    cdef int items(self, Sequence sequence, Element element) except -1:
        cdef Py_ssize_t place = 0
        if not sequence.members:
            return 0
        if self.depth == MOST_DEPTH:
            raise InvalidValueError(f"more than {MOST_DEPTH} sequences in each other", tag=element.tag)
        self.depth += 1
        put(&self.out, b',"Value":[', 10)
        while place < len(sequence.members):  # `bulk_uri` may remove some
            if place:
                grow(&self.out, 1)[0] = 0x2C
            self.tree(sequence.member(place), element, place)
            place += 1
        grow(&self.out, 1)[0] = 0x5D
        self.depth -= 1
        return 0

    cdef int value(
        self, Element element, uint16_t vr, const uint8_t* p, uint64_t size, bint little, tuple sets
    ) except -1:
        """What follows the VR: nothing if there is no value (F.2.5)."""
        cdef Types types = element.dataset.reading().types
        cdef uint8_t kind = kind_of(vr)
        cdef bytes text
        cdef bint binary = kind >= VR_OPAQUE or kind == VR_UNKNOWN
        if not binary and kind < VR_US:
            while size and (p[size - 1] == 0x20 or p[size - 1] == 0):
                size -= 1
        elif not binary:
            size -= size % width(kind)
        if size == 0:
            return 0
        if self.bulk_uri is not None and size > self.bulk_over and is_bulk(vr, kind):
            uri = self.bulk_uri(element)
            if uri is not None:
                put(&self.out, b',"BulkDataURI":', 15)
                return put_python(&self.out, uri)
        if binary:
            put(&self.out, b',"InlineBinary":"', 17)
            text = b2a_base64(value_bytes(element), newline=False)
            put(&self.out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
            grow(&self.out, 1)[0] = 0x22
            return 0
        if kind < VR_US and not is_plain(p, size):
            text = text_value(p, size, kind, sets, types).rstrip(" \0").encode("utf-8", "replace")
            p = <const uint8_t*>PyBytes_AS_STRING(text)
            size = PyBytes_GET_SIZE(text)
            if size == 0:  # nothing but escape sequences
                return 0
        put(&self.out, b',"Value":[', 10)
        if kind >= VR_US:
            put_numbers(&self.out, p, size, kind, little)
        else:
            put_texts(&self.out, p, size, vr, types)
        grow(&self.out, 1)[0] = 0x5D
        return 0


def to_json(Tree tree not None, bulk_uri=None, uint64_t bulk_over=1024):
    """A data set as a DICOM JSON Model object (PS3.18 F.2), UTF-8.

    Parameters
    ----------
    bulk_uri : callable (Element) -> str or None
        The BulkDataURI of a value of more than `bulk_over` bytes, where F.2.2 allows one; None: inline.
    """
    cdef Writer writer = Writer.__new__(Writer)
    writer.bulk_uri = bulk_uri
    writer.bulk_over = bulk_over
    writer.tree(tree, None, 0)
    return taken(&writer.out)
