from collections.abc import Iterable

from typing_extensions import Buffer

class SyncError(OSError): ...

def append(fd: int, buffers: Iterable[Buffer], offset: int) -> int: ...
