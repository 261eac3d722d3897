"""What the processes of a running server take: memory, threads, descriptors."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.serving import Serving


class Footprint(NamedTuple):
    """Sums over all processes of a server.

    Attributes
    ----------
    memory
        Resident bytes of their own: without mapped files, since the index is one and grows with what is held.
    peak
        The most that was resident at a time, mapped files and all.
    """

    memory: int
    peak: int
    threads: int
    descriptors: int

    def fits(self, other: Footprint) -> bool:
        """No more threads and descriptors than the other."""
        return self.threads <= other.threads and self.descriptors <= other.descriptors


def processes(server: Serving) -> list[Path]:
    """Folders in /proc: the supervisor's, and those of its children."""
    parent = server.process.pid
    children = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=True)
    return [Path("/proc", str(each)) for each in (parent, *children.stdout.split())]


def footprint(server: Serving) -> Footprint:
    return Footprint(*map(sum, zip(*map(_of_process, processes(server)), strict=True)))


def _of_process(process: Path) -> Footprint:
    said = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    kilobytes = {key: int(said[key].split()[0]) for key in ("RssAnon", "RssShmem", "VmHWM")}
    return Footprint(
        (kilobytes["RssAnon"] + kilobytes["RssShmem"]) << 10,
        kilobytes["VmHWM"] << 10,
        int(said["Threads"]),
        len(list((process / "fd").iterdir())),
    )


def forget_peak(server: Serving) -> None:
    """From now on `peak` counts anew."""
    for process in processes(server):
        (process / "clear_refs").write_text("5")


def settled(server: Serving, enough: Callable[[Footprint], bool], seconds: float = 20) -> Footprint:
    """The footprint, once it is small enough or time is up: the last connections take a moment to end."""
    deadline = time.monotonic() + seconds
    while not enough(found := footprint(server)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
