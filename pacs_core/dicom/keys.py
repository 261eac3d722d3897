"""Keys of elements beyond tags and keywords: written tags, paths into sequences, private elements.

`"00100010"`, `"(0010,0010)"`                        a tag as text
`"RequestAttributesSequence.0.ScheduledProcedureStepID"`  into the item of a sequence, counted from 0 (or, -1,
                                                     from the end)
`"RequestAttributesSequence.0"`                      the item itself, to be looked at
`(0x0009, "GEMS_IDEN_01", 0x02)`                     a private element: group, creator, element in its block
`"(0009,GEMS_IDEN_01,02)"`                           the same as text, so that it can be part of a path
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pacs_core._ext.tree import Sequence, Tree
from pacs_core.dicom import dictionary

Key = int | tuple[int, str, int]
"""An element of one data set: its tag, or private group, creator and element in the block."""

_PRIVATE = re.compile(r"\(([0-9A-Fa-f]{4}),(.+),([0-9A-Fa-f]{2})\)")
SEQUENCE = r"(\([0-9A-Fa-f]{4},[0-9A-Fa-f]{4}\)|\([0-9A-Fa-f]{4},.+?,[0-9A-Fa-f]{2}\)|[^.(]+)"
"""A sequence in a path, as a regular expression. Creators may look like steps: '1.2.840.113681'."""

# A sequence and the place of an item in it.
_STEP = re.compile(SEQUENCE + r"\.(-?\d{1,9})\.")
_ITEM = re.compile(SEQUENCE + r"\.-?\d{1,9}")


def resolve(tree: Tree, key: object, *, reserve: bool = False) -> tuple[Tree, int]:
    """The data set, this or one in it, and the tag that a key means.

    `reserve`: give a private creator that has none a block (PS3.5 7.8.1).

    Raises
    ------
    KeyError
        If the key means none, or leads through what is not there.
    IndexError
        If it leads to an item that a sequence does not have.
    """
    if isinstance(key, int) and 0 <= key <= 0xFFFF_FFFF:
        return tree, key
    if isinstance(key, tuple):
        return tree, _private(tree, key, reserve)
    if not isinstance(key, str):
        raise KeyError(f"a key is a tag, a keyword or a path, not {key!r}")
    tree, rest = _descend(tree, key)
    if _ITEM.fullmatch(rest):
        raise KeyError(f"{key} is an item of a sequence, not an element")
    return tree, tag_in(tree, parse_key(rest), reserve=reserve)


def item_at(tree: Tree, key: object) -> Tree | None:
    """The item of a sequence that a path ends at; None for any other key. Raises as `resolve`."""
    if not isinstance(key, str) or not key[-1:].isdigit():
        return None
    item, rest = _descend(tree, f"{key}.")
    return None if rest else item


def _descend(tree: Tree, path: str) -> tuple[Tree, str]:
    """The innermost data set of a path, and what is left of it."""
    at = 0
    while step := _STEP.match(path, at):
        sequence = tree[tag_in(tree, parse_key(step[1]))]
        if not isinstance(sequence, Sequence):
            raise KeyError(f"{step[1]} is not a sequence")
        tree = sequence[int(step[2])]
        at = step.end()
    return tree, path[at:]


def parse_key(text: str) -> Key:
    """The key of one data set that somebody wrote: keyword, tag or private element; no path.

    KeyError if it is none.
    """
    private = _PRIVATE.fullmatch(text)
    if private is None:
        return dictionary.parse_tag(text)
    return int(private[1], 16), private[2], int(private[3], 16)


def tag_in(tree: Tree, key: Key, *, reserve: bool = False) -> int:
    """The tag of a key in this data set. KeyError and `reserve` as of `resolve`."""
    return key if isinstance(key, int) else _private(tree, key, reserve)


def _private(tree: Tree, key: tuple[object, ...], reserve: bool) -> int:
    match key:
        case (int(group), str(creator), int(element)) if (
            group & 1 and 8 < group < 0xFFFF and 0 <= element <= 0xFF
        ):
            pass
        case _:
            raise KeyError(f"a private element is (odd group, creator, element up to FF), not {key!r}")
    taken = set()
    for block, name in creators(tree, group):
        if name == creator.strip(" "):
            return group << 16 | block << 8 | element
        taken.add(block)
    if reserve:
        for block in range(0x10, 0x100):
            if block not in taken:
                tree._put(group << 16 | block, "LO", creator.encode())
                return group << 16 | block << 8 | element
        raise KeyError(f"no block of group {group:04X} is free for {creator!r}")
    raise KeyError(f"no private elements of {creator!r} in group {group:04X}")


def creators(tree: Tree, group: int) -> Iterator[tuple[int, str]]:
    """The blocks of a private group, and whose they are."""
    for element in tree:
        if element.tag >> 16 == group and 0x10 <= element.tag & 0xFFFF <= 0xFF:
            yield element.tag & 0xFF, str(element.value)
