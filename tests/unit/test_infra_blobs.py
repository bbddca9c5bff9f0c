"""Files under the hash of what they hold: stored whole or not at all, gone on with after a cut."""

import hashlib
import os
import stat

import pytest

from infra import blobs as module
from infra.blobs import (
    COMING_MAX,
    BlobBusyError,
    BlobMissingError,
    Blobs,
    BlobTooLargeError,
    DamagedBlobError,
    DigestMismatchError,
    InvalidBlobNameError,
    NoSpaceError,
    OffsetMismatchError,
)
from tests.covers import covers

BYTES_MAX = 20_000
DATA = bytes((7 * i + 3) % 256 for i in range(10_000))
NAME = "6e97d8601cb17906a4819e0fcc8d03150d3e4331353ecaa516c0084cadad54dd"


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "images", BYTES_MAX)


async def store(blobs, data=DATA, name=NAME):
    with blobs.receive(name, 0) as upload:
        upload.write(data)
        return await upload.finish()


@covers("S3.1-s")
async def test_what_came_whole_is_there_under_its_hash_and_read_without_copying(blobs):
    assert await store(blobs)
    assert blobs.stored(NAME).stat().st_size == len(DATA)
    blob = await blobs.load(NAME)
    assert (blob.size, bytes(blob.view)) == (len(DATA), DATA)
    assert blob.view.readonly
    assert (await blobs.load(NAME)) is blob, "mapped once"
    assert stat.S_IMODE(blobs.stored(NAME).stat().st_mode) == module.STORED_MODE


async def test_the_same_again_is_not_new_and_changes_nothing(blobs):
    await store(blobs)
    assert not await store(blobs)
    assert bytes((await blobs.load(NAME)).view) == DATA


async def test_what_does_not_hash_to_its_name_is_not_there_and_is_sent_from_the_beginning(blobs):
    with pytest.raises(DigestMismatchError):
        await store(blobs, DATA[:-1] + b"x")
    assert not blobs.stored(NAME).exists()
    assert blobs.arrived(NAME) == 0
    assert await store(blobs)


async def test_a_wrong_repeat_does_not_harm_what_is_there(blobs):
    await store(blobs)
    with pytest.raises(DigestMismatchError):
        await store(blobs, b"something else")
    assert bytes((await blobs.check(NAME)).view) == DATA


async def test_after_a_cut_at_any_place_the_sender_goes_on(blobs):
    for cut in (1, 4_096, 9_999):
        with blobs.receive(NAME, 0) as upload:
            upload.write(DATA[:cut])
        assert blobs.arrived(NAME) == cut
        assert not blobs.stored(NAME).exists()
    with blobs.receive(NAME, 9_999) as upload:
        upload.write(DATA[9_999:])
        assert await upload.finish()
    assert bytes((await blobs.load(NAME)).view) == DATA


@pytest.mark.parametrize("offset", [1, 99, 101])
async def test_nobody_goes_on_from_another_place_than_where_it_broke_off(blobs, offset):
    with blobs.receive(NAME, 0) as upload:
        upload.write(DATA[:100])
    with pytest.raises(OffsetMismatchError) as caught, blobs.receive(NAME, offset):
        pass
    assert caught.value.offset == 100
    assert blobs.arrived(NAME) == 100


async def test_one_sender_at_a_time_also_from_another_process(blobs, tmp_path):
    other = Blobs(tmp_path / "images", BYTES_MAX)
    with blobs.receive(NAME, 0) as upload:
        upload.write(DATA[:100])
        with pytest.raises(BlobBusyError), other.receive(NAME, 100):
            pass
        assert upload.offset == 100
    assert other.arrived(NAME) == 100


async def test_no_sender_learns_of_what_comes_from_another_or_goes_on_with_it(blobs):
    with blobs.receive(NAME, 0, "acme") as upload:
        upload.write(DATA[:9_999])
    assert (blobs.arrived(NAME, "acme"), blobs.arrived(NAME, "norland"), blobs.arrived(NAME)) == (9_999, 0, 0)
    with pytest.raises(OffsetMismatchError) as caught, blobs.receive(NAME, 9_999, "norland"):
        pass
    assert caught.value.offset == 0
    with blobs.receive(NAME, 0, "norland") as other, blobs.receive(NAME, 9_999, "acme") as upload:
        other.write(b"x")
        upload.write(DATA[9_999:])
        assert await upload.finish()
    assert bytes((await blobs.load(NAME)).view) == DATA
    assert blobs.arrived(NAME, "norland") == 1


@pytest.mark.parametrize("sender", ["..", "a/b", "A", "x" * 65, "a.b"])
def test_a_sender_is_a_word(blobs, sender):
    with pytest.raises(ValueError, match="sender"):
        blobs.coming(NAME, sender)


