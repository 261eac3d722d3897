from collections.abc import Iterable
from typing import Self, final

UNIQUE: frozenset[int]

@final
class Schema:
    def __new__(
        cls,
        attributes: Iterable[tuple[int, int, int, int]],
        secret: bytes,
        codes: bytes = b"",
        pending: Iterable[int] = (),
    ) -> Self: ...
