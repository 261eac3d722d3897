"""CONFORMANCE 38: the memory that a large instance takes. PACS_CORE_LARGE=4096 sends one of 4 GB."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.flows.rawpeer import p_data, pdv
from tests.load.footprint import footprint, forget_peak
from tests.make import encoded, instance, uid
from tests.raw import RawSender
from tests.serving import pacs_core, serving, stats

LARGE = int(os.environ.get("PACS_CORE_LARGE", "256"))
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
PIECE = (128 << 10) - 6
"""Of a data set, in a PDU of the length that the server asks for."""
FRAGMENT = 16 << 20
ITEM = b"\xfe\xff\x00\xe0"


@pytest.mark.timeout(60 + LARGE // 4)
def test_38_a_large_instance_takes_little_memory(tmp_path: Path) -> None:
    """Encapsulated, of any number of fragments: other values end at 4 GB."""
    archive = tmp_path / "archive"
    head, _, _ = encoded(instance(1, size=2), JPEG_LOSSLESS).partition(ITEM)
    fragment = ITEM + FRAGMENT.to_bytes(4, "little") + os.urandom(FRAGMENT)
    with serving(archive) as server:
        with RawSender(server.port, JPEG_LOSSLESS, timeout=120) as sender:
            small = encoded(instance(2), JPEG_LOSSLESS)
            assert sender.store(uid(1, 1, 2), small).status == 0
            forget_peak(server)
            before = footprint(server)
            sender.begin(uid(1, 1, 1))
            sender.data(head + ITEM + bytes(4), last=False)  # no offset table
            for _ in range((LARGE << 20) // FRAGMENT):
                for at in range(0, len(fragment), PIECE):
                    sender.send(p_data(pdv(1, 0, fragment[at : at + PIECE])))
            sender.data(b"\xfe\xff\xdd\xe0\0\0\0\0")
            assert sender.response().status == 0
        taken = footprint(server).peak - before.peak
        print(f"{LARGE} MB: {taken / 1e6:.1f} MB more resident memory")
        assert taken < 64 << 20
        assert stats(archive)["instances"] == 2
        assert server.stop() == 0
    pacs_core("verify", "--archive", str(archive))
