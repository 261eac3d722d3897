"""Identity, merging and counting in the index, against the plain model of `index_model`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from index_model import Instance, amount, instance

from pacs_core.dicom.attributes import BY_KEYWORD, Level
from pacs_core.errors import UnparsableError
from pacs_core.index import Conflict, Entry, Index, Outcome


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "index", map_size=1 << 26) as opened:
        yield opened


def commit(index: Index, *instances: Instance, replace: bool = False) -> list[Outcome]:
    return [result.outcome for result in index.commit([one.entry for one in instances], replace=replace)]


def take_over(index: Index, uids: list[str], held: dict[str, Instance]) -> list[Entry]:
    """The heirs that a removal of `uids` calls for, read from `held` as an archive reads headers."""
    succession = index.succession(uids)
    heirs = []
    for located in succession.candidates():
        one = held[located.sop_instance_uid]
        fields = {BY_KEYWORD[keyword].tag: value.encode() for keyword, value in one.values}
        succession.supply(located, fields)
        heirs.append(one.entry)
    return heirs


def remove(index: Index, uids: list[str], held: dict[str, Instance]) -> list[Outcome]:
    with index.exclusive():
        results = index.remove(uids, heirs=take_over(index, uids, held))
    return [result.outcome for result in results]


def test_first_of_a_uid_stays_unless_replaced(index: Index) -> None:
    """CONFORMANCE 11: the same instance again."""
    first, second = instance(1), instance(1, stamp=2, size=5)
    assert commit(index, first, second) == [Outcome.INSERTED, Outcome.HELD]
    (result,) = index.commit([second.entry])
    assert result.previous == first.entry.locator
    assert index.dump() == amount([first])
    (result,) = index.commit([second.entry], replace=True)
    assert (result.outcome, result.previous) == (Outcome.REPLACED, first.entry.locator)
    assert index.dump() == amount([second])
    assert list(index.check()) == []


def test_in_one_batch_the_last_replaces(index: Index) -> None:
    first, second = instance(1), instance(1, stamp=2, PatientID="other")
    assert commit(index, first, second, replace=True) == [Outcome.INSERTED, Outcome.REPLACED]
    assert index.dump() == amount([second])
    assert list(index.check()) == []


def test_instances_that_swap_series_in_one_batch_keep_what_they_say(index: Index) -> None:
    """Values of an entry were lost when a later entry of the batch removed an earlier supplier of them."""
    one = instance(1, stamp=1, StudyInstanceUID="1.1")
    two = instance(2, stamp=2, StudyInstanceUID="1.3", SeriesDescription="a")
    commit(index, one, two)
    swapped = [
        instance(1, stamp=3, StudyInstanceUID="1.3", SeriesDescription="a"),
        instance(2, stamp=4, StudyInstanceUID="1.1"),
    ]
    assert commit(index, *swapped, replace=True) == [Outcome.REPLACED, Outcome.REPLACED]
    assert index.dump() == amount(swapped)
    assert list(index.check()) == []


def test_a_uid_held_in_another_series_is_a_conflict(index: Index) -> None:
    commit(index, instance(1))
    (result,) = index.commit([instance(1, stamp=2, SeriesInstanceUID="1.9").entry])
    assert (result.outcome, result.conflicts) == (Outcome.HELD, Conflict.SERIES)


def test_a_second_patient_in_a_study_is_a_conflict_and_says_nothing_of_the_first(index: Index) -> None:
    first = instance(1, PatientName="")
    second = instance(2, PatientID="P2", PatientName="Roe^Jane")
    results = index.commit([first.entry, second.entry])
    assert [result.conflicts for result in results] == [Conflict.NONE, Conflict.PATIENT]
    (row,) = index.find(Level.STUDY)
    assert row[0x0010_0020] == "P1"
    assert 0x0010_0010 not in row
    assert index.dump() == amount([first, second])


def test_same_patient_id_of_another_issuer_is_another_patient(index: Index) -> None:
    held = [
        instance(1, StudyInstanceUID="1.1"),
        instance(2, StudyInstanceUID="1.2", IssuerOfPatientID="HOSPITAL"),
        instance(3, StudyInstanceUID="1.3", IssuerOfPatientID="CLINIC"),
    ]
    commit(index, *held)
    assert index.stats().patients == 3
    assert len(list(index.find(Level.PATIENT, {"PatientID": "P1"}))) == 3
    assert index.dump() == amount(held)


def test_same_patient_with_another_name_keeps_the_first_received(index: Index) -> None:
    held = [instance(2, stamp=20, PatientName="Later^Name"), instance(3, stamp=10, StudyInstanceUID="1.3")]
    for one in held:
        commit(index, one)
    (row,) = index.find(Level.PATIENT)
    assert row[0x0010_0010] == "Doe^John"
    commit(index, instance(4, stamp=5, StudyInstanceUID="1.4", PatientName="First^Name"))
    (row,) = index.find(Level.PATIENT)
    assert row[0x0010_0010] == "First^Name"
    assert list(index.check()) == []


def test_patients_without_id_are_never_merged(index: Index) -> None:
    held = [
        instance(1, PatientID="", StudyInstanceUID="1.1"),
        instance(2, PatientID="", StudyInstanceUID="1.2"),
    ]
    commit(index, *held)
    assert index.stats().patients == 2
    assert index.dump() == amount(held)
    named = instance(3, StudyInstanceUID="1.1")
    commit(index, named)
    assert index.dump() == amount([*held, named])
    assert [row[0x0020_1204] for row in index.find(Level.PATIENT, {"PatientID": "P1"})] == ["2"]
    assert list(index.check()) == []


def test_empty_study_and_series_uids(index: Index) -> None:
    held = [
        instance(1, StudyInstanceUID=""),
        instance(2, StudyInstanceUID="", PatientID="P2"),
        instance(3, StudyInstanceUID="", PatientID=""),
        instance(4, StudyInstanceUID="", PatientID="", SeriesInstanceUID=""),
        instance(5, StudyInstanceUID="", PatientID="", SeriesInstanceUID=""),
        instance(6, SeriesInstanceUID=""),
    ]
    commit(index, *held)
    assert index.stats().studies == 6
    assert index.dump() == amount(held)
    assert list(index.check()) == []
    remove(index, [one.uid for one in held], {})
    assert index.stats()[:5] == (0, 0, 0, 0, 0)
    assert list(index.check()) == []


def test_values_fill_and_change_hands_when_their_supplier_goes(index: Index) -> None:
    held = [
        instance(1, StudyDescription="Head", AccessionNumber="A1"),
        instance(2, StudyDescription="Neck", SeriesDescription="late", PatientSex="F", Modality="MR"),
        instance(3, StudyDescription="Foot", PatientName="Doe^J", AccessionNumber="A3", Modality="PT"),
    ]
    commit(index, *held)
    by_uid = {one.uid: one for one in held}
    for gone in range(3):
        assert index.dump() == amount(held[gone:])
        assert list(index.check()) == []
        assert remove(index, [held[gone].uid], by_uid) == [Outcome.REMOVED]
    assert index.dump() == amount([])
    assert index._opened.env.entries()[1:] == [0] * 7


def test_succession_asks_for_no_more_headers_than_needed(index: Index) -> None:
    held = {one.uid: one for one in (instance(number) for number in range(1, 40))}
    commit(index, *held.values())
    assert len(take_over(index, ["1.2.3.1"], held)) == 1
    assert take_over(index, ["1.2.3.7"], held) == []
    assert take_over(index, list(held), held) == []


def test_succession_asks_nobody_who_came_before_the_supplier(index: Index) -> None:
    """They have no value, or would supply it."""
    described = {5: "Fifth", 8: "Eighth"}
    held = {
        one.uid: one
        for one in (instance(number, StudyDescription=described.get(number, "")) for number in range(1, 12))
    }
    commit(index, *held.values())
    with index.exclusive():
        asked = index.succession(["1.2.3.5"])
        assert [one.stamp for one in asked.candidates()] == [6, 7, 8, 9, 10, 11]
        assert len(take_over(index, ["1.2.3.5"], held)) == 3
    remove(index, ["1.2.3.5"], held)
    assert index.dump() == amount([one for one in held.values() if one.uid != "1.2.3.5"])


def test_removing_what_is_not_there_changes_nothing(index: Index) -> None:
    commit(index, instance(1))
    before = index.stats()
    assert [result.outcome for result in index.remove(["1.9.9"])] == [Outcome.ABSENT]
    assert index.stats() == before


def test_an_entry_that_cannot_be_indexed_stops_its_batch_before_it_begins(index: Index) -> None:
    good = instance(1).entry
    for bad in (
        instance(2, SOPInstanceUID="").entry,
        Entry(good.fields[:-1], good.locator, 1, 0, "1.2", ""),
        Entry(b"", good.locator, 1, 0, "1.2", ""),
        Entry(b"\x02" + good.fields[1:], good.locator, 1, 0, "1.2", ""),
        Entry(b"\x01" + good.fields[1:] * 2, good.locator, 1, 0, "1.2", ""),
    ):
        with pytest.raises(UnparsableError):
            index.check_entry(bad)
        with pytest.raises(UnparsableError):
            index.commit([good, bad])
    assert index.stats().instances == 0


def test_overlong_values_and_uids_are_told_apart(index: Index) -> None:
    """Broken objects: no UID or ID may be too long for a key (LMDB's limit is 511 bytes)."""
    long = "1." + "2" * 5000
    held = [
        instance(1, SOPInstanceUID=long + tail, StudyInstanceUID=long + tail, SeriesInstanceUID=long + tail,
                 PatientID="é" * 4000 + tail, PatientName="Ñ" * 3000 + tail)
        for tail in ("1", "2")
    ]  # fmt: skip
    commit(index, *held)
    assert index.dump() == amount(held)
    assert index.stats()[:4] == (2, 2, 2, 2)
    assert list(index.check()) == []
    located = index.locate(long + "2")
    assert located is not None
    assert located.sop_instance_uid == long + "2"
    remove(index, [long + "1", long + "2"], {})
    assert index._opened.env.entries()[1:] == [0] * 7


def test_many_patients_in_one_study_and_values_of_many_parts(index: Index) -> None:
    held = [
        instance(number, PatientID=f"P{number}", StudyDescription="\\".join(map(str, range(300))))
        for number in range(1, 200)
    ]
    commit(index, *held)
    assert index.dump() == amount(held)
    assert list(index.check()) == []
    assert remove(index, ["1.2.3.1"], {one.uid: one for one in held}) == [Outcome.REMOVED]
    assert index.dump() == amount(held[1:])
    assert list(index.check()) == []


def test_a_patient_of_many_studies_finds_its_values_again(index: Index) -> None:
    """An anonymised archive has one "patient": what a removed study said is looked for in all others."""
    held = [
        instance(number, StudyInstanceUID=f"1.{number}", SeriesInstanceUID=f"1.{number}.1", PatientSex="F")
        for number in range(1, 1500)
    ]
    commit(index, *held)
    for gone in range(3):
        remove(index, [held[gone].uid], {})
        assert index.dump() == amount(held[gone + 1 :])
    assert list(index.check()) == []


# --- properties -------------------------------------------------------------------------------------------

VALUES = st.fixed_dictionaries(
    {
        "StudyInstanceUID": st.sampled_from(["1.1", "1.2", "1.3", ""]),
        "SeriesInstanceUID": st.sampled_from(["2.1", "2.2", ""]),
        "PatientID": st.sampled_from(["A", "B", ""]),
        "IssuerOfPatientID": st.sampled_from(["", "", "X"]),
        "PatientName": st.sampled_from(["", "Doe^John", "Doe^John^^", "Röntgen^W=山田^太郎"]),
        "PatientSex": st.sampled_from(["", "F", "M"]),
        "Modality": st.sampled_from(["", "CT", "MR"]),
        "StudyDate": st.sampled_from(["", "20240101", "2024.01.02"]),
        "StudyDescription": st.sampled_from(["", "Head", "Head\\Neck"]),
        "SeriesDescription": st.sampled_from(["", "a", "b"]),
        "SOPClassUID": st.sampled_from(["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", ""]),
    }
)
BATCH = st.lists(st.tuples(st.integers(1, 12), VALUES, st.integers(1, 9)), min_size=1, max_size=6)


class Histories(RuleBasedStateMachine):
    """Any history of commits, replacements and removals leaves what the instances held amount to."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.index = Index.open(self.folder.name, map_size=1 << 26)
        self.held: dict[str, Instance] = {}
        self.stamps = iter(range(1000, 10**9))

    def teardown(self) -> None:
        self.index.close()
        self.folder.cleanup()

    def make(self, batch: list, early: bool) -> list[Instance]:
        stamps = [next(self.stamps) for _ in batch]
        return [
            instance(number, stamp=10**9 - stamp if early else stamp, size=size, **values)
            for (number, values, size), stamp in zip(batch, stamps, strict=True)
        ]

    @rule(batch=BATCH, early=st.booleans())
    def commit(self, batch: list, early: bool) -> None:
        made = self.make(batch, early)
        for one, outcome in zip(made, commit(self.index, *made), strict=True):
            assert outcome is (Outcome.HELD if one.uid in self.held else Outcome.INSERTED)
            self.held.setdefault(one.uid, one)

    @rule(batch=BATCH, early=st.booleans())
    def replace(self, batch: list, early: bool) -> None:
        made = self.make(batch, early)
        with self.index.exclusive():
            heirs = take_over(self.index, [one.uid for one in made], self.held)
            results = self.index.commit([one.entry for one in made], replace=True, heirs=heirs)
        for one, result in zip(made, results, strict=True):
            before = self.held.get(one.uid)
            assert result.outcome is (Outcome.REPLACED if before else Outcome.INSERTED)
            assert result.previous == (before.entry.locator if before else None)
            self.held[one.uid] = one

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        uids = data.draw(st.lists(st.sampled_from(sorted(self.held)), min_size=1, max_size=4, unique=True))
        assert set(remove(self.index, uids, self.held)) == {Outcome.REMOVED}
        for uid in uids:
            del self.held[uid]

    @invariant()
    def as_the_model(self) -> None:
        assert self.index.dump() == amount(list(self.held.values()))
        assert list(self.index.check()) == []
        for number in range(1, 13):
            assert self.index.held(f"1.2.3.{number}") is (f"1.2.3.{number}" in self.held)


Histories.TestCase.settings = settings(max_examples=30, stateful_step_count=10, deadline=None)
TestHistories = Histories.TestCase


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.lists(VALUES, min_size=1, max_size=9),
    order=st.randoms(use_true_random=False),
    cut=st.integers(1, 4),
)
def test_the_order_of_commits_does_not_matter(values: list, order: object, cut: int) -> None:
    held = [instance(number, **one) for number, one in enumerate(values, 1)]
    shuffled = list(held)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder, Index.open(folder, map_size=1 << 26) as index:
        for start in range(0, len(shuffled), cut):
            commit(index, *shuffled[start : start + cut])
        assert index.dump() == amount(held)
        assert list(index.check()) == []
