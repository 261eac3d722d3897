# cython: auto_pickle=False
"""Data sets: a tape, and over it what was set and deleted.

What was read stays bytes until it is asked for. What is set is kept in one form, whatever the data set is
encoded in: text in UTF-8, numbers in little endian; `encode.pyx` makes of both what is to be written.
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from operator import index

from pacs_core._ext.dictionary cimport Entry, entry_of
from pacs_core._ext.given cimport Context, Given, context_of, given_of, given_value, is_opaque, plain_context, resolved
from pacs_core._ext.naming cimport keyword_of, missing, step_of, tag_of
from pacs_core._ext.tape cimport (
    MOST_DEPTH, N_BIG, N_FRAGMENTS, N_ITEMS, N_UNDEFINED, N_UNSORTED, Node, Tape, find,
)
from pacs_core._ext.values cimport (
    LETTERS_SQ, LETTERS_UN, VR_OB, kind_of, letters_of, value_of, values_of, vr_text,
)

from pacs_core.errors import InvalidValueError

cdef object NOT_THERE = object()


@cython.final
cdef class Sequence:
    """The items of a sequence (PS3.5 7.5), as a list of data sets; made when they are looked at.

    Parameters
    ----------
    items : iterable of Dataset
    """

    def __cinit__(self):
        self.members = []
        self.changed = True

    def __init__(self, items=()):
        self.members = []
        self.changed = True
        self.extend(items)

    @cython.boundscheck(True)  # who iterates over items may remove some meanwhile, and so may a class that makes them
    cdef Tree member(self, Py_ssize_t place):
        cdef object found = self.members[place]
        cdef Tree tree
        if isinstance(found, Tree):
            return <Tree>found
        tree = new_tree(self.context.made)
        tree.tape = self.tape
        tree.root = found
        tree.context = context_of(tree.tape, tree.root, self.context)
        self.members[place] = tree
        return tree

    cdef bint touched(self) except -1:
        """Whether anything in it is not as it was read."""
        if self.changed:
            return True
        for member in self.members:
            if isinstance(member, Tree) and (<Tree>member).touched():
                return True
        return False

    def copy(self):
        """A sequence of copies of its data sets."""
        cdef Sequence copied = Sequence.__new__(Sequence)
        copied.context = self.context
        copied.tape = self.tape
        copied.changed = self.changed
        copied.members = [
            (<Tree>member).copy() if isinstance(member, Tree) else member for member in self.members
        ]
        return copied

    def __len__(self):
        return len(self.members)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        return Sequence, (list(self),)

    def __getitem__(self, key):
        if isinstance(key, slice):
            return [self.member(place) for place in range(*key.indices(len(self.members)))]
        return self.member(place_of(key, len(self.members)))

    def __setitem__(self, place, item):
        self.members[place_of(place, len(self.members))] = checked_item(item)
        self.changed = True

    def __delitem__(self, place):
        del self.members[place]
        self.changed = True

    def insert(self, place, item):
        """Put a data set before that of the place."""
        self.members.insert(place, checked_item(item))
        self.changed = True

    def append(self, item):
        """Add a data set at the end."""
        self.members.append(checked_item(item))
        self.changed = True

    def extend(self, items):
        """Add several at the end."""
        for item in items:
            self.append(item)

    def __iter__(self):
        cdef Py_ssize_t place = 0
        while place < len(self.members):
            yield self.member(place)
            place += 1

    def __eq__(self, other):
        if isinstance(other, Sequence):
            return same_items(self, <Sequence>other)
        return list(self) == list(other) if isinstance(other, (list, tuple)) else NotImplemented

    def __repr__(self):
        return f"<Sequence of {len(self)} item{'' if len(self) == 1 else 's'}>"


cdef bint same_items(Sequence one, Sequence other) except -1:
    cdef Py_ssize_t place = 0
    if len(one.members) != len(other.members):
        return False
    while place < len(one.members):
        if not same_elements(one.member(place), other.member(place)):
            return False
        place += 1
    return True


cdef bint same_elements(Tree one, Tree other) except -1:
    """Whether two data sets have the same elements: tags, VRs, values."""
    cdef list mine, its
    if one is other:
        return True
    mine = one.elements(None, 0)
    its = other.elements(None, 0)
    if len(mine) != len(its):
        return False
    Py_EnterRecursiveCall(" while comparing data sets")  # one that holds itself has no end
    try:
        for a, b in zip(mine, its):
            if not same_element(<Element>a, <Element>b):
                return False
        return True
    finally:
        Py_LeaveRecursiveCall()


cdef bint same_element(Element one, Element other) except -1:
    cdef Sequence mine, its
    if one.tag != other.tag or one.letters() != other.letters():
        return False
    mine = one.items()
    its = other.items()
    if mine is not None and its is not None:
        return same_items(mine, its)
    return one.values == other.values


cdef Py_ssize_t place_of(object key, Py_ssize_t count) except -1:
    """The item that an index means, from the end if it is negative. IndexError if there is none."""
    cdef object place = index(key)
    if not -count <= place < count:
        raise IndexError(f"no item {key} in a sequence of {count}")
    return place if place >= 0 else place + count


cdef Tree checked_item(object item):
    if not isinstance(item, Tree):
        raise InvalidValueError(f"an item of a sequence is a Dataset, not {type(item).__name__}")
    return <Tree>item


cdef class Tree:
    """The elements of a data set; `dicom.dataset.Dataset` is what users see of it.

    A class made of it has an attribute `types`: the `Types` that its values become.
    """

    def __cinit__(self):
        self.tape = None
        self.given = None
        self.opened = None
        self.context = None
        self.meta = None

    cdef Context reading(self):
        if self.context is None:
            self.context = plain_context(type(self))
        return self.context

    cdef uint32_t locate(self, uint32_t tag):
        """The node of an element that was read; 0 if there is none."""
        return 0 if self.tape is None else find(self.tape.nodes, self.root, tag)

    cdef uint16_t vr_of(self, uint32_t node) except 0:
        """The VR of a node: its own, or what the dictionaries say where it has none."""
        cdef Node* n = &self.tape.nodes[node]
        cdef const Entry* entry
        if n.flags & N_ITEMS:
            return LETTERS_SQ
        if n.vr != 0 and n.vr != LETTERS_UN:
            return n.vr
        entry = entry_of(n.tag)
        if entry != NULL and entry.vr:
            if n.flags & N_FRAGMENTS:
                return VR_OB
            return resolved(entry, entry.vr2 != 0 and self.context.is_signed())
        if n.tag >> 16 & 1:
            return letters_of(self._private_vr(n.tag))
        return LETTERS_UN

    cdef Sequence sequence(self, uint32_t node):
        """The sequence that a node is, or holds in bytes that were not parsed."""
        cdef Node* n = &self.tape.nodes[node]
        cdef Sequence found
        cdef Tape tape = self.tape
        cdef uint32_t at, end
        if self.opened is None:
            self.opened = {}
        elif n.tag in self.opened:
            return <Sequence>self.opened[n.tag]
        if n.flags & N_ITEMS:
            at = node + 1
            end = n.next
        else:
            tape = tape.within(node)
            at = 1
            end = tape.nodes[0].next
        found = Sequence.__new__(Sequence)
        found.context = self.context
        found.tape = tape
        found.changed = False
        while at < end:
            found.members.append(at)
            at = tape.nodes[at].next
        # Parsing may let another thread run, which was here first.
        return <Sequence>self.opened.setdefault(n.tag, found)

    cdef object node_value(self, uint32_t node, bint all):
        """The value, or all values, of an element that was read."""
        cdef Node* n = &self.tape.nodes[node]
        cdef uint16_t vr = self.vr_of(node)
        cdef uint32_t at
        cdef list pieces
        cdef bint little
        if vr == LETTERS_SQ:
            found = self.sequence(node)
            return (found,) if all else found
        if n.flags & N_FRAGMENTS:
            pieces = []
            at = node + 1
            while at < n.next:
                pieces.append(self.tape.slice(self.tape.nodes[at].at, self.tape.nodes[at].length))
                at = self.tape.nodes[at].next
            return (tuple(pieces),) if all else tuple(pieces)
        if is_opaque(vr):
            if n.length == 0:
                return () if all else None
            view = self.tape.slice(n.at, n.length)
            return (view,) if all else view
        little = not n.flags & N_BIG or n.vr == LETTERS_UN
        if all:
            return values_of(
                self.tape.base + n.at, n.length, vr, little, self.context.sets, self.context.types
            )
        return value_of(self.tape.base + n.at, n.length, vr, little, self.context.sets, self.context.types)

    cdef object value(self, uint32_t tag, bint all):
        """The value, or all values, of an element; NOT_THERE if there is none."""
        cdef uint32_t node
        cdef object given
        if self.given is not None:
            given = self.given.get(tag, NOT_THERE)
            if given is None:
                return NOT_THERE
            if given is not NOT_THERE:
                if isinstance(given, Sequence):
                    return (given,) if all else given
                return given_value(<Given>given, self.reading(), all)
        node = self.locate(tag)
        return NOT_THERE if node == 0 else self.node_value(node, all)

    cdef bint touched(self) except -1:
        """Whether anything in it is not as it was read."""
        if self.tape is None or self.given:
            return True
        if self.opened is not None:
            for sequence in self.opened.values():
                if (<Sequence>sequence).touched():
                    return True
        return False

    cdef list elements(self, Element around, Py_ssize_t place):
        """All elements, by tag."""
        cdef list found = []
        cdef dict by_tag
        cdef uint32_t at, end
        cdef Node* nodes
        if self.tape is not None:
            nodes = self.tape.nodes
            at = self.root + 1
            end = nodes[self.root].next
            while at < end:
                found.append(element_of(self, nodes[at].tag, at, None, around, place))
                at = nodes[at].next
        if self.given or (self.tape is not None and self.tape.nodes[self.root].flags & N_UNSORTED):
            by_tag = {(<Element>element).tag: element for element in found}
            if self.given is not None:
                for tag, given in self.given.items():
                    if given is None:
                        by_tag.pop(tag, None)
                    else:
                        by_tag[tag] = element_of(self, tag, 0, given, around, place)
            found = [by_tag[tag] for tag in sorted(by_tag)]
        return found

    def _resolve(self, key):
        """The data set and the tag that a key means that is neither tag nor keyword. KeyError if none."""
        raise KeyError(f"{key!r} is neither tag nor keyword")

    def _item(self, key):
        """The item of a sequence that such a key means, None if it means something else."""
        return None

    def creator_of(self, uint32_t tag):
        """The private creator of a tag's block (PS3.5 7.8.1), '' if it has none."""
        cdef uint32_t block = tag & 0xFFFF0000 | tag >> 8 & 0xFF
        cdef object found
        if not tag & 0x10000 or tag & 0xFFFF < 0x1000:
            return ""
        if self.tape is None or (self.given is not None and block in self.given):
            found = self.value(block, False)
        else:
            if self.creators is None:
                self.creators = self.read_creators()
            found = self.creators.get(block)
            found = NOT_THERE if found is None else self.node_value(found, False)
        return found if isinstance(found, str) else ""

    cdef dict read_creators(self):
        """Found in one go: looked for one by one, elements of as many blocks would take time without end."""
        cdef Node* nodes = self.tape.nodes
        cdef uint32_t at = self.root + 1
        cdef dict found = {}
        while at < nodes[self.root].next:
            if nodes[at].tag & 0x10000 and 0x10 <= nodes[at].tag & 0xFFFF <= 0xFF:
                found[nodes[at].tag] = at
            at = nodes[at].next
        return found

    def _private_vr(self, tag):
        """The VR of a private element that tells none."""
        return "UN"

    def __getitem__(self, key):
        cdef uint32_t tag = tag_of(key)
        cdef object found
        if tag == 0:
            found = self._item(key)
            if found is not None:
                return found
            tree, tag = self._resolve(key)
            found = (<Tree?>tree).value(tag, False)
        else:
            found = self.value(tag, False)
        if found is NOT_THERE:
            raise KeyError(missing(tag))
        return found

    def get(self, key, default=None):
        """The value of an element, `default` if there is none of that key."""
        try:
            return self[key]
        except (KeyError, IndexError):
            return default

    def __getattr__(self, name):
        cdef uint32_t tag = tag_of(name)
        cdef object found = NOT_THERE if tag == 0 else self.value(tag, False)
        if found is NOT_THERE:
            raise AttributeError(missing(tag) if tag else self.unknown(name))
        return found

    cdef str unknown(self, str name):
        """What is said of an attribute that is no keyword. Looking for one that is alike takes milliseconds."""
        if name[:1].isupper():
            try:
                self._resolve(name)
            except KeyError as exc:
                return str(exc.args[0])
        return f"{type(self).__name__!r} object has no attribute {name!r}"

    def __contains__(self, key):
        cdef uint32_t tag = tag_of(key)
        if tag == 0:
            try:
                if self._item(key) is not None:
                    return True
                tree, tag = self._resolve(key)
            except (KeyError, IndexError):
                return False
            return (<Tree?>tree).holds(tag)
        return self.holds(tag)

    cdef bint holds(self, uint32_t tag) except -1:
        cdef object given
        if self.given is not None:
            given = self.given.get(tag, NOT_THERE)
            if given is not NOT_THERE:
                return given is not None
        return self.locate(tag) != 0

    def __len__(self):
        return len(self.elements(None, 0))

    def __bool__(self):
        return True

    def __iter__(self):
        return iter(self.elements(None, 0))

    def walk(self):
        """Every element, those in sequences after the sequence; see `Element.path`.

        InvalidValueError for more than 256 sequences in each other.
        """
        cdef list stack = [frame_of(None, self)]
        cdef Frame frame
        cdef Element element
        cdef Sequence sequence
        while stack:
            frame = <Frame>stack[len(stack) - 1]
            if frame.next < len(frame.elements):
                element = <Element>frame.elements[frame.next]
                frame.next += 1
                yield element
                sequence = element.items()
                if sequence is not None and sequence.members:
                    if len(stack) > MOST_DEPTH:  # a data set that was set into itself has no end
                        raise InvalidValueError(f"more than {MOST_DEPTH} sequences in each other")
                    stack.append(frame_of(element, None))
            elif not frame.enter():
                stack.pop()

    def pick(self, *keys):
        """The values of several elements, a tuple; None for those that are not there.

        Fastest in the order of their tags.
        """
        cdef Tape tape = self.tape
        cdef list found = []
        cdef uint32_t at = self.root + 1
        cdef uint32_t end, tag
        cdef uint32_t last = 0
        cdef bint plain = tape is not None and not self.given and not tape.nodes[self.root].flags & N_UNSORTED
        if not plain:
            return tuple([self.get(key) for key in keys])
        end = tape.nodes[self.root].next
        for key in keys:
            tag = tag_of(key)
            if tag == 0:
                found.append(self.get(key))
                continue
            if tag < last:
                at = self.root + 1
            last = tag
            while at < end and tape.nodes[at].tag < tag:
                at = tape.nodes[at].next
            found.append(self.node_value(at, False) if at < end and tape.nodes[at].tag == tag else None)
        return tuple(found)

    def element(self, key):
        """The element of a key, for its VR, its place, its bytes. KeyError if there is none."""
        cdef Tree tree = self
        cdef uint32_t tag = tag_of(key)
        cdef object given = None
        cdef uint32_t node = 0
        if tag == 0:
            found, tag = self._resolve(key)
            tree = <Tree?>found
        if not tree.holds(tag):
            raise KeyError(missing(tag))
        if tree.given is not None:
            given = tree.given.get(tag)
        if given is None:
            node = tree.locate(tag)
        return element_of(tree, tag, node, given, None, 0)

    def copy(self):
        """A data set of its own, that shares what was read."""
        cdef Tree copied = new_tree(type(self))
        copied.tape = self.tape
        copied.root = self.root
        copied.context = self.context
        copied.meta = None if self.meta is None else self.meta.copy()
        Py_EnterRecursiveCall(" while copying a data set")  # one that holds itself has no end
        try:
            self.copy_changes(copied)
        finally:
            Py_LeaveRecursiveCall()
        return copied

    cdef int copy_changes(self, Tree copied) except -1:
        if self.given is not None:
            copied.given = {
                tag: (<Sequence>given).copy() if isinstance(given, Sequence) else given
                for tag, given in self.given.items()
            }
        if self.opened is not None:
            copied.opened = {tag: (<Sequence>sequence).copy() for tag, sequence in self.opened.items()}
        return 0

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __eq__(self, other):
        return same_elements(self, <Tree>other) if isinstance(other, Tree) else NotImplemented

    def _put(self, uint32_t tag, str vr, data):
        """Set an element: bytes in little endian and UTF-8, a tuple of them for fragments, or a Sequence."""
        cdef object given = <Sequence?>data if vr == "SQ" else given_of(letters_of(vr), data)
        if self.given is None:
            self.given = {}
        self.given[tag] = given

    def _remove(self, uint32_t tag):
        """Delete an element. KeyError if there is none."""
        if not self.holds(tag):
            raise KeyError(missing(tag))
        if self.given is None:
            self.given = {}
        if self.locate(tag):
            self.given[tag] = None
        else:
            del self.given[tag]

    @property
    def changed(self):
        """Whether anything in it was set or deleted since it was read; True of what was not read."""
        return self.touched()

    @property
    def findings(self):
        """What was odd about the data set as it was read: `Finding` (kind, tag, offset, times) each."""
        return () if self.tape is None or self.root else self.tape.findings

    @property
    def truncated(self):
        """Whether the data set as it was read ends in the middle of something."""
        return self.cut is not None

    @property
    def cut(self):
        """Of what is truncated, the tag and the offset of what is not whole; None of what is not."""
        return self.tape.cut if self.tape is not None and self.root == 0 else None

    @property
    def encoding(self):
        """(implicit, little endian): how what was read turned out to be encoded; else (False, True)."""
        return (False, True) if self.tape is None else (bool(self.tape.implicit), bool(self.tape.little))

    @property
    def character_set(self):
        """The value of (0008,0005) that text which was read is decoded by; b'' if there is none."""
        return self.reading().sets[0]

    @property
    def signed(self):
        return self.reading().is_signed()


