"""C-FIND at study level on one association: latency by kind of query, responses a second of long answers.

    python benchmarks/bench_find.py [--studies 20000] [--peers pacs_core,Orthanc] [--rounds 5]

Receivers are loaded with the same generated studies (`studies.py`), dcmqrscp and qrscp with fewer, and
asked in turns. Ours is given the index only, or `--archive`, one that ``studies.py`` made before; `--large`
is another such archive, asked in the same turns. The client is bytes and a count of statuses; what it can
take itself, from a process that only sends what ours answered, is measured and told.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import peers
import studies
from senders import Association, RunError, request

import pacs_core
from pacs_core._ext.command import encode
from pacs_core._ext.pdu import fragment
from pacs_core.dicom.dictionary import tag_of, vr_of

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
AT_MOST = {"dcmqrscp": 495, "qrscp": 2000}
"""Studies that a peer is given: dcmqrscp's limit is 500, qrscp takes 30 a second."""

_RETURNED = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID"),
    *("PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDescription"),
)
_PIECE = 1 << 20
# Status (0000,0900) in implicit VR, as the responses have it: FF00, FF01 and 0000.
_STATUS = b"\0\0\0\x09\x02\0\0\0"
_PENDING, _WARNING, _SUCCESS = _STATUS + b"\0\xff", _STATUS + b"\1\xff", _STATUS + b"\0\0"


def queries(known: int) -> dict[str, Callable[[int], Mapping[str, str]]]:
    """What is asked for, by name: the keys of the nth time. `known`: studies to choose one of."""

    def of(keyword: str) -> Callable[[int], Mapping[str, str]]:
        return lambda n: {keyword: studies.values(n * 7919 % known)[keyword]}

    def always(**keys: str) -> Callable[[int], Mapping[str, str]]:
        return lambda _: keys

    return {
        "Study Instance UID": of("StudyInstanceUID"),
        "Patient ID": of("PatientID"),
        "Accession Number": of("AccessionNumber"),
        "DOE^A*": always(PatientName="DOE^A*"),
        "*SMI*": always(PatientName="*SMI*"),
        "a week": always(StudyDate="20200106-20200112"),
        "CT of a month": always(StudyDate="20200301-20200331", ModalitiesInStudy="CT"),
        "a year": always(StudyDate="20200101-20201231"),
        "ten years": always(StudyDate="20150101-20241231"),
    }


def encoded(keys: Mapping[str, str]) -> bytes:
    """The P-DATA-TF PDUs of one C-FIND."""
    command = encode({0x0002: STUDY_ROOT, 0x0100: 0x20, 0x0110: 1, 0x0700: 0, 0x0800: 1})
    texts = dict.fromkeys(_RETURNED, "") | {"QueryRetrieveLevel": "STUDY"} | keys
    asked = dict(sorted(texts.items(), key=lambda item: tag_of(item[0])))
    identifier = b"".join(_element(tag_of(keyword), text) for keyword, text in asked.items())
    return b"".join(fragment(1, command, True, 16384) + fragment(1, identifier, False, 16384))


def _element(tag: int, text: str) -> bytes:
    """In explicit VR; ranges are no values that a `Dataset` would take."""
    value = text.encode() + b"\0 "[vr_of(tag) != "UI" :][: len(text) & 1]
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr_of(tag).encode(), len(value)) + value


