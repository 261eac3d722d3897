from collections.abc import Iterable, Sequence
from typing import TypedDict, type_check_only

from pacs_core._ext.kv import Environment
from pacs_core._ext.rows import Schema

@type_check_only
class Claim(TypedDict):
    number: int
    instances: int
    first: int
    patient_id: str
    issuer: str
    values: dict[int, tuple[str, int]]

@type_check_only
class Record(TypedDict):
    """What a patient (P), study (S) or series (E) record holds; the others' keys are not there."""

    uid: str
    instances: int
    values: dict[int, tuple[str, int]]
    issuer: str  # P
    unnamed: bool  # P
    studies: int  # P
    series: int  # P, S
    parent: int  # S, E
    bytes: int  # S, E
    alias: bytes  # S
    modalities: dict[str, int]  # S
    classes: dict[str, int]  # S
    claims: list[Claim]  # S

_Place = tuple[int, int, int, str, str, str, str, bytes, int, int, int]

def held(env: Environment, schema: Schema, uid: str) -> bool: ...
def lookup(env: Environment, schema: Schema, kind: int, text: bytes, scope: int = 0) -> int | None: ...
def series_named(env: Environment, schema: Schema, uid: bytes, limit: int = 1000) -> list[int]: ...
def ids_of(
    env: Environment, table: int, key: bytes | None = None, after: int = 0, limit: int = 1000
) -> list[int]: ...
def children(
    env: Environment, parents: Sequence[int], after: Sequence[int], limit: int = 1000
) -> tuple[list[int], list[int]]: ...
def matches(
    env: Environment, schema: Schema, level: int, ids: Sequence[int]
) -> list[dict[int, str] | None]: ...
def places(env: Environment, schema: Schema, ids: Iterable[int]) -> list[_Place | None]: ...
def records(env: Environment, schema: Schema, level: int, ids: Sequence[int]) -> list[Record | None]: ...
