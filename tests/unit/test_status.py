"""The table from errors to statuses is complete, and says what the standard says."""

from __future__ import annotations

import pytest

from pacs_core import errors
from pacs_core.dimse import status


def test_every_error_has_a_status_of_its_own_in_the_table() -> None:
    assert set(errors.leaves()) == set(status._STATUS)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.OutOfResourcesError("full"), 0xA700),
        (errors.MismatchError("other"), 0xA900),
        (errors.UnparsableError("garbage"), 0xC000),
        (errors.DuplicateError("again"), 0x0111),
        (errors.NotPermittedError("no"), 0x0124),
        (errors.CorruptError("bad"), 0x0110),
        (ZeroDivisionError(), 0x0110),
    ],
)
def test_statuses_are_those_of_the_standard(error: Exception, expected: int) -> None:
    """PS3.4 B.2.3 and PS3.7 Annex C; CONFORMANCE 10."""
    assert status.status_of(error) == expected


def test_a_comment_is_short_printable_and_tells_no_identity() -> None:
    """Error Comment is LO: 64 characters, no backslash, no control characters (PS3.5 6.2)."""
    comment = status.comment_of(errors.MismatchError("a\\b\n" + "x" * 100, uid="1.2.3"))
    assert comment == "a?b?" + "x" * 60
    assert status.comment_of(ValueError("Doe^Jane")) == "internal failure"
