"""The worklist: what is scheduled, found, advanced and removed; what is refused, and how that is said."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacs_core import Archive
from pacs_core.dicom.dataset import Dataset
from pacs_core.errors import InvalidValueError, MissingValueError, NotFoundError, PacsError
from pacs_core.workflow import StepId, Worklist
from pacs_core.workflow.scheduling import entries_of
from pacs_core.workflow.state import STEP, STEP_KEY
from pacs_core.workflow.worklist import advance

PLAIN: dict[str, Any] = {
    "PatientName": "Doe^Jane",
    "PatientID": "P1",
    "Modality": "CT",
    "ScheduledStationAETitle": "CT1",
    "ScheduledProcedureStepStartDate": "20260105",
    "ScheduledProcedureStepStartTime": "0930",
    "ScheduledProcedureStepDescription": "Head",
}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.open(tmp_path / "archive") as archive:
        yield archive


@pytest.fixture
def worklist(archive: Archive) -> Worklist:
    return archive.worklist


def step_of(dataset: Dataset) -> Dataset:
    [item] = dataset.ScheduledProcedureStepSequence
    assert isinstance(item, Dataset)
    return item


def test_what_is_missing_is_made_up_where_it_can_be(worklist: Worklist) -> None:
    [name] = worklist.schedule(PLAIN)
    kept = worklist.get(name)
    step = step_of(kept)
    assert kept.StudyInstanceUID == name.study_instance_uid
    assert kept.StudyInstanceUID.startswith("2.25.")
    assert step.ScheduledProcedureStepID == name.scheduled_procedure_step_id == kept.RequestedProcedureID
    assert 0 < len(step.ScheduledProcedureStepID) <= 16
    assert step.ScheduledProcedureStepStatus == "SCHEDULED"
    assert kept.RequestedProcedureDescription == step.ScheduledProcedureStepDescription == "Head"
    assert (step.Modality, step.ScheduledStationAETitle) == ("CT", "CT1")
    assert step.ScheduledProcedureStepStartTime == datetime.time(9, 30)
    assert "Modality" not in kept


def test_it_stands_when_the_archive_is_opened_again(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        [name] = archive.worklist.schedule(PLAIN)
    with Archive.open(tmp_path / "archive") as archive:
        assert archive.worklist.get(name).PatientName == "Doe^Jane"


@pytest.mark.parametrize("keyword", PLAIN)
def test_what_a_step_needs_is_named_when_it_is_missing(worklist: Worklist, keyword: str) -> None:
    for keys in ({**PLAIN, keyword: None}, {key: value for key, value in PLAIN.items() if key != keyword}):
        with pytest.raises(MissingValueError, match=f"needs {keyword}$"):
            worklist.schedule(keys)
    assert len(worklist) == 0


def test_midnight_is_a_time(worklist: Worklist) -> None:
    [name] = worklist.schedule({**PLAIN, "ScheduledProcedureStepStartTime": "000000"})
    assert step_of(worklist.get(name)).ScheduledProcedureStepStartTime == datetime.time()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ScheduledProcedureStepStartDate", "tomorrow"),
        ("ScheduledProcedureStepStartDate", "20260105-"),
        ("ScheduledProcedureStepStartTime", "9:30 am"),
        ("StudyInstanceUID", "1.02"),
        ("PatientBirthDate", "02/01/1970"),
        ("PatientWeight", "heavy"),
        ("ScheduledProcedureStepID", "12345678901234567"),
    ],
)
def test_what_can_not_be_is_refused_with_its_tag(worklist: Worklist, keyword: str, value: str) -> None:
    with pytest.raises(InvalidValueError) as raised:
        worklist.schedule({**PLAIN, keyword: value})
    assert raised.value.tag is not None
    assert value in str(raised.value)
    assert len(worklist) == 0


def test_each_item_of_the_sequence_is_a_step_of_the_same_study(worklist: Worklist) -> None:
    both = Dataset(PatientName="Doe^Jane", PatientID="P1", AccessionNumber="A1")
    both.ScheduledProcedureStepSequence = [
        {
            "Modality": modality,
            "ScheduledStationAETitle": f"{modality}1",
            "ScheduledProcedureStepStartDate": "20260105",
            "ScheduledProcedureStepStartTime": "0930",
            "ScheduledProcedureStepDescription": modality,
        }
        for modality in ("CT", "PT")
    ]
    names = worklist.schedule(both)
    kept = [worklist.get(name) for name in names]
    assert [step_of(one).Modality for one in kept] == ["CT", "PT"]
    assert len({one.StudyInstanceUID for one in kept}) == 1
    assert len(set(names)) == 2
    assert [one.AccessionNumber for one in kept] == ["A1", "A1"]
    assert "StudyInstanceUID" not in both


def test_one_that_can_not_be_keeps_all_from_being_scheduled(worklist: Worklist) -> None:
    with pytest.raises(MissingValueError):
        worklist.schedule_all([PLAIN, {**PLAIN, "PatientID": ""}])
    assert len(worklist) == 0


def test_text_is_kept_whatever_it_was_written_in(worklist: Worklist) -> None:
    japanese = Dataset(SpecificCharacterSet=["", "ISO 2022 IR 87"])
    japanese.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    japanese.PatientID = "P1"
    item = Dataset({key: PLAIN[key] for key in list(PLAIN)[2:]})
    item.ScheduledPerformingPhysicianName = "医師"
    japanese.ScheduledProcedureStepSequence = [item]
    [name] = worklist.schedule(japanese)
    kept = worklist.get(name)
    assert kept.PatientName == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert step_of(kept).ScheduledPerformingPhysicianName == "医師"
    assert kept.SpecificCharacterSet == "ISO_IR 192"


def test_the_same_name_takes_the_place_of_what_was(archive: Archive) -> None:
    worklist, state = archive.worklist, archive.state
    keys = {**PLAIN, "StudyInstanceUID": "1.2", "ScheduledProcedureStepID": "S"}
    worklist.schedule(keys)
    before = state.entries(STEP_KEY)
    [name] = worklist.schedule({**keys, "PatientName": "Roe", "ScheduledStationAETitle": "CT2"})
    assert name == StepId("1.2", "S")
    assert (len(worklist), state.entries(STEP_KEY)) == (1, before)
    assert worklist.get(name).PatientName == "Roe"
    worklist.remove(name)
    assert state.entries(STEP) == 0
    assert state.entries(STEP_KEY) == 1  # the number of the last
    with pytest.raises(NotFoundError):
        worklist.get(name)
    with pytest.raises(NotFoundError):
        worklist.remove(name)


def test_an_order_that_is_told_again_does_not_begin_again(archive: Archive) -> None:
    keys = {**PLAIN, "StudyInstanceUID": "1.2", "ScheduledProcedureStepID": "S"}
    [name] = archive.worklist.schedule(keys)
    archive.state.change(lambda change: advance(change, [name], "COMPLETED"))
    archive.worklist.schedule({**keys, "ScheduledStationAETitle": "CT2"})
    step = step_of(archive.worklist.get(name))
    assert (step.ScheduledProcedureStepStatus, step.ScheduledStationAETitle) == ("COMPLETED", "CT2")
    assert list(archive.worklist.search(PatientID="P1")) == []
    archive.worklist.schedule({**keys, "ScheduledProcedureStepStatus": "SCHEDULED"})
    assert len(list(archive.worklist.search(PatientID="P1"))) == 1


def test_python_has_dates_and_times(worklist: Worklist) -> None:
    moment = {
        "ScheduledProcedureStepStartDate": datetime.date(2026, 1, 5),
        "ScheduledProcedureStepStartTime": datetime.time(9, 30, 1),
    }
    [name] = worklist.schedule(PLAIN | moment)
    step = step_of(worklist.get(name))
    assert (step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime) == tuple(
        moment.values()
    )
    [found] = worklist.search(ScheduledProcedureStepStartDate=(datetime.date(2026, 1, 5), None))
    assert found.StudyInstanceUID == name.study_instance_uid


def test_steps_are_in_the_order_of_their_start(worklist: Worklist) -> None:
    starts = [("20260106", "08"), ("20260105", "1000"), ("20260105", "093000")]
    for day, clock in starts:
        worklist.schedule(
            {**PLAIN, "ScheduledProcedureStepStartDate": day, "ScheduledProcedureStepStartTime": clock}
        )
    found = [step_of(one) for one in worklist]
    assert [
        (one.ScheduledProcedureStepStartDate.day, one.ScheduledProcedureStepStartTime.hour) for one in found
    ] == [
        (5, 9),
        (5, 10),
        (6, 8),
    ]


def test_what_is_before_a_day_is_removed(worklist: Worklist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs_core.workflow.worklist._AT_ONCE", 2)
    for day in (3, 4, 4, 5, 6):
        worklist.schedule({**PLAIN, "ScheduledProcedureStepStartDate": f"2026010{day}"})
    assert worklist.remove_before(datetime.date(2026, 1, 5)) == 3
    days = [step_of(one).ScheduledProcedureStepStartDate.day for one in worklist]
    assert days == [5, 6]
    assert worklist.remove_before(datetime.date(2026, 1, 5)) == 0


def test_a_change_advances_the_steps_that_there_are(archive: Archive) -> None:
    worklist = archive.worklist
    first, second = (worklist.schedule(PLAIN)[0] for _ in range(2))
    steps = [first, tuple(first), ("1.2", "none"), ("1" * 1000, "X" * 1000)]
    assert archive.state.change(lambda change: advance(change, steps, "STARTED")) == 1
    assert step_of(worklist.get(first)).ScheduledProcedureStepStatus == "STARTED"
    assert step_of(worklist.get(second)).ScheduledProcedureStepStatus == "SCHEDULED"
    assert worklist.get(first).PatientName == "Doe^Jane"


@pytest.mark.parametrize(
    "text",
    [
        '{"PatientName":' + '{"a":' * 900 + "1" + "}" * 901,
        '{"ScheduledProcedureStepSequence": 5}',
        '{"PatientName": "\\ud800"}',
    ],
    ids=["nested", "no sequence", "half a character"],
)
def test_what_a_file_says_that_can_not_be_is_an_entry_with_its_error(tmp_path: Path, text: str) -> None:
    """The other files are scheduled."""
    path = tmp_path / "steps.json"
    path.write_text(text)
    [entry] = entries_of(path)
    assert isinstance(entry.error, PacsError)
