from collections.abc import Iterable

from typing_extensions import Buffer

VERSION: int
LIMIT: int

def pack(items: Iterable[tuple[int, bytes]]) -> bytes: ...
def unpack(blob: Buffer) -> dict[int, bytes]: ...
def check(blob: Buffer) -> None: ...
