"""Loaded into a pytest run of pynetdicom's own tests: every server is ours, on a port of its own."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pynetdicom.ae
import pytest
from pynetdicom.tests import utils

from pacs_core.dimse.server import AssociationServer, ThreadedAssociationServer

_servers: list[Any] = []
_ports: dict[str, int] = {}


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Threaded(ThreadedAssociationServer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _servers.append(self)


def _own_port(source: str = "local") -> int:
    if source not in _ports:
        _ports[source] = _free_port()
    return _ports[source]


pynetdicom.ae.AssociationServer = AssociationServer
pynetdicom.ae.ThreadedAssociationServer = Threaded
utils.get_port = _own_port


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    """A test that failed half way must not leave its server to the next one."""
    _ports.clear()
    yield
    while _servers:
        server = _servers.pop()
        if server in server.ae._servers:
            with contextlib.suppress(OSError):
                server.shutdown()
