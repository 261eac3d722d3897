# cython: auto_pickle=False
"""Data sets to index fields: the walk (walk.pyx), and the kept values made text.

Of a wanted sequence the items become implicit VR little endian of defined lengths, with the wanted ones of their
attributes that have a value, in UTF-8, each of even length.

Values become UTF-8: what is ASCII, UTF-8 or Latin-1 natively, other character sets by the decoder that the
scanner was given. Walks short enough to be over before another thread could have run keep the GIL: giving it up
costs more, when other threads are busy, than the few microseconds that they take.
"""

cimport cython

import zlib

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from pacs_core._ext.cursor cimport be16, be32, be64, le16, le32, le64
from pacs_core._ext.digits cimport put32, put_hex, put_signed, put_unsigned, width
from pacs_core._ext.findings cimport findings_of
from pacs_core._ext.record cimport RECORD_ENTRY, RECORD_VERSION
from pacs_core._ext.text cimport (
    cut_utf8, from_latin1, has_escape, is_plain, is_utf8, strip_padding, whole_utf8, whole_values,
)
from pacs_core._ext.vr cimport (
    VR_ASCII, VR_AT, VR_FD, VR_FL, VR_KIND, VR_NAME, VR_PROSE, VR_RESOURCE, VR_SL, VR_SQ, VR_SS, VR_SV, VR_UL,
    VR_UNKNOWN, VR_US, VR_UV, vr_kind,
)
from pacs_core._ext.walk cimport (
    CARRY, F_BAD_DEFLATE, F_BAD_LENGTH, F_CHARACTER_SET, F_CHARACTERS, F_CUT, F_MISLABELLED, F_TRAILING,
    FAIL_MEMORY, FAIL_NO, ITEM, ITEM_END, KEEP, STRAY_LIMIT, UNDEFINED, WANTED_LIMIT, Slot, Walk, walk_begin,
    walk_end, walk_free, walk_note, walk_run,
)

from pacs_core.errors import UnparsableError

cdef enum:
    GIL_BUDGET = 1024            # headers walked before the GIL is given up
    CHARACTER_SET = 0x00080005
    INFLATE_IN = 16384           # bytes given to zlib at once, and taken
    INFLATE_OUT = 65536
    INFLATE_STEP = 64            # bytes given at once to find where a stream breaks
    SCRATCH = 6144               # bytes of fields built on the stack

# How the text of a data set is encoded.
cdef enum:
    SETS_NONE
    SETS_LATIN1
    SETS_UTF8
    SETS_OTHER

cdef dict SETS = {
    b"": (b"", SETS_NONE),
    b"ISO_IR 6": (b"ISO_IR 6", SETS_NONE),
    b"ISO_IR 100": (b"ISO_IR 100", SETS_LATIN1),
    b"ISO_IR 192": (b"ISO_IR 192", SETS_UTF8),
}
cdef tuple NO_SETS = SETS[b""]
cdef uint32_t[4] UIDS = [0x00080016, 0x00080018, 0x0020000D, 0x0020000E]


@cython.final
cdef class Header:
    """What the scan of one data set found; immutable. Made by Scanner and Scan."""

    def __init__(self):
        raise TypeError("headers are made by a scan")

    def __repr__(self):
        return (
            f"<Header {self.sop_instance_uid!r}, {len(self.fields)} bytes of fields, "
            f"{len(self.findings)} findings{', truncated' if self.truncated else ''}>"
        )


cdef size_t put_real(uint8_t* out, double value) except? 0:
    cdef bytes text = repr(value).encode()
    memcpy(out, <const char*>text, len(text))
    return len(text)


