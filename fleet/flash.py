"""A device's flash: two image slots, records in two alternating pages, power that may go at any write.

    pages    the older page is written, with a sequence number and a CRC: a torn one
             is not believed, and the other still stands
    slots    blocks by number; a torn block is a shorter one
    fuse     counts writes; at the one it was set for, a part is written and the power is gone

Pure: chance comes in, nothing else. What the records mean stands in `boot`.
"""

import random
import zlib
from typing import Final

PAGES: Final = 2
SLOTS: Final = ("a", "b")
BITS: Final = 8
_SEQUENCE_BYTES, _CRC_BYTES = 8, 4


class PowerCutError(Exception):
    """The power went in the middle of a write. What was in memory is gone, the flash is as it is."""


class Fuse:
    """Counts the writes of a flash; lets the power go at one of them, or a bit flip after one."""

    __slots__ = ("_chance", "cut_at", "flip_at", "writes")

    def __init__(
        self, chance: random.Random, *, cut_at: int | None = None, flip_at: int | None = None
    ) -> None:
        self._chance = chance
        self.cut_at, self.flip_at = cut_at, flip_at
        self.writes = 0

    def blows(self) -> bool:
        """Count one write; True if the power goes during it."""
        self.writes += 1
        return self.writes == self.cut_at

    def torn(self, new: bytes, old: bytes) -> bytes:
        """Return what stands there after a write that came half way."""
        done = self._chance.randint(0, len(new))
        return new[:done] + old[done:]

    def worn(self, data: bytes) -> bytes:
        """Return ``data`` with one bit flipped, if this write was chosen for it."""
        if self.writes != self.flip_at or not data:
            return data
        at = self._chance.randrange(len(data) * BITS)
        flipped = bytearray(data)
        flipped[at // BITS] ^= 1 << at % BITS
        return bytes(flipped)


class Pages:
    """One small record in two copies: the last whole one counts."""

    __slots__ = ("_fuse", "pages")

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse
        self.pages: list[bytes] = [b""] * PAGES

    def read(self) -> bytes | None:
        """Return what was written last and whole; None if nothing ever was."""
        return max(map(_whole, self.pages), key=lambda one: one[0])[1]

    def write(self, data: bytes) -> None:
        """Replace the record; after a power cut it is the new one or still the old one."""
        sequences = [_whole(page)[0] for page in self.pages]
        older = sequences.index(min(sequences))
        body = (max(sequences) + 1).to_bytes(_SEQUENCE_BYTES) + data
        page = body + zlib.crc32(body).to_bytes(_CRC_BYTES)
        if self._fuse.blows():
            self.pages[older] = self._fuse.torn(page, self.pages[older])
            raise PowerCutError
        self.pages[older] = page

    def erase(self) -> None:
        """Forget both copies; after a power cut perhaps only one."""
        if self._fuse.blows():
            self.pages[0] = b""
            raise PowerCutError
        self.pages = [b""] * PAGES


class Slot:
    """Room for one image, as blocks by number."""

    __slots__ = ("_fuse", "blocks")

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse
        self.blocks: dict[int, bytes] = {}

    def write(self, index: int, data: bytes) -> None:
        """Write one block; after a power cut a part of it."""
        if self._fuse.blows():
            self.blocks[index] = self._fuse.torn(data, b"")
            raise PowerCutError
        self.blocks[index] = self._fuse.worn(data)

    def erase(self) -> None:
        """Forget all blocks; after a power cut only some."""
        if self._fuse.blows():
            for index in list(self.blocks)[::2]:
                del self.blocks[index]
            raise PowerCutError
        self.blocks.clear()

    def read(self, blocks: int) -> bytes:
        """Return the first so many blocks, one after the other; a missing one is empty."""
        return b"".join(self.blocks.get(index, b"") for index in range(blocks))


class Flash:
    """All that survives a power cut."""

    __slots__ = ("configs", "fuse", "keys", "record", "slots")

    def __init__(self, fuse: Fuse) -> None:
        self.fuse = fuse
        self.record = Pages(fuse)
        self.slots = {name: Slot(fuse) for name in SLOTS}
        self.configs = {name: Pages(fuse) for name in SLOTS}
        self.keys = Pages(fuse)


def _whole(page: bytes) -> tuple[int, bytes | None]:
    """Return the sequence number and the data of a page; (0, None) for a torn or empty one."""
    body, crc = page[:-_CRC_BYTES], page[-_CRC_BYTES:]
    if len(body) < _SEQUENCE_BYTES or zlib.crc32(body).to_bytes(_CRC_BYTES) != crc:
        return 0, None
    return int.from_bytes(body[:_SEQUENCE_BYTES]), body[_SEQUENCE_BYTES:]
