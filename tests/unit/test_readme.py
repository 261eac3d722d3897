"""The ten things people do with DICOM files, in the README: ours and pydicom's give the same result."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file

import pacs_core
from tests.make import instance, part10

README = Path(__file__).resolve().parents[2] / "README.md"
THINGS = re.compile(r"\*\*(\d+)\. (.+?)\.?\*\*.*?```python\n(.*?)```\n```python\n(.*?)```", re.DOTALL)


def things() -> Iterator[Any]:
    for number, title, ours, theirs in THINGS.findall(README.read_text("utf-8")):
        yield pytest.param(ours, theirs, id=f"{number} {title}")


def prepare(folder: Path) -> dict[str, Any]:
    """The files that the page speaks of, and the names that its code uses."""
    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    (folder / "ct.dcm").write_bytes(Path(path).read_bytes())
    latin = instance(PatientName="Müller^Jürgen", SpecificCharacterSet="ISO_IR 100")
    (folder / "latin.dcm").write_bytes(part10(latin))
    (folder / "files").mkdir()
    for number in range(3):
        (folder / "files" / f"{number}.dcm").write_bytes(part10(instance(number)))
    return {
        "pacs_core": pacs_core,
        "pydicom": pydicom,
        "json": json,
        "os": os,
        "Path": Path,
        "BytesIO": BytesIO,
    }


def test_there_are_ten() -> None:
    assert [param.id.split()[0] for param in things()] == [str(number) for number in range(1, 11)]


@pytest.mark.parametrize(("ours", "theirs"), list(things()))
def test_both_give_the_same(ours: str, theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for name, code in (("ours", ours), ("theirs", theirs)):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        names = prepare(folder)
        names["ds"] = pacs_core.read("ct.dcm") if name == "ours" else pydicom.dcmread("ct.dcm")
        with warnings.catch_warnings():
            if name == "theirs":
                warnings.simplefilter("ignore")
            exec(compile(code, f"README.md, {name}", "exec"), names)
        results.append(names["result"])
    assert results[0] == results[1]
    assert results[0] is not None
