"""Attributes that are added to the index beyond its own, as somebody writes them: `PatientAge`, `0018,1030`,
`STUDY:AdmissionID`.

Without a level it is that of the information entity whose module has the attribute (PS3.3 A.1.2, C.7.1 to
C.7.5): patient, study or series; else that of images. Above the level of images the index holds the value of
the instance that was received first, so a level that is given should be one at which all say the same.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pacs_core.dicom import dictionary
from pacs_core.dicom.attributes import BY_TAG, VRS, Attribute, Level

# The attributes of the modules that all kinds of instances share, without those of the index and sequences.
_MODULES: Final = {
    # Patient (C.7.1.1), Clinical Trial Subject (C.7.1.3)
    Level.PATIENT: """
        TypeOfPatientID PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar
        PatientAlternativeCalendar QualityControlSubject OtherPatientNames PatientBirthName
        PatientMotherBirthName PatientAddress PatientTelephoneNumbers MilitaryRank BranchOfService
        CountryOfResidence RegionOfResidence PatientReligiousPreference PatientSpeciesDescription
        PatientBreedDescription StrainDescription StrainNomenclature StrainAdditionalInformation
        ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization PatientIdentityRemoved
        DeidentificationMethod ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName
        ClinicalTrialSiteID ClinicalTrialSiteName ClinicalTrialSubjectID ClinicalTrialSubjectReadingID
        ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialProtocolEthicsCommitteeApprovalNumber""",
    # General Study (C.7.2.1), Patient Study (C.7.2.2), Clinical Trial Study (C.7.2.3)
    Level.STUDY: """
        ConsultingPhysicianName ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers
        RequestingService ReasonForVisit AdmissionID ServiceEpisodeID ServiceEpisodeDescription
        PatientState MedicalAlerts Allergies SmokingStatus PregnancyStatus LastMenstrualDate
        PatientSexNeutered ReasonForStudy RequestingPhysician RequestedProcedureDescription
        PatientBodyMassIndex MeasuredAPDimension MeasuredLateralDimension ClinicalTrialTimePointID
        ClinicalTrialTimePointDescription LongitudinalTemporalOffsetFromEvent
        LongitudinalTemporalEventType CurrentPatientLocation SpecialNeeds""",
    # General Series (C.7.3.1), Clinical Trial Series (C.7.3.2), Frame of Reference (C.7.4.1),
    # General Equipment (C.7.5.1)
    Level.SERIES: """
        PerformedProcedureStepEndDate PerformedProcedureStepEndTime CommentsOnThePerformedProcedureStep
        SmallestPixelValueInSeries LargestPixelValueInSeries TreatmentSessionUID AnatomicalOrientationType
        InstitutionAddress DeviceSerialNumber SoftwareVersions GantryID DeviceUID
        SpatialResolution DateOfManufacture DateOfInstallation DateOfLastCalibration
        TimeOfLastCalibration PixelPaddingValue PositionReferenceIndicator
        ClinicalTrialCoordinatingCenterName ClinicalTrialSeriesID ClinicalTrialSeriesDescription""",
}
_LEVELS: Final = {keyword: level for level, text in _MODULES.items() for keyword in text.split()}


class Asked(NamedTuple):
    """What an entry means; `given`: it says the level. Where it does not, an index that has the attribute at
    another one is right, too."""

    attribute: Attribute
    given: bool = False


def asked(text: str) -> Asked:
    """What an entry means.

    Raises
    ------
    ValueError
        It names none, a level that is none, or one that an index can't hold: private attributes, sequences,
        bulk data, groups of the file meta information and of commands.
    """
    name, colon, after = text.partition(":")
    wanted = after if colon else name
    try:
        given = Level[name.strip().upper()] if colon else None
    except KeyError:
        raise ValueError(f"{text}: no level {name!r}; there are PATIENT, STUDY, SERIES and IMAGE") from None
    try:
        tag = dictionary.parse_tag(wanted.strip())
    except KeyError as exc:
        raise ValueError(f"{text}: {exc.args[0]}") from None
    if (known := BY_TAG.get(tag)) is not None:
        if given not in (None, known.level):
            raise ValueError(f"{text}: every index has it, at level {known.level.name}")
        return Asked(known)
    found = dictionary.entry(tag)
    if found is None or not found.keyword or tag >> 16 & 1:
        raise ValueError(f"{text}: not an attribute of the standard, and only those can be added")
    if found.vr not in VRS or tag >> 16 <= _META_GROUP or tag in _OF_ANY:
        raise ValueError(f"{text}: a {found.vr} of group {tag >> 16:04X} can't be held in the index")
    level = _LEVELS.get(found.keyword, Level.IMAGE) if given is None else given
    return Asked(Attribute(tag, found.keyword, found.vr, level), given is not None)


_META_GROUP: Final = 0x0002
# What the archive computes or tells itself, and what says how others are to be read.
_OF_ANY: Final = frozenset(
    {0x0008_0005, 0x0008_0052, 0x0008_0054, 0x0008_0056, 0x0008_0061, 0x0008_0062, 0x0008_3002}
    | {0x0020_1200, 0x0020_1202, 0x0020_1204, 0x0020_1206, 0x0020_1208, 0x0020_1209}
)
