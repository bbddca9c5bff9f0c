"""What is behind the names of streams."""

from dataclasses import dataclass, field, replace

import pytest

from ota.blocks import BlockCache
from ota.library import Library, Published
from ota.manifest import Manifest
from ota.stream_service import StreamService
from ota.streams import FILE_BYTES_MAX
from tests.stream_rig import FW, IMAGE, Jobs, Loader

MANIFEST = Manifest(
    vendor="acme",
    model="T1",
    hw=("d0ab0369-673c-5489-ad42-fb0f0fa83d2a",),
    label="2.4.0",
    version=0x0002000400000000,
    counter=3,
    size=10_000,
    sha256="6e97d8601cb17906a4819e0fcc8d03150d3e4331353ecaa516c0084cadad54dd",
    block=4_096,
    root=bytes(32),
    issued=1_790_000_000,
    expires=1_821_536_000,
    data=2,  # type: ignore[arg-type]  # not looked at here
    config_schema=5,
)
LEAVES = bytes(range(96))


@dataclass
class Blob:
    view: memoryview


@dataclass
class Shelves:
    """Releases, images and lists of keys, as few as there can be."""

    releases: dict[str, Published] = field(default_factory=lambda: {FW: Published(MANIFEST, b"cose")})
    asked: list[object] = field(default_factory=list)

    async def published(self, stream):
        self.asked.append(stream)
        return self.releases.get(stream)

    async def blob(self, sha256):
        assert sha256 == MANIFEST.sha256
        self.asked.append("image")
        return Blob(memoryview(IMAGE))

    async def leaves(self, sha256, block):
        assert (sha256, block) == (MANIFEST.sha256, 4_096)
        return LEAVES

    async def key_list(self, number):
        self.asked.append(number)
        return b"keys" if number == 7 else None


@pytest.fixture
def shelves():
    return Shelves()


@pytest.fixture
def library(shelves):
    return Library(shelves, shelves, shelves)


async def test_a_release_is_its_image_its_leaves_and_its_manifest(library):
    stream = await library.stream(FW)
    assert stream.description == "acme T1 2.4.0.0"
    assert {file: bytes(content) for file, content in stream.files.items()} == {
        0: IMAGE,
        1: LEAVES,
        2: b"cose",
    }


async def test_an_image_too_large_for_blocks_is_left_out_and_not_even_mapped(library, shelves):
    shelves.releases[FW] = Published(replace(MANIFEST, size=FILE_BYTES_MAX + 1), b"cose")
    assert set((await library.stream(FW)).files) == {1, 2}
    assert "image" not in shelves.asked
    shelves.releases[FW] = Published(replace(MANIFEST, size=FILE_BYTES_MAX), b"cose")
    assert set((await library.stream(FW)).files) == {0, 1, 2}


async def test_a_list_of_keys_is_found_by_its_number(library):
    stream = await library.stream("keys-7")
    assert {file: bytes(content) for file, content in stream.files.items()} == {0: b"keys"}
    assert await library.stream("keys-8") is None


@pytest.mark.parametrize(
    "name", ["keys-", "keys-07", "keys--7", "keys-7x", "keys-\u0667", "keys-99999999999"]
)
async def test_what_is_no_number_is_no_list(library, shelves, name):
    assert await library.stream(name) is None
    assert shelves.asked == [name]


async def test_what_is_not_released_is_no_stream(library):
    assert await library.stream("fw-none") is None


async def test_a_device_loads_a_release_from_it(library):
    jobs = Jobs({"hall": frozenset({FW})})
    service = StreamService(jobs, library, BlockCache(), lambda: 0)
    for file, content in enumerate((IMAGE, LEAVES, b"cose")):
        loader = Loader(len(content), 4_096, file=file)
        while loader.holes:
            answer = await service.get("hall", FW, "cbor", loader.ask())
            for tail in answer.tails:
                loader.hear(answer.head + tail)
        assert loader.content == content
