"""Text of any Specific Character Set (0008,0005) to Unicode and back (PS3.5 6.1, PS3.3 C.12.1.1.2).

Decoding never fails. What the standard does not allow but is met is read as follows, and told to the caller,
who keeps it as a finding of the header:

- an unknown term: as if it were not there;
- a misspelt one ("ISO IR 100", "iso_ir_192", "ISO_2022_IR_87"): the one that is meant;
- no character set, but bytes over 127: UTF-8 if they are valid UTF-8, otherwise Latin-1;
- bytes that the character set does not have: the replacement character U+FFFD;
- an escape sequence of a set that (0008,0005) does not list: obeyed, for it says itself which set it calls;
- Korean or Chinese bytes after a delimiter, where the set ought to be called again: in the set before;
  without any escape sequence: in the one that (0008,0005) lists;
- Shift-JIS under ISO_IR 13, GBK beyond GB 2312 and CP949 beyond KS X 1001: as such.

Encoding is strict: it writes what the character sets have, or raises. There are readers (pydicom, DCMTK) to
whom an escape sequence names the set of all that follows, whichever code element it fills. What is written
here can be read so too: no character relies on a set that was called before the last escape sequence.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from pacs_core.errors import InvalidValueError

_ASCII = ""

# Single-byte sets by ISO-IR number: the codec of their right half, G1 (PS3.3 table C.12-2, C.12-3).
_RIGHT_HALVES = {
    100: "latin_1",
    101: "iso8859_2",
    109: "iso8859_3",
    110: "iso8859_4",
    126: "iso8859_7",
    127: "iso8859_6",
    138: "iso8859_8",
    144: "iso8859_5",
    148: "iso8859_9",
    166: "tis_620",
    203: "iso8859_15",
}
# Multi-byte sets in G1 (PS3.3 table C.12-4): the codec.
_WIDE_RIGHT = {149: "euc_kr", 58: "gb2312"}
_KATAKANA = "shift_jis"
_STAND_ALONE = {"ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gbk"}
_STAND_ALONE_SPELLINGS = {
    "ISOIR192": "ISO_IR 192",
    "ISO2022IR192": "ISO_IR 192",
    "UTF8": "ISO_IR 192",
    "GB18030": "GB18030",
    "ISO2022GB18030": "GB18030",
    "GBK": "GBK",
    "ISO2022GBK": "GBK",
}

# Escape sequences (PS3.3 tables C.12-3, C.12-4): which code element they fill, with what, its ISO-IR number.
_ASCII_LEFT, _KANJI, _KANJI_MORE = "ascii", "jis_x_0208", "jis_x_0212"
_ESCAPES: dict[bytes, tuple[int, str, int]] = {
    b"(B": (0, _ASCII_LEFT, 6),
    b"(J": (0, _ASCII_LEFT, 13),
    b"$B": (0, _KANJI, 87),
    b"$@": (0, _KANJI, 42),
    b"$(D": (0, _KANJI_MORE, 159),
    b")I": (1, _KATAKANA, 13),
    b"-A": (1, "latin_1", 100),
    b"-B": (1, "iso8859_2", 101),
    b"-C": (1, "iso8859_3", 109),
    b"-D": (1, "iso8859_4", 110),
    b"-F": (1, "iso8859_7", 126),
    b"-G": (1, "iso8859_6", 127),
    b"-H": (1, "iso8859_8", 138),
    b"-L": (1, "iso8859_5", 144),
    b"-M": (1, "iso8859_9", 148),
    b"-T": (1, "tis_620", 166),
    b"-b": (1, "iso8859_15", 203),
    b"$)C": (1, "euc_kr", 149),
    b"$)A": (1, "gb2312", 58),
}
_NO_SET = (2, "", 0)
_ESCAPE = re.compile(rb"\x1b(\$[()][A-D]|\$[@B]|[()\-][A-Za-z])")
# What is met under the name of a codec though it goes beyond.
_BEYOND = {"euc_kr": "cp949", "gb2312": "gbk", "shift_jis": "cp932", "gbk": "gb18030"}
# The delimiters at which value 1 is in force again (PS3.5 6.1.2.5.3).
_TEXT_DELIMITERS = re.compile(rb"[\\\t\n\f\r]")
_NAME_DELIMITERS = re.compile(rb"[\\^=\t\n\f\r]")
_WIDE_SHIFT_JIS = re.compile(rb"[\x80-\xa0\xe0-\xff]")
_TERM = re.compile(r"ISO(2022)?IR(\d+)")
_OF_VALUE_1 = {**_RIGHT_HALVES, **_WIDE_RIGHT, 13: _KATAKANA}
_NUMBERS = frozenset({6, 87, 159, *_OF_VALUE_1})

# How a set is written, by ISO-IR number: the codec, and which of its bytes are the set's. Codecs know more:
# the yen sign of Shift-JIS, katakana in EUC-JP, Hangul of eight bytes in EUC-KR.
_ONE, _TWO, _TWO_MORE = map(re.compile, (rb"([\x80-\xff])", rb"([\xa1-\xfe]{2})", rb"\x8f([\xa1-\xfe]{2})"))
_WRITTEN = {
    **{number: (codec, _ONE) for number, codec in _RIGHT_HALVES.items()},
    **{number: (codec, _TWO) for number, codec in _WIDE_RIGHT.items()},
    13: (_KATAKANA, _ONE),
    87: ("euc_jp", _TWO),
    159: ("euc_jp", _TWO_MORE),
}
# The sets that take the place of ASCII, G0; beside all others there is ASCII.
_INSTEAD_OF_ASCII = frozenset({87, 159})
_CALLS = {number: b"\x1b" + escape for escape, (_, _, number) in _ESCAPES.items()}


class CharacterSets(NamedTuple):
    """What a value of (0008,0005) means.

    `alone`: the codec of a stand-alone set (UTF-8, GB18030, GBK), '' for the others. `right`: the codec of
    the bytes over 127 of value 1, '' if it has none. `known`: whether every term is one of the standard's,
    spelt as there and allowed where it is. `numbers`: the ISO-IR numbers of the sets that escape sequences
    may call. `listed`: these as they are listed, without ASCII.
    """

    alone: str
    right: str
    known: bool
    numbers: frozenset[int]
    listed: tuple[int, ...]


@lru_cache(maxsize=256)
def parse(value: bytes) -> CharacterSets:
    """The character sets of a value of (0008,0005), as bytes."""
    alone, right, known = "", _ASCII, True
    numbers = [6]
    terms = [term.strip("\0 ") for term in value.decode("latin_1").split("\\")]
    for place, term in enumerate(terms):
        letters = re.sub(r"[ _\-.]", "", term).upper()
        match = _TERM.fullmatch(letters)
        spelling = _STAND_ALONE_SPELLINGS.get(letters)
        if not term:
            known &= place == 0
        elif spelling is not None:
            known &= term == spelling and len(terms) == 1
            if place == 0:
                alone = _STAND_ALONE[spelling]
        elif match is None or int(match[2][:4]) not in _NUMBERS:
            known = False
        else:
            number = int(match[2][:4])
            numbers.append(number)
            exact = f"ISO 2022 IR {number}" if match[1] else f"ISO_IR {number}"
            known &= term == exact and (len(terms) == 1 or match[1] is not None)
            if place == 0:
                right = _OF_VALUE_1.get(number, _ASCII)
    listed = tuple(number for number in numbers if number in _WRITTEN)
    return CharacterSets(alone, right, known, frozenset(numbers), listed)


def decode(value: bytes, character_set: bytes, name: bool) -> tuple[str, bool]:
    """The text of a value, and whether it obeyed its character set.

    Parameters
    ----------
    value : bytes
        As in the data set; several values are still joined by backslashes.
    character_set : bytes
        The value of (0008,0005); b'' if there is none.
    name : bool
        Whether it is a PN, in which '^' and '=' are delimiters too.
    """
    sets = parse(character_set)
    if sets.alone:
        return _run(value, sets.alone)
    if b"\x1b" not in value:
        if not sets.right and not value.isascii():
            for number, codec in _WIDE_RIGHT.items():
                if number in sets.numbers:
                    return _run(value, codec)[0], False
        return _run(value, sets.right)
    switched = _switched_before if len(value) <= _CACHED else _switched
    return switched(value, sets, _NAME_DELIMITERS if name else _TEXT_DELIMITERS)


def _switched(value: bytes, sets: CharacterSets, delimiters: re.Pattern[bytes]) -> tuple[str, bool]:
    """Decode a value with code extensions: escape sequences fill code elements G0 and G1 (PS3.5 6.1.2.5)."""
    text: list[str] = []
    good = True
    left, right, before = _ASCII_LEFT, sets.right, sets.right
    at = 0
    while at < len(value):
        if value[at] == 0x1B:
            escape = _ESCAPE.match(value, at)
            element, what, number = _ESCAPES.get(escape[1], _NO_SET) if escape else _NO_SET
            good &= number in sets.numbers
            if element == 0:
                left = what
            elif element == 1:
                right = before = what
            at = escape.end() if escape else at + 1
            continue
        escape_at = value.find(b"\x1b", at)
        end = escape_at if escape_at >= 0 else len(value)
        if left != _ASCII_LEFT:
            piece, sound, at = _kanji(value, at, end, left)
            text.append(piece)
            good &= sound
            left = _ASCII_LEFT if at < end else left
        # From here on G0 is ASCII, where a delimiter is a delimiter: value 1 is in force after it.
        while at < end:
            match = delimiters.search(value, at, end)
            stop = match.start() if match else end
            codec = right
            if not codec and before and any(byte > 127 for byte in value[at:stop]):
                codec, good = before, False
            piece, sound = _run(value[at:stop], codec)
            text.append(piece)
            good &= sound
            if match:
                text.append(match[0].decode("ascii"))
                right = sets.right
                stop += 1
            at = stop
    return "".join(text), good


# A name comes back in each instance of a study: 82 us for a header of five of them, 8 us if seen before.
_CACHED = 256
_switched_before = lru_cache(maxsize=256)(_switched)


def _kanji(value: bytes, at: int, end: int, left: str) -> tuple[str, bool, int]:
    """Decode from `at` while G0 is a set of 94 x 94 characters, up to `end` or a control character: two bytes
    a character, over 127 half-width katakana. Also: whether all was sound, where it stopped."""
    lead = b"" if left == _KANJI else b"\x8f"
    characters: list[bytes] = []
    while at < end:
        byte = value[at]
        if byte > 127:
            characters.append(bytes((0x8E, byte)))
            at += 1
        elif byte == 0x20:
            characters.append(b" ")
            at += 1
        elif byte < 0x21:
            break
        elif at + 1 < end and 0x21 <= value[at + 1] < 0x7F:
            characters.append(lead + bytes((byte | 0x80, value[at + 1] | 0x80)))
            at += 2
        elif byte in b"\\^=":
            break  # no character begins here: the encoder forgot to switch back
        else:
            characters.append(b"\xff")
            at += 1
    try:
        return b"".join(characters).decode("euc_jp"), True, at
    except UnicodeDecodeError:
        return "".join(map(_character, characters)), False, at


def _character(euc: bytes) -> str:
    """One character, U+FFFD if there is none; the codec's own 'replace' makes up to three, one a byte."""
    try:
        return euc.decode("euc_jp")
    except UnicodeDecodeError:
        return "\ufffd"


