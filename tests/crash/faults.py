"""System calls of the write path that are watched, that fail, or that kill."""

# ruff: noqa: ARG002 - every `before` is given the same arguments

import errno
import os
import signal
from functools import partialmethod

from pacs_core.store.syscalls import Syscalls

STEPS = [name for name in vars(Syscalls) if not name.startswith("_")]
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
