"""The index attributes against pydicom's data dictionary; the UIDs."""

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.uid import UID, UID_dictionary

from pacs_core.dicom import uids
from pacs_core.dicom.attributes import ATTRIBUTES, BY_KEYWORD, BY_TAG, Attribute, Level, of_level


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.keyword)
def test_attribute_is_as_in_the_dictionary(attribute: Attribute) -> None:
    assert keyword_for_tag(attribute.tag) == attribute.keyword
    assert dictionary_VR(attribute.tag) == attribute.vr


def test_tags_and_keywords_are_listed_once() -> None:
    assert len(ATTRIBUTES) == len(BY_TAG) == len(BY_KEYWORD)


def test_every_level_begins_with_its_unique_key() -> None:
    keys = [of_level(level)[0].keyword for level in Level]
    assert keys == ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]


def test_transfer_syntaxes_are_those_of_the_standard_and_encode_alike() -> None:
    standard = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
    assert standard <= set(uids.TRANSFER_SYNTAXES)
    for uid in standard - {"1.2.840.10008.1.20"}:
        ours, theirs = uids.transfer_syntax(uid), UID(uid)
        assert (ours.implicit, ours.little_endian) == (theirs.is_implicit_VR, theirs.is_little_endian), uid
        if uid == uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            assert ours.deflated


def test_unknown_transfer_syntax_is_explicit_little_endian() -> None:
    assert uids.transfer_syntax("1.2.3") == uids.TransferSyntax("1.2.3", "", encapsulated=True)


@pytest.mark.parametrize(
    ("uid", "valid"),
    [
        ("1.2.840.10008.1.1", True),
        ("2.25.0", True),
        ("", False),
        ("1", False),
        ("1..2", False),
        ("1.02", False),
        ("1.2.", False),
        ("1.2.a", False),
        ("1.2\n", False),
        ("1.٢", False),
        ("1." + "2" * 62, True),
        ("1." + "2" * 63, False),
        (uids.IMPLEMENTATION_CLASS_UID, True),
        (uids.PRIVATE_INFORMATION_UID, True),
    ],
)
def test_valid_uids(uid: str, valid: bool) -> None:
    assert uids.is_valid_uid(uid) is valid


def test_version_name_fits() -> None:
    assert len(uids.IMPLEMENTATION_VERSION_NAME) <= 16
