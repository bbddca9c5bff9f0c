"""The flashes of a whole city as bytes: so that a device is after a restart of the fleet what it was before.

Equal blocks are held once: a thousand devices of one model with one image are no larger than one of them.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from fleet.flash import Flash, Fuse


@dataclass(frozen=True, slots=True)
class Kept:
    """A flash, and the model of device that it is in."""

    model: str
    flash: Flash


class _Line(msgspec.Struct, frozen=True, array_like=True):
    model: str
    record: list[bytes]
    configs: dict[str, list[bytes]]
    slots: dict[str, dict[int, int]]
    """By the number of a block its place among the blocks of the file."""
    keys: list[int]
    """Of the two copies of the key list the place of each."""


class _File(msgspec.Struct, frozen=True, array_like=True):
    blocks: list[bytes]
    lines: dict[str, _Line]


def pack(flashes: Mapping[str, Kept]) -> bytes:
    """Return flashes by the names of their devices as bytes."""
    places: dict[bytes, int] = {}
    lines = {
        name: _Line(
            one.model,
            one.flash.record.pages,
            {slot: pages.pages for slot, pages in one.flash.configs.items()},
            {
                name: {index: places.setdefault(block, len(places)) for index, block in slot.blocks.items()}
                for name, slot in one.flash.slots.items()
            },
            [places.setdefault(page, len(places)) for page in one.flash.keys.pages],
        )
        for name, one in flashes.items()
    }
    return msgspec.msgpack.encode(_File(list(places), lines))


def unpack(data: bytes) -> dict[str, Kept]:
    """Return what was packed, as flashes without any fault; nothing of what is no such thing."""
    try:
        file = msgspec.msgpack.decode(data, type=_File)
        return {name: Kept(line.model, _flash(line, file.blocks)) for name, line in file.lines.items()}
    except (msgspec.DecodeError, LookupError):
        return {}


def _flash(line: _Line, blocks: list[bytes]) -> Flash:
    flash = Flash(Fuse(random.Random(0)))  # nothing is left to chance where no fault is planted
    flash.record.pages = line.record
    for slot, pages in line.configs.items():
        flash.configs[slot].pages = pages
    flash.keys.pages = [blocks[place] for place in line.keys]
    for slot, places in line.slots.items():
        flash.slots[slot].blocks = {index: blocks[place] for index, place in places.items()}
    return flash
