"""Attributes that an archive learns of later: what is recorded, what is told meanwhile, what it comes to."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs_core import Archive
from pacs_core.archive import Duplicates
from pacs_core.archive import fill as filling
from pacs_core.archive.fill import Filled, remaining
from pacs_core.archive.reindex import reindex
from pacs_core.archive.verify import verify
from pacs_core.dicom import dictionary
from pacs_core.dicom.added import asked
from pacs_core.dicom.attributes import ATTRIBUTES, Level
from pacs_core.dicom.query import Key, Matching, Query, key_of
from pacs_core.dicom.reading import read_dataset
from pacs_core.errors import ArchiveError, ConfigError
from pacs_core.index import Index, schema
from tests.make import instance, part10, uid

ROUNDS = int(os.environ.get("PACS_CORE_ROUNDS", "25"))
EXPLICIT = "1.2.840.10008.1.2.1"
ASKED = ("PatientBirthName", "AdmissionID", "DeviceSerialNumber", "SliceThickness")
MAP = 1 << 28


def opened(path: Path, attributes: tuple[str, ...] = (), **options: Any) -> Archive:
    return Archive.open(path, map_size=MAP, attributes=attributes, **options)


def ask(archive: Archive, level: Level, **texts: str) -> tuple[list[dict[str, str]], set[str]]:
    """What matches, by keyword, and the keywords of the keys that are not supported."""
    tags = {dictionary.tag_of(keyword): text for keyword, text in texts.items()}
    keys = tuple(key_of(tag, dictionary.vr_of(tag), text) for tag, text in sorted(tags.items()))
    answer = archive.search(Query(level, keys, relational=True, tags=frozenset(tags)))
    found = [
        read_dataset(match, EXPLICIT) for chunk in answer.responses({}, implicit=False) for match in chunk
    ]
    return (
        [{k: str(match.get(k)) for k in texts if match.get(k) is not None} for match in found],
        {dictionary.keyword_of(tag) for tag in answer.unsupported},
    )


def image(number: int, study: int = 1, **more: object) -> bytes:
    values = {
        "PatientBirthName": f"Maiden{study}^Jane",
        "AdmissionID": f"V{study}",
        "DeviceSerialNumber": f"D{study}",
        "SliceThickness": str(number % 4),
    }
    return part10(instance(number, study=study, patient=f"P{study}", size=2, **{**values, **more}))


def test_what_is_added_is_matched_and_told_at_its_level_and_below(tmp_path: Path) -> None:
    with opened(tmp_path / "archive", ASKED) as archive:
        assert [addition.pending for addition in archive.additions()] == [False] * 4
        for number in range(6):
            archive.store(image(number, study=1 + number % 2))
        for level in Level:
            texts = dict(zip(ASKED[: level + 1], ("Maiden2*", "V2", "D2", "3"), strict=False))
            found, unsupported = ask(archive, level, **texts)
            assert not unsupported
            assert len(found) == 1
            assert [found[0][keyword] for keyword in texts] == ["Maiden2^Jane", "V2", "D2", "3.0"][
                : len(texts)
            ]
        assert ask(archive, Level.STUDY, SliceThickness="1")[1] == {"SliceThickness"}
        assert (
            archive.search(
                Query(Level.STUDY, (key_of(0x00380010, "LO", "V2"),), tags=frozenset({0x00380010}))
            ).explain()
            == "walks keys of AdmissionID=V2 (level STUDY)\ntests AdmissionID=V2"
        )
        assert list(archive.index.check()) == []


# Of each VR one that an index can be asked to hold, and a value that its encoding has to get right.
OF_EACH_VR: dict[str, tuple[str, Any]] = {
    "AE": ("StationAETitle", "CT1"),
    "AS": ("SelectorASValue", "031Y"),
    "AT": ("DataElement", [0x0010_0020, 0x7FE0_0010]),
    "CS": ("SmokingStatus", "UNKNOWN"),
    "DA": ("LastMenstrualDate", "20240102"),
    "DS": ("SliceThickness", "1.5"),
    "DT": ("InstanceCoercionDateTime", "20240102101112.5+0100"),
    "FD": ("TimeRange", [1.5e10, -0.25]),
    "FL": ("RecommendedDisplayFrameRateInFloat", 0.1),
    "IS": ("ReferencedFrameNumber", "-3"),
    "LO": ("AdmissionID", "Łódź"),
    "LT": ("ExtendedCodeMeaning", "one\\text"),
    "PN": ("PatientBirthName", "Müller^Jane"),
    "SH": ("ReferringPhysicianTelephoneNumbers", "0123"),
    "SL": ("ReferencePixelX0", -5),
    "SS": ("TagAngleSecondAxis", -7),
    "ST": ("InstitutionAddress", "Way 1"),
    "SV": ("SelectorSVValue", -(1 << 63)),
    "TM": ("SecondaryReviewTime", "101112.5"),
    "UC": ("LongCodeValue", "a long one"),
    "UI": ("DeviceUID", "1.2.3"),
    "UL": ("SelectorULValue", 0xFFFF_FFFE),
    "UR": ("CodingSchemeURL", "https://example.org/"),
    "US": ("PixelPaddingRangeLimit", 65535),
    "UT": ("StrainAdditionalInformation", "of no strain"),
    "UV": ("SelectorUVValue", (1 << 64) - 1),
}


@pytest.mark.parametrize("syntax", [EXPLICIT, "1.2.840.10008.1.2"])
def test_every_vr_is_told_by_the_index_as_by_the_instance(tmp_path: Path, syntax: str) -> None:
    """CONFORMANCE 24: whichever of them answers."""
    made = instance(1, size=2, SpecificCharacterSet="ISO_IR 192")
    for vr, (keyword, value) in OF_EACH_VR.items():
        made.add_new(keyword, vr, value)
    tags = {dictionary.tag_of(keyword): vr for vr, (keyword, _) in OF_EACH_VR.items()}
    asked_tags = frozenset(tags)
    answers = []
    for name, added in ("read", ()), ("held", tuple(f"IMAGE:{tag:08X}" for tag in tags)):
        with opened(tmp_path / name, added) as archive:
            archive.store(part10(made))
            query = Query(Level.IMAGE, (), relational=True, tags=asked_tags)
            answer = archive.search(query)
            assert ("not in the index" in answer.explain()) is not bool(added)
            [response] = [one for chunk in answer.responses({}, implicit=syntax != EXPLICIT) for one in chunk]
            answers.append(read_dataset(response, syntax))
    from_instance, from_index = answers
    for tag, vr in tags.items():
        assert from_index.element(tag).vr == vr
        assert from_index[tag] == from_instance[tag], vr
    assert from_index.SelectorUVValue == (1 << 64) - 1
    assert from_index.DataElement == (0x0010_0020, 0x7FE0_0010)


def test_until_all_were_asked_no_answer_is_made_of_a_part(tmp_path: Path) -> None:
    """CONFORMANCE 21: what is not held of all is not supported; of images it is read from each."""
    with opened(tmp_path / "archive") as archive:
        for number in range(6):
            archive.store(image(number, study=1 + number % 2))
    with opened(tmp_path / "archive", ASKED) as archive:
        archive.store(image(9, study=3))
        assert [addition.pending for addition in archive.additions()] == [True] * 4
        assert remaining(archive.index) == 6
        found, unsupported = ask(archive, Level.STUDY, StudyInstanceUID="", AdmissionID="V3")
        assert len(found) == 3
        assert unsupported == {"AdmissionID"}
        assert all(match.keys() == {"StudyInstanceUID"} for match in found)
        found, unsupported = ask(archive, Level.IMAGE, AdmissionID="V1", SliceThickness="")
        assert not unsupported
        assert sorted(match["SliceThickness"] for match in found) == ["0.0", "0.0", "2.0"]
        assert (
            "not in the index of all instances yet: 00380010"
            in archive.search(
                Query(Level.STUDY, (key_of(0x00380010, "LO", "V2"),), tags=frozenset({0x00380010}))
            ).explain()
        )
        assert archive.fill() == Filled(6, 0)
        assert ask(archive, Level.STUDY, AdmissionID="V1") == ([{"AdmissionID": "V1"}], set())
        assert len(ask(archive, Level.PATIENT, PatientBirthName="maiden*")[0]) == 3
        assert archive.fill() == Filled(0, 0)
        assert verify(archive).clean


def test_what_was_added_stays_until_a_reindex(tmp_path: Path) -> None:
    """An archive is opened by many, with settings and without: those without take nothing from the others."""
    path = tmp_path / "archive"
    opened(path, ASKED).close()
    with opened(path, ("AdmissionID",)) as archive:
        archive.store(image(1))
    with opened(path) as archive:
        assert ask(archive, Level.SERIES, DeviceSerialNumber="D1")[0] == [{"DeviceSerialNumber": "D1"}]
        with pytest.raises(ArchiveError, match="at level STUDY"):
            archive.index.add([asked("SERIES:AdmissionID")])
    place = archive.place
    assert reindex(place, map_size=MAP, attributes=("SERIES:AdmissionID",)).indexed == 1
    with opened(path, ("AdmissionID",)) as archive:  # at which level it does not say
        assert [tuple(a.attribute[1:]) for a in archive.additions()] == [("AdmissionID", "LO", Level.SERIES)]
        assert ask(archive, Level.SERIES, AdmissionID="V1")[0] == [{"AdmissionID": "V1"}]
        assert ask(archive, Level.SERIES, DeviceSerialNumber="D1")[1] == {"DeviceSerialNumber"}


def test_no_room_and_no_attribute_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"archive\.attributes: PatientAgge: no keyword"):
        opened(tmp_path / "archive", ("PatientAgge",))
    assert not (tmp_path / "archive").exists()
    many = [f"PATIENT:{keyword}" for keyword in filling_keywords(60)]
    with pytest.raises(ArchiveError, match=r"no room for .* 48 attributes at a level"):
        opened(tmp_path / "archive", tuple(many))
    opened(tmp_path / "archive", tuple(many[:40])).close()


def filling_keywords(count: int) -> list[str]:
    known = {attribute.keyword for attribute in ATTRIBUTES}
    found = (entry for tag in range(0x0018_1000, 0x0018_1400) if (entry := dictionary.entry(tag)) is not None)
    return [e.keyword for e in found if e.vr in ("LO", "DS", "IS", "SH") and e.keyword not in known][:count]


def test_a_further_addition_starts_again_and_a_broken_off_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with opened(path) as archive:
        for number in range(10):
            archive.store(image(number))
    done = Filled()
    with opened(path, ASKED[:1]) as archive:
        for _ in range(2):
            assert filling._step(archive.index, archive.objects, done, 3) == 3
    with opened(path) as archive:  # begins with what is left
        assert remaining(archive.index) == 4
        before = archive.index.filling()
        assert before is not None
    with opened(path, ASKED[:2]) as archive:
        assert remaining(archive.index) == 10
        assert not archive.index.fill(before, [], before.until)  # whoever was at the first is told
        assert archive.fill().instances == 10
        found, unsupported = ask(archive, Level.STUDY, PatientBirthName="", AdmissionID="")
        assert found == [{"PatientBirthName": "Maiden1^Jane", "AdmissionID": "V1"}]
        assert not unsupported


def test_an_instance_that_can_not_be_read_is_counted_and_holds_nothing_up(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with opened(path, small=0) as archive:
        for number in range(3):
            archive.store(image(number))
        with archive.open_instance(uid(1, 1, 1)) as one:
            where = Path(f"/proc/self/fd/{one.fd}").readlink()
    where.unlink()
    with opened(path, ASKED) as archive:
        assert archive.fill() == Filled(2, 1)
        assert ask(archive, Level.STUDY, AdmissionID="V1")[0]


# --- an index of before ---------------------------------------------------------------------------------


def test_an_index_of_the_version_before_is_opened_and_learns(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    request = Dataset()
    request.ScheduledProcedureStepID = "S1"
    with opened(path) as archive:
        archive.store(image(1, RequestAttributesSequence=[request]))
        env = archive.index._opened.env
        codes = schema.unpack_codes(env.read(schema.META, [b"codes"])[0] or b"")
        old = [(tag, code) for tag, code in codes.items() if tag != 0x0040_0275]
        packed = b"".join(struct.pack("<IBB", tag, code.level, code.code) for tag, code in old)
        env.write([(schema.META, b"codes", packed), (schema.META, b"schema", struct.pack("<I", 1))])
    with opened(path, ASKED) as archive:
        again = schema.unpack_codes(archive.index.environment.read(schema.META, [b"codes"])[0] or b"")
        assert {tag: again[tag] for tag, _ in old} == dict(old)
        assert ask(archive, Level.STUDY, AccessionNumber="A1")[0] == [{"AccessionNumber": "A1"}]
        assert requested(archive, ("ScheduledProcedureStepID", "S2")) == (1, {"RequestAttributesSequence"})
        assert archive.fill().instances == 1
        assert ask(archive, Level.STUDY, AdmissionID="V1")[0] == [{"AdmissionID": "V1"}]
        assert requested(archive, ("ScheduledProcedureStepID", "S1")) == (1, set())
        assert requested(archive, ("ScheduledProcedureStepID", "S2")) == (0, set())
        # What the items are not held with makes the whole of it unsupported, but at image level.
        assert requested(archive, ("ReasonForTheRequestedProcedure", "no"))[1] == {
            "RequestAttributesSequence"
        }
        assert requested(archive, ("ReasonForTheRequestedProcedure", "no"), Level.IMAGE) == (0, set())
        assert list(archive.index.check()) == []


def requested(archive: Archive, asked: tuple[str, str], level: Level = Level.SERIES) -> tuple[int, set[str]]:
    """How many match an attribute of a requests' items, and the keywords of what is not supported."""
    inner = key_of(dictionary.tag_of(asked[0]), "SH", asked[1])
    key = Key(0x00400275, "SQ", Matching.SEQUENCE, keys=(inner,))
    answer = archive.search(Query(level, (key,), relational=True, tags=frozenset({key.tag})))
    found = [match for chunk in answer.responses({}, implicit=True) for match in chunk]
    return len(found), {dictionary.keyword_of(tag) for tag in answer.unsupported}


