"""Searches of a whole index: the oracle's answer by every plan, at every border, while others write."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import query_oracle as oracle
from index_model import Instance, instance

from pacs_core._ext import browse
from pacs_core._ext.lookup import Sieve
from pacs_core._ext.match import Matcher
from pacs_core.dicom import dictionary
from pacs_core.dicom.attributes import BY_KEYWORD, ITEMS, Level
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.identifier import identifier_of
from pacs_core.dicom.query import Filter, Key, Matching, Negotiated, Query, key_of, query_of
from pacs_core.dicom.reading import read_dataset
from pacs_core.errors import ArchiveError, IdentifierError
from pacs_core.index import Index, Search, plan, ranges

QUERIES = int(os.environ.get("PACS_CORE_QUERIES", "500"))
MAP = 1 << 28
PATIENTS, STUDIES, INSTANCES = 500, 1200, 4000

FAMILIES = (
    *("Doe", "DOE", "Smith", "SMITHERS", "Müller", "MUELLER", "Groß", "GROSS", "Strauẞ", "İnci", "d'Épinay"),
    *("Иванов", "ИВАНОВА", "Παπαδόπουλος", "ΣΊΣΥΦΟΣ", "قباني", "חדד", "Nguyễn", "Hong=洪=홍", "Kim=金=김"),
    *("Yamada=山田=やまだ", "=鈴木", "==さとう", "Wang=王", "L" * 190, "ß" * 100),
)
GIVEN_NAMES = ("", "Jane", "JANE", "Anna Sophie", " Jürgen ", "Ἀθηνᾶ", "Ольга", "Q^Dr", "^^Jr")
WORDS = (
    "CT",
    "Thorax",
    "thorax p.a.",
    "",
    "Kopf",
    "Schädel",
    "Łódź",
    "頭部",
    "a\\b",
    "x" * 250,
    "x" * 250 + "y",
)
DATES = (
    "",
    "2024.01.02",
    "20240102\\20240203",
    "garbage",
    "2024",
    *(f"2024{m:02}{d:02}" for m in range(1, 13) for d in (1, 2, 15)),
)
TIMES = ("", "10", "1011", "101112", "101112.5", "101112.500000", "10:11:12", "235959.999999", "noon")
REQUESTS = 0x0040_0275
MODALITIES = ("CT", "MR", "MR", "US", "", "CT\\SR", "ct", " PT", "M" * 70)


def patient(dice: random.Random, number: int) -> dict[str, str]:
    family, given = dice.choice(FAMILIES), dice.choice(GIVEN_NAMES)
    name = family if "=" in family else f"{family}^{given}"
    return {
        "PatientID": dice.choice(["", "P{}", " P{}", "p{}", "P1{}", "A{0}\\B{0}"]).format(number),
        "IssuerOfPatientID": dice.choice(["", "HOSPITAL", "Clinic"]),
        "PatientName": dice.choice(["", "^^", name, name, name, f"{name}\\Roe^Jo"]),
        "PatientBirthDate": dice.choice(DATES),
        "PatientSex": dice.choice("FMO"),
        "PatientComments": dice.choice(WORDS),
    }  # fmt: skip


def study(dice: random.Random, number: int) -> dict[str, str]:
    return {
        "StudyInstanceUID": dice.choice([f"1.2.{number}"] * 20 + ["", f"1.2.{number}\\7"]),
        "StudyDate": dice.choice(DATES),
        "StudyTime": dice.choice(TIMES),
        "AccessionNumber": dice.choice(["", f"A{number}", f"a{number % 90}", "A" * 210 + str(number % 3)]),
        "StudyID": str(number % 70),
        "StudyDescription": dice.choice(WORDS),
        "ReferringPhysicianName": dice.choice(FAMILIES),
        "PatientWeight": dice.choice(["", "70", "70.0", "7e1", "81.5"]),
    }


def series(dice: random.Random, number: int) -> dict[str, str]:
    return {
        "SeriesInstanceUID": dice.choice([f"3.{number}", f"3.{number}", f"3.{number % 9}", ""]),
        "Modality": dice.choice(MODALITIES),
        "SeriesNumber": dice.choice(["", "1", "01", "2"]),
        "SeriesDescription": dice.choice(WORDS),
        "OperatorsName": dice.choice(FAMILIES),
        "RequestAttributesSequence": requests(dice),
    }


def requests(dice: random.Random) -> str:
    """Items of a Request Attributes Sequence, as JSON."""
    texts = ("", "", "1", "2", "12", "A\\B", "頭部", "Thorax", "x" * 90)
    items = [
        {str(tag): text for tag, _ in ITEMS[REQUESTS] if (text := dice.choice(texts))}
        for _ in range(dice.choice([0, 0, 1, 1, 2, 3]))
    ]
    return json.dumps(items) if items else ""


def generated(seed: int) -> list[Instance]:
    """Instances of every kind of patient, study and series; what is missing is now and then elsewhere."""
    dice = random.Random(seed)
    patients = [patient(dice, number) for number in range(PATIENTS)]
    studies = [study(dice, number) | dice.choice(patients) for number in range(STUDIES)]
    parts = [series(dice, number) | dice.choice(studies) for number in range(STUDIES * 2)]
    made = []
    for number in range(INSTANCES):
        values = dict(dice.choice(parts))
        if dice.random() < 0.1:
            for keyword in dice.sample(sorted(values), 3):
                values[keyword] = ""
        own = {
            "SOPInstanceUID": f"9.{number}",
            "InstanceNumber": str(dice.randrange(20)),
            "ContentDate": dice.choice(DATES),
            "ContentTime": dice.choice(TIMES),
            "ImageType": dice.choice(["", "ORIGINAL\\PRIMARY", "DERIVED\\SECONDARY\\AXIAL"]),
            "AcquisitionDateTime": dice.choice(
                ["", "20240102", "2024010210+0100", "20240102101112.5", "2024"]
            ),
            "Rows": dice.choice(["", "512", "64"]),
        }
        made.append(instance(number, stamp=number + 1, **values | own))
    return made


@pytest.fixture(scope="module")
def made() -> list[Instance]:
    return generated(1)


@pytest.fixture(scope="module")
def rows(made: list[Instance]) -> dict[Level, list[oracle.Row]]:
    return oracle.held(made)


@pytest.fixture(scope="module")
def index(made: list[Instance], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Index.open(tmp_path_factory.mktemp("search") / "index", map_size=MAP) as opened:
        for start in range(0, len(made), 500):
            opened.commit([one.entry for one in made[start : start + 500]])
        assert list(opened.check()) == []
        yield opened


# --- queries ----------------------------------------------------------------------------------------------

ASKED = [
    *("PatientID", "PatientID", "IssuerOfPatientID", "PatientName", "PatientName", "PatientName"),
    *("PatientSex", "PatientBirthDate", "PatientComments", "StudyDate", "StudyDate", "StudyTime"),
    *("StudyInstanceUID", "AccessionNumber", "StudyID", "StudyDescription", "PatientWeight"),
    *("ReferringPhysicianName", "ReferringPhysicianName"),
    *("ModalitiesInStudy", "ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedInstances"),
    *("SeriesInstanceUID", "Modality", "Modality", "SeriesNumber", "SeriesDescription", "OperatorsName"),
    *("NumberOfSeriesRelatedInstances", "NumberOfPatientRelatedStudies", "AcquisitionNumber"),
    *("SOPInstanceUID", "ContentTime", "ImageType", "AcquisitionDateTime", "Rows", "InstanceNumber"),
]  # fmt: skip
NEGOTIATED = [
    *(Negotiated(), Negotiated(), Negotiated(empty=True), Negotiated(empty=True, multiple=True)),
    *(Negotiated(fuzzy=True), Negotiated(fuzzy=True)),
]
DAYS = ["StudyDate", "PatientBirthDate", "ContentDate"]


def asked(dice: random.Random, known: list[str], vr: str) -> str:
    """What a key may say: something that is there, more or less."""
    text = dice.choice(known)
    at, other = sorted(dice.randrange(len(text) + 1) for _ in range(2))
    forms = [
        lambda: text,
        lambda: text,
        lambda: dice.choice([text.upper(), text.casefold(), text.swapcase()]),
        lambda: text[:other] + "*",
        lambda: "*" + text[at:other] + "*",
        lambda: text[:at] + "?" + text[at + 1 :],
        lambda: text[:at] + "*" + text[other:],
        lambda: f" {text}  ",
        lambda: f"{text}\\{dice.choice(known)}",
        lambda: "=".join([text.split("=")[0][:other] + "*", *text.split("=")[1:]]),
        lambda: '""',
        lambda: dice.choice(["", "*", "=", "^", "?*", "nothing", "\\"]),
    ]
    if vr in ("DA", "TM", "DT"):
        end = dice.choice(known)
        forms += [
            lambda: f"{min(text, end)}-{max(text, end)}",
            lambda: f"{text[:other]}-",
            lambda: f"-{text}",
        ] * 3
    return dice.choice(forms)()


def asked_of_items(dice: random.Random, known: list[str]) -> Key:
    """A sequence key, of attributes that the items of one series may have."""
    item = dice.choice([{}, *json.loads(dice.choice(known))])
    keys = tuple(
        key_of(tag, vr, asked(dice, [item.get(str(tag)) or "1"], vr), dice.choice(NEGOTIATED))
        for tag, vr in dice.sample(ITEMS[REQUESTS], dice.randrange(4))
    )
    matches_all = all(key.matching is Matching.UNIVERSAL for key in keys)
    return Key(REQUESTS, "SQ", Matching.UNIVERSAL if matches_all else Matching.SEQUENCE, keys=keys)


def queries(rows: dict[Level, list[oracle.Row]], seed: int, count: int) -> Iterator[Query]:
    dice = random.Random(seed)
    known: dict[int, list[str]] = {}
    for row in rows[Level.IMAGE]:
        for tag, value in row.items():
            known.setdefault(tag, []).append(value)
    for _ in range(count):
        keys: list[Key] = []
        for keyword in dict.fromkeys(dice.choices(ASKED, k=dice.choice([1, 1, 1, 2, 2, 3]))):
            tag = dictionary.tag_of(keyword)
            vr = dictionary.vr_of(tag)
            text = asked(dice, known.get(tag, ["1"]), vr)
            keys.append(key_of(tag, vr, text, dice.choice(NEGOTIATED)))
        if dice.random() < 0.2:
            keys.append(asked_of_items(dice, known[REQUESTS]))
        if dice.random() < 0.1:
            keys.append(one_range(dice, dice.choice(DAYS)))
        level = dice.choice([Level.PATIENT, Level.STUDY, Level.STUDY, Level.SERIES, Level.IMAGE])
        yield Query(level, tuple(keys), relational=True, tags=frozenset(key.tag for key in keys))


def one_range(dice: random.Random, keyword: str) -> Key:
    """The key of a date, with its time."""
    first, last = sorted((dice.choice(DATES[5:]), dice.choice(["10", "101112", "1200"])) for _ in range(2))
    form = dice.choice(["{0}-{1}", "{0}-", "-{1}"])
    ends = zip(first, last, strict=True)
    date, time = (form.format(*pair) for pair in ends)
    asked = identifier_of({keyword: date, keyword.replace("Date", "Time"): time})
    combined = query_of(asked, Level.STUDY, Level.STUDY, Negotiated(combined=True)).keys[0]
    assert combined.matching is Matching.COMBINED
    return combined


def told(found: list[dict[int, str]]) -> list[list[tuple[int, str]]]:
    """Rows in an order of their own, without what is empty, and sequences, which are no text."""
    return sorted(
        sorted((tag, value) for tag, value in row.items() if value and tag != REQUESTS) for row in found
    )


def test_every_plan_gives_the_oracle_s_answer(
    index: Index, rows: dict[Level, list[oracle.Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONFORMANCE 16 to 20, 22, 24."""
    plans: dict[str, int] = {}
    monkeypatch.setattr(ranges, "_THREADS", 3)
    for number, query in enumerate(queries(rows, seed=2, count=QUERIES)):
        monkeypatch.setattr(ranges, "_KEYS", (7, 20_000)[number % 2])  # long walks, and short ones
        expected = told(oracle.answer(query, rows[query.level]))
        search = index.search(query)
        assert told(list(search.rows())) == expected, (number, search.explain())
        for driver in plan.drivers(index.environment, index.layout, query):
            plans[driver.why.split()[0]] = plans.get(driver.why.split()[0], 0) + 1
            search.driver = driver
            assert told(list(search.rows())) == expected, (number, search.explain())
    assert plans.keys() == {"every", "keys", "all", "unique", "empty"}
    assert min(plans.values()) > QUERIES // 200


