"""System calls that fail: each fault is answered with the right error, loses nothing, and passes."""

import errno
import random

import pytest
from faults import Faulty, Short

from pacs_core.errors import OutOfResourcesError, PacsError, StorageError
from pacs_core.store import Locator, Mark, Reason, State, Store, Tombstone

META = bytes(128) + b"DICM" + bytes(60)


def data(size, seed=0):
    return random.Random(seed).randbytes(size)


LARGE = data(9000, 99)
LITTLE = data(500, 99)


def publish(store, *datasets):
    return store.publish([store.stage(META, each, b"\x01", store.next_stamp()) for each in datasets]).outcomes


def everything(store):
    return {bytes(store.read(kept.locator)) for kept in store.walk(check=True)}


def open_store(path, syscalls):
    return Store.open(path, small=4096, syscalls=syscalls)


def test_short_writes_are_gone_on_with(tmp_path):
    with open_store(tmp_path, Short()) as store:
        outcomes = publish(store, LARGE, LITTLE, b"", data(700, 1))
        assert [bytes(store.read(each)) for each in outcomes] == [
            META + each for each in (LARGE, LITTLE, b"", data(700, 1))
        ]
        store.tombstone([Tombstone(outcomes[0], None, Reason.DELETED, "1.2", 3)])
        assert len(store.tombstones()) == 1


@pytest.mark.parametrize(
    ("number", "leaf"),
    [(errno.ENOSPC, OutOfResourcesError), (errno.EDQUOT, OutOfResourcesError), (errno.EIO, StorageError)],
)
@pytest.mark.parametrize("step", ["open_tmpfile", "pwritev", "fdatasync"])
def test_a_large_instance_fails_in_staging(tmp_path, step, number, leaf):
    syscalls = Faulty(step, number)
    with open_store(tmp_path, syscalls) as store:
        with pytest.raises(leaf):
            store.stage(META, LARGE, b"", 1)
        (locator,) = publish(store, LARGE)
        assert everything(store) == {META + LARGE}
        assert bytes(store.read(locator)) == META + LARGE


@pytest.mark.parametrize(
    "step", ["pwritev", "fdatasync", "create", "ftruncate", "fsync_dir", "mkdir", "link"]
)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("times", [1, 3])
def test_any_step_failing_at_any_time(tmp_path, step, number, at, times):
    """Whatever fails: what has a locator is there, what has none is not, and then all goes on."""
    syscalls = Faulty(step, number, at, times)
    kept = {}
    refused = set()
    store = open_store(tmp_path, syscalls)
    for round_ in range(6):
        pieces = [data(500, round_), data(9000, round_), data(600, round_)]
        try:
            staged = [store.stage(META, piece, b"\x01", 1) for piece in pieces]
            outcomes = store.publish(staged).outcomes
        except PacsError as exc:
            outcomes = [exc] * 3
        for piece, outcome in zip(pieces, outcomes, strict=True):
            if isinstance(outcome, Locator):
                kept[outcome] = META + piece
            else:
                assert isinstance(outcome, OutOfResourcesError if number == errno.ENOSPC else StorageError)
                refused.add(META + piece)
    syscalls.left = 0
    assert all(isinstance(outcome, Locator) for outcome in publish(store, LARGE, LITTLE))
    with Store.open(tmp_path) as other:
        assert {locator: bytes(other.read(locator)) for locator in kept} == kept
        assert everything(other) == {*kept.values(), META + LARGE, META + LITTLE}
        assert not everything(other) & refused
    store.close()


def test_one_failing_link_spoils_no_other(tmp_path):
    with open_store(tmp_path, Faulty("link", errno.EIO, at=1)) as store:
        first, second, third, little = publish(store, LARGE, data(9001), data(9002), LITTLE)
        assert isinstance(second, StorageError)
        assert "link" in str(second)
        assert "00000001.dcm" in str(second)
        assert [bytes(store.read(each))[len(META) :] for each in (first, third, little)] == [
            LARGE,
            data(9002),
            LITTLE,
        ]


def test_a_segment_whose_sync_failed_is_never_used_again(tmp_path):
    syscalls = Faulty("fdatasync", errno.EIO, at=2)  # the segment's head, the first frame, the second
    with open_store(tmp_path, syscalls) as store:
        (first,) = publish(store, LITTLE)
        (second,) = publish(store, data(501))
        assert isinstance(second, StorageError)
        condemned = len(syscalls.trace)
        (third,) = publish(store, data(502))
        assert (first.sequence, third.sequence) == (0, 1)
        after = syscalls.trace[condemned:]
        created = next(result for step, _, result in after if step == "create")
        assert {args[0] for step, args, _ in after if step == "fdatasync"} == {created}
        assert everything(store) == {META + LITTLE, META + data(502)}
        assert store.mark() == Mark(1, 0, 1, store.mark().offset)


