"""CRC-32C against its published vectors, against a bitwise oracle, and the two ways against each other."""

import random
import threading

import pytest

from pacs_core._ext.checksum import crc32c, crc32c_portable


def bitwise(data: bytes, value: int = 0) -> int:
    crc = value ^ 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


WAYS = [crc32c, crc32c_portable]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720 B.4
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_vectors(way, data, expected):
    assert way(data) == expected


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "size", [1, 7, 8, 9, 255, 767, 768, 769, 1535, 1536, 12287, 12288, 12289, 13824, 24601]
)
def test_sizes_around_the_lanes(way, size):
    data = random.Random(size).randbytes(size)
    assert way(data) == bitwise(data)


@pytest.mark.parametrize("way", WAYS)
def test_goes_on_from_any_cut(way):
    data = random.Random(5).randbytes(30000)
    whole = way(data)
    for cut in (0, 1, 8, 767, 12288, 12289, 29999, 30000):
        assert way(data[cut:], way(data[:cut])) == whole


def test_unaligned_starts():
    data = random.Random(6).randbytes(13000)
    for start in range(9):
        assert crc32c(memoryview(data)[start:]) == crc32c_portable(data[start:])


def test_takes_any_contiguous_buffer_and_nothing_else():
    assert crc32c(bytearray(b"123456789")) == crc32c(memoryview(b"123456789")) == 0xE3069283
    with pytest.raises(BufferError):
        crc32c(memoryview(b"123456789")[::2])
    with pytest.raises(TypeError):
        crc32c("123456789")


def test_large_buffers_from_several_threads():
    data = random.Random(7).randbytes(1 << 20)
    expected = crc32c_portable(data)
    found = []
    threads = [threading.Thread(target=lambda: found.append(crc32c(data))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
