# cython: auto_pickle=False
"""The bytes of a value as Python objects (PS3.5 6.2), and back to text.

Numbers, ASCII, UTF-8 and Latin-1 are converted here; other character sets by the decoder of the `Types`, which
also tells what dates, names and decimal strings become. Nothing here fails for what a value holds: what is not
a date stays text, what is left of a number's bytes is dropped.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeASCII, PyUnicode_DecodeLatin1, PyUnicode_DecodeUTF8
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy

from pacs_core._ext.cursor cimport be16, be32, be64, le16, le32, le64
from pacs_core._ext.digits cimport width
from pacs_core._ext.literals cimport date_of, date_time_of, decimal_of, integer_of, text_slot, time_of
from pacs_core._ext.text cimport has_escape, is_plain, is_utf8
from pacs_core._ext.vr cimport (
    VR_ASCII, VR_AT, VR_FD, VR_FL, VR_NAME, VR_PROSE, VR_RESOURCE, VR_SL, VR_SS, VR_SV, VR_TEXT, VR_UNKNOWN,
    VR_UNLIMITED, VR_US,
)

import datetime

cdef dict SETS = {
    b"": (b"", SETS_NONE),
    b"ISO_IR 6": (b"ISO_IR 6", SETS_NONE),
    b"ISO_IR 100": (b"ISO_IR 100", SETS_LATIN1),
    b"ISO_IR 192": (b"ISO_IR 192", SETS_UTF8),
}


@cython.final
cdef class Types:
    """What values become.

    Parameters
    ----------
    decode : callable (value, character_set, is_name) -> (text, sound)
        As `dicom.charset.decode`.
    person_name : callable (text) -> object
        Of one value of PN.
    of_text : dict of VR to callable (text) -> object
        Of one value, without padding, of each VR whose values are more than text: DA, DS, DT, IS, TM.
    integer_string, date, time, date_time : class
        What values in the standard forms are made of at once: subclasses of int and of datetime's classes, with an
        attribute `_text`.
    """

    def __init__(self, decode, person_name, of_text, *, type integer_string not None, type date not None,
                 type time not None, type date_time not None):
        for made, base in (
            (integer_string, int), (date, datetime.date), (time, datetime.time), (date_time, datetime.datetime),
        ):
            if not issubclass(made, base):
                raise TypeError(f"{made} is no subclass of {base}")
        if {*of_text} != {"DA", "DS", "DT", "IS", "TM"}:
            raise ValueError(f"what makes values of text is not to be of {', '.join(of_text)}")
        self.decode = decode
        self.integer_string = integer_string
        self.date = date
        self.time = time
        self.date_time = date_time
        self.date_slot, self.time_slot, self.date_time_slot = text_slot(date), text_slot(time), text_slot(date_time)
        self.person_name = person_name
        self.of_text = {letters_of(vr): convert for vr, convert in of_text.items()}


cdef uint16_t letters_of(str vr) except 0:
    """The two letters of a VR as a number. ValueError for what can't be one."""
    if len(vr) != 2 or not vr.isascii() or not vr.isupper():
        raise ValueError(f"{vr!r} is no VR")
    return <uint16_t>(<uint32_t>vr[0] << 8 | <uint32_t>vr[1])


cdef str vr_text(uint16_t vr):
    return f"{chr(vr >> 8)}{chr(vr & 0xFF)}"


cdef tuple sets_of(bytes character_set):
    """A value of (0008,0005) without padding, and how its text is decoded."""
    return SETS.get(character_set) or (character_set, SETS_OTHER)


cdef str text_value(const uint8_t* p, uint64_t size, uint8_t kind, tuple sets, Types types):
    """The text of a whole value, padding and all."""
    cdef int mode = sets[1]
    if size == 0:
        return ""
    if is_plain(p, size):
        return PyUnicode_DecodeASCII(<const char*>p, size, NULL)
    if kind == VR_ASCII or kind == VR_RESOURCE:  # these are ASCII whatever the character set; so be lenient
        if is_utf8(p, size):
            return PyUnicode_DecodeUTF8(<const char*>p, size, NULL)
        return PyUnicode_DecodeLatin1(<const char*>p, size, NULL)
    if mode == SETS_UTF8 and is_utf8(p, size):
        return PyUnicode_DecodeUTF8(<const char*>p, size, NULL)
    if mode == SETS_LATIN1 and not has_escape(p, size):
        return PyUnicode_DecodeLatin1(<const char*>p, size, NULL)
    return types.decode((<const char*>p)[:size], sets[0], kind == VR_NAME)[0]


