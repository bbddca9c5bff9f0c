"""Shadows in the document store, with a bounded cache of parsed documents in front of it.

The cache is an economy, never a truth: each save is compare-and-set on the stored revision, so an
outdated entry costs one lost race and a reload. What a client is *shown* comes from the cache only
where nobody else can write (``exclusive``).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog

from infra.documents.port import Cut, Document, DocumentStore, Entry, Write
from infra.settings.model import ShadowLimits
from shadow.decisions import NEVER_MADE, Shadow
from shadow.document import ShadowId
from shadow.history import HistoryRow, row_of
from shadow.records import (
    PENDING,
    SHADOWS,
    UnknownFormatError,
    body_of,
    exists,
    history_log,
    index_of,
    shadow_of,
)

PAGE_SHADOWS: Final = 500
TOMBSTONES_MAX: Final = 200
"""Deleted named shadows of one thing that are remembered; above it no new name may be made."""
CACHED_FIXED_BYTES: Final = 1_200
CACHED_FACTOR: Final = 5
"""A parsed tree takes about this many times its JSON (measured: `make bench`, growth)."""


_log = structlog.get_logger(__name__)


class Loaded(NamedTuple):
    """A shadow with the stored revision it was read from; 0 when the document does not exist."""

    shadow: Shadow
    revision: int


class _Cached(NamedTuple):
    loaded: Loaded
    bytes: int


class Extra(NamedTuple):
    """What is stored together with a new version of a shadow."""

    entries: Sequence[Entry] = ()
    cuts: Sequence[Cut] = ()


class ShadowStore:
    """Loads and saves shadows; knows which revision of a document it has seen."""

    def __init__(self, documents: DocumentStore, limits: ShadowLimits, cache_bytes_max: int) -> None:
        self._documents = documents
        self._limits = limits
        self._cache: dict[ShadowId, _Cached] = {}
        self._fetches: list[set[ShadowId]] = []
        self._cache_bytes_max = cache_bytes_max
        self.cached_bytes = 0

    @property
    def cached_shadows(self) -> int:
        return len(self._cache)

    async def load(self, ids: Collection[ShadowId]) -> dict[ShadowId, Loaded]:
        """Return the shadows to decide on; one that was never made is :data:`NEVER_MADE`.

        One whose stored bytes cannot be read is left out, and logged: the others go on.
        """
        cache = self._cache
        found = {id: cached.loaded for id in ids if (cached := cache.get(id)) is not None}
        if len(found) < len(ids):
            found |= await self._fetch([id for id in ids if id not in found])
        return found

    async def current(self, id: ShadowId) -> Shadow:
        """Return the shadow to show: what was committed last, by whomever."""
        if not self._documents.exclusive:
            self.forget([id])
        return (await self.load([id]))[id].shadow

    async def save(
        self,
        before: Mapping[ShadowId, Loaded],
        after: Mapping[ShadowId, Shadow],
        extras: Mapping[ShadowId, Extra],
    ) -> frozenset[ShadowId]:
        """Commit what became of loaded shadows; return the ids that lost their race."""
        ids = list(after)
        writes = [_write(id, before[id].revision, after[id], extras.get(id, _NOTHING_ELSE)) for id in ids]
        try:
            lost_positions = await self._documents.commit(writes)
        except BaseException:
            # Whether it was written is unknown: what we remember may be outdated.
            self.forget(ids)
            raise
        lost = frozenset(ids[position] for position in lost_positions)
        self.forget(lost)
        for id, write in zip(ids, writes, strict=True):
            if id not in lost:
                self._keep(id, Loaded(after[id], write.expected + 1))
        for fetch in self._fetches:
            fetch.difference_update(ids)  # what they read may be older than what was written just now
        return lost

    def shrink(self) -> None:
        """Let the shadows go that were not used for longest, down to the bound."""
        cache = self._cache
        while self.cached_bytes > self._cache_bytes_max and len(cache) > 1:
            oldest = next(iter(cache))
            self.cached_bytes -= cache.pop(oldest).bytes

    def forget(self, ids: Iterable[ShadowId]) -> None:
        """Drop what is remembered of these shadows; the next load asks the store."""
        for id in ids:
            cached = self._cache.pop(id, None)
            if cached is not None:
                self.cached_bytes -= cached.bytes

    async def ids_of(self, thing: str) -> tuple[list[ShadowId], list[ShadowId]]:
        """Return the ids of a thing's shadows, and of those that were deleted, by name."""
        live: list[ShadowId] = []
        deleted: list[ShadowId] = []
        cursor: str | None = None
        for _ in range(2 + (self._limits.named_shadows_max + TOMBSTONES_MAX) // PAGE_SHADOWS):
            page = await self._documents.find(
                SHADOWS.name, "thing", thing, thing, limit=PAGE_SHADOWS, cursor=cursor
            )
            for document in page.documents:
                (live if exists(document.body) else deleted).append(ShadowId.of_key(document.id))
            cursor = page.next
            if cursor is None:
                break
        return sorted(live), sorted(deleted)

    async def pending(self, cursor: str | None) -> tuple[dict[ShadowId, Shadow], str | None]:
        """Return a page of the shadows with something unsent, and the cursor of the next page."""
        page = await self._documents.find(
            SHADOWS.name, "pending", PENDING, PENDING, limit=PAGE_SHADOWS, cursor=cursor
        )
        return {ShadowId.of_key(one.id): shadow_of(one.id, one.body) for one in page.documents}, page.next

    async def rows(
        self, id: ShadowId, first: int, last: int, limit: int, *, newest_first: bool = False
    ) -> list[HistoryRow]:
        """Return history rows of versions ``first`` to ``last``."""
        entries = await self._documents.read(
            history_log(id), id.key, first, last, limit=limit, newest_first=newest_first
        )
        return [row_of(entry.body) for entry in entries]

    async def bodies(self, id: ShadowId, first: int, last: int) -> dict[int, bytes]:
        """Return the bytes of the rows of versions ``first`` to ``last``."""
        entries = await self._documents.read(history_log(id), id.key, first, last, limit=last - first + 1)
        return {entry.number: entry.body for entry in entries}

    async def older(self, log: str, at_ms: int, cursor: str | None) -> tuple[set[ShadowId], str | None]:
        """Return shadows with history rows not later than ``at_ms``, and the cursor of the next page."""
        page = await self._documents.scan(log, 0, at_ms, limit=PAGE_SHADOWS, cursor=cursor)
        return {ShadowId.of_key(entry.key) for entry in page.entries}, page.next

    async def unwritten(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return those that are not there."""
        return [
            one
            for one in entries
            if not await self._documents.read(one.log, one.key, one.number, one.number, limit=1)
        ]

    async def add_rows(self, entries: Sequence[Entry]) -> None:
        """Write rows that a crash kept from being written."""
        if entries:
            await self._documents.append(entries)

    async def erase(self, id: ShadowId, loaded: Loaded) -> bool:
        """Remove a shadow with its history for good; False when somebody wrote it meanwhile."""
        cut = Cut(history_log(id), id.key, loaded.shadow.version + 1)
        erasure = Write(SHADOWS.name, id.key, loaded.revision, None, cuts=(cut,))
        self.forget([id])
        return not await self._documents.commit([erasure])

    async def _fetch(self, ids: Sequence[ShadowId]) -> dict[ShadowId, Loaded]:
        wanted = set(ids)
        self._fetches.append(wanted)
        try:
            documents = await self._documents.get(SHADOWS.name, [id.key for id in ids])
        finally:
            self._fetches.remove(wanted)
        fetched: dict[ShadowId, Loaded] = {}
        for id in wanted:
            try:
                fetched[id] = _loaded(documents.get(id.key))
            except (msgspec.DecodeError, UnknownFormatError) as error:
                _log.error("shadow_unreadable", thing=id.thing, shadow=id.name, reason=str(error))
            else:
                self._keep(id, fetched[id])
        overtaken = [id for id in ids if id not in wanted]
        return fetched | (await self.load(overtaken) if overtaken else {})

    def _keep(self, id: ShadowId, loaded: Loaded) -> None:
        cache = self._cache
        known = cache.pop(id, None)  # the newest stands last
        if known is not None:
            self.cached_bytes -= known.bytes
        shadow = loaded.shadow
        size = CACHED_FIXED_BYTES + len(shadow.ledger) + len(shadow.json or b"") * CACHED_FACTOR
        cache[id] = _Cached(loaded, size)
        self.cached_bytes += size


def _loaded(document: Document | None) -> Loaded:
    if document is None:
        return Loaded(NEVER_MADE, 0)
    return Loaded(shadow_of(document.id, document.body), document.revision)


def _write(id: ShadowId, revision: int, shadow: Shadow, extra: Extra) -> Write:
    return Write(
        SHADOWS.name, id.key, revision, body_of(shadow), index_of(id, shadow), extra.entries, extra.cuts
    )


_NOTHING_ELSE: Final = Extra()
