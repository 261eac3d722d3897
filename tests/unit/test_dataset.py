"""The face of data sets: keys, values, errors, lifetimes, files."""

from __future__ import annotations

import copy
import datetime
import gc
import io
import mmap
import pickle
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacs_core._ext.dictionary import keywords
from pacs_core._ext.tree import Tree
from pacs_core.dicom import writing
from pacs_core.dicom.dataset import Dataset, Element, Sequence
from pacs_core.dicom.reading import read
from pacs_core.errors import InvalidValueError, UnparsableError
from tests import make

HOLOGIC = "1.2.840.113681"


@pytest.fixture
def dataset() -> Dataset:
    """One that was read, with a sequence of two items and private elements."""
    made = Dataset(SOPClassUID=make.CT, SOPInstanceUID="1.2.3", PatientName="Doe^Jane", PatientID="P1")
    made.RequestAttributesSequence = [{"ScheduledProcedureStepID": "S0"}, {"ScheduledProcedureStepID": "S1"}]
    made.set((0x0009, "GEMS_IDEN_01", 0x02), "CT01")
    made.set((0x0019, HOLOGIC, 0x01), b"ab", "OB")
    return read(made.to_file())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PatientName", "Doe^Jane"),
        (0x0010_0010, "Doe^Jane"),
        ("00100010", "Doe^Jane"),
        ("0010,0010", "Doe^Jane"),
        ("(0010,0010)", "Doe^Jane"),
        ("RequestAttributesSequence.0.ScheduledProcedureStepID", "S0"),
        ("RequestAttributesSequence.-1.ScheduledProcedureStepID", "S1"),
        ("(0040,0275).1.(0040,0009)", "S1"),
        ((0x0009, "GEMS_IDEN_01", 0x02), "CT01"),
        ("(0009,GEMS_IDEN_01,02)", "CT01"),
        (0x0009_1002, "CT01"),
        (f"(0019,{HOLOGIC},01)", b"ab"),
    ],
)
def test_key_of_every_kind(dataset: Dataset, key: object, value: object) -> None:
    assert dataset[key] == dataset.get(key) == dataset.element(key).value == value
    assert key in dataset
    dataset.set(key, value)
    assert dataset[key] == value
    del dataset[key]
    assert key not in dataset
    assert dataset.get(key, "gone") == "gone"
    with pytest.raises(KeyError):
        del dataset[key]