cdef inline str stripped(const uint8_t* p, uint64_t size, bint leading):
    """One ASCII value without its padding."""
    while size and (p[size - 1] == 0x20 or p[size - 1] == 0):
        size -= 1
    if leading:
        while size and p[0] == 0x20:
            p += 1
            size -= 1
    return PyUnicode_DecodeASCII(<const char*>p, size, NULL)


cdef tuple split_text(const uint8_t* p, uint64_t size, uint16_t vr, tuple sets, Types types):
    """The values of a text VR, each without padding; none for a value of padding only."""
    cdef uint8_t kind = kind_of(vr)
    cdef bint single = kind == VR_PROSE or kind == VR_RESOURCE
    cdef bint leading = kind == VR_ASCII or kind == VR_TEXT or kind == VR_NAME
    cdef const uint8_t* end = p + size
    cdef const uint8_t* stop
    cdef list found
    cdef str text
    while end > p and ((end - 1)[0] == 0x20 or (end - 1)[0] == 0):
        end -= 1
    if end == p:
        return ()
    if not is_plain(p, end - p):
        text = text_value(p, end - p, kind, sets, types)
        if not text.strip(" \0"):  # nothing but escape sequences
            return ()
        found = [text] if single else text.split("\\")
        found = [(part.strip(" \0") if leading else part.rstrip(" \0")) for part in found]
    elif single:
        return (stripped(p, end - p, False),)
    else:
        stop = <const uint8_t*>memchr(p, 0x5C, end - p)
        if stop == NULL:
            return (stripped(p, end - p, leading),)
        found = []
        while stop != NULL:
            found.append(stripped(p, stop - p, leading))
            p = stop + 1
            stop = <const uint8_t*>memchr(p, 0x5C, end - p)
        found.append(stripped(p, end - p, leading))
    return tuple(found)


cdef inline object number(const uint8_t* p, uint8_t kind, bint little):
    cdef uint64_t bits
    cdef uint32_t word
    cdef float real
    cdef double precise
    if kind == VR_US:
        return le16(p) if little else be16(p)
    if kind == VR_SS:
        return <int16_t>(le16(p) if little else be16(p))
    if kind == VR_AT:
        return (<uint32_t>le16(p) << 16 | le16(p + 2)) if little else be32(p)
    if width(kind) == 4:
        word = le32(p) if little else be32(p)
        if kind == VR_SL:
            return <int32_t>word
        if kind == VR_FL:
            memcpy(&real, &word, 4)
            return <double>real
        return word
    bits = le64(p) if little else be64(p)
    if kind == VR_FD:
        memcpy(&precise, &bits, 8)
        return precise
    if kind == VR_SV:
        return <int64_t>bits
    return bits


cdef inline void put_in(tuple values, Py_ssize_t place, object value) noexcept:
    """Fill a place of a tuple that nobody else has yet."""
    Py_INCREF(value)
    PyTuple_SET_ITEM(values, place, value)


