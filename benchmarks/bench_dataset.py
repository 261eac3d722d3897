"""Data sets read, walked, turned into JSON, changed and written: ours in turns with pydicom, GDCM and DCMTK.

    python benchmarks/bench_dataset.py [--rounds 7] [--files 3000]

Median of the rounds; a round takes each row once. What counts is the ratio to the peer in the same run. GDCM
is there if python-gdcm is installed, DCMTK's tools if they are.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.util
import io
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
from bench_scan import ct_header
from pydicom.dataset import Dataset as Pydicom

import pacs_core
from pacs_core.dicom.part10 import encode_meta

EXPLICIT = "1.2.840.10008.1.2.1"
KEYS = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyDate", "SeriesDate", "StudyTime"),
    *("AccessionNumber", "Modality", "Manufacturer", "InstitutionName", "ReferringPhysicianName"),
    *("StationName", "StudyDescription", "SeriesDescription", "ManufacturerModelName", "PatientName"),
    *("PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "SeriesInstanceUID", "StudyID"),
    *("SeriesNumber", "Rows", "Columns"),
)
TAGS = [pydicom.datadict.tag_for_keyword(key) for key in KEYS]


class Row(NamedTuple):
    work: str
    who: str
    call: Callable[[], object]


def part10(dataset: bytes) -> bytes:
    return encode_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.826.0.1.3680043.8.498.1", EXPLICIT, None) + dataset


def enhanced(frames: int = 1000) -> bytes:
    """An Enhanced MR whose frames have nine functional groups each, in sequences of undefined length."""
    of_frame = Pydicom()
    content = {"FrameAcquisitionDateTime": "20240229101112.5", "TemporalPositionIndex": 1, "StackID": "1"}
    groups: dict[str, dict[str, Any]] = {
        "FrameContentSequence": {**content, "DimensionIndexValues": [1, 2], "InStackPositionNumber": 3},
        "PlanePositionSequence": {"ImagePositionPatient": [-115.25, -115.25, 12.5]},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        "PixelMeasuresSequence": {"PixelSpacing": [0.9, 0.9], "SliceThickness": 1.5},
        "MRTimingAndRelatedParametersSequence": {
            "RepetitionTime": 500.0,
            "FlipAngle": 90,
            "EchoTrainLength": 1,
        },
        "MREchoSequence": {"EffectiveEchoTime": 12.5},
        "MRAveragesSequence": {"NumberOfAverages": 2},
        "PixelValueTransformationSequence": {"RescaleIntercept": 0, "RescaleSlope": 1.5, "RescaleType": "US"},
        "FrameVOILUTSequence": {"WindowCenter": 420, "WindowWidth": 840},
    }
    for sequence, values in groups.items():
        item = Pydicom()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(of_frame, sequence, [item])
    dataset = Pydicom()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4.1", "1.2.3"
    dataset.PerFrameFunctionalGroupsSequence = [copy.deepcopy(of_frame) for _ in range(frames)]
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = True
    out = io.BytesIO()
    dataset.save_as(out, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return part10(out.getvalue())


def ours_of(path: Path) -> object:
    return pacs_core.read(path).pick(*KEYS)


def pydicom_of(source: Any) -> object:
    dataset = pydicom.dcmread(source, stop_before_pixels=True)
    return [dataset.get(key) for key in KEYS]


def specific_of(source: Any) -> object:
    dataset = pydicom.dcmread(source, stop_before_pixels=True, specific_tags=TAGS)
    return [dataset.get(key) for key in KEYS]


def changed_by_pydicom(data: bytes) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.PatientID = "X"
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def changed_by_us(data: bytes) -> bytes:
    dataset = pacs_core.read(data)
    dataset.PatientID = "X"
    return dataset.to_file()


def in_memory(ct: bytes, mr: bytes) -> Iterator[Row]:
    attributes = "25 attributes of a CT"
    yield Row(attributes, "ours", lambda: pacs_core.read(ct).pick(*KEYS))
    yield Row(attributes, "pydicom", lambda: pydicom_of(io.BytesIO(ct)))
    yield Row(attributes, "pydicom, specific_tags", lambda: specific_of(io.BytesIO(ct)))
    offsets = "enhanced MR, 1,000 frames: all offsets"
    yield Row(offsets, "ours", lambda: pacs_core.read(mr))
    yield Row(offsets, "pydicom", lambda: [None for _ in pydicom.dcmread(io.BytesIO(mr)).iterall()])
    values = "enhanced MR, 1,000 frames: all values"
    yield Row(values, "ours", lambda: [element.value for element in pacs_core.read(mr).walk()])
    yield Row(values, "pydicom", lambda: [each.value for each in pydicom.dcmread(io.BytesIO(mr)).iterall()])
    model = "DICOM JSON of a CT header"
    header = ct[: ct.rindex(b"\xe0\x7f\x10\x00")]
    yield Row(model, "ours", lambda: pacs_core.read(header).to_json())
    yield Row(model, "pydicom", lambda: pydicom.dcmread(io.BytesIO(header)).to_json())
    changing = "CT: one attribute set, written"
    yield Row(changing, "ours", lambda: changed_by_us(ct))
    yield Row(changing, "pydicom", lambda: changed_by_pydicom(ct))


def of_folder(folder: Path) -> Iterator[Row]:
    paths = sorted(folder.iterdir())
    work = f"{len(paths):,} files, 25 attributes of each"
    yield Row(work, "ours", lambda: [ours_of(path) for path in paths])
    yield Row(work, "pydicom", lambda: [pydicom_of(path) for path in paths])
    yield Row(work, "pydicom, specific_tags", lambda: [specific_of(path) for path in paths])
    if importlib.util.find_spec("gdcm") is None:
        print("without GDCM: python-gdcm is not installed")
        return
    import gdcm

    tags = [gdcm.Tag(tag >> 16, tag & 0xFFFF) for tag in TAGS]

    def by_gdcm() -> object:
        scanner = gdcm.Scanner()
        for tag in tags:
            scanner.AddTag(tag)
        assert scanner.Scan([str(path) for path in paths])
        return [[scanner.GetValue(str(path), tag) for tag in tags] for path in paths]

    yield Row(work, "gdcm.Scanner", by_gdcm)


def processes(folder: Path) -> Iterator[Row]:
    """Whole processes, one file and a hundred."""
    own = [sys.executable, "-m", "pacs_core"]
    paths = [str(path) for path in sorted(folder.iterdir())[:100]]
    for ours, theirs in (("dump", "/usr/bin/dcmdump"), ("json", "/usr/bin/dcm2json")):
        if not shutil.which(theirs):
            print(f"without {theirs}: it is not installed")
            continue

        def run(*command: str) -> None:
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

        def each(command: str = theirs) -> None:
            for path in paths:
                run(command, path)

        yield Row(f"{ours} of a file, a process", "ours", lambda name=ours: run(*own, name, paths[0]))
        yield Row(f"{ours} of a file, a process", theirs, lambda name=theirs: run(name, paths[0]))
        yield Row(f"{ours} of 100 files", "ours", lambda name=ours: run(*own, name, *paths))
        yield Row(
            f"{ours} of 100 files",
            theirs,
            (lambda: run("/usr/bin/dcmdump", *paths)) if ours == "dump" else each,
        )


def measure(rows: list[Row], rounds: int) -> None:
    times: dict[Row, list[float]] = {row: [] for row in rows}
    for row in rows:
        row.call()
    for _ in range(rounds):
        for row in rows:
            times[row].append(per_call(row.call))
    first: dict[str, list[float]] = {}
    for row in rows:
        median = statistics.median(times[row])
        base = first.setdefault(row.work, times[row])
        ratio = statistics.median(theirs / ours for theirs, ours in zip(times[row], base, strict=True))
        print(f"{row.work:42} {row.who:24} {median * 1e6:13,.1f} us {ratio:8,.1f} x")


def per_call(call: Callable[[], object], seconds: float = 0.05) -> float:
    gc.collect()
    count, start = 0, time.perf_counter()
    while (now := time.perf_counter()) - start < seconds or not count:
        call()
        count += 1
    return (now - start) / count


def memory(path: Path, count: int = 2000) -> None:
    """Resident bytes of an open data set, of which 25 attributes were asked; its file is mapped."""

    def resident(read: str) -> float:
        program = (
            "import gc, sys, pacs_core, pydicom\n"
            "from bench_dataset import KEYS\n"
            f"path, kept = {str(path)!r}, []\n"
            "def size(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
            f"def one():\n    ds = {read}\n    [ds.get(key) for key in KEYS]\n    return ds\n"
            "one(); gc.collect(); start = size()\n"
            f"kept = [one() for _ in range({count})]\n"
            f"print((size() - start) / {count})\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        return float(subprocess.check_output([sys.executable, "-c", program], env=environment))

    print(f"memory of an open CT: ours {resident('pacs_core.read(path)') / 1024:.0f} KiB", end="")
    print(" (pages of the file that were looked at included), ", end="")
    print(
        f"pydicom without pixels {resident('pydicom.dcmread(path, stop_before_pixels=True)') / 1024:.0f} KiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, default=3000)
    options = parser.parse_args()
    print(f"{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()},", end=" ")
    print(f"pydicom {pydicom.__version__}")
    ct = part10(ct_header("DOE^JOHN", "ISO_IR 100"))
    small = part10(ct_header("DOE^JOHN", "ISO_IR 100", 32768))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(options.files):
            (folder / f"{number:05}.dcm").write_bytes(small)
        measure([*in_memory(ct, enhanced())], options.rounds)
        measure([*of_folder(folder)], max(options.rounds // 2, 1))
        measure([*processes(folder)], max(options.rounds // 2, 1))
        memory(folder / "00000.dcm")


if __name__ == "__main__":
    main()
