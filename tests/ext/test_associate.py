"""Association PDUs and negotiation; pynetdicom is the oracle."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pynetdicom import pdu as oracle

from pacs_core._ext import associate
from pacs_core._ext.associate import CommonExtended, MalformedError, Supported, UserIdentity

STORESCU = Path("/usr/bin/storescu")
CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def encoded(**changes: Any) -> bytes:
    asked: dict[str, Any] = {
        "called_ae_title": "CALLED",
        "calling_ae_title": "CALLING",
        "contexts": [(1, CT, [EXPLICIT, IMPLICIT]), (3, VERIFICATION, [IMPLICIT])],
        "maximum_length": 16384,
        "implementation_class_uid": "1.2.3",
        "implementation_version_name": "THEIRS",
    }
    return associate.encode_request(**asked | changes)


def accepted(request: associate.Request, answer: associate.Negotiated, **changes: Any) -> bytes:
    ours: dict[str, Any] = {
        "maximum_length": 131072,
        "implementation_class_uid": "1.2.3.4",
        "implementation_version_name": "OURS 1",
    }
    return associate.encode_accept(request, answer, **ours | changes)


def refused(request: associate.Request) -> bytes:
    """The answer of one who supports nothing."""
    return accepted(request, associate.negotiate(Supported([]), request))


def item(kind: int, body: bytes) -> bytes:
    return bytes((kind, 0)) + len(body).to_bytes(2, "big") + body


def request_of(
    *items: bytes, titles: bytes = b"CALLED".ljust(16) + b"CALLING".ljust(16), version: int = 1
) -> bytes:
    body = version.to_bytes(2, "big") + bytes(2) + titles + bytes(32) + b"".join(items)
    return b"\x01\x00" + len(body).to_bytes(4, "big") + body


def context(ident: int, *parts: bytes) -> bytes:
    return item(0x20, bytes((ident, 0, 0, 0)) + b"".join(parts))


def told(*items: bytes) -> bytes:
    return item(0x50, b"".join(items))


def abstract(uid: bytes) -> bytes:
    return item(0x30, uid)


def transfer(uid: bytes) -> bytes:
    return item(0x40, uid)


uids = st.lists(st.integers(0, 99999), min_size=2, max_size=8).map(
    lambda parts: "1.2." + ".".join(map(str, parts))
)
titles = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), min_size=1, max_size=16
)
flags = st.booleans()
# The primary field is never empty: pynetdicom misreads one that is.
identities = st.builds(
    UserIdentity, st.integers(1, 5), flags, st.binary(min_size=1, max_size=40), st.binary(max_size=40)
)
requests = st.fixed_dictionaries(
    {
        "called_ae_title": titles,
        "calling_ae_title": titles,
        "contexts": st.lists(
            st.tuples(
                st.integers(0, 127).map(lambda n: 2 * n + 1), uids, st.lists(uids, min_size=1, max_size=4)
            ),
            min_size=1,
            max_size=20,
            unique_by=lambda each: each[0],
        ),
        "maximum_length": st.integers(0, 2**32 - 1),
        "implementation_class_uid": uids,
        "implementation_version_name": st.sampled_from(["", "V", "VERSION 1.2", "SIXTEEN_LETTERS_"]),
        "roles": st.dictionaries(uids, st.tuples(flags, flags), max_size=4),
        "async_ops": st.none() | st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
        "extended": st.dictionaries(uids, st.binary(min_size=1, max_size=9), max_size=3),
        "common_extended": st.dictionaries(
            uids, st.builds(CommonExtended, uids, st.lists(uids, max_size=3).map(tuple)), max_size=3
        ),
        "user_identity": st.none() | identities,
    }
)


# ---- both ways against the oracle ----


@settings(deadline=None)
@given(requests)
def test_request_is_what_pynetdicom_reads_and_writes(said: dict[str, Any]) -> None:
    pdu = associate.encode_request(**said)
    theirs = oracle.A_ASSOCIATE_RQ()
    theirs.decode(pdu)
    assert theirs.encode() == pdu
    assert (theirs.called_ae_title, theirs.calling_ae_title) == (
        said["called_ae_title"],
        said["calling_ae_title"],
    )
    for cx, (ident, uid, syntaxes) in zip(theirs.presentation_context, said["contexts"], strict=True):
        assert (cx.context_id, cx.abstract_syntax, cx.transfer_syntax) == (ident, uid, syntaxes)
    information = theirs.user_information
    assert information is not None
    assert information.maximum_length == said["maximum_length"]
    assert information.implementation_class_uid == said["implementation_class_uid"]
    assert (information.implementation_version_name or "") == said["implementation_version_name"]
    assert {
        uid: (bool(each.scu_role), bool(each.scp_role)) for uid, each in information.role_selection.items()
    } == said["roles"]
    assert {each.uid: each.app_info for each in information.ext_neg} == said["extended"]
    assert {
        each.sop_class_uid: (each.service_class_uid, tuple(each.related_general_sop_class_identification))
        for each in information.common_ext_neg
    } == said["common_extended"]


@settings(deadline=None)
@given(requests)
def test_request_decodes_to_what_was_said(said: dict[str, Any]) -> None:
    theirs = oracle.A_ASSOCIATE_RQ()
    theirs.decode(associate.encode_request(**said))
    got = associate.decode_request(theirs.encode())
    assert got.protocol_version == 1
    assert got.application_context_name == associate.APPLICATION_CONTEXT_NAME
    assert got.contexts == [(ident, uid, tuple(syntaxes)) for ident, uid, syntaxes in said["contexts"]]
    assert got.async_ops == (said["async_ops"] or (1, 1))
    for name in set(said) - {"contexts", "async_ops"}:
        assert getattr(got, name) == said[name], name


@settings(deadline=None)
@given(requests, st.booleans(), st.binary(max_size=9), st.integers(0, 2**32 - 1))
def test_accept_is_what_pynetdicom_reads_and_writes(
    said: dict[str, Any], whole: bool, response: bytes, maximum: int
) -> None:
    request = associate.decode_request(associate.encode_request(**said))
    offered = said["contexts"] if whole else said["contexts"][::2]
    answer = associate.negotiate(Supported([(uid, ts, True, True) for _, uid, ts in offered]), request)
    pdu = accepted(request, answer, maximum_length=maximum, async_ops=(1, 1), identity_response=response)
    theirs = oracle.A_ASSOCIATE_AC()
    theirs.decode(pdu)
    assert theirs.encode() == pdu
    results = [(cx.context_id, cx.result, cx.transfer_syntax) for cx in theirs.presentation_context]
    assert results == [(ident, result, syntax) for ident, _, result, syntax, _, _ in answer.results]
    identity = request.user_identity
    assert theirs.user_information is not None
    asked = identity is not None and identity.response_requested
    assert (theirs.user_information.user_identity is not None) == asked  # CONFORMANCE 7
    assert (theirs.user_information.async_ops_window is not None) == (said["async_ops"] is not None)  # 6

    back = associate.decode_accept(theirs.encode())
    assert back.results == {ident: (result, syntax) for ident, _, result, syntax, _, _ in answer.results}
    assert back.roles == answer.roles
    assert back.maximum_length == maximum
    assert back.implementation_class_uid == "1.2.3.4"
    assert back.implementation_version_name == "OURS 1"
    assert back.identity_response == (response if asked else None)


# ---- what is tolerated ----


def test_1_reserved_bytes_are_ignored_and_only_bit_0_of_the_version_counts() -> None:
    pdu = bytearray(encoded())
    expected = associate.decode_request(pdu)
    pdu[1] = pdu[8] = pdu[9] = pdu[42] = pdu[73] = pdu[75] = 0xFF
    pdu[6:8] = b"\xff\xff"
    first = pdu.index(b"\x20\x00")
    pdu[first + 1] = pdu[first + 5] = pdu[first + 6] = pdu[first + 7] = 0xFF
    got = associate.decode_request(memoryview(pdu))
    assert got.contexts == expected.contexts
    assert got.protocol_version == 0xFFFF


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"PACS            ", "PACS"),
        (b"      PACS      ", "PACS"),
        (b"PACS\0\0\0\0\0\0\0\0\0\0\0\0", "PACS"),
        (b"PACS\0leftover\0\0\0", "PACS"),
        (b"\0\0PACS\r\n        ", "PACS"),
        (b"MY PACS         ", "MY PACS"),
        (b"A\x07B\xe9            ", "A?B?"),
        (b"SIXTEEN_LETTERS_", "SIXTEEN_LETTERS_"),
        (b"                ", ""),
        (b"\0" * 16, ""),
    ],
)
def test_9_titles_are_tolerated_and_control_characters_not_sent_back(sent: bytes, read: str) -> None:
    got = associate.decode_request(
        request_of(context(1, abstract(b"1.2"), transfer(b"1.3")), titles=sent + sent[::-1])
    )
    assert got.called_ae_title == read
    answer = refused(got)
    echoed = bytes(c if 0x20 <= c < 0x7F else 0x20 for c in sent + sent[::-1])
    assert answer[10:42] == echoed  # PS3.8 table 9-17: identical to those received


def test_reserved_bytes_behind_the_titles_go_back_as_they_came() -> None:
    pdu = bytearray(encoded())
    pdu[42:74] = bytes(range(224, 256))
    got = associate.decode_request(pdu)
    assert refused(got)[42:74] == pdu[42:74]


@pytest.mark.parametrize("uid", [b"not a UID", b"1." * 33, b"1.2.\xe9", b"1.2\x003"])
def test_what_is_no_uid_is_read_but_never_accepted(uid: bytes) -> None:
    got = associate.decode_request(request_of(context(1, abstract(uid), transfer(IMPLICIT.encode()))))
    supported = Supported([(CT, [IMPLICIT], None, None)], accept_unknown_storage=True)
    assert associate.negotiate(supported, got).results == [
        (1, uid.decode("latin-1"), 3, IMPLICIT, False, False)
    ]


def test_padding_of_uids_is_dropped() -> None:
    got = associate.decode_request(
        request_of(
            item(0x10, b"1.2.840.10008.3.1.1.1\0"),
            context(1, abstract(CT.encode() + b"\0"), transfer(IMPLICIT.encode() + b" "), transfer(b"\0\0")),
            told(item(0x52, b"1.2.3\0"), item(0x55, b" NAME\0\0 ")),
        )
    )
    assert got.application_context_name == associate.APPLICATION_CONTEXT_NAME
    assert got.contexts == [(1, CT, (IMPLICIT, ""))]
    assert (got.implementation_class_uid, got.implementation_version_name) == ("1.2.3", "NAME")


def test_what_is_unsent_has_defaults() -> None:
    got = associate.decode_request(request_of())
    assert (got.contexts, got.roles, got.extended, got.common_extended) == ([], {}, {}, {})
    assert (got.application_context_name, got.implementation_class_uid, got.implementation_version_name) == (
        "",
    ) * 3
    assert (got.maximum_length, got.async_ops, got.user_identity) == (16384, (1, 1), None)


def test_unknown_items_and_the_order_of_items_mean_nothing() -> None:
    got = associate.decode_request(
        request_of(
            told(
                item(0x99, b"x"), item(0x59, b"\0"), item(0x51, (7).to_bytes(4, "big")), item(0x51, bytes(4))
            ),
            item(0x77, b"anything"),
            item(0x21, b"\x01"),
            context(
                3, transfer(b"1.3"), item(0x99, b"y"), abstract(b"1.2"), abstract(b"1.9"), transfer(b"1.4")
            ),
            told(item(0x51, bytes(4))),
            item(0x10, b"1.1"),
        )
    )
    assert got.contexts == [(3, "1.2", ("1.3", "1.4"))]
    assert (got.maximum_length, got.application_context_name) == (7, "1.1")


def test_a_context_without_its_syntaxes_spoils_nothing_but_itself() -> None:
    got = associate.decode_request(
        request_of(
            context(1, abstract(CT.encode())),
            context(3, transfer(IMPLICIT.encode())),
            context(5, abstract(CT.encode()), transfer(IMPLICIT.encode())),
        )
    )
    answer = associate.negotiate(Supported([(CT, [IMPLICIT], None, None)], accept_unknown_storage=True), got)
    assert [(each[0], each[2], each[3]) for each in answer.results] == [
        (1, 4, ""),
        (3, 3, IMPLICIT),
        (5, 0, IMPLICIT),
    ]
    theirs = oracle.A_ASSOCIATE_AC()
    theirs.decode(accepted(got, answer))  # a refused context still has the sub-item
    assert [cx.transfer_syntax for cx in theirs.presentation_context] == [IMPLICIT] * 3


def test_what_is_no_uid_is_not_sent_back() -> None:
    got = associate.decode_request(
        request_of(context(1, abstract(b"1.2"), transfer(b"\x1b[31m" + b"x" * 60000)))
    )
    assert associate.decode_accept(refused(got)).results == {1: (3, IMPLICIT)}


def test_5_128_contexts() -> None:
    contexts = [(ident, CT, [IMPLICIT]) for ident in range(1, 256, 2)]
    assert len(associate.decode_request(encoded(contexts=contexts)).contexts) == 128


def test_more_uids_than_are_remembered() -> None:
    contexts = [(2 * n + 1, f"1.2.{n}", [f"1.{n}.{m}" for m in range(100)]) for n in range(100)]
    pdu = encoded(contexts=contexts)
    expected = [(ident, uid, tuple(syntaxes)) for ident, uid, syntaxes in contexts]
    assert associate.decode_request(pdu).contexts == expected
    assert associate.decode_request(pdu).contexts == expected


def test_a_uid_is_one_str() -> None:
    first, second = (associate.decode_request(encoded()) for _ in range(2))
    assert first.contexts[0][1] is second.contexts[0][1]


def test_secrets_stay_out_of_reprs() -> None:
    identity = UserIdentity(2, True, b"name", b"secret")
    got = associate.decode_request(encoded(user_identity=identity))
    assert got.user_identity == identity
    for text in (repr(got), repr(identity), str(identity), f"{identity}"):
        assert "secret" not in text


def test_user_identity_without_a_secondary_field() -> None:
    got = associate.decode_request(request_of(told(item(0x58, b"\x01\x01\x00\x02me"))))
    assert got.user_identity == UserIdentity(1, True, b"me", b"")


# ---- what is malformed ----

ONE = context(1, abstract(b"1.2"), transfer(b"1.3"))


@pytest.mark.parametrize(
    ("pdu", "offset", "why"),
    [
        (b"", 0, "header"),
        (b"\x01\0\0\0\0", 0, "header"),
        (b"\x02" + request_of(ONE)[1:], 0, "type 02H"),
        (request_of(ONE)[:-1], 2, "length says"),
        (request_of(ONE) + b"\0", 2, "length says"),
        (b"\x01\0\xff\xff\xff\xff" + request_of(ONE)[6:], 2, "length says 4294967295"),
        (request_of()[:2] + (67).to_bytes(4, "big") + bytes(67), 2, "less than 74"),
        (request_of(ONE, b"\x20"), 74 + len(ONE), "beyond what contains it"),
        (request_of(ONE, b"\x20\0\0\x05abcd"), 74 + len(ONE), "beyond what contains it"),
        (request_of(ONE, item(0x20, b"")), 74 + len(ONE), "field reaches beyond"),
        (request_of(item(0x20, b"\x01\0\0")), 74, "field reaches beyond"),
        (request_of(context(1, b"\x30\0\0\x09" + b"1.2")), 82, "beyond what contains it"),
        (request_of(context(0, abstract(b"1.2"))), 74, "not odd"),
        (request_of(context(2, abstract(b"1.2"))), 74, "not odd"),
        (request_of(ONE, ONE), 74 + len(ONE), "used twice"),
        (request_of(told(item(0x51, b"\0\0\0"))), 78, "field reaches beyond"),
        (request_of(told(item(0x53, b"\0\1\0"))), 78, "field reaches beyond"),
        (request_of(told(item(0x54, b"\0\x031.2\1"))), 78, "field reaches beyond"),
        (request_of(told(item(0x54, b"\xff\xff1.2\1\1"))), 78, "field reaches beyond"),
        (request_of(told(item(0x56, b"\0\x041.2"))), 78, "field reaches beyond"),
        (request_of(told(item(0x57, b"\0\x031.2\0\x031.3\0\x05\0\x041.4"))), 78, "field reaches beyond"),
        (request_of(told(item(0x58, b"\1\1\0\x03me"))), 78, "field reaches beyond"),
        (request_of(told(item(0x58, b"\1\1\0\x02me\0"))), 78, "field reaches beyond"),
    ],
)
def test_malformed_request(pdu: bytes, offset: int, why: str) -> None:
    with pytest.raises(MalformedError, match=why) as caught:
        associate.decode_request(pdu)
    assert caught.value.offset == offset
    assert f"[byte {offset}]" in str(caught.value)


def test_5_more_than_128_contexts_are_malformed() -> None:
    contexts = [context(n % 256, abstract(b"1.2"), transfer(b"1.3")) for n in range(1, 260, 2)]
    with pytest.raises(MalformedError, match="used twice"):
        associate.decode_request(request_of(*contexts))


def test_accepted_context_without_a_transfer_syntax_is_malformed() -> None:
    request = request_of(item(0x21, b"\x01\0\0\0"))
    with pytest.raises(MalformedError, match="accepted without"):
        associate.decode_accept(b"\x02" + request[1:])
    request = request_of(item(0x21, b"\x01\0\x03\0"))
    assert associate.decode_accept(b"\x02" + request[1:]).results == {1: (3, "")}


def decode_anything(pdu: bytes) -> None:
    """Decode as what the first byte says; use what comes out."""
    decoders: dict[int, Callable[[bytes], Any]] = {
        1: associate.decode_request,
        2: associate.decode_accept,
        3: associate.decode_reject,
        7: associate.decode_abort,
    }
    try:
        got = decoders.get(pdu[0] if pdu else 1, associate.decode_request)(pdu)
    except MalformedError as error:
        if not 0 <= error.offset <= len(pdu):
            raise AssertionError("an offset outside the PDU") from error
        return
    if isinstance(got, associate.Request):
        supported = Supported(
            [(CT, [IMPLICIT], True, True)], accept_unknown_storage=True, accept_unknown_transfer_syntaxes=True
        )
        answer = accepted(got, associate.negotiate(supported, got), async_ops=(1, 1), identity_response=b"x")
        assert set(associate.decode_accept(answer).results) == {ident for ident, _, _ in got.contexts}


def mended(pdu: bytearray) -> bytes:
    """With a PDU length that is right, so that damage further in is reached."""
    if len(pdu) >= 6:
        pdu[2:6] = (len(pdu) - 6).to_bytes(4, "big")
    return bytes(pdu)


@settings(deadline=None, max_examples=400)
@given(requests, st.data())
def test_damage_never_gets_past_the_reader(said: dict[str, Any], data: st.DataObject) -> None:
    pdu = bytearray(associate.encode_request(**said))
    pdu[0] = data.draw(st.sampled_from([1, 1, 1, 2, 3, 7]))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(pdu) - 1))
        damage = data.draw(st.sampled_from(["flip", "length", "cut", "drop", "repeat"]))
        if damage == "flip":
            pdu[at] ^= 1 << data.draw(st.integers(0, 7))
        elif damage == "length":
            pdu[at : at + 2] = data.draw(st.sampled_from([b"\xff\xff", b"\0\0", b"\0\1", b"\x7f\xff"]))
        elif damage == "cut":
            del pdu[max(at, 1) :]
        elif damage == "drop":
            del pdu[at : at + data.draw(st.integers(1, 9))]
        else:
            pdu[at:at] = pdu[at : at + data.draw(st.integers(1, 99))]
        pdu = pdu or bytearray(b"\x01")
    decode_anything(bytes(pdu))
    decode_anything(mended(pdu))


def test_every_truncation_is_malformed_or_shorter() -> None:
    pdu = encoded(
        user_identity=UserIdentity(2, True, b"me", b"you"), roles={CT: (True, True)}, extended={CT: b"\1"}
    )
    for size in range(len(pdu)):
        decode_anything(mended(bytearray(pdu[:size])))
        with pytest.raises(MalformedError):
            associate.decode_request(pdu[:size])


def test_a_buffer_that_has_holes_is_refused() -> None:
    with pytest.raises(BufferError):
        associate.decode_request(memoryview(encoded() * 2)[::2])


# ---- the short PDUs ----


@pytest.mark.parametrize("said", [(1, 1, 7), (1, 1, 3), (2, 3, 2), (1, 2, 2), (1, 1, 1)])
def test_1_reject(said: tuple[int, int, int]) -> None:
    pdu = associate.encode_reject(*said)
    theirs = oracle.A_ASSOCIATE_RJ()
    theirs.decode(pdu)
    assert (theirs.result, theirs.source, theirs.reason_diagnostic) == said
    assert theirs.encode() == pdu
    assert associate.decode_reject(pdu) == said


@pytest.mark.parametrize("said", [(0, 0), (2, 0), (2, 1), (2, 6)])
def test_abort(said: tuple[int, int]) -> None:
    pdu = associate.encode_abort(*said)
    theirs = oracle.A_ABORT_RQ()
    theirs.decode(pdu)
    assert (theirs.source, theirs.reason_diagnostic) == said
    assert theirs.encode() == pdu
    assert associate.decode_abort(pdu) == said
    assert associate.encode_abort(0, 5) == associate.encode_abort(0, 0)


def test_release() -> None:
    assert oracle.A_RELEASE_RQ().encode() == associate.RELEASE_RQ
    assert oracle.A_RELEASE_RP().encode() == associate.RELEASE_RP


@pytest.mark.parametrize(
    "pdu", [b"", b"\x03\0\0\0\0\x03\0\1\1", b"\x07\0\0\0\0\x04\0\0\2\1", b"\x03\0\0\0\0\x04\0\1"]
)
def test_short_pdus_that_are_malformed(pdu: bytes) -> None:
    with pytest.raises(MalformedError):
        associate.decode_reject(pdu)


@pytest.mark.parametrize("said", [(0, 1, 1), (3, 1, 1), (1, 0, 1), (1, 4, 1), (1, 1, 256), (1, 1, -1)])
def test_no_such_rejection(said: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no A-ASSOCIATE-RJ"):
        associate.encode_reject(*said)


@pytest.mark.parametrize("said", [(1, 0), (3, 0), (2, 7), (2, -1)])
def test_no_such_abort(said: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no A-ABORT"):
        associate.encode_abort(*said)


# ---- what is never sent ----


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"called_ae_title": ""}, "called AE title: empty"),
        ({"called_ae_title": "   "}, "called AE title: empty"),
        ({"calling_ae_title": "SEVENTEEN_LETTERS"}, "calling AE title: at most 16"),
        ({"calling_ae_title": "A\nB"}, "calling AE title"),
        ({"calling_ae_title": "A\0"}, "calling AE title"),
        ({"calling_ae_title": "É"}, "calling AE title"),
        ({"calling_ae_title": "A\\B"}, "backslash"),
        ({"implementation_version_name": "V\x7f"}, "implementation version name"),
        ({"implementation_class_uid": ""}, "not a UID"),
        ({"contexts": []}, "at least one"),
        ({"contexts": [(2, CT, [IMPLICIT])]}, "odd"),
        ({"contexts": [(257, CT, [IMPLICIT])]}, "odd"),
        ({"contexts": [(1, CT, [IMPLICIT])] * 2}, "each used once"),
        ({"contexts": [(1, CT, [])]}, "without a transfer syntax"),
        ({"contexts": [(1, "1." * 33, [IMPLICIT])]}, "not a UID"),
        ({"contexts": [(1, CT, [f"1.2.{n}" for n in range(9000)])]}, "65535 at most"),
        ({"maximum_length": 2**32}, "maximum length"),
        ({"maximum_length": -1}, "maximum length"),
        ({"async_ops": (1, 65536)}, "operations performed"),
        ({"roles": {"CT": (True, True)}}, "not a UID"),
        ({"extended": {CT: bytes(65536)}}, "65535 at most"),
        ({"common_extended": {CT: CommonExtended("1.2", tuple(["1.2"] * 14000))}}, "length of a field"),
        ({"user_identity": UserIdentity(256, False, b"")}, "user identity type"),
        ({"user_identity": UserIdentity(1, False, bytes(65536))}, "length of a field"),
    ],
)
def test_what_has_no_encoding(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        encoded(**change)


@pytest.mark.parametrize("kind", [associate.Request, associate.Accept, associate.Negotiated])
def test_only_decoding_makes_one(kind: type[object]) -> None:
    with pytest.raises(TypeError, match="is made by"):
        kind()


# ---- a foreign requestor ----


@pytest.mark.skipif(not STORESCU.exists(), reason="DCMTK is not installed")
def test_dcmtk_on_the_wire(tmp_path: Path) -> None:
    """What storescu asks for is understood, and it takes our answer: it goes on to the C-STORE."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = subprocess.Popen(
            [
                STORESCU,
                "-v",
                "-R",
                "-aet",
                "DCMTK",
                "-aec",
                "PACS",
                "127.0.0.1",
                str(port),
                str(get_testdata_file("CT_small.dcm")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
        server.settimeout(10)
        with server.accept()[0] as connection, connection.makefile("rb") as stream:
            connection.settimeout(10)
            head = stream.read(6)
            request = associate.decode_request(head + stream.read(int.from_bytes(head[2:6], "big")))
            answer = associate.negotiate(Supported([(CT, [IMPLICIT, EXPLICIT], None, None)]), request)
            connection.sendall(accepted(request, answer))
            data = stream.read(6)
            connection.sendall(associate.encode_abort(0, 0))
        output = client.communicate(timeout=10)[0].decode()
    assert (request.called_ae_title, request.calling_ae_title) == ("PACS", "DCMTK")
    assert request.application_context_name == associate.APPLICATION_CONTEXT_NAME
    assert request.protocol_version & 1
    assert request.maximum_length == 16384
    assert request.implementation_version_name.startswith("OFFIS_DCMTK")
    assert {uid for _, uid, _ in request.contexts} == {CT}
    assert all(ident % 2 == 1 for ident, _, _ in request.contexts)
    assert EXPLICIT in {syntax for _, _, syntaxes in request.contexts for syntax in syntaxes}
    assert data[0] == 4, output  # P-DATA-TF
    assert "Association Accepted" in output
