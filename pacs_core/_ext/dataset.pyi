from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Never, final

from typing_extensions import Buffer, disjoint_base

KINDS: tuple[str, ...]

class Finding(NamedTuple):
    kind: str
    tag: int
    offset: int
    times: int

@final
class Header:
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def fields(self) -> bytes: ...
    @property
    def sop_class_uid(self) -> str: ...
    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def study_instance_uid(self) -> str: ...
    @property
    def series_instance_uid(self) -> str: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...
    @property
    def stray(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def truncated(self) -> bool: ...

@disjoint_base
class Scanner:
    def __init__(
        self,
        wanted: Sequence[tuple[int, str]],
        encodings: Mapping[str, tuple[bool, bool, bool]],
        decode: Callable[[bytes, bytes, bool], tuple[str, bool]],
        known: Callable[[bytes], bool],
        *,
        inflate_limit: int = ...,
    ) -> None: ...
    @property
    def inflate_limit(self) -> int: ...
    def scan(self, data: Buffer, transfer_syntax_uid: str) -> Header: ...

@disjoint_base
class Scan:
    def __init__(self, scanner: Scanner, transfer_syntax_uid: str) -> None: ...
    def feed(self, data: Buffer) -> None: ...
    def finish(self) -> Header: ...