def test_a_path_that_ends_at_an_item_gives_it(dataset: Dataset) -> None:
    for key in ("RequestAttributesSequence.1", "(0040,0275).-1"):
        assert key in dataset
        dataset[key].ScheduledProcedureStepID = "S9"  # the item itself, not a copy
        assert dataset["RequestAttributesSequence.1.ScheduledProcedureStepID"] == "S9"
        assert dataset.get(key) == dataset.RequestAttributesSequence[1]
        for change in (dataset.element, dataset.__delitem__, lambda key: dataset.set(key, Dataset())):
            with pytest.raises(KeyError, match="is an item of a sequence, not an element"):
                change(key)
    assert len(dataset.RequestAttributesSequence) == 2
    assert "RequestAttributesSequence.2" not in dataset
    assert dataset.get("RequestAttributesSequence.2", 7) == 7
    with pytest.raises(IndexError, match="no item 2 in a sequence of 2"):
        dataset["RequestAttributesSequence.2"]
    with pytest.raises(KeyError, match="PatientName is not a sequence"):
        dataset["PatientName.0"]


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        ("PatientNme", KeyError, "no keyword or tag: 'PatientNme'; perhaps PatientName"),
        ("PatientSex", KeyError, r"no element \(0010,0040\) PatientSex"),
        (0x0010_0040, KeyError, r"no element \(0010,0040\) PatientSex"),
        (-1, KeyError, "a key is a tag, a keyword or a path, not -1"),
        (1 << 32, KeyError, "not 4294967296"),
        (1.5, KeyError, "not 1.5"),
        (None, KeyError, "not None"),
        ("\ud800", KeyError, "no keyword or tag"),
        ((0x0009, "NOBODY", 1), KeyError, "no private elements of 'NOBODY' in group 0009"),
        ((0x0008, "EVEN", 1), KeyError, "a private element is"),
        ((0x0007, "GROUP", 1), KeyError, "a private element is"),
        ((0x10009, "GROUP", 1), KeyError, "a private element is"),
        ((0x0009, "GEMS_IDEN_01", 256), KeyError, "a private element is"),
        ("PatientName.0.PatientID", KeyError, "PatientName is not a sequence"),
        ("RequestAttributesSequence.2.PatientID", IndexError, "no item 2 in a sequence of 2"),
        ("RequestAttributesSequence.-3.PatientID", IndexError, "no item -3 in a sequence of 2"),
        ("RequestAttributesSequence.99999999999999.PatientID", KeyError, "no keyword or tag"),
        ("OverlayData", KeyError, "OverlayData is in many groups"),
    ],
)
def test_key_that_means_nothing(dataset: Dataset, key: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dataset[key]
    assert key not in dataset
    assert dataset.get(key, 7) == 7
    with pytest.raises(error):
        dataset.element(key)


def test_attribute_that_is_none(dataset: Dataset) -> None:
    with pytest.raises(AttributeError, match="perhaps PatientName"):
        _ = dataset.PatientNme
    with pytest.raises(AttributeError, match=r"no element \(0010,0040\) PatientSex"):
        _ = dataset.PatientSex
    with pytest.raises(AttributeError, match="'Dataset' object has no attribute 'shape'"):
        _ = dataset.shape
    with pytest.raises(AttributeError, match="perhaps PatientName"):
        dataset.PatientNme = "x"
    with pytest.raises(AttributeError, match="PatientSex"):
        del dataset.PatientSex
    assert not hasattr(dataset, "__array__")


WRONG: list[tuple[str, object]] = [
    ("RetrieveAETitle", 5),
    ("PatientAge", 42),
    ("FrameIncrementPointer", "PatientName"),
    ("FrameIncrementPointer", -1),
    ("ImageType", ["A", 1]),
    ("StudyDate", "2024-01-01"),
    ("StudyDate", datetime.datetime(2024, 1, 1)),
    ("SliceThickness", "thick"),
    ("SliceThickness", float("nan")),
    ("AcquisitionDateTime", "yesterday"),
    ("DiffusionBValue", "x"),
    ("TableSpeed", 10**400),
    ("InstanceNumber", 2**31),
    ("InstanceNumber", 1.5),
    ("StudyDescription", 5),
    ("PatientComments", ["a", "b"]),
    ("EncapsulatedDocument", "text"),
    ("PixelData", 5),
    ("PixelData", [1, 2]),
    ("PatientName", b"bytes"),
    ("RequestAttributesSequence", "text"),
    ("RequestAttributesSequence", {"PatientID": "x"}),
    ("RequestAttributesSequence", [5]),
    ("AccessionNumber", 1),
    ("ReferencePixelX0", 2**31),
    ("TagAngleSecondAxis", 2**15),
    ("StudyTime", "25"),
    ("StudyInstanceUID", 1.2),
    ("Rows", 65536),
    ("Rows", -1),
    ("Rows", "5"),
    ("Rows", 1.5),
    ("RetrieveURL", ["a", "b"]),
]


@pytest.mark.parametrize(("keyword", "value"), WRONG)
def test_value_of_a_wrong_type_names_the_tag(keyword: str, value: object) -> None:
    made = Dataset(PatientID="before")
    with pytest.raises(InvalidValueError) as caught:
        made[keyword] = value
    assert caught.value.tag is not None
    assert keyword not in made
    assert len(made) == 1


@pytest.mark.parametrize(
    ("keyword", "value", "found"),
    [
        ("StudyDate", datetime.date(2024, 2, 29), datetime.date(2024, 2, 29)),
        ("StudyTime", datetime.time(10, 11, 12, 5), datetime.time(10, 11, 12, 5)),
        ("AcquisitionDateTime", datetime.datetime(2024, 2, 29, 10), datetime.datetime(2024, 2, 29, 10)),
        ("SliceThickness", 1.5, 1.5),
        ("ImagePositionPatient", [1, 2.5, "-3"], (1.0, 2.5, -3.0)),
        ("ImageType", "A\\B", ("A", "B")),
        ("ImageType", ["A", "B"], ("A", "B")),
        ("InstanceNumber", "7", 7),
        ("FrameIncrementPointer", 0x0018_1063, 0x0018_1063),
        ("Rows", np.uint16(512), 512),
        ("PatientName", None, ""),
        ("PatientName", "", ""),
        ("Rows", None, None),
        ("Rows", [], None),
        ("PixelData", None, None),
        ("PixelData", b"", None),
        ("PixelData", [], None),
        ("StudyDate", None, ""),
    ],
)
def test_value_that_is_set_is_there(keyword: str, value: object, found: object) -> None:
    made = Dataset({keyword: value})
    assert made[keyword] == found
    assert read(in_file(made))[keyword] == found
    assert made.element(keyword).values == (
        found if isinstance(found, tuple) else () if not found else (found,)
    )


def in_file(made: Dataset) -> bytes:
    made = made.copy()
    made.SOPClassUID, made.SOPInstanceUID = "1.2", "1.3"
    return made.to_file()


GRID = np.arange(12, dtype=np.uint16).reshape(3, 4)


@pytest.mark.parametrize(
    "array", [GRID, GRID.T, GRID[:, ::2], GRID[::-1], GRID[:0], GRID.astype("f2"), GRID.astype("<i4")]
)
def test_array_as_pixel_data_is_its_bytes_row_after_row(array: Any) -> None:
    made = Dataset(PixelData=array)
    assert bytes(made.PixelData or b"") == array.tobytes()


def test_array_in_big_endian_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="little endian"):
        Dataset(PixelData=GRID.astype(">u2"))
    with pytest.raises(InvalidValueError, match="one of numbers"):
        Dataset(PixelData=np.array([object()]))


