"""Data sets made for tests: small, seeded, of any patient, study and size."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.10.999"


def uid(*parts: int) -> str:
    """A UID of ours: the test root and the numbers."""
    return ".".join([ROOT, *(str(p) for p in parts)])


def instance(
    number: int = 1,
    *,
    study: int = 1,
    series: int = 1,
    patient: str = "P1",
    size: int = 512,
    **attributes: object,
) -> Dataset:
    """A CT-like image of `size` bytes of pixel data; `attributes` are set by keyword, None deletes one."""
    ds = Dataset()
    ds.SOPClassUID = CT
    ds.SOPInstanceUID = uid(study, series, number)
    ds.StudyInstanceUID = uid(study)
    ds.SeriesInstanceUID = uid(study, series)
    ds.PatientID = patient
    ds.PatientName = "Doe^Jane"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "F"
    ds.StudyDate = "20240102"
    ds.StudyTime = "101112"
    ds.StudyID = str(study)
    ds.AccessionNumber = f"A{study}"
    ds.StudyDescription = "Chest"
    ds.ReferringPhysicianName = "Roe^Richard"
    ds.Modality = "CT"
    ds.SeriesNumber = series
    ds.InstanceNumber = number
    columns = min(512, max(1, size // 2))
    ds.Rows, ds.Columns = max(1, size // 2 // columns), columns
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.PixelData = struct.pack("<H", number & 0xFFFF) * (size // 2)
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def part10(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """`ds` as the bytes of a DICOM file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    ds.file_meta = meta
    out = io.BytesIO()
    dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def encoded(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """`ds` as the bytes of a data set in a transfer syntax; pixel data stay what they are.

    Those of an encapsulated one are what the caller gave, in one fragment.
    """
    uid = UID(syntax)
    if uid.is_private or uid.is_encapsulated:
        ds.PixelData = encapsulate([ds.PixelData])
        ds["PixelData"].is_undefined_length = True
        ds["PixelData"].VR = "OB"
    out = DicomBytesIO()
    out.is_little_endian = uid.is_little_endian
    out.is_implicit_VR = uid.is_implicit_VR
    write_dataset(out, ds)
    data: bytes = out.getvalue()
    if uid.is_deflated:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflate.compress(data) + deflate.flush()
        data += b"\0" * (len(data) & 1)
    return data


def file(folder: Path, ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    """`ds` as a file in `folder`, named by its SOP Instance UID."""
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    path.write_bytes(part10(ds, syntax))
    return path
