"""The attributes that the index holds: which, of which VR, at which level of the information model.

Those that PS3.4 C.6.1.1 and C.6.2.1 name as required or unique keys, and the optional ones that viewers ask
for. The synthetic ones (Transfer Syntax UID, the counters) are the archive's and not listed here.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """The levels of the Query/Retrieve information models (PS3.4 C.6.1.1.1), from the top."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3


class Attribute(NamedTuple):
    """One attribute of the index; `tag` is group << 16 | element, `vr` that of PS3.6."""

    tag: int
    keyword: str
    vr: str
    level: Level


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(0x0010_0020, "PatientID", "LO", Level.PATIENT),
    Attribute(0x0010_0021, "IssuerOfPatientID", "LO", Level.PATIENT),
    Attribute(0x0010_0010, "PatientName", "PN", Level.PATIENT),
    Attribute(0x0010_0030, "PatientBirthDate", "DA", Level.PATIENT),
    Attribute(0x0010_0032, "PatientBirthTime", "TM", Level.PATIENT),
    Attribute(0x0010_0040, "PatientSex", "CS", Level.PATIENT),
    Attribute(0x0010_2160, "EthnicGroup", "SH", Level.PATIENT),
    Attribute(0x0010_4000, "PatientComments", "LT", Level.PATIENT),
    Attribute(0x0010_1000, "OtherPatientIDs", "LO", Level.PATIENT),
    Attribute(0x0020_000D, "StudyInstanceUID", "UI", Level.STUDY),
    Attribute(0x0008_0020, "StudyDate", "DA", Level.STUDY),
    Attribute(0x0008_0030, "StudyTime", "TM", Level.STUDY),
    Attribute(0x0008_0050, "AccessionNumber", "SH", Level.STUDY),
    Attribute(0x0020_0010, "StudyID", "SH", Level.STUDY),
    Attribute(0x0008_0090, "ReferringPhysicianName", "PN", Level.STUDY),
    Attribute(0x0008_1030, "StudyDescription", "LO", Level.STUDY),
    Attribute(0x0008_1060, "NameOfPhysiciansReadingStudy", "PN", Level.STUDY),
    Attribute(0x0008_1080, "AdmittingDiagnosesDescription", "LO", Level.STUDY),
    Attribute(0x0010_1010, "PatientAge", "AS", Level.STUDY),
    Attribute(0x0010_1020, "PatientSize", "DS", Level.STUDY),
    Attribute(0x0010_1030, "PatientWeight", "DS", Level.STUDY),
    Attribute(0x0010_2180, "Occupation", "SH", Level.STUDY),
    Attribute(0x0010_21B0, "AdditionalPatientHistory", "LT", Level.STUDY),
    Attribute(0x0008_0201, "TimezoneOffsetFromUTC", "SH", Level.STUDY),
    Attribute(0x0020_000E, "SeriesInstanceUID", "UI", Level.SERIES),
    Attribute(0x0008_0060, "Modality", "CS", Level.SERIES),
    Attribute(0x0020_0011, "SeriesNumber", "IS", Level.SERIES),
    Attribute(0x0008_103E, "SeriesDescription", "LO", Level.SERIES),
    Attribute(0x0008_0021, "SeriesDate", "DA", Level.SERIES),
    Attribute(0x0008_0031, "SeriesTime", "TM", Level.SERIES),
    Attribute(0x0018_0015, "BodyPartExamined", "CS", Level.SERIES),
    Attribute(0x0020_0060, "Laterality", "CS", Level.SERIES),
    Attribute(0x0018_1030, "ProtocolName", "LO", Level.SERIES),
    Attribute(0x0008_1050, "PerformingPhysicianName", "PN", Level.SERIES),
    Attribute(0x0008_1070, "OperatorsName", "PN", Level.SERIES),
    Attribute(0x0008_0080, "InstitutionName", "LO", Level.SERIES),
    Attribute(0x0008_1040, "InstitutionalDepartmentName", "LO", Level.SERIES),
    Attribute(0x0008_1010, "StationName", "SH", Level.SERIES),
    Attribute(0x0008_0070, "Manufacturer", "LO", Level.SERIES),
    Attribute(0x0008_1090, "ManufacturerModelName", "LO", Level.SERIES),
    Attribute(0x0018_5100, "PatientPosition", "CS", Level.SERIES),
    Attribute(0x0020_0052, "FrameOfReferenceUID", "UI", Level.SERIES),
    Attribute(0x0040_0244, "PerformedProcedureStepStartDate", "DA", Level.SERIES),
    Attribute(0x0040_0245, "PerformedProcedureStepStartTime", "TM", Level.SERIES),
    Attribute(0x0040_0253, "PerformedProcedureStepID", "SH", Level.SERIES),
    Attribute(0x0040_0254, "PerformedProcedureStepDescription", "LO", Level.SERIES),
    Attribute(0x0040_0275, "RequestAttributesSequence", "SQ", Level.SERIES),
    Attribute(0x0008_0018, "SOPInstanceUID", "UI", Level.IMAGE),
    Attribute(0x0008_0016, "SOPClassUID", "UI", Level.IMAGE),
    Attribute(0x0020_0013, "InstanceNumber", "IS", Level.IMAGE),
    Attribute(0x0008_0023, "ContentDate", "DA", Level.IMAGE),
    Attribute(0x0008_0033, "ContentTime", "TM", Level.IMAGE),
    Attribute(0x0008_0022, "AcquisitionDate", "DA", Level.IMAGE),
    Attribute(0x0008_0032, "AcquisitionTime", "TM", Level.IMAGE),
    Attribute(0x0008_002A, "AcquisitionDateTime", "DT", Level.IMAGE),
    Attribute(0x0020_0012, "AcquisitionNumber", "IS", Level.IMAGE),
    Attribute(0x0008_0012, "InstanceCreationDate", "DA", Level.IMAGE),
    Attribute(0x0008_0013, "InstanceCreationTime", "TM", Level.IMAGE),
    Attribute(0x0008_0008, "ImageType", "CS", Level.IMAGE),
    Attribute(0x0020_4000, "ImageComments", "LT", Level.IMAGE),
    Attribute(0x0028_0008, "NumberOfFrames", "IS", Level.IMAGE),
    Attribute(0x0028_0010, "Rows", "US", Level.IMAGE),
    Attribute(0x0028_0011, "Columns", "US", Level.IMAGE),
    Attribute(0x0028_0100, "BitsAllocated", "US", Level.IMAGE),
)

