"""Rules that change data sets: what they select, what becomes of it, and that nothing else is touched."""

from __future__ import annotations

import datetime
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pacs_core
from pacs_core import Dataset, edit
from pacs_core.dicom import selectors, uids, writing
from pacs_core.dicom.part10 import Reception, encode_meta, read_meta
from pacs_core.errors import InvalidValueError
from tests import make

SECRET = b"a secret of tests"
CREATOR = "GEMS_IDEN_01"


def applied(dataset: Dataset, *rules: edit.Rule) -> Dataset:
    return edit.Rules(rules, SECRET).apply(dataset)


def sample() -> Dataset:
    """Two items deep, with two private creators, an overlay, and dates of every kind."""
    dataset = Dataset(
        SOPClassUID=make.CT,
        SOPInstanceUID=make.uid(1),
        StudyInstanceUID=make.uid(2),
        PatientName="Doe^Jane",
        PatientID="P1",
        StudyDate="20240229",
        AcquisitionDateTime="20240301101112.5+0100",
        ReferencedStudySequence=[
            {
                "ReferencedSOPClassUID": "1.2.840.10008.3.1.2.3.1",
                "ReferencedSOPInstanceUID": make.uid(2),
                "PatientID": "P1",
                "RequestAttributesSequence": [{"PatientID": "P2", "StudyDate": "20240101"}],
            },
            {"PatientID": "P3"},
        ],
    )
    dataset.set((0x0009, CREATOR, 0x02), "SUITE")
    dataset.set((0x0009, "ACME", 0x02), "ACME'S", "LO")
    dataset.ReferencedStudySequence[0].set((0x0009, CREATOR, 0x02), "NESTED")
    dataset.set(0x6000_3000, b"\1\2")
    dataset.set(0x6002_3000, b"\3\4")
    return pacs_core.read(dataset.to_file())


def paths(dataset: Dataset) -> list[str]:
    return [element.path for element in dataset.walk()]


ID, REFERENCED, REQUEST = "00100020", "ReferencedStudySequence", "RequestAttributesSequence"
SUITE = "ReferencedStudySequence.0.00091002"


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("PatientID", [ID]),
        ("0010,0020", [ID]),
        (f"{REFERENCED}.1.PatientID", [f"{REFERENCED}.1.{ID}"]),
        (f"{REFERENCED}.-1.PatientID", [f"{REFERENCED}.1.{ID}"]),
        (f"{REFERENCED}.2.PatientID", []),
        ("PatientName.0.PatientID", []),
        ("OtherPatientIDsSequence.0.PatientID", []),
        (f"{REFERENCED}.*.PatientID", [f"{REFERENCED}.0.{ID}", f"{REFERENCED}.1.{ID}"]),
        (
            "**.PatientID",
            [f"{REFERENCED}.0.{ID}", f"{REFERENCED}.0.{REQUEST}.0.{ID}", f"{REFERENCED}.1.{ID}", ID],
        ),
        ("60xx", ["60003000", "60023000"]),
        ("60023xxx", ["60023000"]),
        ("(6000,3xx0)", ["60003000"]),
        ("6000", ["60003000"]),
        (f"(0009,{CREATOR},02)", ["00091002"]),
        (f"{REFERENCED}.0.(0009,{CREATOR},02)", [SUITE]),
        (f"**.(0009,{CREATOR},02)", [SUITE, "00091002"]),
        ("(0009,ACME,*)", ["00090011", "00091102"]),
        ("(0009,NOBODY,*)", []),
        (
            "private",
            [f"{REFERENCED}.0.00090010", SUITE, "00090010", "00090011", "00091002", "00091102"],
        ),
    ],
)
def test_selectors(text: str, selected: list[str]) -> None:
    found = selectors.found(selectors.parse(text), sample())
    assert [f"{path[: path.rfind('.') + 1]}{element.tag:08X}" for path, element in found] == selected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PatientNme",
        "**.",
        "**.60xx",
        "60xg",
        "A.b.C",
        "*",
        f"{REFERENCED}.0.(0009,ACME,*)",
        f"(0009,{CREATOR},02).0.(0009,ACME,*)",
    ],
)
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(KeyError):
        selectors.parse(text)


