"""Order-preserving keys of the index. The layouts are described in `keys.pxd`."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, qsort
from libc.string cimport memchr, memcmp, memcpy, memset

from pacs_core._ext.arena cimport Arena, release, take

from pacs_core.errors import OutOfResourcesError

TEXT = KEY_TEXT
NAME = KEY_NAME
DATE = KEY_DATE
SPARSE = KEY_SPARSE
CUT = KEY_CUT
PATIENT_ID = CODE_PATIENT_ID
MODALITY_DATE = CODE_MODALITY_DATE


# --- case folding of person names (PS3.4 C.2.2.2.1: PN matching may ignore case) ---------------------------

cdef struct Fold:
    uint32_t point
    uint32_t to[3]

cdef Fold* folds = NULL
cdef size_t fold_count = 0


cdef int build_folds() except -1:
    """The full case folding that this Python knows, outside ASCII, ascending by code point."""
    global folds, fold_count
    cdef list found = []
    cdef Py_ssize_t i, k
    for start in range(0x80, 0x20000, 0x100):
        if 0xD800 <= start < 0xE000:
            continue
        block = "".join(map(chr, range(start, start + 0x100)))
        if block.casefold() != block:
            found += [(c, c.casefold()) for c in block if c.casefold() != c]
    folds = <Fold*>calloc(len(found), sizeof(Fold))
    if folds == NULL:
        raise MemoryError
    for i, (char, folded) in enumerate(found):
        folds[i].point = ord(char)
        for k in range(len(folded)):
            folds[i].to[k] = ord(folded[k])
    fold_count = len(found)
    return 0


build_folds()


cdef void put_point(Out* out, uint32_t point) noexcept nogil:
    if point < 0x80:
        put(out, point)
    elif point < 0x800:
        put(out, 0xC0 | point >> 6)
        put(out, 0x80 | (point & 0x3F))
    elif point < 0x10000:
        put(out, 0xE0 | point >> 12)
        put(out, 0x80 | (point >> 6 & 0x3F))
        put(out, 0x80 | (point & 0x3F))
    else:
        put(out, 0xF0 | point >> 18)
        put(out, 0x80 | (point >> 12 & 0x3F))
        put(out, 0x80 | (point >> 6 & 0x3F))
        put(out, 0x80 | (point & 0x3F))


cdef void fold_text(Text text, Out* out) noexcept nogil:
    """Append the case folding of UTF-8 `text`; bytes that are not UTF-8 stay as they are."""
    cdef size_t i = 0, size, k, start
    cdef uint32_t point
    cdef uint8_t byte
    cdef const Fold* fold
    while i < text.size and out.size < out.room:
        byte = text.data[i]
        size = code_point(text.data + i, text.size - i, &point)
        if size <= 1:
            put(out, byte + 32 if c'A' <= byte <= c'Z' else byte)
            i += 1
            continue
        fold = <const Fold*>find_point(folds, fold_count, sizeof(Fold), point)
        if fold == NULL:
            for k in range(size):
                put(out, text.data[i + k])
        else:
            for k in range(3):
                start = out.size
                if fold.to[k]:
                    put_point(out, fold.to[k])
                if k and out.inner != NULL:
                    memset(out.inner + start, 1, out.size - start)
        i += size


# --- normalisation ----------------------------------------------------------------------------------------

cdef inline bint is_padding(uint8_t byte) noexcept nogil:
    return byte == c' ' or byte == 0


cdef Text trimmed(const uint8_t* data, size_t size) noexcept nogil:
    cdef Text text
    while size and is_padding(data[0]):
        data += 1
        size -= 1
    while size and is_padding(data[size - 1]):
        size -= 1
    text.data = data
    text.size = size
    return text


cdef void normal_name(Text group, Out* out) noexcept nogil:
    """One component group: components trimmed and case-folded, the empty ones at the end dropped."""
    cdef size_t start = 0, i, carets = 0
    cdef Text component
    for i in range(group.size + 1):
        if i < group.size and group.data[i] != c'^':
            continue
        component = trimmed(group.data + start, i - start)
        if component.size:
            while carets:
                put(out, c'^')
                carets -= 1
            fold_text(component, out)
        carets += 1
        start = i + 1


cdef void normal_date(Text text, Out* out) noexcept nogil:
    cdef bint dotted = text.size == 10 and text.data[4] == c'.' and text.data[7] == c'.'
    cdef size_t i
    for i in range(text.size):
        if not (dotted and (i == 4 or i == 7)):
            put(out, text.data[i])


cdef void normal(int kind, Text text, Out* out) noexcept nogil:
    cdef size_t i
    if kind == KEY_NAME:
        normal_name(text, out)
    elif kind == KEY_DATE:
        normal_date(text, out)
    else:
        for i in range(min(text.size, out.room)):
            put(out, text.data[i])


cdef int link_key(Arena* arena, Key* key, Key** keys) noexcept nogil:
    """Keep a copy of `key` at the head of `keys`."""
    cdef Key* copy = <Key*>take(arena, sizeof(Key))
    if copy == NULL:
        return -1
    copy.size = key.size
    memcpy(copy.data, key.data, key.size)
    copy.next = keys[0]
    keys[0] = copy
    return 0


cdef int order_keys(const Key* a, const Key* b) noexcept nogil:
    cdef int order = memcmp(a.data, b.data, min(a.size, b.size))
    return order if order else (a.size > b.size) - (a.size < b.size)


cdef int order_places(const void* a, const void* b) noexcept nogil:
    return order_keys((<Key**>a)[0], (<Key**>b)[0])


cdef int sort_keys(Arena* arena, Key** keys) noexcept nogil:
    """Bring the list into order, each key once; -1: no memory."""
    cdef Key* at = keys[0]
    cdef Key** places
    cdef size_t count = 0, i
    while at != NULL:
        count += 1
        at = at.next
    if count < 2:
        return 0
    places = <Key**>take(arena, count * sizeof(Key*))
    if places == NULL:
        return -1
    at = keys[0]
    for i in range(count):
        places[i] = at
        at = at.next
    qsort(places, count, sizeof(Key*), order_places)
    at = keys[0] = places[0]
    for i in range(1, count):
        if order_keys(at, places[i]):
            at.next = places[i]
            at = places[i]
    at.next = NULL
    return 0


cdef int add_keys(Arena* arena, uint8_t code, int kind, Text value, Key** keys) noexcept nogil:
    """Put the keys of one attribute's `value` into the list `keys`, in no order; -1: no memory.

    Every value of a multi-valued attribute and every component group of a name has a key of its own.
    """
    cdef bint sparse = kind & KEY_SPARSE
    cdef size_t start = 0, i
    cdef bint any_key = False
    cdef Key key
    cdef Out out
    cdef Text part
    kind &= ~KEY_SPARSE
    key.data[0] = code
    key.data[1] = 1
    for i in range(value.size + 1):
        if i < value.size and value.data[i] != c'\\' and not (kind == KEY_NAME and value.data[i] == c'='):
            continue
        part = trimmed(value.data + start, i - start)
        start = i + 1
        out.data = key.data + 2
        out.size = 0
        out.room = KEY_CUT
        out.inner = NULL
        normal(kind, part, &out)
        if out.size:
            key.size = out.size + 2
            any_key = True
            if link_key(arena, &key, keys) < 0:
                return -1
    if not any_key and not sparse:
        key.data[1] = 0
        key.size = 2
        return link_key(arena, &key, keys)
    return 0


cdef int add_pair_key(Arena* arena, uint8_t code, Text first, Text second, Key** keys) noexcept nogil:
    """The compound keys of code strings and a date: each value of `first`, 00, `second`. Several dates are
    as none: who looks for one has to look there, too."""
    cdef size_t start = 0, i
    cdef Key key
    cdef Text part
    key.data[0] = code
    key.data[1] = 1
    for i in range(first.size + 1):
        if i < first.size and first.data[i] != c'\\':
            continue
        part = trimmed(first.data + start, i - start)
        start = i + 1
        key.size = 2 + put_pair(key.data + 2, part, second)
        if link_key(arena, &key, keys) < 0:
            return -1
    return 0


cdef size_t put_pair(uint8_t* data, Text name, Text date) noexcept nogil:
    """Write one compound key, behind its code and marker; its size."""
    cdef size_t i
    cdef Out out
    out.data = data
    out.size = 0
    out.room = KEY_CUT
    out.inner = NULL
    for i in range(name.size if name.size < 64 else 64):
        put(&out, name.data[i])
    put(&out, 0)
    if date.size and memchr(date.data, c'\\', date.size) == NULL:
        normal_date(trimmed(date.data, date.size), &out)
    return out.size


# --- keys of the uid table --------------------------------------------------------------------------------

cdef inline uint64_t rotated(uint64_t x, int bits) noexcept nogil:
    return x << bits | x >> (64 - bits)


cdef inline void sip_rounds(uint64_t* v, int count) noexcept nogil:
    for _ in range(count):
        v[0] += v[1]
        v[1] = rotated(v[1], 13) ^ v[0]
        v[0] = rotated(v[0], 32)
        v[2] += v[3]
        v[3] = rotated(v[3], 16) ^ v[2]
        v[0] += v[3]
        v[3] = rotated(v[3], 21) ^ v[0]
        v[2] += v[1]
        v[1] = rotated(v[1], 17) ^ v[2]
        v[2] = rotated(v[2], 32)


cdef uint64_t siphash(const uint8_t* secret, Text text) noexcept nogil:
    """SipHash-2-4 of `text` under the 16 bytes of `secret`."""
    cdef uint64_t k[2]
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef size_t i, whole = text.size & ~<size_t>7
    memcpy(k, secret, 16)
    v[0] = k[0] ^ <uint64_t>0x736F6D6570736575
    v[1] = k[1] ^ <uint64_t>0x646F72616E646F6D
    v[2] = k[0] ^ <uint64_t>0x6C7967656E657261
    v[3] = k[1] ^ <uint64_t>0x7465646279746573
    for i in range(0, whole, 8):
        memcpy(&word, text.data + i, 8)
        v[3] ^= word
        sip_rounds(v, 2)
        v[0] ^= word
    word = <uint64_t>text.size << 56
    for i in range(whole, text.size):
        word |= <uint64_t>text.data[i] << (8 * (i - whole))
    v[3] ^= word
    sip_rounds(v, 2)
    v[0] ^= word
    v[2] ^= 0xFF
    sip_rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef size_t uid_key(const uint8_t* secret, int kind, Text text, uint64_t scope, uint8_t* out) noexcept nogil:
    """Write the uid table's key into `out` (`UID_MAX` bytes) and give its size."""
    cdef size_t size = 1, i
    cdef uint64_t hashed
    out[0] = kind
    if text.size <= TEXT_CUT:
        if text.size:
            memcpy(out + 1, text.data, text.size)
        size += text.size
    else:
        memcpy(out + 1, text.data, TEXT_CUT)
        hashed = siphash(secret, text)
        memcpy(out + 1 + TEXT_CUT, &hashed, 8)
        size += TEXT_CUT + 8
    if kind == UID_SERIES:
        for i in range(8):
            out[size] = scope >> (56 - 8 * i) & 0xFF
            size += 1
    return size


