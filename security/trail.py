"""The audit trail as one: the sealed blocks in the order of the chain, then what is not sealed yet.

Who may read it is not decided here. Every call is bounded; a longer answer comes in pages.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from infra.documents import cursors
from infra.documents.port import Document, DocumentStore, Entry, InvalidCursorError
from security import chain
from security.audit import LOG, AuditEntry
from security.blocks import BLOCKS_READ, Blocks
from security.chain import BadPositionError, Block, Head, Verification

BLOCKS_PAGE_MAX: Final = 32
"""Blocks that one page looks into; a page may end there with few rows or none, and go on."""
BLOCKS_VERIFIED_MAX: Final = 64
"""Blocks that one step of a verification looks at."""
LATE_MS_MAX: Final = 86_400_000
"""A row sealed later than this after its act may be left out of a span of time; a page without end has it."""
TAIL_PAGE: Final = 1_000
_BEFORE_ALL: Final = (-(2**62), "", 0)


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry and its position in the chain: block and place in it, from 1; 0 when it is not sealed yet."""

    entry: AuditEntry
    block: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class TrailPage:
    """Entries in the order of the trail; ``next`` continues after the last, None = no more."""

    items: tuple[Placed, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Sealed:
    """A stored entry as it was exported; ``link`` is empty for one that is not sealed yet."""

    body: bytes
    block: int = 0
    position: int = 0
    link: str = ""


class _Place(NamedTuple):
    """Where a page goes on: in a block, but not with what was told when it was still unsealed."""

    number: int
    skip: int
    told: tuple[int, str, int] = _BEFORE_ALL


_decode: Final = msgspec.json.Decoder(AuditEntry).decode


class Trail:
    """Reads and verifies the trail."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._blocks = Blocks(store)

    async def read(self, from_ms: int, to_ms: int, limit: int, cursor: str | None = None) -> TrailPage:
        """Return entries of a span of time, both ends included."""
        search = ("trail", from_ms, to_ms)
        place = await self._start(from_ms) if cursor is None else _place_of(cursor, search)
        items: list[Placed] = []
        for _ in range(BLOCKS_PAGE_MAX):
            block = await self._blocks.read(place.number)
            if block is None:
                if not await self._blocks.exist_from(place.number):
                    page = await self._tail(place, from_ms, to_ms, limit - len(items))
                    if page is None:
                        continue  # sealed while we looked: it is in a block now
                    rows, place_after = page
                    return TrailPage((*items, *rows), _cursor(search, place_after))
            elif block.header.from_ms > to_ms + LATE_MS_MAX:
                return TrailPage(tuple(items), None)
            else:
                found, skip = _of_block(block, place, from_ms, to_ms, limit - len(items))
                items += found
                if len(items) == limit:
                    return TrailPage(tuple(items), _cursor(search, place._replace(skip=skip)))
            place = _Place(place.number + 1, 0, place.told)
        return TrailPage(tuple(items), _cursor(search, place))

    async def export(self) -> AsyncIterator[Sealed]:
        """Yield every entry: those of the chain in its order, then the others by time."""
        number = 1
        while True:
            bodies = await self._blocks.bodies(number, BLOCKS_READ)
            if bodies[0] is None and not await self._blocks.exist_from(number):
                break
            for body in bodies:
                if body is not None:
                    for position, (link, entry) in enumerate(chain.lines(number, body), 1):
                        yield Sealed(entry, number, position, link)
                elif not await self._blocks.exist_from(number):
                    break
                number += 1
        async for row in self._unsealed():
            yield Sealed(row.body)

    async def head(self) -> Head:
        """Return where the chain ends, as its last block says."""
        return await self._blocks.tip()

    async def verify_some(self, verification: Verification, blocks_max: int = BLOCKS_VERIFIED_MAX) -> bool:
        """Verify the next blocks; return whether that was all. Raises :class:`BadPositionError`."""
        left = blocks_max
        while left > 0:
            number = verification.head.number + 1
            documents = await self._blocks.documents(number, min(left, BLOCKS_READ))
            for document in documents:
                if document is None and not await self._blocks.exist_from(verification.head.number + 1):
                    verification.end()
                    return True
                verification.take(None if document is None else document.body)
                _check_index(verification.head, document)
            left -= len(documents)
        return False

    async def verify(self, published: Mapping[int, Head]) -> Head:
        """Verify the whole chain and return where it ends. Raises :class:`BadPositionError`."""
        verification = Verification(published)
        while not await self.verify_some(verification):
            pass
        return verification.head

    async def unsealed(self) -> int:
        """Return how many rows are not sealed yet."""
        return len([row async for row in self._unsealed()])

    async def _start(self, from_ms: int) -> _Place:
        number = 1 if from_ms <= 0 else await self._blocks.first_reaching(from_ms)
        return _Place((await self._blocks.tip()).number + 1 if number is None else number, 0)

    async def _tail(
        self, place: _Place, from_ms: int, to_ms: int, limit: int
    ) -> tuple[list[Placed], _Place | None] | None:
        """Return unsealed rows behind the last block; None when that is not the last any more.

        What leaves the log is in a block by then, so looking for blocks after the log misses nothing.
        """
        after = None if place.told == _BEFORE_ALL else cursors.make((LOG, from_ms, to_ms), place.told)
        page = await self._store.scan(LOG, from_ms, to_ms, limit=limit, cursor=after)
        if await self._blocks.exist_from(place.number):
            return None
        known = await self._blocks.sealed(await self._blocks.tip(), page.entries)
        rows = [Placed(_decode(row.body)) for at, row in enumerate(page.entries) if at not in known]
        if page.next is None:
            return rows, None
        last = page.entries[-1]
        return rows, _Place(place.number, 0, (last.at_ms, last.key, last.number))

    async def _unsealed(self) -> AsyncIterator[Entry]:
        head = await self._blocks.tip()
        cursor: str | None = None
        while True:
            page = await self._store.scan(LOG, -(2**62), 2**62, limit=TAIL_PAGE, cursor=cursor)
            known = await self._blocks.sealed(head, page.entries)
            for position, row in enumerate(page.entries):
                if position not in known:
                    yield row
            cursor = page.next
            if cursor is None:
                return


def _of_block(block: Block, place: _Place, from_ms: int, to_ms: int, limit: int) -> tuple[list[Placed], int]:
    """Return at most ``limit`` entries of a block, and the index to go on at."""
    found: list[Placed] = []
    for index in range(place.skip, len(block.entries)):
        if len(found) == limit:
            return found, index
        entry = _decode(block.entries[index])
        if from_ms <= entry.at_ms <= to_ms and _row_key(entry) > place.told:
            found.append(Placed(entry, block.header.number, index + 1))
    return found, len(block.entries)


def _row_key(entry: AuditEntry) -> tuple[int, str, int]:
    key, _, number = entry.id.rpartition(":")
    return entry.at_ms, key, int(number)


def _check_index(head: Head, document: Document | None) -> None:
    if document is not None and document.index != {"number": head.number, "upto_ms": head.upto_ms}:
        raise BadPositionError(head.number, 0, "is found under another number or time than its own")


def _cursor(search: Sequence[str | int], place: _Place | None) -> str | None:
    return None if place is None else cursors.make(search, (place.number, place.skip, *place.told))


def _place_of(cursor: str, search: Sequence[str | int]) -> _Place:
    match cursors.position(cursor, search):
        case [int(number), int(skip), int(at_ms), str(key), int(row)] if number > 0 and skip >= 0:
            return _Place(number, skip, (at_ms, key, row))
        case _:
            raise InvalidCursorError("the cursor was not made by this search: start again without one")
