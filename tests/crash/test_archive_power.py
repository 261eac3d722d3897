"""Power cuts of the whole archive, bytes and index, at any step of storing, replacing and deleting.

What is checked after each cut: all that was acknowledged is there, whole and indexed; nothing that was
deleted is back; what was under way is as before it or as after it; `verify` finds nothing.
PACS_CORE_CUTS=1000 makes a long run of it.
"""

from __future__ import annotations

import ctypes
import os
import random
from pathlib import Path

import pytest

from pacs_core.archive import Archive, Duplicates
from pacs_core.archive.verify import verify
from pacs_core.dicom.part10 import split
from pacs_core.index import env
from tests.crash.faults import CHANGES, Watched
from tests.crash.images import copied, disk, mounted
from tests.make import instance, part10, uid

CUTS = int(os.environ.get("PACS_CORE_CUTS", "40"))
MAP = 32 << 20
SIZES = (400, 3_000, 90_000)


def write_some_pages(path: Path, dice: random.Random) -> None:
    """Let the kernel write back some pages of a file and leave others, as it may at any time."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    fd = os.open(path, os.O_RDWR)
    try:
        for page in range(os.fstat(fd).st_size // 4096):
            if dice.random() < 0.5:
                libc.sync_file_range(fd, page * 4096, 4096, 1 | 2 | 4)  # write it, and wait
    finally:
        os.close(fd)


class Cutting(Watched):
    """Calls `cut` ahead of one step out of about `every`."""

    def __init__(self, cut, every, dice):
        super().__init__()
        self.cut, self.every, self.dice = cut, every, dice

    def before(self, step, args):  # noqa: ARG002 - every `before` is given the same arguments
        self.trace.clear()
        if step in CHANGES and self.dice.random() * self.every < 1:
            self.cut()


@pytest.mark.timeout(60 + 3 * CUTS)
@pytest.mark.parametrize(
    ("kind", "size", "options"), [("ext4", 96 << 20, "loop"), ("xfs", 320 << 20, "loop,nouuid")]
)
def test_no_power_cut_loses_or_revives_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, size: int, options: str
) -> None:
    dice = random.Random(7)
    monkeypatch.setattr(env, "CHECKPOINT_SECONDS", 0.02)  # several in a round
    held: dict[str, bytes] = {}  # what was acknowledged
    under_way: dict[str, bytes | None] = {}
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        cuts += 1
        if dice.random() < 0.5:
            write_some_pages(folder / "a" / "index" / "data.mdb", dice)
        copy = copied(image, tmp_path / "copy")
        with (
            mounted(copy, tmp_path / "after", options),
            Archive.open(tmp_path / "after" / "a", map_size=MAP) as after,
        ):
            for number in range(1, 31):
                one = uid(1, 1, number)
                found = None
                if after.holds(one):
                    with after.open_instance(one) as opened:
                        file = os.pread(opened.fd, opened.length, opened.offset)
                    found = bytes(split(file)[1])
                assert found in (held.get(one), under_way.get(one, held.get(one)))
            assert verify(after).findings == []

    with disk(tmp_path, kind, size) as (image, folder):
        while cuts < CUTS:
            system = Cutting(cut, 12, dice)
            with Archive.open(
                folder / "a", duplicates=Duplicates.REPLACE, map_size=MAP, small=8192, syscalls=system
            ) as archive:
                for step in range(25):
                    number = dice.randint(1, 30)
                    one = uid(1, 1, number)
                    if dice.random() < 0.05 and held:
                        under_way.update(dict.fromkeys(held))
                        assert archive.delete(study=uid(1)).instances == len(held)
                        held.clear()
                    elif dice.random() < 0.3:
                        under_way[one] = None
                        archive.ingest.remove([one])
                        held.pop(one, None)
                    else:
                        ds = instance(number, size=dice.choice(SIZES), StudyDescription=f"{cuts} {step}")
                        file = part10(ds)
                        under_way[one] = bytes(split(file)[1])
                        archive.store(file)
                        held[one] = bytes(split(file)[1])
                    under_way.clear()
                    if dice.random() < 0.1:
                        cut()
