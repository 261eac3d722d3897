"""Patients and the hospitals that they are in: each writes in its own script (PS3.3 C.12.1.1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from corpus.seeds import chance, scattered, uid

Names = tuple[str, ...]


@dataclass(frozen=True)
class Hospital:
    """A hospital with its character set, and the names of the people around it.

    Parts of a name in several representations (PS3.5 6.2.1.1: alphabetic, ideographic, phonetic) are
    joined by '='.
    """

    character_set: Names
    """(0008,0005)."""
    code: str
    """Of the domain that Patient IDs are unique in (0010,0021)."""
    institution: str
    families: Names
    women: Names
    men: Names
    finding: str
    """A sentence of a report."""


HOSPITALS = (
    Hospital(
        ("ISO_IR 100",),
        "KKN",
        "Kreiskrankenhaus Nürtingen",
        ("Müller", "Weiß", "Groß", "Schröder", "Jäger", "Köhler", "von der Höhe"),
        ("Käthe", "Jördis", "Anna Sophie", "Bärbel"),
        ("Jürgen", "Björn", "Götz", "Karl-Heinz"),
        "Kein Nachweis einer frischen Blutung. Mäßige Atrophie, altersgemäß.",
    ),
    Hospital(
        ("ISO_IR 100",),
        "CHB",
        "Hôpital Général de Besançon",
        ("Lefèvre", "Garçon", "Bérenger", "d'Épinay", "Noël", "Benoît"),
        ("Hélène", "Françoise", "Zoé", "Maëlle"),
        ("Jérôme", "André", "François", "Loïc"),
        "Pas d'épanchement pleural. Silhouette cardiaque de taille normale, opacité réticulée à gauche.",
    ),
    Hospital(
        (),
        "STM",
        "St. Mary's Hospital",
        ("Smith", "O'Connor", "Fitzgerald", "Doe", "Underwood", "Hall-Jones"),
        ("Jane", "Mary Ann", "Patricia", "Olivia"),
        ("John", "Robert", "George", "William"),
        "No acute cardiopulmonary abnormality. Degenerative changes of the spine.",
    ),
    Hospital(
        ("ISO_IR 144",),
        "GKB",
        "Городская клиническая больница 7",
        ("Люксембург", "Иванова", "Кузнецов", "Соколов", "Щербаков"),
        ("Анна", "Ольга", "Екатерина"),
        ("Иван", "Сергей", "Дмитрий"),
        "Очаговых изменений не выявлено. Корни структурны, синусы свободны.",
    ),
    Hospital(
        ("ISO_IR 126",),
        "GNA",
        "Γενικό Νοσοκομείο Αθηνών",
        ("Διονυσίου", "Παπαδόπουλος", "Γεωργίου", "Νικολαΐδης"),
        ("Ελένη", "Μαρία", "Αικατερίνη"),
        ("Διονύσιος", "Γιώργος", "Κωνσταντίνος"),
        "Χωρίς παθολογικά ευρήματα. Φυσιολογικό μέγεθος καρδιάς.",
    ),
    Hospital(
        ("ISO_IR 127",),
        "MSH",
        "مستشفى السلام",
        ("قباني", "حداد", "الخطيب", "منصور"),
        ("فاطمة", "ليلى", "مريم"),
        ("نزار", "احمد", "يوسف"),
        "لا توجد علامات مرضية حادة",
    ),
    Hospital(
        ("", "ISO 2022 IR 87"),
        "TKB",
        "東都中央病院",
        ("Yamada=山田=やまだ", "Suzuki=鈴木=すずき", "Takahashi=高橋=たかはし", "Itou=伊藤=いとう"),
        ("Hanako=花子=はなこ", "Misaki=美咲=みさき", "Keiko=恵子=けいこ"),
        ("Tarou=太郎=たろう", "Kenji=健二=けんじ", "Hiroshi=博=ひろし"),
        "明らかな異常所見は認められません。",
    ),
    Hospital(
        ("", "ISO 2022 IR 149"),
        "SJH",
        "서울중앙병원",
        ("Hong=洪=홍", "Kim=金=김", "Park=朴=박", "Choi=崔=최"),
        ("Minji=敏智=민지", "Jiyoung=智英=지영"),
        ("Gildong=吉洞=길동", "Minsu=民洙=민수"),
        "특이 소견 없음.",
    ),
    Hospital(
        ("GB18030",),
        "BJY",
        "北京协和友谊医院",
        ("Wang=王", "Zhang=张", "Li=李", "Ouyang=欧阳"),
        ("XiaoHong=小红", "Fang=芳", "Jing=静"),
        ("XiaoDong=小东", "Wei=伟", "Lei=磊"),
        "双肺纹理清晰,心影大小正常。",
    ),
    Hospital(
        ("ISO_IR 192",),
        "BVH",
        "Bệnh viện Đa khoa Huế",
        ("Nguyễn", "Trần", "Phạm", "Đặng", "Łukasiewicz", "שפירא", "शर्मा"),
        ("Thị Hương", "Ngọc Ánh", "Małgorzata", "रेखा"),
        ("Văn Dũng", "Đức Thịnh", "Çağrı", "דוד"),
        "Không thấy tổn thương khu trú. Bóng tim không to.",
    ),
)


@dataclass(frozen=True)
class Patient:
    """One person, the same in all studies."""

    hospital: Hospital
    patient_id: str
    name: str
    sex: str
    birth_date: date
    size: float
    """Meters."""
    weight: float
    """Kilograms."""

    def age(self, day: date) -> str:
        """(0010,1010) on a day: days, months or years (PS3.5 6.2, AS)."""
        days = (day - self.birth_date).days
        if days < 30:
            return f"{days:03d}D"
        return f"{days // 30:03d}M" if days < 730 else f"{int(days / 365.25):03d}Y"


def patient(seed: int, number: int) -> Patient:
    """The patient of a number. Anybody was born before `studies.FIRST_DAY`."""
    dice = chance(seed, "patient", number)
    hospital = dice.choice(HOSPITALS)
    sex = dice.choices("FMO", (50, 49, 1))[0]
    years = dice.triangular(0, 94, 66)
    grown = min(1.0, 0.3 + years / 22)
    return Patient(
        hospital,
        scattered(seed, "patient IDs", number, 8),
        name_of(hospital, uid(seed, "name", number), sex),
        sex,
        date(2014, 12, 31) - timedelta(days=int(years * 365.25)),
        round(dice.gauss(1.72, 0.08) * grown, 2),
        round(max(3.0, dice.gauss(76, 13) * grown**2), 1),
    )


def physician(seed: int, hospital: Hospital, role: str, number: int) -> str:
    """One of some dozens of doctors of a hospital."""
    return name_of(hospital, f"{seed}/{role}/{number % 24}", "FM"[number % 2])


def name_of(hospital: Hospital, of: str, sex: str) -> str:
    """A PN of family and given name, in each representation that both have."""
    dice = chance(0, of)
    family = dice.choice(hospital.families).split("=")
    given = dice.choice(hospital.women if sex == "F" else hospital.men).split("=")
    return "=".join("^".join(pair) for pair in zip(family, given, strict=True))
