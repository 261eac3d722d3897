"""Order-preserving keys: normalisation, order, and what must stay apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_core._ext import keys

SECRET = bytes(range(16))


def slow_name(value: str) -> list[bytes]:
    """The normalisation of person names in plain Python."""
    found = set()
    for one in value.split("\\"):
        for group in one.split("="):
            parts = [part.strip(" \0").casefold() for part in group.strip(" \0").split("^")]
            while parts and not parts[-1]:
                parts.pop()
            found.add("^".join(parts).encode()[: keys.CUT])
    return sorted(found - {b""}) or [b""]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Doe^John", ["doe^john"]),
        ("DOE^JOHN^^^", ["doe^john"]),
        (" Doe ^ John ", ["doe^john"]),
        ("^^Jr", ["^^jr"]),
        ("Straße^Ümit", ["strasse^ümit"]),
        ("Σίσυφος^ΟΔΟΣ", ["σίσυφοσ^οδοσ"]),
        ("Иванов^Пётр", ["иванов^пётр"]),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["yamada^tarou", "やまだ^たろう", "山田^太郎"]),
        ("Buc^Jérôme\\Doe", ["buc^jérôme", "doe"]),
        ("𐐀^𐐨", ["𐐨^𐐨"]),
        ("^^^", [""]),
        ("", [""]),
        ("==", [""]),
    ],
)
def test_names(value: str, expected: list[str]) -> None:
    """CONFORMANCE 20: trailing ^ ignored, component groups each matched; case folded."""
    assert keys.normalised(keys.NAME, value.encode()) == sorted(one.encode() for one in expected)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=120))
def test_names_are_folded_as_python_folds_them(value: str) -> None:
    assert keys.normalised(keys.NAME, value.encode()) == slow_name(value)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_text_do_no_harm(value: bytes) -> None:
    for kind in (keys.NAME, keys.TEXT, keys.DATE):
        for key in keys.attribute_keys(9, kind, value):
            assert key[0] == 9
            assert len(key) <= keys.CUT + 2


def test_every_folding_of_python_is_known() -> None:
    for point in range(0x80, 0x20000):
        char = chr(point)
        if char.casefold() != char:
            assert keys.normalised(keys.NAME, char.encode()) == [char.casefold().encode()]


def test_dates_of_the_old_form_sort_among_the_new() -> None:
    assert keys.normalised(keys.DATE, b"2024.01.02") == [b"20240102"]
    assert keys.normalised(keys.DATE, b"20240102") == [b"20240102"]
    assert keys.normalised(keys.DATE, b"2024.1.2") == [b"2024.1.2"]


def test_text_keeps_its_case_and_splits_its_values() -> None:
    assert keys.normalised(keys.TEXT, rb"Head\Neck\ Head ") == [b"Head", b"Neck"]
    assert keys.normalised(keys.TEXT, b"x" * 300) == [b"x" * keys.CUT]


@given(st.text(min_size=1), st.text(min_size=1))
def test_text_keys_sort_as_the_values(a: str, b: str) -> None:
    def key(value: str) -> bytes:
        return b"\x01" + value.strip(" \0").replace("\\", "").encode()[: keys.CUT]

    for value in (a, b):
        plain = value.replace("\\", "")
        found = keys.attribute_keys(5, keys.TEXT, plain.encode())
        assert found == [b"\x05" + key(plain)] if plain.strip(" \0") else found == [b"\x05\x00"]


def test_the_empty_marker_sorts_before_all_values() -> None:
    empty, first = keys.attribute_keys(7, keys.TEXT, b""), keys.attribute_keys(7, keys.TEXT, b"\x01")
    assert empty == [b"\x07\x00"]
    assert empty < first


def test_modality_and_date() -> None:
    code = bytes([keys.MODALITY_DATE])
    assert keys.modality_date_keys(b"CT", b"2024.01.02") == [code + b"\x01CT\x0020240102"]
    assert keys.modality_date_keys(b"CT", b"") == [code + b"\x01CT\x00"]
    assert keys.modality_date_keys(b"MR \\CT", b"2024\\2025") == [code + b"\x01CT\0", code + b"\x01MR\0"]
    (longest,) = keys.modality_date_keys(b"C" * 500, b"2" * 500)
    assert len(longest) <= keys.CUT + 2


def test_uid_keys_of_series_are_those_of_their_study() -> None:
    one, other = (keys.uid_table_key(SECRET, 2, b"1.2", study) for study in (1, 2))
    assert one[:-8] == other[:-8] == b"\x021.2"
    assert one < other


@given(st.binary(min_size=350, max_size=600), st.binary(min_size=350, max_size=600))
def test_overlong_texts_have_keys_of_their_own(a: bytes, b: bytes) -> None:
    first, second = (keys.uid_table_key(SECRET, 3, text) for text in (a, b))
    assert (first == second) == (a == b)
    assert max(len(first), len(second)) <= 511


def test_overlong_texts_end_in_their_siphash() -> None:
    def siphash(secret: bytes, text: bytes) -> int:
        mask = (1 << 64) - 1
        k0, k1 = (int.from_bytes(secret[i : i + 8], "little") for i in (0, 8))
        v = [
            k0 ^ 0x736F6D6570736575,
            k1 ^ 0x646F72616E646F6D,
            k0 ^ 0x6C7967656E657261,
            k1 ^ 0x7465646279746573,
        ]

        def rotate(x: int, bits: int) -> int:
            return (x << bits | x >> (64 - bits)) & mask

        def rounds(count: int) -> None:
            for _ in range(count):
                v[0] = (v[0] + v[1]) & mask
                v[1] = rotate(v[1], 13) ^ v[0]
                v[0] = rotate(v[0], 32)
                v[2] = (v[2] + v[3]) & mask
                v[3] = rotate(v[3], 16) ^ v[2]
                v[0] = (v[0] + v[3]) & mask
                v[3] = rotate(v[3], 21) ^ v[0]
                v[2] = (v[2] + v[1]) & mask
                v[1] = rotate(v[1], 17) ^ v[2]
                v[2] = rotate(v[2], 32)

        tail = len(text) % 8
        words = [int.from_bytes(text[i : i + 8], "little") for i in range(0, len(text) - tail, 8)]
        words.append(int.from_bytes(text[len(text) - tail :], "little") | (len(text) & 0xFF) << 56)
        for word in words:
            v[3] ^= word
            rounds(2)
            v[0] ^= word
        v[2] ^= 0xFF
        rounds(4)
        return v[0] ^ v[1] ^ v[2] ^ v[3]

    # The paper's own vector (Appendix A) says that the plain version is right.
    assert siphash(SECRET, bytes(range(15))) == 0xA129CA6149BE45E5
    text = bytes(range(256)) * 2
    key = keys.uid_table_key(SECRET, 0, text)
    assert key == b"\x00" + text[:400] + siphash(SECRET, text).to_bytes(8, "little")
