"""Peers: the decision about a caller, and the file that says who is known."""

import multiprocessing
import os
import shlex
from pathlib import Path

import pytest

from pacs_core.config import Peer, PeerBook, PeerFile, Peers, Refusal, Right, load
from pacs_core.errors import ConfigError, NotFoundError

CT1 = Peer(aet="CT1", host="192.0.2.10", port=104, may=(Right.ECHO, Right.STORE))


def known(*peers: Peer) -> Peers:
    return Peers(peers, aet="PACSCORE", called="own", unknown="known")


def test_a_known_peer_is_admitted_for_what_it_may() -> None:
    decision = known(CT1).admit("CT1", "PACSCORE", "192.0.2.10")
    assert decision.admitted
    assert decision.peer == CT1
    assert decision.may(Right.STORE)
    assert not decision.may(Right.FIND)


@pytest.mark.parametrize(("calling", "called"), [(" CT1 ", "PACSCORE        "), ("CT1\0\0", " PACSCORE")])
def test_padding_is_not_significant(calling: str, called: str) -> None:
    assert known(CT1).admit(calling, called, "192.0.2.10").admitted


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (Peer(aet="WS1", host="192.0.2.20"), True),
        (Peer(aet="WS1"), False),
        (Peer(aet="WS1", host="192.0.2.20", may=(Right.ECHO, Right.STORE)), False),
        (Peer(aet="WS2", host="192.0.2.20"), False),
    ],
)
def test_a_destination_of_a_move_listens_and_may_have_it(peer: Peer, expected: bool) -> None:
    assert known(peer).destination(" WS1 ") == (peer if expected else None)


def test_ae_titles_are_case_sensitive() -> None:
    assert known(CT1).admit("ct1", "PACSCORE", "192.0.2.10").refusal is Refusal.CALLING_AET


def test_an_unknown_caller_is_refused_and_told_of() -> None:
    decision = known(CT1).admit("MR1", "PACSCORE", "192.0.2.77")
    assert decision.refusal is Refusal.CALLING_AET
    assert decision.peer is None
    assert not decision.may(Right.ECHO)
    assert decision.hint.startswith("pacs-core peers add MR1 192.0.2.77")
    assert "server.unknown_callers" in decision.hint


@pytest.mark.parametrize("title", ["-X", "--archive=/tmp", "- X"])
def test_a_title_with_a_dash_becomes_no_option_of_the_hint(title: str) -> None:
    """Whoever pastes the hint must not run something that the peer chose."""
    unknown = known(CT1).admit(title, "PACSCORE", "192.0.2.77").hint
    assert shlex.split(unknown.partition(",")[0])[2:] == ["add", "--", title, "192.0.2.77"]
    elsewhere = known(Peer(aet=title, host="192.0.2.1")).admit(title, "PACSCORE", "192.0.2.77").hint
    assert shlex.split(elsewhere)[-2:] == ["--", title]


def test_an_unknown_caller_may_all_where_the_policy_is_open() -> None:
    decision = Peers((CT1,), aet="PACSCORE", unknown="any").admit("MR1", "ANY-SCP", "192.0.2.77")
    assert decision.admitted
    assert decision.may(Right.MOVE)


def test_a_known_peer_keeps_its_limits_where_the_policy_is_open() -> None:
    peers = Peers((CT1,), aet="PACSCORE", unknown="any")
    assert not peers.admit("CT1", "PACSCORE", "192.0.2.10").may(Right.FIND)
    assert peers.admit("CT1", "PACSCORE", "192.0.2.11").refusal is Refusal.ADDRESS


def test_the_called_ae_title_counts_where_it_must_be_ours() -> None:
    decision = known(CT1).admit("CT1", "ANY-SCP", "192.0.2.10")
    assert decision.refusal is Refusal.CALLED_AET
    assert "PACSCORE" in decision.hint
    assert "server.called_aet" in decision.hint
    assert Peers((CT1,), aet="PACSCORE", called="any").admit("CT1", "ANY-SCP", "192.0.2.10").admitted


@pytest.mark.parametrize(
    ("peer", "address", "admitted"),
    [
        (Peer(aet="X", host="192.0.2.10"), "192.0.2.10", True),
        (Peer(aet="X", host="192.0.2.10"), "192.0.2.11", False),
        (Peer(aet="X", host="192.0.2.10"), "::ffff:192.0.2.10", True),
        (Peer(aet="X", host="ct.example"), "192.0.2.11", True),
        (Peer(aet="X"), "192.0.2.11", True),
        (Peer(aet="X", host="192.0.2.10", addresses=("10.0.0.0/8",)), "10.9.9.9", True),
        (Peer(aet="X", host="192.0.2.10", addresses=("10.0.0.0/8",)), "192.0.2.10", False),
        (Peer(aet="X", addresses=("10.0.0.1", "2001:db8::/32")), "2001:db8::5", True),
        (Peer(aet="X", addresses=("2001:db8::/32",)), "10.0.0.1", False),
        (Peer(aet="X", addresses=("fe80::/10",)), "fe80::1%eth0", True),
        (Peer(aet="X", addresses=("10.0.0.1",)), "not an address", False),
    ],
)
def test_addresses(peer: Peer, address: str, admitted: bool) -> None:
    assert known(peer).admit("X", "PACSCORE", address).admitted is admitted


