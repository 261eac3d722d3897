"""The engine: the only place where index and store meet."""

from pacs_core.archive.archive import Archive
from pacs_core.archive.ingest import Arrival, Arriving, Duplicates, Ingest, Kept, Stored

__all__ = ["Archive", "Arrival", "Arriving", "Duplicates", "Ingest", "Kept", "Stored"]
