"""Performed procedure steps (MPPS): durable transitions a second, ours and pynetdicom over SQLite, in turns.

    python benchmarks/bench_mpps.py [--rounds 3] [--seconds 3] [--associations 1 4 16]

A transition is an N-CREATE, or the N-SET COMPLETED of the same step with a series of 20 images; each is
answered when it is durable. Both servers run as processes of their own, on the same disk: ours is `pacs-core
serve` as it is; pynetdicom's handlers keep a step as the bytes of its data set in SQLite (WAL,
synchronous=FULL), merge what is set, and check no more than the status and the UID. The client is the same
native one for both; its data sets are encoded beforehand. Printed: the median of the rounds for each, the
median of the ratios within rounds, and how often a second this disk syncs a page.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from io import BytesIO
from pathlib import Path

import peers
import pynetdicom
from bench_wire import IMPLICIT, Client
from pynetdicom import AE, evt

from pacs_core._ext.command import encode
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.uids import new_uid

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.steps import created, ended, series

MPPS = "1.2.840.10008.3.1.2.3.3"
IMAGES = 20
COMMON = {0x0110: 1, 0x0800: 1}  # Message ID, and that there is a data set


def serve(folder: Path, port: int) -> None:
    """pynetdicom over SQLite, until killed."""
    from pydicom.dataset import Dataset as Foreign
    from pydicom.filereader import dcmread
    from pydicom.filewriter import dcmwrite

    local = threading.local()

    def database() -> sqlite3.Connection:
        if not hasattr(local, "connection"):
            local.connection = sqlite3.connect(folder / "steps.db", isolation_level=None, timeout=60)
            local.connection.execute("PRAGMA journal_mode=WAL")
            local.connection.execute("PRAGMA synchronous=FULL")
            local.connection.execute(
                "CREATE TABLE IF NOT EXISTS step (uid TEXT PRIMARY KEY, status TEXT, data BLOB) WITHOUT ROWID"
            )
        found: sqlite3.Connection = local.connection
        return found

    def bytes_of(dataset: Foreign) -> bytes:
        out = BytesIO()
        dcmwrite(out, dataset, implicit_vr=True, little_endian=True)
        return out.getvalue()

    def create(event: evt.Event) -> tuple[int, Foreign | None]:
        dataset = event.attribute_list
        if dataset.PerformedProcedureStepStatus != "IN PROGRESS":
            return 0x0106, None
        uid = event.request.AffectedSOPInstanceUID
        try:
            database().execute("INSERT INTO step VALUES (?, 'IN PROGRESS', ?)", (uid, bytes_of(dataset)))
        except sqlite3.IntegrityError:
            return 0x0111, None
        return 0x0000, Foreign()

    def change(event: evt.Event) -> tuple[int, Foreign | None]:
        uid = event.request.RequestedSOPInstanceUID
        connection = database()
        connection.execute("BEGIN IMMEDIATE")
        row = connection.execute("SELECT status, data FROM step WHERE uid = ?", (uid,)).fetchone()
        if row is None or row[0] != "IN PROGRESS":
            connection.execute("ROLLBACK")
            return (0x0112 if row is None else 0x0110), None
        dataset = dcmread(BytesIO(row[1]), force=True)
        dataset.update(event.modification_list)
        status = dataset.PerformedProcedureStepStatus
        connection.execute(
            "UPDATE step SET status = ?, data = ? WHERE uid = ?", (status, bytes_of(dataset), uid)
        )
        connection.execute("COMMIT")
        return 0x0000, Foreign()

    ae = AE(peers.AE_TITLE)
    ae.maximum_associations = 1000
    ae.add_supported_context(MPPS)
    handlers = [(evt.EVT_N_CREATE, create), (evt.EVT_N_SET, change)]
    server = ae.make_server(
        ("127.0.0.1", port), server_class=pynetdicom.ae.ThreadedAssociationServer, evt_handlers=handlers
    )
    server.serve_forever()


class Modality(Client):
    """An association that reports steps, one after the other."""

    def __init__(self, port: int, create: bytes, change: bytes) -> None:
        super().__init__(port, [(1, MPPS, [IMPLICIT])], peers.AE_TITLE)
        self.done = 0
        self._create, self._change = create, change

    def run(self, until: float) -> None:
        while time.perf_counter() < until:
            uid = new_uid()
            self.ask(1, encode({0x0002: MPPS, 0x0100: 0x0140, **COMMON, 0x1000: uid}), self._create)
            self.ask(1, encode({0x0003: MPPS, 0x0100: 0x0120, **COMMON, 0x1001: uid}), self._change)
            self.done += 2


def rate(port: int, associations: int, seconds: float, data: tuple[bytes, bytes]) -> float:
    """Transitions answered a second."""
    modalities = [Modality(port, *data) for _ in range(associations)]
    begun = time.perf_counter()
    threads = [threading.Thread(target=each.run, args=(begun + seconds,)) for each in modalities]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begun
    for each in modalities:
        each.release()
    return sum(each.done for each in modalities) / elapsed


def syncs(folder: Path) -> float:
    """How often a second a page that is written over is made durable."""
    fd = os.open(folder / "page", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, bytes(4096), 0)
    os.fsync(fd)
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < 1:
        os.pwrite(fd, done.to_bytes(8, "little"), 0)
        os.fdatasync(fd)
        done += 1
    os.close(fd)
    return done / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--serve", nargs=2, metavar=("FOLDER", "PORT"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--folder", type=Path, help="where both keep what they keep; default: a temporary one"
    )
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve[0]), int(options.serve[1]))
        return
    data = tuple(
        each.to_bytes(IMPLICIT)
        for each in (created(), ended(PerformedSeriesSequence=[Dataset(series(images=IMAGES))]))
    )
    ours = peers.ours(Path(__file__).resolve().parent.parent, [])
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        with ours(folder) as receiver, peers.program(__file__, "--serve", folder) as other:
            print(
                f"transitions/s, ours against pynetdicom {pynetdicom.__version__} over SQLite "
                f"{sqlite3.sqlite_version}, median of {options.rounds} rounds in turns"
            )
            for associations in options.associations:
                rates = [
                    [rate(port, associations, options.seconds, data) for port in (receiver.port, other.port)]
                    for _ in range(options.rounds)
                ]
                medians = [statistics.median(column) for column in zip(*rates, strict=True)]
                ratio = statistics.median(mine / other for mine, other in rates)
                print(f"{associations:>3} associations {medians[0]:>8.0f} {medians[1]:>8.0f}   x {ratio:.1f}")
            print(f"the disk: {syncs(folder):.0f} syncs of a page a second")


if __name__ == "__main__":
    main()
