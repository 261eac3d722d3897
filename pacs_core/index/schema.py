"""The tables of the LMDB index, which attributes have ordered keys, and the version of all that.

Ordered keys are worth their writing where a query names the attribute often and it tells studies apart:

- patient: Patient ID, Patient's Name, Birth Date
- study: Date, Accession Number, ID, Description, Referring Physician's Name, and (modality, date) of each
  modality in the study, which serves both "all MR" and "CT of one month"
- UIDs are looked up in the `uid` table. Sex, Modality alone and the like are filtered from records.
"""

from __future__ import annotations

import struct
from typing import Final

from pacs_core._ext import keys, kv
from pacs_core.dicom.attributes import ATTRIBUTES, Level

SCHEMA_VERSION: Final = 1

META, UID, PATIENT, STUDY, SERIES, INSTANCE, CHILD, KEY = range(8)

# In the order that `_ext/catalog.pxd` fixes.
TABLES: Final = (
    ("meta", 0),
    ("uid", 0),
    ("patient", kv.INTEGERKEY),
    ("study", kv.INTEGERKEY),
    ("series", kv.INTEGERKEY),
    ("instance", kv.INTEGERKEY),
    ("child", kv.INTEGERKEY | kv.DUPSORT | kv.DUPFIXED | kv.INTEGERDUP),
    ("key", kv.DUPSORT | kv.DUPFIXED | kv.INTEGERDUP),
)

# Part of every record, without a code (see `_ext/rows.pyx`).
PATIENT_ID: Final = 0x0010_0020
ISSUER_OF_PATIENT_ID: Final = 0x0010_0021
STUDY_INSTANCE_UID: Final = 0x0020_000D
SERIES_INSTANCE_UID: Final = 0x0020_000E
SOP_INSTANCE_UID: Final = 0x0008_0018
UNIQUE: Final = frozenset(
    {PATIENT_ID, ISSUER_OF_PATIENT_ID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID}
)

KEYED: Final[dict[int, int]] = {
    0x0010_0010: keys.NAME,  # PatientName
    0x0010_0030: keys.DATE,  # PatientBirthDate
    0x0008_0020: keys.DATE,  # StudyDate
    0x0008_0050: keys.TEXT,  # AccessionNumber
    0x0020_0010: keys.TEXT,  # StudyID
    0x0008_1030: keys.TEXT,  # StudyDescription
    0x0008_0090: keys.NAME,  # ReferringPhysicianName
}

# The unique key of each level, from the top (PS3.4 C.6.1.1).
UNIQUE_KEYS: Final = {
    Level.PATIENT: ("PatientID", PATIENT_ID),
    Level.STUDY: ("StudyInstanceUID", STUDY_INSTANCE_UID),
    Level.SERIES: ("SeriesInstanceUID", SERIES_INSTANCE_UID),
    Level.IMAGE: ("SOPInstanceUID", SOP_INSTANCE_UID),
}

_CODE = struct.Struct("<IBB")
MAX_CODES: Final = 239


def pack_codes(codes: dict[int, tuple[Level, int]]) -> bytes:
    """The code of each tag as `meta` keeps it: tag u32, level u8, code u8, ascending by code."""
    rows = sorted(codes.items(), key=lambda item: item[1][1])
    return b"".join(_CODE.pack(tag, level, code) for tag, (level, code) in rows)


def unpack_codes(packed: bytes) -> dict[int, tuple[Level, int]]:
    """The inverse of `pack_codes`."""
    return {tag: (Level(level), code) for tag, level, code in _CODE.iter_unpack(packed)}


def assign_codes(known: dict[int, tuple[Level, int]]) -> dict[int, tuple[Level, int]]:
    """`known` and, with new codes, the attributes of the table that are not in it yet."""
    codes = dict(known)
    following = max((code for _, code in known.values()), default=0) + 1
    for attribute in sorted(ATTRIBUTES):
        if attribute.tag not in UNIQUE and attribute.tag not in codes:
            codes[attribute.tag] = (attribute.level, following)
            following += 1
    return codes


def native_rows(codes: dict[int, tuple[Level, int]]) -> list[tuple[int, int, int, int]]:
    """The attributes as `_ext.rows.Schema` takes them: code, tag, level, kind of key."""
    return [(code, tag, level, KEYED.get(tag, 0)) for tag, (level, code) in codes.items()]