cdef size_t put_numbers(uint8_t* out, const uint8_t* p, uint32_t size, uint8_t kind, bint little) except? 0:
    """Binary numbers as decimal text (AT: eight hexadecimal digits), joined by backslashes; the bytes written."""
    cdef uint32_t step = width(kind)
    cdef uint32_t i = 0
    cdef size_t n = 0
    cdef uint64_t bits
    cdef uint32_t word
    cdef float real
    cdef double precise
    while i + step <= size:
        if n:
            out[n] = 0x5C
            n += 1
        if step == 2:
            bits = le16(p + i) if little else be16(p + i)
        elif step == 4:
            bits = le32(p + i) if little else be32(p + i)
        else:
            bits = le64(p + i) if little else be64(p + i)
        if kind == VR_US or kind == VR_UL or kind == VR_UV:
            n += put_unsigned(out + n, bits)
        elif kind == VR_SS:
            n += put_signed(out + n, <int16_t>bits)
        elif kind == VR_SL:
            n += put_signed(out + n, <int32_t>bits)
        elif kind == VR_SV:
            n += put_signed(out + n, <int64_t>bits)
        elif kind == VR_AT:
            word = le16(p + i) if little else be16(p + i)
            word = word << 16 | (le16(p + i + 2) if little else be16(p + i + 2))
            n += put_hex(out + n, word)
        elif kind == VR_FL:
            word = <uint32_t>bits
            memcpy(&real, &word, 4)
            n += put_real(out + n, real)
        else:
            memcpy(&precise, &bits, 8)
            n += put_real(out + n, precise)
        i += step
    return n


cdef inline uint32_t tag_at(const uint8_t* p, bint little) noexcept nogil:
    return <uint32_t>le16(p) << 16 | le16(p + 2) if little else <uint32_t>be16(p) << 16 | be16(p + 2)


cdef str uid_text(const uint8_t* out, size_t at, size_t size):
    return PyUnicode_DecodeUTF8(<const char*>out + at, size, "replace") if size else ""


cdef tuple strays(Walk* w):
    cdef uint32_t i
    if w.stray_count == 0:
        return ()
    return tuple([(w.strays[i].start, w.strays[i].end) for i in range(w.stray_count)])


