"""What a run leaves in its directory: names of files, and what stands in them."""

import hashlib
from typing import Any, Final

import msgspec

from fleet.flash import Flash

LOG: Final = "devices.jsonl"
"""What devices did, by themselves."""
FLASHES: Final = "flashes.msgpack"
THINGS: Final = "things"
RUN: Final = "run.json"
ACTS: Final = "acts.jsonl"
"""What was done to the service, and when."""
SAMPLES: Final = "samples.jsonl"
"""What the service said of its campaigns, all along."""


class Flashed(msgspec.Struct, frozen=True):
    """One flash: the pages of its record, the digests of the blocks in its slots, its configurations."""

    record: list[bytes]
    slots: dict[str, dict[int, str]]
    configs: dict[str, list[bytes]]


class Dump(msgspec.Struct, frozen=True):
    """All flashes; blocks by their digest."""

    blocks: dict[str, bytes]
    flashes: dict[str, Flashed]


class Written:
    """Gathers a dump."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}
        self.flashes: dict[str, Flashed] = {}

    def add(self, thing: str, flash: Flash) -> None:
        slots = {
            name: {index: self._block(data) for index, data in slot.blocks.items()}
            for name, slot in flash.slots.items()
        }
        configs = {name: list(pages.pages) for name, pages in flash.configs.items()}
        self.flashes[thing] = Flashed(list(flash.record.pages), slots, configs)

    def _block(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blocks[digest] = data
        return digest


class Run(msgspec.Struct, frozen=True):
    """What there is to know of a run beforehand."""

    devices: int
    seed: int
    factory_sha256: str
    image_sha256: str
    manifest_sha256: str
    counter: int
    factory_config: dict[str, Any]
    release: str
    kills: tuple[str, ...] = ()
    planted: str = ""


class Act(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of ``ACTS``. Times are milliseconds since 1970."""

    t: int
    act: str
    group: str = ""
    campaign: str = ""
    until: int = 0
    """When it was answered."""
    active: int = 0
    """Targets at work in all campaigns just then."""
    note: str = ""


class Sample(msgspec.Struct, frozen=True):
    """A line of ``SAMPLES``."""

    t: int
    group: str
    state: str
    targets: int
    counts: dict[str, int]