def test_a_creator_may_look_like_a_step() -> None:
    dataset = Dataset()
    dataset.set((0x0009, "1.2.840.113681", 0x02), [Dataset(PatientID="X")], "SQ")
    for key in ("(0009,1.2.840.113681,02).0.PatientID", "(0009,1.2.840.113681,02).*.PatientID"):
        applied(dataset, edit.set(key, key))
        assert dataset[0x0009_1002][0].PatientID == key
    assert 0x0009_1002 not in applied(dataset, edit.remove("(0009,1.2.840.113681,02)"))
    assert len(applied(dataset, edit.remove("(0009,1.2.840.113681,*)"))) == 0


def test_set() -> None:
    dataset = applied(
        sample(),
        edit.set("PatientName", "Roe^Richard"),
        edit.set("InstitutionName", "made"),
        edit.set("ImageType", ["DERIVED", "PRIMARY"]),
        edit.set("ReferencedStudySequence.*.PatientID", "in all"),
        edit.set("ReferencedStudySequence.7.PatientID", "nowhere"),
        edit.set("**.StudyDate", "20000101"),
        edit.set("**.SeriesDate", "20000101"),
        edit.set("(0009,ACME,03)", 5, "US"),
        edit.set("(0011,NEW,01)", "X", "LO"),
    )
    assert dataset.PatientName == "Roe^Richard"
    assert dataset.InstitutionName == "made"
    assert dataset.ImageType == ("DERIVED", "PRIMARY")
    assert [item.PatientID for item in dataset.ReferencedStudySequence] == ["in all", "in all"]
    assert dataset.StudyDate.text == "20000101"
    assert dataset["ReferencedStudySequence.0.RequestAttributesSequence.0.StudyDate"].text == "20000101"
    assert "SeriesDate" not in dataset
    assert dataset[0x0009_1103] == 5
    assert dataset[0x0011_0010] == "NEW"
    assert dataset[0x0011_1001] == "X"


def test_what_is_set_is_no_ones_else() -> None:
    item = Dataset(PatientID="P9")
    rules = edit.Rules([edit.set("OtherPatientIDsSequence", [item])])
    one, other = rules.apply(sample()), rules.apply(sample())
    one.OtherPatientIDsSequence[0].PatientID = "changed"
    assert other.OtherPatientIDsSequence[0].PatientID == item.PatientID == "P9"


def test_empty_and_remove() -> None:
    dataset = applied(
        sample(),
        edit.empty("PatientName"),
        edit.empty("ReferencedStudySequence.0.RequestAttributesSequence"),
        edit.empty("InstitutionName"),
        edit.remove("**.PatientID"),
        edit.remove("60xx"),
        edit.remove(f"(0009,{CREATOR},*)"),
    )
    assert dataset.PatientName == ""
    assert len(dataset["ReferencedStudySequence.0.RequestAttributesSequence"]) == 0
    assert "InstitutionName" not in dataset
    left = paths(pacs_core.read(dataset.to_file()))
    assert not [path for path in left if path.endswith(("PatientID", "3000")) or path.startswith("00091002")]
    assert [f"{element.tag:08X}" for element in dataset if element.tag >> 16 == 9] == ["00090011", "00091102"]


