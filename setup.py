"""Build of the native modules: `_ext/NAME.pyx` becomes `pacs_core._ext.NAME`.

Switches, read from the environment:

PACS_CORE_CHECKED=1      bounds checks, C assertions and line tracing on
PACS_CORE_SANITIZE=1     AddressSanitizer and UndefinedBehaviorSanitizer
PACS_CORE_SANITIZE=fuzz  so, fatal, with the coverage that libFuzzer asks for (CC=clang) and the targets of
                         tests/fuzz: what tools/fuzz builds
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
CHECKED = os.environ.get("PACS_CORE_CHECKED") == "1"
FUZZ = os.environ.get("PACS_CORE_SANITIZE") == "fuzz"
SANITIZE = FUZZ or os.environ.get("PACS_CORE_SANITIZE") == "1"

# By name, never globbed: a missing file must fail the build.
MODULES = (
    "appending",
    "associate",
    "batch",
    "browse",
    "buffer",
    "catalog",
    "checksum",
    "command",
    "dataset",
    "dictionary",
    "encode",
    "findings",
    "given",
    "items",
    "jsonmodel",
    "keys",
    "kv",
    "link",
    "literals",
    "lookup",
    "mapping",
    "match",
    "naming",
    "negotiation",
    "parsing",
    "pdu",
    "record",
    "rows",
    "settle",
    "tape",
    "tree",
    "values",
    "walk",
    "words",
    "worklist",
)
FUZZ_TARGETS = (
    "catalog",
    "command",
    "dataset",
    "deflated",
    "planted",
    "record",
    "rewritten",
    "scan",
    "tape",
    "walk",
    "wire",
)
# Comparisons in these are of Python objects, nearly all, and tell libFuzzer nothing; but each costs a call.
UNTRACED = {"dictionary", "encode", "given", "jsonmodel", "naming", "parsing", "tree", "values"}
UNTRACED |= {"fuzz_dataset", "fuzz_rewritten"}
NEEDS_LMDB = {"batch", "browse", "catalog", "kv", "lookup", "settle", "worklist"}


def lmdb_flags() -> tuple[list[str], list[str], list[str]]:
    """Include folders, library folders and libraries of liblmdb, from pkg-config or the usual places."""
    if shutil.which("pkg-config"):
        found = subprocess.run(
            ["pkg-config", "--cflags-only-I", "--libs", "lmdb"], capture_output=True, text=True, check=False
        )
        if found.returncode == 0:
            words = found.stdout.split()
            return (
                [w[2:] for w in words if w.startswith("-I")],
                [w[2:] for w in words if w.startswith("-L")],
                [w[2:] for w in words if w.startswith("-l")],
            )
    for prefix in (Path("/usr"), Path("/usr/local"), Path("/opt/homebrew"), Path(sys.prefix)):
        if (prefix / "include" / "lmdb.h").exists():
            return [str(prefix / "include")], [str(prefix / "lib")], ["lmdb"]
    raise SystemExit(
        "pacs_core needs the LMDB library and its header to build: apt-get install liblmdb-dev "
        "(Debian, Ubuntu), dnf install lmdb-devel (Fedora), brew install lmdb (macOS)"
    )


def cimport_root() -> str:
    """A folder in which `pacs_core/_ext` is `_ext`: absolute cimports resolve, edits of a .pxd rebuild."""
    link = ROOT / "build" / "cimport" / "pacs_core" / "_ext"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        if link.exists():  # a copy of the tree whose links were followed: it would go stale
            shutil.rmtree(link)
        link.symlink_to(os.path.relpath(ROOT / "_ext", link.parent), target_is_directory=True)
    return "build/cimport"


def extensions() -> list[Extension]:
    compile_args = ["-O2", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"]
    link_args: list[str] = []
    macros = [("CYTHON_TRACE_NOGIL", "1")] if CHECKED else [("CYTHON_WITHOUT_ASSERTIONS", "1")]
    if SANITIZE:
        sanitize = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g"]
        compile_args += sanitize
        link_args += sanitize
    if FUZZ:
        compile_args += ["-fsanitize=fuzzer-no-link", "-fno-sanitize-recover=all"]
    includes, folders, libraries = lmdb_flags()
    sources = {f"pacs_core._ext.{name}": f"_ext/{name}.pyx" for name in MODULES}
    if FUZZ:
        sources |= {f"fuzz_{name}": f"tests/fuzz/{name}.pyx" for name in FUZZ_TARGETS}
    untraced = ["-fno-sanitize-coverage=trace-cmp,indirect-calls"] if FUZZ else []
    return [
        Extension(
            name,
            [source],
            include_dirs=includes,
            library_dirs=folders,
            libraries=libraries if name.rpartition(".")[2] in NEEDS_LMDB else [],
            define_macros=macros,
            extra_compile_args=compile_args + (untraced if name.rpartition(".")[2] in UNTRACED else []),
            extra_link_args=link_args,
        )
        for name, source in sources.items()
    ]


os.chdir(ROOT)
setup(
    ext_modules=cythonize(
        extensions(),
        build_dir="build/cython-checked" if CHECKED else "build/cython",
        include_path=[cimport_root()],
        compiler_directives={
            "language_level": 3,
            "boundscheck": CHECKED,
            "wraparound": CHECKED,
            "cdivision": True,
            "embedsignature": True,
            "autotestdict": False,
            "linetrace": CHECKED,
        },
    ),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