@cython.final
cdef class Frame:
    """One level of a walk: the elements of a data set, or those of each item of a sequence."""

    cdef list elements
    cdef Py_ssize_t next
    cdef Element around
    cdef Py_ssize_t place   # of the item that comes next

    cdef bint enter(self) except -1:
        """Go on to the next item; whether there is one."""
        cdef Sequence sequence = None if self.around is None else self.around.items()
        if sequence is None or self.place >= len(sequence.members):
            return False
        self.elements = sequence.member(self.place).elements(self.around, self.place)
        self.next = 0
        self.place += 1
        return True


cdef Frame frame_of(Element around, Tree tree):
    cdef Frame frame = Frame.__new__(Frame)
    frame.around = around
    frame.elements = [] if tree is None else tree.elements(None, 0)
    return frame


cdef inline Element element_of(
    Tree tree, uint32_t tag, uint32_t node, object given, Element around, Py_ssize_t place
):
    cdef Element element = Element.__new__(Element)
    element.dataset = tree
    element.tag = tag
    element.node = node
    element.given = given
    element.around = around
    element.place = place
    return element


cdef extern from "Python.h":
    int Py_EnterRecursiveCall(const char* where) except -1
    void Py_LeaveRecursiveCall()


@cython.final
@cython.no_gc  # nothing that it holds comes back to it
cdef class Element:
    """One element of a data set, as it is at the moment it is asked."""

    def __init__(self):
        raise TypeError("elements are made by data sets")

    cdef Sequence items(self):
        """The sequence that it is, or None."""
        if self.given is not None:
            return <Sequence>self.given if isinstance(self.given, Sequence) else None
        return self.dataset.sequence(self.node) if self.dataset.vr_of(self.node) == LETTERS_SQ else None

    cdef uint16_t letters(self) except 0:
        """Its VR."""
        if self.given is None:
            return self.dataset.vr_of(self.node)
        return LETTERS_SQ if isinstance(self.given, Sequence) else (<Given>self.given).vr

    @property
    def vr(self):
        """Its VR (PS3.5 6.2); where the data set tells none, by the dictionary."""
        return vr_text(self.letters())

    @property
    def value(self):
        """Its value: a tuple of several."""
        if self.given is None:
            return self.dataset.node_value(self.node, False)
        if isinstance(self.given, Sequence):
            return self.given
        return given_value(<Given>self.given, self.dataset.reading(), False)

    @property
    def values(self):
        """All its values, a tuple."""
        if self.given is None:
            return self.dataset.node_value(self.node, True)
        if isinstance(self.given, Sequence):
            return (self.given,)
        return given_value(<Given>self.given, self.dataset.reading(), True)

    @property
    def keyword(self):
        """Its keyword (PS3.6), '' if it has none."""
        return keyword_of(self.tag)

    @property
    def name(self):
        """Its name (PS3.6), '' if it is not in the dictionary."""
        cdef const Entry* entry = entry_of(self.tag)
        return "" if entry == NULL else entry.name.decode("utf-8")

    @property
    def path(self):
        """Where `walk` found it: keywords (tags in hexadecimal where there are none) and places of items."""
        cdef Element element = self
        cdef list steps = [step_of(self.tag)]
        while element.around is not None:
            steps.append(f"{step_of(element.around.tag)}.{element.place}")
            element = element.around
        steps.reverse()
        return ".".join(steps)

    @property
    def offset(self):
        """Where its value begins in what was read, in bytes; None of one that was set."""
        return None if self.given is not None else self.dataset.tape.nodes[self.node].at

    @property
    def length(self):
        """Of its value as it was read, in bytes, up to the delimiter if it is undefined; None of one that was
        set."""
        return None if self.given is not None else self.dataset.tape.nodes[self.node].length

    @property
    def undefined(self):
        """Whether it was of undefined length."""
        return self.given is None and self.dataset.tape.nodes[self.node].flags & N_UNDEFINED != 0

    @property
    def raw(self):
        """The bytes of its value as it was read, a view; as they are kept, of one that was set."""
        cdef Node* node
        if self.given is not None:
            return None if isinstance(self.given, Sequence) else (<Given>self.given).data
        node = &self.dataset.tape.nodes[self.node]
        return self.dataset.tape.slice(node.at, node.length)

    def __repr__(self):
        return f"<Element ({self.tag >> 16:04X},{self.tag & 0xFFFF:04X}) {self.vr} {self.path}>"
