"""The matcher of queries: compiled once, decides without the GIL. `dicom.query` says what each rule means."""

from collections.abc import Iterable, Sequence
from typing import final

@final
class Matcher:
    """Tests for attribute values as text.

    Parameters
    ----------
    tests : sequence of (VR, matching, values)
        The VR as text; "values", "wildcard", "range", "empty", "fuzzy" or "combined"; values as str: any of
        them, or the two ends, which are dates and times (DT) where the test is a combined one.
    """

    def __init__(self, tests: Iterable[tuple[str, str, Sequence[str]]]) -> None: ...
    @property
    def count(self) -> int: ...
    def matches(self, test: int, value: bytes, time: bytes = b"") -> bool:
        """Whether an attribute, as text in UTF-8, passes the test of that number; a combined one with the
        attribute of the time."""

FORMS: dict[str, int]
MATCHINGS: dict[str, int]
__pyx_capi__: dict[str, object]