# --- what else a search is --------------------------------------------------------------------------------


def asks(level: Level, **texts: str) -> Query:
    """A relational query for attributes by keyword."""
    tags = {dictionary.tag_of(keyword): text for keyword, text in texts.items()}
    keys = tuple(key_of(tag, dictionary.vr_of(tag), text) for tag, text in tags.items())
    return Query(level, keys, relational=True, tags=frozenset(tags))


@pytest.mark.parametrize(
    ("chunk", "most", "threads"), [(1, 20_000, 1), (2, 1, 1), (7, 5, 3), (512, 1, 2), (512, 40, 4)]
)
def test_walks_are_resumed_at_every_border(
    index: Index,
    rows: dict[Level, list[oracle.Row]],
    chunk: int,
    most: int,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranges, "_FIRST", chunk)
    monkeypatch.setattr(ranges, "_CHUNK", chunk)
    monkeypatch.setattr(ranges, "_KEYS", most)
    monkeypatch.setattr(ranges, "_THREADS", threads)
    for query in (
        asks(Level.STUDY, StudyDate="20240101-20240615"),
        asks(Level.PATIENT, PatientName="*o*\\yam*"),
        asks(Level.PATIENT, PatientName="*MI*"),
        asks(Level.STUDY, PatientID="*1"),
        asks(Level.SERIES, Modality="MR\\CT", StudyDate="2024-"),
        asks(Level.STUDY, StudyDescription="Thorax"),
    ):
        search = index.search(query)
        assert search.driver.ranges
        assert told(list(search.rows())) == told(oracle.answer(query, rows[query.level]))