def test_a_full_disk_does_not_use_up_segments(tmp_path):
    with open_store(tmp_path, Faulty("pwritev", errno.ENOSPC, at=2, times=50)) as store:
        (first,) = publish(store, LITTLE)
        for _ in range(50):
            assert isinstance(publish(store, LITTLE)[0], OutOfResourcesError)
        (second,) = publish(store, data(501))
        assert first.container == second.container
        assert len(everything(store)) == 2


def test_a_folder_whose_sync_failed_is_left(tmp_path):
    syscalls = Faulty("fsync_dir", errno.EIO, at=5)  # root, writer, objects; branch, writer; leaf
    with open_store(tmp_path, syscalls) as store:
        assert [type(each) for each in publish(store, LARGE, data(9001))] == [StorageError] * 2
        (after,) = publish(store, data(9002))
        assert after.sequence == 0x1000
        assert everything(store) == {META + data(9002)}


def test_a_failing_registration_registers_nothing(tmp_path):
    for at in range(3):
        syscalls = Faulty("fsync_dir", errno.EIO, at)
        with open_store(tmp_path / "a", syscalls) if at else open_store(tmp_path, syscalls) as store:
            (tmp_path / "a").mkdir(exist_ok=True)
            with pytest.raises(StorageError):
                store.next_stamp()
            assert publish(store, LITTLE)[0].length == len(META) + len(LITTLE)


@pytest.mark.parametrize("step", ["pwritev", "fdatasync", "create", "fsync_dir"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("at", range(3))
def test_a_tombstone_that_failed_never_stands(tmp_path, step, number, at):
    with open_store(tmp_path, None) as first:
        (locator,) = publish(first, LITTLE)
    syscalls = Faulty("none", 0)
    store = open_store(tmp_path, syscalls)
    store.next_stamp()
    syscalls.step, syscalls.number, syscalls.at, syscalls.left = step, number, at, 1
    stands = False
    for time in range(4):
        entry = Tombstone(locator, None, Reason.DELETED, "1.2", time)
        try:
            store.tombstone([entry])
        except PacsError:
            assert store.tombstone_of(locator) == (entry._replace(time=time - 1) if stands else None)
        else:
            stands = True
            assert store.tombstone_of(locator) == entry
    store.close()
    with Store.open(tmp_path) as other:
        assert other.tombstone_of(locator) == entry


def test_what_a_condemned_log_says_is_retracted(tmp_path):
    """The sync failed and so does the cut, yet the bytes reached the disk: the next log takes them back."""
    with open_store(tmp_path, None) as first:
        (locator,) = publish(first, LITTLE)
    syscalls = Faulty("fdatasync", errno.EIO)
    store = open_store(tmp_path, syscalls)
    syscalls.before = lambda step, _: (
        (_ for _ in ()).throw(OSError(errno.EIO, "")) if step in broken else None
    )
    broken = {"fdatasync", "ftruncate"}
    with pytest.raises(StorageError):
        store.tombstone([Tombstone(locator, None, Reason.DELETED, "1.2", 1)])
    broken = set()
    assert store.tombstone_of(locator) is not None  # what a reader of the disk would see
    store.close()
    with Store.open(tmp_path) as other:
        assert other.tombstones() == []
        assert [kept.state for kept in other.walk(check=True)] == [State.CHECKED]
        assert len(list((tmp_path / "journal").iterdir())) == 2


def test_a_hole_that_can_not_be_punched_removes_all_the_same(tmp_path):
    for number, left in ((errno.EOPNOTSUPP, 0), (errno.EIO, 1)):
        with open_store(tmp_path / str(number), Faulty("punch_hole", number)) as store:
            (tmp_path / str(number)).mkdir()
            (locator,) = Store.publish(store, [store.stage(META, data(3900), b"", 1)]).outcomes
            (other,) = publish(store, data(3900, 1))
            assert store.remove([locator, other]) == [other][:left]
            store.remove([other])
            assert everything(store) == set()


def test_files_that_will_not_go_are_told(tmp_path):
    with open_store(tmp_path, Faulty("unlink", errno.EIO)) as store:
        locators = publish(store, LARGE, data(9001))
        assert store.remove(locators) == locators[:1]
        assert store.remove(locators) == []
