"""What all instances of a study and of a series say: who, when, where, and the vendor's private elements."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from pydicom.dataset import Dataset

from corpus.people import Patient, patient, physician
from corpus.plan import Series
from corpus.seeds import chance, scattered, uid

_FIRST_DAY = date(2015, 1, 1)
_DAYS = 3650
_HOURS = (1, 1, 1, 1, 1, 2, 5, 14, 22, 24, 24, 22, 16, 18, 20, 18, 13, 8, 5, 4, 3, 3, 2)
"""How busy the hours of the day are; the last is left free, so that no study goes on after midnight."""


@dataclass(frozen=True)
class Vendor:
    """Who made a modality, and the creators of its private elements (PS3.5 7.8.1).

    All are made up: nobody shall take what is in these blocks for a real vendor's.
    """

    name: str
    model: str
    group: int
    creators: tuple[str, str]


_VENDORS = (
    Vendor("Nordlicht Medical", "Aurora 64", 0x0029, ("NORDLICHT CSA HEADER", "NORDLICHT MEDCOM")),
    Vendor("Pacific Imaging Systems", "Tidewater LX", 0x0043, ("PACIFIC_IDEN_01", "PACIFIC_PARM_01")),
    Vendor("Oranje Devices", "Polder 3", 0x2005, ("Oranje Imaging DD 001", "Oranje Imaging DD 005")),
)


@dataclass(frozen=True)
class Region:
    """A body part: the defined term (PS3.16 Annex L), its SNOMED CT code, and how an order has it."""

    term: str
    code: str
    meaning: str
    order: str
    paired: bool = False

    def coded(self) -> Dataset:
        """For an Anatomic Region Sequence (0008,2218)."""
        return coded(self.code, "SCT", self.meaning)


HEAD = Region("HEAD", "69536005", "Head", "Head")
CHEST = Region("CHEST", "51185008", "Chest", "Thorax p.a.")
ABDOMEN = Region("ABDOMEN", "818983003", "Abdomen", "Abdomen, portal venous")
LUMBAR_SPINE = Region("LSPINE", "122496007", "Lumbar spine", "Lumbar spine")
KNEE = Region("KNEE", "72696002", "Knee", "Knee", paired=True)
HAND = Region("HAND", "85562004", "Hand", "Hand, 2 views", paired=True)


@dataclass(frozen=True)
class Study:
    """What follows from a study's number."""

    seed: int
    number: int
    patient: Patient
    begin: datetime
    accession: str
    vendor: Vendor

    @classmethod
    def of(cls, seed: int, series: Series) -> Study:
        """The study that a series belongs to."""
        dice = chance(seed, "study", series.study)
        day = _FIRST_DAY + timedelta(days=dice.randrange(_DAYS))
        if day.weekday() > 4 and dice.random() < 0.7:  # on weekends there are few but emergencies
            day += timedelta(days=2)
        begin = time(dice.choices(range(len(_HOURS)), _HOURS)[0], dice.randrange(60), dice.randrange(60))
        return cls(
            seed,
            series.study,
            patient(seed, series.patient),
            datetime.combine(day, begin),
            "A" + scattered(seed, "accession numbers", series.study, 9),
            dice.choice(_VENDORS),
        )

    @property
    def uid(self) -> str:
        return self.uid_of("study")

    def uid_of(self, *what: object) -> str:
        """The UID of something in this study."""
        return uid(self.seed, self.number, *what)

    def moment(self, series: int, seconds: float) -> datetime:
        """So long after a series began; series follow each other, and all is over within the hour."""
        return self.begin + timedelta(seconds=((series - 1) * 180 + seconds) % 3599)


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence (PS3.3 Table 8.8-1)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def described(study: Study, series: Series, modality: str, region: Region, description: str) -> Dataset:
    """Patient, study, series and equipment (PS3.3 C.7.1 to C.7.3 and C.7.5)."""
    who, hospital = study.patient, study.patient.hospital
    begin, now = study.begin, study.moment(series.number, 0)
    dataset = Dataset()
    if hospital.character_set:
        dataset.SpecificCharacterSet = list(hospital.character_set)
    dataset.PatientName, dataset.PatientID = who.name, who.patient_id
    dataset.IssuerOfPatientID = hospital.code
    dataset.PatientBirthDate = f"{who.birth_date:%Y%m%d}"
    dataset.PatientSex, dataset.PatientAge = who.sex, who.age(begin.date())
    dataset.PatientSize, dataset.PatientWeight = who.size, who.weight

    dataset.StudyInstanceUID, dataset.StudyID = study.uid, str(study.number % 10000 + 1)
    dataset.StudyDate, dataset.StudyTime = f"{begin:%Y%m%d}", f"{begin:%H%M%S}"
    dataset.AccessionNumber = study.accession
    dataset.StudyDescription = f"{modality} {region.order}"
    dataset.ReferringPhysicianName = physician(study.seed, hospital, "referring", study.number * 7)

    dataset.Modality, dataset.SeriesNumber = modality, series.number
    dataset.SeriesInstanceUID = study.uid_of("series", series.number)
    dataset.SeriesDescription = dataset.ProtocolName = description
    dataset.SeriesDate = dataset.ContentDate = f"{now:%Y%m%d}"
    dataset.SeriesTime = f"{now:%H%M%S.%f}"
    dataset.BodyPartExamined = region.term
    if region.paired:
        dataset.Laterality = "LR"[study.number % 2]
    dataset.PerformingPhysicianName = physician(study.seed, hospital, "performing", study.number)
    dataset.PerformedProcedureStepStartDate = dataset.StudyDate
    dataset.PerformedProcedureStepStartTime = dataset.StudyTime
    dataset.PerformedProcedureStepID = f"P{study.accession[1:]}"
    dataset.PerformedProcedureStepDescription = dataset.StudyDescription
    request = Dataset()
    request.RequestedProcedureID = f"R{study.accession[1:]}"
    request.RequestedProcedureDescription = dataset.StudyDescription
    request.ScheduledProcedureStepID = f"S{study.accession[1:]}"
    request.ScheduledProcedureStepDescription = region.order
    dataset.RequestAttributesSequence = [request]

    dataset.Manufacturer, dataset.ManufacturerModelName = study.vendor.name, study.vendor.model
    dataset.InstitutionName = hospital.institution
    dataset.StationName = f"{hospital.code}{modality}{study.number % 3 + 1}"
    dataset.DeviceSerialNumber = scattered(study.seed, study.vendor.name, study.number % 3, 6)
    dataset.SoftwareVersions = "VB20A"
    _add_private(dataset, study, series)
    return dataset


def add_header(dataset: Dataset, study: Study, series: Series, size: int) -> None:
    """An opaque private header as modalities have them, of `size` bytes."""
    block = dataset.private_block(study.vendor.group, study.vendor.creators[0])
    block.add_new(
        0x10, "OB", b"HDR1" + chance(study.seed, "header", study.number, series.number).randbytes(size)
    )


def _add_private(dataset: Dataset, study: Study, series: Series) -> None:
    vendor = study.vendor
    block = dataset.private_block(vendor.group, vendor.creators[0], create=True)
    block.add_new(0x08, "CS", "IMAGE NUM 4")
    block.add_new(0x09, "LO", f"{study.begin:%Y%m%d}")
    block = dataset.private_block(vendor.group, vendor.creators[1], create=True)
    block.add_new(0x01, "LO", study.patient.hospital.institution)
    block.add_new(0x02, "DS", [0.5, -1.25, series.number])
    step = Dataset()
    step.private_block(vendor.group, vendor.creators[1], create=True).add_new(0x05, "SH", "RECON")
    block.add_new(0x04, "SQ", [step])
