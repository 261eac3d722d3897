"""Other people's programs as storage clients: each sends files and says how many were acknowledged.

A client takes the port, what it trusts (None: no TLS), and the files. It fails the test when anything that
it sends is not answered with Success, or when it leaves out more than a few files: those that it can't read.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pydicom.uid
import pytest
from pynetdicom import AE, _config

from tests.interop.certificates import Trust
from tests.interop.files import UNCOMPRESSED, Sample

Send = Callable[[int, Trust | None, Sequence[Sample]], int]

AT_A_TIME = 4
_UNREADABLE = 0.05

_PROPOSALS = {
    pydicom.uid.JPEGLosslessSV1: "-xs",
    pydicom.uid.JPEGBaseline8Bit: "-xy",
    pydicom.uid.JPEGExtended12Bit: "-xx",
    pydicom.uid.JPEG2000Lossless: "-xv",
    pydicom.uid.JPEG2000: "-xw",
    pydicom.uid.JPEGLSLossless: "-xt",
    pydicom.uid.JPEGLSNearLossless: "-xu",
    pydicom.uid.RLELossless: "-xr",
    pydicom.uid.DeflatedExplicitVRLittleEndian: "-xd",
}
"""storescu's option that proposes a transfer syntax, beside the uncompressed ones."""


def storescu(program: Path, port: int, trust: Trust | None, samples: Sequence[Sample]) -> int:
    """An association for each option that proposes transfer syntaxes, many files on each.

    What is uncompressed goes with any option: storescu converts it as it must.
    """
    groups: dict[str, list[Sample]] = defaultdict(list)
    plain = [sample for sample in samples if sample.transfer_syntax_uid in UNCOMPRESSED]
    options = ["-x=", "-xe", "-xb", "-xi", *_PROPOSALS.values()]
    for number, sample in enumerate(plain):
        groups[options[number % len(options)]].append(sample)
    for sample in samples:
        if sample.transfer_syntax_uid in _PROPOSALS:
            groups[_PROPOSALS[sample.transfer_syntax_uid]].append(sample)
    acknowledged = 0
    for option, group in groups.items():
        # Without -R all storage classes are proposed, in as many contexts as there may be.
        required = [] if option == "-xe" else ["-R"]
        said = _run(program, "-v", "-nh", option, *required, *_secured(trust), *_target(port), *_paths(group))
        answers = re.findall(r"Received Store Response \((.*)\)", said)
        assert set(answers) == {"Success"}, said[-4000:]
        assert len(answers) >= (1 - _UNREADABLE) * len(group), said[-4000:]
        acknowledged += len(answers)
    return acknowledged


def dcmsend(program: Path, port: int, _: Trust | None, samples: Sequence[Sample]) -> int:
    """Processes side by side, each with its share of the files. It speaks no TLS.

    Files whose UIDs have the VR UN are left out: dcmsend asks to store them as UID "31", their first
    digit in hexadecimal.
    """

    def send(share: Sequence[Sample]) -> int:
        said = _run(program, "-v", "-nh", "-dn", *_target(port), *_paths(share))
        counts = {what: int(count) for what, count in re.findall(r"^I: +[-*] (.*?) *: (\d+)$", said, re.M)}
        assert counts["sent to the peer"] == counts["with status SUCCESS"], said[-4000:]
        assert counts["sent to the peer"] >= (1 - _UNREADABLE) * len(share), said[-4000:]
        return counts["with status SUCCESS"]

    return _side_by_side(send, [sample for sample in samples if not sample.uid_of_unknown_vr])


def pynetdicom(port: int, trust: Trust | None, samples: Sequence[Sample]) -> int:
    """Associations side by side, each with its share of the files, read and encoded by pydicom."""

    def send(share: Sequence[Sample]) -> int:
        ae = AE("PYNETDICOM")
        for sop_class, syntax in sorted({(s.sop_class_uid, s.transfer_syntax_uid) for s in share}):
            ae.add_requested_context(sop_class, syntax)
        tls = None if trust is None else (trust.context(), "localhost")
        assoc = ae.associate("127.0.0.1", port, tls_args=tls)
        assert assoc.is_established
        statuses = []
        for sample in share:
            try:
                statuses.append(assoc.send_c_store(sample.path).get("Status"))
            except ValueError:  # pydicom can't encode it
                continue
        assoc.release()
        assert set(statuses) == {0x0000}
        assert len(statuses) >= (1 - _UNREADABLE) * len(share)
        return len(statuses)

    return _side_by_side(send, samples)


def pynetdicom_chunked(port: int, trust: Trust | None, samples: Sequence[Sample]) -> int:
    """As `pynetdicom`, in its mode that sends the bytes of files as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
        return pynetdicom(port, trust, samples)


def bound(client: Callable[..., int], program: Path) -> Send:
    """A client with the program it runs."""
    return partial(client, program)


def _side_by_side(send: Callable[[Sequence[Sample]], int], samples: Sequence[Sample]) -> int:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return sum(pool.map(send, [samples[number::AT_A_TIME] for number in range(AT_A_TIME)]))


def _secured(trust: Trust | None) -> list[str]:
    return [] if trust is None else trust.dcmtk()


def _target(port: int) -> list[str]:
    return ["127.0.0.1", str(port)]


def _paths(samples: Sequence[Sample]) -> list[str]:
    return [str(sample.path) for sample in samples]


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    return done.stdout + done.stderr
