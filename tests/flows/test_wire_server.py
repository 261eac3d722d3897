"""Connections of the server as a user starts it: who may what, places that are given back, its end."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rawpeer import ECHO, IMPLICIT, Peer, echo

from pacs_core import Archive
from tests.make import uid
from tests.raw import RawSender
from tests.serving import Serving, pacs_core, serving, until


def peer_of(server: Serving, timeout: float = 10) -> Peer:
    return Peer(SimpleNamespace(server_address=("127.0.0.1", server.port)), timeout)


@pytest.mark.parametrize(("may", "status"), [("find", 0x0124), ("echo", 0x0000), (None, 0x0000)])
def test_c_echo_is_for_peers_that_may(tmp_path: Path, may: str | None, status: int) -> None:
    archive = tmp_path / "archive"
    Archive.open(archive).close()
    pacs_core("peers", "add", "--archive", str(archive), "RAWPEER", *(["--may", may] if may else []))
    with serving(archive) as server, peer_of(server) as peer:
        peer.associated(contexts=[(1, ECHO, [IMPLICIT])])
        peer.send(echo(1, 7))
        assert peer.response().status == status
        peer.released()


def test_connections_of_one_source_address_and_port_are_two(tmp_path: Path) -> None:
    """A host of several addresses: they differ in where they go to only."""
    with serving(
        tmp_path / "archive",
        *("--host", "0.0.0.0", "--set", "pool.acceptors=1"),
        *("--set", "server.called_aet=any", "--set", "server.unknown_callers=any"),
        *("--set", "server.maximum_associations=2", "--set", "server.maximum_associations_per_peer=2"),
    ) as server:
        for _ in range(3):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                source = probe.getsockname()
            both = [_from(source, to, server.port) for to in ("127.0.0.1", "127.0.0.2")]
            for peer in both:
                peer.associated(contexts=[(1, ECHO, [IMPLICIT])])
            for peer in both:
                peer.released()
                peer.sock.close()
            time.sleep(0.3)  # until the places are free


def _from(source: tuple[str, int], to: str, port: int) -> Peer:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.settimeout(10)
    sock.bind(source)
    sock.connect((to, port))
    peer = Peer.__new__(Peer)
    peer.sock = sock
    return peer


def test_a_stop_does_not_wait_for_who_says_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "archive", "--set", "wire.artim_timeout=60") as server:
        silent, aborted = peer_of(server), peer_of(server)
        with silent, aborted:
            aborted.associated(contexts=[(1, ECHO, [IMPLICIT])])
            begun = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begun < 8
            assert silent.at_end()
            assert aborted.pdu()[0] == 7


@pytest.mark.parametrize("maximum", [1, 7])
def test_a_maximum_length_without_room_for_data_is_one_warning(tmp_path: Path, maximum: int) -> None:
    with serving(tmp_path / "archive") as server, peer_of(server) as peer:
        with pytest.raises(AssertionError):
            peer.associated(contexts=[(1, ECHO, [IMPLICIT])], maximum_length=maximum)
        assert until(lambda: any("no room for data" in str(line["event"]) for line in server.lines))
        [line] = [line for line in server.lines if line["level"] in ("warning", "error")]
        assert line["level"] == "warning"
        assert "where" not in line


def test_an_encrypted_key_is_an_error_and_no_question(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=x"),
            *("-passout", "pass:secret", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    failed = pacs_core(
        *("serve", "--archive", str(tmp_path / "archive"), "--port", "0", "--set", "tls.client=none"),
        *("--set", f"tls.certificate={certificate}", "--set", f"tls.key={key}"),
        check=2,
    )
    assert "tls.key" in failed.stderr
    assert "encrypted" in failed.stderr


def test_every_line_of_an_association_says_whose_it_is(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    Archive.open(archive).close()
    pacs_core("peers", "add", "--archive", str(archive), "RAWPEER", "--may", "echo")
    with serving(archive) as server:
        with RawSender(server.port) as refused:
            assert refused.store(uid(1, 1, 1), b"").status == 0x0124
        [accepted] = server.said("association accepted")
        assert until(lambda: server.said("instance not kept"))
        [line] = [line for line in server.lines if line["level"] in ("warning", "error")]
        assert (line["event"], line["level"], line["status"]) == ("instance not kept", "warning", "0124")
        for told in (accepted, line):
            assert told["association"] == accepted["association"]
            assert told["address"] == "127.0.0.1"
            assert (told["calling_ae_title"], told["called_ae_title"]) == ("RAWPEER", "PACSCORE")
        assert accepted["contexts"] == "1 of 1"
        assert accepted["level"] == "info"
