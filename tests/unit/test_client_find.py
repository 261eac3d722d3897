"""C-FIND towards peers that misbehave: what was found is given, what is wrong is said, nothing hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pacs_core import Client
from pacs_core._ext import pdu
from pacs_core.client import Timeouts
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read_dataset
from pacs_core.errors import AssociationError, IdentifierError, RefusedError
from tests.scripted import Caller, scripted

QUICK = Timeouts(connect=2, acse=2, dimse=2, write=2, artim=0.5)
EXPLICIT = "1.2.840.10008.1.2.1"
PENDING = 0xFF00
C_CANCEL = 0x0FFF


def client(port: int) -> Client:
    return Client("127.0.0.1", port, timeouts=QUICK)


def study(number: int) -> bytes:
    return Dataset(QueryRetrieveLevel="STUDY", StudyInstanceUID=f"1.2.{number}").to_bytes(EXPLICIT)


def answering(script: Callable[[Caller, pdu.Event], object]) -> Callable[[Caller], None]:
    """A peer that accepts, and does what `script` says with the request; then it says goodbye."""

    def run(caller: Caller) -> None:
        caller.accept()
        event = caller.message()
        assert event is not None
        script(caller, event)
        while caller.message() is not None:
            pass

    return run


def test_the_request_and_its_matches() -> None:
    asked: list[Dataset] = []

    def script(caller: Caller, event: pdu.Event) -> None:
        assert event.command is not None
        assert event.command.command_field == 0x0020
        assert event.command.affected_sop_class_uid == "1.2.840.10008.5.1.4.1.2.2.1"
        asked.append(read_dataset(bytes(event.data or b""), EXPLICIT))
        caller.respond(event, PENDING, study(1))
        caller.respond(event, 0xFF01, study(2))
        caller.respond(event, 0)

    with scripted(answering(script)) as peer:
        found = list(client(peer.port).find("STUDY", {0x00100010: "Dö*"}, StudyDate="2026-"))
    assert [each.StudyInstanceUID for each in found] == ["1.2.1", "1.2.2"]
    assert asked[0].PatientName == "Dö*"
    assert asked[0].StudyDate == "2026-"
    assert asked[0].SpecificCharacterSet == "ISO_IR 192"
    assert asked[0].QueryRetrieveLevel == "STUDY"


def test_patient_root_for_patients() -> None:
    with scripted(answering(lambda caller, event: caller.respond(event, 0))) as peer:
        assert list(client(peer.port).find(PatientID="P1")) == []
        request = peer.callers[0].request
        assert [abstract for _, abstract, _ in request.contexts] == ["1.2.840.10008.5.1.4.1.2.1.1"]


def test_the_first_match_is_there_before_the_last() -> None:
    seen = threading.Event()

    def script(caller: Caller, event: pdu.Event) -> None:
        caller.respond(event, PENDING, study(1))
        assert seen.wait(5)
        caller.respond(event, 0)

    with scripted(answering(script)) as peer:
        found = client(peer.port).find("STUDY")
        assert next(found).StudyInstanceUID == "1.2.1"
        seen.set()
        assert list(found) == []


def test_what_can_not_be_asked_is_said_at_once(free_port: int) -> None:
    with pytest.raises(IdentifierError):
        client(free_port).find(Modality="CT")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xA700, "A700H, out of resources"),
        (0xA900, "A900H, data set does not match SOP class"),
        (0xC001, "C001H, .*process"),
        (0x0122, "0122H, SOP class not supported"),
        (0xFE00, "FE00H, cancelled"),
    ],
)
def test_a_failure_is_raised_after_what_was_found(status: int, words: str) -> None:
    def script(caller: Caller, event: pdu.Event) -> None:
        caller.respond(event, PENDING, study(1))
        caller.respond(event, status, e0902="a comment")

    with scripted(answering(script)) as peer:
        found = client(peer.port).find("STUDY")
        assert next(found).StudyInstanceUID == "1.2.1"
        with pytest.raises(RefusedError, match=f"{words}: a comment"):
            next(found)


def no_identifier(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))
    caller.respond(event, PENDING)


def an_empty_one(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))
    caller.respond(event, PENDING, b"")


def garbage(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))
    caller.respond(event, PENDING, b"\xff" * 500)


def nested(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    caller.respond(event, PENDING, 400 * (b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + item))


def without_end(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))
    caller.respond(event, PENDING, study(2) + b"\x10\x00\x00\x40LT\0\0" + bytes(6 << 20))


def another_message(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))
    caller.respond(event, PENDING, study(2), e0120=99)


def another_service(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))
    caller.respond(event, PENDING, study(2), e0100=0x8001)


def a_store(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))
    caller.respond(event, 0, b"data", e0100=0x0001, e0110=7, e0120=None, e1000="1.2.3")


def no_status(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))
    caller.respond(event, 0, e0900=None)


def dies(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))
    caller.sock.close()


def falls_silent(caller: Caller, event: pdu.Event) -> None:
    caller.respond(event, PENDING, study(1))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (no_identifier, "a pending response without an identifier"),
        (an_empty_one, "a pending response without an identifier"),
        (garbage, "an identifier that can't be understood"),
        (nested, "an identifier that can't be understood: more than 256 sequences"),
        (without_end, "an identifier that does not end"),
        (another_message, "8020H to message 99 instead of a response to message 1"),
        (another_service, "8001H to message 1 instead of"),
        (a_store, "0001H instead of a response"),
        (no_status, "an answer without a status"),
        (dies, "lost|closed"),
        (falls_silent, "no answer in time"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_a_peer_that_misbehaves(script: Callable[[Caller, pdu.Event], None], words: str) -> None:
    with scripted(answering(script)) as peer:
        found = client(peer.port).find("STUDY")
        assert next(found).StudyInstanceUID == "1.2.1"
        with pytest.raises(AssociationError, match=words):
            next(found)


def test_what_is_odd_about_an_identifier_is_lenient() -> None:
    def script(caller: Caller, event: pdu.Event) -> None:
        caller.respond(event, PENDING, study(1) + b"\x10\x00\x10\x00PN\xff\x00cut")
        caller.respond(event, 0)

    with scripted(answering(script)) as peer:
        [found] = client(peer.port).find("STUDY")
    assert found.StudyInstanceUID == "1.2.1"
    assert found.truncated


def test_a_model_that_is_not_accepted() -> None:
    def script(caller: Caller) -> None:
        caller.accept(refusing={"1.2.840.10008.5.1.4.1.2.2.1"})
        assert caller.message() is None

    with (
        scripted(script) as peer,
        pytest.raises(AssociationError, match="does not accept C-FIND in Study Root: abstract-syntax-not"),
    ):
        list(client(peer.port).find("STUDY"))


def endless(heard: list[int], obeys: bool) -> Callable[[Caller], None]:
    """Matches for ever; a C-CANCEL ends them, or not. What it heard goes to `heard`."""

    def run(caller: Caller) -> None:
        caller.accept()
        event = caller.message()
        assert event is not None
        assert event.command is not None

        def listen() -> None:
            while (one := caller.event()) is not None:
                heard.append(one.command.command_field if one.command is not None else -one.kind)
                if one.command is not None:
                    assert one.command.message_id_being_responded_to == event.command.message_id  # type: ignore[union-attr]
                elif one.kind == pdu.RELEASE_RQ:
                    caller.send(pdu_release())

        listener = threading.Thread(target=listen)
        listener.start()
        number = 0
        while listener.is_alive() and not (obeys and heard):
            number += 1
            caller.respond(event, PENDING, study(number))
            time.sleep(0.001)
        if listener.is_alive():
            caller.respond(event, 0xFE00)
        listener.join(5)

    return run


def pdu_release() -> bytes:
    from pacs_core._ext.associate import RELEASE_RP

    return RELEASE_RP


def test_8_stopping_early_cancels_and_releases() -> None:
    heard: list[int] = []
    with scripted(endless(heard, obeys=True)) as peer:
        found = client(peer.port).find("STUDY")
        next(found)
        found.close()
    assert heard == [C_CANCEL, -pdu.RELEASE_RQ]


def test_a_cancel_that_is_ignored_becomes_an_abort() -> None:
    heard: list[int] = []
    with scripted(endless(heard, obeys=False)) as peer:
        found = client(peer.port).find("STUDY")
        next(found)
        begun = time.monotonic()
        found.close()
        assert time.monotonic() - begun < 3
    assert heard == [C_CANCEL, -pdu.ABORT]
