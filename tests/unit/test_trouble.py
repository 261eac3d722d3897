"""What keeps an archive from keeping anything is told before somebody sends something."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pacs_core.archive import Archive
from pacs_core.dimse.store import StoreService


def test_a_disk_that_is_nearly_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Archive.open(tmp_path / "archive") as archive:
        service = StoreService(archive)
        assert service.health().well
        room = os.statvfs(tmp_path)
        full = os.statvfs_result((room[0], room[1], room[2], room[3], 10, *room[5:]))
        monkeypatch.setattr(os, "statvfs", lambda _: full)
        assert not service.health().well
        assert "left on the disk" in service.health().words
