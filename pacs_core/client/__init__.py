"""The SCU side of each service."""

from pacs_core._ext.associate import UserIdentity
from pacs_core.client.association import (
    VERIFICATION,
    Answer,
    Association,
)
from pacs_core.client.client import Client
from pacs_core.client.commitment import Committed
from pacs_core.client.moving import Moved
from pacs_core.client.mpps import PerformedStep
from pacs_core.client.receiving import Received
from pacs_core.client.remote import Remote, Timeouts
from pacs_core.client.sending import Sent
from pacs_core.client.sources import Part, part_of_bytes, part_of_file

__all__ = [
    "VERIFICATION",
    "Answer",
    "Association",
    "Client",
    "Committed",
    "Moved",
    "Part",
    "PerformedStep",
    "Received",
    "Remote",
    "Sent",
    "Timeouts",
    "UserIdentity",
    "part_of_bytes",
    "part_of_file",
]
