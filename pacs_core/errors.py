"""Every exception of the project: what went wrong, never how a protocol says it.

The edges map each leaf to their own codes (`dimse/status.py`); a test asserts that every leaf is there.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class PacsError(Exception):
    """Base of all errors raised on purpose.

    Attributes
    ----------
    tag : int | None
        The element concerned, as group << 16 | element.
    offset : int | None
        Where in the input, in bytes from its start.
    uid : str | None
        The SOP Instance UID (or study, series UID) concerned.
    """

    def __init__(
        self, message: str, *, tag: int | None = None, offset: int | None = None, uid: str | None = None
    ) -> None:
        super().__init__(message)
        self.tag = tag
        self.offset = offset
        self.uid = uid

    def __str__(self) -> str:
        where = []
        if self.tag is not None:
            where.append(f"tag ({self.tag >> 16:04X},{self.tag & 0xFFFF:04X})")
        if self.offset is not None:
            where.append(f"byte {self.offset}")
        if self.uid is not None:
            # What is longer is none, and from outside: a log line is no place for it.
            where.append(f"UID {self.uid[:96]!r}")
        text = str(self.args[0]) if self.args else type(self).__name__
        return f"{text} [{', '.join(where)}]" if where else text


class ConfigError(PacsError):
    """A setting is wrong; the message names the key and, for a file, its line."""


class ArchiveError(PacsError):
    """The archive as a whole can't be used: missing, locked by another server, of a newer schema…"""


class CorruptError(PacsError):
    """Bytes that we wrote earlier do not check: a file, a segment frame, an index record."""


class OutOfResourcesError(PacsError):
    """No room: disk, index map, memory budget or descriptors. Trying later may work."""


class StorageError(PacsError):
    """The operating system failed to keep or to give back bytes (an I/O error, a failed sync)."""


class IndexSharedError(PacsError):
    """The index has to go back to its last checkpoint, and can't while other processes have it open."""


class UnparsableError(PacsError):
    """A data set, file or command set can't be understood far enough to be handled."""


class InvalidValueError(PacsError, ValueError):
    """A value that its VR does not allow, or that the character set can't express.

    `value`: what was refused. `str` names it; the message alone does not, for peers and logs are told that,
    and the value may be a patient's.
    """

    def __init__(self, message: str, *, value: object = None, tag: int | None = None) -> None:
        super().__init__(message, tag=tag)
        self.value = value

    def __str__(self) -> str:
        return super().__str__() if self.value is None else f"{super().__str__()}: {_shown(self.value)}"


class MismatchError(PacsError):
    """A data set is not what the request said it is (PS3.4 B.2.3: data set does not match SOP class)."""


class DuplicateError(PacsError):
    """The instance is held already and the duplicate policy is to reject it."""


class NotFoundError(PacsError):
    """Nothing of that identity is held."""


class NotConvertibleError(PacsError):
    """An instance can't be given in any of the transfer syntaxes that are accepted."""


class IdentifierError(PacsError):
    """A query's identifier does not match its SOP class: level, unique keys (PS3.4 C.4.1.3)."""


class MissingAttributeError(PacsError):
    """An attribute is missing that what is asked for needs; `tag` says which."""


class MissingValueError(PacsError):
    """An attribute has no value, and needs one; `tag` says which."""


class NoSuchAttributeError(PacsError):
    """An attribute that can't be given here; `tag` says which."""


class NoSuchActionError(PacsError):
    """An action, or an event, of a type that there is not."""


class InvalidArgumentError(PacsError):
    """What a request says is well-formed, and does not make sense."""


class WrongStateError(PacsError):
    """There is no such transition from the state that something is in."""


class NotPermittedError(PacsError):
    """The peer may not ask for this (see the known peers)."""


class AssociationError(PacsError):
    """No association: no connection, rejected, aborted, or timed out; the message names the peer.

    `rejection`: the result, source and reason of a rejection (PS3.8 9.3.4); None for everything else.
    """

    def __init__(self, message: str, *, rejection: tuple[int, int, int] | None = None) -> None:
        super().__init__(message)
        self.rejection = rejection


class RefusedError(PacsError):
    """A peer answered a request with a status of failure; the message gives it."""


class WorkerError(PacsError):
    """A worker process died over its task, and again when that was retried."""


def _shown(value: object) -> str:
    """A value as a message names it, in at most 80 characters."""
    try:
        return repr(value)[:80]
    except ValueError:  # an int of more digits than Python prints
        return f"{type(value).__name__} that is too long to print"


def from_os_error(exc: OSError, doing: str) -> PacsError:
    """The leaf that an `OSError` means; `doing` says what was tried, for the message."""
    leaf = OutOfResourcesError if exc.errno in _NO_ROOM else StorageError
    return leaf(f"{doing}: {exc.strerror or exc}")


def leaves(base: type[PacsError] = PacsError) -> Iterator[type[PacsError]]:
    """Every concrete error class, for the tables of the edges and their tests."""
    for child in base.__subclasses__():
        if not child.__subclasses__():
            yield child
        yield from leaves(child)
