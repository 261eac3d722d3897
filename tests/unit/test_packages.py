"""What is published installs and works: the sdist builds a wheel, and the wheel imports by itself."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(900)
def test_sdist_and_wheel(tmp_path: Path) -> None:
    done = subprocess.run([ROOT / "tools" / "wheel", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [sdist] = tmp_path.glob("*.tar.gz")
    [wheel] = tmp_path.glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {"_ext/dictionary.h", "_ext/kv.pyx", "pacs_core/_ext/kv.pyi", "setup.py"}
    assert {"LICENSE", "README.md", *sources} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
    assert not [name for name in names if name.endswith(".c") and not name.startswith("tests/")]
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert (installed / "pacs_core" / "py.typed").exists()
    assert not (installed / "tests").exists()
    modules = [path.stem for path in (installed / "pacs_core" / "_ext").glob("*.pyi")]
    assert modules
    code = "import pacs_core, " + ", ".join(f"pacs_core._ext.{name}" for name in modules)
    code += "; from pacs_core.cli.main import run; print(pacs_core.__file__); run(['--help'])"
    code += "; print(*{line.split()[-1] for line in open('/proc/self/maps') if 'lmdb' in line})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(installed))
    assert "peers" in done.stdout
    # One LMDB in the process, and it is the wheel's own.
    [lmdb] = done.stdout.splitlines()[-1].split()
    assert lmdb.startswith(str(installed / "pacs_core.libs"))
