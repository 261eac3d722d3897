"""C-STORE load for any PACS: everything is encoded before, so that the receiver is what is measured.

Each association sends instances one after the other, as modalities do (PS3.7 9.1.1), and waits for each
answer. All of an association's instances are one encoded message in which only the UIDs change; `--from`
takes the message from a file. Associations are shared out to a process per processor.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import click

from pacs_core._ext.associate import RELEASE_RQ, decode_accept, encode_request
from pacs_core._ext.command import encode_store_rq
from pacs_core._ext.link import Link
from pacs_core._ext.pdu import (
    ASSOCIATE_AC,
    AWAIT_REPLY,
    MESSAGE,
    RELEASE_RP,
    RELEASING,
    TRANSFER,
    fragment,
)
from pacs_core.client.sources import part_of_file
from pacs_core.dicom.part10 import split
from pacs_core.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from pacs_core.errors import PacsError

CONTEXT = 1
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "2.25.7"
DIGITS = 36
"""Of our UIDs: all have the same length, so that one can take another's place."""
MARKS = [f"{ROOT}{kind}{0:0{DIGITS}d}" for kind in (9, 8, 7)]
"""They stand for SOP, series and study instance UID in what is encoded."""
WAIT = 60.0
"""Seconds without an answer after which an association is lost."""


@dataclass(frozen=True)
class Load:
    """What is to be sent, and how."""

    host: str
    port: int
    calling: str
    called: str
    maximum_pdu: int
    nagle: bool
    rate: float
    """Instances a second of one association; 0: as fast as they are taken."""
    count: int
    """Of one association; 0: until the time is over."""
    until: float
    """Seconds to send for."""
    sop_class_uid: str
    transfer_syntax_uid: str
    data: bytes
    """With `MARKS` for SOP, series and study instance UID."""