# --- all that can happen meanwhile ------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [True, False])
def test_what_goes_while_it_is_asked_is_passed_over(
    tmp_path: Path, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers are read beside all that others do: one may be of an instance that is held no more."""
    path, read = tmp_path / "archive", filling.read_instance
    with opened(path) as archive:
        archive.store(image(1, SliceThickness="1"))
        archive.store(image(2, AdmissionID="", SliceThickness="2"))
    with opened(path, ASKED, duplicates=Duplicates.REPLACE) as archive:

        def read_and_lose(*args: Any, **options: Any) -> Any:
            kept = read(*args, **options)
            if kept.uid == uid(1, 1, 1) and replaced:
                archive.store(image(1, AdmissionID="", SliceThickness="9"))
            elif kept.uid == uid(1, 1, 1):
                archive.delete(instance=kept.uid)
            return kept

        monkeypatch.setattr(filling, "read_instance", read_and_lose)
        archive.fill()
        found, unsupported = ask(archive, Level.IMAGE, AdmissionID="", SliceThickness="")
        assert not unsupported
        assert sorted(found, key=repr) == [
            {"AdmissionID": "", "SliceThickness": one} for one in (["2.0", "9.0"] if replaced else ["2.0"])
        ]
        assert list(archive.index.check()) == []


def happenings(archive: Archive, dice: random.Random, done: Filled) -> Iterator[Callable[[], object]]:
    """Something that happens to an archive: stores, replacements, deletions, a batch that is asked."""

    def some(*values: str) -> str:
        return dice.choice(["", *values])

    def store() -> None:
        number, study = dice.randrange(12), 1 + dice.randrange(3)
        more = {
            "PatientBirthName": some("A^A", "B^B"),
            "AdmissionID": some("V1", "V2", "V3\\V4"),
            "DeviceSerialNumber": some("D1", "D2"),
            "SliceThickness": some("1", "2.5"),
            "StudyDescription": some("x", "y"),
        }
        patient = dice.choice(["P1", "P1", "P2", ""])
        archive.store(
            part10(instance(number, study=study, series=1 + number % 2, patient=patient, size=2, **more))
        )

    def delete() -> None:
        archive.ingest.remove([uid(1 + dice.randrange(3), 1, dice.randrange(12)) for _ in range(3)])

    def ask_some() -> None:
        filling._step(archive.index, archive.objects, done, dice.randrange(1, 5))

    while True:
        yield dice.choice([store, store, store, delete, ask_some, ask_some])


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_whatever_happens_meanwhile_it_is_what_a_rebuild_gives(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    path, done = tmp_path / "archive", Filled()
    policy = dice.choice([Duplicates.KEEP, Duplicates.REPLACE])
    for attributes in ((), ASKED[:2], ASKED):
        with opened(path, attributes, duplicates=policy) as archive:
            life = happenings(archive, dice, done)
            for _ in range(dice.randrange(60)):
                next(life)()
            assert list(archive.index.check()) == []
            if attributes == ASKED:
                archive.fill()
                assert not any(addition.pending for addition in archive.additions())
                told = archive.index.dump()
                assert list(archive.index.check()) == []
    reindex(archive.place, map_size=MAP, attributes=ASKED)
    with Index.open(archive.place.index, map_size=MAP) as rebuilt:
        assert rebuilt.dump() == told
