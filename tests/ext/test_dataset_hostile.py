"""Data sets that are made to break who reads them: an error, or what there is, in bounded time and memory."""

import json
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable

import pytest

from pacs_core._ext.parsing import parse
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.reading import read, read_dataset
from pacs_core.errors import InvalidValueError, UnparsableError

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
UNDEFINED = 0xFFFFFFFF
FOUR_GB = 0xFFFFFFF0
MOST = 256  # sequences in each other

ITEM, ITEM_END, SEQUENCE_END = (
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\x0d\xe0" + bytes(4),
    b"\xfe\xff\xdd\xe0" + bytes(4),
)
SEQUENCE, PRIVATE, NAME = b"\x08\0\x40\x11", b"\x09\0\x10\x10", b"\x10\0\x10\0"


def header(tag: bytes, vr: bytes, length: int) -> bytes:
    """With a VR of the long form, or, if it is b'', without."""
    return tag + (vr + bytes(2) if vr else b"") + struct.pack("<L", length)


def nested(depth: int, vr: bytes, *, undefined: bool) -> bytes:
    """Sequences in each other."""
    if undefined:
        begun = header(SEQUENCE, vr, UNDEFINED) + header(ITEM, b"", UNDEFINED)
        return depth * begun + depth * (ITEM_END + SEQUENCE_END)
    begun, size = [], 0
    for _ in range(depth):
        begun.append(header(ITEM, b"", size))
        begun.append(header(SEQUENCE, vr, size + 8))
        size += 16 + 4 * bool(vr)
    return b"".join(reversed(begun))


SHAPES = [
    pytest.param(vr, undefined, id=f"{vr.decode() or 'implicit'} {'un' * undefined}defined")
    for vr in (b"SQ", b"UN", b"")
    for undefined in (True, False)
]


def opened(data: bytes, vr: bytes) -> Dataset:
    return read_dataset(data, EXPLICIT if vr else IMPLICIT)


def everything(dataset: Dataset) -> None:
    """Ask all there is to ask, and write it."""
    for element in dataset.walk():
        assert (element.vr, element.values, element.path) is not None
    json.loads(dataset.to_json())
    assert str(dataset) is not None
    assert dataset.copy() == dataset
    for syntax in (IMPLICIT, EXPLICIT, BIG):
        dataset.to_bytes(syntax)


@pytest.mark.parametrize(("vr", "undefined"), SHAPES)
def test_ten_thousand_sequences_in_each_other_are_an_error(vr: bytes, undefined: bool) -> None:
    start = time.perf_counter()
    with pytest.raises(UnparsableError, match="256 sequences"):
        everything(opened(nested(10_000, vr, undefined=undefined), vr))
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(("vr", "undefined"), SHAPES)
def test_as_many_as_are_allowed_can_be_read_shown_and_written(vr: bytes, undefined: bool) -> None:
    dataset = opened(nested(MOST, vr, undefined=undefined), vr)
    everything(dataset)
    assert len(list(dataset.walk())) == MOST
    with pytest.raises(UnparsableError, match="256 sequences"):
        everything(opened(nested(MOST + 1, vr, undefined=undefined), vr))


