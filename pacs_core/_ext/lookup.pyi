"""Queries on the index: walks of key ranges; the sieve that keeps what matches and makes responses of it.

Each call is one snapshot and gives the GIL up; a walk is resumed by the key and the id that it came to.
"""

from collections.abc import Iterable, Sequence
from typing import final

from pacs_core._ext.kv import Environment
from pacs_core._ext.match import Matcher
from pacs_core._ext.rows import Schema

def level_of(schema: Schema, tag: int) -> int | None:
    """The level at which the index has an attribute, None if it does not, or not of all instances yet."""

def keys_of(schema: Schema, tag: int) -> tuple[int, int] | None:
    """(code, kind) of the ordered keys of an attribute in the `key` table, None if it has none."""

@final
class Sieve:
    """Keeps the ids of a level whose records match, and makes responses of them.

    Parameters
    ----------
    level : int
        0 patient to 3 image.
    tags : sequence of int, or of (int, int)
        The attribute that each test of the matcher is for, or date and time; all of this level or above.
    parts : sequence of (tag, VR, bytes or None or a tuple of (tag, VR))
        The elements of a response, ascending by tag: what they hold, or None for what the record has. Of a
        sequence the elements that its items are told with. Attributes below the level have no place here.
    sequences : sequence of (tag, tags)
        What the last tests of the matcher are for: attributes of the items of sequences. Of a sequence that
        is tested the items that match are told, of any other all (PS3.4 C.2.2.2.6).
    """

    def __init__(
        self,
        schema: Schema,
        level: int,
        matcher: Matcher,
        tags: Iterable[int | tuple[int, int]],
        parts: Iterable[tuple[int, str, bytes | tuple[tuple[int, str], ...] | None]],
        sequences: Iterable[tuple[int, Iterable[int]]] = (),
    ) -> None: ...
    def sift(self, env: Environment, ids: Sequence[int]) -> list[int]:
        """Those of some ids, in their order, that match."""
    def responses(self, env: Environment, ids: Sequence[int], implicit: bool) -> list[bytes]:
        """The responses to a query that the matching ones of some ids are, each a data set in little endian,
        (0008,0005) first if it is not ASCII."""

def key_ids(
    env: Environment,
    start: bytes,
    stop: bytes,
    *,
    after: bytes | None = None,
    after_id: int = 0,
    matcher: Matcher | None = None,
    limit: int = 1024,
    keys: int = 20000,
) -> tuple[list[int], bytes | None, int]:
    """The ids under the keys from `start` up to, not with, `stop`: (ids, key, id), to be resumed `after` that
    key and id; key None at the end.

    A `matcher` decides by the patterns of its first test which keys count, as they are, normalised; one that
    was cut always does. No more than so many `keys` are looked at in a call: the ids may be none though the
    end is not reached.
    """
