"""Feeds native code with hostile bytes, under libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer.

A crash, a leak, undefined behaviour, an unexpected exception or a hang ends it with an error; the input is
then in build/fuzz/found. What gets further than anything before is remembered in build/fuzz/corpus.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tests" / "fuzz"
OUT = ROOT / "build" / "fuzz"
LIBRARY = OUT / "lib"
PROGRAM = OUT / "fuzz"
TARGETS = sorted(path.stem for path in SOURCES.glob("*.pyx"))

NO_CLANG = "there is no clang with libFuzzer: apt-get install clang libclang-rt-dev llvm"

OPTIONS = (
    "-max_len=16384",  # over the 8 KiB that a scan keeps of a value, and that the engine hands over at once
    "-timeout=10",
    "-rss_limit_mb=2048",
    "-print_final_stats=1",
)
# What makes thousands of objects of Python for an input, which is where most of the time goes, is made quick
# enough for millions of inputs. Leaks are looked for after the last one only: to look after each that left
# something, as what Python remembers, takes longer than the input. Elements are small, and so can inputs be.
OF_OBJECTS = {"dataset", "rewritten"}
OPTIONS_OF_OBJECTS = ("-detect_leaks=0", "-max_len=1500", "-entropic=0")
ENVIRONMENT = {
    "PYTHONPATH": str(LIBRARY),
    "PYTHONHASHSEED": "0",  # an input does the same each time
    "PYTHONMALLOC": "malloc",  # an overrun of one object shows only if objects don't share an allocation
    # Less of what was freed is watched, less of each stack kept: faster, with a fifth of the memory.
    "ASAN_OPTIONS": "quarantine_size_mb=16:malloc_context_size=12",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
ENVIRONMENT_OF_OBJECTS = {
    "PYTHONMALLOC": "pymalloc",
    "FUZZ_GUARDED": "16",  # of so many objects, one has an allocation of its own (main.c)
    "ASAN_OPTIONS": "quarantine_size_mb=4:malloc_context_size=2:max_malloc_fill_size=0",
}


def has_clang() -> bool:
    """Whether clang is here, and its libFuzzer: it answers with the bare name of a library that it lacks."""
    library = f"libclang_rt.fuzzer-{os.uname().machine}.a"
    try:
        found = subprocess.run(["clang", f"-print-file-name={library}"], stdout=subprocess.PIPE, check=True)
    except OSError:
        return False
    return found.stdout.strip() != library.encode()


def build() -> None:
    """Compile what changed: the package and the targets, in a tree of their own, and the program."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", LIBRARY, "--build-temp", OUT / "temp"],
        cwd=ROOT,
        env={**os.environ, "CC": "clang", "PACS_CORE_SANITIZE": "fuzz"},
        check=True,
    )
    value = sysconfig.get_config_var
    flags = ["-g", "-fsanitize=fuzzer,address,undefined", "-rdynamic", f"-I{sysconfig.get_path('include')}"]
    python = [f"-L{value('LIBDIR')}", f"-L{value('LIBPL')}", f"-Wl,-rpath,{value('LIBDIR')}"]
    python += [f"-lpython{value('LDVERSION')}", *value("LIBS").split(), *value("SYSLIBS").split()]
    main = [f'-DVENV_PYTHON="{sys.executable}"', SOURCES / "main.c"]
    subprocess.run(["clang", *flags, *main, *python, "-o", PROGRAM], check=True)
    subprocess.run([sys.executable, "-m", "tests.fuzz.seeds", OUT / "seeds"], cwd=ROOT, check=True)


def fuzz(target: str, *arguments: object, thorough: bool = False) -> int:
    """Run libFuzzer on one target; its exit code. `thorough`: every object of Python is watched."""
    found = OUT / "found"
    found.mkdir(exist_ok=True)
    quick = target in OF_OBJECTS
    command = [
        PROGRAM,
        *OPTIONS,
        *(OPTIONS_OF_OBJECTS if quick else ()),
        f"-artifact_prefix={found / target}-",
        *map(str, arguments),
    ]
    environment = {**os.environ, **ENVIRONMENT, "FUZZ_TARGET": f"fuzz_{target}"}
    if quick and not thorough:
        environment |= ENVIRONMENT_OF_OBJECTS
    return subprocess.run(command, env=environment, check=False).returncode


def corpora(target: str) -> tuple[Path, Path, Path]:
    """Where inputs are: what was found here, what is committed, what is made."""
    folders = (OUT / "corpus" / target, SOURCES / "corpus" / target, OUT / "seeds" / target)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="tools/fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS, help="tests/fuzz/TARGET.pyx says what an input is")
    parser.add_argument("inputs", nargs="*", type=Path, help="only these, once each")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--runs", type=int, help="end after so many inputs (default: never)")
    limit.add_argument("--seconds", type=int, help="end after so long")
    limit.add_argument("--keep", action="store_true", help="add finds to tests/fuzz/corpus, minimised")
    chosen = parser.parse_args()
    if not has_clang():
        parser.error(NO_CLANG)

    build()
    if chosen.inputs:
        return fuzz(chosen.target, *chosen.inputs, thorough=True)
    found, kept, seeds = corpora(chosen.target)
    if chosen.keep:
        # The fewest that reach it all; what also tells how often would be a hundred times as much.
        return fuzz(chosen.target, "-set_cover_merge=1", "-use_counters=0", kept, found)
    limits = []
    if chosen.runs is not None:
        limits.append(f"-runs={chosen.runs}")
    if chosen.seconds is not None:
        limits.append(f"-max_total_time={chosen.seconds}")
    return fuzz(chosen.target, *limits, found, kept, seeds)


if __name__ == "__main__":
    sys.exit(main())