def test_the_first_rule_that_selects_decides() -> None:
    special = edit.set("StudyInstanceUID", "1.2.3")
    assert applied(sample(), special, edit.map_uids()).StudyInstanceUID == "1.2.3"
    assert applied(sample(), edit.map_uids(), special).StudyInstanceUID.startswith("2.25.")
    assert applied(sample(), edit.empty("PatientID"), edit.hash("**.PatientID")).PatientID == ""
    assert len(applied(sample(), edit.hash("**.PatientID"), edit.empty("PatientID")).PatientID) == 16
    assert len(applied(sample(), edit.hash("PatientID"), edit.empty("PatientID")).PatientID) == 16
    both = [edit.shift_dates(1), edit.shift_dates(100)]
    assert applied(sample(), *both).StudyDate == datetime.date(2024, 3, 1)
    removed = applied(sample(), edit.remove("ReferencedStudySequence"), edit.set("**.PatientID", "X"))
    assert "ReferencedStudySequence" not in removed


def test_what_is_kept_of_private_elements_keeps_its_creator() -> None:
    wanted = f"(0009,{CREATOR},02)"
    for rule in (edit.keep(wanted), edit.set(wanted, "SET")):
        dataset = applied(sample(), rule, edit.remove("private"))
        assert [f"{element.tag:08X}" for element in dataset if element.tag >> 16 == 9] == [
            "00090010",
            "00091002",
        ]
        assert dataset[wanted] == "SUITE" if rule == edit.keep(wanted) else "SET"
        assert not [path for path in paths(dataset) if path.startswith("ReferencedStudySequence.0.0009")]
    assert 0x0009_0010 not in applied(sample(), edit.remove(wanted), edit.remove("private"))


def test_who_empties_private_elements_leaves_their_creators() -> None:
    dataset = applied(sample(), edit.empty("private"))
    assert (dataset[0x0009_0010], dataset[0x0009_1002], dataset[0x0009_0011]) == (CREATOR, "", "ACME")


HASH_VRS = {"AE": 16, "CS": 16, "LO": 64, "LT": 10240, "PN": 64, "SH": 16, "ST": 1024, "UC": 999, "UT": 999}


@given(
    st.sampled_from(sorted(HASH_VRS)),
    st.text(st.characters(codec="utf-8", exclude_characters="\\"), min_size=1),
)
def test_a_hash_is_a_value_of_its_vr(vr: str, text: str) -> None:
    dataset = Dataset()
    dataset.set((0x0009, "ACME", 0x01), text, vr)
    applied(dataset, edit.hash("(0009,ACME,01)"))
    [*values] = dataset.element(0x0009_1001).values
    for value in values:
        assert len(value) <= HASH_VRS[vr]
        assert set(value) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    assert dataset.element(0x0009_1001).vr == vr
    assert [len(value) for value in values] in ([16], [0], [])


def test_a_hash_is_of_the_text_wherever_it_is_and_however_it_is_written() -> None:
    name = "Yamada^Tarou=山田^太郎"
    found = set()
    for sets in ("ISO_IR 192", "\\ISO 2022 IR 87", "GB18030"):
        dataset = Dataset(
            SpecificCharacterSet=sets, PatientName=f"{name}^^=", PatientID="山田", AccessionNumber="山田"
        )
        dataset = Dataset.from_pydicom(dataset.to_pydicom())
        applied(dataset, edit.hash("PatientName"), edit.hash("PatientID"), edit.hash("AccessionNumber"))
        assert dataset.PatientID == dataset.AccessionNumber != dataset.PatientName
        found.add((dataset.PatientName, dataset.PatientID))
    assert len(found) == 1
    plain = applied(Dataset(PatientID="A^", OtherPatientNames=[name, "", "B"]), edit.hash("PatientID"))
    assert plain.PatientID != applied(Dataset(PatientID="A"), edit.hash("PatientID")).PatientID
    [first, second, third] = applied(plain, edit.hash("OtherPatientNames")).OtherPatientNames
    assert (first, second, len(third)) == (found.pop()[0], "", 16)
    other = edit.Rules([edit.hash("PatientID")], b"another").apply(Dataset(PatientID="A"))
    assert other.PatientID != applied(Dataset(PatientID="A"), edit.hash("PatientID")).PatientID


