"""Files to send, and what of them was kept."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tests import make
from tests.serving import pacs_core, stats

UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_SYNTAXES = (*UNCOMPRESSED, DeflatedExplicitVRLittleEndian)
_CLASSES = {
    "CT": make.CT,
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}
_SIZES = (2, 300, 2_000, 20_000, 64_000, 70_000, 300_000)
_NAMES = (("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 192", "山田^太郎"), ("ISO_IR 144", "Люкceмбypг"))


@dataclass(frozen=True)
class Sample:
    """A file that a client can send."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    uid_of_unknown_vr: bool


def mixed(folder: Path, count: int) -> list[Path]:
    """Instances of several patients, modalities, sizes, character sets and transfer syntaxes, seeded."""
    random_ = random.Random(2)
    made = []
    for number in range(1, count + 1):
        modality, sop_class = random_.choice(sorted(_CLASSES.items()))
        charset, name = random_.choice(_NAMES)
        study = random_.randint(1, 12)
        ds = make.instance(
            number,
            study=study,
            series=random_.randint(1, 3),
            patient=f"P{study % 5}",
            # Now and then one that is received in pieces.
            size=5_000_000 if number % 97 == 0 else random_.choice(_SIZES),
            SOPClassUID=sop_class,
            Modality=modality,
            SpecificCharacterSet=charset,
            PatientName=name,
        )
        ds.private_block(0x0029, "INTEROP", create=True).add_new(1, "OB", bytes(number % 50 * 2))
        made.append(make.file(folder, ds, random_.choice(_SYNTAXES)))
    return made


def sendable(paths: Iterable[Path]) -> list[Sample]:
    """Files that have what a C-STORE request needs, and say the same in file meta and data set.

    One file for each SOP Instance UID.
    """
    found: dict[str, Sample] = {}
    for path in paths:
        ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        raw = ds.get_item("SOPInstanceUID")  # before pydicom puts the VR of its dictionary there
        unknown = raw is not None and raw.VR == "UN"
        meta = read_file_meta_info(path) if hasattr(ds, "file_meta") else {}
        said = (meta.get("MediaStorageSOPInstanceUID"), meta.get("MediaStorageSOPClassUID"))
        uids = (ds.get("SOPInstanceUID"), ds.get("SOPClassUID"))
        if all(uids) and said == uids and meta.get("TransferSyntaxUID"):
            sample = Sample(path, str(uids[0]), str(uids[1]), str(meta.TransferSyntaxUID), unknown)
            found.setdefault(sample.sop_instance_uid, sample)
    return list(found.values())


def data_set(path: Path) -> bytes:
    """The bytes after the file meta information (PS3.10 7.1), by its group length."""
    content = path.read_bytes()
    assert content[128:136] == b"DICM\x02\x00\x00\x00", path
    return content[144 + int.from_bytes(content[140:144], "little") :]


def digests(data_sets: Iterable[bytes]) -> Counter[str]:
    """Data sets as hashes, which are told apart as well and say less when they differ."""
    return Counter(hashlib.sha256(data).hexdigest()[:16] for data in data_sets)


def assert_kept(archive: Path, sent: Counter[str]) -> None:
    """The archive holds just the data sets that were sent and acknowledged, byte for byte, and is sound."""
    assert stats(archive)["instances"] == sent.total()
    pacs_core("verify", "--archive", str(archive))
    out = archive.with_name(f"{archive.name}-exported")
    pacs_core("export", "--archive", str(archive), str(out))
    assert digests(data_set(path) for path in out.rglob("*.dcm")) == sent
