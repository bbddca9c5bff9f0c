"""Streams for tests: an image as in the specification's vectors, who may have it, and a device that loads it.

The device is written from the specification and shares nothing with the service: what it does is what a
maker's would do.
"""

import base64
import json
import random
from dataclasses import dataclass, field
from typing import Any

import cbor2

from ota.blocks import BlockCache
from ota.stream_service import Stream, StreamService
from tests.fakes import FakeClock

IMAGE = bytes((7 * i + 3) % 256 for i in range(10_000))
FW = "fw-5a4cf26a6d0cc6a1c23f"
KEYS = "keys-7"


@dataclass
class Shelf:
    """A library that counts how often it is asked, and can fail."""

    streams: dict[str, Stream] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    error: Exception | None = None

    async def stream(self, id: str) -> Stream | None:
        self.asked.append(id)
        if self.error is not None:
            raise self.error
        return self.streams.get(id)


@dataclass
class Jobs:
    """What things have jobs about; can fail."""

    streams: dict[str, frozenset[str]] = field(default_factory=dict)
    error: Exception | None = None

    async def streams_of(self, thing: str) -> frozenset[str]:
        if self.error is not None:
            raise self.error
        return self.streams.get(thing, frozenset())


@dataclass
class Files:
    """All of it together."""

    service: StreamService
    shelf: Shelf
    jobs: Jobs
    clock: FakeClock

    def allow(self, thing: str, *streams: str) -> None:
        self.jobs.streams[thing] = frozenset(streams or (FW,))

    def add(self, id: str, **files: bytes) -> None:
        """Add a stream; files are named ``f0``, ``f1`` …"""
        parts = {int(name[1:]): memoryview(content) for name, content in files.items()}
        self.shelf.streams[id] = Stream(f"stream {id}", parts)


def make_files() -> Files:
    """Return a service with the image of the vectors and a list of keys, and nobody who has a job."""
    shelf, jobs, clock = Shelf(), Jobs(), FakeClock()
    files = Files(StreamService(jobs, shelf, BlockCache(), clock.elapsed_s), shelf, jobs, clock)
    files.add(FW, f0=IMAGE, f1=bytes(96), f2=bytes(268))
    files.add(KEYS, f0=b"keys")
    return files


class Loader:
    """A device's side of a download: asks in windows, keeps what it gets, asks for its holes."""

    def __init__(self, size: int, block: int, window: int = 8, format: str = "cbor", file: int = 0) -> None:
        self.size = size
        self.block = block
        self.window = window
        self.format = format
        self.file = file
        self.got: dict[int, bytes] = {}
        self.requests = 0

    @property
    def holes(self) -> list[int]:
        return [id for id in range(-(-self.size // self.block)) if id not in self.got]

    @property
    def content(self) -> bytes:
        return b"".join(block for _, block in sorted(self.got.items()))

    def ask(self) -> bytes:
        """Return a request for the first holes, as a bitmap from the first one."""
        holes = self.holes
        bitmap, first = bytearray(), holes[0]
        for hole in holes[: self.window]:
            place = (hole - first) // 8
            bitmap += bytes(max(0, place + 1 - len(bitmap)))
            bitmap[place] |= 1 << (hole - first) % 8
        return self.spell({"o": first, "n": self.window, "b": bytes(bitmap)})

    def ask_from(self, first: int) -> bytes:
        """Return a request for a window without a bitmap."""
        return self.spell({"o": first, "n": self.window})

    def spell(self, more: dict[str, Any]) -> bytes:
        self.requests += 1
        fields = {"c": f"t-{self.requests}", "s": 1, "f": self.file, "l": self.block, **more}
        if self.format == "cbor":
            return cbor2.dumps(fields)
        return json.dumps({k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}).encode()

    def hear(self, payload: bytes) -> dict[str, Any]:
        """Take a block in; a second copy of one has to be the same."""
        said: dict[str, Any] = read(payload, self.format)
        block = block_of(said)
        assert said["f"] == self.file
        assert said["l"] == len(block)
        assert self.got.setdefault(said["i"], block) == block
        return said


def read(payload: bytes, format: str) -> Any:
    return cbor2.loads(payload) if format == "cbor" else json.loads(payload)


def block_of(said: dict[str, Any]) -> bytes:
    content = said["p"]
    return content if isinstance(content, bytes) else base64.b64decode(content, validate=True)


def numbered(size: int, seed: int = 1) -> bytes:
    """Return bytes of which no two blocks are alike."""
    return random.Random(seed).randbytes(size)