class Answers:
    """Counts the responses that arrive on a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(_PIECE)

    def count(self, keep: bytearray | None = None) -> int:
        """Those of one query; all bytes are added to `keep`."""
        found, rest = 0, b""
        while True:
            size = self._socket.recv_into(self._buffer)
            if not size:
                raise RunError("the connection was closed")
            piece = rest + self._buffer[:size]
            if keep is not None:
                keep += piece[len(rest) :]
            found += piece.count(_PENDING) + piece.count(_WARNING)
            if _SUCCESS in piece:
                return found
            rest = piece[-len(_SUCCESS) + 1 :]


class Client:
    """One association with a receiver."""

    def __init__(self, receiver: peers.Receiver) -> None:
        self._association = Association(receiver.port, request(STUDY_ROOT))
        self._answers = Answers(self._association.socket)

    def ask(self, query: bytes, keep: bytearray | None = None) -> tuple[int, float]:
        """How many responses, in how many seconds."""
        begun = time.perf_counter()
        self._association.send(query)
        return self._answers.count(keep), time.perf_counter() - begun

    def close(self) -> None:
        self._association.close()


def ceiling(answer: bytes, seconds: float) -> float:
    """Responses a second that the client counts when a process does nothing but send an answer."""
    ours, theirs = socket.socketpair()
    sender = multiprocessing.get_context("fork").Process(target=_send, args=(theirs, ours, answer))
    sender.start()
    theirs.close()
    answers, count, begun = Answers(ours), 0, time.perf_counter()
    while (now := time.perf_counter()) < begun + seconds:
        ours.sendall(b"?")
        count += answers.count()
    ours.close()
    sender.join()
    return count / (now - begun)


def _send(sock: socket.socket, other: socket.socket, answer: bytes) -> None:
    other.close()
    while sock.recv(1):
        sock.sendall(answer)


def load(receiver: peers.Receiver, count: int) -> float:
    """Send the first studies; instances a second."""
    begun = time.perf_counter()
    sent = pacs_core.Client("127.0.0.1", receiver.port, aec=peers.AE_TITLE).store(list(studies.files(count)))
    if wrong := [one for one in sent if one.status != 0]:
        raise RunError(f"{len(wrong)} instances were not taken: {wrong[0]}")
    return count / (time.perf_counter() - begun)


class Subject:
    """A receiver that is asked, and what it answered when."""

    def __init__(self, name: str, receiver: peers.Receiver, known: int) -> None:
        self.name, self.receiver, self.queries = name, receiver, queries(known)
        self.times: dict[str, list[float]] = {}
        self.matches: dict[str, int] = {}
        self._number = 0

    @cached_property
    def client(self) -> Client:
        """Made when it is needed: while others are loaded an association would be idle for too long."""
        return Client(self.receiver)

    def turn(self, query: str, seconds: float) -> None:
        """Ask as often as there is time, three times at least."""
        times = self.times.setdefault(query, [])
        begun, before = time.perf_counter(), len(times)
        while len(times) < before + 3 or time.perf_counter() < begun + seconds:
            self._number += 1
            asked = encoded(self.queries[query](self._number))
            self.matches[query], took = self.client.ask(asked)
            times.append(took)

    def row(self, query: str) -> str:
        times, matches = sorted(self.times[query]), self.matches[query]
        half, most = statistics.median(times), times[len(times) * 99 // 100]
        rate = f"{matches / half:>9,.0f}/s" if matches > 1000 else ""
        return f"{query:<20}{self.name:<24}{matches:>8}{half * 1e3:>10.2f}{most * 1e3:>10.2f}{rate:>12}"


def subjects(given: argparse.Namespace, root: Path, stack: ExitStack) -> Iterator[Subject]:
    """The receivers, started and loaded."""
    wanted = given.peers.split(",")
    for peer in peers.query_peers():
        if peer.name not in wanted:
            continue
        if peer.missing:
            print(f"{peer.name}: {peer.missing}")
            continue
        count = min(given.studies, AT_MOST.get(peer.name, given.studies))
        folder = root / peer.name
        folder.mkdir()
        if peer.name == "pacs_core":
            if given.archive:
                (folder / "archive").symlink_to(given.archive.resolve())
            else:
                studies.make(folder / "archive", count)
        receiver = stack.enter_context(peer.start(folder))
        if peer.name != "pacs_core":
            print(f"{peer.version}: {count:,} studies at {load(receiver, count):,.0f}/s", flush=True)
        yield Subject(f"{peer.name}, {count:,}", receiver, count)
        if peer.name == "pacs_core" and given.large:
            other = root / "large"
            other.mkdir()
            (other / "archive").symlink_to(given.large.resolve())
            yield Subject("pacs_core, large", stack.enter_context(peer.start(other)), studies.COMMON)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--studies", type=int, default=studies.COMMON)
    parser.add_argument("--peers", default="pacs_core,Orthanc,dcmqrscp,qrscp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--archive", type=Path, help="of ours, with the index of --studies studies")
    parser.add_argument("--large", type=Path, help="another one of ours, of more studies")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="find-"))
    try:
        with ExitStack() as stack:
            asked = list(subjects(given, root, stack))
            print(f"{'query':<20}{'of':<24}{'matches':>8}{'p50 ms':>10}{'p99 ms':>10}")
            for query in queries(1):
                for _ in range(given.rounds):
                    for subject in asked:
                        subject.turn(query, given.seconds)
                for subject in asked:
                    print(subject.row(query), flush=True)
            answer = bytearray()
            asked[0].client.ask(encoded({"StudyDate": "20200101-20201231"}), answer)
            print(f"the client itself: {ceiling(bytes(answer), 2 * given.seconds):,.0f} responses/s")
            for subject in asked:
                subject.client.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
