"""The words of names, as fuzzy matching compares them. `dicom.query` says what they are."""

import unicodedata

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from pacs_core._ext.keys cimport Out, Text, code_point, find_point, put

# Letters with a stroke, and such as are two: what Unicode does not take apart. Without and with what is lost.
cdef dict LETTERS = {
    "ø": ("o", "oe"), "æ": ("ae", "ae"), "œ": ("oe", "oe"), "ł": ("l", "l"), "đ": ("d", "d"), "ð": ("d", "d"),
    "þ": ("th", "th"), "ħ": ("h", "h"), "ŧ": ("t", "t"), "ı": ("i", "i"), "’": ("'", "'"),
}

cdef enum:
    DIAERESIS = 0x308
    RING = 0x30A


# --- letters ----------------------------------------------------------------------------------------------

cdef struct Letters:        # what a character is, bare and spelled out: in `pool`, one after the other
    uint32_t point
    uint32_t at
    uint8_t bare
    uint8_t spelled

cdef Letters* table = NULL
cdef size_t table_size = 0
cdef bytes kept = b""
cdef const uint8_t* pool = NULL


cdef str letters_of(str char, bint spelled):
    """A character without case, compatibility and marks."""
    cdef str found = ""
    for part in unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char.casefold()).casefold()):
        if part in LETTERS:
            found += LETTERS[part][spelled]
        elif ord(part) >= 0x700 or unicodedata.category(part) != "Mn":
            found += " " if part in "*?" else part
        elif spelled and part == "\u0308" and found.endswith(("a", "o", "u")):
            found += "e"
        elif spelled and part == "\u030a" and found.endswith("a"):
            found += "a"
    return found


cdef int prepare() except -1:
    """Make the table of letters, once; the letters are those that this Python knows."""
    global table, table_size, kept, pool
    cdef list found = []
    cdef list parts = []
    cdef Letters* made
    cdef Py_ssize_t i
    cdef uint32_t at = 0
    if table != NULL:
        return 0
    for start in [*range(0x80, 0xD800, 0x80), *range(0xF900, 0x20000, 0x80), *range(0x2F800, 0x2FA80, 0x80)]:
        block = "".join(map(chr, range(start, start + 0x80)))
        if start >= 0x700 and unicodedata.normalize("NFKD", block).casefold() == block:
            continue
        for char in block:
            bare = letters_of(char, False)
            if bare != char:
                spelled = letters_of(char, True) if bare.isascii() else bare
                found.append((ord(char), bare.encode(), spelled.encode()))
    made = <Letters*>calloc(len(found), sizeof(Letters))
    if made == NULL:
        raise MemoryError
    for i, (point, bare_bytes, spelled_bytes) in enumerate(found):
        made[i].point, made[i].at = point, at
        made[i].bare, made[i].spelled = len(bare_bytes), len(spelled_bytes)
        parts += [bare_bytes, spelled_bytes]
        at += made[i].bare + made[i].spelled
    if table != NULL:       # another thread was first
        free(made)
        return 0
    kept = b"".join(parts)
    pool = kept
    table_size = len(found)
    table = made
    return 0


# --- words ------------------------------------------------------------------------------------------------

# Of each ASCII character what is put: in lower case, of what is no letter or digit a space, of an apostrophe nothing.
cdef uint8_t[128] PLAIN
for _code in range(128):
    PLAIN[_code] = ord(chr(_code).lower()) if chr(_code).isalnum() else 0 if _code == c"'" else c' '


cdef inline void put_letter(Out* out, uint8_t byte) noexcept nogil:
    if byte >= 0x80 or PLAIN[byte]:
        put(out, PLAIN[byte] if byte < 0x80 else byte)


cdef inline size_t put_plain(Text text, bint pattern, Out* out) noexcept nogil:
    """Append the ASCII that a text begins with, of a pattern with its wildcards; how many bytes of it that is."""
    cdef const uint8_t* data = text.data
    cdef uint8_t* made = out.data
    cdef size_t n = out.size, room = out.room, i = 0
    cdef uint8_t byte
    while i < text.size and n < room and data[i] < 0x80:
        byte = data[i]
        if not (pattern and (byte == c'*' or byte == c'?')):
            byte = PLAIN[byte]
        made[n] = byte
        n += byte != 0
        i += 1
    out.size = n
    return i


cdef bint fold_words(Text group, bint spelled, bint pattern, Out* out) noexcept nogil:
    """Append the words of a component group, spaces between them, bare or spelled out; of a pattern with its
    wildcards. Whether the two differ. `prepare` comes first."""
    cdef size_t i = 0, size, k
    cdef uint32_t point
    cdef const Letters* letters
    cdef const uint8_t* bytes_of
    cdef Text rest
    cdef bint differ = False
    cdef uint8_t before
    while i < group.size and out.size < out.room:
        rest.data = group.data + i
        rest.size = group.size - i
        if rest.data[0] < 0x80:
            i += put_plain(rest, pattern, out)
            continue
        size = code_point(rest.data, rest.size, &point)
        if size == 0:
            put(out, rest.data[0])
            i += 1
            continue
        letters = <const Letters*>find_point(table, table_size, sizeof(Letters), point)
        if letters == NULL:
            for k in range(size):
                put(out, rest.data[k])
        elif point == DIAERESIS or point == RING:
            before = out.data[out.size - 1] if out.size else 0
            if before == c'a' or (point == DIAERESIS and (before == c'o' or before == c'u')):
                differ = True
                if spelled:
                    put(out, c'e' if point == DIAERESIS else c'a')
        else:
            bytes_of = pool + letters.at
            differ = differ or letters.bare != letters.spelled or (
                memcmp(bytes_of, bytes_of + letters.bare, letters.bare) != 0
            )
            if spelled:
                bytes_of += letters.bare
            for k in range(letters.spelled if spelled else letters.bare):
                put_letter(out, bytes_of[k])
        i += size
    return differ
