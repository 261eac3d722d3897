"""Attributes that somebody adds to the index, as they are written."""

from __future__ import annotations

import pytest

from pacs_core.dicom import added, dictionary
from pacs_core.dicom.added import asked
from pacs_core.dicom.attributes import BY_KEYWORD, BY_TAG, VRS, Level


@pytest.mark.parametrize(
    ("text", "keyword", "vr", "level"),
    [
        ("PatientBirthName", "PatientBirthName", "PN", Level.PATIENT),
        ("AdmissionID", "AdmissionID", "LO", Level.STUDY),
        ("DeviceSerialNumber", "DeviceSerialNumber", "LO", Level.SERIES),
        ("0018,0050", "SliceThickness", "DS", Level.IMAGE),
        (" study : (0018,0087) ", "MagneticFieldStrength", "DS", Level.STUDY),
        ("PatientAge", "PatientAge", "AS", Level.STUDY),  # every index has it
        ("STUDY:PatientAge", "PatientAge", "AS", Level.STUDY),
    ],
)
def test_levels_are_those_of_the_information_model(text: str, keyword: str, vr: str, level: Level) -> None:
    assert asked(text).attribute[1:] == (keyword, vr, level)
    assert asked(text).given == (":" in text and keyword != "PatientAge")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PatientAgge", "perhaps PatientAge"),
        ("WARD:AdmissionID", "no level 'WARD'"),
        ("IMAGE:PatientAge", "at level STUDY"),
        ("0019,1001", "not an attribute of the standard"),
        ("0009,0010", "not an attribute of the standard"),
        ("ReferencedStudySequence", "a SQ"),
        ("PixelData", "a O"),
        ("TransferSyntaxUID", "of group 0002"),
        ("NumberOfStudyRelatedInstances", "can't be held"),
        ("SpecificCharacterSet", "can't be held"),
        ("", "no keyword"),
    ],
)
def test_what_an_index_can_not_hold_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        asked(text)
    assert str(caught.value).startswith(text)


def test_the_modules_name_attributes_that_can_be_held_and_are_not_held_anyway() -> None:
    for keyword in added._LEVELS:
        entry = dictionary.entry(dictionary.tag_of(keyword))
        assert entry is not None
        assert entry.vr in VRS
        assert keyword not in BY_KEYWORD


def test_the_index_has_attributes_of_those_vrs() -> None:
    assert {attribute.vr for attribute in BY_TAG.values()} - VRS <= {"SQ"}
