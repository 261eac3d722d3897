"""A small made-up archive for any PACS: people of many scripts; values missing, empty and several."""

from __future__ import annotations

import random
from typing import NamedTuple

from pydicom.dataset import Dataset

from tests.make import instance, uid

Row = dict[str, str]
"""What is known of a patient, study, series or instance and of what it belongs to, as text by keyword."""

# Names by the character set that they are stored in.
PEOPLE: dict[str, tuple[str, ...]] = {
    "": ("Smith^John", "SMITH^JANE", "Doe^Jane", "O'Connor^Mary Ann", "Doe", "^Prince", "Doe^J^Q^Dr^Jr"),
    "ISO_IR 100": ("Müller^Jürgen", "MÜLLER^KÄTHE", "Groß^Anna Sophie", "Weiß^Götz", "Lefèvre^Zoé"),
    "ISO_IR 144": ("Иванов^Иван", "ИВАНОВА^Ольга", "Люксембург^Анна"),
    "ISO_IR 126": ("Παπαδόπουλος^Γιώργος", "Διονυσίου^Ελένη"),
    "ISO_IR 127": ("قباني^نزار", "حداد^ليلى"),
    "\\ISO 2022 IR 87": ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Suzuki^Hanako=鈴木^花子=すずき^はなこ"),
    "\\ISO 2022 IR 149": ("Hong^Gildong=洪^吉洞=홍^길동", "Kim^Minji=金^敏智=김^민지"),
    "GB18030": ("Wang^XiaoDong=王^小东", "Zhang^Fang=张^芳"),
    "ISO_IR 192": ("Nguyễn^Văn Dũng", "Łukasiewicz^Małgorzata", "Dvořák^Antonín", "Kim=金=김", "=鈴木^博"),
}
_DAYS = ("0101", "0115", "0131", "0515", "1201", "1231")
DATES = tuple(f"{year}{day}" for year in (2023, 2024) for day in _DAYS)
TIMES = ("10", "1011", "101112", "101112.5", "101112.500000", "080000", "235959.999999")
WORDS = ("Thorax", "THORAX", "Thorax p.a.", "Kopf", "Head-Neck", "Abdomen [1]", "100%_a", "a*b", "x" * 64)
MODALITIES = ("CT", "MR", "US", "CR", "PT", "SR")


class Made(NamedTuple):
    """The instances, and what is known by level: rows by the unique key of the level."""

    instances: list[Dataset]
    patients: dict[str, Row]
    studies: dict[str, Row]
    series: dict[str, Row]
    images: dict[str, Row]


def archive(seed: int, patients: int) -> Made:
    """Each patient with one to three studies of one to three series of one or two images."""
    dice = random.Random(seed)
    made = Made([], {}, {}, {}, {})
    for number in range(patients):
        character_set = dice.choice(list(PEOPLE))
        who = _some(dice, _patient(dice, character_set, number), "PatientID")
        made.patients[who["PatientID"]] = {**who}
        for study in range(dice.randint(1, 3)):
            which = who | _some(dice, _study(dice, character_set, number, study), "StudyInstanceUID")
            for series in range(dice.randint(1, 3)):
                part = which | _some(
                    dice, _series(dice, character_set, number, study, series), "SeriesInstanceUID", "Modality"
                )
                for image in range(dice.randint(1, 2)):
                    own = _some(dice, _image(dice, number, study, series, image), "SOPInstanceUID")
                    made.images[own["SOPInstanceUID"]] = part | own
                    made.instances.append(_data_set(part | own, character_set))
                made.series[part["SeriesInstanceUID"]] = part
            made.studies[which["StudyInstanceUID"]] = which
    _count(made)
    return made


