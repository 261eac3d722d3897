"""Queries on the worklist: walks of its keys; which steps match, and the responses that they make.

The record of a step is told in `workflow.step`. Each call is one snapshot and gives the GIL up.
"""

from collections.abc import Iterable
from typing import final

from pacs_core._ext.kv import Environment

_Test = tuple[str, str, tuple[str, ...]]
_Part = tuple[int, str, list[_Test], list[_Part]]

@final
class Selector:
    """Keeps the steps that match, and makes responses of them.

    Parameters
    ----------
    parts : sequence of (tag, VR, tests, parts)
        What is asked for, ascending by tag: the tests, as `Matcher` has them, that a value has to pass; of a
        sequence what is asked for in its items, in the same way: nothing if it is to be told as it is.
    start : (first, last) or None
        The range of dates and times (DT) in which a step has to start.
    finished : bool
        Also those of which nothing is left to do.
    """

    def __init__(self, parts: Iterable[_Part], start: tuple[str, str] | None, *, finished: bool) -> None: ...
    def select(
        self,
        env: Environment,
        steps: int,
        keys: int,
        start: bytes,
        stop: bytes,
        *,
        after: bytes | None = None,
        implicit: bool = False,
        whole: bool = False,
        limit: int = 512,
    ) -> tuple[list[int], list[bytes], bytes | None]:
        """The matching steps under the keys from `start` up to, not with, `stop`: (numbers, responses, key),
        to be resumed `after` that key, None at the end. They may be none though the end is not reached.

        Parameters
        ----------
        steps, keys : int
            The table of records, and that of keys under which their places stand: it may be the same.
        whole : bool
            The records' data sets instead of responses.
        limit : int
            Of responses.
        """

def count(env: Environment, table: int, start: bytes, stop: bytes, most: int) -> int:
    """How many keys there are from `start` up to, not with, `stop`; no more than `most` are counted."""