# --- the same from Python ---------------------------------------------------------------------------------

def normalised(int kind, bytes value not None):
    """The normalised values of an attribute, sorted, without code and marker; [b""] for an empty one."""
    return [key[2:] for key in attribute_keys(1, kind, value)]


def attribute_keys(int code, int kind, bytes value not None):
    """The keys of an attribute's value as they are in the `key` table, sorted."""
    cdef Arena arena
    cdef Key* keys = NULL
    cdef Text text
    arena.head = NULL
    text.data = value
    text.size = len(value)
    try:
        if add_keys(&arena, code, kind, text, &keys) < 0 or sort_keys(&arena, &keys) < 0:
            raise OutOfResourcesError("no memory for the keys of a value")
        return _listed(keys)
    finally:
        release(&arena)


def modality_date_keys(bytes modality not None, bytes date not None):
    """The compound keys of a modality in a study, or several of them, and the study's date, sorted."""
    cdef Arena arena
    cdef Key* keys = NULL
    cdef Text first, second
    arena.head = NULL
    first.data, first.size = modality, len(modality)
    second.data, second.size = date, len(date)
    try:
        if add_pair_key(&arena, CODE_MODALITY_DATE, first, second, &keys) < 0 or sort_keys(&arena, &keys) < 0:
            raise OutOfResourcesError("no memory for the keys of a value")
        return _listed(keys)
    finally:
        release(&arena)


def uid_table_key(bytes secret not None, int kind, bytes text not None, uint64_t scope=0):
    """The key of the `uid` table for a text of a kind (0 patient, 1 study, 2 series, 3 instance, 4 nameless)."""
    cdef uint8_t out[UID_MAX]
    cdef Text value
    if len(secret) != 16:
        raise ValueError("the secret has 16 bytes")
    value.data = text
    value.size = len(text)
    return (<const char*>out)[:uid_key(secret, kind, value, scope, out)]


cdef list _listed(Key* keys):
    cdef list found = []
    while keys != NULL:
        found.append((<const char*>keys.data)[:keys.size])
        keys = keys.next
    return found
