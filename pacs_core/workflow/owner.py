"""Whose work something is: a mark that the operating system takes down when its process dies."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

from pacs_core.errors import from_os_error

_MARK = re.compile(r"[0-9a-f]{16}")


class Owner:
    """A number that nobody else has, alive until `close` or until the process is gone, however it went.

    Parameters
    ----------
    folder
        Where the marks are: a locked file for each that lives.
    number
        Never used before, nor again.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self._path = _mark(folder, number)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while not self._take():
                pass
        except OSError as exc:
            raise from_os_error(exc, f"marking {self._path}") from exc

    def _take(self) -> bool:
        """Whether the mark is ours: unlocked for a moment, it may have been taken for a dead one's."""
        self._fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        if os.fstat(self._fd).st_nlink:
            return True
        os.close(self._fd)
        return False

    def close(self) -> None:
        """Be dead to all others. Also twice."""
        if self._fd >= 0:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._fd)
            self._fd = -1


def is_alive(folder: Path, number: int) -> bool:
    """Whether an owner still lives; the mark of one that died is removed."""
    path = _mark(folder, number)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise from_os_error(exc, f"looking at {path}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # locked: that is what living is
        return True
    else:
        with suppress(OSError):
            path.unlink()
        return False
    finally:
        os.close(fd)


def bury(folder: Path) -> None:
    """Remove the marks of all that have died."""
    with suppress(FileNotFoundError):
        for path in list(folder.iterdir()):
            if _MARK.fullmatch(path.name):  # file systems and people leave other files, too
                is_alive(folder, int(path.name, 16))


def _mark(folder: Path, number: int) -> Path:
    return folder / f"{number:016x}"