def test_fragments() -> None:
    made = Dataset(PixelData=[b"", b"abc", bytearray(b"defg")])
    assert [bytes(piece) for piece in made.PixelData] == [b"", b"abc", b"defg"]
    assert made.element("PixelData").vr == "OB"
    data = made.to_bytes("1.2.840.10008.1.2.4.50")
    assert data.endswith(
        b"\xfe\xff\0\xe0\0\0\0\0\xfe\xff\0\xe0\4\0\0\0abc\0\xfe\xff\0\xe0\4\0\0\0defg\xfe\xff\xdd\xe0\0\0\0\0"
    )
    with pytest.raises(InvalidValueError, match="compressed Pixel Data"):
        made.to_bytes()


def test_sequence_is_a_list(dataset: Dataset) -> None:
    items = dataset.RequestAttributesSequence
    assert [item.ScheduledProcedureStepID for item in items] == ["S0", "S1"]
    assert [item.ScheduledProcedureStepID for item in items[::-1]] == ["S1", "S0"]
    assert [item.ScheduledProcedureStepID for item in reversed(items)] == ["S1", "S0"]
    assert items == list(items) == dataset.copy().RequestAttributesSequence
    assert items[0] in items
    items.insert(0, Dataset(ScheduledProcedureStepID="S-"))
    items.extend([Dataset(), Dataset()])
    items[-1] = Dataset(ScheduledProcedureStepID="S9")
    del items[3], items[1]
    assert [item.ScheduledProcedureStepID for item in items] == ["S-", "S1", "S9"]
    assert repr(items) == "<Sequence of 3 items>"
    assert copy.deepcopy(items) == copy.copy(items) == pickle.loads(pickle.dumps(items)) == items
    assert Sequence() == []
    assert len(Sequence.__new__(Sequence)) == 0


@pytest.mark.parametrize("place", [2, -3, 1 << 40, -(1 << 70), 1 << 70])
def test_place_beyond_a_sequence_is_an_index_error(dataset: Dataset, place: int) -> None:
    items = dataset.RequestAttributesSequence
    changes: list[Callable[[], object]] = [
        lambda: items[place],
        lambda: items.__setitem__(place, Dataset()),
        lambda: items.__delitem__(place),
    ]
    for change in changes:
        with pytest.raises(IndexError):
            change()
    assert not dataset.changed


def test_item_that_is_none_is_refused(dataset: Dataset) -> None:
    items = dataset.RequestAttributesSequence
    for wrong in (None, 5, {"PatientID": "1"}, "x"):
        with pytest.raises(InvalidValueError):
            items.append(wrong)
    with pytest.raises(TypeError):
        items[0:1] = Dataset(PatientID="1")
    with pytest.raises(TypeError):
        items["0"]
    assert not dataset.changed


def test_items_removed_while_they_are_iterated_over(dataset: Dataset) -> None:
    items = dataset.RequestAttributesSequence
    for _ in items:
        del items[0]
    assert len(items) == 1
    walk = dataset.walk()
    for element in walk:
        if element.vr == "SQ":
            del items[:]
    assert len(items) == 0


def test_callback_that_changes_what_is_written(dataset: Dataset) -> None:
    dataset.RequestAttributesSequence[0].set(0x0011_1010, bytes(5000), "OB")

    def empty(element: Element) -> None:
        del dataset.RequestAttributesSequence[:]
        element.dataset[element.tag] = b""
        gc.collect()

    assert "InlineBinary" in dataset.to_json(empty)
    with pytest.raises(TypeError):
        Dataset(PixelData=bytes(5000)).to_json(lambda _: 5)  # type: ignore[arg-type,return-value]


class Odd(Dataset):
    """What a careless subclass could do."""

    __slots__ = ()

    def _resolve(self, _: object) -> Any:
        return object(), 0x0010_0010


