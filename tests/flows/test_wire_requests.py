"""Requests that no service sees: each gets a status, or the association ends and the log says why."""

from __future__ import annotations

from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind
from rawpeer import CT, ECHO, IMPLICIT, Peer, echo, p_data, pdv, serving

from pacs_core._ext.command import encode

FIND = str(StudyRootQueryRetrieveInformationModelFind)
CONTEXTS = [(1, ECHO, [IMPLICIT]), (3, CT, [IMPLICIT]), (5, FIND, [IMPLICIT])]
LEVEL = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ = 0x0020, 0x0021, 0x0030


def entity() -> AE:
    ae = AE("PACSCORE")
    for uid in (ECHO, CT, FIND):
        ae.add_supported_context(uid, [IMPLICIT])
    return ae


def request(context: int, field: int, data: bytes | None, **elements: Any) -> bytes:
    """A command set as it is told, valid or not."""
    names = {"uid": 0x0002, "message_id": 0x0110, "priority": 0x0700, "destination": 0x0600}
    fields: dict[int, Any] = {0x0100: field, 0x0800: 0x0101 if data is None else 1}
    fields |= {names[name]: value for name, value in elements.items()}
    return p_data(pdv(context, 3, encode(fields)), *([] if data is None else [pdv(context, 2, data)]))


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (request(1, C_ECHO_RQ, None, message_id=7), 0x0212),
        (request(5, C_FIND_RQ, LEVEL, message_id=7, priority=0), 0x0212),
        (request(3, C_MOVE_RQ, LEVEL, message_id=7, priority=0, uid=CT), 0x0212),
        (request(3, C_MOVE_RQ, LEVEL, message_id=7, priority=0, uid=CT, destination="A"), 0x0211),
        (request(1, C_ECHO_RQ, None, message_id=7, uid=CT), 0x0211),
        (request(1, C_FIND_RQ, LEVEL, message_id=7, priority=0, uid=ECHO), 0x0211),
        (request(1, C_FIND_RQ, LEVEL, message_id=7, priority=0, uid=FIND), 0x0211),
    ],
    ids=[
        "echo-class",
        "find-class",
        "move-part",
        "move-ct",
        "echo-ct",
        "find-echo",
        "find-there",
    ],
)
def test_a_request_that_is_no_operation_is_answered_and_the_association_goes_on(
    wire: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """PS3.7 Annex C."""
    with serving(entity()) as server, Peer(server) as peer:
        peer.associated(contexts=CONTEXTS)
        peer.send(wire)
        answer = peer.response()
        assert (answer.status, answer.message_id_being_responded_to) == (status, 7)
        assert answer.is_response
        peer.send(echo(1, 8))
        assert peer.response().status == 0
        peer.released()
    assert [r.levelname for r in caplog.records if "refused" in r.getMessage()] == ["WARNING"]


@pytest.mark.parametrize("field", [C_FIND_RQ, C_ECHO_RQ])
def test_a_request_without_a_message_id_ends_the_association(
    field: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(entity()) as server, Peer(server) as peer:
        peer.associated(contexts=CONTEXTS)
        find = field == C_FIND_RQ
        peer.send(request(5 if find else 1, field, LEVEL if find else None, uid=FIND if find else ECHO))
        assert peer.pdu()[0] == 7
    assert "0212" in caplog.text


def test_an_identifier_that_is_too_large_is_a700_and_takes_no_memory() -> None:
    with serving(entity(), spool_at=65536, largest_in_memory=100_000) as server, Peer(server) as peer:
        peer.associated(contexts=CONTEXTS)
        head = {0x0002: FIND, 0x0100: C_FIND_RQ, 0x0110: 7, 0x0700: 0, 0x0800: 1}
        peer.send(p_data(pdv(5, 3, encode(head))))
        for _ in range(200):
            peer.send(p_data(pdv(5, 0, bytes(16000))))
        peer.send(p_data(pdv(5, 2, bytes(10))))
        assert peer.response().status == 0xA700
        peer.send(echo(1, 8))
        assert peer.response().status == 0
        peer.released()


def test_a_peer_that_may_not_echo_is_answered_0124() -> None:
    asked = []

    def may_echo(*peer: str) -> bool:
        asked.append(peer)
        return False

    with serving(entity(), may_echo=may_echo) as server, Peer(server) as peer:
        peer.associated(contexts=CONTEXTS)
        peer.send(echo(1, 7))
        assert peer.response().status == 0x0124
        peer.released()
    assert asked == [("RAWPEER", "PACSCORE", "127.0.0.1")]