def test_a_hash_needs_text() -> None:
    with pytest.raises(InvalidValueError, match="DA can't hold a hash"):
        edit.hash("StudyDate")
    dataset = Dataset()
    dataset.set((0x0009, "ACME", 0x01), 5, "US")
    with pytest.raises(InvalidValueError) as caught:
        applied(dataset, edit.hash("(0009,ACME,01)"))
    assert caught.value.tag == 0x0009_1001


DATES = st.dates(datetime.date(1850, 1, 1), datetime.date(2150, 1, 1))
DAYS = st.integers(-36525, 36525)


@given(
    DATES, DAYS, st.sampled_from(["", "10", "101112", "101112.5", "101112.123456", "10-0500", "101112+1400"])
)
def test_dates_move_by_days_and_back(date: datetime.date, days: int, clock: str) -> None:
    text = date.strftime("%Y%m%d").rjust(8, "0")
    before = Dataset(StudyDate=text, AcquisitionDateTime=text + clock)
    moved = applied(before.copy(), edit.shift_dates(days))
    expected = (date + datetime.timedelta(days)).strftime("%Y%m%d").rjust(8, "0")
    assert (moved.StudyDate.text, moved.AcquisitionDateTime.text) == (expected, expected + clock)
    assert (moved.StudyDate.weekday() - date.weekday()) % 7 == days % 7
    assert moved.AcquisitionDateTime.timetz() == before.AcquisitionDateTime.timetz()
    assert applied(moved, edit.shift_dates(-days)).to_bytes() == before.to_bytes()


def test_what_is_no_date_that_can_be_shifted_is_left_and_told() -> None:
    dataset = Dataset()
    given = {
        "StudyDate": "1997.01.02",
        "SeriesDate": "20240230",
        "AcquisitionDate": "99991231",
        "ContentDate": "20240101-20240202",
        "PatientBirthDate": "",
        "AcquisitionDateTime": "202401",
        "DateOfLastCalibration": "20240101\\garbage\\20240103",
    }
    for keyword, text in given.items():
        vr = "DT" if "DateTime" in keyword else "DA"
        dataset._put(pacs_core.dicom.dictionary.tag_of(keyword), vr, text.encode())
    dataset.ReferencedStudySequence = [Dataset()]
    dataset.ReferencedStudySequence[0]._put(0x0008_0020, "DA", b"?")
    before = dataset.to_bytes()
    left: list[edit.Left] = []
    edit.Rules([edit.shift_dates(1)]).apply(dataset, left.append)
    assert sorted(one.path for one in left) == sorted(
        [*(given.keys() - {"PatientBirthDate"}), "ReferencedStudySequence.0.StudyDate"]
    )
    assert not any("1997" in one.why for one in left)
    assert dataset.to_bytes() == before.replace(
        b"20240101\\garbage\\20240103", b"20240102\\garbage\\20240104"
    )


def test_the_patient_decides_the_shift() -> None:
    rules = edit.Rules([edit.hash("PatientID"), edit.shift_dates((-10, -1))], SECRET)
    shifts = {}
    for patient in range(200):
        dataset = Dataset(PatientID=f"P{patient}", StudyDate="20240111", SeriesDate="20240111")
        rules.apply(dataset)
        assert dataset.StudyDate == dataset.SeriesDate
        shifts[patient] = (dataset.StudyDate - datetime.date(2024, 1, 11)).days
    assert set(shifts.values()) == set(range(-10, 0))
    # It is the Patient ID as it was, not what the rule before makes of it.
    alone = edit.Rules([edit.shift_dates((-10, -1))], SECRET)
    moved = alone.apply(Dataset(PatientID="P7 ", StudyDate="20240111")).StudyDate
    assert (moved - datetime.date(2024, 1, 11)).days == shifts[7]


UIDS = st.lists(st.integers(0, 2**40), min_size=1, max_size=5).map(
    lambda parts: ".".join(map(str, [1, 2, *parts]))
)


