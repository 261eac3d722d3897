"""The tables as they are on disk, read by another LMDB in another process; and that the GIL is let go."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from string import ascii_letters

import pytest
from index_model import CT_CLASS, SYNTAX, instance

from pacs_core._ext.rows import Schema
from pacs_core.index import Entry, Index

READER = """
import json, struct, sys
import lmdb

env = lmdb.open(sys.argv[1], max_dbs=16, map_size=1 << 26, readonly=True)


def varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def text(data, at):
    size, at = varint(data, at)
    return data[at : at + size].decode(), at + size


with env.begin() as txn:
    tables = {
        name: [(bytes(k), bytes(v)) for k, v in txn.cursor(env.open_db(name.encode(), txn=txn, create=False))]
        for name in ("meta", "uid", "patient", "study", "series", "instance", "child", "key")
    }
codes = {}
for i in range(0, len(dict(tables["meta"])[b"codes"]), 8):
    tag, level, code = struct.unpack_from("<IBB", dict(tables["meta"])[b"codes"], i)
    codes[code] = tag
instances = []
for key, row in tables["instance"]:
    version, series, stamp, container, checksum = struct.unpack_from("<BQQQI", row)
    assert version == 1
    at = 29
    claim, at = varint(row, at)
    offset, at = varint(row, at)
    length, at = varint(row, at)
    uid, at = text(row, at)
    syntax, at = text(row, at)
    source, at = text(row, at)
    count, at = row[at], at + 1
    values = {}
    for _ in range(count):
        code, at = row[at], at + 1
        values[codes[code]], at = text(row, at)
    assert at == len(row)
    instances.append([uid, syntax, source, stamp, checksum, container, offset, length, values])
print(json.dumps({
    "instances": instances,
    "counts": {name: len(rows) for name, rows in tables.items()},
    "uids": [key.hex() for key, _ in tables["uid"]],
    "keys": sorted({key[1:].hex() for key, _ in tables["key"] if codes.get(key[0]) == 0x00100010}),
}))
"""


def test_an_independent_reader_finds_what_was_committed(tmp_path: Path) -> None:
    with Index.open(tmp_path, map_size=1 << 26) as index:
        index.commit([instance(1, PatientName="Doe^Jane=山田", Rows="512").entry, instance(2).entry])
        run = subprocess.run([sys.executable, "-c", READER, str(tmp_path)], capture_output=True, check=True)
    found = json.loads(run.stdout)
    assert found["counts"] == {
        "meta": 4, "uid": 5, "patient": 1, "study": 1, "series": 1, "instance": 2, "child": 4, "key": 10,
    }  # fmt: skip
    assert b"\x031.2.3.1".hex() in found["uids"]
    assert found["keys"] == [b"\x01doe^jane".hex(), "01" + "山田".encode().hex()]
    first = found["instances"][0]
    assert first[:8] == ["1.2.3.1", SYNTAX, "MODALITY", 1, 1, 1 << 63 | 1, 1, 1000]
    assert first[8] == {str(0x0008_0016): CT_CLASS, str(0x0020_0013): "1", str(0x0028_0010): "512"}


def test_other_threads_run_while_a_commit_waits(tmp_path: Path) -> None:
    """The lock is held by another descriptor: a commit that kept the GIL would stop this very test."""
    import fcntl

    with Index.open(tmp_path, map_size=1 << 26) as index, (tmp_path / "commit.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=index.commit, args=([instance(1).entry],))
        thread.start()
        time.sleep(0.05)
        assert thread.is_alive()
        assert not index.held("1.2.3.1")
        fcntl.flock(lock, fcntl.LOCK_UN)
        thread.join()
        assert index.held("1.2.3.1")


def test_a_batch_reports_every_entry(tmp_path: Path) -> None:
    with Index.open(tmp_path, map_size=1 << 26) as index:
        results = index.commit([instance(number % 700).entry for number in range(1, 1401)])
        assert [result.outcome for result in results] == [0] * 700 + [1] * 700
        results = index.commit([instance(n % 10, stamp=5000 + n).entry for n in range(40)], replace=True)
        assert [result.outcome for result in results] == [2] * 40
        assert [result.previous for result in results[10:]] == [
            instance(n % 10, stamp=5000 + n).entry.locator for n in range(30)
        ]
        assert index.stats().instances == 700
        assert list(index.check()) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"locator": b"x" * 23}, ValueError),
        ({"stamp": -1}, OverflowError),
        ({"stamp": 1 << 64}, OverflowError),
        ({"checksum": 1 << 32}, OverflowError),
        ({"fields": "text"}, TypeError),
        ({"source_ae": None}, AttributeError),
    ],
)
def test_arguments_are_checked(tmp_path: Path, change: dict[str, object], error: type[Exception]) -> None:
    good = instance(1).entry
    names = ("fields", "locator", "stamp", "checksum", "transfer_syntax_uid", "source_ae")
    bad = Entry(**{**{name: getattr(good, name) for name in names}, **change})  # type: ignore[arg-type]
    with Index.open(tmp_path, map_size=1 << 26) as index:
        with pytest.raises(error):
            index.commit([good, bad])
        assert index.stats().instances == 0


def test_thousands_of_values_do_not_hold_the_lock_for_long(tmp_path: Path) -> None:
    """Values of 8 KiB hold 2,700 keys each: comparing each with each took a second, with the index locked."""
    pairs = [a + b for a in ascii_letters for b in ascii_letters]
    keyed = (
        "StudyDate",
        "AccessionNumber",
        "StudyID",
        "StudyDescription",
        "ReferringPhysicianName",
        "PatientName",
    )
    crowded = {keyword: "\\".join(pairs) for keyword in keyed}
    took = []
    with Index.open(tmp_path / "index") as index:
        for number in range(1, 4):
            study = {"StudyInstanceUID": f"1.2.{number}", "PatientID": f"P{number}"}
            instances = [
                instance(10 * number + 1, **study, **crowded),
                instance(10 * number + 2, **study, SeriesInstanceUID="1.3", Modality="MR"),  # one key more
            ]
            begun = time.perf_counter()
            for one in instances:
                index.commit([one.entry])
            took.append(time.perf_counter() - begun)
        assert not list(index.check())
    assert min(took) < 0.3


def test_schemas_are_checked() -> None:
    needed = [(1, 0x0008_0060, 2, 0), (2, 0x0008_0020, 1, 0), (3, 0x0008_0016, 3, 0)]
    Schema(needed, bytes(16))
    for wrong in (
        needed[:2],
        [*needed, (3, 0x0010_0010, 0, 0)],
        [*needed, (4, 0x0008_0060, 0, 0)],
        [*needed, (240, 0x0010_0010, 0, 0)],
        [*needed, (4, 0x0010_0010, 4, 0)],
        [*needed, (4, 0x0010_0020, 0, 0)],
        [*needed, *((10 + n, n, 0, 0) for n in range(49))],
    ):
        with pytest.raises(ValueError, match=r"attribute|belong"):
            Schema(wrong, bytes(16))
    with pytest.raises(ValueError, match="16 bytes"):
        Schema(needed, b"")