async def test_who_begins_too_many_files_makes_room_with_their_own(blobs):
    with blobs.receive(NAME, 0, "acme") as upload:
        upload.write(DATA)
    os.utime(blobs.coming(NAME, "acme"), (1, 1))
    for name in names(COMING_MAX + 3):
        with blobs.receive(name, 0, "norland") as upload:
            upload.write(b"x")
    assert blobs.arrived(NAME, "acme") == len(DATA)
    assert sum(blobs.arrived(name, "norland") for name in names(COMING_MAX + 3)) == COMING_MAX - 1


async def test_a_file_has_its_bound_and_not_one_byte_more(blobs):
    data = b"a" * BYTES_MAX
    name = hashlib.sha256(data).hexdigest()
    assert await store(blobs, data, name)
    with blobs.receive(NAME, 0) as upload:
        upload.write(data)
        with pytest.raises(BlobTooLargeError):
            upload.write(b"a")
        assert upload.offset == BYTES_MAX


@pytest.mark.parametrize(
    "name",
    ["", "..", "a" * 63, "a" * 65, NAME.upper(), "../" + NAME[3:], NAME[:-1] + "\n", "g" * 64, "coming"],
)
def test_nothing_but_a_hash_is_a_name(blobs, name):
    with pytest.raises(InvalidBlobNameError):
        blobs.stored(name)


async def test_what_is_not_there_is_not_there(blobs):
    assert not blobs.stored(NAME).exists()
    with pytest.raises(BlobMissingError):
        await blobs.load(NAME)


async def test_a_bit_that_the_disk_lost_is_noticed_when_it_is_loaded(blobs, tmp_path):
    await store(blobs)
    path = blobs.stored(NAME)
    path.chmod(0o600)
    path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
    with pytest.raises(DamagedBlobError):
        await Blobs(tmp_path / "images", BYTES_MAX).load(NAME)
    assert not await store(blobs), "and sending it once more mends it"
    assert bytes((await Blobs(tmp_path / "images", BYTES_MAX).load(NAME)).view) == DATA


async def test_what_is_in_memory_is_looked_at_again_on_demand(blobs):
    await store(blobs)
    await blobs.load(NAME)
    path = blobs.stored(NAME)
    path.unlink()
    path.write_bytes(DATA[:-1])
    with pytest.raises(DamagedBlobError):
        await blobs.check(NAME)


async def test_a_file_that_is_a_link_is_not_followed(blobs, tmp_path):
    await store(blobs)
    path = blobs.stored(NAME)
    (tmp_path / "elsewhere").write_bytes(DATA)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedBlobError):
        await blobs.load(NAME)


def names(count):
    return [f"{number:064x}" for number in range(count)]


async def test_of_too_many_on_their_way_the_one_nobody_goes_on_with_is_forgotten(blobs):
    for age, name in enumerate(names(COMING_MAX)):
        with blobs.receive(name, 0) as upload:
            upload.write(b"some")
        os.utime(blobs.coming(name), (1_000_000 - age, 1_000_000 - age))
    with blobs.receive(NAME, 0) as upload:
        upload.write(DATA[:10])
    assert [blobs.arrived(name) for name in names(COMING_MAX)] == [4] * (COMING_MAX - 1) + [0]


async def test_none_that_is_being_sent_is_forgotten(blobs, monkeypatch):
    monkeypatch.setattr(module, "COMING_MAX", 1)
    with (
        blobs.receive(names(1)[0], 0) as upload,
        pytest.raises(BlobBusyError),
        blobs.receive(NAME, 0),
    ):
        pass
    assert upload.offset == 0


async def test_what_nobody_goes_on_with_for_a_day_is_swept(blobs):
    old, new = names(2)
    for name in (old, new):
        with blobs.receive(name, 0) as upload:
            upload.write(b"some")
    os.utime(blobs.coming(old), (1, 1))
    assert blobs.sweep() == 1
    assert (blobs.arrived(old), blobs.arrived(new)) == (0, 4)


async def test_a_full_disk_takes_no_more_and_keeps_what_came(blobs, monkeypatch):
    with blobs.receive(NAME, 0) as upload:
        upload.write(DATA[:10])
        monkeypatch.setattr(module, "SPARE_BYTES", 2**62)
        with pytest.raises(NoSpaceError):
            upload.write(DATA[10:])
    assert blobs.arrived(NAME) == 10


async def test_few_stay_mapped_and_a_reader_keeps_what_it_has(blobs, monkeypatch):
    monkeypatch.setattr(module, "MAPPED_MAX", 1)
    await store(blobs)
    other = hashlib.sha256(b"other").hexdigest()
    await store(blobs, b"other", other)
    held = await blobs.load(NAME)
    await blobs.load(other)
    assert bytes(held.view) == DATA
    assert (await blobs.load(NAME)) is not held
