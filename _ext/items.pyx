# cython: auto_pickle=False
"""Items of the association PDUs: type, reserved byte, length, body (PS3.8 9.3.1); and the text in them.

Everything is big endian. Reading checks every length against what contains it; writing fills the lengths in.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.list cimport PyList_GET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport (
    PyUnicode_1BYTE_DATA, PyUnicode_DecodeLatin1, PyUnicode_GET_LENGTH, PyUnicode_KIND
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from pacs_core._ext.cursor cimport Cursor, be16, be32, cursor_over, left, read_be16, take, take_part

cdef enum:
    LONGEST_UID = 64  # PS3.5 9.1
    LONGEST_TEXT = 16
    SEEN = 4096  # UIDs remembered


class MalformedError(ValueError):
    """A PDU that is not what PS3.8 9.3 says it is; `offset` is where, in bytes from the PDU's first.

    Not a `PacsError`: the connection's edge answers it with an A-ABORT, and it never becomes a status.
    """

    def __init__(self, message, *, offset):
        super().__init__(f"{message} [byte {offset}]")
        self.offset = offset


# UIDs recur in every association: each is made a str once, and found again by its bytes. A newcomer takes the
# place of the one with the same hash, so strangers can't make the table grow.
cdef list _seen = [None] * SEEN


cdef inline uint64_t _hash(const uint8_t* p, size_t size) noexcept nogil:
    cdef uint64_t h = size
    cdef uint64_t word
    while size >= 8:
        memcpy(&word, p, 8)
        h = (h ^ word) * <uint64_t>0x9E3779B97F4A7C15
        h ^= h >> 32
        p += 8
        size -= 8
    word = 0
    memcpy(&word, p, size)
    h = (h ^ word) * <uint64_t>0x9E3779B97F4A7C15
    return h ^ (h >> 29)


cdef str uid_of(Cursor body):
    """The UID that a field holds, without the padding that PS3.8 does not ask for but peers send."""
    cdef size_t size = left(&body)
    while size > 0 and (body.at[size - 1] == 0 or body.at[size - 1] == c" "):
        size -= 1
    if size == 0:
        return ""
    if size > LONGEST_UID:
        return PyUnicode_DecodeLatin1(<char*>body.at, size, NULL)
    cdef Py_ssize_t slot = <Py_ssize_t>(_hash(body.at, size) % SEEN)
    known = <object>PyList_GET_ITEM(_seen, slot)
    if (
        known is not None
        and <size_t>PyUnicode_GET_LENGTH(known) == size
        and memcmp(PyUnicode_1BYTE_DATA(known), body.at, size) == 0
    ):
        return <str>known
    known = PyUnicode_DecodeLatin1(<char*>body.at, size, NULL)
    _seen[slot] = known
    return <str>known


cdef bint is_uid(str text) except -1:
    """Digits and dots, 1 to 64 (PS3.5 9.1). Looser than the standard on zeros and empty components."""
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(text)
    cdef Py_ssize_t i
    cdef const uint8_t* p
    if size == 0 or size > LONGEST_UID or PyUnicode_KIND(text) != 1:
        return False
    p = <const uint8_t*>PyUnicode_1BYTE_DATA(text)
    for i in range(size):
        if not (c"0" <= p[i] <= c"9" or p[i] == c"."):
            return False
    return True


cdef str checked_uid(object value, str what):
    """`value` as the one str that stands for this UID; ValueError if it is none."""
    cdef str text = str(value)
    if not is_uid(text):
        raise ValueError(f"{what}: not a UID: {text!r}")
    return uid_of(cursor_over(<const uint8_t*>PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text)))


cdef str text_of(const uint8_t* p, size_t size):
    """An AE title or version name, trimmed of padding and control characters and cut at a NUL.

    What is not printable ASCII further in becomes '?': it would equal no configured title anyway.
    """
    cdef uint8_t[LONGEST_TEXT] clean
    cdef size_t start = 0
    cdef size_t end = size if size < LONGEST_TEXT else LONGEST_TEXT
    cdef size_t i
    while start < end and (p[start] <= c" " or p[start] == 0x7F):
        start += 1
    for i in range(start, end):
        if p[i] == 0:
            end = i
            break
    while end > start and (p[end - 1] <= c" " or p[end - 1] == 0x7F):
        end -= 1
    for i in range(start, end):
        clean[i - start] = p[i] if p[i] == c" " or printable(p[i]) else <uint8_t>c"?"
    return PyUnicode_DecodeLatin1(<char*>clean, end - start, NULL)


cdef bytes checked_text(str text, str what, bint may_be_empty):
    """At most 16 printable ASCII characters (PS3.8 table 9-11, PS3.7 D.3.3.2), without spaces around them."""
    cdef str stripped = text.strip(" ")
    if len(stripped) > LONGEST_TEXT or not (stripped.isascii() and stripped.isprintable()):
        raise ValueError(f"{what}: at most 16 printable ASCII characters, not {text!r}")
    if not (stripped or may_be_empty):
        raise ValueError(f"{what}: empty")
    return stripped.encode("ascii")


cdef uint32_t checked_number(object value, uint32_t most, str what) except? 0:
    if not 0 <= value <= most:
        raise ValueError(f"{what}: 0 to {most}, not {value}")
    return value


@cython.final
cdef class Reader:
    """One PDU being decoded: holds its buffer, knows the offset of everything."""

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef Cursor start(self, object pdu, int kind, size_t least) except *:
        """A cursor behind the header, that `least` bytes must follow."""
        cdef Cursor c
        cdef const uint8_t* head
        PyObject_GetBuffer(pdu, &self.view, PyBUF_SIMPLE)
        self.held = True
        c = cursor_over(<const uint8_t*>self.view.buf, self.view.len)
        head = take(&c, HEADER)
        if head == NULL:
            raise MalformedError("no whole PDU header", offset=0)
        if head[0] != kind:
            raise MalformedError(f"PDU type {head[0]:02X}H where {kind:02X}H is due", offset=0)
        if be32(head + 2) != left(&c):
            raise MalformedError(f"PDU length says {be32(head + 2)}, {left(&c)} bytes are there", offset=2)
        if left(&c) < least:
            raise MalformedError(f"a PDU of less than {HEADER + least} bytes", offset=2)
        return c

    cdef Py_ssize_t offset(self, const Cursor* c) noexcept:
        return c.at - <const uint8_t*>self.view.buf

    cdef bint next(self, Cursor* c, Item* item) except -1:
        """The next item of a run of them, consumed; false at the end."""
        cdef const uint8_t* head
        if left(c) == 0:
            return False
        item.offset = self.offset(c)
        head = take(c, 4)
        if head != NULL:
            item.kind = head[0]
            item.body = take_part(c, be16(head + 2))
        if c.torn:
            raise MalformedError("an item reaches beyond what contains it", offset=item.offset)
        return True

    cdef int whole(self, const Item* item) except -1:
        if item.body.torn:
            raise MalformedError(
                f"a field reaches beyond its item of type {item.kind:02X}H", offset=item.offset
            )
        return 0


cdef bytes rest(Cursor* c):
    cdef size_t size = left(c)
    return PyBytes_FromStringAndSize(<char*>take(c, size), size)


cdef bytes counted(Cursor* c):
    """A field behind its own length of two bytes."""
    cdef Cursor field = take_part(c, read_be16(c))
    return rest(&field)


cdef str counted_uid(Cursor* c):
    return uid_of(take_part(c, read_be16(c)))


@cython.final
cdef class Writer:
    """A PDU being encoded."""

    cdef int begin(self, int kind) except -1:
        """The header of a PDU."""
        self.u8(kind)
        self.u8(0)
        self.u32(0)  # until finish
        return 0

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef uint8_t* grow(self, size_t size) except NULL:
        """Room for `size` more bytes, that the caller fills in before anything else."""
        cdef uint8_t* data
        cdef size_t room
        if size > self.room - self.size:
            room = 2 * self.room + size + 1024
            data = <uint8_t*>PyMem_Realloc(self.data, room)
            if data == NULL:
                raise MemoryError()
            self.data = data
            self.room = room
        self.size += size
        return self.data + self.size - size

    cdef int put(self, const void* data, size_t size) except -1:
        memcpy(self.grow(size), data, size)
        return 0

    cdef int u8(self, uint8_t value) except -1:
        self.grow(1)[0] = value
        return 0

    cdef int u16(self, uint16_t value) except -1:
        cdef uint8_t* p = self.grow(2)
        p[0] = <uint8_t>(value >> 8)
        p[1] = <uint8_t>value
        return 0

    cdef int u32(self, uint32_t value) except -1:
        cdef uint8_t* p = self.grow(4)
        p[0] = <uint8_t>(value >> 24)
        p[1] = <uint8_t>(value >> 16)
        p[2] = <uint8_t>(value >> 8)
        p[3] = <uint8_t>value
        return 0

    cdef int raw(self, bytes value) except -1:
        return self.put(<const uint8_t*>value, len(value))

    cdef int counted(self, bytes value) except -1:
        self.u16(<uint16_t>checked_number(len(value), 0xFFFF, "length of a field"))
        return self.raw(value)

    cdef int uid(self, str text) except -1:
        if not is_uid(text):
            raise ValueError(f"not a UID: {text!r}")
        return self.put(PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text))

    cdef int counted_uid(self, str text) except -1:
        self.u16(<uint16_t>PyUnicode_GET_LENGTH(text))  # of a UID 64 at most, which `uid` checks
        return self.uid(text)

    cdef int uid_item(self, int kind, str text) except -1:
        cdef size_t item = self.open(kind)
        self.uid(text)
        return self.close(item)

    cdef size_t open(self, int kind) except 0:
        """Begin an item; `close` with what this returns ends it."""
        self.u8(kind)
        self.u8(0)
        self.u16(0)
        return self.size

    cdef int close(self, size_t item) except -1:
        cdef size_t size = self.size - item
        if size > 0xFFFF:
            raise ValueError(f"an item of {size} bytes; its length field holds 65535 at most")
        self.data[item - 2] = <uint8_t>(size >> 8)
        self.data[item - 1] = <uint8_t>size
        return 0

    cdef bytes finish(self):
        cdef size_t size = self.size
        self.size = 2
        self.u32(<uint32_t>(size - HEADER))
        return PyBytes_FromStringAndSize(<char*>self.data, size)
