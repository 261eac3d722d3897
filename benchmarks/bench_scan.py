"""The scan of a CT header (257 elements) and the file meta, in turns with pydicom.

    python benchmarks/bench_scan.py [--rounds 9] [--peers/--no-peers]

Median of the rounds; a round takes each row once. What counts is the ratio to pydicom in the same run.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian

from pacs_core._ext import record
from pacs_core.dicom import attributes, header, part10
from pacs_core.dicom.part10 import Reception

SYNTAX = str(ExplicitVRLittleEndian)
TAGS = [attribute.tag for attribute in attributes.ATTRIBUTES]


def ct_header(name: str, character_set: str, pixels: int = 512 * 512 * 2) -> bytes:
    """A CT image's data set of 257 elements; `pixels`: bytes of its Pixel Data."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = character_set
    values = {"UI": "1.2.840.113619.2.5.1762583153.215519.978957063.78", "PN": name, "DA": "20240229"}
    values |= {"TM": "101112.123456", "DT": "20240229101112", "IS": "12", "DS": "1.5", "CS": "ORIGINAL"}
    for attribute in attributes.ATTRIBUTES[:45]:
        dataset.add_new(attribute.tag, attribute.vr, values.get(attribute.vr, "Some value"))
    for number in range(100):
        dataset.add_new(0x00180000 + 0x1400 + number, "DS", "120.5")
    dataset.add_new(0x00190010, "LO", "GEMS_ACQU_01")
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "T-D3000", "Chest"
    dataset.add_new(0x00081140, "SQ", [item])
    dataset.add_new(0x00081111, "SQ", [item])
    dataset[0x00081111].is_undefined_length = True
    dataset.Rows = dataset.Columns = 512
    dataset.BitsAllocated = 16
    number = 0
    while len(dataset) < 256:
        dataset.add_new(0x00191000 + number, "SS", number)
        number += 1
    dataset.add_new(0x7FE00010, "OW", bytes(pixels))
    out = io.BytesIO()
    dataset.save_as(out, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return out.getvalue()


def per_call(call: Callable[[], object], seconds: float = 0.05) -> float:
    """Seconds of one call, over as many as fit."""
    call()
    count = 0
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        for _ in range(20):
            call()
        count += 20
    return (now - start) / count


def read_by_pydicom(data: bytes) -> None:
    dataset = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True)
    for tag in TAGS:
        if tag in dataset:
            _ = dataset[tag].value


def read_tags_by_pydicom(data: bytes) -> None:
    dataset = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=TAGS)
    for tag in TAGS:
        if tag in dataset:
            _ = dataset[tag].value


def feed(data: memoryview, size: int) -> None:
    scan = header.HeaderScan(SYNTAX)
    for at in range(0, len(data), size):
        scan.feed(data[at : at + size])
    scan.finish()


def meta_by_pydicom() -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = "1.2.3"
    out = io.BytesIO()
    write_file_meta_info(out, meta)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    ascii_ct = ct_header("DOE^JOHN", "ISO_IR 100")
    latin_ct = ct_header("DÖE^JÖHN", "ISO_IR 100")
    japanese = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    japanese_ct = ct_header(japanese, "\\ISO 2022 IR 87")
    found = header.scan(ascii_ct, SYNTAX)
    print(f"{len(ascii_ct)} bytes, {len(record.unpack(found.fields))} fields in {len(found.fields)} bytes")
    reception = Reception(1, "STORESCU", 2, 3)
    rows: dict[str, Callable[[], object]] = {
        "scan, ASCII": lambda: header.scan(ascii_ct, SYNTAX),
        "scan, Latin-1": lambda: header.scan(latin_ct, SYNTAX),
        "scan, ISO 2022 IR 87": lambda: header.scan(japanese_ct, SYNTAX),
        "HeaderScan, chunks of 16 KiB": lambda: feed(memoryview(ascii_ct), 16384),
        "encode_meta": lambda: part10.encode_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", SYNTAX, reception),
    }
    if options.peers:
        version = f"pydicom {pydicom.__version__}"
        rows[f"{version} dcmread and the attributes"] = lambda: read_by_pydicom(ascii_ct)
        rows[f"{version} dcmread, specific_tags"] = lambda: read_tags_by_pydicom(ascii_ct)
        rows[f"{version} write_file_meta_info"] = meta_by_pydicom
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(options.rounds):
        for name, call in rows.items():
            times[name].append(per_call(call))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:45} {median * 1e6:9.2f} us   (worst {max(times[name]) * 1e6:.2f})")
    if options.peers:
        names = list(rows)
        print(f"scan: {medians[names[5]] / medians[names[0]]:.0f} times pydicom, ", end="")
        print(f"{medians[names[6]] / medians[names[0]]:.0f} times its specific_tags; ", end="")
        print(f"encode_meta: {medians[names[7]] / medians[names[4]]:.0f} times")


if __name__ == "__main__":
    main()