@given(st.lists(UIDS, min_size=1, max_size=20, unique=True))
def test_uids_are_mapped_one_to_one_to_valid_ones(many: list[str]) -> None:
    dataset = Dataset(FailedSOPInstanceUIDList=many)
    mapped = applied(dataset, edit.map_uids()).element("FailedSOPInstanceUIDList").values
    assert all(uids.is_valid_uid(uid) and uid.startswith("2.25.") for uid in mapped)
    assert len(set(mapped)) == len(many)
    assert int(max(mapped, key=len)[5:]) < 2**128


def test_references_follow_and_kinds_stay() -> None:
    before, dataset = sample(), applied(sample(), edit.map_uids())
    assert dataset["ReferencedStudySequence.0.ReferencedSOPInstanceUID"] == dataset.StudyInstanceUID
    assert dataset.StudyInstanceUID != before.StudyInstanceUID
    assert dataset.SOPClassUID == before.SOPClassUID
    assert dataset["ReferencedStudySequence.0.ReferencedSOPClassUID"] == "1.2.840.10008.3.1.2.3.1"
    assert dataset.meta["MediaStorageSOPInstanceUID"] == dataset.SOPInstanceUID
    kinds = Dataset(
        SOPClassUID="1.3.12.2.1107.5.9.1",
        CodingSchemeUID="1.2.3",
        FrameOfReferenceUID="1.2.840.10008.1.4.1.1",
    )
    assert applied(kinds.copy(), edit.map_uids()) == kinds
    odd = Dataset()
    odd._put(0x0020_000D, "UI", b"1.02.x")
    assert uids.is_valid_uid(applied(odd, edit.map_uids()).StudyInstanceUID)


def test_processes_agree() -> None:
    rules = edit.Rules([edit.hash("PatientID"), edit.map_uids(), edit.shift_dates((-999, -1))], SECRET)
    code = (
        "import pickle, sys, pacs_core\n"
        "rules, data = pickle.loads(sys.stdin.buffer.read())\n"
        "sys.stdout.buffer.write(rules.apply(pacs_core.read(data)).to_file())"
    )
    data = sample().to_file()
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((rules, data)),
        capture_output=True,
        check=True,
        cwd=Path(pacs_core.__file__).parents[1],
    )
    assert done.stdout == rules.apply(pacs_core.read(data)).to_file()


def test_threads_share_rules() -> None:
    rules = edit.Rules([edit.set("**.PatientID", "X"), edit.remove("private"), edit.map_uids()], SECRET)
    data = sample().to_file()
    barrier = threading.Barrier(4)

    def one(_: int) -> set[bytes]:
        barrier.wait(10)
        return {rules.apply(pacs_core.read(data)).to_file() for _ in range(50)}

    with ThreadPoolExecutor(4) as pool:
        assert set.union(*pool.map(one, range(4))) == one_of(rules, data)


def one_of(rules: edit.Rules, data: bytes) -> set[bytes]:
    return {rules.apply(pacs_core.read(data)).to_file()}


def test_what_no_rule_selects_stays_the_bytes_it_was(pydicom_files: list[Path]) -> None:
    rules = edit.Rules(
        [edit.set("PatientName", "X"), edit.hash("PatientID"), edit.shift_dates(-37), edit.map_uids()], SECRET
    )
    compared = 0
    for path in pydicom_files:
        if path.name == "meta_missing_tsyntax.dcm":
            continue
        before, after = pacs_core.read(path), pacs_core.read(path)
        if before.truncated or before.findings or "SOPInstanceUID" not in before:
            continue
        rules.apply(after)
        written = pacs_core.read(after.to_file())
        for element in written:
            if element.vr in ("UI", "DA", "DT", "SQ") or element.tag in (0x0010_0010, 0x0010_0020):
                continue
            assert bytes(element.raw) == bytes(before.element(element.tag).raw), (path, element)
            compared += 1
        assert len(written) >= len([one for one in before if one.tag & 0xFFFF and one.tag >> 16 > 2])
    assert compared > 5000


