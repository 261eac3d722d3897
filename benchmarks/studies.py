"""Studies to be found: the same for every archive, of one instance each, in any number.

What is asked for is among the first 20,000, and the others differ in that: so every size of archive gives the
same matches, and what a query takes longer is what the size costs. 63 studies are of a patient `DOE^A*`,
846 of a `*SMI*`.

As a program: ``python benchmarks/studies.py ARCHIVE N`` makes an archive that has the index of N studies and
none of the instances.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pacs_core
from pacs_core import Archive
from pacs_core.dicom.attributes import BY_KEYWORD
from pacs_core.dicom.part10 import encode_meta
from pacs_core.index import Entry

COMMON = 20_000
DOE, SMI = 63, 846
YEARS = range(2015, 2025)
SYNTAX = "1.2.840.10008.1.2.1"

_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_FIRST, _DAYS = date(YEARS[0], 1, 1), 3653
_EARLIER, _EARLIER_DAYS = date(1980, 1, 1), 12_000
_BATCH = 5000
_SYLLABLES = ("BA", "KO", "LEN", "MAR", "TI", "RO", "VEN", "SKA", "DOR", "NU")
_GIVEN = ("ADA", "BERTA", "CARL", "DORA", "EMIL", "FRITZ", "GUSTAV", "HANNA", "IDA", "JAN", "KURT", "LEA")
_MIDDLE = "ABCDEFGHIJ"  # so there are as many names as 300,000
_SMITHS = ("SMITH", "GOLDSMITH", "SMITHERS", "KOSMIDIS")
_MODALITIES = ("CT", "MR", "CR", "US", "DX", "MG")


def values(number: int) -> dict[str, str]:
    """What the instance of the study of a number says, by keyword."""
    place = number * 7919 % COMMON  # in another order than they come in
    common = number < COMMON
    first, days = (_FIRST, _DAYS) if common else (_EARLIER, _EARLIER_DAYS)
    day = first + timedelta(days=(place * 31 + number // COMMON) % days)
    root = f"2.25.1{number:012d}"
    return {
        "SOPClassUID": _CAPTURE,
        "SOPInstanceUID": f"{root}.1.1",
        "StudyDate": f"{day:%Y%m%d}",
        "StudyTime": f"{place % 24:02d}{place % 60:02d}00",
        "AccessionNumber": f"A{number:09d}",
        "Modality": _MODALITIES[place // 7 % len(_MODALITIES)],
        "StudyDescription": "Thorax p.a.",
        "SeriesDescription": "AXIAL",
        "ReferringPhysicianName": f"REFERRER{number % 50}^JO",
        "PatientName": _name(place if common else COMMON, number),
        "PatientID": f"P{number:09d}",
        "PatientBirthDate": f"19{number % 90 + 10}0{number % 9 + 1}15",
        "PatientSex": "FM"[number % 2],
        "StudyInstanceUID": root,
        "SeriesInstanceUID": f"{root}.1",
        "StudyID": str(number % 10_000),
        "SeriesNumber": "1",
        "InstanceNumber": "1",
    }


def _name(place: int, number: int) -> str:
    if place < DOE:
        return f"DOE^A{_GIVEN[number % len(_GIVEN)]}"
    if place < DOE + SMI:
        return f"{_SMITHS[number % len(_SMITHS)]}^{_GIVEN[number % len(_GIVEN)]}"
    family = "".join(_SYLLABLES[number // power % 10] for power in (1, 10, 100, 1000))
    return f"{family}^{_GIVEN[number % len(_GIVEN)]}^{_MIDDLE[number // 30_000 % len(_MIDDLE)]}"


def files(count: int) -> Iterator[bytes]:
    """The instances of the first studies, without pixels, as Part 10 files."""
    for number in range(count):
        told = values(number)
        meta = encode_meta(_CAPTURE, told["SOPInstanceUID"], SYNTAX, None)
        yield meta + pacs_core.Dataset(**told).to_bytes(SYNTAX)


def _entry(number: int) -> Entry:
    items = sorted((BY_KEYWORD[keyword].tag, text.encode()) for keyword, text in values(number).items())
    fields = b"\x01" + b"".join(struct.pack("<II", tag, len(text)) + text for tag, text in items)
    return Entry(fields, struct.pack("<QQQ", 1 << 63 | number, 0, 2000), number + 1, 0, SYNTAX, "STUDIES")


def make(archive: Path, count: int) -> None:
    """An archive with the index of `count` studies, each of a patient of its own; nothing is kept."""
    with Archive.open(archive) as opened:
        for start in range(0, count, _BATCH):
            opened.index.commit([_entry(number) for number in range(start, min(start + _BATCH, count))])
        opened.index.sync()


def main() -> None:
    archive, count = Path(sys.argv[1]), int(sys.argv[2])
    begun = time.perf_counter()
    make(archive, count)
    seconds = time.perf_counter() - begun
    with Archive.open(archive) as opened:
        size = opened.index.stats().index_bytes
    print(f"{count:,} studies in {seconds:.0f} s; {size / count:,.0f} bytes of index per study")


if __name__ == "__main__":
    main()
