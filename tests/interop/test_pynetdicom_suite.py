"""pynetdicom's own tests against our server class.

pynetdicom ships its tests in its wheel. Each file runs in a pytest of its own, with a plugin that puts our
servers in the place of pynetdicom's. A test that fails there fails here, unless it is in `CANNOT_APPLY` with
the reason why it says nothing about us. A test that fails is run once more, alone, before it counts: many of
them compare what two threads did in the meantime.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pynetdicom
import pytest

TESTS = Path(pynetdicom.__file__).parent / "tests"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

FILES = (
    "test_service_storage.py",
    "test_service_verification.py",
    "test_service_class.py",
    "test_service_qr.py",
    "test_service_n.py",
    "test_service_non_patient.py",
    "test_service_relevant_patient.py",
    "test_service_substance_admin.py",
    "test_assoc.py",
    "test_assoc_n.py",
    "test_assoc_user.py",
    "test_acse.py",
)

_RACE = (
    "looks at its own requestor the moment our abort() returns; pynetdicom's abort() sleeps 0.1 s for it, "
    "which would make a shutdown with 200 associations take 20 s"
)
_SHUTDOWN = (
    "looks at the log right after server.shutdown(), which in pynetdicom takes up to half a second of "
    "polling and in ours none"
)
CANNOT_APPLY: dict[str, dict[str, str]] = {
    "test_assoc.py": {
        "TestAssociation::test_peer_aborts_assoc": _RACE,
        "TestAssociation::test_invalid_context": (
            "wants a log line of pynetdicom's own; ours refuses the message one layer below, with an A-ABORT "
            "that tells the reason (PS3.8 9.3.8)"
        ),
        "TestAssociationSendCEcho::test_network_timeout_release": (
            "wants a log line that pynetdicom's acceptor writes; ours writes none for an ordinary release"
        ),
        "TestAssociationSendCFind::test_query_uid_private": _SHUTDOWN,
        "TestAssociationSendCGet::test_query_uid_private": _SHUTDOWN,
        "TestAssociationSendCMove::test_query_uid_private": _SHUTDOWN,
    },
}


def run(*what: str) -> tuple[set[str], str]:
    """Run some of pynetdicom's tests; the failed ones and what pytest printed."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "pynetdicom_plugin", "-p", "no:cacheprovider",
        "-c", os.devnull, "--rootdir", str(TESTS), "--timeout", "30", "--tb", "short", "-rfE", *what,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
    done = subprocess.run(
        command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    named = re.findall(r"^(?:FAILED|ERROR) \S*?::(\S+)", done.stdout, re.M)
    assert bool(named) == bool(done.returncode), done.stdout
    return set(named), done.stdout


@pytest.mark.parametrize("name", FILES)
def test_pynetdicoms_own_tests(name: str) -> None:
    failed, _ = run(name)
    left = []
    for test in sorted(failed - set(CANNOT_APPLY.get(name, {}))):
        again, printed = run(f"{name}::{test}")
        if again:
            left.append(printed)
    assert not left, "\n\n".join(left)


def test_every_exemption_names_a_test() -> None:
    for name, tests in CANNOT_APPLY.items():
        text = (TESTS / name).read_text()
        for exempt in tests:
            group, test = exempt.split("::")
            assert re.search(rf"^class {group}\b", text, re.M)
            assert re.search(rf"^    def {test}\(", text, re.M)
