"""Items of a sequence as the index holds them, written down a second time: implicit VR little endian."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

Item = dict[int, str]


def pack(items: Iterable[Mapping[int, str]]) -> bytes:
    """Items, without what is empty in them."""
    packed = b""
    for item in items:
        body = b""
        for tag, text in sorted(item.items()):
            value = text.encode() + b" " * (len(text.encode()) & 1)
            if text:
                body += struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value
        packed += struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body
    return packed


def unpack(packed: bytes) -> list[Item]:
    """The inverse of `pack`; AssertionError for anything that is not just so."""
    items = []
    while packed:
        group, element, length = struct.unpack_from("<HHI", packed)
        assert (group, element) == (0xFFFE, 0xE000)
        body, packed = packed[8 : 8 + length], packed[8 + length :]
        assert len(body) == length
        item: Item = {}
        while body:
            group, element, length = struct.unpack_from("<HHI", body)
            value, body = body[8 : 8 + length], body[8 + length :]
            assert 0 < len(value) == length
            assert not length & 1
            assert (group << 16 | element) > max(item, default=0)
            item[group << 16 | element] = value.decode().rstrip(" \0")
        items.append(item)
    return items
