"""Text of data sets in every character set: set by us, and given to and taken from pydicom."""

import pytest

from pacs_core import Dataset
from pacs_core.errors import InvalidValueError

NAMES = {
    "ISO_IR 192": "Yamada^Tarou=山田^太郎",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎",
    "GB18030": "Wang^XiaoDong=王^小东",
    "ISO_IR 100": "Buc^Jérôme",
    "ISO_IR 6": "Doe^Jane",
}


@pytest.mark.parametrize("sets", NAMES)
def test_pydicom_reads_the_text_of_any_character_set(sets: str) -> None:
    dataset = Dataset(SpecificCharacterSet=sets, PatientName=NAMES[sets])
    foreign = dataset.to_pydicom()
    assert foreign.PatientName == NAMES[sets]
    assert Dataset.from_pydicom(foreign).PatientName == NAMES[sets]


def test_text_is_checked_against_several_character_sets() -> None:
    dataset = Dataset(SpecificCharacterSet="\\ISO 2022 IR 87")
    with pytest.raises(InvalidValueError):
        dataset.PatientName = "é"
