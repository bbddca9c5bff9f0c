"""Records to documents and back, for any collection of one kind of record. No decisions."""

from collections.abc import Callable, Mapping
from collections.abc import Collection as SizedIterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from infra.documents.port import Document, DocumentStore, Entry, IndexValue, Write

SAVE_ATTEMPTS_MAX: Final = 5
"""Tries to win against others who write the same record."""

R = TypeVar("R")
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Kept(Generic[R]):
    """A record as it lies in the store."""

    record: R
    revision: int


@dataclass(frozen=True, slots=True)
class RecordPage(Generic[R]):
    """Records in a fixed order, and their ids; ``next`` continues after the last, None = no more."""

    ids: tuple[str, ...]
    records: tuple[R, ...]
    next: str | None


def _no_index(_record: object) -> Mapping[str, IndexValue]:
    return {}


class Records(Generic[R]):
    """One collection: read by id or by an indexed field, written by compare-and-set."""

    def __init__(
        self,
        store: DocumentStore,
        collection: str,
        type: type[R],
        index: Callable[[R], Mapping[str, IndexValue]] = _no_index,
    ) -> None:
        self._store = store
        self._collection = collection
        self._decode: Callable[[bytes], R] = msgspec.json.Decoder(type).decode
        self._index = index

    @property
    def exclusive(self) -> bool:
        """True when nobody else writes here."""
        return self._store.exclusive

    async def load(self, id: str) -> Kept[R] | None:
        """Return the record of an id."""
        document = (await self._store.get(self._collection, [id])).get(id)
        return None if document is None else self._kept(document)

    async def load_all(self, ids: SizedIterable[str]) -> dict[str, R]:
        """Return the records that there are, by id."""
        documents = await self._store.get(self._collection, ids)
        return {id: self._decode(document.body) for id, document in documents.items()}

    async def load_by(self, field: str, values: SizedIterable[IndexValue], limit: int) -> list[R]:
        """Return the records whose field equals one of some values; at most ``limit``."""
        if not values:
            return []
        documents = await self._store.find_in(self._collection, field, values, limit=limit)
        return [self._decode(document.body) for document in documents]

    async def page(
        self, field: str, low: IndexValue, high: IndexValue, limit: int, cursor: str | None = None
    ) -> RecordPage[R]:
        """Return a page of the records whose field lies between two values, both included."""
        page = await self._store.find(self._collection, field, low, high, limit=limit, cursor=cursor)
        ids = tuple(one.id for one in page.documents)
        return RecordPage(ids, tuple(self._decode(one.body) for one in page.documents), page.next)

    async def put(self, id: str, record: R, before: int, entry: Entry | None = None) -> bool:
        """Write a record over revision ``before`` with its audit entry; False: somebody was first."""
        entries = () if entry is None else (entry,)
        write = Write(self._collection, id, before, _encode(record), self._index(record), entries=entries)
        return not await self._store.commit([write])

    async def take(self, id: str, before: int, entry: Entry | None = None) -> bool:
        """Delete the record that has this revision; of all who try it, one gets True."""
        entries = () if entry is None else (entry,)
        return not await self._store.commit([Write(self._collection, id, before, None, entries=entries)])

    async def append(self, entry: Entry) -> None:
        """Write the row of an act that changes no record."""
        await self._store.append([entry])

    async def sweep(self, field: str, until_ms: int, limit: int) -> int:
        """Delete records whose field is at most ``until_ms``; return how many."""
        page = await self._store.find(self._collection, field, 0, until_ms, limit=limit)
        writes = [Write(self._collection, one.id, one.revision, None) for one in page.documents]
        if not writes:
            return 0
        return len(writes) - len(await self._store.commit(writes))

    def _kept(self, document: Document) -> Kept[R]:
        return Kept(self._decode(document.body), document.revision)
