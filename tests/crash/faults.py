"""System calls of the write path that are watched, that fail, or that kill; those of a running server too."""

# ruff: noqa: ARG002 - every `before` is given the same arguments

import errno
import json
import os
import signal
import subprocess
import time
from functools import partialmethod
from pathlib import Path

from pacs_core.store.syscalls import SyncError, Syscalls, write_all

INJECT = Path(__file__).parent / "inject"
STEPS = [name for name in vars(Syscalls) if not name.startswith("_") and name != "append"]
CHANGES = [name for name in STEPS if name not in ("close", "flock", "open_folder", "open_write")]


class Watched(Syscalls):
    """Notes (step, arguments, result) of every call in `trace`; subclasses step in at `before`."""

    def __init__(self):
        self.trace = []

    def before(self, step, args):
        """Called ahead of the step; may raise, or return a replacement for its result."""

    def _call(self, step, *args):
        result = self.before(step, args)
        if result is None:
            result = getattr(Syscalls, step)(self, *args)
        self.trace.append((step, args, result))
        return result

    def append(self, fd, buffers, offset):
        """In its two steps, so that something can happen between them."""
        written = write_all(self, fd, buffers, offset)
        try:
            self.fdatasync(fd)
        except OSError as exc:
            raise SyncError(exc.errno, exc.strerror) from exc
        return written


for _step in STEPS:
    setattr(Watched, _step, partialmethod(Watched._call, _step))


class Named(Watched):
    """A file system without O_TMPFILE."""

    def before(self, step, args):
        if step == "open_tmpfile":
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


class Faulty(Watched):
    """The `at`-th (from 0) and all later ones, up to `times`, of the calls to `step` fail with `number`."""

    def __init__(self, step, number, at=0, times=1):
        super().__init__()
        self.step, self.number, self.left, self.at = step, number, times, at

    def before(self, step, args):
        if step == self.step:
            self.at -= 1
            if self.at < 0 and self.left > 0:
                self.left -= 1
                raise OSError(self.number, os.strerror(self.number))


class Short(Watched):
    """Every write takes some of what it is given."""

    def before(self, step, args):
        if step == "pwritev":
            fd, buffers, offset = args
            first = memoryview(buffers[0])
            return os.pwrite(fd, first[: max(1, first.nbytes // 2)], offset)
        return None


class Killer(Watched):
    """SIGKILL just before the `at`-th change of the disk; with `halfway` a write is half done then."""

    def __init__(self, at, *, nameless=True, halfway=False):
        super().__init__()
        self.at, self.nameless, self.halfway = at, nameless, halfway

    def before(self, step, args):
        if step == "open_tmpfile" and not self.nameless:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if step in CHANGES:
            if self.at == 0:
                if self.halfway and step == "pwritev":
                    whole = b"".join(bytes(buffer) for buffer in args[1])
                    os.pwrite(args[0], whole[: len(whole) // 2], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            self.at -= 1


class Hanging(Watched):
    """Calls to `step` wait while the file `switch` is there."""

    def __init__(self, step, switch):
        super().__init__()
        self.step, self.switch = step, switch

    def before(self, step, args):
        while step == self.step and os.path.exists(self.switch):  # noqa: PTH110
            time.sleep(0.01)


class Switched(Watched):
    """Behaves as the fault that the file `steps` in `folder` names: a class of this module, its arguments."""

    def __init__(self, folder):
        super().__init__()
        self._file = Path(folder) / "steps"
        self._said = "null"
        self._fault = None

    def before(self, step, args):
        self.trace.clear()
        try:
            said = self._file.read_text()
        except FileNotFoundError:
            said = "null"
        if said != self._said:
            named = json.loads(said)
            self._fault, self._said = named and globals()[named[0]](*named[1:]), said
        return self._fault and self._fault.before(step, args)


class Faults:
    """The hand on the faults of programs that were started with `environment`, in every process of theirs."""

    def __init__(self, folder):
        self._folder = folder
        folder.mkdir()
        self._library = folder / "native.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", self._library, INJECT / "native.c", "-ldl"], check=True
        )

    @property
    def environment(self):
        return {
            "FAULTS": str(self._folder),
            "LD_PRELOAD": str(self._library),
            "PYTHONPATH": f"{INJECT}:{INJECT.parents[2]}",
        }

    def steps(self, fault, *arguments):
        """From the next step of the write path on there is a `fault` of this module."""
        self._say("steps", json.dumps([fault.__name__, *arguments]))

    def index(self, call, number):
        """From now on `write`, `sync` or `meta` (see native.c) of an index fails, or with 0 kills."""
        self._say("index", f"{call} {number}")

    def clock(self, seconds):
        """The time of day is wrong by so much."""
        self._say("clock", str(seconds))

    def hang(self, step):
        """Calls to `step` wait until `off`."""
        switch = self._folder / "hangs"
        switch.touch()
        self.steps(Hanging, step, str(switch))

    def off(self):
        """All is well again."""
        for name in ("steps", "index", "clock", "hangs"):
            (self._folder / name).unlink(missing_ok=True)

    def _say(self, name, text):
        # Renamed into place: nobody reads half of it.
        (self._folder / "new").write_text(text)
        (self._folder / "new").rename(self._folder / name)
