"""Shadows in the document store, with a bounded cache of parsed documents in front of it.

The cache is an economy, never a truth: each save is compare-and-set on the stored revision, so an
outdated entry costs one lost race and a reload. What a client is *shown* comes from the cache only
where nobody else can write (``exclusive``).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog

from infra.documents.port import PAGE_MAX, Cut, Document, DocumentStore, Entry, StoreUnavailableError, Write
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
COMMIT_BYTES_MAX: Final = 2**24
"""What one commit takes of bodies and rows; half of what the port does, which counts more than these."""
EVERY_ROW: Final = 2**31
"""Above the number of any row."""
CACHED_FIXED_BYTES: Final = 1_200
CACHED_FACTOR: Final = 5
"""A parsed tree takes about this many times its JSON (measured: `make bench`, growth)."""


_log = structlog.get_logger(__name__)


class Loaded(NamedTuple):
    """A shadow with the stored revision it was read from; 0 when the document does not exist."""

    shadow: Shadow
    revision: int
    doubtful: bool = False
    """Remembered where others write too: good for a write, which is checked, but not to refuse or show."""


class _Cached(NamedTuple):
    loaded: Loaded
    bytes: int


class Extra(NamedTuple):
    """What is stored together with a new version of a shadow."""

    entries: Sequence[Entry] = ()
    cuts: Sequence[Cut] = ()


class Saved(NamedTuple):
    """What did not become of a save: who lost their race, and whose fate is unknown."""

    lost: set[ShadowId]
    unsure: set[ShadowId]


class ShadowStore:
    """Loads and saves shadows; knows which revision of a document it has seen."""

    def __init__(self, documents: DocumentStore, limits: ShadowLimits, cache_bytes_max: int) -> None:
        self._documents = documents
        self._limits = limits
        self._cache: dict[ShadowId, _Cached] = {}
        self._fetches: list[set[ShadowId]] = []
        self._cache_bytes_max = cache_bytes_max
        self.cached_bytes = 0
        self.unsure: dict[ShadowId, int] = {}
        """Shadows whose last commit may have been made, with the version up to which all was said."""

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
        shadow = await self.readable(id)
        if shadow is None:
            raise RuntimeError(f"shadow {id.key} cannot be read; the log says why")
        return shadow

    async def readable(self, id: ShadowId) -> Shadow | None:
        """Return what :meth:`current` does, but None when its stored bytes cannot be read."""
        if not self._documents.exclusive:
            self.forget([id])
        loaded = (await self.load([id])).get(id)
        self.shrink()
        return None if loaded is None else loaded.shadow

    async def readable_all(self, ids: Collection[ShadowId]) -> dict[ShadowId, Shadow]:
        """Return what :meth:`readable` does, of many at once; what cannot be read is left out."""
        if not self._documents.exclusive:
            self.forget(ids)
        loaded = await self.load(ids)
        self.shrink()
        return {id: one.shadow for id, one in loaded.items()}

    async def save(
        self,
        before: Mapping[ShadowId, Loaded],
        after: Mapping[ShadowId, Shadow],
        extras: Mapping[ShadowId, Extra],
    ) -> Saved:
        """Commit what became of loaded shadows; return the ids that are not known to be saved.

        A commit of unknown fate raises if it was the first; what later ones leave open is *unsure*, since
        what came before is saved and has to be answered.
        """
        ids = list(after)
        writes = [_write(id, before[id].revision, after[id], extras.get(id, _NOTHING_ELSE)) for id in ids]
        saved = Saved(set(), set())
        for first, end in _portions(writes):
            try:
                positions = await self._documents.commit(writes[first:end])
            except BaseException as error:
                saved.unsure.update(ids[first:])
                self.unsure |= dict.fromkeys(ids[first:], 0)
                if first and isinstance(error, StoreUnavailableError):
                    break
                # Whether it was written is unknown: what we remember may be outdated.
                self._overtake(ids)
                self.forget(ids)
                raise
            saved.lost.update(ids[first + position] for position in positions)
        self._overtake(ids)
        self.forget(saved.lost | saved.unsure)
        for id, write in zip(ids, writes, strict=True):
            if id not in saved.lost and id not in saved.unsure:
                self._keep(id, Loaded(after[id], write.expected + 1))
                if self.unsure:
                    self.unsure.pop(id, None)
        return saved

    def forget_doubtful(self, shown: Mapping[ShadowId, Loaded]) -> set[ShadowId]:
        """Forget, and return, those that may be outdated, so that they are asked for once more."""
        doubtful = {id for id, loaded in shown.items() if loaded.doubtful}
        self.forget(doubtful)
        return doubtful

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
                (live if _is_live(document) else deleted).append(ShadowId.of_key(document.id))
            cursor = page.next
            if cursor is None:
                break
        return sorted(live), sorted(deleted)

    async def pending(self, cursor: str | None) -> tuple[dict[ShadowId, Shadow], str | None]:
        """Return a page of the shadows with something unsent, and the cursor of the next page."""
        page = await self._documents.find(
            SHADOWS.name, "pending", PENDING, PENDING, limit=PAGE_SHADOWS, cursor=cursor
        )
        shadows = {ShadowId.of_key(one.id): _readable(one) for one in page.documents}
        return {id: shadow for id, shadow in shadows.items() if shadow is not None}, page.next

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
        bodies: dict[int, bytes] = {}
        for start in range(first, last + 1, PAGE_MAX):
            end = min(last, start + PAGE_MAX - 1)
            entries = await self._documents.read(history_log(id), id.key, start, end, limit=PAGE_MAX)
            bodies |= {entry.number: entry.body for entry in entries}
        return bodies

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

    async def erase(self, id: ShadowId) -> bool:
        """Remove a shadow with its history for good, readable or not; False when others wrote meanwhile."""
        document = (await self._documents.get(SHADOWS.name, [id.key])).get(id.key)
        if document is None:
            return True
        cut = Cut(history_log(id), id.key, EVERY_ROW)
        lost = await self._documents.commit(
            [Write(SHADOWS.name, id.key, document.revision, None, cuts=(cut,))]
        )
        self._overtake([id])
        self.forget([id])
        self.unsure.pop(id, None)
        return not lost

    async def _fetch(self, ids: Sequence[ShadowId]) -> dict[ShadowId, Loaded]:
        wanted = set(ids)
        self._fetches.append(wanted)
        try:
            documents = await self._documents.get(SHADOWS.name, [id.key for id in ids])
        finally:
            # By identity: another fetch may want the same.
            self._fetches = [fetch for fetch in self._fetches if fetch is not wanted]
        fetched: dict[ShadowId, Loaded] = {}
        for id in wanted:
            document = documents.get(id.key)
            shadow = NEVER_MADE if document is None else _readable(document)
            if shadow is not None:
                fetched[id] = Loaded(shadow, 0 if document is None else document.revision)
                if id not in self.unsure:  # else a commit may still land, and this would hide it
                    self._keep(id, fetched[id])
        overtaken = [id for id in ids if id not in wanted]
        return fetched | (await self.load(overtaken) if overtaken else {})

    def _overtake(self, ids: Iterable[ShadowId]) -> None:
        """Make those read again that are being read just now: it may be older than what was written."""
        for fetch in self._fetches:
            fetch.difference_update(ids)

    def _keep(self, id: ShadowId, loaded: Loaded) -> None:
        cache = self._cache
        known = cache.pop(id, None)  # the newest stands last
        if known is not None:
            self.cached_bytes -= known.bytes
        shadow = loaded.shadow
        size = CACHED_FIXED_BYTES + len(shadow.ledger) + len(shadow.json or b"") * CACHED_FACTOR
        cache[id] = _Cached(loaded._replace(doubtful=not self._documents.exclusive), size)
        self.cached_bytes += size


def _readable(document: Document) -> Shadow | None:
    try:
        return shadow_of(document.id, document.body)
    except (msgspec.DecodeError, UnknownFormatError) as error:
        id = ShadowId.of_key(document.id)
        _log.error("shadow_unreadable", thing=id.thing, shadow=id.name, reason=str(error))
        return None


def _is_live(document: Document) -> bool:
    try:
        return exists(document.body)
    except msgspec.DecodeError:
        return True  # nobody can read it, but nobody deleted it either


def _portions(writes: Sequence[Write]) -> Iterator[tuple[int, int]]:
    """Yield from where to where the writes go into one commit: all of them, but for huge documents."""
    first = size = 0
    for position, write in enumerate(writes):
        bytes = len(write.body or b"") + sum(len(entry.body) for entry in write.entries)
        if size + bytes > COMMIT_BYTES_MAX and position > first:
            yield first, position
            first, size = position, 0
        size += bytes
    yield first, len(writes)


def _write(id: ShadowId, revision: int, shadow: Shadow, extra: Extra) -> Write:
    return Write(
        SHADOWS.name,
        id.key,
        revision,
        body_of(shadow),
        index_of(id, shadow),
        extra.entries,
        extra.cuts,
        retells=True,  # by its outbox: see Archive.unsent
    )


_NOTHING_ELSE: Final = Extra()
