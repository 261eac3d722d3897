"""Copies of an LMDB environment that others go on using."""

from __future__ import annotations

from pathlib import Path

from pacs_core._ext.kv import Environment
from pacs_core.errors import ArchiveError, from_os_error
from pacs_core.index.checkpoint import sync_path


def snapshot(env: Environment, folder: Path, *, compact: bool = False) -> None:
    """Copy it as it is now into the folder, made if need be and synced.

    Raises
    ------
    ArchiveError
        There is one in the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "data.mdb").exists():
            raise ArchiveError(f"{folder} holds a data.mdb already")
        env.copy(str(folder), compact=compact)
        for path in (folder / "data.mdb", folder):
            sync_path(path)
    except OSError as exc:
        raise from_os_error(exc, f"copy {env.path} to {folder}") from exc