cdef class Scanner:
    """Scans data sets for certain attributes.

    Parameters
    ----------
    wanted : sequence of (tag, VR)
        What to keep, at most 255. Binary data can't be, sequences with `items` only.
    encodings : mapping of transfer syntax UID to (implicit, little_endian, deflated)
        Any other transfer syntax is explicit VR little endian.
    decode : callable (value, character_set, is_name) -> (text, sound)
        Decodes a value of a character set other than ASCII, Latin-1 and UTF-8, or with escape sequences.
    known : callable (character_set) -> bool
        Whether a value of (0008,0005) is one of the standard's.
    items : sequence of (tag, VR)
        What to keep of the items of wanted sequences; no sequences.
    inflate_limit : int
        Bytes that a deflated data set may inflate to.
    """

    def __init__(self, wanted, encodings, decode, known, *, items=(), uint64_t inflate_limit=1 << 30):
        cdef uint32_t i
        cdef uint8_t kind
        cdef dict kinds = {CHARACTER_SET: VR_ASCII}
        for tag, vr in wanted:
            kind = vr_kind(vr.encode()) & VR_KIND
            if kind == VR_UNKNOWN or (kind > VR_AT and not (kind == VR_SQ and items)):
                raise ValueError(f"{vr} can't be indexed")
            kinds[tag] = kind
        if len(kinds) >= WANTED_LIMIT:
            raise ValueError(f"too many attributes: {len(kinds)}")
        self.keeps_character_set = any(tag == CHARACTER_SET for tag, _ in wanted)
        self.uids[:] = [-1, -1, -1, -1]
        self.count = len(kinds)
        for i, tag in enumerate(sorted(kinds)):
            self.tags[i] = tag
            self.kinds[i] = kinds[tag]
            if tag == CHARACTER_SET:
                self.character_set = i
            for uid in range(4):
                if UIDS[uid] == tag:
                    self.uids[uid] = i
        self.encodings = dict(encodings)
        self.decode = decode
        self.known = known
        self.inflate_limit = inflate_limit
        self.nested = Scanner(items, encodings, decode, known) if items else None

    cdef int begin(self, Walk* w, str transfer_syntax_uid) except -1:
        """Make a walk ready; whether the data set is deflated."""
        cdef tuple encoding = <tuple>self.encodings.get(transfer_syntax_uid)
        walk_begin(w, self.tags, self.kinds, self.count)
        w.little = True
        if encoding is None:
            return 0
        w.implicit = encoding[0]
        w.little = encoding[1]
        return 1 if encoding[2] else 0

    def scan(self, data, str transfer_syntax_uid not None):
        """Scan a whole data set, held in memory, without file meta information.

        Raises UnparsableError if it can't be handled at all: more than a thousand separate ranges of elements
        of groups 0000 and 0002, or a deflated one that inflates beyond the limit.
        """
        cdef Walk w
        cdef Py_buffer view
        cdef const uint8_t* start
        cdef size_t size, done
        cdef Scan scan
        if self.begin(&w, transfer_syntax_uid):
            scan = Scan(self, transfer_syntax_uid)
            scan.feed(data)
            return scan.finish()
        w.whole = True
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            start = <const uint8_t*>view.buf
            size = view.len
            done = walk_run(&w, start, size, True, GIL_BUDGET)
            if w.paused:
                with nogil:
                    while w.paused:
                        done += walk_run(&w, start + done, size - done, True, 0xFFFFFFFFU)
            walk_end(&w, start + done, size - done)
            return self.header(&w, start)
        finally:
            PyBuffer_Release(&view)
            walk_free(&w)

    cdef Header header(self, Walk* w, const uint8_t* base):
        """The header of a walk that has ended; `base` is where the slots count from."""
        cdef Header header
        cdef Slot* slot
        cdef uint32_t i
        cdef uint8_t[SCRATCH] scratch
        cdef uint8_t* out = scratch
        cdef size_t room = 1
        cdef size_t n = 1
        cdef size_t size
        cdef size_t[4] uid_at
        cdef size_t[4] uid_size
        cdef int sets
        cdef bytes character_set
        if w.failed == FAIL_MEMORY:
            raise MemoryError
        if w.failed != FAIL_NO:
            raise UnparsableError(
                f"more than {STRAY_LIMIT} separate ranges of elements of groups 0000 and 0002", offset=w.offset
            )
        for i in range(self.count):
            slot = &w.slots[i]
            if slot.kind != VR_UNKNOWN:
                # UTF-8 takes 3 bytes at most for one of any character set, decimal text 12 for one of a number.
                room += RECORD_ENTRY + (12 * slot.size if VR_US <= slot.kind <= VR_AT else 3 * slot.size)
        for i in range(4):
            uid_size[i] = 0
        if room > SCRATCH:
            out = <uint8_t*>PyMem_Malloc(room)
            if out == NULL:
                raise MemoryError
        try:
            character_set, sets = self.character_sets(w, base)
            out[0] = RECORD_VERSION
            for i in range(self.count):
                slot = &w.slots[i]
                if slot.kind == VR_UNKNOWN or (<int>i == self.character_set and not self.keeps_character_set):
                    continue
                size = self.put_value(w, slot, i, base, out + n + RECORD_ENTRY, sets, character_set)
                put32(out + n, self.tags[i])
                put32(out + n + 4, size)
                n += RECORD_ENTRY
                for uid in range(4):
                    if self.uids[uid] == <int>i:
                        uid_at[uid] = n
                        uid_size[uid] = size
                n += size
            header = Header.__new__(Header)
            header.fields = PyBytes_FromStringAndSize(<const char*>out, n)
            header.sop_class_uid = uid_text(out, uid_at[0], uid_size[0])
            header.sop_instance_uid = uid_text(out, uid_at[1], uid_size[1])
            header.study_instance_uid = uid_text(out, uid_at[2], uid_size[2])
            header.series_instance_uid = uid_text(out, uid_at[3], uid_size[3])
        finally:
            if out != scratch:
                PyMem_Free(out)
        header.findings = findings_of(w)
        header.stray = strays(w)
        header.truncated = w.truncated
        return header

    cdef tuple character_sets(self, Walk* w, const uint8_t* base):
        """(0008,0005), as it is, and how its text is decoded."""
        cdef Slot* slot = &w.slots[self.character_set]
        cdef bytes value
        if slot.kind == VR_UNKNOWN or slot.size == 0:
            return NO_SETS
        value = (<const char*>base)[slot.at:slot.at + slot.size].strip(b" \0")
        if value in SETS:
            return SETS[value]
        if not self.known(value):
            walk_note(w, F_CHARACTER_SET, CHARACTER_SET, 0)
        return value, SETS_OTHER

    cdef size_t put_value(
        self, Walk* w, Slot* slot, uint32_t place, const uint8_t* base, uint8_t* out, int sets, bytes character_set
    ) except? 0:
        """Write one value as text, UTF-8, without padding; the bytes written, at most KEEP."""
        cdef const uint8_t* p = base + slot.at
        cdef size_t n
        cdef bint cut = slot.cut
        if slot.size == 0:
            return 0
        if slot.kind == VR_SQ:
            n = self.put_items(w, slot, p, out, sets, character_set, &cut)
            if cut:
                walk_note(w, F_CUT, self.tags[place], 0)
            return n
        if slot.kind >= VR_US:
            n = put_numbers(out, p, slot.size, slot.kind, slot.little)
            if slot.size % width(slot.kind):
                walk_note(w, F_BAD_LENGTH, self.tags[place], 0)
        else:
            n = self.put_text(w, slot, place, p, out, sets, character_set)
            n = strip_padding(out, n, slot.kind)
        if n > KEEP or slot.cut:
            walk_note(w, F_CUT, self.tags[place], 0)
            n = cut_utf8(out, n, KEEP)
            if slot.kind != VR_PROSE and slot.kind != VR_RESOURCE:
                n = whole_values(out, n)
        return n

    cdef size_t put_items(
        self, Walk* w, Slot* slot, const uint8_t* p, uint8_t* out, int sets, bytes character_set, bint* cut
    ) except? 0:
        """Write the items of a sequence, as many whole ones as KEEP bytes have room for; the bytes written."""
        cdef Walk part
        cdef bint little = slot.little
        cdef size_t at = 0, n = 0, begin, end, step, size
        cdef uint32_t length
        while slot.size - at >= 8 and tag_at(p + at, little) == ITEM:
            length = le32(p + at + 4) if little else be32(p + at + 4)
            at += 8
            begin = at
            end = slot.size if length == UNDEFINED or length > slot.size - at else at + length
            walk_begin(&part, self.nested.tags, self.nested.kinds, self.nested.count)
            part.whole = part.oriented = True
            part.implicit = w.implicit or slot.un
            part.little = little
            part.mixed = w.mixed
            while at < end:
                if (length == UNDEFINED and part.depth == 0 and part.skip == 0 and end - at >= 8
                        and tag_at(p + at, little) == ITEM_END):
                    at += 8
                    break
                step = walk_run(&part, p + at, end - at, True, 1)
                at += step
                if step == 0:
                    at = end
            try:
                size = self.put_item(&part, p + begin, out + n + 8, sets, character_set)
            finally:
                walk_free(&part)
            if n + 8 + size > KEEP:
                cut[0] = True
                break
            put32(out + n, 0xE000FFFE)
            put32(out + n + 4, size)
            n += 8 + size
        return n

    cdef size_t put_item(
        self, Walk* part, const uint8_t* base, uint8_t* out, int sets, bytes character_set
    ) except? 0:
        """Write the elements of an item, whose character set is that of the data set if it has none."""
        cdef Scanner nested = self.nested
        cdef Slot* slot
        cdef uint32_t i
        cdef size_t n = 0, size
        if part.slots[nested.character_set].kind != VR_UNKNOWN:
            character_set, sets = nested.character_sets(part, base)
        for i in range(nested.count):
            slot = &part.slots[i]
            if slot.kind == VR_UNKNOWN or <int>i == nested.character_set:
                continue
            size = nested.put_value(part, slot, i, base, out + n + 8, sets, character_set)
            if size == 0:
                continue
            if size & 1:
                out[n + 8 + size] = 0x20
                size += 1
            put32(out + n, nested.tags[i] << 16 | nested.tags[i] >> 16)
            put32(out + n + 4, size)
            n += 8 + size
        return n

    cdef size_t put_text(
        self, Walk* w, Slot* slot, uint32_t place, const uint8_t* p, uint8_t* out, int sets, bytes character_set
    ) except? 0:
        """Write one value of a text VR as UTF-8; the bytes written."""
        cdef const char* text
        cdef Py_ssize_t size
        if is_plain(p, slot.size):
            memcpy(out, p, slot.size)
            return slot.size
        if slot.kind == VR_ASCII or slot.kind == VR_RESOURCE:
            walk_note(w, F_CHARACTERS, self.tags[place], 0)
            if is_utf8(p, slot.size):
                memcpy(out, p, slot.size)
                return slot.size
            return from_latin1(out, p, slot.size)
        if sets == SETS_UTF8:
            if slot.cut:
                slot.size = whole_utf8(p, slot.size)
            if is_utf8(p, slot.size):
                memcpy(out, p, slot.size)
                return slot.size
        if sets == SETS_LATIN1 and not has_escape(p, slot.size):
            return from_latin1(out, p, slot.size)
        decoded, sound = self.decode((<const char*>p)[:slot.size], character_set, slot.kind == VR_NAME)
        if not sound:
            walk_note(w, F_CHARACTERS, self.tags[place], 0)
        text = PyUnicode_AsUTF8AndSize(decoded, &size)
        if size > 3 * <Py_ssize_t>slot.size:
            # More than the room: no text may make a data set unreadable.
            walk_note(w, F_CHARACTERS, self.tags[place], 0)
            size = cut_utf8(<const uint8_t*>text, size, 3 * <size_t>slot.size)
        memcpy(out, text, size)
        return size