@dataclass
class Outcome:
    """What one process's associations saw."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    bytes: int = 0

    def add(self, other: Outcome) -> None:
        self.latencies += other.latencies
        self.statuses += other.statuses
        self.lost += other.lost
        self.acknowledged += other.acknowledged
        self.bytes += other.bytes


def generated(size: int) -> bytes:
    """A CT image of about `size` bytes in Explicit VR Little Endian, with `MARKS` for UIDs."""
    uids = [mark.encode() for mark in MARKS]

    def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        value += (b"\0" if vr == b"UI" else b" ") * (len(value) & 1)
        head = group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr
        if vr == b"OW":
            return head + b"\0\0" + len(value).to_bytes(4, "little") + value
        return head + len(value).to_bytes(2, "little") + value

    side = max(1, int((max(size - 700, 2) / 2) ** 0.5))
    short = side.to_bytes(2, "little")
    elements = [
        (0x0008, 0x0005, b"CS", b"ISO_IR 192"),
        (0x0008, 0x0008, b"CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
        (0x0008, 0x0016, b"UI", CT_IMAGE_STORAGE.encode()),
        (0x0008, 0x0018, b"UI", uids[0]),
        (0x0008, 0x0020, b"DA", time.strftime("%Y%m%d").encode()),
        (0x0008, 0x0030, b"TM", time.strftime("%H%M%S").encode()),
        (0x0008, 0x0050, b"SH", b"LOAD"),
        (0x0008, 0x0060, b"CS", b"CT"),
        (0x0008, 0x1030, b"LO", b"load test"),
        (0x0010, 0x0010, b"PN", b"Load^Test"),
        (0x0010, 0x0020, b"LO", b"LOADTEST"),
        (0x0020, 0x000D, b"UI", uids[2]),
        (0x0020, 0x000E, b"UI", uids[1]),
        (0x0020, 0x0013, b"IS", b"1"),
        (0x0028, 0x0002, b"US", b"\x01\0"),
        (0x0028, 0x0004, b"CS", b"MONOCHROME2"),
        (0x0028, 0x0010, b"US", short),
        (0x0028, 0x0011, b"US", short),
        (0x0028, 0x0100, b"US", b"\x10\0"),
        (0x0028, 0x0101, b"US", b"\x0c\0"),
        (0x0028, 0x0102, b"US", b"\x0b\0"),
        (0x0028, 0x0103, b"US", b"\0\0"),
        (0x7FE0, 0x0010, b"OW", os.urandom(2 * side * side)),
    ]
    return b"".join(element(*one) for one in elements)


def of_file(path: Path) -> tuple[str, str, bytes]:
    """SOP class, transfer syntax and data set of a file, with `MARKS` for UIDs."""
    from pydicom import dcmread
    from pydicom.uid import UID

    part_of_file(path)  # says clearly what is wrong with it
    dataset = dcmread(path, force=True)
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = map(UID, MARKS)
    out = BytesIO()
    dataset.save_as(out)
    meta, data = split(out.getvalue())
    if MARKS[0].encode() not in bytes(data):
        raise click.ClickException(f"{path}: a deflated data set can't be given new UIDs in place")
    return str(dataset.SOPClassUID), meta.transfer_syntax_uid, bytes(data)


class Sender:
    """One association, with the encoded message that it sends again and again."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._socket = socket.create_connection((load.host, load.port), WAIT)
        self._socket.settimeout(None)
        if not load.nagle:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link = Link(AWAIT_REPLY, fd=self._socket.fileno(), maximum_pdu=load.maximum_pdu)
        self._link.send_raw(
            encode_request(
                called_ae_title=load.called,
                calling_ae_title=load.calling,
                contexts=[(CONTEXT, load.sop_class_uid, [load.transfer_syntax_uid])],
                maximum_length=load.maximum_pdu,
                implementation_class_uid="2.25.1",
                implementation_version_name="LOADGEN",
            )
        )
        reply = self._link.receive(timeout=WAIT)
        if reply.kind != ASSOCIATE_AC or reply.raw is None:
            raise ConnectionError("the association was rejected")
        accept = decode_accept(reply.raw)
        if accept.results.get(CONTEXT, (1, ""))[0] != 0:
            raise ConnectionError("SOP class or transfer syntax was not accepted")
        self._link.phase = TRANSFER
        self._link.accept_contexts([CONTEXT])
        self._limit = min(accept.maximum_length or load.maximum_pdu, load.maximum_pdu)
        self._number = f"{os.getpid():07d}{number:05d}"
        self._count = 0
        self._last = ["", "", ""]
        self._message = bytearray().join(fragment(CONTEXT, load.data, False, self._limit))
        # One that the border of a fragment cuts, which only that of a tiny PDU can, is not found.
        self._places = [
            [found.start() for found in re.finditer(re.escape(mark.encode()), self._message)]
            for mark in MARKS
        ]
        if not self._places[0]:
            raise ConnectionError(f"PDUs of {self._limit} bytes are too small for this")

    def _renew(self) -> str:
        """Give the message UIDs that nobody has seen: a series of 100 instances, a study of 4 series."""
        number = self._count
        self._count += 1
        stamp = int(time.time())
        uids = [
            f"{ROOT}{kind}{int(f'{stamp:010d}{self._number}{value:08d}'):0{DIGITS}d}"
            for kind, value in enumerate((number, number // 100, number // 400))
        ]
        for kind in (1, 2):  # these stay for their hundred
            if number % (100 if kind == 1 else 400):
                uids[kind] = self._last[kind]
        self._last = uids
        for places, uid in zip(self._places, uids, strict=True):
            for place in places:
                self._message[place : place + len(uid)] = uid.encode()
        return uids[0]

    def store(self, message_id: int) -> tuple[str, int, float]:
        """Send one instance: its UID, the answer's status, and the seconds from first byte to answer."""
        uid = self._renew()
        command = encode_store_rq(message_id, self._load.sop_class_uid, uid)
        encoded = b"".join([*fragment(CONTEXT, command, True, self._limit), self._message])
        began = time.perf_counter()
        self._link.send_raw(encoded)
        answer = self._link.receive(timeout=WAIT)
        taken = time.perf_counter() - began
        if answer.kind != MESSAGE or answer.command is None or answer.command.status is None:
            raise ConnectionError(answer.text or "no answer")
        return uid, answer.command.status, taken

    @property
    def size(self) -> int:
        return len(self._message)

    def release(self) -> None:
        self._link.phase = RELEASING
        self._link.send_raw(RELEASE_RQ)
        if self._link.receive(timeout=5).kind == RELEASE_RP:
            self.close()

    def close(self) -> None:
        self._socket.close()


def run(load: Load, numbers: Iterable[int], start: Event, stop: Event, results: Any) -> None:
    """One process: a thread for each of its associations."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outcome, lock = Outcome(), threading.Lock()

    def send(number: int) -> None:
        mine = Outcome()
        start.wait()
        deadline = time.monotonic() + load.until
        sent = 0
        sender: Sender | None = None
        try:
            sender = Sender(load, number)
            began = time.monotonic()
            while time.monotonic() < deadline and not stop.is_set() and sent != (load.count or -1):
                if load.rate and (wait := began + sent / load.rate - time.monotonic()) > 0:
                    time.sleep(wait)
                uid, status, seconds = sender.store(sent % 65535 + 1)
                sent += 1
                mine.latencies.append(seconds)
                mine.statuses[f"{status:04X}"] += 1
                if status == 0 or status >> 12 == 0xB:
                    mine.acknowledged.append(uid)
                    mine.bytes += sender.size
            sender.release()
        except (OSError, PacsError, ValueError) as exc:
            mine.lost.append(f"association {number}, after {sent}: {exc}")
        finally:
            if sender is not None:
                sender.close()
            with lock:
                outcome.add(mine)

    threads = [threading.Thread(target=send, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(outcome)


def percentile(values: list[float], share: float) -> float:
    """In milliseconds; 0 when there are none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000 if values else 0.0


@click.command(context_settings={"show_default": True})
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.option("--aec", default="ANY-SCP", metavar="AET", help="The AE title to call.")
@click.option("--aet", default="LOADGEN", metavar="AET", help="Our AE title.")
@click.option("--associations", "-n", default=4, type=click.IntRange(1, 1000), help="At a time.")
@click.option("--size", default=524288, type=click.IntRange(1024, 1 << 30), help="Bytes of an instance.")
@click.option(
    "--from", "source", type=click.Path(path_type=Path, exists=True), help="Send this file with new UIDs."
)
@click.option("--duration", default=10.0, help="Seconds to send for.")
@click.option(
    "--count", default=0, help="Instances of each association; 0: as many as go.", show_default=False
)
@click.option("--rate", default=0.0, help="Instances a second in all; 0: as fast as they are taken.")
@click.option("--pdu", default=131072, type=click.IntRange(1024, 1 << 24), help="Longest PDU, bytes.")
@click.option("--nagle/--no-nagle", default=False, help="Leave Nagle's algorithm on.")
@click.option("--uids", type=click.Path(path_type=Path), help="Write the UIDs acknowledged to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(
    host: str,
    port: int,
    aec: str,
    aet: str,
    associations: int,
    size: int,
    source: Path | None,
    duration: float,
    count: int,
    rate: float,
    pdu: int,
    nagle: bool,
    uids: Path | None,
    as_json: bool,
) -> None:
    """Send C-STORE load to the PACS at HOST PORT and report rate, latency, and answers by status.

    The instances are new each time, of a patient LOADTEST. Exit code 1 when one was refused or an association
    was lost.
    """
    sop_class, syntax = CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN
    if source is not None:
        try:
            sop_class, syntax, data = of_file(source)
        except PacsError as exc:
            raise click.ClickException(str(exc)) from exc
    else:
        data = generated(size)
    load = Load(
        host,
        port,
        aet,
        aec,
        pdu,
        nagle,
        rate / associations,
        count,
        duration,
        sop_class,
        syntax,
        data,
    )
    context = multiprocessing.get_context("spawn")
    start, stop, results = context.Event(), context.Event(), context.Queue()
    shares = min(associations, os.cpu_count() or 1)
    workers = [
        context.Process(target=run, args=(load, range(n, associations, shares), start, stop, results))
        for n in range(shares)
    ]
    for worker in workers:
        worker.start()
    time.sleep(0.5)  # until all of them are there
    began = time.perf_counter()
    start.set()
    total, left = Outcome(), len(workers)
    while left:
        with suppress(KeyboardInterrupt):
            total.add(results.get())
            left -= 1
            continue
        stop.set()
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    if uids is not None:
        uids.write_text("".join(f"{uid}\n" for uid in total.acknowledged))
    report = {
        "seconds": round(seconds, 3),
        "acknowledged": len(total.acknowledged),
        "instances_per_second": round(len(total.acknowledged) / seconds, 1),
        "megabytes_per_second": round(total.bytes / seconds / 1e6, 1),
        "p50_ms": round(percentile(total.latencies, 0.5), 2),
        "p99_ms": round(percentile(total.latencies, 0.99), 2),
        "statuses": dict(total.statuses),
        "lost": total.lost,
    }
    if as_json:
        click.echo(json.dumps(report))
    else:
        click.echo(
            f"{report['acknowledged']:,} acknowledged in {seconds:.1f} s: "
            f"{report['instances_per_second']:,} instances/s, {report['megabytes_per_second']:,} MB/s, "
            f"p50 {report['p50_ms']} ms, p99 {report['p99_ms']} ms; "
            + (", ".join(f"{status}: {n:,}" for status, n in total.statuses.items()) or "no answers")
        )
        for text in total.lost:
            click.echo(f"lost: {text}", err=True)
    sys.exit(1 if total.lost or len(total.acknowledged) != total.statuses.total() else 0)


if __name__ == "__main__":
    main()