VRS = frozenset(
    [
        "AE",
        "AS",
        "AT",
        "CS",
        "DA",
        "DS",
        "DT",
        "FD",
        "FL",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "SL",
        "SS",
        "ST",
        "SV",
        "TM",
        "UC",
        "UI",
        "UL",
        "UR",
        "US",
        "UT",
        "UV",
    ]
)
"""VRs whose values the index holds, as text. Of the attributes here one is a sequence besides."""

ITEMS: dict[int, tuple[tuple[int, str], ...]] = {
    0x0040_0275: (  # RequestAttributesSequence
        (0x0008_0050, "SH"),  # AccessionNumber
        (0x0020_000D, "UI"),  # StudyInstanceUID
        (0x0032_1060, "LO"),  # RequestedProcedureDescription
        (0x0040_0007, "LO"),  # ScheduledProcedureStepDescription
        (0x0040_0009, "SH"),  # ScheduledProcedureStepID
        (0x0040_1001, "SH"),  # RequestedProcedureID
    ),
}
"""Of the items of a sequence, what the index holds: tag and VR, ascending."""

BY_TAG: dict[int, Attribute] = {attribute.tag: attribute for attribute in ATTRIBUTES}
BY_KEYWORD: dict[str, Attribute] = {attribute.keyword: attribute for attribute in ATTRIBUTES}


def of_level(level: Level) -> tuple[Attribute, ...]:
    """The attributes of one level, in the order of the table (unique key first)."""
    return tuple(attribute for attribute in ATTRIBUTES if attribute.level is level)