cdef tuple numbers_of(const uint8_t* p, uint64_t size, uint8_t kind, bint little):
    """Binary numbers; AT as group << 16 | element."""
    cdef uint32_t step = width(kind)
    cdef uint64_t at
    cdef Py_ssize_t place = 0
    cdef tuple found
    if size < 2 * step:
        return (number(p, kind, little),) if size >= step else ()
    found = PyTuple_New(size // step)
    for at in range(0, size - size % step, step):
        put_in(found, place, number(p + at, kind, little))
        place += 1
    return found


cdef inline bint is_more(uint16_t vr) noexcept nogil:
    """Whether values of a VR are more than text."""
    return vr == VR_DS or vr == VR_IS or vr == VR_DA or vr == VR_TM or vr == VR_DT


cdef inline object literal(const uint8_t* p, size_t size, uint16_t vr, Types types):
    """One value, without padding, of a VR of which `is_more` is true; None if it is not in the standard form."""
    if vr == VR_DS:
        return decimal_of(p, size)
    if vr == VR_IS:
        return integer_of(p, size, types.integer_string)
    if vr == VR_DA:
        return date_of(p, size, types.date, types.date_slot)
    if vr == VR_TM:
        return time_of(p, size, types.time, types.time_slot)
    return date_time_of(p, size, types.date_time, types.date_time_slot)


cdef object converted(const uint8_t* p, uint64_t size, uint16_t vr, tuple sets, Types types):
    """One value of a VR that is more than text."""
    cdef object made
    while size and (p[size - 1] == 0x20 or p[size - 1] == 0):
        size -= 1
    while size and p[0] == 0x20:
        p += 1
        size -= 1
    if size == 0:
        return ""
    made = literal(p, size, vr, types)
    return types.of_text[vr](text_value(p, size, VR_ASCII, sets, types)) if made is None else made


cdef tuple conversions(const uint8_t* p, uint64_t size, uint16_t vr, tuple sets, Types types):
    """All values of a VR that is more than text: ASCII, joined by backslashes."""
    cdef const uint8_t* end = p + size
    cdef const uint8_t* stop
    cdef Py_ssize_t count = 1
    cdef Py_ssize_t place
    cdef tuple found
    while end > p and ((end - 1)[0] == 0x20 or (end - 1)[0] == 0):
        end -= 1
    if end == p:
        return ()
    stop = <const uint8_t*>memchr(p, 0x5C, end - p)
    while stop != NULL:
        count += 1
        stop = <const uint8_t*>memchr(stop + 1, 0x5C, end - stop - 1)
    found = PyTuple_New(count)
    for place in range(count):
        stop = <const uint8_t*>memchr(p, 0x5C, end - p)
        if stop == NULL:
            stop = end
        put_in(found, place, converted(p, stop - p, vr, sets, types))
        p = stop + 1
    return found


cdef tuple values_of(const uint8_t* p, uint64_t size, uint16_t vr, bint little, tuple sets, Types types):
    """All values of an element that is neither a sequence nor bulk data."""
    cdef uint8_t kind = kind_of(vr)
    cdef tuple texts
    if kind >= VR_US:
        return numbers_of(p, size, kind, little)
    if is_more(vr):
        return conversions(p, size, vr, sets, types)
    texts = split_text(p, size, vr, sets, types)
    if kind != VR_NAME:
        return texts
    return tuple([types.person_name(text) for text in texts])


cdef object one_or_all(tuple values, uint8_t kind):
    """What an element gives: its one value; a tuple of several; '' or None, by its VR, if it has none."""
    if len(values) == 1:
        return values[0]
    if values:
        return values
    return "" if VR_UNKNOWN < kind < VR_US else None


cdef object value_of(const uint8_t* p, uint64_t size, uint16_t vr, bint little, tuple sets, Types types):
    """What an element that is neither a sequence nor bulk data gives: as `one_or_all` of `values_of`, at once where
    it is one value of plain text or one number."""
    cdef uint8_t kind = kind_of(vr)
    cdef uint64_t length = size
    cdef str text
    if kind >= VR_US:
        return number(p, kind, little) if size == width(kind) else one_or_all(numbers_of(p, size, kind, little), kind)
    while length and (p[length - 1] == 0x20 or p[length - 1] == 0):
        length -= 1
    if length == 0 or not is_plain(p, length) or memchr(p, 0x5C, length) != NULL:
        return one_or_all(values_of(p, size, vr, little, sets, types), kind)
    if is_more(vr):
        return converted(p, length, vr, sets, types)
    text = stripped(p, length, kind == VR_ASCII or kind == VR_TEXT or kind == VR_NAME)
    return types.person_name(text) if kind == VR_NAME else text