def _count(made: Made) -> None:
    """What PS3.4 C.3.4 has computed: numbers, and modalities."""
    for uid_, which in made.studies.items():
        series = [one for one in made.series.values() if one["StudyInstanceUID"] == uid_]
        images = [one for one in made.images.values() if one["StudyInstanceUID"] == uid_]
        which["ModalitiesInStudy"] = "\\".join(sorted({one["Modality"] for one in series}))
        which["NumberOfStudyRelatedSeries"] = str(len(series))
        which["NumberOfStudyRelatedInstances"] = str(len(images))
    for uid_, part in made.series.items():
        images = [one for one in made.images.values() if one["SeriesInstanceUID"] == uid_]
        part["NumberOfSeriesRelatedInstances"] = str(len(images))


def _some(dice: random.Random, values: Row, *always: str) -> Row:
    """Values, of which some are empty and some are left out."""
    kept = {}
    for keyword, value in values.items():
        luck = 1.0 if keyword in always else dice.random()
        if luck > 0.1:
            kept[keyword] = value if luck > 0.2 else ""
    return kept


def _person(dice: random.Random, character_set: str) -> str:
    return dice.choice(PEOPLE[character_set] + PEOPLE[""])


def _patient(dice: random.Random, character_set: str, number: int) -> Row:
    return {
        "PatientID": dice.choice(["P{}", "p{}", "{:05}", "P-{}/A"]).format(number),
        "PatientName": dice.choice(PEOPLE[character_set]),
        "PatientBirthDate": dice.choice(DATES),
        "PatientSex": dice.choice("FMO"),
        "OtherPatientIDs": dice.choice(["A1", "A1\\B2", f"X{number}"]),
    }


def _study(dice: random.Random, character_set: str, number: int, study: int) -> Row:
    return {
        "StudyInstanceUID": uid(number + 1, study + 1),
        "StudyDate": dice.choice(DATES),
        "StudyTime": dice.choice(TIMES),
        "StudyID": str(dice.randrange(9)),
        "AccessionNumber": dice.choice([f"A{number}", f"a{number}", f"A{number:05}"]),
        "StudyDescription": dice.choice(WORDS),
        "ReferringPhysicianName": _person(dice, character_set),
        "InstitutionName": dice.choice(["St. Mary's", "General", "GENERAL"]),
        "RequestingPhysician": _person(dice, character_set),
    }


def _series(dice: random.Random, character_set: str, number: int, study: int, series: int) -> Row:
    return {
        "SeriesInstanceUID": uid(number + 1, study + 1, series + 1),
        "SeriesNumber": dice.choice(["1", "2", "03", "10"]),
        "Modality": dice.choice(MODALITIES),
        "SeriesDate": dice.choice(DATES),
        "SeriesTime": dice.choice(TIMES),
        "SeriesDescription": dice.choice(WORDS),
        "BodyPartExamined": dice.choice(["CHEST", "HEAD", "ABDOMEN"]),
        "StationName": dice.choice(["CT1", "ct1", "MR 2"]),
        "OperatorsName": dice.choice(["{}", "{}\\{}"]).format(
            _person(dice, character_set), _person(dice, character_set)
        ),
    }


def _image(dice: random.Random, number: int, study: int, series: int, image: int) -> Row:
    return {
        "SOPInstanceUID": uid(number + 1, study + 1, series + 1, image + 1),
        "InstanceNumber": dice.choice(["1", "02", "3"]),
        "ImageType": dice.choice(
            ["ORIGINAL\\PRIMARY", "DERIVED\\SECONDARY\\AXIAL", "ORIGINAL\\PRIMARY\\AXIAL"]
        ),
        "AcquisitionDateTime": dice.choice(["20240115101112", "20240115101112.5+0100", "20230101"]),
        "ContentDate": dice.choice(DATES),
        "ContentTime": dice.choice(TIMES),
    }


def _data_set(row: Row, character_set: str) -> Dataset:
    made = instance(size=2)
    for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                    "AccessionNumber", "StudyDescription", "ReferringPhysicianName", "SeriesNumber",
                    "InstanceNumber"):  # fmt: skip
        del made[keyword]
    if character_set:
        made.SpecificCharacterSet = character_set.split("\\")
    for keyword, value in row.items():
        setattr(made, keyword, value.split("\\") if "\\" in value else value)
    return made
