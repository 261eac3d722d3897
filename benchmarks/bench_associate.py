"""Associations: decode a request of 128 contexts with 3 transfer syntaxes each, negotiate, encode the answer.

    python benchmarks/bench_associate.py [--rounds N]

Rows are ours and pynetdicom's, in turns; median and p99 of the rounds, in microseconds of one thread.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable

import pynetdicom
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import (
    AllStoragePresentationContexts,
    PresentationContext,
    build_context,
    negotiate_as_acceptor,
)

from pacs_core._ext import associate

SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70"]
CLASSES = [str(cx.abstract_syntax) for cx in AllStoragePresentationContexts[:128]]
REQUEST = associate.encode_request(
    called_ae_title="PACSCORE",
    calling_ae_title="BENCH",
    contexts=[(2 * n + 1, uid, SYNTAXES) for n, uid in enumerate(CLASSES)],
    maximum_length=16384,
    implementation_class_uid="1.2.3",
    implementation_version_name="BENCH",
)
SUPPORTED = associate.Supported([(uid, SYNTAXES, None, None) for uid in CLASSES])
HELD: list[PresentationContext] = [build_context(uid, SYNTAXES) for uid in CLASSES]


def our_decode() -> associate.Request:
    return associate.decode_request(REQUEST)


def our_answer() -> bytes:
    request = our_decode()
    return associate.encode_accept(
        request,
        associate.negotiate(SUPPORTED, request),
        maximum_length=131072,
        implementation_class_uid="1.2.3",
        implementation_version_name="BENCH",
    )


def their_decode() -> A_ASSOCIATE_RQ:
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(REQUEST)
    return pdu


def their_answer() -> bytes:
    primitive = their_decode().to_primitive()
    # pynetdicom's server copies what it supports for every association.
    results, _ = negotiate_as_acceptor(primitive.presentation_context_definition_list, copy.deepcopy(HELD))
    maximum, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    maximum.maximum_length_received = 131072
    implementation.implementation_class_uid = "1.2.3"
    primitive.presentation_context_definition_results_list = results
    primitive.user_information = [maximum, implementation]
    primitive.result, primitive.result_source = 0, 1
    encoded: bytes = A_ASSOCIATE_AC(primitive).encode()
    return encoded


def rounds_of(work: Callable[[], object], rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1e6)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=20, help="of pynetdicom; 50 of ours for each (default 20)"
    )
    rounds = parser.parse_args().rounds
    rows: dict[str, tuple[Callable[[], object], int]] = {
        "pacs_core decode": (our_decode, 50),
        "pacs_core decode, negotiate, encode": (our_answer, 50),
        f"pynetdicom {pynetdicom.__version__} decode": (their_decode, 1),
        f"pynetdicom {pynetdicom.__version__} decode, negotiate, encode": (their_answer, 1),
    }
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, (work, times) in rows.items():
            taken[name] += rounds_of(work, times)
    print(f"Python {platform.python_version()}, {len(REQUEST)} bytes asked, {len(our_answer())} answered")
    for name, each in taken.items():
        p99 = sorted(each)[int(len(each) * 0.99)]
        print(f"{name:52} median {statistics.median(each):10,.1f} us   p99 {p99:10,.1f} us")


if __name__ == "__main__":
    main()
