"""The tables of the LMDB index, which attributes have ordered keys, and the version of all that.

Ordered keys are worth their writing where a query names the attribute often and it tells studies apart:

- patient: Patient ID, Patient's Name, Birth Date
- study: Date, Accession Number, ID, Description, Referring Physician's Name, and (modality, date) of each
  modality in the study, which serves both "all MR" and "CT of one month"
- UIDs are looked up in the `uid` table. Sex, Modality alone and the like are filtered from records.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from pacs_core._ext import keys, kv
from pacs_core.dicom import dictionary
from pacs_core.dicom.attributes import ATTRIBUTES, BY_TAG, VRS, Attribute, Level
from pacs_core.errors import ArchiveError
from pacs_core.index.base import Filling

SCHEMA_VERSION: Final = 2
OLDEST_VERSION: Final = 1
"""Made what this program writes when it is opened. What is older has to be rebuilt."""
MAX_CODES: Final = 239
MOST_OF_A_LEVEL: Final = 48

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

_CODE: Final = struct.Struct("<IBBBx")
_CODE_1: Final = struct.Struct("<IBB")  # of version 1
COUNTERS: Final = struct.Struct("<QQQ")
"""Next id, bytes held, commits."""
_FILLING: Final = struct.Struct("<QQ")
_KINDS: Final = {"PN": keys.NAME, "DA": keys.DATE} | dict.fromkeys(("AE", "CS", "LO", "SH"), keys.TEXT)


class Code(NamedTuple):
    """What an attribute is in this index, for its life: the level, its code in records, the kind of its keys
    (0: it has none)."""

    level: Level
    code: int
    kind: int


Codes = Mapping[int, Code]
"""By tag."""


def pack_codes(codes: Codes) -> bytes:
    """The codes as `meta` keeps them: tag u32, level u8, code u8, kind u8, 0; ascending by code."""
    rows = sorted(codes.items(), key=lambda item: item[1].code)
    return b"".join(_CODE.pack(tag, *code) for tag, code in rows)


def unpack_codes(packed: bytes, version: int = SCHEMA_VERSION) -> dict[int, Code]:
    """The inverse of `pack_codes`, of any version that this program reads."""
    if version == OLDEST_VERSION:
        return {
            tag: Code(Level(level), code, KEYED.get(tag, 0))
            for tag, level, code in _CODE_1.iter_unpack(packed)
        }
    return {tag: Code(Level(level), code, kind) for tag, level, code, kind in _CODE.iter_unpack(packed)}


def pack_filling(filling: Filling) -> bytes:
    """As `meta` keeps it: until u64, after u64, tags u32 each."""
    tags = sorted(filling.tags)
    return _FILLING.pack(filling.until, filling.after) + struct.pack(f"<{len(tags)}I", *tags)


def unpack_filling(packed: bytes | None) -> Filling | None:
    """The inverse of `pack_filling`; None if nothing is to be filled in."""
    if packed is None:
        return None
    until, after = _FILLING.unpack_from(packed)
    tags = struct.unpack(f"<{(len(packed) - _FILLING.size) // 4}I", packed[_FILLING.size :])
    return Filling(until, after, frozenset(tags))


def assign_codes(known: Codes, attributes: Iterable[Attribute] = ATTRIBUTES) -> dict[int, Code]:
    """`known` and, with new codes, those of `attributes` that are not in it yet.

    What is known stays at its level. Raises ArchiveError if there is no room.
    """
    codes = dict(known)
    following = max((code.code for code in known.values()), default=0) + 1
    for attribute in sorted(attributes):
        if attribute.tag in UNIQUE or attribute.tag in codes:
            continue
        if (
            following > MAX_CODES
            or sum(c.level is attribute.level for c in codes.values()) == MOST_OF_A_LEVEL
        ):
            raise ArchiveError(
                f"no room for {attribute.keyword}: an index has {MOST_OF_A_LEVEL} attributes at a level, "
                "also those that are asked for no longer; `pacs-core reindex` forgets those"
            )
        codes[attribute.tag] = Code(attribute.level, following, key_kind(attribute))
        following += 1
    return codes


def key_kind(attribute: Attribute) -> int:
    """The kind of ordered keys that a new attribute gets.

    One that is not of the table gets some where there are few records, and text, a name or a date tells them
    apart: at the levels of patients and studies. Below, keys cost ingest more than they give. An empty value
    has none, so that records are right when the attribute comes.
    """
    if attribute.tag in BY_TAG:
        return KEYED.get(attribute.tag, 0)
    kind = _KINDS.get(attribute.vr, 0) if attribute.level <= Level.STUDY else 0
    return kind | keys.SPARSE if kind else 0


def recorded(codes: Codes) -> tuple[Attribute, ...]:
    """The attributes that an ingest has to record, those of every record included.

    Not among them: what this program knows nothing of, because a newer one added it.
    """
    found = (dictionary.entry(tag) for tag in codes if tag not in BY_TAG)
    added = (Attribute(one.tag, one.keyword, one.vr, Level.IMAGE) for one in found if one and one.vr in VRS)
    return tuple(
        attribute._replace(level=codes[attribute.tag].level) if attribute.tag in codes else attribute
        for attribute in (*ATTRIBUTES, *added)
    )


def native_rows(codes: Codes) -> list[tuple[int, int, int, int]]:
    """The attributes as `_ext.rows.Schema` takes them: code, tag, level, kind of key."""
    return [(code.code, tag, code.level, code.kind) for tag, code in codes.items()]