def in_a_thread(task: Callable[[], object], stack: int) -> None:
    """Run it with little stack: beyond its end the process ends."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            task()
        except BaseException as exc:  # noqa: BLE001 - told in the test's thread
            failed.append(exc)

    before = threading.stack_size(stack)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if failed:
        raise failed[0]


def test_native_code_needs_little_stack() -> None:
    data = nested(MOST, b"SQ", undefined=True)

    def task() -> None:
        dataset = parse(Dataset, data)
        dataset.to_json()
        dataset.copy()
        assert dataset == parse(Dataset, data)
        dataset.to_bytes(IMPLICIT)

    in_a_thread(task, 512 * 1024)
    in_a_thread(lambda: parse(Dataset, data), 64 * 1024)


@pytest.mark.parametrize(
    "claim",
    [
        header(PRIVATE, b"OB", FOUR_GB),
        header(PRIVATE, b"UN", FOUR_GB),
        header(SEQUENCE, b"SQ", FOUR_GB),
        header(SEQUENCE, b"SQ", UNDEFINED) + header(ITEM, b"", FOUR_GB),
        header(SEQUENCE, b"SQ", 500) + header(ITEM, b"", 400) + header(NAME, b"UT", FOUR_GB),
        header(SEQUENCE, b"UN", UNDEFINED) + header(ITEM, b"", UNDEFINED) + header(NAME, b"", FOUR_GB),
        header(SEQUENCE, b"UN", FOUR_GB) + header(ITEM, b"", FOUR_GB),
        header(PRIVATE, b"OB", UNDEFINED) + header(ITEM, b"", 0) + header(ITEM, b"", FOUR_GB),
        header(PRIVATE, b"OB", UNDEFINED) + header(ITEM, b"", FOUR_GB),
    ],
    ids=["OB", "UN", "SQ", "item", "nested", "in UN", "items in UN", "fragment", "offset table"],
)
def test_four_gigabytes_claimed_in_a_kilobyte_are_what_there_is(claim: bytes) -> None:
    data = claim + bytes(1024 - len(claim))
    dataset = read_dataset(data, EXPLICIT)
    assert dataset.truncated or dataset.findings
    everything(dataset)
    assert len(dataset.to_bytes(BIG)) < 2 * len(data)


def test_meta_information_that_claims_four_gigabytes_is_what_there_is() -> None:
    meta = b"\x02\0\x10\0UI\x14\x00" + EXPLICIT.encode() + b"\0" + header(b"\x02\0\x02\x01", b"OB", FOUR_GB)
    dataset = read(bytes(128) + b"DICM" + meta + bytes(1024 - len(meta)))
    assert len(dataset) == 0
    assert dataset.meta is not None
    assert len(dataset.meta.element(0x00020102).raw) < 1024


PEAK = """
import resource, sys
from pacs_core.dicom.reading import read_dataset
from pacs_core.errors import UnparsableError
limit = int(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_dataset(open(sys.argv[2], "rb").read(), sys.argv[3], inflate_limit=limit)
    print("read", end=" ")
except UnparsableError as exc:
    print("refused", end=" ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_deflate_bomb_takes_what_the_limit_allows(tmp_path) -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    million = bytes(1 << 20)
    bomb = b"".join(deflater.compress(million) for _ in range(256)) + deflater.flush()  # 256 MB in 256 KB
    assert len(bomb) < 1 << 19
    (tmp_path / "bomb").write_bytes(bomb)
    limit = 16 << 20
    start = time.perf_counter()
    command = [sys.executable, "-c", PEAK, str(limit), str(tmp_path / "bomb"), DEFLATED]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert said[0] == "refused"
    assert int(said[1]) * 1024 < 3 * limit
    assert time.perf_counter() - start < 10


def test_what_follows_a_deflate_stream_is_not_looked_at() -> None:
    sound = Dataset(PatientID="P1").to_bytes(DEFLATED)
    start = time.perf_counter()
    dataset = read_dataset(sound + bytes(64 << 20), DEFLATED)
    assert dataset.PatientID == "P1"
    assert time.perf_counter() - start < 3


def test_small_elements_take_memory_in_proportion(tmp_path) -> None:
    data = b"\x08\0\x05\0\0\0\0\0" * (1 << 20)  # 8 MB; of 33 million elements it is an error, at 1.1 GB
    (tmp_path / "many").write_bytes(data)
    command = [sys.executable, "-c", PEAK, "0", str(tmp_path / "many"), IMPLICIT]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert said[0] == "read"
    assert int(said[1]) * 1024 < 12 * len(data)


def test_json_nested_without_end_is_an_error() -> None:
    for text in ("[" * 100_000, '{"00081140":{"vr":"SQ","Value":[' * 100_000):
        with pytest.raises(UnparsableError):
            Dataset.from_json(text)
    model: dict[str, object] = {}
    for _ in range(MOST + 1):
        model = {"00081140": {"vr": "SQ", "Value": [model]}}
    with pytest.raises(UnparsableError, match="256 sequences"):
        Dataset.from_json(model)


def in_itself() -> Dataset:
    dataset = Dataset(PatientID="P1")
    dataset.OtherPatientIDsSequence = [dataset]
    return dataset


@pytest.mark.parametrize(
    "use",
    [
        Dataset.to_bytes,
        Dataset.to_json,
        Dataset.copy,
        Dataset.__reduce__,
        str,
        lambda dataset: list(dataset.walk()),
        lambda dataset: dataset == in_itself(),
    ],
    ids=["to_bytes", "to_json", "copy", "pickle", "dump", "walk", "=="],
)
def test_a_data_set_in_itself_is_an_error(use: Callable[[Dataset], object]) -> None:
    with pytest.raises((InvalidValueError, RecursionError)):
        use(in_itself())


def test_a_data_set_in_itself_can_be_named_and_mended() -> None:
    dataset = in_itself()
    assert "P1" not in repr(dataset)
    assert dataset.changed
    del dataset.OtherPatientIDsSequence
    assert "OtherPatientIDsSequence" not in dataset


def test_findings_are_as_many_as_there_are_kinds() -> None:
    dataset = read_dataset(2 * b"\x28\0\x10\0US\x03\0abc" * 10_000, EXPLICIT)
    assert len(dataset.findings) < 20
    assert max(finding.times for finding in dataset.findings) >= 19_999


def test_threads_that_read_while_one_changes_break_nothing() -> None:
    inner = Dataset(PatientID="in")
    data = Dataset(ReferencedSeriesSequence=[inner] * 50, PatientName="Doe^Jane").to_bytes(EXPLICIT)
    ends = time.monotonic() + 1
    surprises: list[BaseException] = []
    dataset = read_dataset(data, EXPLICIT)

    def reads() -> None:
        while time.monotonic() < ends:
            try:
                for element in dataset.walk():
                    assert element.values is not None
                dataset.to_json()
                dataset.to_bytes(BIG)
                dataset.copy()
            except (KeyError, IndexError, RuntimeError):
                pass  # it changed meanwhile
            except BaseException as exc:  # noqa: BLE001 - told in the test's thread
                surprises.append(exc)

    def changes() -> None:
        while time.monotonic() < ends:
            sequence = dataset.ReferencedSeriesSequence
            del sequence[10:]
            dataset.PatientName = "Roe"
            sequence.extend([inner] * 40)
            del dataset.PatientName

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=target) for target in (reads, reads, changes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert surprises == []
    assert len(dataset.ReferencedSeriesSequence) == 50


def test_a_sequence_opened_by_two_threads_is_one() -> None:
    data = header(SEQUENCE, b"UN", 8 * 100_000) + header(ITEM, b"", 0) * 100_000  # parsed without the GIL
    for _ in range(5):
        dataset = read_dataset(data, EXPLICIT)
        found: list[object] = []
        ready = threading.Barrier(2)

        def opens(dataset: Dataset = dataset, ready: threading.Barrier = ready, found: list = found) -> None:
            ready.wait()
            found.append(dataset[0x00081140])

        threads = [threading.Thread(target=opens) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found[0] is found[1]


def test_items_taken_away_while_they_are_gone_through_end_it() -> None:
    dataset = Dataset(ReferencedSeriesSequence=[Dataset(PatientID=str(n)) for n in range(1000)])
    dataset = read_dataset(dataset.to_bytes(EXPLICIT), EXPLICIT)
    seen = 0
    for _ in dataset.ReferencedSeriesSequence:
        del dataset.ReferencedSeriesSequence[:600]
        seen += 1
    assert seen == 2  # 400 were left after the first, none after the second
