"""SIGKILL to every process of the server while modalities report steps: what was answered stands.

CONFORMANCE 34: persisted before the response. After a restart no state is lost, none was reached that nobody
asked for, and no transition is taken that there is not.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from pacs_core import Client
from pacs_core.archive import Archive
from pacs_core.client.operations import perform
from pacs_core.dicom.dataset import Dataset
from pacs_core.dicom.operations import Operation
from pacs_core.dicom.performed import MPPS
from pacs_core.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN, new_uid
from pacs_core.errors import AssociationError, RefusedError
from tests.make import uid
from tests.serving import Serving, serving
from tests.steps import created, ended

ROUNDS = int(os.environ.get("PACS_CORE_ROUNDS", "2"))
ASSOCIATIONS = (2, 8)
NOTHING = "nothing"


def client_of(server: Serving) -> Client:
    return Client("127.0.0.1", server.port, aec="PACSCORE", aet="CT1")


class Load:
    """Associations that report steps until they are cut off.

    `answered`: what each step is by the last answer. `asked`: what it was to become by the request that the
    server was killed over.
    """

    def __init__(self, server: Serving, round_number: int, associations: int) -> None:
        self.answered: dict[str, str] = {}
        self.asked: dict[str, str] = {}
        self._client = client_of(server)
        self._threads = [
            threading.Thread(target=self._report, args=(random.Random(round_number * 100 + number),))
            for number in range(associations)
        ]
        for thread in self._threads:
            thread.start()

    def _report(self, random_: random.Random) -> None:
        try:
            with self._client.associate([(MPPS, [IMPLICIT_VR_LITTLE_ENDIAN])]) as association:
                while True:
                    name = new_uid()
                    described = Dataset(PerformedProcedureStepDescription="described")
                    last = random_.choice(["COMPLETED", "DISCONTINUED"])
                    self.answered[name] = NOTHING
                    for operation, dataset, stands in (
                        (Operation.N_CREATE, created(study=uid(1), step=name[-16:]), "IN PROGRESS"),
                        (Operation.N_SET, described, "described"),
                        (Operation.N_SET, ended(last), last),
                    )[: random_.randint(1, 3)]:
                        self.asked[name] = stands
                        perform(association, operation, MPPS, name, dataset, name="MPPS")
                        self.answered[name] = stands
        except AssociationError:
            return  # cut off

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


def states(archive: Path) -> dict[str, str]:
    """What each step is, and that whatever it is found by says the same."""
    found = {}
    with Archive.open(archive, create=False) as opened:
        for step in opened.performed.list():
            said = step.dataset
            assert said.PerformedProcedureStepStatus == step.status
            is_described = step.status == "IN PROGRESS" and said.PerformedProcedureStepDescription
            found[step.uid] = "described" if is_described else step.status.value
        assert {step.uid for step in opened.performed.list(study=uid(1))} == found.keys()
        for status in ("IN PROGRESS", "COMPLETED", "DISCONTINUED"):
            assert all(step.status == status for step in opened.performed.list(status=status))
    return found


@pytest.mark.timeout(60 + 18 * ROUNDS)
def test_killed_at_random_moments_no_state_is_lost(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    random_ = random.Random(34)
    answered: dict[str, str] = {}
    asked: dict[str, str] = {}
    for round_number in range(ROUNDS):
        server = Serving(archive, "--set", "pool.acceptors=2")
        load = Load(server, round_number, random_.randint(*ASSOCIATIONS))
        time.sleep(random_.uniform(0.1, 1.0))
        server.kill()
        load.join()
        assert any(stands != NOTHING for stands in load.answered.values()), (
            "the round was over before it began"
        )
        answered |= load.answered
        asked |= load.asked
    found = states(archive)
    for name, stands in answered.items():
        assert found.get(name, NOTHING) in (stands, asked[name]), name
    assert found.keys() <= answered.keys()
    with serving(archive) as server:
        _refuse_what_is_over(server, found)
    assert states(archive) == found


def _refuse_what_is_over(server: Serving, found: dict[str, str]) -> None:
    """No step that has ended can be set, none that there is created again."""
    with client_of(server).associate([(MPPS, [IMPLICIT_VR_LITTLE_ENDIAN])]) as association:
        for name, stands in random.Random(34).sample(sorted(found.items()), min(len(found), 100)):
            with pytest.raises(RefusedError, match="0111H"):
                perform(association, Operation.N_CREATE, MPPS, name, created(), name="MPPS")
            if stands in ("COMPLETED", "DISCONTINUED"):
                with pytest.raises(RefusedError, match="0110H"):
                    perform(association, Operation.N_SET, MPPS, name, ended(), name="MPPS")
