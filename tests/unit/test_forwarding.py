"""What a C-MOVE asks a destination for, and the counters of a retrieval."""

from __future__ import annotations

import threading
from typing import NamedTuple

import pytest

from pacs_core.archive import Held
from pacs_core.archive.convert import choose, convert, targets
from pacs_core.client import Remote, forwarding
from pacs_core.client.forwarding import _groups, forward
from pacs_core.dimse.suboperations import Tally
from pacs_core.errors import AssociationError, NotConvertibleError, PacsError
from tests.make import CT, encoded, instance, uid

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.70"


def held(sop_class: str, syntax: str, number: int = 1) -> Held:
    return Held(sop_class, uid(number), syntax, b"")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((EXPLICIT,), [(EXPLICIT,), (IMPLICIT,)]),
        ((BIG_ENDIAN,), [(BIG_ENDIAN,), (EXPLICIT, IMPLICIT)]),
        ((EXPLICIT, IMPLICIT), [(EXPLICIT,), (IMPLICIT,)]),
        ((JPEG,), [(JPEG,)]),
        ((JPEG, DEFLATED), [(JPEG,), (DEFLATED,), (EXPLICIT, IMPLICIT)]),
    ],
)
def test_31_contexts_are_what_is_stored_and_what_to_fall_back_on(
    stored: tuple[str, ...], expected: list[tuple[str, ...]]
) -> None:
    ((contexts, group),) = _groups([held(CT, syntax) for syntax in stored])
    assert contexts == [(CT, syntaxes) for syntaxes in expected]
    assert len(group) == len(stored)


def test_5_more_contexts_than_128_take_several_associations() -> None:
    instances = [held(f"1.2.{number}", EXPLICIT, number) for number in range(1, 101)]
    groups = list(_groups(instances))
    assert [len(contexts) for contexts, _ in groups] == [128, 72]
    assert [one for _, group in groups for one in group] == instances
    for contexts, group in groups:
        assert {one.sop_class_uid for one in group} == {sop_class for sop_class, _ in contexts}


def test_no_more_than_so_many_are_tasks_at_a_time() -> None:
    instances = [held(CT, EXPLICIT)] * 25_000
    assert [len(group) for _, group in _groups(instances)] == [10_000, 10_000, 5_000]


def test_a_destination_that_is_not_there_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def nobody(*_: object) -> None:
        asked.append(1)
        raise AssociationError("nobody is there")

    monkeypatch.setattr(forwarding, "Association", nobody)
    monkeypatch.setattr(forwarding, "_WINDOW", 2)
    outcomes = forward(
        None,  # type: ignore[arg-type]  # no instance is opened
        Remote("127.0.0.1", 9),
        [held(CT, EXPLICIT, number) for number in range(1, 8)],
        originator=("A", 1),
        priority=0,
        associations=1,
        stop=threading.Event(),
    )
    failed = [sent for sent in outcomes if sent is not None]
    assert [sent.sop_instance_uid for sent in failed] == [uid(number) for number in range(1, 8)]
    assert all("nobody is there" in str(sent.error) for sent in failed)
    assert len(asked) == 1


def test_a_class_that_is_no_uid_does_not_spoil_the_others() -> None:
    bad, good = held("CT Image", EXPLICIT), held(CT, EXPLICIT)
    assert [(bool(contexts), group) for contexts, group in _groups([bad, good])] == [
        (False, [bad]),
        (True, [good]),
    ]


def test_31_as_stored_before_anything_else_and_never_lossy() -> None:
    assert choose(BIG_ENDIAN, {EXPLICIT, BIG_ENDIAN}) == BIG_ENDIAN
    assert choose(BIG_ENDIAN, {IMPLICIT, EXPLICIT}) == EXPLICIT
    assert targets(JPEG) == (JPEG,)
    with pytest.raises(NotConvertibleError):
        choose(JPEG, {EXPLICIT, IMPLICIT})
    with pytest.raises(NotConvertibleError):
        choose(EXPLICIT, ())


@pytest.mark.parametrize("stored", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN])
def test_31_there_and_back_is_the_same(stored: str) -> None:
    data = encoded(instance(1), stored)
    for target in targets(stored)[1:]:
        assert convert(convert(data, stored, target), target, stored) == data


def test_what_breaks_off_is_not_converted() -> None:
    with pytest.raises(NotConvertibleError):
        convert(encoded(instance(1))[:-10], EXPLICIT, IMPLICIT)


class Outcome(NamedTuple):
    status: int | None
    sop_instance_uid: str = "1.2.3"
    error: PacsError | None = None


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((), 0x0000),
        ((0x0000,), 0x0000),
        ((0x0000, 0xB007), 0xB000),
        ((0x0000, 0xA700), 0xB000),
        ((0xB000, None), 0xB000),
        ((0xA700, None, 0x0110), 0xA702),
    ],
)
def test_25_final_statuses(statuses: tuple[int | None, ...], expected: int) -> None:
    tally = Tally(len(statuses))
    for status in statuses:
        tally.count(Outcome(status))
    assert (tally.status(), tally.remaining) == (expected, 0)


def test_26_counters_stay_within_what_they_can_say() -> None:
    tally = Tally(200_000)
    tally.completed = 70_000
    assert tally.elements(remaining=True) == {0x1020: 65535, 0x1021: 65535, 0x1022: 0, 0x1023: 0}
    assert tally.elements(remaining=False)[0x1020] is None
