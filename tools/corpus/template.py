"""A data set that is encoded once, and then given the values in which each instance differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element
from pydicom.tag import Tag
from pydicom.uid import UID


@dataclass(frozen=True)
class Template:
    """The bytes of a data set, and where in it the values are that change."""

    data: bytes
    places: Mapping[int, slice]
    """By tag."""

    @classmethod
    def of(cls, dataset: Dataset, syntax: str, varying: Mapping[int, bytes]) -> Template:
        """Encode `dataset` with the elements of `varying` in it; they will only get values of that length."""
        out = DicomBytesIO()
        out.is_little_endian, out.is_implicit_VR = True, UID(syntax).is_implicit_VR
        encodings = convert_encodings(dataset.get("SpecificCharacterSet", "ISO_IR 6"))
        correct_ambiguous_vr(dataset, True)
        places = {}
        for tag in sorted({*map(int, dataset.keys()), *varying}):
            value = varying.get(tag)
            if value is None:
                write_data_element(out, dataset[tag], encodings)
                continue
            vr = dictionary_VR(tag)
            raw = RawDataElement(Tag(tag), vr, len(value), value, 0, out.is_implicit_VR, True)
            write_data_element(out, raw)
            places[tag] = slice(out.tell() - len(value), out.tell())
        return cls(out.getvalue(), places)

    def filled(self, values: Mapping[int, bytes]) -> bytearray:
        """The data set with these values; each has the length that it had when the template was made."""
        data = bytearray(self.data)
        for tag, place in self.places.items():
            data[place] = values[tag]
        return data
