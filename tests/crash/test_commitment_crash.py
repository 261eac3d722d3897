"""SIGKILL to every process of the server in the middle of commitments.

None that was answered is lost, and a peer whose answer was recorded is never told again (CONFORMANCE 35). The
window that is left: an answer that had come, and was not recorded yet.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from pacs_core._ext.command import encode
from pacs_core._ext.pdu import Event
from pacs_core.archive import Archive
from pacs_core.client import Association, Remote
from pacs_core.client.exchange import SYNTAXES
from pacs_core.client.operations import perform
from pacs_core.config import PeerFile
from pacs_core.dicom.commitment import Reference, Request
from pacs_core.dicom.operations import Operation
from pacs_core.dicom.reading import read_dataset
from pacs_core.errors import AssociationError
from pacs_core.workflow import Stage
from tests.committing import COMMITMENT, WELL_KNOWN, Told, committed, failed, listening
from tests.make import CT, instance, part10, uid
from tests.serving import Serving, serving, until

ROUNDS = int(os.environ.get("PACS_CORE_ROUNDS", "2"))
SCALE = 20  # transactions of a round, at least
HELD = [Reference(CT, uid(1, 1, number)) for number in range(1, 101)]
MISSING = Reference(CT, "1.2.3")
QUICK = ["--set", "commitment.retry_first=0.2", "--set", "commitment.retry_factor=1"]


class Modalities:
    """Peers that ask until they are cut off, and remember what was answered with success.

    Some are gone at once; others wait for the result, and tell `told` of it before they answer.
    """

    def __init__(self, port: int, told: Told, seed: int) -> None:
        self.answered: list[str] = []
        self._remote = Remote("127.0.0.1", port, aet="CT1")
        self._told = told
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(seed * 10 + n, n % 2)) for n in range(4)]
        for thread in self._threads:
            thread.start()

    def _ask(self, seed: int, waits: int) -> None:
        random_ = random.Random(seed)
        with suppress(AssociationError):  # cut off
            while not self._stop.is_set():
                with Association(self._remote, [(COMMITMENT, SYNTAXES)]) as association:
                    self._ask_over(association, random_)
                    if waits and (event := association.hear(random_.random())) is not None:
                        self._hear(association, event)

    def _ask_over(self, association: Association, random_: random.Random) -> None:
        references = [*random_.sample(HELD, random_.randrange(1, 100)), MISSING]
        request = Request(f"2.25.{random_.getrandbits(120)}", references)
        perform(
            *(association, Operation.N_ACTION, COMMITMENT, WELL_KNOWN, request.to_dataset()),
            name="Storage Commitment",
            type_id=1,
        )
        self.answered.append(request.transaction_uid)

    def _hear(self, association: Association, event: Event) -> None:
        command = event.command
        assert command is not None
        syntax = association.contexts[event.context_id][1]
        dataset = read_dataset(bytes(event.data or b""), syntax, inflate_limit=1 << 20)
        self._told.reports.append((command.event_type_id or 0, dataset.to_pydicom()))
        response = {0x0002: COMMITMENT, 0x0100: 0x8100, 0x0120: command.message_id, 0x0800: 0x0101}
        association.send(event.context_id, encode({**response, 0x0900: 0}))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


def delivered(archive: Path) -> set[str]:
    """The transactions of which an answer of the peer is recorded."""
    with Archive.open(archive, create=False) as opened:
        return {one.uid for one in opened.commitments if one.stage is Stage.DELIVERED}


def killed_in_the_middle(archive: Path, told: Told, seed: int) -> list[str]:
    """Start, ask, kill; what was answered."""
    random_ = random.Random(seed)
    server = Serving(archive, *QUICK)
    modalities = Modalities(server.port, told, seed)
    try:
        assert until(lambda: len(modalities.answered) >= SCALE, 60)
        time.sleep(random_.random())
    finally:
        server.kill()
        modalities.stop()
    return modalities.answered


@pytest.mark.timeout(300 + 60 * ROUNDS)
def test_no_commitment_is_lost_and_none_told_twice(tmp_path: Path, free_port: int) -> None:
    archive = tmp_path / "archive"
    with Archive.open(archive) as opened:
        for number in range(1, 101):
            opened.store(part10(instance(number)))
    PeerFile(archive).add("CT1", host="127.0.0.1", port=free_port)
    told = Told()
    answered: list[str] = []
    recorded: dict[str, int] = {}
    """How often the peer was told until its answer was found recorded."""
    with listening(told, free_port):
        for seed in range(ROUNDS):
            answered += killed_in_the_middle(archive, told, seed)
            times = Counter(told.transactions)
            recorded = {one: recorded.get(one, times[one]) for one in delivered(archive)}
        with serving(archive, *QUICK) as server:
            # The peer, pynetdicom's, takes some tens of reports a second.
            assert until(lambda: delivered(archive) >= set(answered), 120 + len(answered) / 10)
            time.sleep(0.5)
            assert server.stop() == 0
    times = Counter(told.transactions)
    assert {one: times[one] for one in recorded} == recorded
    assert set(answered) <= times.keys()
    for event, result in told.reports:
        assert (event, failed(result)) == (2, {MISSING[1]: 0x0112})
        assert committed(result) <= {one for _, one in HELD}
