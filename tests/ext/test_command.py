"""Command sets against pydicom's encoding and pynetdicom's messages, and against torn input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode as oracle_decode
from pynetdicom.dsutils import encode as oracle_encode

from pacs_core._ext import command
from pacs_core._ext.command import Command
from pacs_core.errors import UnparsableError

NUMBERS = {
    0x0100: "command_field",
    0x0110: "message_id",
    0x0120: "message_id_being_responded_to",
    0x0700: "priority",
    0x0900: "status",
    0x0903: "error_id",
    0x1002: "event_type_id",
    0x1008: "action_type_id",
    0x1020: "remaining",
    0x1021: "completed",
    0x1022: "failed",
    0x1023: "warning",
    0x1031: "move_originator_message_id",
}
UIDS = {
    0x0002: "affected_sop_class_uid",
    0x0003: "requested_sop_class_uid",
    0x1000: "affected_sop_instance_uid",
    0x1001: "requested_sop_instance_uid",
}
TEXTS = {0x0600: "move_destination", 0x0902: "error_comment", 0x1030: "move_originator_ae_title"}
TAGS = {0x0901: "offending_elements", 0x1005: "attribute_identifiers"}

number = st.integers(0, 0xFFFF)
uid = st.from_regex(r"[1-9][0-9]{0,4}(\.(0|[1-9][0-9]{0,5})){1,8}", fullmatch=True)
text = st.from_regex(r"[A-Za-z0-9_](?:[A-Za-z0-9_ ]{0,14}[A-Za-z0-9_])?", fullmatch=True)
tags = st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=5)

elements = st.fixed_dictionaries(
    {0x0100: number, 0x0800: number},
    optional={
        **{e: number for e in NUMBERS if e != 0x0100},
        **dict.fromkeys(UIDS, uid),
        **dict.fromkeys(TEXTS, text),
        **dict.fromkeys(TAGS, tags),
    },
)


def as_dataset(values: dict[int, object]) -> Dataset:
    ds = Dataset()
    for element, value in values.items():
        ds.add_new(element, dictionary_VR(element), value)
    return ds


@given(elements)
def test_encoding_is_pydicoms(values: dict[int, object]) -> None:
    ds = as_dataset(values)
    body = oracle_encode(ds, True, True)
    assert body is not None
    ours = command.encode(values)
    assert ours[12:] == body
    assert ours[:12] == b"\x00\x00\x00\x00\x04\x00\x00\x00" + len(body).to_bytes(4, "little")


@given(elements)
def test_decoding_what_pydicom_wrote(values: dict[int, object]) -> None:
    encoded = oracle_encode(as_dataset(values), True, True)
    assert encoded is not None
    decoded = Command.decode(encoded)
    for table in (NUMBERS, UIDS, TEXTS):
        for element, name in table.items():
            missing = None if table is NUMBERS else ""
            assert getattr(decoded, name) == values.get(element, missing), name
    for element, name in TAGS.items():
        assert getattr(decoded, name) == tuple(values.get(element, ())), name
    assert decoded.has_data_set == (values[0x0800] != 0x0101)
    assert decoded.encoded == encoded


@given(elements, st.data())
def test_a_torn_or_changed_command_set_is_refused_or_decoded(
    values: dict[int, object], data: st.DataObject
) -> None:
    encoded = bytearray(command.encode(values))
    if data.draw(st.booleans()):
        del encoded[data.draw(st.integers(0, len(encoded) - 1)) :]
    else:
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = Command.decode(bytes(encoded))
    except UnparsableError:
        return
    for name in (*NUMBERS.values(), *UIDS.values(), *TEXTS.values(), *TAGS.values()):
        getattr(decoded, name)


@pytest.mark.parametrize(
    ("encoded", "what", "offset"),
    [
        (b"\x00\x00\x00", "header", 0),
        (b"\x00\x00\x00\x01\xff\xff\xff\xff", "beyond", 0),
        (b"\x00\x00\x00\x01\x02\x00\x00\x00\x01", "beyond", 0),
        (b"\x08\x00\x00\x01\x02\x00\x00\x00\x01\x00", "group 0000", 0),
        (b"\x00\x00\x00\x01\x01\x00\x00\x00\x01", "odd length", 0),
        (b"", r"Command Field", 0),
        (b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x00", "Data Set Type", 10),
    ],
)
def test_malformed(encoded: bytes, what: str, offset: int) -> None:
    with pytest.raises(UnparsableError, match=what) as caught:
        Command.decode(encoded)
    assert caught.value.offset == offset


def test_the_first_of_several_values_counts() -> None:
    encoded = (
        command.encode({0x0100: 1, 0x0800: 0x0101}) + b"\x00\x00\x00\x09\x04\x00\x00\x00\x01\x02\x03\x04"
    )
    assert Command.decode(encoded).status == 0x0201


def test_empty_values_are_none() -> None:
    encoded = command.encode({0x0100: 1, 0x0800: 0x0101}) + b"\x00\x00\x00\x09\x00\x00\x00\x00"
    assert Command.decode(encoded).status is None


@pytest.mark.parametrize("bad", [{0x0100: 0x10000}, {0x0100: -1}, {0x0101: 1}, {0x0901: [1 << 32]}])
def test_encode_refuses(bad: dict[int, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        command.encode(bad)  # type: ignore[arg-type]


def test_a_long_value_leaves_the_small_buffer() -> None:
    encoded = command.encode({0x0100: 1, 0x0800: 0x0101, 0x1005: range(1, 2000), 0x1020: 3})
    decoded = Command.decode(encoded)
    assert decoded.attribute_identifiers == tuple(range(1, 2000))
    assert decoded.remaining == 3
    assert int.from_bytes(encoded[8:12], "little") == len(encoded) - 12


@pytest.mark.parametrize(
    ("encoded", "wanted"),
    [
        (
            command.encode_store_rq(7, "1.2.3", "4.5.6", 1, "SOMEONE", 9),
            {"AffectedSOPClassUID": "1.2.3", "AffectedSOPInstanceUID": "4.5.6", "CommandField": 1,
             "MessageID": 7, "Priority": 1, "CommandDataSetType": 1,
             "MoveOriginatorApplicationEntityTitle": "SOMEONE",
             "MoveOriginatorMessageID": 9},
        ),
        (
            command.encode_store_rsp(7, "1.2.3", "4.5.6", 0xA700, "no room " * 20, [0x00080018]),
            {"AffectedSOPClassUID": "1.2.3", "AffectedSOPInstanceUID": "4.5.6", "CommandField": 0x8001,
             "MessageIDBeingRespondedTo": 7, "CommandDataSetType": 0x0101, "Status": 0xA700,
             "OffendingElement": 0x00080018, "ErrorComment": ("no room " * 8)[:-1]},
        ),
        (
            command.encode_echo_rq(65535),
            {"AffectedSOPClassUID": "1.2.840.10008.1.1", "CommandField": 0x30, "MessageID": 65535,
             "CommandDataSetType": 0x0101},
        ),
        (
            command.encode_echo_rsp(3),
            {"AffectedSOPClassUID": "1.2.840.10008.1.1", "CommandField": 0x8030,
             "MessageIDBeingRespondedTo": 3, "CommandDataSetType": 0x0101, "Status": 0},
        ),
        (
            command.encode_find_rsp(3, "1.2", 0xFF00, True),
            {"AffectedSOPClassUID": "1.2", "CommandField": 0x8020, "MessageIDBeingRespondedTo": 3,
             "CommandDataSetType": 1, "Status": 0xFF00},
        ),
    ],
)  # fmt: skip
def test_whole_messages_read_by_pydicom(encoded: bytes, wanted: dict[str, object]) -> None:
    from io import BytesIO

    read = {keyword_for_tag(e.tag): e.value for e in oracle_decode(BytesIO(encoded), True, True)}
    assert read.pop("CommandGroupLength") == len(encoded) - 12
    assert read == wanted
