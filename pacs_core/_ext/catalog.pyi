from collections.abc import Iterable
from typing import Protocol

from pacs_core._ext.kv import Environment
from pacs_core._ext.rows import Schema

class _Entry(Protocol):
    @property
    def fields(self) -> bytes: ...
    @property
    def locator(self) -> bytes: ...
    @property
    def stamp(self) -> int: ...
    @property
    def checksum(self) -> int: ...
    @property
    def transfer_syntax_uid(self) -> str: ...
    @property
    def source_ae(self) -> str: ...

def check_entry(schema: Schema, entry: _Entry) -> None: ...
def apply_batch(
    env: Environment,
    schema: Schema,
    entries: Iterable[_Entry],
    *,
    removals: Iterable[str] = (),
    heirs: Iterable[_Entry] = (),
    replace: bool = False,
    all_new: bool = False,
    mark: tuple[int, int, int, int] | None = None,
    lock_fd: int = -1,
) -> list[tuple[int, bytes | None, int]] | None: ...
