"""Blocks that are encoded once: the right ones, and never more than there is room for."""

import tracemalloc

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota.blocks import BLOCK_OVERHEAD_BYTES, CACHE_BYTES_MAX, FILE_OVERHEAD_BYTES, BlockCache, FileKey
from ota.streams import ANSWER_BYTES_MAX, BLOCK_BYTES_MAX, Format, data_tail

IMAGE = memoryview(bytes((7 * i + 3) % 256 for i in range(10_000)))


def key(stream="fw-1", file=0, length=4096, format=Format.CBOR):
    return FileKey(stream, file, length, format)


@pytest.mark.parametrize("format", list(Format))
def test_a_block_is_encoded_once_however_many_ask_for_it(format):
    cache = BlockCache()
    first = cache.tails(key(format=format), IMAGE, range(3))
    again = cache.tails(key(format=format), IMAGE, [2, 0])
    assert again[0] is first[2]
    assert again[1] is first[0]
    assert first == [data_tail(0, i, IMAGE[4096 * i : 4096 * (i + 1)], format) for i in range(3)]


def test_the_blocks_of_the_specification_have_its_lengths():
    tails = BlockCache().tails(key(), IMAGE, range(3))
    assert [cbor2.loads(b"\xa4" + tail)["l"] for tail in tails] == [4096, 4096, 1808]


def test_files_streams_sizes_and_formats_are_kept_apart():
    cache, other = BlockCache(), memoryview(bytes(10_000))
    tails = {
        one: cache.tails(one, content, [1])[0]
        for one, content in (
            (key(), IMAGE),
            (key(file=1), other),
            (key(stream="fw-2"), other),
            (key(length=256), IMAGE),
            (key(format=Format.JSON), IMAGE),
        )
    }
    for one, tail in tails.items():
        assert cache.tails(one, memoryview(b""), [1]) == [tail]


def test_what_was_wanted_longest_ago_goes_first_a_file_at_a_time():
    size = len(data_tail(0, 0, IMAGE[:4096], Format.CBOR)) + BLOCK_OVERHEAD_BYTES
    cache = BlockCache(bytes_max=4 * size + 2 * FILE_OVERHEAD_BYTES)
    old = cache.tails(key("fw-1"), IMAGE, range(2))
    kept = cache.tails(key("fw-2"), IMAGE, range(2))
    cache.tails(key("fw-1"), IMAGE, [0])
    cache.tails(key("fw-2"), IMAGE, [0])
    cache.tails(key("fw-3"), IMAGE, [0])
    assert cache.tails(key("fw-2"), IMAGE, [1])[0] is kept[1]
    assert cache.tails(key("fw-1"), IMAGE, [1])[0] is not old[1]


def test_who_asks_for_odd_sizes_drives_out_its_own():
    cache = BlockCache(bytes_max=200_000)
    hot = cache.tails(key("fw-hot"), IMAGE, range(3))
    for length in range(256, 2_000):
        cache.tails(key("fw-odd", length=length), IMAGE, range(5))
        assert cache.tails(key("fw-hot"), IMAGE, [1])[0] is hot[1]
        assert cache.size_bytes <= 200_000


def test_a_file_larger_than_the_room_is_served_all_the_same():
    cache = BlockCache(bytes_max=10_000)
    for _ in range(2):
        tails = cache.tails(key(), IMAGE, range(3))
        assert tails == BlockCache().tails(key(), IMAGE, range(3))
        assert cache.size_bytes <= 10_000


def test_the_largest_answer_is_a_small_part_of_the_room():
    assert CACHE_BYTES_MAX == 64 * 1024 * 1024
    assert 2 * ANSWER_BYTES_MAX < CACHE_BYTES_MAX / 100
    assert BLOCK_BYTES_MAX == ANSWER_BYTES_MAX


@pytest.mark.parametrize(("size", "lengths"), [(4_000_000, (256, 1_024, 4_096)), (268, range(268, 40_000))])
def test_what_is_counted_is_what_is_taken(size, lengths):
    """Large files in many blocks; and a small one, asked for in each size above its own."""
    file = memoryview(bytes(size))
    cache = BlockCache()
    tracemalloc.start()
    try:
        for length in lengths:
            cache.tails(key(length=length), file, range(-(-size // length)))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.85 * cache.size_bytes < taken < 1.1 * cache.size_bytes


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 9)), max_size=80))
def test_whatever_was_driven_out_the_blocks_are_right_and_the_room_is_kept(wanted):
    cache = BlockCache(bytes_max=5_000)
    for stream, id in wanted:
        (tail,) = cache.tails(key(stream, length=1_000), IMAGE, [id])
        assert tail == data_tail(0, id, IMAGE[1_000 * id : 1_000 * (id + 1)], Format.CBOR)
        assert cache.size_bytes <= 5_000
        assert cache.size_bytes == sum(file.size_bytes for file in cache._files.values())