def _run(value: bytes, codec: str) -> tuple[str, bool]:
    """Decode bytes of one codec; without one, ASCII and what is met in its place."""
    if not codec:
        if value.isascii():
            return value.decode("ascii"), True
        try:
            return value.decode("utf_8"), False
        except UnicodeDecodeError:
            return value.decode("latin_1"), False
    try:
        # Of Shift-JIS, ISO-IR 13 is only the half-width katakana.
        return value.decode(codec), codec != _KATAKANA or _WIDE_SHIFT_JIS.search(value) is None
    except UnicodeDecodeError:
        pass
    beyond = _BEYOND.get(codec)
    if beyond:
        try:
            return value.decode(beyond), False
        except UnicodeDecodeError:
            pass
    return value.decode(codec, "replace"), False


def encode(text: str, character_set: bytes, name: bool) -> bytes:
    """The bytes of a value, so that `decode` gives `text` again.

    Each character is written in the first of the listed sets that has it, value 1 before all others. At the
    start, and after each delimiter, value 1 is in force and the others are called anew (PS3.5 6.1.2.5.3).

    Parameters
    ----------
    text : str
        Several values are joined by backslashes; without padding.
    character_set : bytes
        The value of (0008,0005); b'' if there is none.
    name : bool
        Whether it is a PN, in which '^' and '=' are delimiters too.

    Raises
    ------
    InvalidValueError
        None of the character sets has a character.
    """
    if text.isascii() and "\x1b" not in text:
        return text.encode("ascii")
    write = _write_before if len(text) <= _CACHED else _write
    return write(text, character_set, name)


