"""Keeping: from an instance to bytes that survive a power cut, and back."""

from pacs_core.store.base import SEQUENCE_LIMIT, Kept, Locator, Mark, Reason, State, Tombstone, crc32c
from pacs_core.store.files import Stream
from pacs_core.store.local import Published, Staged, Store
from pacs_core.store.reading import Opened
from pacs_core.store.syscalls import Syscalls
from pacs_core.store.writer import CLEAN, LOCK

__all__ = [
    "CLEAN",
    "LOCK",
    "SEQUENCE_LIMIT",
    "Kept",
    "Locator",
    "Mark",
    "Opened",
    "Published",
    "Reason",
    "Staged",
    "State",
    "Store",
    "Stream",
    "Syscalls",
    "Tombstone",
    "crc32c",
]
