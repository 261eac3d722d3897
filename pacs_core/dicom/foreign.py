"""Data sets to and from pydicom's."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, TypeVar

from pacs_core._ext.encode import encode
from pacs_core._ext.parsing import parse, parse_meta
from pacs_core.dicom import charset
from pacs_core.dicom.writing import syntax_of

if TYPE_CHECKING:
    import pydicom

    from pacs_core.dicom.dataset import Dataset

_T = TypeVar("_T", bound="Dataset")


def to_pydicom(dataset: Dataset) -> pydicom.Dataset:
    """Encoded by us and read by pydicom: a FileDataset if there is file meta information."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    def read(of: Dataset, implicit: bool, little: bool, meta: bool) -> Any:
        data = b"".join(encode(of, charset.encode, implicit=implicit, little=little, meta=meta))
        return read_dataset(io.BytesIO(data), implicit, little)

    implicit, little = dataset.encoding
    read_one = read(dataset, implicit, little, False)
    if dataset.meta is None:
        return read_one  # type: ignore[no-any-return]
    meta = FileMetaDataset(read(dataset.meta, False, True, True))
    meta.TransferSyntaxUID = UID(syntax_of(dataset))
    return FileDataset(
        "", read_one, file_meta=meta, is_implicit_VR=implicit, is_little_endian=little, preamble=bytes(128)
    )


def from_pydicom(made: type[_T], dataset: pydicom.Dataset) -> _T:
    """Written by pydicom, as it was read if it was, and read by us."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    implicit, little = dataset.original_encoding
    implicit, little = bool(implicit), little is None or little
    meta = getattr(dataset, "file_meta", None)
    return parse(
        made,
        _written(write_dataset, DicomBytesIO, dataset, implicit, little),
        implicit=implicit,
        little=little,
        meta=None
        if meta is None
        else parse_meta(made, _written(write_dataset, DicomBytesIO, meta, False, True), 0)[0],
    )


def _written(write: Any, buffer: Any, dataset: Any, implicit: bool, little: bool) -> bytes:
    file = buffer()
    file.is_implicit_VR, file.is_little_endian = implicit, little
    write(file, dataset)
    written: bytes = file.getvalue()
    return written
