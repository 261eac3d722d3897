"""What is written is what was there, however odd: bugs that fuzzing found (tests/fuzz/dataset.pyx)."""

import json
import struct

import pytest

from pacs_core._ext.tree import parse
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read_dataset

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG = "1.2.840.10008.1.2.2"


def test_a_data_set_without_a_file_is_read_in_every_syntax() -> None:
    dataset = Dataset(PatientID="P1")
    for syntax in (IMPLICIT, EXPLICIT, BIG):
        assert read_dataset(dataset.to_bytes(syntax), syntax) == dataset


@pytest.mark.parametrize(("keyword", "value"), [("Rows", 200), ("RealWorldValueSlope", 0.1)])
def test_numbers_whose_bytes_are_over_127_can_be_set(keyword: str, value: float) -> None:
    dataset = Dataset({keyword: value})
    assert dataset[keyword] == value
    assert len(dataset) == 1  # and no character set
