"""Frozen settings from one schema, and the known peers; the only reader of settings files and environment.

`load` merges, each over the one before: defaults, a TOML file, the environment
(``PACS_CORE_SECTION__KEY``) and flags. Nothing else in the project looks at any of these.
"""

from pacs_core.config.load import Flag, Loaded, load
from pacs_core.config.peerfile import PeerBook, PeerFile
from pacs_core.config.peers import Decision, Peer, Peers, Refusal, Right
from pacs_core.config.schema import (
    ArchiveSettings,
    LogSettings,
    PoolSettings,
    RetrieveSettings,
    ServerSettings,
    Settings,
    TlsSettings,
    WireSettings,
)

__all__ = [
    "ArchiveSettings",
    "Decision",
    "Flag",
    "Loaded",
    "LogSettings",
    "Peer",
    "PeerBook",
    "PeerFile",
    "Peers",
    "PoolSettings",
    "Refusal",
    "RetrieveSettings",
    "Right",
    "ServerSettings",
    "Settings",
    "TlsSettings",
    "WireSettings",
    "load",
]
