"""The packed index fields of an instance, as Python reads them."""

from __future__ import annotations

from pacs_core._ext.record import unpack

values = unpack
"""values(fields) -> dict: value (UTF-8 bytes) by tag. Raises UnparsableError for malformed ones."""
