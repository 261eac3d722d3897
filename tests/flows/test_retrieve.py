"""C-GET and C-MOVE against a real `pacs-core serve`: what goes out, counters, statuses, refusals."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelGet,
    PatientStudyOnlyQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelGet,
)

import pacs_core
from pacs_core.dicom.reading import read_dataset
from tests.make import CT, encoded, instance, part10, uid
from tests.serving import Serving, serving

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.70"
MR = "1.2.840.10008.5.1.4.1.1.4"

STUDY = StudyRootQueryRetrieveInformationModelGet
PATIENT = PatientRootQueryRetrieveInformationModelGet
PATIENT_STUDY = PatientStudyOnlyQueryRetrieveInformationModelGet

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
    with serving(archive) as server:
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
        **keys: Any,
    ) -> None:
        self.received: dict[str, tuple[str, bytes]] = {}
        self.answers = answers or {}
        entity = AE()
        entity.add_requested_context(root)
        roles = []
        for sop_class, syntaxes in (contexts or {CT: [EXPLICIT], MR: [EXPLICIT]}).items():
            for syntax in syntaxes:
                entity.add_requested_context(sop_class, syntax)
            roles.append(build_role(sop_class, scp_role=True))
        association = entity.associate(
            "127.0.0.1", server.port, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        assert association.is_established
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
