"""Writers: numbers, locks, death and recovery, forks; several threads and processes at once."""

import os
import random
import threading

import pytest

from pacs_core.errors import ArchiveError, ConfigError
from pacs_core.store import Reason, Store, Tombstone

META = bytes(128) + b"DICM" + bytes(60)
SMALL = 4096


def data(size, seed=0):
    return random.Random(seed).randbytes(size)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path, small=SMALL, segment_size=16 << 10) as opened:
        yield opened


def publish(store, *datasets):
    return store.publish([store.stage(META, each, b"\x01", store.next_stamp()) for each in datasets]).outcomes


class TestWriters:
    def test_numbers_never_recur(self, tmp_path):
        for number in range(1, 4):
            with Store.open(tmp_path) as store:
                assert publish(store, data(10))[0].writer == number

    def test_who_is_dead(self, tmp_path):
        living, clean, dead = (Store.open(tmp_path) for _ in range(3))
        for store in (living, clean, dead):
            publish(store, data(10))
        assert living.dead_writers() == []
        clean.close()
        dead.close(clean=False)
        assert living.dead_writers() == [3]
        with pytest.raises(ArchiveError, match="alive"), living.recovering(1):
            pass
        with living.recovering(3), pytest.raises(ArchiveError, match="alive"), living.recovering(3):
            pass
        assert living.dead_writers() == []
        living.close()

    def test_a_recovery_that_fails_is_done_again(self, tmp_path):
        store = Store.open(tmp_path)
        publish(store, data(10))
        store.close(clean=False)
        with Store.open(tmp_path) as other:
            with pytest.raises(KeyError), other.recovering(1):
                raise KeyError
            assert other.dead_writers() == [1]

    def test_many_processes_register_and_keep_at_once(self, tmp_path):
        children = []
        for me in range(6):
            child = os.fork()
            if child == 0:
                try:
                    with Store.open(tmp_path, small=SMALL) as mine:
                        for turn in range(5):
                            publish(mine, data(100, me), data(5000, turn))
                    os._exit(0)
                finally:
                    os._exit(1)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
        with Store.open(tmp_path) as store:
            assert store.writers() == [1, 2, 3, 4, 5, 6]
            assert store.dead_writers() == []
            assert len(list(store.walk(check=True))) == 60

    def test_a_writer_that_died_while_it_registered(self, tmp_path):
        (tmp_path / "objects" / "w00000005").mkdir(parents=True)
        with Store.open(tmp_path) as store:
            assert store.dead_writers() == [5]
            with store.recovering(5):
                pass
            assert store.dead_writers() == []
            assert publish(store, data(10))[0].writer == 6

    def test_a_forked_child_must_open_its_own(self, store):
        publish(store, data(10))
        child = os.fork()
        if child == 0:
            try:
                store.stage(META, data(9000), b"", 1)
            except ArchiveError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

    def test_a_closed_store_keeps_nothing(self, tmp_path):
        store = Store.open(tmp_path)
        staged = store.stage(META, data(10), b"", 1)
        store.close()
        store.close()
        for act in (store.next_stamp, lambda: store.publish([staged]), lambda: store.tombstone([])):
            with pytest.raises(ArchiveError, match="closed"):
                act()

    def test_small_has_bounds(self, tmp_path):
        for small in (-1, 17 << 20):
            with pytest.raises(ConfigError, match="small"):
                Store.open(tmp_path, small=small)


def test_many_threads_stage_read_and_remove_while_one_publishes(tmp_path):
    store = Store.open(tmp_path, small=SMALL, segment_size=64 << 10)
    leading = threading.Lock()
    waiting = []
    errors = []
    kept = {}

    def work(me):
        try:
            for turn in range(40):
                content = data(100 + me if turn % 2 else 6000 + me, turn)
                box = []
                waiting.append((store.stage(META, content, b"", store.next_stamp()), box))
                with leading:
                    batch, waiting[:] = waiting[:], []
                    if batch:
                        for (_, told), outcome in zip(
                            batch, store.publish([item for item, _ in batch]).outcomes, strict=True
                        ):
                            told.append(outcome)
                assert store.read(box[0]) == META + content
                if turn % 4 == 0:
                    store.tombstone([Tombstone(box[0], None, Reason.DELETED, "1", turn)])
                    assert store.remove(box) == []
                else:
                    kept[box[0]] = META + content
        except BaseException as exc:  # noqa: BLE001 - told by the main thread
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {each.locator: store.read(each.locator) for each in store.walk(check=True)} == kept
    store.close()
