"""The blocks of the audit chain in the document store: found, read, and asked what they hold.

A block is a document whose id is its number with leading zeros, written once and never again. No verdicts
here, those are in :mod:`security.chain`; what cannot even be read raises its ``BadPositionError``.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from infra.documents.port import Collection, Cut, Document, DocumentStore, Entry, Write
from security import chain
from security.chain import EMPTY, Block, Head

BLOCKS: Final = Collection("audit_blocks", indexed=("number", "upto_ms"))
NUMBER_DIGITS: Final = 12
NUMBER_MAX: Final = 10**NUMBER_DIGITS - 1
BLOCKS_READ: Final = 4
"""Blocks fetched at once."""
REMEMBERED_MAX: Final = 50_000
"""Sealed entries that are remembered, by their digest."""
SWEEP: Final = "sweep"
"""The one document among the blocks that is none: it carries the cuts of rows that are sealed already."""

Digest = bytes


class _Remembered(NamedTuple):
    upto_ms: int
    digests: frozenset[Digest]


def id_of(number: int) -> str:
    """Return the id of a block."""
    return f"{number:0{NUMBER_DIGITS}d}"


class Blocks:
    """Reads blocks, adds one; remembers what the latest ones hold."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._remembered: OrderedDict[int, _Remembered] = OrderedDict()
        self._size = 0

    async def bodies(self, first: int, count: int) -> list[bytes | None]:
        """Return ``count`` blocks from number ``first``; None for one that is not there."""
        found = await self.documents(first, count)
        return [None if one is None else one.body for one in found]

    async def documents(self, first: int, count: int) -> list[Document | None]:
        """Return what :meth:`bodies` does, with how the store finds them."""
        ids = [id_of(number) for number in range(first, first + count)]
        found = await self._store.get(BLOCKS.name, ids)
        return [found.get(id) for id in ids]

    async def exist_from(self, number: int) -> bool:
        """Tell whether there is a block of this number or a higher one."""
        return bool((await self._store.find(BLOCKS.name, "number", number, NUMBER_MAX, limit=1)).documents)

    async def first_reaching(self, at_ms: int) -> int | None:
        """Return the first block after which the chain holds an entry not before ``at_ms``."""
        page = await self._store.find(BLOCKS.name, "upto_ms", at_ms, 2**62, limit=1)
        return int(page.documents[0].id) if page.documents else None

    async def tip(self, known: Head = EMPTY) -> Head:
        """Return where the chain ends, as its last block says; ``known`` is a head it went through.

        A block missing in the middle does not hide those after it.
        """
        low, step = known.number, 1
        while await self.exist_from(low + step):
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if await self.exist_from(middle) else (low, middle)
        if low == known.number:
            return known
        body = (await self.bodies(low, 1))[0]
        if body is None:
            raise chain.BadPositionError(low, 0, "is found by its number and not by its id")
        return chain.header_of(low, body).head

    async def add(self, head: Head, entries: Sequence[Entry], cuts: Sequence[Cut]) -> Head | None:
        """Seal entries behind ``head`` and cut rows from the log, both or neither; None: somebody was first.

        Inserting the block is the lock: of any number of sealers one wins a number.
        """
        bodies = [entry.body for entry in entries]
        body, after = chain.make(head, bodies)
        index = {"number": after.number, "upto_ms": after.upto_ms}
        lost = await self._store.commit([Write(BLOCKS.name, id_of(after.number), 0, body, index, cuts=cuts)])
        if lost:
            return None
        self._remember(after.number, _Remembered(after.upto_ms, frozenset(map(digest, bodies))))
        return after

    async def sweep(self, cuts: Sequence[Cut]) -> None:
        """Cut rows that are sealed already; when another sweeps just now, it is done another time."""
        found = (await self._store.get(BLOCKS.name, [SWEEP])).get(SWEEP)
        revision = 0 if found is None else found.revision
        await self._store.commit([Write(BLOCKS.name, SWEEP, revision, b"", cuts=cuts)])

    async def sealed(self, head: Head, entries: Sequence[Entry]) -> frozenset[int]:
        """Return the positions of those that a block up to ``head`` holds, byte for byte.

        Looks back from the head for as long as blocks reach the time of the oldest: for rows of now that is
        a few blocks, and they are remembered.
        """
        if not entries:
            return frozenset()
        wanted = {digest(entry.body): position for position, entry in enumerate(entries)}
        oldest_ms = min(entry.at_ms for entry in entries)
        found: set[int] = set()
        for number in range(head.number, 0, -1):
            known = await self._known(number)
            if known is None:
                continue
            if known.upto_ms < oldest_ms:
                break
            found.update(wanted[one] for one in known.digests & wanted.keys())
        return frozenset(found)

    async def read(self, number: int) -> Block | None:
        """Return a block, None when it is not there."""
        body = (await self.bodies(number, 1))[0]
        return None if body is None else chain.parse(number, body)

    async def _known(self, number: int) -> _Remembered | None:
        known = self._remembered.get(number)
        if known is None:
            block = await self.read(number)
            if block is None:
                return None
            known = _Remembered(block.header.upto_ms, frozenset(map(digest, block.entries)))
            self._remember(number, known)
        return known

    def _remember(self, number: int, known: _Remembered) -> None:
        self._remembered[number] = known
        self._size += len(known.digests)
        while self._size > REMEMBERED_MAX and len(self._remembered) > 1:
            lowest = min(self._remembered)
            self._size -= len(self._remembered.pop(lowest).digests)


def digest(body: bytes) -> Digest:
    """Return what an entry is known again by."""
    return hashlib.sha256(body).digest()
