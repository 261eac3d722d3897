"""Segments that are torn, cut, rotten or forged: nothing is misread, and what is whole is found."""

import random

import pytest

from pacs_core.errors import CorruptError
from pacs_core.store import Kept, Locator, State, Store, crc32c
from pacs_core.store.segments import (
    DEAD,
    HEAD_SIZE,
    HEADER_SIZE,
    LIVE,
    decode_header,
    encode_header,
    segment_sequence,
)

META = bytes(128) + b"DICM" + bytes(12)
SIZES = (0, 1, 700, 60, 3000)


def data(size, seed=0):
    return random.Random(seed).randbytes(size)


@pytest.fixture
def kept(tmp_path):
    """What a store of five frames tells of them."""
    with Store.open(tmp_path) as store:
        store.publish([store.stage(META, data(size), b"\x01%d" % size, size + 1) for size in SIZES])
        return list(store.walk(check=True))


@pytest.fixture
def segment(kept, tmp_path):  # noqa: ARG001 - the store is written by it
    (path,) = tmp_path.rglob("*.seg")
    return path


def walk(path, check=True):
    with Store.open(path) as store:
        return list(store.walk(check=check))


def frame_start(each):
    return each.locator.offset - HEADER_SIZE


def test_a_header_proves_itself_and_its_place():
    header = encode_header(3, 4, 64, 99, (10, 2), (7, 8))
    frame = decode_header(header, 3, 4, 64)
    assert (frame.stamp, frame.part10_length, frame.fields_length, frame.size, frame.dead) == (
        99,
        10,
        2,
        64,
        False,
    )
    assert frame.locator == Locator.in_segment(3, 4, 64 + HEADER_SIZE, 10)
    assert decode_header(DEAD + header[4:], 3, 4, 64).dead
    for place in ((2, 4, 64), (3, 5, 64), (3, 4, 72)):
        assert decode_header(header, *place) is None
    for length in range(HEADER_SIZE):
        assert decode_header(header[:length], 3, 4, 64) is None
    for bit in range(HEADER_SIZE * 8):
        rotten = bytearray(header)
        rotten[bit // 8] ^= 1 << bit % 8
        assert decode_header(rotten, 3, 4, 64) is None


def test_frames_lie_as_documented(kept, segment):
    raw = segment.read_bytes()
    position = HEAD_SIZE
    for size, each in zip(SIZES, kept, strict=True):
        assert frame_start(each) == position
        assert raw[position : position + 4] == LIVE
        fields = b"\x01%d" % size
        assert raw[each.locator.offset :][: each.locator.length] == META + data(size)
        assert raw[each.locator.offset + each.locator.length :].startswith(fields)
        position = -(-(each.locator.offset + each.locator.length + len(fields)) // 8) * 8
    assert position == len(raw)


def test_cut_at_every_length(kept, segment, tmp_path):
    raw = segment.read_bytes()
    for length in [*range(0, 1100), *range(1100, len(raw), 97)]:
        segment.write_bytes(raw[:length])
        found = walk(tmp_path)
        whole = [
            each for each in kept if each.locator.offset + each.locator.length + len(each.fields) <= length
        ]
        assert [each for each in found if each.state is State.CHECKED] == whole
        assert len(found) <= len(whole) + 1
        for each in found[len(whole) :]:
            assert (each.state, each.fields) == (State.DAMAGED, None)


def test_zeros_from_every_page_on(kept, segment, tmp_path):
    """What a power cut leaves of space prepared ahead."""
    raw = segment.read_bytes()
    for start in range(0, len(raw), 64):
        segment.write_bytes(raw[:start].ljust(len(raw) + 5000, b"\0"))
        whole = [each for each in walk(tmp_path) if each.state is State.CHECKED]
        assert whole == kept[: len(whole)]
        assert all(frame_start(each) < start for each in whole)


def test_a_flipped_bit_costs_one_frame(kept, segment, tmp_path):
    raw = segment.read_bytes()
    dice = random.Random(8)
    for _ in range(300):
        at = dice.randrange(HEAD_SIZE, len(raw))
        rotten = bytearray(raw)
        rotten[at] ^= 1 << dice.randrange(8)
        segment.write_bytes(rotten)
        found = walk(tmp_path)
        hit = [each for each in kept if frame_start(each) <= at][-1]
        whole = [each for each in found if each.state is State.CHECKED]
        assert whole in ([each for each in kept if each != hit], kept)  # padding counts for nothing
        assert len([each for each in found if each.state is State.DAMAGED]) <= 1


def test_a_rotten_body_shows_only_in_a_check(kept, segment, tmp_path):
    rotten = bytearray(segment.read_bytes())
    rotten[kept[2].locator.offset + 200] ^= 1
    segment.write_bytes(rotten)
    assert [each.state for each in walk(tmp_path, check=False)] == [State.LISTED] * 5
    assert [each.state for each in walk(tmp_path)] == [State.CHECKED] * 2 + [State.DAMAGED] + [
        State.CHECKED
    ] * 2


def test_what_a_lost_header_hid_is_told(kept, segment, tmp_path):
    rotten = bytearray(segment.read_bytes())
    start = frame_start(kept[1])
    rotten[start : start + HEADER_SIZE] = bytes(HEADER_SIZE)
    segment.write_bytes(rotten)
    gap = Locator.in_segment(1, 0, start, frame_start(kept[2]) - start)
    assert walk(tmp_path) == [kept[0], Kept(gap, None, None, State.DAMAGED), *kept[2:]]
    with Store.open(tmp_path) as store, pytest.raises(CorruptError):
        store.read(gap)
    with Store.open(tmp_path) as store:
        assert store.remove([gap]) == []
    assert len(walk(tmp_path)) == 5


def test_a_header_behind_many_zeros_is_found(segment, tmp_path):
    """Over the edges of what is read at a time."""
    for gap in ((1 << 20) - 64 - 8, (1 << 20) - 64 - 40, (2 << 20) + 8 - 64):
        offset = HEAD_SIZE + gap
        body = data(100)
        header = encode_header(1, 0, offset, 5, (100, 0), (crc32c(body), 0))
        segment.write_bytes(segment.read_bytes()[:HEAD_SIZE] + bytes(gap) + header + body)
        assert [each.state for each in walk(tmp_path)] == [State.DAMAGED, State.CHECKED]


def test_frames_of_another_segment_are_not_ours(segment, tmp_path):
    segment.rename(segment.with_name("seg-00000001.seg"))
    assert walk(tmp_path) == []


def test_lengths_that_lie(segment, tmp_path):
    raw = segment.read_bytes()[:HEAD_SIZE]
    header = encode_header(1, 0, HEAD_SIZE, 5, (0xFFFFFFFF, 0xFFFFFFFF), (0, 0))
    segment.write_bytes(raw + header + bytes(500))
    (found,) = walk(tmp_path)
    assert found.state is State.DAMAGED
    with Store.open(tmp_path) as store, pytest.raises(CorruptError, match="ends inside"):
        store.read(found.locator)


def test_a_damaged_head_hides_nothing(kept, segment, tmp_path):
    segment.write_bytes(bytes(HEAD_SIZE) + segment.read_bytes()[HEAD_SIZE:])
    assert walk(tmp_path) == kept


def test_a_newer_version_is_refused(segment, tmp_path):
    raw = bytearray(segment.read_bytes())
    raw[4] = 2
    raw[16:20] = crc32c(raw[:16]).to_bytes(4, "little")
    segment.write_bytes(raw)
    with pytest.raises(CorruptError, match="version 2"):
        walk(tmp_path)


def test_names_of_segments():
    assert segment_sequence("seg-0000001f.seg") == 31
    for name in ("seg-0000001.seg", "seg-0000001g.seg", "seg-0000001f.sog", "lock"):
        assert segment_sequence(name) is None
