# cython: auto_pickle=False
"""Data sets to bytes, in any transfer syntax that is not compressed (PS3.5 section 7, Annex A).

What was read and is to be written as it was encoded is copied as it is, whatever is odd about it. All else is
encoded anew: lengths are even and true, what was cut off is closed, group lengths are left out (PS3.5 7.2), tags
ascend. Sequences and items keep their kind of length; new ones have a defined one. A value too long for the short
header of its VR goes under UN (PS3.5 6.2.2, note).
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pacs_core._ext.digits cimport width
from pacs_core._ext.given cimport Given
from pacs_core._ext.output cimport discard, grow, put, taken
from pacs_core._ext.tape cimport (
    MOST_DEPTH, N_BIG, N_EXPLICIT, N_FRAGMENTS, N_ITEMS, N_ODD, N_OPEN, N_UNDEFINED, N_UNSORTED, Node, Tape, find, past,
)
from pacs_core._ext.text cimport is_plain
from pacs_core._ext.tree cimport Element, Sequence, Tree
from pacs_core._ext.values cimport (
    LETTERS_SQ, LETTERS_UN, SETS_UTF8, VR_OB, VR_OW, kind_of, sets_of, text_value,
)
from pacs_core._ext.vr cimport (
    VR_ASCII, VR_AT, VR_LONG, VR_NAME, VR_OPAQUE, VR_RESOURCE, VR_UNKNOWN, VR_US, vr_kind,
)
from pacs_core._ext.walk cimport ITEM, ITEM_END, SEQUENCE_END, UNDEFINED

from pacs_core.errors import InvalidValueError

cdef enum:
    CHARACTER_SET = 0x00080005
    BULK = 65536        # bytes that are referred to rather than copied
    LETTERS_UI = 0x5549


cdef inline uint32_t unit(uint16_t vr) noexcept nogil:
    """Bytes of which the order is the byte order, of a binary VR (PS3.5 7.3); 1 where there is none."""
    cdef uint8_t kind = kind_of(vr)
    if kind == VR_AT or vr == VR_OW:
        return 2
    if VR_US <= kind < VR_OPAQUE:
        return width(kind)
    if vr == 0x4F46 or vr == 0x4F4C:    # OF, OL
        return 4
    if vr == 0x4F44 or vr == 0x4F56:    # OD, OV
        return 8
    return 1


cdef inline bint is_text(uint8_t kind) noexcept nogil:
    """Whether a kind of VR depends on the character set."""
    return VR_UNKNOWN < kind < VR_US and kind != VR_ASCII and kind != VR_RESOURCE


cdef inline bint is_alike(const Node* node, bint implicit, bint little) noexcept nogil:
    """Whether an element is encoded as it is to be written."""
    return (node.flags & N_EXPLICIT == 0) == implicit and (node.flags & N_BIG == 0) == little and (
        not node.flags & (N_OPEN | N_ODD)
    )


cdef tuple sets_in(Tree tree, tuple around):
    """The character set that the text of a data set is to be written in."""
    cdef object given
    if tree.given is not None and CHARACTER_SET in tree.given:
        given = tree.given[CHARACTER_SET]
        if given is None:
            return around
        if not isinstance(given, Given) or isinstance((<Given>given).data, tuple):
            raise InvalidValueError("SpecificCharacterSet is text", tag=CHARACTER_SET)
        return sets_of(bytes((<Given>given).data).strip(b" \0"))
    return around if tree.locate(CHARACTER_SET) == 0 else tree.context.sets


cdef tuple sets_around(Tree tree, bint meta):
    """The character set of what a data set is in. Who deletes its own leaves it with none, and must not have text
    of it written as if it were ASCII; but what is for us to read again is as it was."""
    if tree.context is None:
        return sets_of(b"")
    if not meta and tree.given is not None and CHARACTER_SET in tree.given and tree.given[CHARACTER_SET] is None:
        return sets_of(b"")
    return tree.context.sets


@cython.final
cdef class Encoder:
    """Writes one data set; `encode` is its use."""

    def __init__(self, bint implicit, bint little, bint meta, encode_text):
        self.implicit = implicit
        self.meta = meta
        self.little = little
        self.encode_text = encode_text
        self.pieces = []

    def __dealloc__(self):
        discard(&self.out)

    cdef int put16(self, uint32_t value) except -1:
        cdef uint8_t* out = grow(&self.out, 2)
        out[0 if self.little else 1] = value & 0xFF
        out[1 if self.little else 0] = value >> 8 & 0xFF
        return 0

    cdef int put32(self, uint32_t value) except -1:
        if self.little:
            self.put16(value & 0xFFFF)
            return self.put16(value >> 16)
        self.put16(value >> 16)
        return self.put16(value & 0xFFFF)

    cdef int put_tag(self, uint32_t tag) except -1:
        self.put16(tag >> 16)
        return self.put16(tag & 0xFFFF)

    cdef int set_length(self, size_t start) except -1:
        """Write the length of what came since `start` into the four bytes before it."""
        cdef size_t end = self.out.size
        if end - start >= UNDEFINED:
            raise InvalidValueError("a sequence of more than 4 GiB has to be of undefined length")
        self.out.size = start - 4
        self.put32(<uint32_t>(end - start))
        self.out.size = end
        return 0

    cdef int flush(self) except -1:
        if self.out.size:
            self.pieces.append(taken(&self.out))
        return 0

    cdef int refer(self, object view) except -1:
        """Write what is in a view, by reference outside of sequences: inside, lengths are still to be set."""
        cdef Py_buffer buffer
        if self.depth == 0 and len(view) >= BULK:
            self.flush()
            self.pieces.append(view)
            return 0
        PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
        try:
            put(&self.out, <const uint8_t*>buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)
        return 0

    cdef int header(self, uint32_t tag, uint16_t vr, uint64_t length) except -1:
        """Tag, VR and length (PS3.5 7.1.2, 7.1.3)."""
        cdef uint8_t[2] letters
        cdef uint8_t kind
        if length > UNDEFINED:
            raise InvalidValueError("a value of more than 4 GiB", tag=tag)
        self.put_tag(tag)
        if self.implicit:
            return self.put32(<uint32_t>length)
        letters[0] = vr >> 8
        letters[1] = vr & 0xFF
        kind = vr_kind(letters)
        if kind == VR_UNKNOWN or kind & VR_LONG or length > 0xFFFF:
            if kind != VR_UNKNOWN and not kind & VR_LONG:
                letters[0] = 0x55
                letters[1] = 0x4E
            put(&self.out, letters, 2)
            self.put16(0)
            return self.put32(<uint32_t>length)
        put(&self.out, letters, 2)
        return self.put16(<uint32_t>length)

    cdef int value(
        self, uint32_t tag, uint16_t vr, const uint8_t* data, uint64_t size, bint little, object view
    ) except -1:
        """An element with its value, made even and of the right byte order, without what is less than a number.
        `view`: the same bytes, or None."""
        cdef uint32_t step = unit(vr)
        cdef uint8_t kind = kind_of(vr)
        if VR_US <= kind < VR_OPAQUE:
            size -= size % width(kind)
        self.header(tag, vr, size + (size & 1))
        if step > 1 and little != self.little:
            return self.swapped(data, size, step)
        if view is not None:
            self.refer(view[:size])
        else:
            put(&self.out, data, size)
        if size & 1:
            grow(&self.out, 1)[0] = 0x20 if VR_UNKNOWN < kind < VR_US and vr != LETTERS_UI else 0
        return 0

    cdef int swapped(self, const uint8_t* data, uint64_t size, uint32_t step) except -1:
        """Units of `step` bytes in the other order, after padding to an even length; what is left as it is."""
        cdef uint64_t even = size + (size & 1)
        cdef uint64_t whole = even - even % step
        cdef uint8_t* out = grow(&self.out, even)
        cdef uint64_t at
        with nogil:
            for at in range(min(size, whole)):
                out[at ^ (step - 1)] = data[at]  # step is a power of two
            for at in range(whole, size):
                out[at] = data[at]
            if size < even:
                out[size ^ (step - 1) if size < whole else size] = 0
        return 0

    cdef int text(self, uint32_t tag, uint16_t vr, str text, tuple sets) except -1:
        """An element of text in a character set. InvalidValueError if that does not have it."""
        cdef bytes data
        try:
            data = text.encode() if sets[1] == SETS_UTF8 else self.encode_text(
                text, sets[0], kind_of(vr) == VR_NAME
            )
        except InvalidValueError as exc:
            raise InvalidValueError(
                f"{exc.args[0]}; SpecificCharacterSet can be set to ISO_IR 192", tag=tag
            ) from None
        return self.value(
            tag, vr, <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), self.little, None
        )

    cdef int fragments(self, uint32_t tag, uint16_t vr, tuple pieces) except -1:
        """Encapsulated data (PS3.5 A.4): the offset table and the fragments, an item each."""
        self.header(tag, vr, UNDEFINED)
        for piece in pieces:
            self.put_tag(ITEM)
            if len(piece) + 1 >= UNDEFINED:
                raise InvalidValueError("a fragment of more than 4 GiB", tag=tag)
            self.put32(<uint32_t>(len(piece) + (len(piece) & 1)))
            self.refer(piece)
            if len(piece) & 1:
                grow(&self.out, 1)[0] = 0
        self.put_tag(SEQUENCE_END)
        return self.put32(0)

    cdef int sequence(self, uint32_t tag, Sequence sequence, bint undefined, tuple sets) except -1:
        cdef Py_ssize_t place = 0
        cdef size_t start
        if self.depth == MOST_DEPTH:
            raise InvalidValueError(f"more than {MOST_DEPTH} sequences in each other", tag=tag)
        self.depth += 1
        self.header(tag, LETTERS_SQ, UNDEFINED if undefined else 0)
        start = self.out.size
        while place < len(sequence.members):
            self.item(sequence.member(place), sets)
            place += 1
        if undefined:
            self.put_tag(SEQUENCE_END)
            self.put32(0)
        else:
            self.set_length(start)
        self.depth -= 1
        return 0

    cdef int item(self, Tree tree, tuple sets) except -1:
        cdef bint undefined = tree.tape is not None and tree.tape.nodes[tree.root].flags & N_UNDEFINED
        cdef size_t start
        self.put_tag(ITEM)
        self.put32(UNDEFINED if undefined else 0)
        start = self.out.size
        self.elements(tree, sets)
        if undefined:
            self.put_tag(ITEM_END)
            return self.put32(0)
        return self.set_length(start)

    cdef int verbatim(self, Tree tree, uint64_t start, uint64_t end) except -1:
        """Copy what was read."""
        if self.depth == 0 and end - start >= BULK:
            return self.refer(tree.tape.slice(start, end - start))
        return put(&self.out, tree.tape.base + start, end - start)

    cdef bint is_left_out(self, uint32_t tag) noexcept:
        """Group lengths, and what would be taken for file meta information."""
        cdef uint32_t group = tag >> 16
        return tag & 0xFFFF == 0 or (self.depth == 0 and (group == 0 or group == 2) and not self.meta)

    cdef int elements(self, Tree tree, tuple around) except -1:
        """The elements of a data set or item."""
        cdef tuple sets = sets_in(tree, around)
        cdef Tape tape = tree.tape
        cdef bint alike
        cdef uint32_t at, end
        cdef uint64_t copied, stop
        cdef Node* nodes
        cdef Node* node
        cdef Element element
        cdef Sequence sequence
        if tape is not None and not tree.given and not tape.nodes[tree.root].flags & N_UNSORTED:
            # Nothing to be merged: runs of what stays as it is are copied at once.
            nodes = tape.nodes
            alike = sets is tree.context.sets or sets == tree.context.sets
            at = tree.root + 1
            end = nodes[tree.root].next
            copied = stop = 0
            while at < end:
                node = &nodes[at]
                sequence = None if tree.opened is None else tree.opened.get(node.tag)
                if (
                    alike and is_alike(node, self.implicit, self.little) and not self.is_left_out(node.tag)
                    and (sequence is None or not sequence.touched())
                ):
                    if stop != node.at - node.header:
                        self.verbatim(tree, copied, stop)
                        copied = node.at - node.header
                    stop = past(node)
                else:
                    self.verbatim(tree, copied, stop)
                    copied = stop = 0
                    if not self.is_left_out(node.tag):
                        self.read_element(tree, at, sets)
                at = node.next
            return self.verbatim(tree, copied, stop)
        for element in tree.elements(None, 0):
            if self.is_left_out(element.tag):
                continue
            if element.given is None:
                self.read_element(tree, element.node, sets)
            elif isinstance(element.given, Sequence):
                self.sequence(element.tag, <Sequence>element.given, False, sets)
            else:
                self.given_element(element.tag, <Given>element.given, sets)
        return 0

    cdef int read_element(self, Tree tree, uint32_t at, tuple sets) except -1:
        """One element that was read: as it is, or encoded anew."""
        cdef Tape tape = tree.tape
        cdef Node* node = &tape.nodes[at]
        cdef Sequence sequence = None if tree.opened is None else tree.opened.get(node.tag)
        cdef uint16_t vr = tree.vr_of(at)
        cdef uint8_t kind = kind_of(vr)
        cdef uint64_t length
        if (
            is_alike(node, self.implicit, self.little)
            and (sequence is None or not sequence.touched())
            and (sets == tree.context.sets or not (
                node.flags & N_ITEMS or vr == LETTERS_SQ
                or (is_text(kind) and not is_plain(tape.base + node.at, node.length))
            ))
        ):
            return self.verbatim(tree, node.at - node.header, past(node))
        if vr == LETTERS_SQ:
            return self.sequence(node.tag, tree.sequence(at), node.flags & N_UNDEFINED != 0, sets)
        if node.flags & N_FRAGMENTS:
            return self.fragments(node.tag, vr, tree.node_value(at, False))
        if is_text(kind) and sets != tree.context.sets and not is_plain(tape.base + node.at, node.length):
            return self.text(
                node.tag, vr, text_value(tape.base + node.at, node.length, kind, tree.context.sets, tree.context.types),
                sets,
            )
        length = node.length
        if node.vr == LETTERS_UN:
            vr = LETTERS_UN  # little endian whatever it holds (PS3.5 6.2.2)
            if VR_US <= kind < VR_OPAQUE:
                length -= length % width(kind)  # padding must not make a number of what is less than one
        return self.value(
            node.tag, vr, tape.base + node.at, length, node.flags & N_BIG == 0,
            tape.slice(node.at, node.length) if node.length >= BULK else None,
        )

    cdef int given_element(self, uint32_t tag, Given given, tuple sets) except -1:
        """One element that was set."""
        cdef Py_buffer buffer
        if isinstance(given.data, tuple):
            return self.fragments(tag, given.vr, given.data)
        PyObject_GetBuffer(given.data, &buffer, PyBUF_SIMPLE)
        try:
            if is_text(kind_of(given.vr)) and not is_plain(<const uint8_t*>buffer.buf, buffer.len):
                return self.text(tag, given.vr, (<bytes>given.data).decode(), sets)
            return self.value(
                tag, given.vr, <const uint8_t*>buffer.buf, buffer.len, True,
                given.data if buffer.len >= BULK else None,
            )
        finally:
            PyBuffer_Release(&buffer)


cdef object value_bytes(Element element):
    """The value of an element as in explicit VR little endian: of encapsulated data, offset table and fragments
    as items, without the delimiter."""
    cdef Encoder encoder = Encoder(False, True, False, None)
    cdef Node* node = NULL
    cdef uint32_t step
    cdef object data
    if element.given is not None:
        data = (<Given>element.given).data
    else:
        node = &element.dataset.tape.nodes[element.node]
        data = element.dataset.node_value(element.node, False) if node.flags & N_FRAGMENTS else (
            element.dataset.tape.slice(node.at, node.length)
        )
    if isinstance(data, tuple):
        encoder.depth = 1  # in one piece
        encoder.fragments(element.tag, VR_OB, data)
        encoder.out.size -= 8
        return taken(&encoder.out)[12:]
    if node == NULL or not node.flags & N_BIG or node.vr == LETTERS_UN:
        return data
    step = unit(element.dataset.vr_of(element.node))
    if step == 1:
        return data
    encoder.swapped(element.dataset.tape.base + node.at, node.length, step)
    return taken(&encoder.out)


def encode(Tree tree not None, encode_text, *, bint implicit=False, bint little=True, bint meta=False):
    """The data set as bytes, in pieces: bytes, and views of bulk data.

    If `meta`, it is file meta information; otherwise nothing of groups 0000 and 0002 is written.

    Parameters
    ----------
    encode_text : callable (text, character_set, is_name) -> bytes
        As `dicom.charset.encode`.

    Raises
    ------
    InvalidValueError
        If text can't be written in the data set's character set; for more than 256 sequences in each other;
        for a value or a sequence of defined length over 4 GiB.
    """
    cdef Encoder encoder = Encoder(implicit, little, meta, encode_text)
    cdef Tape tape = tree.tape
    if (
        tape is not None and not tree.touched() and tape.cut is None
        and tape.implicit == implicit and tape.little == little and tree.root == 0
    ):
        encoder.verbatim(tree, tape.nodes[0].at, tape.nodes[0].at + tape.nodes[0].length)
    else:
        encoder.elements(tree, sets_around(tree, meta))
    encoder.flush()
    return encoder.pieces
