"""The progress bar of long commands: on a terminal, on standard error, and nowhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

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
        self._bar = tqdm(
            desc=what,
            total=total,
            unit=unit,
            unit_scale=unit == "B",
            unit_divisor=1024,
            file=sys.stderr,
            disable=quiet or not sys.stderr.isatty(),
            dynamic_ncols=True,
        )
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        self._bar.update(count)

    def grow(self, count: int) -> None:
        """So many more are to do than was known."""
        self._bar.total = (self._bar.total or 0) + count
        self._bar.refresh()

    def note(self, text: str) -> None:
        """A line above the bar, on standard error, also where there is no bar."""
        self._bar.write(text, file=sys.stderr)