def test_subclass_that_resolves_to_nothing_is_a_type_error() -> None:
    for ask in (lambda: Odd()["x"], lambda: "x" in Odd(), lambda: Odd().element("x")):
        with pytest.raises(TypeError):
            ask()


def test_character_set_that_is_no_text_is_refused() -> None:
    for value, vr in (([Dataset()], "SQ"), ([b"a", b"b"], "OB")):
        made = Dataset(PatientName="A")
        made.set("SpecificCharacterSet", value, vr)
        with pytest.raises(InvalidValueError, match="SpecificCharacterSet is text"):
            made.to_bytes()
    for wrong in (None, 5, "text"):
        with pytest.raises(TypeError):
            Dataset()._put(0x0010_0010, "PN", wrong)


def test_data_set_that_holds_itself_is_an_error() -> None:
    made = Dataset()
    made.BeamSequence = [made]
    other = Dataset()
    other.BeamSequence = [other]
    for ask in (made.copy, made.dump, lambda: made == other):
        with pytest.raises(RecursionError):
            ask()
    for write in (made.to_bytes, made.to_json, lambda: pickle.dumps(made)):
        with pytest.raises(InvalidValueError, match="more than 256"):
            write()


def test_nesting_without_end_is_no_crash() -> None:
    made = Dataset(PatientID="x")
    for _ in range(50_000):
        made = Dataset(BeamSequence=[made])
    assert made.changed
    with pytest.raises(RecursionError):
        made.copy()
    for use in (made.to_json, made.to_bytes, lambda: list(made.walk())):
        with pytest.raises(InvalidValueError, match="256 sequences"):
            use()


def test_elements_in_order_and_their_paths(dataset: Dataset) -> None:
    tags = [element.tag for element in dataset]
    assert tags == sorted(tags)
    assert len(dataset) == len(tags) == 9
    assert [element.path for element in dataset.walk()][-3:] == [
        "RequestAttributesSequence",
        "RequestAttributesSequence.0.ScheduledProcedureStepID",
        "RequestAttributesSequence.1.ScheduledProcedureStepID",
    ]
    for element in dataset.walk():
        assert dataset[element.path] == element.value
    assert {"PatientName", "RequestAttributesSequence", "to_json"} <= set(dir(dataset))
    assert bool(Dataset())
    assert sys.getsizeof(dataset) < 1000


def test_how_it_is_shown(dataset: Dataset) -> None:
    assert repr(dataset) == "<Dataset of 9 elements, 1.2.3>"
    text = str(dataset)
    assert "(0010,0010) PN [Doe^Jane]" in text
    assert "GEMS_IDEN_01: " in text
    assert "item 1" in text
    assert "item 0" not in dataset.dump(depth=0)
    assert max(map(len, dataset.dump(width=100).splitlines())) <= 120
    odd = read(in_file(dataset) + b"\x10\0\x20\0LO\x02\0X ")
    assert "# out of order: (0010,0020) at byte" in odd.dump()
    assert "# it ends in the middle" in read(in_file(dataset)[:-1]).dump()
    assert repr(dataset.element("PatientName")) == "<Element (0010,0010) PN PatientName>"


