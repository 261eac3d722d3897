"""The store on a healthy disk: keeping, giving back, deciding, removing, taking stock."""

import errno
import mmap
import os
import random
from pathlib import Path

import pytest

from pacs_core.errors import CorruptError, NotFoundError
from pacs_core.store import Kept, Locator, Mark, Reason, State, Store, Syscalls, Tombstone, crc32c
from pacs_core.store.segments import Tally

META = bytes(128) + b"DICM" + bytes(60)
SMALL = 4096


def data(size, seed=0):
    return random.Random(seed).randbytes(size)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path, small=SMALL, segment_size=16 << 10) as opened:
        yield opened


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def publish(store, *datasets, fields=b"\x01"):
    batch = [store.stage(META, each, fields, store.next_stamp()) for each in datasets]
    return store.publish(batch).outcomes


def test_a_locator_packs_to_24_bytes_and_back():
    for locator in (Locator.of_file(7, 9, 100), Locator.in_segment(0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, 3)):
        assert len(locator.pack()) == 24
        assert Locator.unpack(locator.pack()) == locator
    file, frame = Locator.of_file(7, 9, 100), Locator.in_segment(7, 9, 50, 100)
    assert (file.writer, file.sequence, file.is_segment) == (7, 9, False)
    assert (frame.writer, frame.sequence, frame.is_segment) == (7, 9, True)
    assert frame.pack()[:8] == bytes((9, 0, 0, 0, 7, 0, 0, 0x80))


@pytest.mark.parametrize("size", [0, 1, 2, SMALL - len(META) - 1, SMALL - len(META), 5000, 1 << 20, 3 << 20])
def test_what_is_kept_is_given_back(store, size):
    (locator,) = publish(store, data(size))
    assert locator.is_segment == (size + len(META) < SMALL)
    assert locator.length == size + len(META)
    found = store.read(locator)
    assert bytes(found) == META + data(size)
    assert isinstance(found, mmap.mmap) == (size >= 1 << 20)
    with store.open_instance(locator) as opened:
        assert os.pread(opened.fd, opened.length, opened.offset) == META + data(size)
        assert opened.is_current()


def test_opening_and_looking_leaves_no_trace(tmp_path):
    with Store.open(tmp_path) as store:
        assert list(store.walk()) == store.writers() == store.dead_writers() == store.tombstones() == []
        assert store.sweep() == 0
    assert list(tmp_path.iterdir()) == []


def test_names_are_numbers(store, tmp_path):
    publish(store, data(5000), data(10))
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert names == [
        "objects/register.lock",
        "objects/w00000001/00/000/00000000.dcm",
        "objects/w00000001/lock",
        "objects/w00000001/seg-00000000.seg",
    ]


def test_any_buffer_is_kept_as_it_is(store):
    numbers = memoryview(bytearray(range(200))).cast("I")
    for each in (numbers, bytearray(b"abc"), memoryview(b"abcdef")[1:3], memoryview(data(8000)).cast("Q")):
        (locator,) = publish(store, each)
        assert store.read(locator) == META + bytes(memoryview(each).cast("B"))


def test_stamps_rise_whatever_the_clock_does(store, monkeypatch):
    first = store.next_stamp()
    assert first & 0xFFF == 1
    monkeypatch.setattr("time.time_ns", lambda: 5_000_000)
    assert store.next_stamp() == first + 4096
    monkeypatch.setattr("time.time_ns", lambda: 4_000_000_000_000_000_000)
    assert store.next_stamp() == 4_000_000_000_000_000 << 12 | 1


def test_outcomes_are_in_the_order_of_the_batch(store):
    sizes = (5000, 10, 6000, 20, 30, 7000)
    outcomes = publish(store, *map(data, sizes))
    assert [outcome.length - len(META) for outcome in outcomes] == list(sizes)


