"""The sealer: moves rows from the log ``audit`` into the blocks of the chain.

A block and the cuts of the rows it holds are one write, so what is unsealed is exactly what lies in the
log, whatever clocks and crashes do. Any number of sealers may run: inserting a block is the lock. Where a
store cuts after it has inserted, a crash in between leaves rows that a block holds already: they are known
again by their bytes, not sealed twice, and cut by whoever comes next.

Rows of folded refusals are written over while they are counted, and wait until nobody counts any more. One
that is written over after that all the same (a process that was cut off from the store for minutes) is
sealed once more, with its higher count.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import structlog

from infra.clock import Clock
from infra.documents.port import (
    CUT_SPAN_MAX,
    PAGE_MAX,
    Cut,
    DocumentStore,
    Entry,
    StoreBrokenError,
    StoreError,
)
from security import chain
from security.audit import LOG, MS_PER_MINUTE, REFUSED
from security.blocks import Blocks
from security.chain import EMPTY, BadPositionError, Head
from security.heads import Heads

SEAL_EVERY_S: Final = 10.0
REFUSALS_SETTLE_MS: Final = 120_000
"""How long after its minute a row of refusals may still be written over."""
PAGES_MAX: Final = 1_000
"""Pages of the log that one pass looks at; what lies behind waits for the next."""
ATTEMPTS_MAX: Final = 20
"""Blocks that others may add before one of ours."""
BEHIND_S: Final = 300.0
"""So long after the last whole pass the sealing is said to be behind."""
FOREVER_MS: Final = 2**62
_OVERTAKEN: Final = "others sealed all the time"

_log = structlog.get_logger(__name__)


class Sealer:
    """Seals, and publishes heads. ``unsealed`` and ``behind`` are for whoever watches."""

    def __init__(self, store: DocumentStore, clock: Clock, heads: Heads | None = None) -> None:
        self._store = store
        self._blocks = Blocks(store)
        self._clock = clock
        self._heads = heads
        self._begun_s = clock.elapsed_s()
        self._passed_s: float | None = None
        self._said_behind = False
        self._unfit = 0
        self._pass = asyncio.Lock()
        self.head: Head = EMPTY
        """Where the chain ended when we last saw it."""
        self.heads_failed = 0
        self.unsealed = 0
        """Rows that the last pass left in the log: what came meanwhile, and refusals still counted."""

    @property
    def age_s(self) -> float:
        """Seconds since everything that could be sealed was."""
        return self._clock.elapsed_s() - (self._begun_s if self._passed_s is None else self._passed_s)

    @property
    def behind(self) -> bool:
        """Whether somebody should look: rows lie open for longer than they should."""
        return self.age_s >= BEHIND_S

    async def run(self) -> None:
        """Seal every few seconds, until cancelled."""
        await self._compare_with_published()
        while True:
            await self.seal_and_publish()
            await asyncio.sleep(SEAL_EVERY_S)

    async def seal_and_publish(self, finished: str = "") -> None:
        """Seal what can be, publish what is due; what fails is logged, and is done the next time."""
        try:
            await self.seal(finished)
        except StoreBrokenError:
            raise
        except (StoreError, BadPositionError) as error:
            _log.warning("audit_not_sealed", reason=str(error), unsealed=self.unsealed)
        self._tell_behind()
        await self._publish(last=bool(finished))

    async def seal(self, finished: str = "") -> int:
        """Make one pass over the log; return how many entries were sealed.

        ``finished`` is what the keys of refusals begin with that are not counted any more.
        """
        async with self._pass:
            sealed, left, unfit = 0, 0, 0
            waiting: list[Entry] = []
            cursor: str | None = None
            for _ in range(PAGES_MAX):
                page = await self._store.scan(LOG, -FOREVER_MS, FOREVER_MS, limit=PAGE_MAX, cursor=cursor)
                final = [row for row in page.entries if self._is_final(row, finished)]
                ready = [row for row in final if chain.sealable(row.body)]
                left += len(page.entries) - len(ready)
                unfit += len(final) - len(ready)
                waiting += ready
                cursor = page.next
                if cursor is None or len(waiting) >= chain.ENTRIES_MAX:
                    sealed += await self._seal(waiting)
                    waiting = []
                if cursor is None:
                    break
            if unfit > self._unfit:
                _log.error("audit_rows_unfit", rows=unfit, remedy="look for what wrote them; they stay open")
            self.unsealed, self._unfit = left, unfit
            self._passed_s = self._clock.elapsed_s()
            return sealed

    def _is_final(self, row: Entry, finished: str) -> bool:
        if not row.key.startswith(REFUSED) or (finished and row.key.startswith(finished)):
            return True
        return (row.number + 1) * MS_PER_MINUTE + REFUSALS_SETTLE_MS <= self._clock.now_ms()

    async def _seal(self, rows: Sequence[Entry]) -> int:
        sealed = 0
        for first, end in chain.portions([row.body for row in rows]):
            sealed += await self._seal_block(rows[first:end])
        return sealed

    async def _seal_block(self, rows: Sequence[Entry]) -> int:
        """Seal rows that fit one block, or find that they are sealed."""
        for _ in range(ATTEMPTS_MAX):
            # In this order: what others seal after we looked takes the number that we are to take.
            self.head = await self._blocks.tip(self.head)
            known = await self._blocks.sealed(self.head, rows)
            fresh = [row for position, row in enumerate(rows) if position not in known]
            if not fresh:
                await self._blocks.sweep(list(cuts(rows)))
                return 0
            after = await self._blocks.add(self.head, fresh, list(cuts(rows)))
            if after is not None:
                self.head = after
                return len(fresh)
        raise StoreError(_OVERTAKEN)

    async def _publish(self, *, last: bool) -> None:
        if self._heads is None or not (last or self._heads.due(self.head)):
            return
        if self._heads.last is not None and self.head.number <= self._heads.last.number:
            return
        try:
            head = await asyncio.to_thread(self._heads.publish, self.head)
        except OSError as error:
            self.heads_failed += 1
            _log.error("audit_head_not_published", reason=str(error), number=self.head.number)
        else:
            _log.debug("audit_head_published", number=head.number, entries=head.entries)

    async def _compare_with_published(self) -> None:
        """Say so when the chain is not the one whose head was published last; it goes on all the same."""
        last = None if self._heads is None else self._heads.last
        if last is None:
            return
        try:
            body = (await self._blocks.bodies(last.number, 1))[0]
            if body is not None and chain.header_of(last.number, body).hash == last.hash:
                return
        except StoreBrokenError:
            raise
        except (StoreError, BadPositionError) as error:
            _log.warning("audit_chain_not_compared", reason=str(error))
            return
        remedy = "gnomon audit verify names the place; after a restore see the runbook"
        _log.error("audit_chain_broken", number=last.number, remedy=remedy)

    def _tell_behind(self) -> None:
        if self.behind and not self._said_behind:
            _log.error("audit_sealing_behind", for_s=round(self.age_s), unsealed=self.unsealed)
        elif self._said_behind and not self.behind:
            _log.info("audit_sealing_caught_up", unsealed=self.unsealed)
        self._said_behind = self.behind


def cuts(rows: Sequence[Entry]) -> Iterator[Cut]:
    """Yield cuts of these rows and no others."""
    for (log, key), of_key in groupby(
        sorted(rows, key=lambda row: (row.log, row.key, row.number)), lambda row: (row.log, row.key)
    ):
        first = below = -1
        for row in of_key:
            if row.number != below or below - first == CUT_SPAN_MAX:
                if below > first:
                    yield Cut(log, key, below, first)
                first = row.number
            below = row.number + 1
        yield Cut(log, key, below, first)