def _write(text: str, character_set: bytes, name: bool) -> bytes:
    """Encode what is not all ASCII."""
    sets = parse(character_set)
    if not sets.alone:
        return _switching(text, character_set, _NAME_DELIMITERS if name else _TEXT_DELIMITERS)
    try:
        return text.encode(sets.alone)
    except UnicodeEncodeError as exc:
        raise _inexpressible(text, exc.start, character_set) from None


def _switching(text: str, character_set: bytes, delimiters: re.Pattern[bytes]) -> bytes:
    """Encode a value in ASCII and the listed sets, with an escape sequence wherever another one begins."""
    sets = parse(character_set)
    # Value 1 is in force without being called; multi-byte sets always are called (PS3.3 table C.12-4).
    first = sets.listed[0] if sets.right and sets.right not in _WIDE_RIGHT.values() else 6
    # ISO-IR 13 brings a G0 of its own, the other half of JIS X 0201.
    home, homewards = (13, b"\x1b(J") if first == 13 else (6, _CALLS[6])
    value = bytearray()
    current = first
    for at, character in enumerate(text):
        number, code = _coded(character, sets.listed)
        if not code:
            raise _inexpressible(text, at, character_set)
        if current in _INSTEAD_OF_ASCII and number not in _INSTEAD_OF_ASCII:
            value += homewards
            current = home
        if number not in (6, current):
            value += _CALLS[number]
            current = number
        value += code
        if number == 6 and delimiters.match(code):
            current = first
    if current in _INSTEAD_OF_ASCII:
        value += homewards
    return bytes(value)


# 10 us for the name of PS3.5 H.3.1, 0.2 us if written before.
_write_before = lru_cache(maxsize=256)(_write)


@lru_cache(maxsize=4096)
def _coded(character: str, listed: tuple[int, ...]) -> tuple[int, bytes]:
    """The first set that has a character, ASCII (6) before all, and its code there: b'' if none has."""
    if character.isascii():
        return 6, b"" if character == "\x1b" else character.encode("ascii")
    for number in listed:
        codec, pattern = _WRITTEN[number]
        try:
            match = pattern.fullmatch(character.encode(codec))
        except UnicodeEncodeError:
            continue
        if match:
            in_left = number in _INSTEAD_OF_ASCII
            return number, bytes(byte & 0x7F for byte in match[1]) if in_left else match[1]
    return 6, b""


def _inexpressible(text: str, at: int, character_set: bytes) -> InvalidValueError:
    """The error for a character that no set has."""
    terms = character_set.decode("latin_1") or "the default repertoire"
    return InvalidValueError(f"character {at} is not in {terms}", value=text[at])