def test_an_item_is_published_once(store):
    for size in (10, 5000):
        staged = store.stage(META, data(size), b"", 1)
        with pytest.raises(ValueError, match="before"):
            store.publish([staged, staged])
        store.publish([staged])
        with pytest.raises(ValueError, match="before"):
            store.publish([staged])
        discarded = store.stage(META, data(size), b"", 1)
        store.discard(discarded)
        store.discard(discarded)
        with pytest.raises(ValueError, match="before"):
            store.publish([discarded])
    assert len(list(store.walk())) == 2


def test_what_is_discarded_leaves_no_file(store, tmp_path):
    store.next_stamp()
    before = sorted(tmp_path.rglob("*"))
    descriptors = open_descriptors()
    store.discard(store.stage(META, data(9000), b"", 1))
    stream = store.stream(len(META))
    stream.write(data(9000))
    stream.discard()
    store.stage(META, data(9000), b"", 1)  # dropped
    assert sorted(tmp_path.rglob("*")) == before
    assert open_descriptors() == descriptors


class NoTmpfile(Syscalls):
    def open_tmpfile(self, folder):  # noqa: ARG002 - the signature of the step
        raise OSError(errno.EOPNOTSUPP, "not here")


def test_without_o_tmpfile(tmp_path):
    with Store.open(tmp_path, small=SMALL, syscalls=NoTmpfile()) as store:
        (locator,) = publish(store, data(9000))
        store.discard(store.stage(META, data(9000), b"", 1))
        assert store.read(locator) == META + data(9000)
        assert not list(tmp_path.rglob("t-*"))


class TestStream:
    def test_chunks_become_one_file(self, store):
        stream = store.stream(len(META))
        whole = data(100_000)
        for start in range(0, len(whole), 7777):
            stream.write(whole[start : start + 7777])
        assert (stream.length, stream.checksum) == (len(whole), crc32c(whole))
        (locator,) = store.publish([stream.finish(META)]).outcomes
        assert store.read(locator) == META + whole

    @pytest.mark.parametrize(
        "ranges",
        [
            [],
            [(0, 10)],
            [(5, 5)],
            [(10, 20), (20, 30)],
            [(0, 3), (1 << 20, (1 << 20) + 8)],
            [(2_999_990, 3_000_000)],
            [(0, 3_000_000)],
        ],
    )
    def test_stray_bytes_are_taken_out(self, store, ranges):
        whole = data(3_000_000)
        stream = store.stream(len(META))
        stream.write(whole)
        stream.strip(ranges)
        rest = bytearray(whole)
        for start, end in reversed(ranges):
            del rest[start:end]
        assert (stream.length, stream.checksum) == (len(rest), crc32c(rest))
        (locator,) = store.publish([stream.finish(META)]).outcomes
        assert bytes(store.read(locator)) == META + rest

    @pytest.mark.parametrize("ranges", [[(5, 3)], [(0, 11)], [(4, 6), (5, 7)], [(-1, 2)]])
    def test_ranges_that_can_not_be(self, store, ranges):
        stream = store.stream(len(META))
        stream.write(bytes(10))
        with pytest.raises(ValueError, match="range"):
            stream.strip(ranges)

    def test_the_head_has_the_size_that_was_reserved(self, store):
        stream = store.stream(10)
        with pytest.raises(ValueError, match="10 bytes"):
            stream.finish(META)
        stream.finish(bytes(10))
        with pytest.raises(ValueError, match="finished"):
            stream.write(b"x")


class TestReading:
    def test_what_is_not_there(self, store):
        publish(store, data(10), data(5000))
        for locator in (
            Locator.of_file(1, 5, 10),
            Locator.of_file(9, 0, 10),
            Locator.in_segment(1, 7, 112, 10),
        ):
            with pytest.raises(NotFoundError):
                store.read(locator)

    def test_what_is_not_as_located(self, store):
        frame, file = publish(store, data(10), data(5000))
        for wrong in (
            file._replace(length=file.length - 1),
            file._replace(offset=1),
            frame._replace(length=frame.length + 1),
            frame._replace(offset=frame.offset + 8),
            frame._replace(offset=3),
            frame._replace(offset=1 << 40),
        ):
            with pytest.raises(CorruptError):
                store.read(wrong)

    def test_more_segments_than_descriptors(self, tmp_path):
        with Store.open(tmp_path, segment_size=1) as store:
            locators = [publish(store, data(10, seed))[0] for seed in range(70)]
            held = [store.open_instance(locator) for locator in locators]
            for turn in range(2):
                for seed, locator in enumerate(locators):
                    assert store.read(locator) == META + data(10, seed)
                if not turn:
                    for seed, opened in enumerate(held):
                        assert os.pread(opened.fd, 10, opened.offset + len(META)) == data(10, seed)
                        opened.close()
            assert open_descriptors() < 120


