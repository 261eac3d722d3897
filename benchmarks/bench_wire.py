"""The wire alone: associations and C-ECHO a second, ours against bare pynetdicom, in turns.

    python benchmarks/bench_wire.py [--rounds 3] [--seconds 2]

Each server runs in a process of its own and supports every storage class with every transfer syntax. The
client is the same native one for both, over loopback; a C-STORE row sends 512 KB instances that nobody keeps.
Printed: the median of the rounds for each, and the ratio.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import pynetdicom
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt

from pacs_core._ext import associate, pdu
from pacs_core._ext.command import encode_echo_rq, encode_store_rq
from pacs_core._ext.link import Link

ECHO, CT, IMPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2"
PDU_SIZE = 131072


class Nowhere:
    """Takes instances and forgets them."""

    def store(self, request: Any, data: Any) -> int:  # noqa: ARG002
        return 0

    def begin(self, request: Any) -> Any:  # noqa: ARG002
        return self

    def write(self, chunk: Any) -> None:
        chunk.release()

    def finish(self) -> int:
        return 0

    def discard(self) -> None:
        """Nothing is kept."""


def serve(which: str) -> None:
    """Run a server until killed; says its port on the first line."""
    ae = AE("BENCH")
    ae.maximum_pdu_size = PDU_SIZE
    ae.maximum_associations = 1000
    ae.add_supported_context(ECHO)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
    if which == "ours":
        from pacs_core.dimse.server import AssociationServer, Wire

        server: Any = ae.make_server(
            ("127.0.0.1", 0), server_class=AssociationServer, wire=Wire(storage=Nowhere())
        )
    else:
        handlers = [(evt.EVT_C_STORE, lambda _: 0)]
        server = ae.make_server(
            ("127.0.0.1", 0), server_class=pynetdicom.ae.ThreadedAssociationServer, evt_handlers=handlers
        )
    print(server.server_address[1], flush=True)
    server.serve_forever()


class Client:
    """An association with these contexts: (ID, abstract syntax, transfer syntaxes) each."""

    def __init__(
        self,
        port: int,
        contexts: Sequence[tuple[int, str, Sequence[str]]] = ((1, ECHO, [IMPLICIT]), (3, CT, [IMPLICIT])),
        called_ae_title: str = "BENCH",
    ) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.link = Link(pdu.AWAIT_REPLY, fd=self.sock.fileno(), maximum_pdu=PDU_SIZE)
        self.link.send_raw(
            associate.encode_request(
                called_ae_title=called_ae_title,
                calling_ae_title="CLIENT",
                contexts=list(contexts),
                maximum_length=PDU_SIZE,
                implementation_class_uid="1.2.3",
                implementation_version_name="",
            )
        )
        reply = self.link.receive(timeout=10)
        assert reply.kind == pdu.ASSOCIATE_AC, reply
        self.link.phase = pdu.TRANSFER
        self.link.accept_contexts([ident for ident, *_ in contexts])
        self.link.maximum_send = PDU_SIZE

    def ask(self, context_id: int, command: bytes, data: bytes | None = None) -> None:
        self.link.send_message(context_id, command, data)
        answer = self.link.receive(timeout=60)
        assert answer.command is not None, answer
        assert answer.command.status == 0

    def release(self) -> None:
        self.link.phase = pdu.RELEASING
        self.link.send_raw(associate.RELEASE_RQ)
        assert self.link.receive(timeout=10).kind == pdu.RELEASE_RP
        self.sock.close()


def rate(port: int, work: str, seconds: float) -> float:
    """How often a second the work gets done on one association (or, for associations, one after another)."""
    command = encode_echo_rq(1)
    store, data = encode_store_rq(1, CT, "1.2.3"), bytes(524288)
    client = None if work == "associations" else Client(port)
    done = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        if client is None:
            once = Client(port)
            once.ask(1, command)
            once.release()
        elif work == "echo":
            client.ask(1, command)
        else:
            client.ask(3, store, data)
        done += 1
    elapsed = time.perf_counter() - started
    if client is not None:
        client.release()
    return done / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--serve", choices=["ours", "pynetdicom"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    servers = {
        which: subprocess.Popen(
            [sys.executable, __file__, "--serve", which], stdout=subprocess.PIPE, text=True
        )
        for which in ("ours", "pynetdicom")
    }
    try:
        ports = {which: int(server.stdout.readline()) for which, server in servers.items() if server.stdout}
        print(f"ours against pynetdicom {pynetdicom.__version__}, median of {options.rounds} rounds in turns")
        for work in ("associations", "echo", "store"):
            rates: dict[str, list[float]] = {which: [] for which in ports}
            for _ in range(options.rounds):
                for which, port in ports.items():
                    rates[which].append(rate(port, work, options.seconds))
            ours, theirs = (statistics.median(rates[which]) for which in ("ours", "pynetdicom"))
            print(f"{work:<14} {ours:>10.0f}/s {theirs:>10.0f}/s   x {ours / theirs:.1f}")
    finally:
        for server in servers.values():
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
