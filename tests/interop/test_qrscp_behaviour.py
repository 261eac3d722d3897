"""What pynetdicom's own tests want of its qrscp (`pynetdicom/apps/tests/test_qrscp_*.py`), wanted of us.

The same five files, sent and asked for by pynetdicom. Where qrscp is not what the standard says, the
standard counts:

- It answers once for each instance at every level. A patient of two instances is one match (PS3.4 C.4.1): of
  the five files there are four patients, studies and series.
- It takes zero-length unique keys above the level. Hierarchical queries have one value there (C.4.1.3.1);
  the tests of `level_…` name patient, study and series, or negotiate relational queries.
- It refuses keys of a lower level with A900 (`level_patient_invalid`, and of `check_identifier`). They are
  optional keys that we do not hold at the level: left out, FF01 (C.4.1.1.3.2).
- It refuses an identifier without keys (`no_attributes`). Nothing asked, nothing told, of all there is.
- A range that is open at both ends is an error to it. To us it says nothing, so that it matches all.
- It sends a pending response after the only sub-operation of a C-GET or C-MOVE, which is optional; we send
  the final one then.

What is not here, for it tests what only qrscp has: its command line (`flag_version`, `flag_quiet`,
`flag_verbose`, `flag_debug`, `flag_log_collision`), and the tables behind it (`TestConnect`,
`TestAddInstance`, `TestRemoveInstance`, `TestClear`; the `…_subquery` tests are empty or about SQL). The
classes of the name `…CLI` run the same tests with qrscp started in another way. `combine_queries` is skipped
there; here it is not. The empty identifier of `check_identifier_raises` is one without a level here:
pynetdicom announces an empty data set and sends none, so that whoever is asked waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pynetdicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    CTImageStorage,
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from pacs_core import Archive
from pacs_core.config import PeerFile
from tests.serving import Serving, serving, stats

FILES = (
    *("CTImageStorage", "MRImageStorage_ExplicitVRBigEndian", "MRImageStorage_JPG2000_Lossless"),
    *("RTImageStorage", "SCImageStorage_Deflated"),
)
FOLDER = Path(pynetdicom.__file__).parent / "tests" / "dicom_files"
PATIENT = PatientRootQueryRetrieveInformationModelFind
STUDY = StudyRootQueryRetrieveInformationModelFind
GET = PatientRootQueryRetrieveInformationModelGet
MOVE = PatientRootQueryRetrieveInformationModelMove
MR = {
    "PatientID": "4MR1",
    "StudyInstanceUID": "1.3.6.1.4.1.5962.1.2.4.20040826185059.5457",
    "SeriesInstanceUID": "1.3.6.1.4.1.5962.1.3.4.1.20040826185059.5457",
}

pytestmark = pytest.mark.filterwarnings(
    "ignore:Invalid value for VR"
)  # pydicom's, of keys that are no values


class Qrscp(NamedTuple):
    server: Serving
    received: list[Dataset]
    """What the peer STORESCP was sent."""

    def associate(self, *contexts: str, **options: object) -> pynetdicom.association.Association:
        entity = AE()
        for context in contexts:
            entity.add_requested_context(context)
        made = entity.associate("127.0.0.1", self.server.port, ae_title="PACSCORE", **options)  # type: ignore[arg-type]
        assert made.is_established
        return made

    def find(
        self, level: str | None, model: str, *, relational: bool = False, **keys: object
    ) -> tuple[int, list[Dataset], set[int]]:
        """The final status, the identifiers, and the statuses of the pending responses."""
        extended = SOPClassExtendedNegotiation()
        extended.sop_class_uid, extended.service_class_application_information = model, bytes([relational])
        association = self.associate(model, ext_neg=[extended])
        *pending, (final, last) = association.send_c_find(identifier(level, **keys), model)
        association.release()
        assert last is None
        return final.Status, [found for _, found in pending], {status.Status for status, _ in pending}

    def count(self, level: str, **keys: object) -> int:
        """How many match a relational query."""
        final, found, _ = self.find(level, PATIENT, relational=True, **keys)
        assert final == 0
        return len(found)


def identifier(level: str | None, **keys: object) -> Dataset:
    asked = Dataset()
    if level is not None:
        asked.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    return asked


@pytest.fixture(scope="module")
def qrscp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Qrscp]:
    archive = tmp_path_factory.mktemp("qrscp") / "archive"
    Archive.open(archive).close()
    received: list[Dataset] = []

    def keep(event: evt.Event) -> int:
        received.append(event.dataset)
        return 0

    receiver = AE()
    receiver.add_supported_context(CTImageStorage)
    storescp = receiver.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    PeerFile(archive).add("STORESCP", host="127.0.0.1", port=storescp.server_address[1])
    with serving(archive) as server:
        entity = AE()
        files = [FOLDER / f"{name}.dcm" for name in FILES]
        for file in files:
            header = dcmread(file, stop_before_pixels=True)
            entity.add_requested_context(header.SOPClassUID, header.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", server.port, ae_title="PACSCORE")
        assert [association.send_c_store(file).Status for file in files] == [0] * len(files)
        association.release()
        yield Qrscp(server, received)
        assert server.stop() == 0
    storescp.shutdown()


def test_echo_default(qrscp: Qrscp) -> None:
    association = qrscp.associate(Verification)
    assert association.send_c_echo().Status == 0
    association.release()


def test_store_basic(qrscp: Qrscp) -> None:
    assert stats(qrscp.server.archive)["instances"] == len(FILES)


@pytest.mark.parametrize("more", [None, "of the level"], ids=["unique", "req"])
@pytest.mark.parametrize(
    ("level", "unique", "required", "matches"),
    [
        ("PATIENT", ["PatientID"], "PatientName", 4),
        ("STUDY", ["PatientID", "StudyInstanceUID"], "StudyDate", 4),
        ("SERIES", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID"], "Modality", 4),
        (
            "IMAGE",
            ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"],
            "InstanceNumber",
            5,
        ),
    ],
)
def test_find_pr_level(
    qrscp: Qrscp, level: str, unique: list[str], required: str, matches: int, more: str | None
) -> None:
    """`level_patient`, `level_study`, … and the same with `_req`: relational, then of one patient."""
    keys = [*unique, required] if more else unique
    above = {keyword: MR[keyword] for keyword in unique[:-1]}
    for relational, given, count in ((True, {}, matches), (False, above, 2 if level == "IMAGE" else 1)):
        asked = dict.fromkeys(keys, None) | given
        final, found, pending = qrscp.find(level, PATIENT, relational=relational, **asked)
        if level == "PATIENT":
            count = matches
        assert (final, len(found), pending) == (0, count, {0xFF00})
        for one in found:
            assert (one.RetrieveAETitle, one.QueryRetrieveLevel) == ("PACSCORE", level)
            told = {"RetrieveAETitle", "QueryRetrieveLevel", "InstanceAvailability", *keys}
            assert {element.keyword for element in one} == told


def test_find_pr_level_patient_invalid(qrscp: Qrscp) -> None:
    final, found, pending = qrscp.find("PATIENT", PATIENT, PatientID=None, StudyInstanceUID=None)
    assert (final, len(found), pending) == (0, 4, {0xFF01})
    assert not any("StudyInstanceUID" in one for one in found)


def test_find_pr_query(qrscp: Qrscp) -> None:
    final, found, _ = qrscp.find("PATIENT", PATIENT, PatientID="4MR1")
    assert (final, [one.PatientID for one in found]) == (0, ["4MR1"])


def test_find_sr_query(qrscp: Qrscp) -> None:
    final, found, _ = qrscp.find("STUDY", STUDY, PatientID="4MR1")
    assert (final, [one.PatientID for one in found]) == (0, ["4MR1"])


@pytest.mark.parametrize(
    ("keyword", "value", "instances"),
    [
        ("StudyDate", "20000101-20200101", 4),
        ("StudyDate", "20000101-20150101", 3),
        ("StudyDate", "20000101-20010101", 0),
        ("StudyDate", "20000101-", 4),
        ("StudyDate", "20150101-", 1),
        ("StudyDate", "20200101-", 0),
        ("StudyDate", "-20200101", 4),
        ("StudyDate", "-20150101", 3),
        ("StudyDate", "-20010101", 0),
        ("StudyDate", "-", 5),
        ("PatientName", "CompressedSamples^CT1", 1),
        ("PatientName", None, 5),
        ("PatientName", "*", 5),
        ("PatientName", "CompressedSamples*", 3),
        ("PatientName", "CompressedSamples^??1", 3),
        ("SOPInstanceUID", None, 5),
        ("SOPInstanceUID", ["1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457"], 1),
        (
            "SOPInstanceUID",
            [
                "1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457",
                "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322",
            ],
            2,
        ),
        (
            "SOPInstanceUID",
            [
                "1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457",
                "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322",
                "1.3.46.423632.132218.1415242681.6",
            ],
            2,
        ),
    ],
)
def test_search(qrscp: Qrscp, keyword: str, value: object, instances: int) -> None:
    """`search_range_…`, `search_single_value`, `search_wildcard_…` and `search_uid_list…`, of instances."""
    assert qrscp.count("IMAGE", **{"SOPInstanceUID": None, keyword: value}) == instances


def test_combine_queries(qrscp: Qrscp) -> None:
    both = {"PatientName": "CompressedSamples*", "StudyDate": "20000101-20040119"}
    assert qrscp.count("IMAGE", **both) == 1


def test_search_patient_minimal(qrscp: Qrscp) -> None:
    """Two patients of three instances."""
    assert qrscp.count("PATIENT", PatientID=None, PatientName="CompressedSamples^??1") == 2


def test_search_no_attributes(qrscp: Qrscp) -> None:
    final, found, _ = qrscp.find("PATIENT", PATIENT)
    assert (final, len(found)) == (0, 4)
    assert {element.keyword for one in found for element in one} == {
        *("QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability"),
    }


@pytest.mark.parametrize(
    ("level", "keywords", "patient_root", "study_root"),
    [
        ("PATIENT", ["PatientName"], True, False),
        ("PATIENT", ["PatientID"], True, False),
        ("STUDY", ["PatientName"], False, True),
        ("STUDY", ["PatientID"], True, True),
        ("STUDY", ["PatientID", "PatientName"], True, True),
        ("STUDY", ["PatientID", "StudyInstanceUID"], True, True),
        ("SERIES", ["PatientID"], False, False),
        ("SERIES", ["StudyInstanceUID"], False, True),
        ("SERIES", ["PatientID", "StudyInstanceUID"], True, True),
        ("IMAGE", ["PatientID"], False, False),
        ("IMAGE", ["PatientID", "StudyInstanceUID"], False, False),
        ("IMAGE", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID"], True, True),
        ("DUMMY", [], False, False),
        (None, ["PatientID"], False, False),
    ],
)
def test_check_identifier(
    qrscp: Qrscp, level: str | None, keywords: list[str], patient_root: bool, study_root: bool
) -> None:
    """`check_identifier_…`: which are refused with A900."""
    keys = {keyword: MR.get(keyword) for keyword in keywords}
    for model, allowed in ((PATIENT, patient_root), (STUDY, study_root)):
        final, found, _ = qrscp.find(level, model, **keys)
        assert (final, bool(found)) == ((0, True) if allowed else (0xA900, False))


def test_get_basic(qrscp: Qrscp) -> None:
    got: list[Dataset] = []

    def keep(event: evt.Event) -> int:
        got.append(event.dataset)
        return 0

    role = build_role(CTImageStorage, scp_role=True)
    handlers = [(evt.EVT_C_STORE, keep)]
    association = qrscp.associate(GET, CTImageStorage, ext_neg=[role], evt_handlers=handlers)
    responses = list(association.send_c_get(identifier("PATIENT", PatientID="1CT1"), GET))
    association.release()
    assert [(status.Status, found) for status, found in responses] == [(0, None)]
    assert [one.PatientName for one in got] == ["CompressedSamples^CT1"]


def test_move_basic(qrscp: Qrscp) -> None:
    association = qrscp.associate(MOVE)
    asked = identifier("PATIENT", PatientID="1CT1")
    responses = list(association.send_c_move(asked, "STORESCP", MOVE))
    association.release()
    assert [(status.Status, found) for status, found in responses] == [(0, None)]
    assert [one.PatientName for one in qrscp.received] == ["CompressedSamples^CT1"]