class TestRemoval:
    def test_bytes_go_and_the_rest_stays(self, store, tmp_path):
        locators = publish(store, data(10), data(5000), data(20), data(6000))
        assert store.remove(locators[:2]) == []
        assert store.remove(locators[:2]) == []
        for locator in locators[:2]:
            with pytest.raises(NotFoundError):
                store.read(locator)
        assert {kept.locator for kept in store.walk(check=True)} == set(locators[2:])
        assert len(list(tmp_path.rglob("*.dcm"))) == 1

    def test_pages_of_frames_are_given_back(self, tmp_path):
        with Store.open(tmp_path) as store:
            publish(store, data(10))
            locators = publish(store, *(data(60_000, seed) for seed in range(10)))
            segment = next(tmp_path.rglob("*.seg"))
            before = segment.stat().st_blocks
            store.remove(locators[:9])
            assert segment.stat().st_blocks < before - 9 * 100
            assert store.read(locators[9]) == META + data(60_000, 9)
            assert len(list(store.walk(check=True))) == 2

    def test_a_reader_sees_that_a_frame_went(self, store):
        (locator,) = publish(store, data(3000))
        with store.open_instance(locator) as opened:
            assert opened.is_current()
            store.remove([locator])
            assert not opened.is_current()

    def test_a_lease_keeps_bytes_until_the_sweep(self, store, tmp_path):
        locators = publish(store, data(10), data(5000))
        with Store.open(tmp_path) as other, other.hold(), store.hold():
            store.tombstone([Tombstone(each, None, Reason.DELETED, "1.2", 1) for each in locators])
            assert store.remove(locators) == locators
            assert store.sweep() == 0
            assert [bytes(other.read(each))[len(META) :] for each in locators] == [data(10), data(5000)]
        assert list(store.walk()) == []
        assert store.sweep() == 2
        assert store.sweep() == 0
        with pytest.raises(NotFoundError):
            store.read(locators[1])

    def test_the_sweep_drops_dead_segments_but_not_the_open_one(self, store, tmp_path):
        full = [
            publish(store, data(3000, seed))[0] for seed in range(6)
        ]  # over 16 KiB: the next opens a segment
        last = publish(store, data(10))
        assert last[0].sequence == 1
        store.tombstone([Tombstone(each, None, Reason.DELETED, "1.2", 1) for each in full[:5] + last])
        store.remove(full[:5] + last)
        store.sweep()
        assert len(list(tmp_path.rglob("*.seg"))) == 2
        store.tombstone([Tombstone(full[5], None, Reason.DELETED, "1.2", 1)])
        assert store.sweep() == 2
        assert [path.name for path in tmp_path.rglob("*.seg")] == ["seg-00000001.seg"]
        store.close()
        with Store.open(tmp_path) as other:
            assert other.sweep() == 1
            assert not list(tmp_path.rglob("*.seg"))

    def test_a_segment_goes_with_the_last_that_lived_in_it(self, store, tmp_path):
        locators = [publish(store, data(3000, seed))[0] for seed in range(7)]
        assert [each.sequence for each in locators] == [0] * 6 + [1]
        assert store.dead_bytes() == 0
        with Store.open(tmp_path) as other:
            assert bytes(other.read(locators[0])) == META + data(3000, 0)  # it keeps the segment open
            store.remove(locators[1:6])
            assert len(list(tmp_path.rglob("*.seg"))) == 2
            assert 5 * 3000 < store.dead_bytes() < 6 * 3200
            with other.open_instance(locators[0]) as opened:
                assert store.remove(locators[:1]) == []
                assert os.fstat(opened.fd).st_blocks == 0
                assert not opened.is_current()
            assert [path.name for path in tmp_path.rglob("*.seg")] == ["seg-00000001.seg"]
            assert store.dead_bytes() == 0
            for reader in (store, other):
                with pytest.raises(NotFoundError):
                    reader.read(locators[0])

    def test_a_tally_that_is_ahead_removes_nothing_that_lives(self, store, tmp_path):
        """After a power cut it may be on disk when the marks of the frames are not."""
        locators = [publish(store, data(3000, seed))[0] for seed in range(7)]
        segment = next(tmp_path.rglob("seg-00000000.seg"))
        with segment.open("r+b") as file:
            Tally(segment.stat().st_size, 0).write(Syscalls(), file.fileno())
        store.remove(locators[:5])
        assert bytes(store.read(locators[5])) == META + data(3000, 5)
        store.remove(locators[5:6])
        assert not segment.exists()

    @pytest.mark.parametrize("punches", [True, False], ids=["punched", "written over"])
    def test_nothing_of_what_was_removed_can_be_read_from_the_disk(self, tmp_path, punches):
        class Unable(Syscalls):
            def punch_hole(self, *_):
                raise OSError(errno.EOPNOTSUPP, "no holes here")

        with Store.open(tmp_path, syscalls=None if punches else Unable()) as store:
            secret, other = b"Doe^Jane" * 200, b"Roe^John" * 200
            batch = [store.stage(META, text, text[:8], 1) for text in (secret, other)]
            (gone, stays) = store.publish(batch).outcomes
            store.remove([gone])
            on_disk = b"".join(path.read_bytes() for path in (tmp_path / "objects").rglob("*.seg"))
            assert b"Doe" not in on_disk
            assert on_disk.count(b"Roe^John") == 201
            assert [kept.locator for kept in store.walk(check=True)] == [stays]

    def test_dead_bytes_are_those_that_could_not_be_given_back(self, tmp_path):
        with Store.open(tmp_path) as store:
            tiny, large, _ = publish(store, data(2000), data(60_000), data(10))
            store.remove([tiny])
            assert 2000 < store.dead_bytes() < 2400
            store.remove([large])
            assert 2000 < store.dead_bytes() < 2400 + 2 * 4096


