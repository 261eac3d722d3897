"""Keys as Python has them become an identifier; level and model are told by them, or it is said why not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

import pytest

from pacs_core.dicom.attributes import ATTRIBUTES, Level
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.identifier import asked_of, identifier_of, values_of
from pacs_core.dicom.query import Matching, query_of
from pacs_core.errors import IdentifierError, InvalidValueError

ONE = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}


def raw(dataset: Dataset, key: object) -> bytes:
    return bytes(dataset.element(key).raw)


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("StudyDate", date(2026, 1, 2), b"20260102"),
        ("StudyDate", (date(2026, 1, 2), date(2026, 2, 1)), b"20260102-20260201"),
        ("StudyDate", (date(2026, 1, 2), None), b"20260102-"),
        ("StudyDate", (None, date(2026, 1, 2)), b"-20260102"),
        ("StudyDate", [date(2026, 1, 2), date(2026, 2, 1)], b"20260102\\20260201"),
        ("StudyDate", "2026*", b"2026*"),
        ("StudyTime", (time(10), time(11, 30)), b"100000-113000"),
        ("AcquisitionDateTime", (datetime(2026, 1, 2, 10), None), b"20260102100000-"),
        ("StudyInstanceUID", ["1.2", "1.3"], b"1.2\\1.3"),
        ("PatientName", "Doe*", b"Doe*"),
        ("PatientName", None, b""),
        ("PatientName", "", b""),
        ("SeriesNumber", 3, b"3"),
        ("SeriesNumber", "*", b"*"),
        ("Rows", "512", b"\x00\x02"),
        ("Rows", "", b""),
        ("FrameIncrementPointer", "00181063", b"\x18\x00\x63\x10"),
    ],
)
def test_values(keyword: str, value: object, expected: bytes) -> None:
    assert raw(identifier_of({keyword: value}), keyword) == expected


def test_keys_of_every_kind() -> None:
    identifier = identifier_of(
        {
            0x00100020: "P1",
            "0008,0050": "A1",
            (0x0009, "GEMS_IDEN_01", 0x02): "suite",
            "RequestAttributesSequence.0.ScheduledProcedureStepID": "S1",
            "RequestAttributesSequence.0.RequestedProcedureID": None,
            "ReferencedStudySequence": {"ReferencedSOPInstanceUID": "1.5"},
            "ReferencedPatientSequence": None,
        }
    )
    assert identifier.PatientID == "P1"
    assert identifier.AccessionNumber == "A1"
    assert identifier["(0009,GEMS_IDEN_01,02)"] == "suite"
    [item] = identifier.RequestAttributesSequence
    assert (item.ScheduledProcedureStepID, raw(item, "RequestedProcedureID")) == ("S1", b"")
    assert identifier["ReferencedStudySequence.0.ReferencedSOPInstanceUID"] == "1.5"
    assert len(identifier.ReferencedPatientSequence) == 0


def test_24_text_beyond_ascii_is_in_utf_8() -> None:
    assert "SpecificCharacterSet" not in identifier_of({"PatientName": "Doe*"})
    identifier = identifier_of({"PatientName": "山田*"})
    assert identifier.SpecificCharacterSet == "ISO_IR 192"
    assert "山田*".encode() in identifier.to_bytes("1.2.840.10008.1.2")


@pytest.mark.parametrize(
    ("keys", "level", "root"),
    [
        ({"PatientID": "P1"}, "PATIENT", "PATIENT"),
        ({"NumberOfPatientRelatedStudies": None}, "PATIENT", "PATIENT"),
        ({"PatientName": "Doe*", "StudyDate": None}, "STUDY", "STUDY"),
        ({"ModalitiesInStudy": "CT"}, "STUDY", "STUDY"),
        ({"StudyInstanceUID": ["1.2", "1.3"], "PatientID": None}, "STUDY", "STUDY"),
        ({"StudyInstanceUID": "1.2", "Modality": None}, "SERIES", "STUDY"),
        ({**ONE, "SOPInstanceUID": None}, "IMAGE", "STUDY"),
        ({**ONE, "SOPInstanceUID": None, "KVP": None}, "IMAGE", "STUDY"),
        ({"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2", "KVP": None}, "SERIES", "STUDY"),
    ],
)
def test_the_level_is_that_of_the_lowest_key(keys: Mapping[Any, object], level: str, root: str) -> None:
    asked = asked_of(keys)
    assert (asked.level.name, asked.root.name) == (level, root)
    assert asked.identifier.QueryRetrieveLevel == level
    assert query_of(asked.identifier, asked.level, asked.root).level.name == level


def test_with_a_model_or_a_level_given() -> None:
    assert asked_of({"PatientID": "P1"}, root="study").level is Level.STUDY
    assert asked_of({"PatientID": "P1", "StudyDate": None}, root=Level.PATIENT).root is Level.PATIENT
    assert asked_of({"Modality": "CT"}, "series").level is Level.SERIES
    assert asked_of({"KVP": None}, "instance").level is Level.IMAGE
    assert asked_of({"PatientName": None}, Level.PATIENT).root is Level.PATIENT


def test_the_unique_key_of_the_level_is_asked_for() -> None:
    asked = asked_of({"StudyDate": "2026-"})
    assert raw(asked.identifier, "StudyInstanceUID") == b""
    assert asked_of({"StudyInstanceUID": "1.2"}).identifier.StudyInstanceUID == "1.2"


@pytest.mark.parametrize(
    ("keys", "options", "words"),
    [
        ({"Modality": "CT"}, {}, "Modality is of level SERIES.* needs one StudyInstanceUID"),
        ({"StudyInstanceUID": ["1", "2"], "Modality": "CT"}, {}, "needs one StudyInstanceUID"),
        ({"StudyInstanceUID": "1.2", "Rows": "1"}, {}, "Rows is of level IMAGE.* one SeriesInstanceUID"),
        ({"StudyDate": None}, {"root": "patient"}, "needs one PatientID"),
        ({"KVP": None}, {}, "level of KVP is not known"),
        ({"StudyDate": None, "KVP": None}, {}, "level of KVP is not known"),
        ({(0x0009, "GEMS_IDEN_01", 0x02): None}, {}, r"level of \(0009,1002\) is not known"),
        ({}, {}, "give the level"),
        ({"PatientID": "1"}, {"level": "patient", "root": "study"}, "PATIENT is not in the model"),
        ({"PatientID": "1"}, {"level": "hospital"}, "no such level: 'hospital'"),
        ({"PatientID": "1"}, {"root": "series"}, "no SERIES root"),
        ({"PatientID": "1", 0x00100020: None}, {}, "PatientID is asked for twice"),
    ],
)
def test_what_is_not_clear_is_said(keys: Mapping[Any, object], options: Any, words: str) -> None:
    with pytest.raises(IdentifierError, match=words):
        asked_of(keys, **options)


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"PatientNam": "x"}, KeyError),
        ({"Rows": "many"}, InvalidValueError),
        ({"StudyDate": "２０２６"}, InvalidValueError),
        ({"StudyDate": 3.5}, InvalidValueError),
        ({0x00091002: None}, InvalidValueError),
    ],
)
def test_what_can_not_be_a_key(keys: Mapping[Any, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        identifier_of(keys)


def test_the_values_that_a_key_names() -> None:
    identifier = identifier_of({"StudyInstanceUID": ["1.2", "1.3"], "PatientName": "D*", "StudyID": None})
    assert values_of(identifier, 0x0020000D) == ("1.2", "1.3")
    assert values_of(identifier, 0x00100010) == values_of(identifier, 0x00200010) == ()
    assert values_of(identifier, 0x00080050) == ()


def test_every_attribute_of_the_index_can_be_a_key() -> None:
    identifier = identifier_of({attribute.keyword: None for attribute in ATTRIBUTES})
    query = query_of(asked_of({"QueryRetrieveLevel": "STUDY"}).identifier, Level.STUDY, Level.STUDY)
    assert len(identifier) == len(ATTRIBUTES)
    assert [key.matching for key in query.keys] == [Matching.UNIVERSAL]  # the UID of the study