cdef class Scan:
    """The scan of one data set that arrives in chunks, of any size: `feed` each, then `finish`.

    Memory does not grow with the data set: what is not wanted is passed over, a wanted value kept up to 8 KiB.
    """

    def __init__(self, Scanner scanner not None, str transfer_syntax_uid not None):
        walk_free(&self.walk)
        self.scanner = scanner
        self.deflated = scanner.begin(&self.walk, transfer_syntax_uid) == 1
        self.carried = 0
        self.inflater = None
        self.inflated = self.pumped = 0
        self.piece = bytearray()
        self.over = False
        self.finished = False

    def __dealloc__(self):
        walk_free(&self.walk)

    def feed(self, data):
        """Take the next bytes of the data set. Raises as Scanner.scan."""
        cdef Py_buffer view
        if self.finished:
            raise ValueError("the scan is finished")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if self.deflated:
                self.inflate(<const uint8_t*>view.buf, view.len)
            else:
                self.push(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def finish(self):
        """The data set has ended: what was found. Raises as Scanner.scan."""
        cdef size_t done = 0
        if self.finished:
            raise ValueError("the scan is finished")
        self.finished = True
        if self.piece:
            self.inflate_piece()
        if self.deflated and not self.over:
            self.walk.truncated = True
        done = walk_run(&self.walk, self.carry, self.carried, True, 0xFFFFFFFFU)
        walk_end(&self.walk, self.carry + done, self.carried - done)
        return self.scanner.header(&self.walk, self.walk.arena)

    cdef int push(self, const uint8_t* data, size_t size) except -1:
        """Walk through the next bytes; what is left over for lack of a whole header is carried."""
        cdef size_t at = 0
        cdef size_t done, taken
        # A failed walk takes nothing more: waiting for it to empty the carry would be for ever.
        while self.carried and at < size and not self.walk.failed:
            taken = min(CARRY - self.carried, size - at)
            memcpy(self.carry + self.carried, data + at, taken)
            done = walk_run(&self.walk, self.carry, self.carried + taken, False, 0xFFFFFFFFU)
            if done >= self.carried:
                at += done - self.carried
                self.carried = 0
            else:
                at += taken
                self.carried += taken - done
                memmove(self.carry, self.carry + done, self.carried)
        if at == size or self.walk.failed:
            return 0
        at += walk_run(&self.walk, data + at, size - at, False, GIL_BUDGET)
        if self.walk.paused:
            with nogil:
                while self.walk.paused:
                    at += walk_run(&self.walk, data + at, size - at, False, 0xFFFFFFFFU)
        if not self.walk.failed:
            self.carried = size - at
            memcpy(self.carry, data + at, self.carried)
        return 0

    cdef int inflate(self, const uint8_t* data, size_t size) except -1:
        """Collect the next bytes of a deflated data set into pieces of one size, and inflate each.

        One size, so that what a broken stream gives does not depend on the chunks it came in.
        """
        cdef size_t at = 0
        cdef size_t taken
        while at < size and not self.over:
            taken = min(INFLATE_IN - <size_t>len(self.piece), size - at)
            self.piece += data[at:at + taken]
            at += taken
            if len(self.piece) == INFLATE_IN:
                self.inflate_piece()
            if not self.deflated:
                return self.push(data + at, size - at)
        return 0

    cdef int inflate_piece(self) except -1:
        """Inflate the collected piece. A stream that breaks ends the data set there: then it is truncated."""
        cdef bytes piece = bytes(self.piece)
        cdef int at
        self.piece.clear()
        if self.inflater is None:
            self.inflater = self.choose(piece)
        if self.inflater is None:
            return self.push(piece, len(piece))
        spare = self.inflater.copy()
        try:
            self.pump(piece)
        except zlib.error:
            # What came before the break in this piece is gone with it: again, in small steps.
            if self.inflated == self.pumped:
                self.inflater = spare
                try:
                    for at in range(0, len(piece), INFLATE_STEP):
                        self.pump(piece[at:at + INFLATE_STEP])
                except zlib.error:
                    pass
            walk_note(&self.walk, F_BAD_DEFLATE, 0, self.walk.offset)
            self.walk.truncated = True
            self.over = True
        if not self.over and self.inflater.eof:
            self.over = True
            # A padding byte makes the length even (PS3.5 A.5).
            if self.inflater.unused_data.strip(b"\0"):
                walk_note(&self.walk, F_TRAILING, 0, self.walk.offset)
        self.pumped = self.inflated
        return 0

    cdef int pump(self, bytes pending) except -1:
        """Give bytes to zlib, and what it makes of them to the walk, in bounded steps."""
        cdef bytes out
        while True:
            out = self.inflater.decompress(pending, INFLATE_OUT)
            pending = self.inflater.unconsumed_tail
            self.inflated += len(out)
            if self.inflated > self.scanner.inflate_limit:
                raise UnparsableError(
                    f"a deflated data set of more than {self.scanner.inflate_limit} bytes", offset=self.inflated
                )
            self.push(out, len(out))
            if self.inflater.eof or len(out) < INFLATE_OUT:
                return 0  # zlib has taken it all: it makes less than asked for only then

    cdef object choose(self, bytes head):
        """The inflater that the first bytes ask for.

        Raw deflate, as PS3.5 A.5 has it; with a zlib header, as some write it; None if it is not deflated.
        """
        if head[:1] in (b"\x02", b"\x08") and head[1:2] == b"\0" and head[4:6].isalpha() and head[4:6].isupper():
            walk_note(&self.walk, F_MISLABELLED, 0, 0)
            self.deflated = False
            return None
        if len(head) > 1 and head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0:
            walk_note(&self.walk, F_BAD_DEFLATE, 0, 0)
            return zlib.decompressobj(zlib.MAX_WBITS)
        return zlib.decompressobj(-zlib.MAX_WBITS)