class TestDecisions:
    def test_they_are_seen_by_every_process_at_once(self, store, tmp_path):
        first, second = publish(store, data(10), data(5000))
        told = [
            Tombstone(first, second, Reason.SUPERSEDED, "1.2.3", 77),
            Tombstone(second, None, Reason.DUPLICATE, "1.2.4\udcff", 78),
        ]
        with Store.open(tmp_path) as other:
            assert other.tombstones() == []
            for number, entry in enumerate(told):
                store.tombstone([entry])
                assert other.tombstone_of(entry.locator) == entry
                assert other.tombstones() == told[: number + 1]

    def test_the_walk_honours_them(self, store):
        first, second = publish(store, data(10), data(5000))
        entry = Tombstone(first, second, Reason.SUPERSEDED, "1.2.3", 77)
        store.tombstone([entry])
        assert [kept.locator for kept in store.walk()] == [second]
        assert {kept.locator: kept.tombstone for kept in store.walk(dead=True)} == {
            first: entry,
            second: None,
        }

    def test_they_can_be_taken_back_by_another_writer(self, store, tmp_path):
        (locator,) = publish(store, data(10))
        entry = Tombstone(locator, None, Reason.DELETED, "1.2", 5)
        store.tombstone([entry])
        with Store.open(tmp_path) as other:
            other.retract([entry])
        assert store.tombstones() == []
        store.tombstone([entry._replace(time=6)])
        assert store.tombstone_of(locator).time == 6
        with Store.open(tmp_path) as fresh:
            assert fresh.tombstone_of(locator).time == 6

    def test_damage_to_a_log_hides_one_entry_not_those_behind(self, store, tmp_path):
        locators = publish(store, *(data(10, seed) for seed in range(3)))
        for each in locators:
            store.tombstone([Tombstone(each, None, Reason.DELETED, "1.2", 5)])
        (log,) = (tmp_path / "journal").iterdir()
        raw = bytearray(log.read_bytes())
        raw[16 + 71 + 20] ^= 1
        log.write_bytes(raw)
        with Store.open(tmp_path) as other:
            assert [entry.locator for entry in other.tombstones()] == [locators[0], locators[2]]

    def test_a_uid_as_long_as_can_be(self, store):
        (locator,) = publish(store, data(10))
        with pytest.raises(ValueError, match="UID"):
            store.tombstone([Tombstone(locator, None, Reason.DELETED, "1" * 65536, 5)])
        entry = Tombstone(locator, None, Reason.DELETED, "../\0" * 16000, 5)
        store.tombstone([entry])
        assert store.tombstones() == [entry]


