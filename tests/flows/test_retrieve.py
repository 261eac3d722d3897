"""C-GET and C-MOVE against a real `pacs-core serve`: what goes out, counters, statuses, refusals."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelGet,
    PatientStudyOnlyQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

import pacs_core
from pacs_core._ext.command import encode
from pacs_core.config import PeerFile
from pacs_core.dicom.reading import read_dataset
from tests.flows.rawpeer import Peer, p_data, pdv
from tests.interop.certificates import Authority, Trust, server_settings
from tests.make import CT, encoded, instance, part10, uid
from tests.serving import Serving, serving, until

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.70"
MR = "1.2.840.10008.5.1.4.1.1.4"

STUDY = StudyRootQueryRetrieveInformationModelGet
PATIENT = PatientRootQueryRetrieveInformationModelGet
PATIENT_STUDY = PatientStudyOnlyQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove


with socket.create_server(("127.0.0.1", 0)) as _free:
    PORT: int = _free.getsockname()[1]

# Study 1: small instances, which share a segment, and one with a file of its own.
PLAIN = {
    (1, 1, 1): instance(1),
    (1, 1, 2): instance(2, size=70_000),
    (1, 2, 1): instance(1, series=2, size=3 << 20),
}
# Study 2: one in each transfer syntax.
SYNTAXES = {1: IMPLICIT, 2: EXPLICIT, 3: DEFLATED, 4: BIG_ENDIAN, 5: JPEG}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    archive = tmp_path_factory.mktemp("retrieve") / "archive"
    with pacs_core.Archive.open(archive) as kept:
        for image in PLAIN.values():
            kept.store(part10(image))
        for number, syntax in SYNTAXES.items():
            image = instance(number, study=2, patient="P2")
            encoded(image, syntax)  # encapsulates
            kept.store(part10(image, syntax))
        kept.store(part10(instance(1, study=3, patient="P3", SOPClassUID=MR, Modality="MR")))
        kept.store(part10(instance(2, study=3, patient="P3")))
    peers = PeerFile(archive)
    peers.add("DEST", host="127.0.0.1", port=PORT)
    peers.add("DEST3", host="127.0.0.1", port=PORT, associations=3)
    peers.add("NO_HOST")
    peers.add("NOT_ASKED", host="127.0.0.1", port=PORT, may=["store"])
    with serving(archive, *("--set", "wire.dimse_timeout=3", "--set", "wire.artim_timeout=2")) as server:
        yield server
        assert server.stop() == 0


class Getting:
    """One C-GET by pynetdicom, and what it brought."""

    def __init__(
        self,
        server: Serving,
        level: str,
        root: str = STUDY,
        *,
        contexts: dict[str, list[str]] | None = None,
        answers: dict[str, int] | None = None,
        calling: str = "GETTER",
        relational: bytes | None = None,
        as_scp: bool = True,
        tls: Trust | None = None,
        **keys: Any,
    ) -> None:
        self.received: dict[str, tuple[str, bytes]] = {}
        self.answers = answers or {}
        entity = AE(calling)
        entity.add_requested_context(root)
        roles: list[Any] = []
        if relational is not None:
            item = SOPClassExtendedNegotiation()
            item.sop_class_uid, item.service_class_application_information = root, relational
            roles.append(item)
        for sop_class, syntaxes in (contexts or {CT: [EXPLICIT], MR: [EXPLICIT]}).items():
            for syntax in syntaxes:
                entity.add_requested_context(sop_class, syntax)
            if as_scp:
                roles.append(build_role(sop_class, scp_role=True))
        association = entity.associate(
            "127.0.0.1",
            server.port,
            ext_neg=roles,
            evt_handlers=[(evt.EVT_C_STORE, self._store)],
            tls_args=None if tls is None else (tls.context(), "localhost"),
        )
        assert association.is_established
        self.agreed = association.acceptor.sop_class_extended
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        responses = list(association.send_c_get(identifier, root))
        assert association.is_established
        association.release()
        self.pending = [status for status, _ in responses[:-1]]
        self.final, self.identifier = responses[-1]

    def _store(self, event: Any) -> int:
        request = event.request
        data = request.DataSet.getvalue()
        self.received[request.AffectedSOPInstanceUID] = (event.context.transfer_syntax, data)
        return self.answers.get(request.AffectedSOPInstanceUID, 0)

    @property
    def counters(self) -> tuple[int | None, int, int, int]:
        """Remaining, completed, failed, warning."""
        final = self.final
        return (
            final.get("NumberOfRemainingSuboperations"),
            final.NumberOfCompletedSuboperations,
            final.NumberOfFailedSuboperations,
            final.NumberOfWarningSuboperations,
        )


def test_a_study_goes_out_as_it_is_stored(server: Serving) -> None:
    got = Getting(server, "STUDY", StudyInstanceUID=uid(1))
    assert (got.final.Status, got.counters) == (0, (None, 3, 0, 0))
    assert got.received == {uid(*number): (EXPLICIT, encoded(image)) for number, image in PLAIN.items()}


def test_the_same_over_tls(tmp_path: Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    authority = Authority(Path(program), tmp_path / "authority")
    with pacs_core.Archive.open(tmp_path / "archive") as archive:
        for image in PLAIN.values():
            archive.store(part10(image))
    settings = server_settings(authority, authority.issue("server"), client="none")
    with serving(tmp_path / "archive", *settings) as server:
        got = Getting(server, "STUDY", StudyInstanceUID=uid(1), tls=Trust(authority.certificate))
        assert server.stop() == 0
    assert (got.final.Status, got.counters) == (0, (None, 3, 0, 0))
    assert got.received == {uid(*number): (EXPLICIT, encoded(image)) for number, image in PLAIN.items()}


@pytest.mark.parametrize(
    ("level", "root", "keys", "expected"),
    [
        ("SERIES", STUDY, {"StudyInstanceUID": uid(1), "SeriesInstanceUID": uid(1, 2)}, {uid(1, 2, 1)}),
        ("PATIENT", PATIENT, {"PatientID": "P1"}, {uid(*number) for number in PLAIN}),
        ("STUDY", PATIENT_STUDY, {"PatientID": "P1", "StudyInstanceUID": uid(1)}, {uid(*n) for n in PLAIN}),
        ("PATIENT", PATIENT_STUDY, {"PatientID": "P3"}, {uid(3, 1, 1), uid(3, 1, 2)}),
        ("STUDY", PATIENT, {"PatientID": "P2", "StudyInstanceUID": uid(1)}, set()),
        (
            "STUDY",
            STUDY,
            {"StudyInstanceUID": [uid(1), uid(3)]},
            {uid(*n) for n in (*PLAIN, (3, 1, 1), (3, 1, 2))},
        ),
        (
            "IMAGE",
            STUDY,
            {
                "StudyInstanceUID": uid(1),
                "SeriesInstanceUID": uid(1, 1),
                "SOPInstanceUID": [uid(1, 1, 2), uid(1, 2, 1), uid(9)],
            },
            {uid(1, 1, 2)},
        ),
    ],
)
def test_29_levels_and_lists_of_uids(
    server: Serving, level: str, root: str, keys: dict[str, Any], expected: set[str]
) -> None:
    got = Getting(server, level, root, **keys)
    assert set(got.received) == expected
    assert (got.final.Status, got.counters) == (0, (None, len(expected), 0, 0))
    assert not got.identifier


@pytest.mark.parametrize(
    ("level", "root", "keys"),
    [
        ("", STUDY, {"StudyInstanceUID": uid(1)}),
        ("PATIENT", STUDY, {"PatientID": "P1"}),
        (
            "SERIES",
            PATIENT_STUDY,
            {"PatientID": "P1", "StudyInstanceUID": uid(1), "SeriesInstanceUID": uid(1, 1)},
        ),
        ("SERIES", STUDY, {"SeriesInstanceUID": uid(1, 1)}),
        ("STUDY", PATIENT, {"StudyInstanceUID": uid(1)}),
        ("SERIES", STUDY, {"StudyInstanceUID": [uid(1), uid(2)], "SeriesInstanceUID": uid(1, 1)}),
        ("STUDY", STUDY, {"StudyInstanceUID": ""}),
        ("STUDY", STUDY, {}),
    ],
)
def test_29_missing_or_wrong_keys_are_refused(
    server: Serving, level: str, root: str, keys: dict[str, Any]
) -> None:
    got = Getting(server, level, root, **keys)
    assert got.final.Status == 0xA900
    assert got.final.ErrorComment
    assert "NumberOfCompletedSuboperations" not in got.final


def test_15_relational_retrieval_where_it_was_negotiated(server: Serving) -> None:
    got = Getting(server, "SERIES", SeriesInstanceUID=uid(1, 2), relational=b"\1\1")
    assert got.agreed == {STUDY: b"\1\0"}
    assert (got.final.Status, set(got.received)) == (0, {uid(1, 2, 1)})
    got = Getting(server, "IMAGE", PATIENT, SOPInstanceUID=[uid(1, 1, 1), uid(3, 1, 2)], relational=b"\1")
    assert (got.final.Status, set(got.received)) == (0, {uid(1, 1, 1), uid(3, 1, 2)})
    # Not for nothing at all, and not unasked.
    assert Getting(server, "SERIES", StudyInstanceUID=uid(1), relational=b"\1").final.Status == 0xA900
    refused = Getting(server, "SERIES", SeriesInstanceUID=uid(1, 2), relational=b"\0")
    assert (refused.final.Status, refused.agreed) == (0xA900, {STUDY: b"\0"})


def test_25_26_27_some_failed_and_some_warned(server: Serving) -> None:
    got = Getting(
        server,
        "STUDY",
        StudyInstanceUID=uid(1),
        answers={uid(1, 1, 1): 0xB007, uid(1, 1, 2): 0xA700},
    )
    assert (got.final.Status, got.counters) == (0xB000, (None, 1, 1, 1))
    assert got.identifier.FailedSOPInstanceUIDList == uid(1, 1, 2)
    assert set(got.identifier.keys()) == {0x00080058}


def test_25_a_warning_alone_is_a_warning(server: Serving) -> None:
    got = Getting(server, "PATIENT", PATIENT, PatientID="P3", answers={uid(3, 1, 1): 0xB000})
    assert (got.final.Status, got.counters) == (0xB000, (None, 1, 0, 1))
    assert not got.identifier


def test_30_a_class_that_was_not_offered_is_a_failed_sub_operation(server: Serving) -> None:
    got = Getting(server, "STUDY", StudyInstanceUID=uid(3), contexts={CT: [EXPLICIT]})
    assert (got.final.Status, got.counters) == (0xB000, (None, 1, 1, 0))
    assert got.identifier.FailedSOPInstanceUIDList == uid(3, 1, 1)
    assert set(got.received) == {uid(3, 1, 2)}
    assert until(lambda: server.said("retrieval ended")[-1]["status"] == "B000")
    assert server.said("retrieval ended")[-1].items() >= {"instances": 2, "failed": 1}.items()
    assert "no accepted context" in str(server.said("sub-operations failed")[-1]["why"])


def test_30_nothing_goes_to_who_did_not_propose_to_be_scp(server: Serving) -> None:
    got = Getting(server, "STUDY", StudyInstanceUID=uid(3), as_scp=False)
    assert (got.final.Status, got.counters, got.received) == (0xA702, (None, 0, 2, 0), {})


def test_25_nothing_that_succeeded_is_a_failure(server: Serving) -> None:
    got = Getting(server, "STUDY", StudyInstanceUID=uid(1), contexts={MR: [EXPLICIT]})
    assert (got.final.Status, got.counters) == (0xA702, (None, 0, 3, 0))
    assert set(got.identifier.FailedSOPInstanceUIDList) == {uid(*number) for number in PLAIN}
    assert got.received == {}


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN])
def test_31_uncompressed_instances_are_converted_where_they_must_be(server: Serving, syntax: str) -> None:
    got = Getting(server, "STUDY", StudyInstanceUID=uid(2), contexts={CT: [syntax]})
    assert (got.final.Status, got.counters) == (0xB000, (None, 4, 1, 0))
    assert got.identifier.FailedSOPInstanceUIDList == uid(2, 1, 5)
    for number in (1, 2, 3, 4):
        sent_in, data = got.received[uid(2, 1, number)]
        assert sent_in == syntax
        expected = instance(number, study=2, patient="P2")
        if SYNTAXES[number] == BIG_ENDIAN:  # its pixels, made in little endian, mean something else there
            pixels = array("H", expected.PixelData)
            pixels.byteswap()
            expected.PixelData = pixels.tobytes()
        assert read_dataset(data, syntax).to_bytes(EXPLICIT) == encoded(expected)


def test_31_every_instance_goes_out_as_stored_where_all_are_accepted(server: Serving) -> None:
    got = Getting(
        server,
        "STUDY",
        StudyInstanceUID=uid(2),
        contexts={CT: [BIG_ENDIAN, JPEG, EXPLICIT, IMPLICIT, DEFLATED]},
    )
    assert (got.final.Status, got.counters) == (0, (None, 5, 0, 0))
    assert {number: got.received[uid(2, 1, number)][0] for number in SYNTAXES} == SYNTAXES


class Destination:
    """A storage SCP by pynetdicom, at the one address that is known as DEST and DEST3."""

    def __init__(self, *, contexts: dict[str, list[str]] | None = None, answer: Any = lambda _: 0) -> None:
        self.entity = AE("DEST")
        for sop_class, syntaxes in (contexts or {CT: [IMPLICIT, EXPLICIT], MR: [EXPLICIT]}).items():
            self.entity.add_supported_context(sop_class, syntaxes)
        self.answer = answer
        self.requests: list[Any] = []
        self.data: dict[str, tuple[str, bytes]] = {}
        self.associations = 0

    def __enter__(self) -> Self:
        handlers: Any = [(evt.EVT_C_STORE, self._store), (evt.EVT_REQUESTED, self._requested)]
        self.listening = self.entity.start_server(("127.0.0.1", PORT), block=False, evt_handlers=handlers)
        return self

    def __exit__(self, *_: object) -> None:
        self.listening.shutdown()

    def _requested(self, _: Any) -> None:
        self.associations += 1

    def _store(self, event: Any) -> int:
        request = event.request
        self.requests.append(request)
        answer = self.answer(event)
        if answer == 0:
            data = request.DataSet.getvalue()
            self.data[request.AffectedSOPInstanceUID] = (event.context.transfer_syntax, data)
        return int(answer)


class Moving:
    """One C-MOVE by pynetdicom: its responses."""

    def __init__(
        self,
        server: Serving,
        destination: str,
        level: str,
        root: str = MOVE,
        calling: str = "MOVER",
        **keys: Any,
    ) -> None:
        entity = AE(calling)
        entity.add_requested_context(root)
        association = entity.associate("127.0.0.1", server.port)
        assert association.is_established
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        self.responses = list(association.send_c_move(identifier, destination, root, msg_id=77))
        association.release()
        self.final, self.identifier = self.responses[-1]

    counters = Getting.counters


def test_28_a_study_is_moved_as_it_is_stored(server: Serving) -> None:
    with Destination() as destination:
        moved = Moving(server, "DEST", "STUDY", StudyInstanceUID=uid(1))
    assert (moved.final.Status, moved.counters) == (0, (None, 3, 0, 0))
    assert destination.data == {uid(*number): (EXPLICIT, encoded(image)) for number, image in PLAIN.items()}
    originators = {
        (request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID, request.Priority)
        for request in destination.requests
    }
    assert originators == {("MOVER", 77, 2)}
    assert destination.associations == 1


@pytest.mark.parametrize("root", ["1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.3.2"])
def test_29_a_patient_is_moved(server: Serving, root: str) -> None:
    with Destination() as destination:
        moved = Moving(server, "DEST", "PATIENT", root, PatientID="P3")
    assert (moved.final.Status, set(destination.data)) == (0, {uid(3, 1, 1), uid(3, 1, 2)})


def test_several_associations_where_the_peer_is_configured_so(server: Serving) -> None:
    with Destination() as destination:
        moved = Moving(server, "DEST3", "STUDY", StudyInstanceUID=uid(1))
    assert (moved.final.Status, moved.counters) == (0, (None, 3, 0, 0))
    assert destination.associations == 3


@pytest.mark.parametrize("destination", ["NOBODY", "NO_HOST", "NOT_ASKED"])
def test_25_an_unknown_destination(server: Serving, destination: str) -> None:
    moved = Moving(server, destination, "STUDY", StudyInstanceUID=uid(1))
    assert moved.final.Status == 0xA801
    assert "NumberOfCompletedSuboperations" not in moved.final


def test_a_peer_that_may_not_retrieve_is_told_so(server: Serving) -> None:
    got = Getting(server, "STUDY", StudyInstanceUID=uid(1), calling="NOT_ASKED")
    moved = Moving(server, "NOBODY", "STUDY", StudyInstanceUID=uid(1), calling="NOT_ASKED")
    assert (got.final.Status, moved.final.Status, got.received) == (0x0124, 0x0124, {})


def test_25_no_match_needs_no_destination(server: Serving) -> None:
    moved = Moving(server, "DEST", "STUDY", StudyInstanceUID=uid(9))
    assert (len(moved.responses), moved.final.Status, moved.counters) == (1, 0, (None, 0, 0, 0))


def test_a_destination_that_is_not_there_fails_all(server: Serving) -> None:
    moved = Moving(server, "DEST", "STUDY", StudyInstanceUID=uid(1))
    assert (moved.final.Status, moved.counters) == (0xA702, (None, 0, 3, 0))
    assert set(moved.identifier.FailedSOPInstanceUIDList) == {uid(*number) for number in PLAIN}


def test_28_a_context_that_is_refused_fails_its_instances_alone(server: Serving) -> None:
    with Destination(contexts={CT: [EXPLICIT]}):
        moved = Moving(server, "DEST", "STUDY", StudyInstanceUID=uid(3))
    assert (moved.final.Status, moved.counters) == (0xB000, (None, 1, 1, 0))
    assert moved.identifier.FailedSOPInstanceUIDList == uid(3, 1, 1)


def test_31_a_destination_that_takes_implicit_only(server: Serving) -> None:
    with Destination(contexts={CT: [IMPLICIT]}) as destination:
        moved = Moving(server, "DEST", "STUDY", StudyInstanceUID=uid(2))
    assert (moved.final.Status, moved.counters) == (0xB000, (None, 4, 1, 0))
    assert moved.identifier.FailedSOPInstanceUIDList == uid(2, 1, 5)
    assert {syntax for syntax, _ in destination.data.values()} == {IMPLICIT}


def test_28_a_destination_that_aborts_once_gets_the_rest_on_a_new_association(server: Serving) -> None:
    def answer(event: Any) -> int:
        if len(destination.requests) == 2:
            event.assoc.abort()
        return 0

    with Destination(answer=answer) as destination:
        moved = Moving(server, "DEST", "STUDY", StudyInstanceUID=uid(1))
    assert (moved.final.Status, moved.counters) == (0, (None, 3, 0, 0))
    assert destination.associations == 2


def test_28_a_destination_that_goes_on_aborting_fails_the_rest(server: Serving) -> None:
    def answer(event: Any) -> int:
        if len(destination.requests) >= 2:
            event.assoc.abort()
        return 0

    with Destination(answer=answer) as destination:
        moved = Moving(server, "DEST", "STUDY", StudyInstanceUID=uid(1))
    assert (moved.final.Status, moved.counters) == (0xB000, (None, 1, 2, 0))
    assert len(moved.identifier.FailedSOPInstanceUIDList) == 2


def test_a_destination_that_rejects_fails_all_at_once(server: Serving) -> None:
    with Destination() as destination:
        destination.entity.require_called_aet = True
        destination.listening.ae_title = "SOMEBODY"
        moved = Moving(server, "DEST", "STUDY", StudyInstanceUID=uid(1))
    assert (moved.final.Status, moved.counters) == (0xA702, (None, 0, 3, 0))
    assert destination.associations == 1


def test_a_destination_that_hangs_is_given_up(server: Serving) -> None:
    free = threading.Event()
    with Destination(answer=lambda _: free.wait(30) and 0) as destination:
        started = time.monotonic()
        moved = Moving(server, "DEST", "STUDY", StudyInstanceUID=uid(1))
        assert time.monotonic() - started < 15  # two waits of dimse_timeout, two aborts
        free.set()
    assert (moved.final.Status, moved.counters) == (0xA702, (None, 0, 3, 0))
    assert destination.associations == 2
    pending, _ = moved.responses[0]  # a sign of life
    assert (pending.Status, pending.NumberOfRemainingSuboperations) == (0xFF00, 3)


def test_a_listener_that_never_answers_is_given_up(server: Serving) -> None:
    with socket.create_server(("127.0.0.1", PORT)):
        moved = Moving(server, "DEST", "STUDY", StudyInstanceUID=uid(1))
    assert (moved.final.Status, moved.counters) == (0xA702, (None, 0, 3, 0))


@pytest.mark.parametrize("hangs", [False, True])
def test_23_26_a_cancelled_move_ends_soon(server: Serving, hangs: bool) -> None:
    """What is on its way is waited for, not for long; what was never begun is Remaining."""
    free = threading.Event()
    begun = threading.Event()

    def answer(_: Any) -> int:
        begun.set()
        free.wait(30 if hangs else 0.5)
        return 0

    with Destination(answer=answer), Peer(server, timeout=20) as peer:
        peer.associated(contexts=[(1, MOVE, [EXPLICIT])])
        command = {0x0002: MOVE, 0x0100: 0x21, 0x0110: 5, 0x0600: "DEST", 0x0700: 0, 0x0800: 1}
        identifier = pacs_core.Dataset(QueryRetrieveLevel="STUDY", StudyInstanceUID=uid(1)).to_bytes(EXPLICIT)
        peer.send(p_data(pdv(1, 3, encode(command)), pdv(1, 2, identifier)))
        assert begun.wait(10)
        started = time.monotonic()
        peer.send(p_data(pdv(1, 3, encode({0x0100: 0x0FFF, 0x0120: 5, 0x0800: 0x0101}))))
        final = peer.response()
        free.set()
    assert final.status == 0xFE00
    assert (final.remaining, final.completed, final.failed) == ((2, 0, 1) if hangs else (2, 1, 0))
    assert final.has_data_set == hangs
    assert time.monotonic() - started < 6
