"""Data sets to the DICOM JSON Model (PS3.18 Annex F)."""

from collections.abc import Callable
from typing import final

from pacs_core._ext.tree import Element, Tree

@final
class Writer:
    """Writes one JSON object; `to_json` is its use."""

def to_json(
    tree: Tree, bulk_uri: Callable[[Element], str | None] | None = None, bulk_over: int = 1024
) -> bytes:
    """A data set as a DICOM JSON Model object (PS3.18 F.2), UTF-8.

    Parameters
    ----------
    bulk_uri : callable (Element) -> str or None
        The BulkDataURI of a value of more than `bulk_over` bytes, where F.2.2 allows one; None: inline.
    """