class TestTakingStock:
    def test_the_walk_tells_what_frames_carry(self, store):
        stamps = [store.next_stamp() for _ in range(3)]
        batch = [
            store.stage(META, data(size), b"\x01%d" % size, stamp)
            for size, stamp in zip((10, 5000, 20), stamps, strict=True)
        ]
        locators = store.publish(batch).outcomes
        assert list(store.walk()) == [
            Kept(locators[1], None, None, State.LISTED),
            Kept(locators[0], stamps[0], b"\x0110", State.LISTED),
            Kept(locators[2], stamps[2], b"\x0120", State.LISTED),
        ]
        assert [kept.state for kept in store.walk(check=True)] == [State.LISTED, State.CHECKED, State.CHECKED]

    def test_a_mark_hides_what_came_before(self, store):
        seen = {}
        for turn in range(8):
            mark = store.mark()
            first = publish(store, data(3000, turn), data(5000, turn))
            published = store.publish([store.stage(META, data(10, turn), b"", 1)])
            assert published.mark == store.mark()
            seen[mark] = {*first, *published.outcomes}
        marks = list(seen)
        assert marks[0] == Mark(1, 0, 0, 0)
        for turn, mark in enumerate(marks):
            later = set().union(*(seen[other] for other in marks[turn:]))
            assert {kept.locator for kept in store.walk({1: mark})} == later
        assert list(store.walk({1: store.mark()})) == []

    def test_only_some_writers(self, store, tmp_path):
        publish(store, data(10))
        with Store.open(tmp_path) as other:
            (locator,) = publish(other, data(20))
            assert [kept.locator for kept in store.walk(writers=[2])] == [locator]
            assert store.writers() == [1, 2]
            assert {kept.locator.writer for kept in store.walk()} == {1, 2}

    def test_files_over_several_folders_come_in_order(self, store):
        publish(store, data(5000))
        store._own().files.next_sequence = 0xFFE
        publish(store, *[data(5000)] * 3)
        store._own().files.next_sequence = 0xFFFFFE
        publish(store, *[data(5000)] * 3)
        found = [kept.locator.sequence for kept in store.walk()]
        assert found == [0, 0xFFE, 0xFFF, 0x1000, 0xFFFFFE, 0xFFFFFF, 0x1000000]
        since = {1: Mark(1, 0x1000, 0, 0)}
        assert [kept.locator.sequence for kept in store.walk(since)] == found[3:]

    def test_stray_names_are_passed_over(self, store, tmp_path):
        (locator,) = publish(store, data(5000))
        folder = tmp_path / "objects" / "w00000001"
        for stray in (
            "objects/wxyz",
            "objects/w1",
            "objects/w00000001/seg-x.seg",
            "objects/w00000001/00/zzz",
        ):
            (tmp_path / stray).mkdir()
        (folder / "00" / "000" / "notes.dcm").write_bytes(b"")
        assert [kept.locator for kept in store.walk()] == [locator]
