"""Hostile bytes for the native code, a minute of them; PACS_CORE_FUZZ_SECONDS: how long each target.

What is planted shows that a run can fail.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.fuzz import NO_CLANG, TARGETS, build, corpora, fuzz, has_clang

SECONDS = int(os.environ.get("PACS_CORE_FUZZ_SECONDS", "6"))

pytestmark = pytest.mark.timeout(SECONDS + 900)  # the first one builds


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    if not has_clang():
        pytest.skip(NO_CLANG)
    build()


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "planted"])
def test_nothing_breaks_it(target: str, capfd: pytest.CaptureFixture[str]) -> None:
    code = fuzz(target, f"-max_total_time={SECONDS}", *corpora(target))
    said = capfd.readouterr().err
    assert code == 0, said[-8000:]
    assert "stat::number_of_executed_units" in said


@pytest.mark.parametrize(
    ("planted", "report"),
    [
        (b"BUG", "heap-buffer-overflow"),
        (b"BUL", "detected memory leaks"),
        (b"BUS", "runtime error: shift exponent"),
        (b"BUX", "ValueError: planted"),
        (b"BUH", "libFuzzer: timeout"),
    ],
)
def test_what_is_planted_is_reported(
    planted: bytes, report: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "input"
    path.write_bytes(planted)
    assert fuzz("planted", path, "-timeout=1") != 0
    assert report in capfd.readouterr().err


def test_what_is_planted_is_found_and_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fuzz("planted", "-timeout=1", f"-artifact_prefix={tmp_path}/", "-max_total_time=60") != 0
    (found,) = tmp_path.iterdir()
    assert found.read_bytes().startswith(b"BU")
    assert str(found) in capfd.readouterr().err
