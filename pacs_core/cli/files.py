"""What the commands on files share: which files, how many at a time, what became of each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from pacs_core.cli.progress import Progress
    from pacs_core.dicom.dataset import Dataset
    from pacs_core.dicom.media import Named

A = TypeVar("A")
R = TypeVar("R")

STDIN = "-"
_FEW = 64  # files that take no longer than it takes to start workers

files_argument = click.argument("files", nargs=-1, required=True, metavar="FILE…")
jobs_option = click.option(
    "--jobs", type=click.IntRange(1, 256), metavar="N", help="Processes side by side; default: the cores."
)


class Done(NamedTuple):
    """What came of one item: `value`, or the `error` in words."""

    item: Any
    value: Any
    error: str | None


def named(files: Iterable[str]) -> list[Named]:
    """The files that arguments name: files, folders, patterns; `-`, if it is allowed, by itself."""
    from pacs_core.dicom.media import Named, files_of

    return [one for name in files for one in ([Named(Path(STDIN))] if name == STDIN else files_of([name]))]


def read(path: Path) -> Dataset:
    """The data set of a file, or of standard input."""
    from pacs_core.dicom.reading import read

    if str(path) != STDIN:
        return read(path)
    return read(sys.stdin.buffer)


def is_other(one: Named) -> bool:
    """Whether a file is none that was asked for: found in a folder, and no DICOM."""
    from pacs_core.dicom.media import looks_like_dicom

    return one.found and not looks_like_dicom(one.path)


def each(
    function: Callable[[A], R], items: Sequence[A], jobs: int | None, *, ordered: bool = False
) -> Iterator[Done]:
    """Call a function, which has to be a module's, with each item: in worker processes, if there are many.

    Who stops early, Ctrl-C too, waits for what has begun: no file is half written.
    """
    if len(items) <= _FEW or jobs == 1:
        for item in items:
            yield _done_here(function, item)
        return
    from pacs_core.pool.profile import cores
    from pacs_core.pool.workers import Workers

    processes = jobs or cores()
    workers = Workers(processes, waiting=4 * processes)
    outcomes = workers.map(function, items, ordered=ordered)
    try:
        for outcome in outcomes:
            error = outcome.error
            yield Done(outcome.item, outcome.value, None if error is None else words_of(error))
    finally:
        outcomes.close()  # type: ignore[attr-defined]  # a generator: what has not begun is cancelled
        workers.close()


def _done_here(function: Callable[[A], R], item: A) -> Done:
    try:
        return Done(item, function(item), None)
    except Exception as exc:  # noqa: BLE001  as a worker does it
        return Done(item, None, words_of(exc))


def words_of(error: Exception) -> str:
    """An error in a line, without the file that it is about."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def complain(bar: Progress, path: Path, error: str) -> None:
    """Say what is wrong with a file, which is named once."""
    bar.note(error if str(path) in error else f"{path}: {error}")


def bar_of(what: str, items: Sequence[Any], *, quiet: bool = False) -> Progress:
    """A progress bar, where there are enough items to wait for."""
    from pacs_core.cli.progress import Progress

    return Progress(what, total=len(items), quiet=quiet or len(items) <= _FEW)
