"""A PACS engine: DICOM received, kept, found and given back at native speed."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacs_core.archive import Archive as Archive
    from pacs_core.client import Client as Client
    from pacs_core.dicom.dataset import Dataset as Dataset
    from pacs_core.dicom.reading import read as read
    from pacs_core.server import Server as Server

__version__ = "0.1.0"

_PUBLIC = {
    "Archive": "pacs_core.archive",
    "Client": "pacs_core.client",
    "Dataset": "pacs_core.dicom.dataset",
    "Server": "pacs_core.server",
    "edit": "pacs_core.dicom.edit",
    "errors": "pacs_core.errors",
    "read": "pacs_core.dicom.reading",
}


def __getattr__(name: str) -> object:
    """What is public is imported when it is first asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_PUBLIC[name])
    value: object = getattr(module, name, module)
    globals()[name] = value
    return value
