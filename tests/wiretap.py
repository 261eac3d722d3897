"""A proxy that passes everything on and keeps the data sets that crossed it, byte for byte.

It reads the requestor's direction by PS3.8 9.3.5 and E.2 on its own, with none of our code.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading


class Wiretap:
    """Listens on `port`; what comes goes to `target`. `data_sets` holds them in order of arrival."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.data_sets: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(client, server, _Listener(self)), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, None), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, listener: _Listener | None) -> None:
        try:
            while data := source.recv(65536):
                if listener is not None:
                    listener.feed(data)
                target.sendall(data)
        except OSError:
            pass
        for sock, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
            with contextlib.suppress(OSError):
                sock.shutdown(how)


class _Listener:
    def __init__(self, tap: Wiretap) -> None:
        self._tap = tap
        self._pending = b""
        self._data_set = b""

    def feed(self, data: bytes) -> None:
        self._pending += data
        while len(self._pending) >= 6:
            kind, length = struct.unpack(">BxL", self._pending[:6])
            if len(self._pending) < 6 + length:
                return
            if kind == 4:
                self._values(self._pending[6 : 6 + length])
            self._pending = self._pending[6 + length :]

    def _values(self, items: bytes) -> None:
        while items:
            (length,) = struct.unpack(">L", items[:4])
            control, fragment = items[5], items[6 : 4 + length]
            if not control & 1:
                self._data_set += fragment
                if control & 2:
                    self._tap.data_sets.append(self._data_set)
                    self._data_set = b""
            items = items[4 + length :]