def test_bulk_data_are_not_copied() -> None:
    data = make.part10(make.instance(size=1 << 20))
    dataset = applied(
        pacs_core.read(data), edit.set("PatientName", "X"), edit.map_uids(), edit.shift_dates(1)
    )
    pieces = writing.file_of(dataset)
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert any(view.obj is data and view.nbytes >= 1 << 20 for view in views)
    assert sum(len(piece) for piece in pieces if isinstance(piece, bytes)) < 4096


def test_what_selects_nothing_changes_nothing() -> None:
    data = make.part10(make.instance())
    dataset = applied(
        pacs_core.read(data), edit.remove("private"), edit.hash("**.InstitutionName"), edit.shift_dates(0)
    )
    assert not dataset.changed
    assert dataset.to_file() == data


def test_the_trace_of_a_reception_is_not_that_of_changed_bytes() -> None:
    body = make.encoded(make.instance())
    reception = Reception(1 << 12, "SENDER", 1, len(body))
    data = encode_meta(make.CT, make.uid(1, 1, 1), "1.2.840.10008.1.2.1", reception) + body
    assert read_meta(pacs_core.read(data).to_file()).reception == reception
    changed = applied(pacs_core.read(data), edit.set("PatientName", "X")).to_file()
    assert read_meta(changed).reception is None
    assert 0x0002_0100 not in pacs_core.read(changed).meta


def test_rules_as_text() -> None:
    lines = [
        "set PatientName=Doe^Jane=x",
        "set Rows=512",
        "set PixelSpacing=0.5\\0.25",
        "set EventTimeOffset=1.5",
        "set DimensionIndexPointer=PatientID",
        "set StudyID=",
        " empty **.StudyDate ",
        "remove private",
        "keep PatientID",
        "hash AccessionNumber",
        "shift-dates -37",
        "shift-dates -365..-1",
        "map-uids",
    ]
    assert edit.Rules.parse(lines, SECRET).rules == (
        edit.set("PatientName", "Doe^Jane=x"),
        edit.set("Rows", [512]),
        edit.set("PixelSpacing", "0.5\\0.25"),
        edit.set("EventTimeOffset", [1.5]),
        edit.set("DimensionIndexPointer", [0x0010_0020]),
        edit.set("StudyID", ""),
        edit.empty("**.StudyDate"),
        edit.remove("private"),
        edit.keep("PatientID"),
        edit.hash("AccessionNumber"),
        edit.shift_dates(-37),
        edit.shift_dates((-365, -1)),
        edit.map_uids(),
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense PatientName",
        "set PatientName",
        "set PatientNme=X",
        "set Rows=many",
        "set Rows=70000",
        "set StudyDate=2024",
        "set PixelData=00",
        "set OtherPatientIDsSequence=X",
        "set (0002,0010)=1.2",
        "remove 00080000",
        "remove",
        "hash StudyDate",
        "shift-dates soon",
        "shift-dates 5..1",
        "shift-dates 4000000",
        "map-uids StudyInstanceUID",
    ],
)
def test_lines_that_are_no_rules_are_named(line: str) -> None:
    with pytest.raises(ValueError, match="^" + line.replace("(", r"\(").replace(")", r"\)") + ": "):
        edit.Rules.parse(["remove private", line], SECRET)


@pytest.mark.parametrize("rule", [edit.hash("PatientID"), edit.map_uids(), edit.shift_dates((-5, 5))])
def test_a_secret_is_asked_for_where_it_matters_and_not_shown(rule: edit.Rule) -> None:
    with pytest.raises(ValueError, match="take a secret"):
        edit.Rules([rule])
    edit.Rules([edit.shift_dates(5)])
    assert "secret" not in repr(edit.Rules([rule], SECRET))
