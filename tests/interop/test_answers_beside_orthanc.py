"""Random C-FIND queries to our server and to Orthanc, over the same archive: the same answers.

Where they differ is told here as data: each difference with who is right, and the section of the standard.
A match that only one of them has, or tells otherwise, and that none of these explains, fails; and so does an
entry that explains nothing any more. PACS_CORE_QUERIES says how many queries, if more are wanted.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import query_oracle as oracle

from pacs_core import Client
from pacs_core.client.association import Association
from pacs_core.client.exchange import SYNTAXES, matches
from pacs_core.dicom import dictionary
from pacs_core.dicom.attributes import Level
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.identifier import asked_of
from pacs_core.dicom.query import PATIENT_ROOT, STUDY_ROOT, WITH_WILDCARDS, Key, Matching, key_of
from pacs_core.errors import RefusedError
from tests.interop.archives import Made, Row, archive
from tests.interop.test_query_peers import orthanc_node
from tests.make import part10
from tests.serving import serving

QUERIES = int(os.environ.get("PACS_CORE_QUERIES", "600"))
PATIENTS = 60
NOBODY = 9  # a port that nothing is moved to

# What both match and return at a level; the first is its unique key.
KEYS = {
    Level.PATIENT: ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    Level.STUDY: (
        *("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate"),
        *("StudyTime", "StudyID", "AccessionNumber", "StudyDescription", "ReferringPhysicianName"),
        *("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
    ),
    Level.SERIES: (
        *("SeriesInstanceUID", "SeriesNumber", "Modality", "SeriesDate", "SeriesTime", "OperatorsName"),
        *("SeriesDescription", "BodyPartExamined", "StationName", "NumberOfSeriesRelatedInstances"),
    ),
    Level.IMAGE: (
        *("SOPInstanceUID", "InstanceNumber", "ImageType", "AcquisitionDateTime", "ContentDate"),
        "ContentTime",
    ),
}


# --- where they differ ------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """A way in which the answers differ.

    Attributes
    ----------
    right : str
        "ours", or "both" where the standard leaves it open.
    explains : callable
        Whether it can be why one of the two finds, and the other does not, what has that value in that key.
    """

    what: str
    right: str
    section: str
    explains: Callable[[Case], bool]


MODALITIES = 0x0008_0061


class Case(NamedTuple):
    """One key of a query, and what somebody has there, '' if nothing."""

    key: Key
    text: str
    value: str

    @property
    def matched(self) -> bool:
        """Whether it says anything."""
        return self.key.matching is not Matching.UNIVERSAL

    @property
    def as_text(self) -> bool:
        """Whether the value is that text, or between those texts."""
        if self.key.matching is not Matching.RANGE:
            return self.value in self.key.values
        first, last = self.key.values
        return first <= self.value and (not last or self.value <= last)


DIFFERENCES = (
    Difference(
        "'*' alone is universal matching: it finds what does not have the attribute, too. Orthanc does not",
        "ours",
        "C.2.2.2.3, C.2.2.2.4",
        lambda it: not it.value and not it.matched and "*" in it.text,
    ),
    Difference(
        "A range is of dates and times: what has none is not in it. To Orthanc empty is before everything",
        "ours",
        "C.2.2.2.5",
        lambda it: it.key.matching is Matching.RANGE and not it.value and not it.key.values[0],
    ),
    Difference(
        "Times match by what they denote. Orthanc compares their text: 101112.5 is not 101112.500000",
        "ours",
        "C.2.2.2.1, C.2.2.2.5, PS3.5 6.2",
        lambda it: it.key.vr == "TM" and it.matched and it.as_text != oracle.matches(it.key, it.value),
    ),
    Difference(
        "An attribute of several values matches by any of them. Orthanc takes them for one text",
        "ours",
        "C.2.2.3",
        lambda it: "\\" in it.value and it.key.tag != MODALITIES,
    ),
    Difference(
        "Numbers of related instances match. Orthanc returns them, and finds nothing if they are asked for",
        "ours",
        "C.2.2.1.3, C.3.4",
        lambda it: it.key.keyword.startswith("NumberOf") and it.matched,
    ),
    Difference(
        "'?' is one character in names, too. To Orthanc it is one byte of UTF-8",
        "both",
        "C.2.2.2.4: of names wild card matching is implementation dependent",
        lambda it: "?" in it.text and not it.value.isascii(),
    ),
    Difference(
        "Several values in a key may be patterns. Orthanc has no wildcards where there are several",
        "both",
        "C.2.2.2.8: without negotiation several values are undefined",
        lambda it: "\\" in it.text and bool(set(it.text) & {"*", "?"}),
    ),
    Difference(
        "'*', '^' and '=' alone say nothing of a name. To Orthanc ^* is a name without family name",
        "both",
        "C.2.2.2.4: of names wild card matching is implementation dependent",
        lambda it: it.key.vr == "PN" and not it.matched and "^" in it.text,
    ),
    Difference(
        "Names match whatever their case. Orthanc knows upper and lower case of ASCII only",
        "both",
        "C.2.2.2.1",
        lambda it: it.key.vr == "PN" and not it.value.isascii() and it.text.casefold() != it.text,
    ),
    Difference(
        "Component groups of a name match one by one. Orthanc takes a name for one text, '=' and all",
        "both",
        "C.2.2.2.4, note 3",
        lambda it: it.key.vr == "PN" and "=" in it.value,
    ),
)
NO_WILDCARDS = Difference(
    "'*' and '?' are no wildcards in UIDs, dates, times, numbers: no match. Orthanc answers C000",
    "both",
    "C.2.2.2.4: only certain VRs have wildcards",
    lambda it: it.key.vr not in WITH_WILDCARDS and bool(set(it.text) & {"*", "?"}),
)


# --- queries ----------------------------------------------------------------------------------------------


class Question(NamedTuple):
    level: Level
    asked: dict[str, str]
    """What is to be matched, as text by keyword."""
    keys: dict[str, str]
    """That, what is to be returned besides, and the unique keys above."""


def questions(made: Made, seed: int, count: int) -> Iterator[Question]:
    dice = random.Random(seed)
    for _ in range(count):
        level = dice.choice([Level.PATIENT, Level.STUDY, Level.STUDY, Level.SERIES, Level.IMAGE])
        known = list(rows(made, level).values())
        asked = {}
        for keyword in dice.sample(KEYS[level], dice.choice([1, 1, 2, 3])):
            values = [row[keyword] for row in known if row.get(keyword)]
            asked[keyword] = said(dice, values, dictionary.vr_of(dictionary.tag_of(keyword)))
        one = dice.choice(known)
        above = [KEYS[above][0] for above in (Level.STUDY, Level.SERIES) if above < level]
        keys = {keyword: one[keyword] for keyword in above} | asked
        for keyword in (KEYS[level][0], *dice.sample(KEYS[level], 3)):
            keys.setdefault(keyword, "")
        yield Question(level, asked, keys)


def said(dice: random.Random, values: list[str], vr: str) -> str:
    """What a key may say: something that is there, more or less."""
    text, other = dice.choice(values), dice.choice(values)
    at, to = sorted(dice.randrange(len(text) + 1) for _ in range(2))
    forms = [
        *(text, text, text, f"{text} ", text.swapcase(), f"{text}\\{other}"),
        *(text[:to] + "*", f"*{text[at:to]}*", text[:at] + "?" + text[at + 1 :]),
        dice.choice(["*", "**", ""]),
    ]
    if vr == "PN":  # what is rare otherwise
        forms += ["^*", text.swapcase(), "?" + text[1:], "*" + text[text.rfind("=") - 1 :]]
    if vr in ("DA", "TM"):
        forms += [f"{min(text, other)}-{max(text, other)}", f"{text}-", f"-{text}"] * 3
    return dice.choice(forms)


def rows(made: Made, level: Level) -> dict[str, Row]:
    return (made.patients, made.studies, made.series, made.images)[level]


def expected(made: Made, question: Question) -> set[str]:
    """What the rules of `dicom.query` have it answered."""
    keys = {keyword: key(keyword, text) for keyword, text in question.keys.items()}
    return {
        unique
        for unique, row in rows(made, question.level).items()
        if all(oracle.matches(one, row.get(keyword, "")) for keyword, one in keys.items())
    }


def key(keyword: str, text: str) -> Key:
    tag = dictionary.tag_of(keyword)
    return key_of(tag, dictionary.vr_of(tag), text)


# --- answers ----------------------------------------------------------------------------------------------


class Answers(NamedTuple):
    ours: Association
    orthanc: Association
    made: Made


@pytest.fixture(scope="module")
def answers(orthanc: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    folder = tmp_path_factory.mktemp("beside")
    made = archive(1, PATIENTS)
    files = [part10(one) for one in made.instances]
    contexts = [(model.find, SYNTAXES) for model in (PATIENT_ROOT, STUDY_ROOT)]
    with orthanc_node(orthanc, folder, NOBODY) as port, serving(folder / "archive") as server:
        clients = [Client("127.0.0.1", server.port), Client("127.0.0.1", port, aec="QR")]
        for client in clients:
            assert all(sent.stored for sent in client.store(files))
        ours, theirs = (client.associate(contexts) for client in clients)
        yield Answers(ours, theirs, made)
        ours.release()
        theirs.release()


def found(association: Association, question: Question) -> dict[str, dict[str, str]] | None:
    """What is told of each match, by unique key and keyword; None if the query is refused."""
    root = Level.PATIENT if question.level is Level.PATIENT else Level.STUDY
    asked = asked_of(question.keys | {"SpecificCharacterSet": "ISO_IR 192"}, question.level, root)
    try:
        return {
            texts[KEYS[question.level][0]]: texts
            for match in matches(association, asked)
            if (texts := {keyword: text_of(match, keyword) for keyword in question.keys})
        }
    except RefusedError:
        return None


def text_of(match: Dataset, keyword: str) -> str:
    """A value as text; modalities in an order."""
    assert keyword in match, keyword
    values = [str(getattr(value, "text", value)).strip(" \0") for value in match.element(keyword).values]
    return "\\".join(sorted(values) if keyword == "ModalitiesInStudy" else values)


def test_the_same_answers(answers: Answers) -> None:
    """CONFORMANCE 16 to 20, 22, 24."""
    used: Counter[Difference] = Counter()
    matched = 0
    for number, question in enumerate(questions(answers.made, 2, QUERIES)):
        ours, theirs = found(answers.ours, question), found(answers.orthanc, question)
        assert ours is not None
        assert ours.keys() == expected(answers.made, question), (number, question)
        if theirs is None:
            assert any(
                NO_WILDCARDS.explains(Case(key(*one), one[1], "")) for one in question.asked.items()
            ), question
            used[NO_WILDCARDS] += 1
            continue
        for unique in ours.keys() ^ theirs.keys():
            why = explained(question, rows(answers.made, question.level)[unique])
            assert why, (number, question, unique, unique in ours)
            used.update(why)
        for unique in ours.keys() & theirs.keys():
            assert ours[unique] == theirs[unique], (number, question)
            matched += 1
    assert matched > QUERIES
    assert [one.what for one in (*DIFFERENCES, NO_WILDCARDS) if not used[one]] == []


def explained(question: Question, row: Row) -> list[Difference]:
    """Why one of the two does not find what is known by that row."""
    return [
        one
        for one in DIFFERENCES
        if any(
            one.explains(Case(key(keyword, text), text, row.get(keyword, "")))
            for keyword, text in question.asked.items()
        )
    ]