def test_a_long_walk_ends_when_nobody_reads_on(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads are gone, and the index can be closed."""
    monkeypatch.setattr(ranges, "_KEYS", 3)
    monkeypatch.setattr(ranges, "_THREADS", 3)
    walk = index.search(asks(Level.PATIENT, PatientName="*MI*")).ids()
    assert len([next(walk) for _ in range(3)]) == 3
    assert any(thread.name.startswith("keys") for thread in threading.enumerate())
    walk.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("keys") for thread in threading.enumerate())


def test_a_failure_in_a_thread_of_a_long_walk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_KEYS", 1)
    monkeypatch.setattr(ranges, "_THREADS", 2)
    with Index.open(tmp_path / "index", map_size=MAP) as index:
        index.commit([one.entry for number in range(40) for one in whole(number)])
        walk = ranges.walked(
            index.environment, index.search(asks(Level.PATIENT, PatientID="*P1*\\*P3*")).driver
        )
        assert len(next(walk)) == 1
    with pytest.raises(ArchiveError, match="closed"):
        list(walk)


def test_responses_are_the_rows(index: Index) -> None:
    query = asks(Level.SERIES, Modality="CT", PatientName="*")
    tags = [BY_KEYWORD[keyword] for keyword in ("Modality", "PatientName", "SeriesInstanceUID")]
    search = index.search(query)
    parts = [(one.tag, one.vr, None) for one in tags]
    found = [response for chunk in search.responses(parts, implicit=True) for response in chunk]
    assert len(found) == len(list(search.rows()))
    for response, row in zip(found, search.rows(), strict=True):
        values = [row.get(one.tag, "") for one in tags]
        assert all(value.encode() in response for value in values)
        assert response.startswith(b"\x08\0\x05\0\x0a\0\0\0ISO_IR 192") is not "".join(values).isascii()


@pytest.mark.parametrize("implicit", [False, True])
def test_items_that_match_are_told_with_what_was_asked(
    index: Index, rows: dict[Level, list[oracle.Row]], implicit: bool
) -> None:
    """PS3.4 C.2.2.2.6."""
    dice = random.Random(5)
    known = [row.get(REQUESTS, "[]") for row in rows[Level.SERIES]]
    told_items = 0
    for _ in range(60):
        key = asked_of_items(dice, known)
        wanted = {one.tag for one in key.keys} or {tag for tag, _ in ITEMS[REQUESTS]}
        query = Query(Level.SERIES, (key,), relational=True, tags=frozenset({REQUESTS}))
        search = index.search(query)
        responses = search.responses([(0x0020_000E, "UI", None), search.part(REQUESTS)], implicit=implicit)
        found = []
        for response in (one for chunk in responses for one in chunk):
            match = read_dataset(response, "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1")
            items = match["RequestAttributesSequence"]
            assert all({element.tag for element in item} == wanted for item in items)
            told_items += len(items)
            found.append(
                (
                    str(match.get("SeriesInstanceUID") or ""),
                    [
                        {e.tag: text for e in item if (text := "\\".join(map(str, e.values)))}
                        for item in items
                    ],
                )
            )
        expected = [
            (
                row.get(0x0020_000E, ""),
                [
                    {int(tag): text for tag, text in item.items() if int(tag) in wanted}
                    for item in json.loads(row.get(REQUESTS, "[]"))
                    if all(oracle.matches(one, item.get(str(one.tag), ""), nested=True) for one in key.keys)
                ],
            )
            for row in oracle.answer(query, rows[Level.SERIES])
        ]
        assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert told_items > 100


def test_plans_in_words(index: Index) -> None:
    def why(level: Level, **texts: str) -> list[str]:
        return index.search(asks(level, **texts)).explain().splitlines()

    assert why(Level.STUDY, StudyInstanceUID="1.2.3", PatientName="Doe*") == [
        "walks unique key StudyInstanceUID=1.2.3 (level STUDY)",
        "tests StudyInstanceUID=1.2.3, PatientName=Doe*",
    ]
    assert why(Level.SERIES, Modality="CT", StudyDate="20240102")[0] == (
        "walks keys of Modality=CT with StudyDate=20240102 (level STUDY)"
    )
    assert why(Level.PATIENT, PatientName="*x*")[0] == "walks all keys of PatientName=*x* (level PATIENT)"
    assert why(Level.PATIENT, PatientID="P4*")[0] == "walks keys of PatientID=P4* (level PATIENT)"
    name = key_of(0x0010_0010, "PN", "jane", Negotiated(fuzzy=True))
    assert index.search(Query(Level.PATIENT, (name,))).explain().splitlines() == [
        "walks all keys of PatientName~jane (level PATIENT)",
        "tests PatientName~jane",
    ]
    asked = identifier_of({"StudyDate": "20240101-", "StudyTime": "10-"})
    query = query_of(asked, Level.STUDY, Level.STUDY, Negotiated(combined=True))
    assert index.search(query).explain().splitlines() == [
        "walks keys of StudyDate=20240101- (level STUDY)",
        "tests StudyDate+StudyTime=2024010110-",
    ]
    assert why(Level.STUDY, StudyTime="10-") == [
        "walks every record of level STUDY (level STUDY)",
        "tests StudyTime=10-",
    ]
    assert why(Level.STUDY, Modality="CT") == [
        "walks every record of level STUDY (level STUDY)",
        "tests nothing",
        "not in the index: 00080060",
    ]


@pytest.mark.parametrize(
    ("level", "texts", "count"),
    [
        (Level.PATIENT, {"PatientName": "*ro?^an*"}, 1),  # keys have ß as two letters
        (Level.PATIENT, {"PatientName": "?ro?^an*"}, 1),
        (Level.PATIENT, {"PatientName": "*oe^*"}, 3),  # and no components that are empty
        (Level.PATIENT, {"PatientName": "*o?^?*"}, 4),
        (Level.PATIENT, {"PatientName": "*=*田^*=やまだ"}, 1),
        (Level.PATIENT, {"PatientName": "==やま*"}, 1),
        (Level.PATIENT, {"PatientID": "*2"}, 1),
        (Level.PATIENT, {"PatientBirthDate": "2024.01.02"}, 1),
        (Level.PATIENT, {"PatientBirthDate": "2024.01.01-2024.01.03"}, 2),
        (Level.PATIENT, {"PatientBirthDate": "2024.1.1-2024.1.3"}, 0),
        (Level.STUDY, {"ModalitiesInStudy": "CT", "StudyDate": "20240203"}, 1),
        (Level.STUDY, {"ModalitiesInStudy": "SR", "StudyDate": "20240203"}, 0),
        (Level.STUDY, {"ModalitiesInStudy": "SR", "StudyDate": "20240301-"}, 1),
        (Level.SERIES, {"Modality": "SR"}, 1),
        (Level.SERIES, {"Modality": "M" * 70}, 1),
        (Level.STUDY, {"ModalitiesInStudy": "M" * 70}, 1),
        (Level.STUDY, {"StudyDescription": "x" * 250 + "y"}, 1),
        (Level.STUDY, {"StudyDescription": "x" * 249 + "*y"}, 1),
        (Level.STUDY, {"StudyDescription": "*y"}, 1),
    ],
)
def test_where_keys_and_records_differ(
    tmp_path: Path, level: Level, texts: dict[str, str], count: int
) -> None:
    """Keys are folded, cut, of one value each; whatever drives, the answer is that of the records."""
    several = {"StudyDate": "20240101\\20240203", "Modality": "CT"}
    people = [
        {"PatientName": "Groß^Anna", "PatientBirthDate": "20240102"} | several,
        {
            "PatientName": "DOE",
            "PatientBirthDate": "2024.01.03",
            "StudyDate": "20240302",
            "Modality": "CT\\SR",
        },
        {"PatientName": "Yamada=山田^太郎=やまだ", "PatientBirthDate": "2023", "Modality": "M" * 70},
        {"PatientName": "Roe", "PatientBirthDate": "", "StudyDescription": "x" * 250},
        {"PatientName": "Poe^J", "PatientBirthDate": "20240202", "StudyDescription": "x" * 250 + "y"},
    ]
    with Index.open(tmp_path / "index", map_size=MAP) as index:
        held = [
            instance(number, PatientID=f"P{number}", StudyInstanceUID=f"1.{number}", **one)
            for number, one in enumerate(people)
        ]
        index.commit([one.entry for one in held])
        query = asks(level, **texts)
        expected = told(oracle.answer(query, oracle.held(held)[level]))
        assert len(expected) == count
        search = index.search(query)
        for driver in plan.drivers(index.environment, index.layout, query):
            search.driver = driver
            assert told(list(search.rows())) == expected, search.explain()


def test_a_uid_that_many_things_have_is_looked_up_whole(tmp_path: Path) -> None:
    with Index.open(tmp_path / "index", map_size=MAP) as index:
        index.commit([instance(1, StudyInstanceUID="1.2\\3").entry, instance(2, StudyInstanceUID="3").entry])
        for uid, count in (("3", 1), ("1.2", 0)):
            query = asks(Level.STUDY, StudyInstanceUID=uid)
            search = index.search(query)
            for driver in plan.drivers(index.environment, index.layout, query):
                search.driver = driver
                assert len(list(search.rows())) == count


def test_22_several_modalities_are_any_or_all(tmp_path: Path) -> None:
    identifier = Dataset(
        ModalitiesInStudy=["CT", "PT"], ImageType=["A", "B"], StudyDate=["20240101", "20240102"]
    )
    both = {0x0008_0061, 0x0008_0008}
    for negotiated, several in ((Negotiated(), set()), (Negotiated(multiple=True), both)):
        query = query_of(identifier, Level.STUDY, Level.STUDY, negotiated)
        tags = [key.tag for key in query.keys]
        assert {tag for tag in tags if tags.count(tag) > 1} == several
    with Index.open(tmp_path / "index", map_size=MAP) as index:
        held = [("1", "CT"), ("1", "PT"), ("2", "CT"), ("3", "PT"), ("3", "CT"), ("4", "MR")]
        for number, (study, modality) in enumerate(held):
            one = instance(number, StudyInstanceUID=study, SeriesInstanceUID=f"{number}", Modality=modality)
            index.commit([one.entry])
        for negotiated, studies in ((Negotiated(), "123"), (Negotiated(multiple=True), "13")):
            asked = Dataset(ModalitiesInStudy=["CT", "PT"])
            query = query_of(asked, Level.STUDY, Level.STUDY, negotiated)
            assert sorted(row[0x0020_000D] for row in index.search(query).rows()) == list(studies)


def test_18_date_and_time_are_one_range_in_sequences_and_data_sets_too() -> None:
    """What no index holds: the steps of a worklist, and what instances say."""
    step = {
        "ScheduledProcedureStepStartDate": "20240101-20240103",
        "ScheduledProcedureStepStartTime": "10-12",
    }
    asked = identifier_of({"ScheduledProcedureStepSequence": step})
    for negotiated, found in ((Negotiated(), False), (Negotiated(combined=True), True)):
        matches = Filter(query_of(asked, Level.STUDY, Level.STUDY, negotiated).keys)
        item = Dataset(ScheduledProcedureStepStartDate="20240102", ScheduledProcedureStepStartTime="1800")
        assert matches(Dataset(ScheduledProcedureStepSequence=[item])) is found


def test_18_moments_of_a_key_are_in_the_time_zone_of_the_identifier() -> None:
    def found(zone: str, key: str, value: str) -> bool:
        asked = identifier_of({"AcquisitionDateTime": key, "TimezoneOffsetFromUTC": zone})
        query = query_of(asked, Level.IMAGE, Level.STUDY, Negotiated(relational=True))
        assert [one.tag for one in query.keys] == [0x0008_002A]
        return Filter(query.keys)(Dataset(AcquisitionDateTime=value))

    assert found("", "2024010112-2024010113", "2024010112+0000")
    assert not found("+0500", "2024010112-2024010113", "2024010112+0000")
    assert found("+0500", "2024010117-", "2024010112+0000")
    assert found("+0500", "2024010112+0000-2024010113", "2024010112+0000") is False
    assert found("+0500", "2024010112", "2024010112")  # a value without one tells its own clock


def test_sequences_are_of_one_item() -> None:
    item = Dataset(ScheduledProcedureStepID="1")
    query = query_of(Dataset(RequestAttributesSequence=[item]), Level.STUDY, Level.STUDY)
    assert [key.matching for key in query.keys] == [Matching.SEQUENCE]
    empty = query_of(Dataset(RequestAttributesSequence=[Dataset()]), Level.STUDY, Level.STUDY)
    assert [key.matching for key in empty.keys] == [Matching.UNIVERSAL]
    with pytest.raises(IdentifierError, match="one item"):
        query_of(Dataset(RequestAttributesSequence=[item, item]), Level.STUDY, Level.STUDY)


# --- while others write -----------------------------------------------------------------------------------


def whole(number: int) -> list[Instance]:
    """A study of two series of three instances each."""
    return [
        instance(
            number * 6 + at,
            StudyInstanceUID=f"1.9.{number}",
            SeriesInstanceUID=f"2.9.{number}.{at // 3}",
            Modality=("CT", "PT")[at // 3],
            PatientID=f"P{number}",
            PatientName=f"Doe^{number % 10}",
        )
        for at in range(6)
    ]


def test_searches_see_whole_studies_while_others_write(tmp_path: Path) -> None:
    """Each study is committed and removed at once: what is found of it is never a part, and nothing twice."""
    stop = threading.Event()
    failed: list[BaseException] = []
    lasting = 40

    def write(index: Index) -> None:
        try:
            for number in range(lasting, 100_000):
                if stop.is_set():
                    return
                index.commit([one.entry for one in whole(number)])
                if number > lasting + 30:
                    with index.exclusive():
                        index.remove([one.uid for one in whole(number - 30)])
        except BaseException as exc:  # noqa: BLE001 - told below
            failed.append(exc)

    with Index.open(tmp_path / "index", map_size=MAP) as index:
        for number in range(lasting):
            index.commit([one.entry for one in whole(number)])
        writer = threading.Thread(target=write, args=(index,))
        writer.start()
        try:
            for _ in range(60):
                for query in (
                    asks(Level.STUDY, PatientName="doe^*"),
                    asks(Level.STUDY, PatientName="*oe*"),
                    asks(Level.STUDY, StudyDate="20240102"),
                    asks(Level.STUDY, PatientSex=""),
                ):
                    found = list(index.search(query).rows())
                    uids = [row[0x0020_000D] for row in found]
                    assert len(set(uids)) == len(uids)
                    assert {f"1.9.{number}" for number in range(lasting)} <= set(uids)
                    assert {(row[0x0020_1206], row[0x0020_1208]) for row in found} == {("2", "6")}
                    assert {row[0x0008_0061] for row in found} == {"CT\\PT"}
        finally:
            stop.set()
            writer.join()
        assert failed == []
        assert list(index.check()) == []


def test_what_has_gone_since_its_id_was_read_is_passed_over(tmp_path: Path) -> None:
    with Index.open(tmp_path / "index", map_size=MAP) as index:
        index.commit([one.entry for number in range(3) for one in whole(number)])
        (ids,) = index.all_of(Level.STUDY)
        index.remove([one.uid for one in whole(1)])
        sieve = Sieve(index.layout, Level.STUDY, Matcher([]), (), ())
        assert sieve.sift(index.environment, ids) == [ids[0], ids[2]]


def test_a_search_is_made_when_it_is_asked_for(index: Index) -> None:
    search = index.search(asks(Level.IMAGE, SOPInstanceUID="9.1\\9.2"))
    assert isinstance(search, Search)
    assert search.looked_at == 0
    assert sum(map(len, search.ids())) == 2
    assert search.looked_at == 2


def test_hostile_patterns_are_planned_in_bounded_time(index: Index) -> None:
    for pattern in ("*^" * 30_000 + "a", "?" * 60_000 + "*", "*a^" * 20_000, "*" + "=^" * 30_000 + "x"):
        began = time.process_time()
        list(index.search(asks(Level.PATIENT, PatientName=pattern)).ids())
        assert time.process_time() - began < 2


def test_children_of_many_are_resumed(tmp_path: Path) -> None:
    """What comes below a parent that was read already is found before the walk ends."""
    with Index.open(tmp_path / "index", map_size=MAP) as index:
        index.commit([one.entry for number in range(4) for one in whole(number)])
        (studies,) = index.all_of(Level.STUDY)
        found: list[int] = []
        after = [0] * len(studies)
        while (step := browse.children(index.environment, studies, after, 3))[0]:
            ids, after = step
            assert len(ids) <= 3
            found += ids
            if len(found) == 6:
                index.commit([instance(999, StudyInstanceUID="1.9.0", SeriesInstanceUID="2.9.9").entry])
        assert len(found) == len(set(found)) == 9
        with pytest.raises(ValueError, match="each parent"):
            browse.children(index.environment, studies, [0])
