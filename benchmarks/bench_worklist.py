"""Modality Worklist queries on one association: latency by kind of query, beside DCMTK and a usual handler.

    python benchmarks/bench_worklist.py [--steps 50000] [--files 50000] [--rounds 4] [--realtime]

The same scheduled procedure steps, 500 a day, are kept by us, in files by DCMTK's wlmscpfs (which reads all
of them for each query), and in SQLite, with an index for each query, by a C-FIND handler of pynetdicom, and
asked for in turns. The client is bytes and a count of statuses. As ``--serve DATABASE PORT`` this is the
handler.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import peers
from bench_find import Answers
from senders import Association, request

from pacs_core import Archive
from pacs_core._ext.command import encode
from pacs_core._ext.pdu import fragment
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from pacs_core.dicom.worklist import MODALITY_WORKLIST_FIND, identifier_of
from pacs_core.workflow.scheduling import plain

WLMSCPFS = Path("/usr/bin/wlmscpfs")
A_DAY = 500
FIRST = datetime.date(2026, 1, 1)
STATIONS = [f"{modality}{number}" for modality in ("CT", "MR", "US", "CR", "DX") for number in range(1, 11)]
FAMILIES = ("DOE", "SMITH", "MÜLLER", "YAMADA", "IVANOV", "GARCIA", "NGUYEN", "KIM", "ROSSI", "SILVA")

PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber")
PROCEDURE = (
    "StudyInstanceUID",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "ReferringPhysicianName",
)
STEP = (
    *("Modality", "ScheduledStationAETitle", "ScheduledProcedureStepStartDate"),
    *("ScheduledProcedureStepStartTime", "ScheduledProcedureStepDescription", "ScheduledProcedureStepID"),
    "ScheduledPerformingPhysicianName",
)
COLUMNS = (*PATIENT, *PROCEDURE, *STEP)


def values(number: int) -> dict[str, str]:
    """The nth step."""
    source = random.Random(number)
    station = source.choice(STATIONS)
    day = FIRST + datetime.timedelta(days=number // A_DAY)
    return {
        "PatientName": f"{source.choice(FAMILIES)}^{chr(65 + number % 26)}{number // 2}",
        "PatientID": f"P{number // 2:06}",
        "PatientBirthDate": f"19{source.randrange(30, 99)}0315",
        "PatientSex": source.choice("FM"),
        "AccessionNumber": f"A{number:07}",
        "StudyInstanceUID": f"1.2.826.0.1.{number}",
        "RequestedProcedureID": f"R{number}",
        "RequestedProcedureDescription": f"{station[:2]} of something, with contrast",
        "ReferringPhysicianName": "WHO^DOCTOR",
        "Modality": station[:2],
        "ScheduledStationAETitle": station,
        "ScheduledProcedureStepStartDate": f"{day:%Y%m%d}",
        "ScheduledProcedureStepStartTime": f"{source.randrange(7, 19):02}{source.randrange(60):02}00",
        "ScheduledProcedureStepDescription": f"{station[:2]} of something",
        "ScheduledProcedureStepID": f"S{number}",
        "ScheduledPerformingPhysicianName": "KILDARE^JAMES",
    }


def queries(known: int) -> dict[str, Callable[[int], dict[str, str]]]:
    """What is asked for, by name: the keys of the nth time."""

    def of(*keywords: str) -> Callable[[int], dict[str, str]]:
        return lambda n: {keyword: values(n * 7919 % known)[keyword] for keyword in keywords}

    day = "ScheduledProcedureStepStartDate"
    return {
        "station and date": of("ScheduledStationAETitle", day),
        "modality and date": of("Modality", day),
        "Patient ID": of("PatientID"),
        "Accession Number": of("AccessionNumber"),
        "DOE^A1*": lambda _: {"PatientName": "DOE^A1*"},
        "all of a day": of(day),
    }


def encoded(keys: dict[str, str]) -> bytes:
    """The P-DATA-TF PDUs of one C-FIND."""
    command = encode({0x0002: MODALITY_WORKLIST_FIND, 0x0100: 0x20, 0x0110: 1, 0x0700: 0, 0x0800: 1})
    identifier = identifier_of({**dict.fromkeys(COLUMNS, ""), **keys}).to_bytes(EXPLICIT_VR_LITTLE_ENDIAN)
    return b"".join(fragment(1, command, True, 16384) + fragment(1, identifier, False, 16384))


# --- those that are asked ---------------------------------------------------------------------------------


@contextmanager
def ours(folder: Path, count: int) -> Iterator[int]:
    with Archive.open(folder / "archive") as archive:
        for first in range(0, count, 1000):
            archive.worklist.schedule_all(map(values, range(first, min(first + 1000, count))))
    repository = Path(__file__).resolve().parent.parent
    with peers.ours(repository, ["pool.acceptors=1"])(folder) as receiver:
        yield receiver.port


@contextmanager
def wlmscpfs(folder: Path, count: int) -> Iterator[int]:
    lists = folder / peers.AE_TITLE
    lists.mkdir()
    (lists / "lockfile").touch()
    for number in range(count):
        dataset = plain(values(number))
        meta = {"SOPClassUID": MODALITY_WORKLIST_FIND, "SOPInstanceUID": f"1.2.3.{number}"}
        for keyword, value in meta.items():
            dataset[keyword] = value
        (lists / f"{number}.wl").write_bytes(dataset.to_file(EXPLICIT_VR_LITTLE_ENDIAN))
    port = peers.free_port()
    command = [str(WLMSCPFS), "-dfr", "-dfp", str(folder), str(port)]
    with peers.running(command, env=peers.no_delay()) as process:
        peers.await_port(process, port)
        yield port


@contextmanager
def sqlite_handler(folder: Path, count: int) -> Iterator[int]:
    database = folder / "worklist.db"
    with sqlite3.connect(database) as connection:
        connection.execute(f"CREATE TABLE step ({', '.join(f'{column} TEXT' for column in COLUMNS)})")
        marks = ", ".join("?" * len(COLUMNS))
        rows = ([values(number)[column] for column in COLUMNS] for number in range(count))
        connection.executemany(f"INSERT INTO step VALUES ({marks})", rows)
        day = "ScheduledProcedureStepStartDate"
        for number, index in enumerate(
            (
                *(f"ScheduledStationAETitle, {day}", f"Modality, {day}", day),
                *("PatientID", "AccessionNumber", "PatientName COLLATE NOCASE"),
            )
        ):
            connection.execute(f"CREATE INDEX by{number} ON step ({index})")
    connection.close()
    with peers.program(__file__, "--serve", database) as receiver:
        yield receiver.port


def serve(database: str, port: int) -> None:
    """The handler that anybody would write: a statement of the keys, a data set of each row."""
    from pydicom.dataset import Dataset
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

    connection = sqlite3.connect(database, check_same_thread=False)

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        [step] = asked.ScheduledProcedureStepSequence
        conditions, texts = [], []
        for column in COLUMNS:
            value = str((step if column in STEP else asked).get(column) or "")
            if not value:
                continue
            if "*" in value:
                conditions.append(f"{column} LIKE ?")
                value = value.replace("*", "%")
            else:
                conditions.append(f"{column} = ?")
            texts.append(value)
        statement = f"SELECT {', '.join(COLUMNS)} FROM step WHERE {' AND '.join(conditions) or '1'}"
        for row in connection.execute(statement, texts):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            found, item = Dataset(), Dataset()
            for column, value in zip(COLUMNS, row, strict=True):
                setattr(item if column in STEP else found, column, value)
            found.ScheduledProcedureStepSequence = [item]
            found.SpecificCharacterSet = "ISO_IR 192"
            yield 0xFF00, found

    entity = AE(peers.AE_TITLE)
    entity.maximum_pdu_size = 0
    entity.add_supported_context(ModalityWorklistInformationFind)
    entity.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_FIND, find)])


# --- the measurement --------------------------------------------------------------------------------------


class Subject:
    """One that is asked, and what it answered when."""

    def __init__(self, name: str, port: int, count: int, share: float) -> None:
        self.name, self.share, self.queries = name, share, queries(count)
        self._port = port
        self.times: dict[str, list[float]] = {}
        self.matches: dict[str, list[int]] = {}
        self._number = 0

    def turn(self, query: str, times: int) -> None:
        """Ask some times, on one association."""
        association = Association(self._port, request(MODALITY_WORKLIST_FIND))
        answers = Answers(association.socket)
        association.socket.settimeout(600)
        for _ in range(max(1, round(times * self.share))):
            self._number += 1
            asked = encoded(self.queries[query](self._number))
            begun = time.perf_counter()
            association.send(asked)
            self.matches.setdefault(query, []).append(answers.count())
            self.times.setdefault(query, []).append(time.perf_counter() - begun)
        association.close()

    def row(self, query: str, ours: Subject) -> str:
        times = sorted(self.times[query])
        half, most = statistics.median(times), times[len(times) * 99 // 100]
        matches = statistics.median(self.matches[query])
        ratio = half / statistics.median(ours.times[query])
        return f"{query:<20}{self.name:<22}{matches:>8.0f}{half * 1e3:>10.2f}{most * 1e3:>10.2f}{ratio:>9.1f}"


def come_first() -> None:
    """Have all processes of ours run before those of others, whatever else the machine does."""
    for pid in peers.process_tree(os.getpid()):
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(task.name), os.SCHED_RR, os.sched_param(1))


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--files", type=int, default=50_000, help="of wlmscpfs; 0: without it")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--times", type=int, default=100, help="that we are asked in a round; the others less"
    )
    parser.add_argument("--realtime", action="store_true", help="before others' processes; as root")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="worklist-"))
    starts: list[tuple[str, Any, int, float]] = [
        ("pacs_core", ours, given.steps, 1),
        ("pynetdicom, SQLite", sqlite_handler, given.steps, 0.1),
    ]
    if given.files and os.access(WLMSCPFS, os.X_OK):
        starts.append(("wlmscpfs", wlmscpfs, given.files, 0))
    try:
        with ExitStack() as stack:
            asked = []
            for name, start, count, share in starts:
                folder = root / start.__name__
                folder.mkdir()
                begun = time.perf_counter()
                port = stack.enter_context(start(folder, count))
                print(f"{name}: {count:,} steps in {time.perf_counter() - begun:,.0f} s", flush=True)
                asked.append(Subject(name, port, count, share))
            if given.realtime:
                come_first()
            print(f"{'query':<20}{'of':<22}{'matches':>8}{'p50 ms':>10}{'p99 ms':>10}{'times':>9}")
            for query in queries(1):
                for number in range(given.rounds):
                    for subject in asked:
                        if number == 0 or subject.share:
                            subject.turn(query, given.times)
                for subject in asked:
                    print(subject.row(query, asked[0]), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
