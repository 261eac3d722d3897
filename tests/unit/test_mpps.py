"""Performed procedure steps: what may be said when (PS3.4 F.7; CONFORMANCE 33, 34), and what is found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from pacs_core.archive import Archive
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.dictionary import keyword_of
from pacs_core.dicom.performed import TABLE, Row, Status
from pacs_core.dicom.reading import read_dataset
from pacs_core.dicom.recoding import of_bytes
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, is_valid_uid, new_uid
from pacs_core.errors import (
    DuplicateError,
    InvalidValueError,
    MissingAttributeError,
    MissingValueError,
    NoSuchAttributeError,
    NotFoundError,
    OutOfResourcesError,
    PacsError,
    WrongStateError,
)
from pacs_core.workflow import State
from pacs_core.workflow.mpps import LARGEST, MOST_ATTRIBUTES, Performed
from pacs_core.workflow.mpps_merge import pieces
from pacs_core.workflow.state import META, PERFORMED, Change
from tests.make import instance, part10, uid
from tests.steps import created, ended, series

CODE = {"CodeValue": "1", "CodingSchemeDesignator": "99X", "CodeMeaning": "Why"}
REFERENCE = {"ReferencedSOPClassUID": "1.2", "ReferencedSOPInstanceUID": "1.2.3"}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State.open(tmp_path / "state")
    yield state
    state.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Performed]:
    """One for many tests, of which each has a step of its own."""
    state = State.open(tmp_path_factory.mktemp("shared"))
    yield Performed(state)
    state.close()


@pytest.fixture
def steps(state: State) -> Performed:
    return Performed(state)


def full() -> Dataset:
    """An N-CREATE with something in every sequence of the table that is told of here."""
    dataset = created(
        ReferencedPatientSequence=[REFERENCE],
        IssuerOfAdmissionIDSequence=[{"LocalNamespaceEntityID": "WARD"}],
        ReasonForPerformedProcedureCodeSequence=[CODE],
        ProcedureCodeSequence=[CODE],
        PerformedProtocolCodeSequence=[CODE],
        PerformedProcedureStepDiscontinuationReasonCodeSequence=[CODE],
        PerformedSeriesSequence=[
            series(
                ReferencedNonImageCompositeSOPInstanceSequence=[REFERENCE],
                ReferencedImageSequence=[
                    {
                        **REFERENCE,
                        "SpecimenDescriptionSequence": [{"SpecimenIdentifier": "S1", "SpecimenUID": "1.2.4"}],
                    }
                ],
            )
        ],
    )
    scheduled = dataset.ScheduledStepAttributesSequence[0]
    scheduled.ReferencedStudySequence = [REFERENCE]
    scheduled.ScheduledProtocolCodeSequence = [CODE]
    scheduled.RequestedProcedureCodeSequence = [CODE]
    scheduled.IssuerOfAccessionNumberSequence = [
        {"UniversalEntityID": "1.2.5", "UniversalEntityIDType": "ISO"}
    ]
    return dataset


def required(rows: Sequence[Row] = TABLE, path: str = "") -> Iterator[tuple[str, Row]]:
    """Path and row of each attribute that has to be there in `full`."""
    present = full()
    for row in rows:
        at = f"{path}{keyword_of(row.tag)}"
        try:
            there = at in present
        except KeyError:
            continue
        if row.kind != "3" and there:
            yield at, row
        if row.items and there:
            yield from required(row.items, f"{at}.0.")


REQUIRED = list(required())


def test_the_table_is_that_of_the_standard() -> None:
    assert len(REQUIRED) > 60
    ones = {keyword_of(row.tag) for row in TABLE if row.kind == "1"}
    assert ones == {
        "ScheduledStepAttributesSequence",
        "PerformedProcedureStepID",
        "PerformedStationAETitle",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "PerformedProcedureStepStatus",
        "Modality",
    }
    settable = {keyword_of(row.tag) for row in TABLE if not row.once and row.kind != "3"}
    assert settable == {
        "PerformedProcedureStepStatus",
        "PerformedProcedureStepDescription",
        "PerformedProcedureTypeDescription",
        "ProcedureCodeSequence",
        "PerformedProcedureStepEndDate",
        "PerformedProcedureStepEndTime",
        "PerformedProtocolCodeSequence",
        "PerformedSeriesSequence",
    }


# -- N-CREATE: CONFORMANCE 33 -------------------------------------------------------------------------------


def test_what_is_complete_is_created_and_can_be_read(steps: Performed) -> None:
    dataset = full()
    assert steps.create(dataset, "1.2.3") == "1.2.3"
    assert steps.get("1.2.3") == dataset


@pytest.mark.parametrize(("path", "row"), REQUIRED, ids=[path for path, _ in REQUIRED])
def test_what_is_missing_is_refused(shared: Performed, path: str, row: Row) -> None:
    dataset, name = full(), new_uid()
    del dataset[path]
    with pytest.raises(MissingAttributeError) as caught:
        shared.create(dataset, name)
    assert caught.value.tag == row.tag
    with pytest.raises(NotFoundError):
        shared.get(name)


@pytest.mark.parametrize(("path", "row"), REQUIRED, ids=[path for path, _ in REQUIRED])
def test_only_type_2_may_be_empty(shared: Performed, path: str, row: Row) -> None:
    dataset, name = full(), new_uid()
    dataset[path] = None
    if row.kind == "2":
        shared.create(dataset, name)
        assert not shared.get(name)[path]
        return
    with pytest.raises(MissingValueError) as caught:
        shared.create(dataset, name)
    assert caught.value.tag == row.tag


def test_spaces_are_no_value(steps: Performed) -> None:
    with pytest.raises(MissingValueError):
        steps.create(created(PerformedProcedureStepID="  "))


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED", "IN  PROGRESS", "SCHEDULED"])
def test_a_step_is_created_in_progress(steps: Performed, status: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        steps.create(created(PerformedProcedureStepStatus=status))
    assert caught.value.tag == 0x0040_0252


def test_a_uid_is_used_once(steps: Performed) -> None:
    steps.create(created(), "1.2.3")
    with pytest.raises(DuplicateError):
        steps.create(created(PatientID="P2"), "1.2.3")
    steps.update("1.2.3", ended())
    with pytest.raises(DuplicateError):
        steps.create(created(), "1.2.3")
    assert steps.get("1.2.3").PatientID == "P1"


def test_of_many_that_create_the_same_one_does(steps: Performed) -> None:
    outcomes: list[str] = []

    def create() -> None:
        try:
            outcomes.append(steps.create(created(), "1.2.3"))
        except DuplicateError:
            outcomes.append("")

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [""] * 7 + ["1.2.3"]


def test_without_a_uid_we_choose_one(steps: Performed) -> None:
    chosen = {steps.create(created()) for _ in range(2)}
    assert len(chosen) == 2
    assert all(map(is_valid_uid, chosen))


@pytest.mark.parametrize("wrong", ["1.2.a", "1" * 65, "../1", "1.2\n"])
def test_what_is_no_uid_names_no_step(steps: Performed, wrong: str) -> None:
    with pytest.raises(InvalidValueError):
        steps.create(created(), wrong)
    with pytest.raises(NotFoundError):
        steps.update(wrong, ended())
    with pytest.raises(NotFoundError):
        steps.get(wrong)


def test_what_is_cut_off_is_refused(steps: Performed) -> None:
    data = created().to_bytes(IMPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(InvalidValueError, match="ends in the middle"):
        steps.create(read_dataset(data[:-10], IMPLICIT_VR_LITTLE_ENDIAN))


@pytest.mark.parametrize("wrong", ["x" * 64, "1" * 65])
def test_a_study_uid_that_is_none_is_refused(steps: Performed, wrong: str) -> None:
    with pytest.raises(InvalidValueError):
        steps.create(created(study=wrong))


def test_a_sequence_that_is_text_is_refused(steps: Performed) -> None:
    dataset = created()
    dataset.set("ScheduledStepAttributesSequence", "1.2.3", "LO")
    with pytest.raises(InvalidValueError, match="no sequence"):
        steps.create(dataset)


# -- N-SET: CONFORMANCE 34 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_what_has_ended_stays_as_it_is(steps: Performed, status: str) -> None:
    steps.create(created(), "1.2.3")
    assert steps.update("1.2.3", ended(status)) == status
    for changes in (ended(), ended("DISCONTINUED"), Dataset(StudyID="2"), Dataset()):
        with pytest.raises(WrongStateError, match="may no longer be updated"):
            steps.update("1.2.3", changes)
    assert steps.get("1.2.3").PerformedProcedureStepStatus == status


def test_what_is_not_there_can_not_be_set(steps: Performed) -> None:
    with pytest.raises(NotFoundError):
        steps.update("1.2.3", ended())


@pytest.mark.parametrize("row", [row for row in TABLE if row.once], ids=lambda row: keyword_of(row.tag))
def test_what_only_creation_may_say_can_not_be_set(steps: Performed, row: Row) -> None:
    steps.create(created(), "1.2.3")
    for changes in (ended(), Dataset()):
        changes[row.tag] = None
        with pytest.raises(NoSuchAttributeError) as caught:
            steps.update("1.2.3", changes)
        assert caught.value.tag == row.tag
    assert steps.get("1.2.3") == created()


def test_attributes_are_set_and_sequences_replaced_as_a_whole(steps: Performed) -> None:
    steps.create(created(PerformedSeriesSequence=[series(1), series(2)]), "1.2.3")
    changes = Dataset(
        PerformedSeriesSequence=[series(3)],
        PerformedProcedureStepDescription="Chest",
        CommentsOnThePerformedProcedureStep="long",
    )
    assert steps.update("1.2.3", changes) is Status.IN_PROGRESS
    expected = created(
        PerformedSeriesSequence=[series(3)],
        PerformedProcedureStepDescription="Chest",
        CommentsOnThePerformedProcedureStep="long",
    )
    assert steps.get("1.2.3") == expected


@pytest.mark.parametrize("keyword", ["ProtocolName", "SeriesInstanceUID", "OperatorsName", "RetrieveAETitle"])
def test_items_that_are_set_have_what_they_need(steps: Performed, keyword: str) -> None:
    steps.create(created(), "1.2.3")
    item = Dataset(series())
    del item[keyword]
    with pytest.raises(MissingAttributeError):
        steps.update("1.2.3", Dataset(PerformedSeriesSequence=[item]))
    if keyword in ("ProtocolName", "SeriesInstanceUID"):
        with pytest.raises(MissingValueError):
            steps.update("1.2.3", ended(PerformedSeriesSequence=[series(**{keyword: ""})]))
    assert steps.get("1.2.3").PerformedProcedureStepStatus == "IN PROGRESS"


@pytest.mark.parametrize(
    "keyword", ["PerformedSeriesSequence", "PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime"]
)
def test_completed_needs_its_final_state(steps: Performed, keyword: str) -> None:
    steps.create(created(), "1.2.3")
    for changes in (ended(**{keyword: None}), ended()):
        if changes == ended():
            del changes[keyword]
        with pytest.raises(MissingValueError, match=keyword):
            steps.update("1.2.3", changes)
    assert steps.get("1.2.3") == created()
    # What was set before need not be said again.
    steps.update("1.2.3", Dataset({keyword: ended()[keyword]}))
    last = ended()
    del last[keyword]
    assert steps.update("1.2.3", last) is Status.COMPLETED


def test_discontinued_needs_no_series(steps: Performed) -> None:
    steps.create(created(), "1.2.3")
    with pytest.raises(MissingValueError):
        steps.update("1.2.3", ended("DISCONTINUED", PerformedProcedureStepEndDate=""))
    changes = ended(
        "DISCONTINUED",
        PerformedSeriesSequence=[],
        PerformedProcedureStepDiscontinuationReasonCodeSequence=[CODE],
    )
    assert steps.update("1.2.3", changes) is Status.DISCONTINUED
    path = "PerformedProcedureStepDiscontinuationReasonCodeSequence.0.CodeMeaning"
    assert steps.get("1.2.3")[path] == "Why"


@pytest.mark.parametrize("status", ["", "DONE", "SCHEDULED"])
def test_a_status_is_one_of_three(steps: Performed, status: str) -> None:
    steps.create(created(), "1.2.3")
    with pytest.raises(InvalidValueError):
        steps.update("1.2.3", ended(status))


def text(sets: str | None, value: str, claimed: str | None = None) -> Dataset:
    """An N-SET of text in one character set, that says it is in another one."""
    dataset = Dataset(PerformedProcedureStepDescription=value)
    dataset.set("SpecificCharacterSet", sets, "CS")
    data = dataset.to_bytes(EXPLICIT_VR_LITTLE_ENDIAN)
    if claimed is not None and sets is not None:
        assert len(claimed) == len(sets)
        data = data.replace(sets.encode(), claimed.encode())
    return read_dataset(data, EXPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize(
    ("kept", "changes", "combined"),
    [
        ("ISO_IR 100", text("ISO_IR 100", "Schädel"), "ISO_IR 100"),
        ("ISO_IR 100", text("ISO_IR 192", "Schädel"), "ISO_IR 100"),
        ("ISO_IR 100", text("ISO_IR 192", "頭"), "ISO_IR 192"),
        ("ISO_IR 100", text("ISO_IR 144", "Череп"), "ISO_IR 192"),
        ("ISO_IR 192", text("ISO_IR 144", "Череп"), "ISO_IR 192"),
        ("ISO_IR 100", text("\\ISO 2022 IR 87", "頭"), "ISO_IR 192"),
    ],
)
def test_character_sets_are_combined(steps: Performed, kept: str, changes: Dataset, combined: str) -> None:
    dataset = created(SpecificCharacterSet=kept, PatientName="Müller^Jürgen")
    dataset.ScheduledStepAttributesSequence[0].RequestedProcedureDescription = "Röntgen"
    steps.create(dataset, "1.2.3")
    steps.update("1.2.3", changes)
    found = steps.get("1.2.3")
    assert found.SpecificCharacterSet == combined
    assert found.PatientName == "Müller^Jürgen"
    assert found["ScheduledStepAttributesSequence.0.RequestedProcedureDescription"] == "Röntgen"
    assert found.PerformedProcedureStepDescription == changes.PerformedProcedureStepDescription
    assert len(found) == len(created()) + 1


def test_a_character_set_comes_with_the_first_text_that_needs_it(steps: Performed) -> None:
    steps.create(created(), "1.2.3")
    steps.update("1.2.3", text("ISO_IR 100", "Schädel"))
    assert steps.get("1.2.3").SpecificCharacterSet == "ISO_IR 100"
    steps.update("1.2.3", Dataset(PerformedProcedureStepDescription="Chest"))
    assert steps.get("1.2.3").PatientName == "Doe^Jane"


def test_a_request_need_not_repeat_the_character_set(steps: Performed) -> None:
    steps.create(created(SpecificCharacterSet="ISO_IR 100"), "1.2.3")
    changes = text("ISO_IR 100", "Schädel")
    bare = read_dataset(changes.to_bytes()[18:], EXPLICIT_VR_LITTLE_ENDIAN)
    assert "SpecificCharacterSet" not in bare
    steps.update("1.2.3", bare)
    assert steps.get("1.2.3").PerformedProcedureStepDescription == "Schädel"


@pytest.mark.parametrize("kept", ["ISO_IR 100", "ISO_IR 144"])
def test_text_that_can_not_be_converted_is_refused(steps: Performed, kept: str) -> None:
    steps.create(created(SpecificCharacterSet=kept), "1.2.3")
    with pytest.raises(InvalidValueError):
        steps.update("1.2.3", text("ISO_IR 100", "Schädel", claimed="ISO_IR 192"))
    assert steps.get("1.2.3").SpecificCharacterSet == kept
    assert steps.get("1.2.3").PerformedProcedureStepDescription == ""


# -- N-GET, and the API -------------------------------------------------------------------------------------


def test_what_is_asked_for_is_given_and_its_character_set(steps: Performed) -> None:
    steps.create(created(SpecificCharacterSet="ISO_IR 100", PatientName="Müller"), "1.2.3")
    found = steps.get("1.2.3", [0x0010_0010, 0x0040_0270, 0x0010_4000])
    assert [element.keyword for element in found] == [
        "SpecificCharacterSet",
        "PatientName",
        "ScheduledStepAttributesSequence",
    ]
    assert found.PatientName == "Müller"


def test_steps_are_found_by_status(steps: Performed) -> None:
    for number in range(4):
        steps.create(created(), f"1.2.{number}")
    steps.update("1.2.1", ended())
    steps.update("1.2.3", ended("DISCONTINUED"))
    found = {status: [step.uid for step in steps.list(status=status)] for status in Status}
    assert found == {"IN PROGRESS": ["1.2.0", "1.2.2"], "COMPLETED": ["1.2.1"], "DISCONTINUED": ["1.2.3"]}
    assert [(step.uid, step.status) for step in steps.list()] == [
        ("1.2.0", "IN PROGRESS"),
        ("1.2.1", "COMPLETED"),
        ("1.2.2", "IN PROGRESS"),
        ("1.2.3", "DISCONTINUED"),
    ]
    assert [step.uid for step in steps.list(study=uid(1), status="COMPLETED")] == ["1.2.1"]
    with pytest.raises(ValueError, match="SCHEDULED"):
        next(steps.list(status="SCHEDULED"))


def test_steps_are_found_by_study_scheduled_or_held(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        archive.store(part10(instance(1, study=7, series=2)))
        steps = archive.performed
        grouped = created(study=uid(1))
        grouped.ScheduledStepAttributesSequence.append(
            created(study=uid(2)).ScheduledStepAttributesSequence[0]
        )
        steps.create(grouped, "1.2.1")
        steps.create(created(study=uid(1, 1)), "1.2.2")  # begins as another one's does
        steps.create(created(study=uid(3)), "1.2.3")

        def of(number: int) -> list[str]:
            return [step.uid for step in steps.list(study=uid(number))]

        assert (of(1), of(2), of(3), of(7)) == (["1.2.1"], ["1.2.1"], ["1.2.3"], [])
        steps.update("1.2.3", Dataset(PerformedSeriesSequence=[series(2, study=7), series(3, study=7)]))
        assert (of(3), of(7)) == (["1.2.3"], ["1.2.3"])
        steps.update("1.2.3", Dataset(PerformedSeriesSequence=[series(3, study=7)]))
        assert of(7) == []


def test_the_worklist_is_told_in_the_same_transaction(state: State) -> None:
    def advance(change: Change, named: Sequence[tuple[str, str]], status: str) -> int:
        if named == [("1.2", "BAD")]:
            raise ValueError("no")
        told.append((list(named), status))
        change.put(META, b"told", status.encode())
        return len(named)

    told: list[tuple[list[tuple[str, str]], str]] = []
    steps = Performed(state, advance)
    steps.create(created(study="1.2"), "1.2.1")
    assert state.get(META, b"told") == b"STARTED"
    steps.update("1.2.1", Dataset(PerformedProcedureStepDescription="Chest"))
    steps.update("1.2.1", ended())
    assert state.get(META, b"told") == b"COMPLETED"
    steps.create(created(study="1.2", step=""), "1.2.2")  # nobody scheduled it
    steps.update("1.2.2", ended("DISCONTINUED"))
    assert told == [
        ([("1.2", "SPS1")], "STARTED"),
        ([("1.2", "SPS1")], "COMPLETED"),
        ([], "STARTED"),
        ([], "DISCONTINUED"),
    ]
    with pytest.raises(ValueError, match="no"):
        steps.create(created(study="1.2", step="BAD"), "1.2.3")
    with pytest.raises(NotFoundError):
        steps.get("1.2.3")


# -- properties ---------------------------------------------------------------------------------------------


@given(st.data())
@hypothesis_settings(max_examples=50, deadline=None)
def test_elements_are_cut_apart_where_they_begin(data: st.DataObject) -> None:
    dataset = full()
    for path, _ in data.draw(st.lists(st.sampled_from(REQUIRED), max_size=5)):
        if path in dataset and "." not in path:
            del dataset[path]
    syntax = data.draw(st.sampled_from([EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]))
    undefined = read_dataset(dataset.to_bytes(syntax), syntax)
    whole = undefined.to_bytes(EXPLICIT_VR_LITTLE_ENDIAN)
    cut = pieces(whole, of_bytes(whole))
    assert b"".join(cut.values()) == whole
    for tag, piece in cut.items():
        assert [element.tag for element in of_bytes(piece)] == [tag]


class Machine(RuleBasedStateMachine):
    """Steps beside a dictionary of what they ought to be; now and then the process begins anew."""

    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, tuple[str, dict[str, Any]]] = {}
        self.advanced: dict[str, str] = {}
        self.open()

    def open(self) -> None:
        self.state = State.open(self.folder / "state")
        self.steps = Performed(self.state, self.advance)

    folder: Path

    def advance(self, change: Change, named: Sequence[tuple[str, str]], status: str) -> int:  # noqa: ARG002
        self.advanced |= {step: status for _, step in named}
        return len(named)

    @rule(target=known, number=st.integers(1, 5), study=st.integers(1, 3))
    def create(self, number: int, study: int) -> str:
        name = f"1.2.{number}"
        dataset = created(study=uid(study), step=name)
        if name in self.model:
            self.refused(DuplicateError, lambda: self.steps.create(dataset, name))
        else:
            self.steps.create(dataset, name)
            self.model[name] = ("IN PROGRESS", {"study": uid(study), "text": "", "series": []})
        return name

    @rule(
        name=known, value=st.sampled_from(["Chest", "Head"]), numbers=st.lists(st.integers(1, 3), max_size=2)
    )
    def change(self, name: str, value: str, numbers: list[int]) -> None:
        items = [series(number) for number in numbers]
        changes = Dataset(PerformedProcedureStepDescription=value, PerformedSeriesSequence=items)
        status, said = self.model[name]
        if status != "IN PROGRESS":
            self.refused(WrongStateError, lambda: self.steps.update(name, changes))
            return
        assert self.steps.update(name, changes) == "IN PROGRESS"
        said |= {"text": value, "series": [uid(1, number) for number in numbers]}

    @rule(name=known, status=st.sampled_from(["COMPLETED", "DISCONTINUED"]), found=st.booleans())
    def end(self, name: str, status: str, found: bool) -> None:
        changes = ended(status, PerformedSeriesSequence=[series(1)] if found else [])
        before, said = self.model[name]
        if before != "IN PROGRESS":
            self.refused(WrongStateError, lambda: self.steps.update(name, changes))
        elif status == "COMPLETED" and not found:
            self.refused(MissingValueError, lambda: self.steps.update(name, changes))
        else:
            assert self.steps.update(name, changes) == status
            self.model[name] = (status, said | {"series": [uid(1, 1)] if found else []})

    @rule(name=known)
    def forbidden(self, name: str) -> None:
        kind = NoSuchAttributeError if self.model[name][0] == "IN PROGRESS" else WrongStateError
        self.refused(kind, lambda: self.steps.update(name, ended(PatientID="P2")))

    @rule()
    def restart(self) -> None:
        self.state.close()
        self.open()

    def refused(self, kind: type[PacsError], attempt: Callable[[], object]) -> None:
        with pytest.raises(kind):
            attempt()

    @invariant()
    def agrees(self) -> None:
        found = {step.uid: step for step in self.steps.list()}
        assert {name: step.status.value for name, step in found.items()} == {
            name: status for name, (status, _) in self.model.items()
        }
        for name, (status, said) in self.model.items():
            dataset = found[name].dataset
            assert dataset.PerformedProcedureStepStatus == status
            assert dataset.PerformedProcedureStepDescription == said["text"]
            assert [item.SeriesInstanceUID for item in dataset.PerformedSeriesSequence] == said["series"]
            assert self.advanced[name] == ("STARTED" if status == "IN PROGRESS" else status)
        for study in map(uid, range(1, 4)):
            of_study = {name for name, (_, said) in self.model.items() if said["study"] == study}
            assert {step.uid for step in self.steps.list(study=study)} == of_study
        for status in Status:
            of_status = {name for name, (stands, _) in self.model.items() if stands == status}
            assert {step.uid for step in self.steps.list(status=status)} == of_status

    def teardown(self) -> None:
        keys = [key for key, _ in self.state.scan(PERFORMED)]
        linked = sum(len(set(said["series"])) for _, said in self.model.values())
        assert len(keys) == 3 * len(self.model) + linked  # nothing is left behind
        self.state.close()


def test_steps_go_where_a_simple_model_goes(tmp_path_factory: pytest.TempPathFactory) -> None:
    class Here(Machine):
        def __init__(self) -> None:
            self.folder = tmp_path_factory.mktemp("steps")
            super().__init__()

    run_state_machine_as_test(
        Here, settings=hypothesis_settings(max_examples=15, stateful_step_count=25, deadline=None)
    )


# -- how large a step may be ---------------------------------------------------------------------------------


def many(number: int, group: int = 0x0011, value: str = "") -> Dataset:
    dataset = Dataset()
    for element in range(number):
        dataset.set(group << 16 | 0x1000 + element, value, "UT")
    return dataset


def test_a_step_of_more_attributes_than_any_has_is_not_kept(steps: Performed) -> None:
    """All who decide wait for whoever sets a step: it must not take long."""
    dataset = created()
    for element in many(MOST_ATTRIBUTES):
        dataset.set(element.tag, element.value, element.vr)
    with pytest.raises(OutOfResourcesError):
        steps.create(dataset, "1.2")
    steps.create(created(), "1.2")
    with pytest.raises(OutOfResourcesError):
        steps.update("1.2", many(MOST_ATTRIBUTES + 1))


def test_a_step_does_not_grow_without_end(steps: Performed) -> None:
    steps.create(created(), "1.2")
    part = MOST_ATTRIBUTES // 2
    steps.update("1.2", many(part))
    with pytest.raises(OutOfResourcesError):
        steps.update("1.2", many(part, group=0x0013))
    with pytest.raises(OutOfResourcesError):
        steps.update("1.2", many(1, group=0x0015, value="x" * LARGEST))
    steps.update("1.2", ended())
    assert len(steps.get("1.2")) < MOST_ATTRIBUTES
