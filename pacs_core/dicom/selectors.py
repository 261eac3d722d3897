"""Which elements of a data set are meant: one by its key, or all that match a pattern.

`PatientName`, `(0009,GEMS_IDEN_01,02)`        a key, as in `keys`: that element of the data set itself
`RequestAttributesSequence.0.StudyInstanceUID` a path, as in `keys`: into an item of a sequence
`RequestAttributesSequence.*.StudyInstanceUID` the same, in all of its items

Patterns select wherever they match, in sequences too:

`**.PatientID`                                 every element of that key
`60xx`, `60xx3000`, `(60xx,3000)`              x is any digit; a group alone is all of it
`(0009,GEMS_IDEN_01,*)`                        whatever is in blocks of that private creator in that group
`private`                                      every private element
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pacs_core._ext.tree import Element, Tree
from pacs_core.dicom.keys import SEQUENCE, Key, parse_key, tag_in

_STEP = re.compile(SEQUENCE + r"\.(-?\d{1,9}|\*)\.")
_TAGS = re.compile(r"\(?([0-9A-Fa-fx]{4})(?:,?([0-9A-Fa-fx]{4}))?\)?")
_BLOCK = re.compile(r"\(([0-9A-Fa-f]{4}),((?:(?!\)\.).)+),\*\)")
_EVERYWHERE = "**."
_ODD_GROUP = 0x0001_0000


@dataclass(frozen=True, slots=True)
class Path:
    """Where a key leads: the sequences on the way, each with the place of an item or None for all."""

    steps: tuple[tuple[Key, int | None], ...]
    key: Key

    def places(self, tree: Tree, *, reserve: bool = False) -> Iterator[tuple[str, Tree, int]]:
        """The way to each data set that it leads to, that, and the tag in it, whether it is there or not.

        `reserve`: a private creator that has no block there is given one.
        """
        for way, end in self._ends(tree, "", 0):
            try:
                tag = tag_in(end, self.key, reserve=reserve)
            except KeyError:
                if reserve:
                    raise
                continue
            yield way, end, tag

    def _ends(self, tree: Tree, way: str, depth: int) -> Iterator[tuple[str, Tree]]:
        if depth == len(self.steps):
            yield way, tree
            return
        key, place = self.steps[depth]
        try:
            element = tree.element(tag_in(tree, key))
        except KeyError:
            return
        if element.vr == "SQ":
            wanted = slice(None) if place is None else slice(place, place + 1 or None)
            for at in range(*wanted.indices(len(element.value))):
                yield from self._ends(element.value[at], f"{way}{element.path}.{at}.", depth + 1)


@dataclass(frozen=True, slots=True)
class Tags:
    """Every element of which the tag is `tag` in the bits of `mask`."""

    tag: int
    mask: int = 0xFFFF_FFFF

    def selects(self, element: Element) -> bool:
        """Whether it is meant."""
        return element.tag & self.mask == self.tag


@dataclass(frozen=True, slots=True)
class Block:
    """Every private element of a creator in a group: one of its block, or, None, all, and the creator."""

    group: int
    creator: str
    element: int | None = None

    def selects(self, element: Element) -> bool:
        """Whether it is meant."""
        tag = element.tag
        if tag >> 16 != self.group:
            return False
        if is_creator(tag):
            return self.element is None and str(element.value) == self.creator
        return self.element in (None, tag & 0xFF) and element.dataset.creator_of(tag) == self.creator


@dataclass(frozen=True, slots=True)
class Representation:
    """Every element of these VRs."""

    vrs: frozenset[str]

    def selects(self, element: Element) -> bool:
        """Whether it is meant."""
        return element.vr in self.vrs


Pattern = Tags | Block | Representation
Selector = Path | Pattern


def parse(text: str) -> Selector:
    """The selector that somebody wrote, see above. KeyError for anything else, with the keywords like it."""
    if text == "private":
        return Tags(_ODD_GROUP, _ODD_GROUP)
    if block := _BLOCK.fullmatch(text):
        return Block(int(block[1], 16), block[2].strip(" "))
    tags = _TAGS.fullmatch(text)
    if tags and (tags[2] is None or "x" in tags[1] + tags[2]):
        digits = tags[1] + (tags[2] or "xxxx")
        mask = "".join("0" if digit == "x" else "F" for digit in digits)
        return Tags(int(digits.replace("x", "0"), 16), int(mask, 16))
    if text.startswith(_EVERYWHERE):
        return everywhere(parse_key(text.removeprefix(_EVERYWHERE)))
    steps: list[tuple[Key, int | None]] = []
    at = 0
    while step := _STEP.match(text, at):
        steps.append((parse_key(step[1]), None if step[2] == "*" else int(step[2])))
        at = step.end()
    return Path(tuple(steps), parse_key(text[at:]))


def everywhere(key: Key) -> Pattern:
    """Every element of a key, in sequences too."""
    return Tags(key) if isinstance(key, int) else Block(key[0], key[1].strip(" "), key[2])


def is_creator(tag: int) -> bool:
    """Whether a tag is that of a private creator (PS3.5 7.8.1)."""
    return tag >> 16 & 1 == 1 and 0x10 <= tag & 0xFFFF <= 0xFF


def found(selector: Selector, tree: Tree) -> Iterator[tuple[str, Element]]:
    """The elements of a data set that are selected, each with its path."""
    if not isinstance(selector, Path):
        yield from ((element.path, element) for element in tree.walk() if selector.selects(element))
        return
    for way, end, tag in selector.places(tree):
        if tag in end:
            element = end.element(tag)
            yield f"{way}{element.path}", element
