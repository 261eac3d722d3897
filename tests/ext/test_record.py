"""The fields blob: round trip, and no malformed blob is read beyond its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_core._ext import record

FIELDS = st.dictionaries(st.integers(0, 0xFFFFFFFF), st.binary(max_size=40), max_size=20)


@given(FIELDS)
def test_what_is_packed_is_unpacked_in_tag_order(fields: dict[int, bytes]) -> None:
    blob = record.pack(fields.items())
    assert record.unpack(blob) == fields
    assert list(record.unpack(blob)) == sorted(fields)
    record.check(blob)


def test_layout_is_version_then_tag_length_value() -> None:
    assert record.pack([(0x00100020, b"ab")]) == b"\x01" + b"\x20\x00\x10\x00" + b"\x02\0\0\0" + b"ab"


@given(FIELDS.filter(bool), st.data())
def test_cut_blob_is_refused_or_ends_between_entries(fields: dict[int, bytes], data: st.DataObject) -> None:
    blob = record.pack(fields.items())
    cut = blob[: data.draw(st.integers(0, len(blob) - 1))]
    try:
        got = record.unpack(cut)
    except ValueError:
        with pytest.raises(ValueError, match="fields blob"):
            record.check(cut)
    else:
        assert got.items() < fields.items()


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x02",
        b"\x01\x20\0\x10\0\xff\xff\xff\xff",
        b"\x01" + b"\x20\0\x10\0\0\0\0\0" * 2,
        b"\x01" + b"\x20\0\x10\0\0\0\0\0" + b"\x10\0\x10\0\0\0\0\0",
    ],
    ids=["empty", "version", "length over the end", "tag twice", "tags descending"],
)
def test_malformed_blob_is_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="fields blob"):
        record.unpack(blob)
    with pytest.raises(ValueError, match="fields blob"):
        record.check(blob)


def test_value_over_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        record.pack([(1, bytes(record.LIMIT + 1))])
