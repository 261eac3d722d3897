"""Generated instances to send: CT-like ones of 512 KB with a header of the usual length, and small ones.

The files are written once; before each run `Corpus.renew` gives every file UIDs that nobody has seen, of the
same length, in place.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

_ROOT = "2.25."
_DIGITS = 30
_PRIVATE_ELEMENTS = 190
_NUMBERS = itertools.count(time.time_ns())


def new_uid() -> str:
    """A UID of fixed length (PS3.5 B.2) that was not given before."""
    return f"{_ROOT}1{next(_NUMBERS):0{_DIGITS}d}"


def _base(sop_class: str) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = new_uid()
    dataset.StudyInstanceUID = new_uid()
    dataset.SeriesInstanceUID = new_uid()
    dataset.FrameOfReferenceUID = new_uid()
    dataset.PatientID = "BENCH0001"
    dataset.PatientName = "Doe^Jane^Q"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "F"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = "20240102"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = dataset.AcquisitionTime = "101112.5"
    dataset.AccessionNumber = "A4711"
    dataset.StudyID = "1"
    dataset.StudyDescription = "CT THORAX"
    dataset.SeriesDescription = "LUNG 1.0 B60f"
    dataset.ReferringPhysicianName = "Roe^Richard"
    dataset.Manufacturer = "GENERATED"
    dataset.InstitutionName = "General Hospital"
    dataset.StationName = "CT01"
    dataset.BodyPartExamined = "CHEST"
    dataset.ProtocolName = "Thorax routine"
    dataset.SeriesNumber = 2
    dataset.InstanceNumber = 1
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    return dataset


def ct(side: int = 512) -> Dataset:
    """A CT image of `side`² 16-bit pixels with about 250 elements, sequences and private ones among them."""
    dataset = _base(CTImageStorage)
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows = dataset.Columns = side
    dataset.PixelSpacing = [0.7, 0.7]
    dataset.SliceThickness = 1
    dataset.KVP = 120
    dataset.ConvolutionKernel = "B60f"
    dataset.ImagePositionPatient = [-180, -180, 100]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.WindowCenter = -600
    dataset.WindowWidth = 1200
    dataset.RescaleIntercept = -1024
    dataset.RescaleSlope = 1
    step = Dataset()
    step.ScheduledProcedureStepDescription = "Thorax"
    step.ScheduledProcedureStepID = "1"
    dataset.RequestAttributesSequence = Sequence([step])
    block = dataset.private_block(0x0029, "GENERATED HEADER", create=True)
    for number in range(_PRIVATE_ELEMENTS):
        block.add_new(number, "LO", f"value {number}")
    dataset.PixelData = random.Random(1).randbytes(side * side * 2)
    return dataset


def small() -> Dataset:
    """A secondary capture of 2 KB."""
    dataset = _base(SecondaryCaptureImageStorage)
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.Rows = dataset.Columns = 24
    dataset.PixelData = random.Random(1).randbytes(24 * 24 * 2)
    return dataset


def part10(dataset: Dataset) -> bytes:
    """The dataset as a file (PS3.10 7.1), explicit VR little endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    out = BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


@dataclass(frozen=True)
class Corpus:
    """Files to send, in one folder per association."""

    folders: list[Path]
    count: int
    """Files in each folder."""
    _places: dict[str, list[int]]
    """Offsets in every file: of the instance's UID, the study's, the series'."""

    @classmethod
    def make(cls, root: Path, dataset: Dataset, associations: int, count: int) -> Corpus:
        """Write `associations` folders of `count` files below `root`."""
        encoded = part10(dataset)
        places = {
            name: [at.start() for at in re.finditer(re.escape(str(dataset[name].value).encode()), encoded)]
            for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
        }
        folders = [root / f"{number}" for number in range(associations)]
        for folder in folders:
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:05d}.dcm").write_bytes(encoded)
        return cls(folders, count, places)

    def renew(self) -> None:
        """Give all files new UIDs: one study and series per folder."""
        for folder in self.folders:
            study, series = new_uid(), new_uid()
            for number in range(self.count):
                values = {
                    "SOPInstanceUID": new_uid(),
                    "StudyInstanceUID": study,
                    "SeriesInstanceUID": series,
                }
                fd = os.open(folder / f"{number:05d}.dcm", os.O_WRONLY)
                try:
                    for name, offsets in self._places.items():
                        for offset in offsets:
                            os.pwrite(fd, values[name].encode(), offset)
                finally:
                    os.close(fd)
