"""From a checked job to an image in the other slot: first the leaf list, then the blocks that it vouches for.

    leaf list   file 1, hashed as a whole against the manifest (V14)
    image       file 0, each block against its leaf (V15), written to flash at once

Which blocks are there goes into the record every so often: after a power cut so many are asked for again.
"""

import random
from collections.abc import MutableMapping
from enum import Enum, auto
from typing import Any, Final

from fleet.boot import Store
from fleet.jobs import Block
from fleet.offers import Checked
from fleet.transfer import Transfer, Verdict

IMAGE, LEAVES = 0, 1  # files of a stream
LEAVES_BLOCK, LEAF_BYTES = 4_096, 32
SAVE_EVERY_BLOCKS: Final = 16
BITS: Final = 8

Pool = MutableMapping[str, bytes]


class Outcome(Enum):
    """What a block has led to."""

    GOES_ON = auto()
    SAVED = auto()
    """The record knows now which blocks are there."""
    COMPLETE = auto()
    BAD_LEAVES = auto()
    BAD_BLOCK = auto()


class Load:
    """The loading of one image."""

    __slots__ = ("_chance", "_checked", "_gathered", "_pool", "_store", "_transfer", "_unsaved", "have")

    def __init__(self, checked: Checked, store: Store, chance: random.Random, pool: Pool | None) -> None:
        """Begin, or go on with what the record says is there already."""
        self._checked, self._store, self._chance, self._pool = checked, store, chance, pool
        self._gathered: dict[int, bytes] = {}  # of the leaf list
        self._unsaved = 0
        self.have = store.record.have
        size = checked.image.blocks * LEAF_BYTES
        self._transfer = Transfer(LEAVES, size, LEAVES_BLOCK, lambda _index, _data: True, chance)

    @property
    def file(self) -> int:
        """Return which file is being fetched."""
        return self._transfer.file

    @property
    def count(self) -> int:
        """Return how many blocks of the image are there."""
        return self.have.bit_count()

    @property
    def packed(self) -> bytes:
        """Return which blocks are there, as the record keeps it."""
        return self.have.to_bytes((self.have.bit_length() + BITS - 1) // BITS, "little")

    @property
    def fails(self) -> int:
        """Return how often an answer did not come in time."""
        return self._transfer.fails

    @property
    def unavailable(self) -> int:
        """Return how often the service could not answer."""
        return self._transfer.unavailable

    @property
    def wake_at(self) -> float:
        """Return when ``ask`` has something to say if nothing comes."""
        return self._transfer.wake_at

    def ask(self, now: float) -> dict[str, Any] | None:
        """Return the next request, if there is something to ask for now."""
        return self._transfer.ask(now)

    def again(self, now: float) -> None:
        """Ask at once: whatever was asked for went down with a connection."""
        self._transfer.again(now)

    def refused(self, now: float) -> None:
        """Wait longer: the service cannot answer now."""
        self._transfer.refused(now)

    def take(self, block: Block, now: float) -> Outcome:
        """Judge a block, keep it if it is good, and tell what that has led to."""
        if block.f != self.file:
            return Outcome.GOES_ON
        verdict = self._transfer.take(block.i, block.p, now)
        if verdict is Verdict.HOPELESS:
            return Outcome.BAD_LEAVES if self.file == LEAVES else Outcome.BAD_BLOCK
        if verdict is not Verdict.GOOD:
            return Outcome.GOES_ON
        return self._keep_leaves(block) if self.file == LEAVES else self._keep(block.i, block.p)

    def feed(self, image: bytes, now: float) -> Outcome:
        """Take the whole image at once: each block is judged as if it came alone."""
        outcome, size = Outcome.GOES_ON, self._checked.image.block
        while outcome in {Outcome.GOES_ON, Outcome.SAVED}:
            index = next(iter(self._transfer.missing))
            outcome = self.take(Block(IMAGE, index, image[index * size : (index + 1) * size]), now)
        return outcome

    def _keep_leaves(self, block: Block) -> Outcome:
        self._gathered[block.i] = block.p
        if not self._transfer.done:
            return Outcome.GOES_ON
        leaf_list = self._checked.leaf_list(b"".join(self._gathered[one] for one in sorted(self._gathered)))
        self._gathered = {}
        if leaf_list is None:  # V14
            return Outcome.BAD_LEAVES
        image, before = self._checked.image, self._transfer
        self._transfer = Transfer(
            IMAGE, image.size, image.block, leaf_list.judge, self._chance, have=self.have
        )
        self._transfer.fails, self._transfer.unavailable = before.fails, before.unavailable
        return Outcome.COMPLETE if self._transfer.done else Outcome.GOES_ON

    def _keep(self, index: int, data: bytes) -> Outcome:
        """Write a block that has passed V15; say so in the record every so often."""
        if self._pool is not None:
            data = self._pool.setdefault(f"{self._checked.image.sha256}/{index}", data)
        record = self._store.record
        self._store.flash.slots[record.other].write(index, data)
        self.have |= 1 << index
        self._unsaved += 1
        if self._transfer.done:
            return Outcome.COMPLETE
        if self._unsaved < SAVE_EVERY_BLOCKS:
            return Outcome.GOES_ON
        self._unsaved = 0
        self._store.write(record.where(bits=self.packed))
        return Outcome.SAVED
