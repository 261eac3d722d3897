"""Data sets to tapes, for other native modules."""

from typing import Never, final

from pacs_core._ext.findings import Finding

@final
class Tape:
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def implicit(self) -> bool: ...
    @property
    def little(self) -> bool: ...
    @property
    def cut(self) -> tuple[int, int] | None: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...

__pyx_capi__: dict[str, object]
