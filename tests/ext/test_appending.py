"""Appending natively: all bytes in order, then their sync, or the error of the one that failed."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_core._ext.appending import SyncError, append


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("append") / "file"


@given(pieces=st.lists(st.binary(max_size=50), max_size=40), offset=st.integers(0, 5000))
def test_all_of_it_in_order(file: Path, pieces: list[bytes], offset: int) -> None:
    with file.open("wb", buffering=0) as opened:
        assert append(opened.fileno(), pieces, offset) == len(b"".join(pieces))
    assert file.read_bytes() == (bytes(offset) + b"".join(pieces) if any(pieces) else b"")


def test_more_pieces_than_the_system_takes_at_a_time(file: Path) -> None:
    pieces = [b"%d," % number for number in range(5000)]
    with file.open("wb", buffering=0) as opened:
        append(opened.fileno(), [memoryview(piece) for piece in pieces], 0)
    assert file.read_bytes() == b"".join(pieces)


def test_a_write_that_is_cut_short_is_gone_on_with_and_its_error_told(file: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with file.open("wb", buffering=0) as opened:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
        try:
            with pytest.raises(OSError) as told:  # noqa: PT011 - its number is looked at
                append(opened.fileno(), [b"a" * 1000, b"b" * 1000], 0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert told.value.errno == errno.EFBIG
    assert not isinstance(told.value, SyncError)
    assert file.read_bytes() == b"a" * 1000 + b"b" * 500


def test_a_sync_that_fails_is_another_error() -> None:
    fd = os.open("/dev/null", os.O_WRONLY)
    try:
        with pytest.raises(SyncError) as told:
            append(fd, [b"x"], 0)
    finally:
        os.close(fd)
    assert told.value.errno == errno.EINVAL


def test_what_is_no_buffer_writes_nothing(file: Path) -> None:
    with file.open("wb", buffering=0) as opened, pytest.raises(TypeError):
        append(opened.fileno(), [b"x", 1], 0)  # type: ignore[list-item]
    assert file.read_bytes() == b""
