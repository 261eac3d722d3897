from typing import NamedTuple

KINDS: tuple[str, ...]

class Finding(NamedTuple):
    kind: str
    tag: int
    offset: int
    times: int

__pyx_capi__: dict[str, object]
