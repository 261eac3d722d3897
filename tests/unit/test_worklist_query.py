"""What a query on the worklist finds and tells: the oracle's answer, whatever drives the search."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import query_oracle as oracle

from pacs_core import Archive
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.query import Key, Matching, keys_of
from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacs_core.dicom.worklist import FINISHED, identifier_of
from pacs_core.errors import IdentifierError, PacsError
from pacs_core.workflow import Worklist
from pacs_core.workflow.state import STEP
from pacs_core.workflow.worklist import advance

QUERIES = int(os.environ.get("PACS_CORE_QUERIES", "300"))
STEPS = 200
SEQUENCE, STEP_ID, STATUS = 0x0040_0100, 0x0040_0009, 0x0040_0020
DATE, TIME = 0x0040_0002, 0x0040_0003

NAMES = (
    "Doe^Jane",
    "DOE^John",
    "Müller^Jürgen",
    "Groß^A",
    "Yamada^Tarou=山田^太郎=やまだ",
    "=鈴木",
    "Smithers",
    "Ω",
)
STATIONS = ("CT1", "CT2", "MR1", "CT1\\CT2", "ct1")
MODALITIES = ("CT", "MR", "US")
DAYS = tuple(f"202601{day:02}" for day in range(1, 13))
CLOCKS = ("000000", "08", "0930", "093000", "101112.5", "235959.999999", "1800")
STATUSES = ("SCHEDULED", "ARRIVED", "STARTED", "COMPLETED", "DISCONTINUED")
CODES = ("A", "B", "C")


def made(random: random.Random, number: int) -> dict[str, Any]:
    return {
        "PatientName": random.choice(NAMES),
        "PatientID": f"P{random.randrange(60)}",
        "PatientBirthDate": random.choice(("", "19700101", "19800202")),
        "PatientWeight": random.choice(("", "80", "80.0", "75.5")),
        "PregnancyStatus": random.choice((None, 1, 4)),
        "AccessionNumber": random.choice(("", f"A{number}", "A" * 250)),
        "StudyInstanceUID": f"1.2.{number // 2}",
        "RequestedProcedureID": f"R{number % 50}",
        "RequestedProcedureCodeSequence": [
            {"CodeValue": code, "CodeMeaning": f"of {code}"}
            for code in random.sample(CODES, random.randrange(3))
        ],
        "Modality": random.choice(MODALITIES),
        "ScheduledStationAETitle": random.choice(STATIONS),
        "ScheduledProcedureStepStartDate": random.choice(DAYS),
        "ScheduledProcedureStepStartTime": random.choice(CLOCKS),
        "ScheduledProcedureStepDescription": random.choice(("Head", "Thorax, p.a.", "頭部")),
        "ScheduledPerformingPhysicianName": random.choice(("", *NAMES)),
        "ScheduledProcedureStepStatus": random.choice(STATUSES),
        "ScheduledProcedureStepID": f"S{number}",
    }


@pytest.fixture(scope="module")
def worklist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worklist]:
    source = random.Random(6)
    with Archive.open(tmp_path_factory.mktemp("worklist") / "archive") as archive:
        archive.worklist.schedule_all(made(source, number) for number in range(STEPS))
        yield archive.worklist


# --- the rules, written down a second time ----------------------------------------------------------------

Row = dict[int, Any]
"""Text by tag, of a sequence rows."""


@pytest.fixture(scope="module")
def rows(worklist: Worklist) -> list[Row]:
    return [row_of(one) for one in worklist]


def row_of(dataset: Dataset) -> Row:
    return {
        element.tag: [row_of(item) for item in element.value]
        if element.vr == "SQ"
        else "\\".join(str(getattr(value, "text", value)) for value in element.values)
        for element in dataset
    }


def expected(rows: list[Row], identifier: Dataset) -> list[str]:
    """The IDs of the steps that match, by their start."""
    keys = keys_of(identifier)
    asked = identifier.get(SEQUENCE)
    status = bool(asked and len(asked) and asked[0].get(STATUS))
    return [
        row[SEQUENCE][0][STEP_ID]
        for row in rows
        if fits(keys, row) and (status or row[SEQUENCE][0][STATUS] not in FINISHED)
    ]


def fits(keys: tuple[Key, ...], row: Row) -> bool:
    ranges = {key.tag: key for key in keys if key.matching is Matching.RANGE}
    combined = DATE in ranges and TIME in ranges
    if combined:
        days, clocks = ranges[DATE].values, ranges[TIME].values
        ends = tuple(day + clock if day else "" for day, clock in zip(days, clocks, strict=True))
        if not oracle.matches(Key(0, "DT", Matching.RANGE, ends), row[DATE] + row[TIME]):
            return False
    for key in keys:
        if key.matching is Matching.SEQUENCE:
            if not any(fits(key.keys, item) for item in row.get(key.tag, ())):
                return False
        elif key.matching is Matching.UNIVERSAL or (combined and key.tag == TIME):
            continue
        elif not oracle.matches(key, row.get(key.tag, "")):
            return False
    return True


# --- against them -----------------------------------------------------------------------------------------


def asked(source: random.Random) -> Dataset:
    """Some keys, of values that there are, or nearly."""
    likely: dict[str, tuple[str, ...]] = {
        "PatientName": (*NAMES, "doe*", "D?E^*", "*ller*", "m*", "Doe", "=鈴木", "*", "山*", "yamada*=山田*"),
        "PatientID": ("P7", "P1*", "P?", "P7\\P8", "none", "*9"),
        "PatientBirthDate": ("19700101", "-19751231", "1970*"),
        "PatientWeight": ("80", "80.00"),
        "PregnancyStatus": ("4",),
        "AccessionNumber": ("A7", "A1*", "A" * 250, "A" * 249),
        "StudyInstanceUID": ("1.2.7", "1.2.7\\1.2.8", "1.2"),
        "RequestedProcedureID": ("R7", "R1*"),
        "RequestedProcedureCodeSequence.0.CodeValue": (*CODES, "D"),
        "Modality": (*MODALITIES, "CT\\MR", "C*"),
        "ScheduledStationAETitle": (*STATIONS, "CT?", "XX"),
        "ScheduledProcedureStepStartDate": (
            *(DAYS[3], "20260103-20260105", "20260106-", "-20260102", "2026", "20260104\\20260105"),
        ),
        "ScheduledProcedureStepStartTime": ("0930", "09-10", "1000-", "-0930", "08-18", "noon"),
        "ScheduledPerformingPhysicianName": ("müller^*", "Doe^Jane", "nobody"),
        "ScheduledProcedureStepStatus": (*STATUSES, "*", "STARTED\\COMPLETED"),
        "ScheduledProcedureStepID": ("S7", "S1*"),
    }
    chosen = source.sample(list(likely), source.choice((0, 1, 1, 2, 2, 3, 5)))
    keys = {key: source.choice(likely[key]) for key in chosen}
    keys |= {key: "" for key in source.sample(list(likely), 3) if key not in keys}
    return identifier_of(keys)


def found(worklist: Worklist, identifier: Dataset, *, implicit: bool = False) -> list[Dataset]:
    syntax = IMPLICIT_VR_LITTLE_ENDIAN if implicit else EXPLICIT_VR_LITTLE_ENDIAN
    chunks = worklist.select(identifier).responses(implicit=implicit)
    return [read_dataset(response, syntax) for chunk in chunks for response in chunk]


def ids(worklist: Worklist, identifier: Dataset) -> list[str]:
    syntax = EXPLICIT_VR_LITTLE_ENDIAN
    records = [read_dataset(one, syntax) for chunk in worklist.select(identifier).records() for one in chunk]
    return [one.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for one in records]


@pytest.mark.parametrize("seed", range(6))
def test_32_what_matches_is_what_the_rules_say(worklist: Worklist, rows: list[Row], seed: int) -> None:
    source = random.Random(seed)
    matched = 0
    for _ in range(QUERIES // 6):
        identifier = asked(source)
        wanted = expected(rows, identifier)
        assert sorted(ids(worklist, identifier)) == sorted(wanted), str(identifier)
        assert len(found(worklist, identifier)) == len(wanted)
        matched += bool(wanted)
    assert matched > QUERIES // 30


def test_32_all_are_found_in_the_order_of_their_start_chunk_after_chunk(
    worklist: Worklist, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = identifier_of({"ScheduledProcedureStepStatus": "*"})
    for size in (1, 7, STEPS):
        monkeypatch.setattr("pacs_core.workflow.selection._FIRST", size)
        monkeypatch.setattr("pacs_core.workflow.selection._CHUNK", size)
        assert ids(worklist, everything) == expected(rows, everything)


def test_32_the_fewest_keys_are_walked(worklist: Worklist) -> None:
    def walked(**keys: str) -> bytes:
        [one] = worklist.select(identifier_of(keys)).ranges
        return one.start

    day = {"ScheduledProcedureStepStartDate": "20260103"}
    assert walked(**day, Modality="CT") == b"m\x01CT\x0020260103"
    assert walked(**day, ScheduledStationAETitle="MR1") == b"s\x01MR1\x0020260103"
    assert walked(Modality="CT", PatientID="P7") == b"p\x01P7\0"
    assert walked(PatientName="SMITH*", Modality="CT") == b"n\x01smith"
    assert walked(AccessionNumber="A7", PatientName="*") == b"a\x01A7\0"
    assert walked(PatientName="*oe") == b""


# --- what is told -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("implicit", [False, True])
def test_21_a_response_holds_the_keys_and_the_study(worklist: Worklist, implicit: bool) -> None:
    identifier = identifier_of(
        {
            "AccessionNumber": "",
            "PatientComments": "",
            "PregnancyStatus": None,
            "RequestedProcedureCodeSequence.0.CodeValue": "",
            "ReferencedStudySequence": None,
            "Modality": "",
            "ScheduledProtocolCodeSequence": None,
            "ScheduledProcedureStepID": "S8",
            "ScheduledProcedureStepStatus": "*",
        }
    )
    [told] = found(worklist, identifier, implicit=implicit)
    kept = worklist.get(("1.2.4", "S8"))
    assert [element.keyword for element in told] == [
        *("AccessionNumber", "ReferencedStudySequence", "PregnancyStatus", "PatientComments"),
        *("StudyInstanceUID", "RequestedProcedureCodeSequence", "ScheduledProcedureStepSequence"),
    ]
    assert told.StudyInstanceUID == "1.2.4"
    assert told.AccessionNumber == kept.AccessionNumber
    assert told.PregnancyStatus == kept.get("PregnancyStatus")
    assert (told.PatientComments, list(told.ReferencedStudySequence)) == ("", [])
    codes = [code.CodeValue for code in kept.RequestedProcedureCodeSequence]
    assert [[str(e.value) for e in item] for item in told.RequestedProcedureCodeSequence] == [
        [c] for c in codes
    ]
    [step] = told.ScheduledProcedureStepSequence
    assert [element.keyword for element in step] == [
        *(
            "Modality",
            "ScheduledProtocolCodeSequence",
            "ScheduledProcedureStepID",
            "ScheduledProcedureStepStatus",
        )
    ]
    assert step.Modality == kept.ScheduledProcedureStepSequence[0].Modality


@pytest.mark.parametrize("implicit", [False, True])
def test_a_sequence_that_is_asked_for_as_such_is_told_whole(worklist: Worklist, implicit: bool) -> None:
    asked = Dataset(PatientID="P7", RequestedProcedureCodeSequence=[], ScheduledProcedureStepSequence=[])
    told = found(worklist, asked, implicit=implicit)
    assert told
    for one in told:
        step = one.ScheduledProcedureStepSequence[0]
        kept = worklist.get((one.StudyInstanceUID, step.ScheduledProcedureStepID))
        assert row_of(step) == row_of(kept.ScheduledProcedureStepSequence[0])
        assert row_of(one)[0x0032_1064] == row_of(kept)[0x0032_1064]


def test_21_the_character_set_is_told_only_if_it_is_needed(worklist: Worklist) -> None:
    keys = {"PatientName": "", "ScheduledProcedureStepDescription": "", "ScheduledProcedureStepStatus": "*"}
    for told in found(worklist, identifier_of(keys)):
        ascii_only = (
            f"{told.PatientName}{told.ScheduledProcedureStepSequence[0].ScheduledProcedureStepDescription}"
        )
        assert ("SpecificCharacterSet" in told) == (not ascii_only.isascii())
        assert told.get("SpecificCharacterSet", "ISO_IR 192") == "ISO_IR 192"
    assert all(
        "SpecificCharacterSet" not in told for told in found(worklist, identifier_of({"PatientID": ""}))
    )


def test_21_private_keys_and_bulk_data_are_neither_matched_nor_told(worklist: Worklist) -> None:
    identifier = identifier_of({"PatientID": "P7"})
    plain = len(found(worklist, identifier))
    identifier.set((0x0009, "SOMEBODY", 0x01), "x", "LO")
    identifier.set(0x7FE0_0010, b"", "OB")
    selection = worklist.select(identifier)
    assert selection.unsupported == {0x0009_0010, 0x0009_1001, 0x7FE0_0010}
    told = found(worklist, identifier)
    assert len(told) == plain > 0
    assert all(element.tag in (0x0010_0020, 0x0020_000D) for one in told for element in one)


def test_19_a_sequence_key_has_one_item(worklist: Worklist) -> None:
    with pytest.raises(IdentifierError):
        worklist.select(Dataset(ScheduledProcedureStepSequence=[{"Modality": "CT"}, {"Modality": "MR"}]))


def test_32_what_is_over_is_offered_only_to_who_asks_for_the_status(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        worklist = archive.worklist
        keys = made(random.Random(1), 0) | {"ScheduledProcedureStepStatus": "SCHEDULED"}
        [name] = worklist.schedule(keys)

        def offered(status: str | None) -> int:
            asked = {"PatientID": ""} if status is None else {"ScheduledProcedureStepStatus": status}
            return len(list(worklist.search(asked)))

        assert [offered(one) for one in (None, "", "*", "SCHEDULED", "STARTED")] == [1, 1, 1, 1, 0]
        archive.state.change(lambda change: advance(change, [name], "STARTED"))
        assert [offered(one) for one in (None, "", "*", "SCHEDULED", "STARTED")] == [1, 1, 1, 0, 1]
        for over in ("COMPLETED", "DISCONTINUED"):
            archive.state.change(lambda change, over=over: advance(change, [name], over))
            assert [offered(one) for one in (None, "", "*", "SCHEDULED", over)] == [0, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("vr", "value", "key", "other"),
    [
        *[(vr, (7, 12), "12", "8") for vr in ("US", "UL", "UV")],
        *[(vr, (-7, 12), "-7", "7") for vr in ("SS", "SL", "SV")],
        *[(vr, (0.1, -2.5e9), "-2.5e9", "-2.6e9") for vr in ("FL", "FD")],
        ("AT", (0x0010_0020, 0x0040_A043), "0040A043", "00100021"),
        ("DS", "1.50", "1.5", "1.51"),
        ("LT", "one\\text", "one\\text", "one"),
    ],
)
def test_values_of_every_kind_match_and_are_told(
    tmp_path: Path, vr: str, value: object, key: str, other: str
) -> None:
    keyword = f"Selector{vr}Value"
    plain = made(random.Random(1), 0) | {"ScheduledProcedureStepStatus": "SCHEDULED", keyword: value}
    with Archive.open(tmp_path / "archive") as archive:
        archive.worklist.schedule(plain)
        for implicit in (False, True):
            [told] = found(archive.worklist, identifier_of({keyword: key}), implicit=implicit)
            assert told.element(keyword).values == Dataset({keyword: value}).element(keyword).values
        assert found(archive.worklist, identifier_of({keyword: other})) == []


def test_what_is_broken_on_the_disk_is_an_error_and_nothing_worse(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.worklist.schedule(made(random.Random(1), 0) | {"ScheduledProcedureStepStatus": "SCHEDULED"})
        [(place, record)] = archive.state.scan(STEP)
        keys = {"Modality": "", "PatientName": "", "RequestedProcedureCodeSequence": None}
        whole = identifier_of(keys)
        whole_steps = Dataset(ScheduledProcedureStepSequence=[])
        source = random.Random(5)
        broken = [record[:size] for size in range(len(record))]
        for _ in range(300):
            changed = bytearray(record)
            changed[source.randrange(len(record))] = source.randrange(256)
            broken.append(bytes(changed))
        refused = 0
        for one in broken:
            archive.state.change(lambda change, one=one: change.put(STEP, place, one))
            for identifier in (whole, whole_steps):
                try:
                    list(archive.worklist.select(identifier).responses(implicit=True))
                except PacsError:
                    refused += 1
        assert refused > len(record)
        archive.state.change(lambda change: change.delete(STEP, place))
        with pytest.raises(PacsError):
            found(archive.worklist, identifier_of({"StudyInstanceUID": "1.2.0"}))


@pytest.mark.parametrize(
    ("date", "time", "hours"),
    [
        ("20260105-20260107", "10-18", ["05 10", "05 23", "06 09", "06 23", "07 09"]),
        ("20260105-20260106", "10-", ["05 10", "05 23", "06 09", "06 23"]),
        ("-20260105", "-22", ["05 09", "05 10"]),
        ("20260106", "10-23", ["06 23"]),
        ("20260105-20260107", "09", ["05 09", "06 09", "07 09"]),
        ("20260105-", "", ["05 09", "05 10", "05 23", "06 09", "06 23", "07 09", "07 23"]),
    ],
)
def test_32_a_range_of_dates_with_one_of_times_is_one_range(
    tmp_path: Path, date: str, time: str, hours: list[str]
) -> None:
    """From the first time on the first day to the last time on the last (K.6.1.2.2)."""
    starts = ["05 09", "05 10", "05 23", "06 09", "06 23", "07 09", "07 23"]
    plain = made(random.Random(1), 0) | {"ScheduledProcedureStepStatus": "SCHEDULED"}
    with Archive.open(tmp_path / "archive") as archive:
        for number, start in enumerate(starts):
            day, hour = start.split()
            own = {"ScheduledProcedureStepStartDate": f"202601{day}", "ScheduledProcedureStepStartTime": hour}
            archive.worklist.schedule(plain | own | {"ScheduledProcedureStepID": str(number)})
        keys = {"ScheduledProcedureStepStartDate": date, "ScheduledProcedureStepStartTime": time}
        found = ids(archive.worklist, identifier_of(keys))
    assert [starts[int(number)] for number in found] == hours


def test_one_chunk_does_not_hold_many_megabytes(worklist: Worklist) -> None:
    identifier = Dataset({"PatientID": None})
    for element in range(6000):
        identifier.set(0x0018_0000 + 0x9000 + element, None, "LO")
    chunks = list(worklist.select(identifier).responses(implicit=False))
    assert sum(map(len, chunks)) == sum(1 for _ in worklist.search())
    assert all(sum(map(len, chunk)) <= (1 << 20) + len(chunk[0]) for chunk in chunks if chunk)


def test_a_query_of_many_values_can_be_broken_off_in_between(worklist: Worklist) -> None:
    """Chunks are where a C-CANCEL is seen, and they come though nothing matches."""
    identifier = Dataset()
    identifier.PatientComments = "X*"  # what it is walked by has few values
    identifier.PatientID = [f"*{number}-*" for number in range(20_000)]
    assert sum(1 for _ in worklist.select(identifier).responses(implicit=False)) >= STEPS // 100