def test_view_outlives_its_data_set(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(in_file(Dataset(PixelData=b"ab" * 50_000)))
    found = read(path)
    view, element, item = (
        found.PixelData,
        found.element("PixelData"),
        Dataset(BeamSequence=[{}]).BeamSequence[0],
    )
    path.unlink()
    del found
    gc.collect()
    assert bytes(view) == bytes(element.value) == b"ab" * 50_000
    assert len(item) == 0
    with pytest.raises(TypeError):
        view[0] = 1


@pytest.mark.parametrize(
    "source",
    [
        bytes,
        bytearray,
        memoryview,
        io.BytesIO,
        lambda data: memoryview(bytearray(data)),
        lambda data: np.frombuffer(data, np.uint8),
        lambda data: np.frombuffer(data + b"\0" * (-len(data) % 4), np.uint32)[None],
    ],
)
def test_read_from_anything(source: Callable[[bytes], Any]) -> None:
    assert read(source(in_file(Dataset(PatientID="P1")))).PatientID == "P1"


def test_read_from_a_file_a_map_and_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(in_file(Dataset(PatientID="P1", PixelData=bytes(40_000))))
    with path.open("rb") as file:
        assert read(file).PatientID == "P1"
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found = read(mapped)
    with pytest.raises(BufferError):
        mapped.close()
    assert read(path) == read(str(path)) == found
    data = bytearray(path.read_bytes())
    held = read(data)
    with pytest.raises(BufferError):
        data.clear()
    assert held == found
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(UnparsableError, match="empty: an empty file"):
        read(tmp_path / "empty")
    for wrong in (5, None, io.StringIO("text")):
        with pytest.raises(TypeError):
            read(wrong)  # type: ignore[arg-type]


def test_save_replaces_whole_and_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    made = read(in_file(Dataset(PatientID="P1")))
    made.save(path)
    assert path.read_bytes() == made.to_file()
    path.chmod(0o640)
    made.PatientID = "P2"
    made.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert read(path).PatientID == "P2"
    link = tmp_path / "link.dcm"
    link.symlink_to(path)
    made.PatientID = "P3"
    made.save(link)
    assert link.is_symlink()
    assert read(path).PatientID == "P3"
    assert sorted(tmp_path.iterdir()) == [path, link]


def test_save_over_the_file_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(in_file(Dataset(PatientID="P1", PixelData=b"ab" * 50_000)))
    found = read(path)
    found.PatientID = "P2"
    found.save(path)
    assert bytes(found.PixelData) == bytes(read(path).PixelData) == b"ab" * 50_000


def test_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.dcm"
    made = read(in_file(Dataset(PatientID="P1")))
    made.save(path)
    before = path.read_bytes()
    made.PatientID = "P2"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            made.save(path)
    del made["SOPClassUID"]
    made.meta._remove(0x0002_0002)
    with pytest.raises(InvalidValueError, match="SOPClassUID"):
        made.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_threads_see_one_sequence() -> None:
    many = Dataset(BeamSequence=[Dataset(PatientID=str(n)) for n in range(3000)])
    found = read(in_file(many))
    gate = threading.Barrier(4)
    seen: list[object] = []

    def look() -> None:
        gate.wait()
        seen.append(found.BeamSequence)
        seen.extend([sum(1 for _ in found.walk()) for _ in range(3)])

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in seen if isinstance(each, Sequence)}) == 1
    assert {each for each in seen if isinstance(each, int)} == {3003}


def test_text_outside_the_character_set_is_refused() -> None:
    made = Dataset(SpecificCharacterSet="ISO_IR 100", PatientName="Müller")
    with pytest.raises(InvalidValueError, match="ISO_IR 100") as caught:
        made.PatientName = "山田"
    assert caught.value.tag == 0x0010_0010
    assert made.PatientName == "Müller"
    assert Dataset(PatientName="山田").SpecificCharacterSet == "ISO_IR 192"


def test_text_whose_character_set_is_deleted_is_not_written_as_another() -> None:
    found = read(in_file(Dataset(SpecificCharacterSet="ISO_IR 100", PatientName="Müller", PatientID="P1")))
    del found["SpecificCharacterSet"]
    assert found.PatientName == "Müller"
    with pytest.raises(InvalidValueError, match="ISO_IR 192") as caught:
        found.to_bytes()
    assert caught.value.tag == 0x0010_0010
    assert pickle.loads(pickle.dumps(found)) == found
    found.SpecificCharacterSet = "ISO_IR 192"
    assert read(in_file(found)).PatientName == "Müller"
    found.PatientName = "Mueller"
    del found["SpecificCharacterSet"]
    assert read(in_file(found)).PatientName == "Mueller"


@pytest.mark.parametrize("number", [0, 1, 127, 128, 200, 255, 256, 512, 32768, 65535])
def test_number_of_any_bytes_is_set(number: int) -> None:
    assert Dataset(Rows=number).Rows == number


def test_ambiguous_vrs() -> None:
    """PS3.5 Annex A, PS3.3 C.7.6.3.1."""
    made = Dataset(PixelRepresentation=1, SmallestImagePixelValue=-5)
    assert made.element("SmallestImagePixelValue").vr == "SS"
    made = Dataset(PixelRepresentation=0, SmallestImagePixelValue=5)
    assert made.element("SmallestImagePixelValue").vr == "US"
    with pytest.raises(InvalidValueError, match="no dictionary has its VR"):
        made[0x0009_1010] = "x"
    assert isinstance(made, Tree)


def test_every_keyword_means_its_element_however_often_it_is_asked_for() -> None:
    """Those of late are remembered, by where the text is."""
    dataset = Dataset(PatientID="P1", Rows=16)
    names = list(keywords())
    for _ in range(2):
        for fresh in (lambda name: name, sys.intern, lambda name: "".join([*name])):
            assert [name for name in names if fresh(name) in dataset] == ["PatientID", "Rows"]
    texts = ["".join(["Patient", end]) for end in ("ID", "Name", "x") * 1000]
    assert {dataset.get(text) for text in texts} == {"P1", None}
