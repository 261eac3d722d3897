"""Character sets: the examples of PS3.5 Annex H to K, pydicom as the oracle, and what only degrades."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import charset as oracle
from pydicom.valuerep import PersonName

from pacs_core._ext import record
from pacs_core.dicom import header
from pacs_core.dicom.charset import decode, parse

EXPLICIT = "1.2.840.10008.1.2.1"

EXAMPLES = [
    # PS3.5 H.3.1, H.3.2
    (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    # I.2
    (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    # J.1, J.3, K.1, K.2
    (b"ISO_IR 192", "Wang^XiaoDong=王^小東".encode(), "Wang^XiaoDong=王^小東"),
    (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
    (
        b"\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东=",
    ),
    (b"ISO 2022 IR 6\\ISO 2022 IR 159", b"\x1b$(D0!\x1b(B^A", "丂^A"),
    (b"ISO_IR 203", b"1\xa4", "1€"),
    (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"Lu\xfc^\x1b-L\xbb\xee\xda\x1b-A\xe9", "Luü^Люкé"),
    # A value delimiter in another character's second byte is none
    (b"GB18030", b"\x81\x5c\\A", "乗\\A".replace("乗", b"\x81\x5c".decode("gb18030"))),
    (b"\\ISO 2022 IR 87", b"\x1b$B=UF|\x1b(B^\x1b$B2V;R\x1b(B", "春日^花子"),
]


@pytest.mark.parametrize(("terms", "value", "text"), EXAMPLES)
def test_examples_are_read(terms: bytes, value: bytes, text: str) -> None:
    assert decode(value, terms, True) == (text, True)
    assert parse(terms).known


def escaped(terms: list[str], text: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return oracle.encode_string(text, oracle.convert_encodings(terms))


@pytest.mark.parametrize(
    ("terms", "letters"),
    [
        (["ISO_IR 13"], "ﾔﾏﾀﾞA"),
        (["ISO_IR 100"], "äßé A"),
        (["ISO_IR 101"], "ąłń"),
        (["ISO_IR 109"], "ĝĥĵ"),
        (["ISO_IR 110"], "āēģ"),
        (["ISO_IR 126"], "αβγΩ"),
        (["ISO_IR 127"], "قباني"),
        (["ISO_IR 138"], "שרון"),
        (["ISO_IR 144"], "Люкс"),
        (["ISO_IR 148"], "ğış"),
        (["ISO_IR 166"], "นามสก"),
        (["ISO_IR 192"], "王é𝄞"),
        (["GB18030"], "王é𝄞"),
        (["GBK"], "王东"),
        (["", "ISO 2022 IR 87"], "山田太郎"),
        (["", "ISO 2022 IR 159"], "丂丄"),
        (["", "ISO 2022 IR 149"], "홍길동洪"),
        (["ISO 2022 IR 100", "ISO 2022 IR 144", "ISO 2022 IR 126"], "éЛω"),
    ],
    ids=str,
)
@given(data=st.data())
def test_what_pydicom_encodes_is_read(terms: list[str], letters: str, data: st.DataObject) -> None:
    text = data.draw(st.text(letters + "A ", min_size=1, max_size=12))
    try:
        value = escaped(terms, text)
    except (UnicodeError, UserWarning):
        return  # pydicom's own encoder can't: mixed JIS X 0201 halves
    assert decode(value, "\\".join(terms).encode(), False) == (text, True)
    name = PersonName(value, [oracle.python_encoding[term] for term in terms])
    assert decode(value, "\\".join(terms).encode(), True)[0] == str(name) or "=" in str(name)


@pytest.mark.parametrize(
    ("terms", "value", "text"),
    [
        (b"", "Jürgen".encode(), "Jürgen"),
        (b"", "Jürgen".encode("latin_1"), "Jürgen"),
        (b"ISO_IR 999", "Jürgen".encode("latin_1"), "Jürgen"),
        (b"ISO_IR 192", b"J\xfcrgen", "J\ufffdrgen"),
        (b"ISO_IR 13", "山田".encode("shift_jis"), "山田"),
        (b"ISO_IR 166", b"\xff", "\ufffd"),
        (b"", b"\x1b$B;3ED\x1b(B", "山田"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xc8\xab^\xb1\xe6\xb5\xbf", "홍^길동"),
        # pydicom writes Chinese so, without its escape sequence
        (b"\\ISO 2022 IR 58", "张小东".encode("gb2312"), "张小东"),
        (b"\\ISO 2022 IR 87", b"\x1b$B;3E", "山\ufffd"),
        (b"\\ISO 2022 IR 87", b"\x1b$B;3\xff\x80\x1b(B", "山\ufffd\ufffd"),
        (b"\\ISO 2022 IR 159", b"\x1b$(D0!#!\x1b(B", "丂\ufffd"),
        (b"\\ISO 2022 IR 87", b"\x1bZ\x1b", "Z"),
    ],
)
def test_what_is_wrong_is_read_with_a_finding(terms: bytes, value: bytes, text: str) -> None:
    data = b"\x08\0\x05\0CS" + len(terms).to_bytes(2, "little") + terms
    data += b"\x10\0\x10\0PN" + len(value).to_bytes(2, "little") + value
    found = header.scan(data, EXPLICIT)
    assert record.unpack(found.fields)[0x00100010].decode() == text
    assert {f.kind for f in found.findings} & {"bad characters", "unknown character set"} or (
        terms,
        value,
    ) == (
        b"\\ISO 2022 IR 87",
        b"",
    )


@pytest.mark.parametrize(
    ("terms", "alone", "right", "known"),
    [
        (b"ISO_IR 100", "", "latin_1", True),
        (b"ISO IR 100", "", "latin_1", False),
        (b"iso_ir_192", "utf_8", "", False),
        (b"ISO_2022_IR_87", "", "", False),
        (b"ISO 2022 IR 149", "", "euc_kr", True),
        (b"ISO_IR 100\\ISO 2022 IR 87", "", "latin_1", False),
        (b"ISO_IR 192\\ISO 2022 IR 87", "utf_8", "", False),
        (b"ISO 2022 IR 6\\ISO_IR 192", "", "", False),
        (b"zlib_codec", "", "", False),
        (b"ISO_IR " + b"9" * 5000, "", "", False),
        (b"\xff\xfe", "", "", False),
        (b"", "", "", True),
    ],
)
def test_terms(terms: bytes, alone: str, right: str, known: bool) -> None:
    assert parse(terms)[:3] == (alone, right, known)


NUMBERS = (6, 13, 58, 87, 100, 101, 109, 110, 126, 127, 138, 144, 148, 149, 159, 166, 203)
TERMS = ["", "ISO_IR 192", "GB18030", "GBK", "\xff", *(f"ISO 2022 IR {number}" for number in NUMBERS)]
ESCAPES = [b"\x1b" + tail for tail in b"(B (J $B $@ $(D )I -A -B -C -D -F -G -H -L -M -T -b $)C $)A".split()]


@settings(max_examples=1000)
@given(
    st.lists(st.sampled_from(ESCAPES) | st.binary(max_size=8), max_size=8).map(b"".join),
    st.lists(st.sampled_from(TERMS), min_size=1, max_size=3).map("\\".join),
    st.booleans(),
)
def test_no_bytes_raise_and_none_grows_threefold(value: bytes, terms: str, name: bool) -> None:
    text, _ = decode(value, terms.encode("latin_1"), name)
    assert len(text.encode("utf-8")) <= 3 * len(value)


@pytest.mark.parametrize("escape", [b"\x1b$B", b"\x1b$(D"])
def test_bytes_that_are_no_kanji_do_not_grow_threefold(escape: bytes) -> None:
    """The codec replaces each byte of its own encoding, which is longer than ours."""
    for lead in range(256):
        for trail in range(256):
            value = escape + bytes((lead, trail, 0xFF)) * 10
            text, _ = decode(value, b"\\ISO 2022 IR 87\\ISO 2022 IR 159", False)
            assert len(text.encode("utf-8")) <= 3 * len(value)
