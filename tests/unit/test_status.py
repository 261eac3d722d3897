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


@pytest.mark.parametrize(
    ("error", "expected", "error_id"),
    [
        (errors.MissingAttributeError("none"), 0x0120, None),
        (errors.MissingValueError("empty"), 0x0121, None),
        (errors.NoSuchAttributeError("not here"), 0x0105, None),
        (errors.InvalidValueError("bad"), 0x0106, None),
        (errors.DuplicateError("again"), 0x0111, None),
        (errors.NotFoundError("unknown"), 0x0112, None),
        (errors.InvalidArgumentError("empty"), 0x0115, None),
        (errors.NoSuchActionError("2"), 0x0123, None),
        (errors.WrongStateError("final"), 0x0110, 0xA710),
        (errors.OutOfResourcesError("full"), 0x0213, None),
        (errors.UnparsableError("garbage"), 0x0110, None),
        (ZeroDivisionError(), 0x0110, None),
    ],
)
def test_statuses_of_the_n_services(error: Exception, expected: int, error_id: int | None) -> None:
    """PS3.7 10.1 and Annex C, PS3.4 F.7.2, J.3; CONFORMANCE 33 to 35."""
    assert status.normalized_status_of(error) == expected
    assert status.error_id_of(error) == error_id


def test_a_comment_is_short_printable_and_tells_no_identity() -> None:
    """Error Comment is LO: 64 characters, no backslash, no control characters (PS3.5 6.2)."""
    comment = status.comment_of(errors.MismatchError("a\\b\n" + "x" * 100, uid="1.2.3"))
    assert comment == "a?b?" + "x" * 60
    assert status.comment_of(ValueError("Doe^Jane")) == "internal failure"
