"""The progress bar of long commands: on a terminal, on standard error, and nowhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

import click

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress:
    """Counts what is done; silent where nobody watches (no terminal, or ``--json``).

    Parameters
    ----------
    what
        In front of the bar.
    total
        How many there will be; None: not known.
    unit
        What is counted, such as ``file`` or ``B`` (bytes are shown in KiB, MiB…).
    quiet
        Show nothing.
    """

    def __init__(
        self, what: str, *, total: int | None = None, unit: str = "file", quiet: bool = False
    ) -> None:
        self._bar = None if quiet or not sys.stderr.isatty() else _bar(what, total, unit)
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)

    def expect(self, total: int) -> None:
        """So many there will be, as far as is known by now."""
        if self._bar is not None and self._bar.total != total:
            self._bar.total = total
            self._bar.refresh()

    def note(self, text: str) -> None:
        """A line above the bar, on standard error, also where there is no bar."""
        if self._bar is None:
            click.echo(text, err=True)
        else:
            self._bar.write(text, file=sys.stderr)


def _bar(what: str, total: int | None, unit: str) -> tqdm[NoReturn]:
    from tqdm import tqdm  # slow to import, and few watch

    return tqdm(
        desc=what,
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=1024,
        file=sys.stderr,
        dynamic_ncols=True,
    )
