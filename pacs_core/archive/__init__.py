"""The engine: the only place where index and store meet."""

from pacs_core.archive.archive import Archive
from pacs_core.archive.delete import Deleted
from pacs_core.archive.ingest import Arrival, Arriving, Duplicates, Ingest, Kept, Stored
from pacs_core.archive.retrieve import Held, Outgoing

__all__ = [
    "Archive",
    "Arrival",
    "Arriving",
    "Deleted",
    "Duplicates",
    "Held",
    "Ingest",
    "Kept",
    "Outgoing",
    "Stored",
]