def test_following_the_hint_admits_the_caller(tmp_path: Path) -> None:
    settings = load(
        environ={"PACS_CORE_SERVER__HOST": "0.0.0.0", "PACS_CORE_ARCHIVE__PATH": str(tmp_path)}
    ).settings
    book = PeerBook(settings, interval=0.0)
    file = PeerFile(tmp_path)
    for address in ("192.0.2.77", "192.0.2.78"):  # not known at all, then known with another address
        decision = book.current().admit("MR 1", "PACSCORE", address)
        words = shlex.split(decision.hint.partition(", or")[0])
        assert words[:5] == ["pacs-core", "peers", "add", "--archive", str(tmp_path)]
        rest = words[6:]
        if "--from" in rest:
            file.add(words[5], **{"from": [w for w in rest if w != "--from"]})
        else:
            file.add(words[5], host=rest[0])
        assert book.current().admit("MR 1", "PACSCORE", address).admitted
    assert book.current().admit("MR 1", "PACSCORE", "192.0.2.77").admitted


def test_a_hint_is_safe_to_print_and_to_paste() -> None:
    hint = known().admit("$(reboot)\x1b[2J\n", "PACSCORE", "192.0.2.1").hint
    assert hint.isprintable()
    assert shlex.split(hint)[3] == "$(reboot)\\x1b[2J\\x0a"


def test_the_file_keeps_what_people_wrote(tmp_path: Path) -> None:
    file = PeerFile(tmp_path / "archive")
    file.path.parent.mkdir()
    file.path.write_text('# our scanners\n[[peer]]\naet = "CT1" # the old one\nhost = "192.0.2.10"\n')
    assert file.add("CT1", port=104) == Peer(aet="CT1", host="192.0.2.10", port=104)
    file.add("MR1", host="192.0.2.11", may=["store"])
    text = file.path.read_text()
    assert "# our scanners" in text
    assert "# the old one" in text
    assert [peer.aet for peer in file.read()] == ["CT1", "MR1"]
    file.remove("CT1")
    assert [peer.aet for peer in file.read()] == ["MR1"]
    with pytest.raises(NotFoundError, match="no peer CT1"):
        file.remove("CT1")
    assert [path.name for path in file.path.parent.iterdir()] == ["peers.toml"]


def test_a_wrong_edit_changes_nothing(tmp_path: Path) -> None:
    file = PeerFile(tmp_path)
    file.add("CT1", host="192.0.2.10")
    before = file.path.read_bytes()
    for aet, changes in [
        ("CT1", {"port": 0}),
        ("TOO_LONG_A_TITLE_", {}),
        ("A\\B", {}),
        ("X", {"from": ["y"]}),
    ]:
        with pytest.raises(ConfigError):
            file.add(aet, **changes)
    assert file.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["peers.toml"]


def test_a_file_that_is_wrong_is_not_edited(tmp_path: Path) -> None:
    file = PeerFile(tmp_path)
    file.path.write_text("[server]\nport = 3\n")
    with pytest.raises(ConfigError, match=r"only \[\[peer\]\] belongs here .*line 1"):
        file.add("CT1")


def _add_ten(folder: str, start: int) -> None:
    for number in range(start, start + 10):
        PeerFile(folder).add(f"AE{number}")


def test_editors_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    editors = [context.Process(target=_add_ten, args=(str(tmp_path), start)) for start in (0, 10)]
    for editor in editors:
        editor.start()
    for editor in editors:
        editor.join(60)
    assert {peer.aet for peer in PeerFile(tmp_path).read()} == {f"AE{n}" for n in range(20)}


def test_a_running_book_follows_the_file(tmp_path: Path) -> None:
    settings = load(environ={"PACS_CORE_ARCHIVE__PATH": str(tmp_path)}).settings
    book = PeerBook(settings, interval=0.0)
    assert len(book.current()) == 0
    file = PeerFile(tmp_path)
    file.add("CT1")
    held = book.current()
    assert held.get("CT1") is not None
    file.path.write_text("not toml")
    os.utime(file.path, ns=(1, 1))
    assert book.current() is held
    assert book.problem is not None
    assert "not TOML" in book.problem
    file.path.unlink()
    assert len(book.current()) == 0
    assert book.problem is None


def test_the_file_is_looked_at_once_an_interval(tmp_path: Path) -> None:
    settings = load(environ={"PACS_CORE_ARCHIVE__PATH": str(tmp_path)}).settings
    book = PeerBook(settings, interval=3600.0)
    PeerFile(tmp_path).add("CT1")
    assert len(book.current()) == 0


def test_the_file_counts_over_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(
        '[archive]\npath = "."\n[[peer]]\naet = "CT1"\nport = 1\n[[peer]]\naet = "MR1"\nport = 2\n'
    )
    PeerFile(tmp_path).add("CT1", port=3)
    peers = PeerBook(load(config, environ={}).settings).current()
    assert {peer.aet: peer.port for peer in peers} == {"CT1": 3, "MR1": 2}
