"""What sends to the receivers: DCMTK's storescu, pynetdicom's SCU, and a light one of raw sockets.

Acknowledgements are counted, not sends: whatever is not answered with Success raises `RunError`.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import data
import peers
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pacs_core._ext.associate import RELEASE_RQ, decode_accept, encode_request
from pacs_core._ext.command import Command, encode_echo_rq, encode_store_rq
from pacs_core._ext.pdu import fragment

VERIFICATION = "1.2.840.10008.1.1"
_CONTEXT = 1
_RUN_SECONDS = 300
_SOCKET_SECONDS = 120
_PIECE = 128 << 10
_SAMPLE_SECONDS = 0.02


class RunError(Exception):
    """A run that does not count: something was refused, lost or too slow."""


def storescu(port: int, folders: Sequence[Path], *, nagle: bool = False) -> float:
    """Send each folder by a process of its own, all at the same time; seconds from the first to the last.

    storescu goes on only after Success, and exits with 0 only if each of its files was answered so.
    """
    environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"} if nagle else peers.no_delay()
    command = [str(peers.STORESCU), "-aec", peers.AE_TITLE, "+sd", "127.0.0.1", str(port)]
    begun = time.perf_counter()
    running = [
        subprocess.Popen(
            [*command, str(folder)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for folder in folders
    ]
    # With a timeout of its own `wait` looks only every 50 ms.
    watch = threading.Timer(_RUN_SECONDS, lambda: [process.kill() for process in running])
    watch.start()
    try:
        codes = [process.wait() for process in running]
        seconds = time.perf_counter() - begun
    finally:
        watch.cancel()
        for process in running:
            process.kill()
    if any(codes):
        raise RunError(f"storescu: exit codes {codes}")
    return seconds


def pynetdicom_scu(port: int, folder: Path) -> float:
    """Send a folder with pynetdicom's SCU, in a process: seconds from first request to last answer."""
    context = multiprocessing.get_context("spawn")
    answers: SimpleQueue[float | str] = context.SimpleQueue()
    process = context.Process(target=_send_with_pynetdicom, args=(port, folder, answers))
    process.start()
    process.join(_RUN_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    answer = "pynetdicom's SCU failed" if answers.empty() else answers.get()
    if isinstance(answer, str):
        raise RunError(answer)
    return answer


def _send_with_pynetdicom(port: int, folder: Path, answers: SimpleQueue[float | str]) -> None:
    from pynetdicom import AE

    datasets = [dcmread(path) for path in sorted(folder.iterdir())]
    entity = AE()
    entity.add_requested_context(datasets[0].SOPClassUID, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title=peers.AE_TITLE, max_pdu=0)
    begun = time.perf_counter()
    statuses = {association.send_c_store(dataset).get("Status") for dataset in datasets}
    seconds = time.perf_counter() - begun
    association.release()
    answers.put(seconds if statuses == {0} else f"pynetdicom's SCU: statuses {statuses}")


class Association:
    """An association over a raw socket, one presentation context."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), _SOCKET_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self.socket.sendall(request)
        self.accept = self.read(2)

    def send(self, encoded: bytes) -> None:
        self.socket.sendall(encoded)

    def read(self, kind: int) -> bytes:
        """The next PDU, which is to be of that kind (PS3.8 9.3)."""
        received = self._received
        while len(received) < 6 or len(received) < 6 + int.from_bytes(received[2:6], "big"):
            piece = self.socket.recv(65536)
            if not piece:
                raise RunError("the receiver closed the connection")
            received += piece
        end = 6 + int.from_bytes(received[2:6], "big")
        found = bytes(received[:end])
        del received[:end]
        if found[0] != kind:
            raise RunError(f"PDU of type {found[0]}, not {kind}")
        return found

    def status(self) -> int | None:
        """The status in the next response, which fits in one PDU."""
        return Command.decode(self.read(4)[12:]).status

    def release(self) -> None:
        self.send(RELEASE_RQ)
        self.read(6)
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


def request(abstract_syntax: str) -> bytes:
    """An A-ASSOCIATE-RQ for one SOP class."""
    return encode_request(
        called_ae_title=peers.AE_TITLE,
        calling_ae_title="BENCH",
        contexts=[(_CONTEXT, abstract_syntax, ["1.2.840.10008.1.2", ExplicitVRLittleEndian])]
        if abstract_syntax == VERIFICATION
        else [(_CONTEXT, abstract_syntax, [ExplicitVRLittleEndian])],
        maximum_length=0,
        implementation_class_uid="2.25.1",
        implementation_version_name="BENCH",
    )


def associations(port: int, seconds: float) -> float:
    """Associate, C-ECHO, release, one after the other: how many in a second."""
    encoded = request(VERIFICATION)
    (echo,) = fragment(_CONTEXT, encode_echo_rq(1), True, 16384)
    count = 0
    begun = time.perf_counter()
    while (now := time.perf_counter()) < begun + seconds:
        association = Association(port, encoded)
        association.send(echo)
        if association.status() != 0:
            raise RunError("C-ECHO was refused")
        association.release()
        count += 1
    return count / (now - begun)


def echoes(port: int, seconds: float) -> float:
    """C-ECHO on one association: how many in a second."""
    (echo,) = fragment(_CONTEXT, encode_echo_rq(1), True, 16384)
    association = Association(port, request(VERIFICATION))
    count = 0
    begun = time.perf_counter()
    while (now := time.perf_counter()) < begun + seconds:
        association.send(echo)
        if association.status() != 0:
            raise RunError("C-ECHO was refused")
        count += 1
    association.release()
    return count / (now - begun)


def growth(receiver: peers.Receiver, size: int) -> float:
    """Bytes by which a receiver's resident memory grew at most while one object of `size` bytes arrived."""
    _store_large(receiver.port, 1 << 20)  # what is loaded for the first instance does not count
    before = receiver.resident()
    with _watching(receiver) as seen:
        _store_large(receiver.port, size)
    return max(seen) - before


@contextmanager
def _watching(receiver: peers.Receiver) -> Iterator[list[int]]:
    seen = [receiver.resident()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            seen.append(receiver.resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        seen.append(receiver.resident())


def _store_large(port: int, size: int) -> None:
    dataset = data.ct(side=1)
    del dataset.PixelData
    encoded = data.part10(dataset)
    head = encoded[encoded.index(b"\x08\x00\x05\x00CS") :]
    head += b"\xe0\x7f\x10\x00OW\x00\x00" + size.to_bytes(4, "little")
    association = Association(port, request(CTImageStorage))
    try:
        limit = decode_accept(association.accept).maximum_length or _PIECE
        piece = min(_PIECE, limit) - 6 & ~1
        command = encode_store_rq(1, dataset.SOPClassUID, dataset.SOPInstanceUID)
        for encoded in fragment(_CONTEXT, command, True, limit):
            association.send(encoded)
        association.send(_pdu(head, last=False))
        zeros = _pdu(bytes(piece), last=False)
        for _ in range(size // piece):
            association.send(zeros)
        association.send(_pdu(bytes(size % piece), last=True))
        if association.status() != 0:
            raise RunError("the large object was refused")
        association.release()
    finally:
        association.close()


def _pdu(fragment: bytes, *, last: bool) -> bytes:
    """A P-DATA-TF with one fragment of a data set (PS3.8 9.3.5, Annex E)."""
    item = (len(fragment) + 2).to_bytes(4, "big") + bytes([_CONTEXT, 2 * last]) + fragment
    return b"\x04\x00" + len(item).to_bytes(4, "big") + item
