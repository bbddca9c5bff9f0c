"""A campaign in one file: written and read as a stream, and believed only where its parts belong together."""

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota import bundle as bundles
from ota import key_list
from ota.bundle import Bundle, BundleError, opened, read, write
from ota.ranges import Outside, Part, is_had, wanted
from ota.verification import TrustedKey
from tests.bundles import bundle
from tests.covers import covers
from tests.key_lists import CHAIN, LIST, LIST_KEY, SEALED
from tests.ota_base import IMAGE


def file_of(one: Bundle) -> bytes:
    return b"".join(bytes(piece) for piece in write(one))


def listed(keys: Iterable[TrustedKey]) -> bytes:
    return key_list.write(replace(LIST, keys=tuple(keys)), LIST_KEY, CHAIN)


@covers("I3FR6.1")
def test_a_bundle_is_an_array_of_six_byte_strings_as_any_reader_of_cbor_finds_it():
    one = bundle()
    data = file_of(one)
    assert len(data) == bundles.size(one)
    manifest, order, proofs, leaves, image, keys = cbor2.loads(data)
    assert (manifest, order, leaves, image, keys) == (one.manifest, one.order, one.leaves, IMAGE, SEALED)
    assert cbor2.loads(proofs) == one.proofs
    assert hashlib.sha256(manifest).hexdigest().startswith("5a4cf26a6d0cc6a1")
    assert hashlib.sha256(order).hexdigest().startswith("6391ef19445f1c5b")


def test_what_is_written_is_read_and_the_image_is_not_copied():
    data = memoryview(file_of(bundle()))
    found = read(data)
    assert found == bundle()
    assert found.image.obj is data.obj
    said = opened(found)
    assert (said.job, said.manifest.label, said.order.count) == (
        "c-6f1c7a520d5e4c5b9d1e2f8f6a1b3c4d",
        "2.4.0",
        5,
    )


def test_a_bundle_that_was_written_without_a_key_list_is_still_read():
    one = bundle()
    proofs = cbor2.dumps(one.proofs, canonical=True)
    before = cbor2.dumps([one.manifest, one.order, proofs, one.leaves, IMAGE])
    found = opened(read(memoryview(before)))
    assert (found.bundle, found.keys) == (replace(one, keys=b""), None)


def test_the_key_list_comes_along_and_where_there_is_none_that_is_said():
    assert opened(read(memoryview(file_of(bundle())))).keys == LIST
    assert opened(read(memoryview(file_of(replace(bundle(), keys=b""))))).keys is None


def test_no_piece_is_larger_than_its_bound():
    large = replace(bundle(), image=memoryview(bytes(300_000)))
    assert max(len(piece) for piece in write(large)) == bundles.CHUNK_BYTES
    assert bytes(read(memoryview(file_of(large))).image) == bytes(300_000)


@pytest.mark.parametrize("at", range(0, 14_000, 97))
def test_a_file_that_was_cut_off_is_refused(at: int):
    data = file_of(bundle())
    if at < len(data):
        with pytest.raises(BundleError):
            read(memoryview(data[:at]))


@pytest.mark.parametrize(
    ("of", "says"),
    [
        (lambda one: replace(one, manifest=one.manifest[:-1] + b"\0"), "another manifest"),
        (lambda one: replace(one, image=memoryview(IMAGE[:-1] + b"\0")), "image is not"),
        (lambda one: replace(one, leaves=one.leaves[:-1] + b"\0"), "leaf list"),
        (lambda one: replace(one, order=one.manifest), "manifest or order"),
        (lambda one: replace(one, keys=one.manifest), "keys: "),
        (lambda one: replace(one, keys=listed(LIST.keys[:1])), "key list does not name"),
        (
            lambda one: replace(one, keys=listed(replace(key, revoked=True) for key in LIST.keys)),
            "who has signed",
        ),
        (lambda one: replace(one, proofs={"han-0009": one.proofs["han-0001"]}), "proof of han-0009"),
        (lambda one: replace(one, proofs={"han-0001": b"\0"}), "proof of han-0001"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(of: Any, says: str):
    with pytest.raises(BundleError, match=says):
        opened(read(memoryview(file_of(of(bundle())))))


def test_something_after_the_end_is_refused():
    with pytest.raises(BundleError, match="after the end"):
        read(memoryview(file_of(bundle()) + b"\0"))


def test_a_part_beyond_its_bound_is_refused_before_it_is_read():
    huge = bytes([0x85, 0x5B]) + (2**60).to_bytes(8, "big")
    with pytest.raises(BundleError, match="manifest: at most 4096"):
        read(memoryview(huge))


@given(st.binary(max_size=64), st.integers(0, 11_000))
def test_reading_raises_nothing_but_its_own_error(noise: bytes, at: int):
    data = file_of(bundle())
    spoiled = data[:at] + noise + data[at + len(noise) :]
    for one in (noise, spoiled):
        with contextlib.suppress(BundleError):
            opened(read(memoryview(one)))


ETAG = '"6e97"'


@covers("I3FR6.1")
@pytest.mark.parametrize(
    ("range", "part"),
    [
        ("bytes=0-0", Part(0, 0)),
        ("bytes=9999-", Part(9_999, 9_999)),
        ("bytes=-4096", Part(5_904, 9_999)),
        ("bytes=5-20000", Part(5, 9_999)),
        ("bytes=10000-", Outside()),
        ("bytes=-20000", Part(0, 9_999)),
        ("bytes=-0", Outside()),
        ("bytes=0-", Part(0, 9_999)),
        ("Bytes=1-2", Part(1, 2)),
        (None, None),
        ("", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=0 -1", None),
        ("items=0-1", None),
        ("bytes=٣-", None),
    ],
)
def test_ranges_are_what_the_vectors_say(range: str | None, part: Any):
    assert wanted(range, None, ETAG, 10_000) == part
    assert wanted(range, ETAG, ETAG, 10_000) == part
    assert wanted(range, '"other"', ETAG, 10_000) is None


def test_what_is_had_already_is_not_sent():
    assert is_had(ETAG, ETAG)
    assert is_had(f'"x", W/{ETAG}', ETAG)
    assert is_had("*", ETAG)
    assert not is_had('"x"', ETAG)
    assert not is_had(None, ETAG)


def test_cut_at_half_and_resumed_gives_the_image():
    half = IMAGE[:5_000]
    part = wanted("bytes=5000-", ETAG, ETAG, len(IMAGE))
    assert isinstance(part, Part)
    whole = half + IMAGE[part.first : part.last + 1]
    assert hashlib.sha256(whole).hexdigest().startswith("6e97d8601cb17906")
