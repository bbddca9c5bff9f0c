"""The memory store: for tests and simulations, where durability is not the question.

It keeps every promise of the port but the one on power loss. Single-threaded: it lives on one event
loop, and no method awaits between reading and writing.
"""

from collections.abc import Collection as SizedIterable
from collections.abc import Sequence

from infra.documents import cursors, layers
from infra.documents.checks import Layout, sort_key
from infra.documents.layers import DocumentKey, EntryKey, Search, entry_key
from infra.documents.overlay import Overlay, document_of, revision_of
from infra.documents.port import (
    Collection,
    Document,
    Entry,
    EntryPage,
    IndexValue,
    Page,
    StoreUnavailableError,
    Write,
)


class MemoryStore:
    """Documents and logs in one overlay over nothing."""

    def __init__(self, collections: Sequence[Collection], logs: Sequence[str]) -> None:
        self._layout = Layout.of(collections, logs)
        self._overlay = Overlay()
        self._closed = False

    @property
    def exclusive(self) -> bool:
        return True

    @property
    def description(self) -> str:
        return "memory (nothing survives)"

    async def get(self, collection: str, ids: SizedIterable[str]) -> dict[str, Document]:
        self._check_open()
        self._layout.check_ids(collection, ids)
        writes = (self._overlay.last_write(collection, id) for id in ids)
        documents = (document_of(write) for write in writes if write is not None)
        return {document.id: document for document in documents if document is not None}

    async def commit(self, writes: Sequence[Write]) -> frozenset[int]:
        self._check_open()
        self._layout.check_writes(writes)
        lost = frozenset(position for position, write in enumerate(writes) if self._loses(write))
        for position, write in enumerate(writes):
            if position not in lost:
                self._overlay.put(write)
                self._overlay.prune(write)
        return lost

    async def append(self, entries: Sequence[Entry]) -> None:
        self._check_open()
        self._layout.check_entries(entries)
        for entry in entries:
            self._overlay.add(entry)

    async def find(
        self,
        collection: str,
        field: str,
        low: IndexValue,
        high: IndexValue,
        *,
        limit: int,
        cursor: str | None = None,
    ) -> Page:
        self._check_open()
        self._layout.check_find(collection, field, low, high, limit)
        search = (collection, field, low, high)
        after = None if cursor is None else sort_key(*cursors.after_document(cursor, search))
        found, last = layers.take(self._search(collection, field, [(low, high)]), limit, after)
        return Page(tuple(found), last and cursors.make(search, last[1:]))

    async def count(
        self, collection: str, field: str, low: IndexValue, high: IndexValue, *, at_most: int
    ) -> int:
        self._check_open()
        self._layout.check_count(collection, field, low, high, at_most)
        return layers.number((self._overlay,), collection, field, low, high, at_most)

    async def find_in(
        self, collection: str, field: str, values: SizedIterable[IndexValue], *, limit: int
    ) -> list[Document]:
        self._check_open()
        self._layout.check_find_in(collection, field, values, limit)
        ranges = [(value, value) for value in dict.fromkeys(values)]
        return layers.take(self._search(collection, field, ranges), limit)[0]

    async def read(
        self, log: str, key: str, first: int, last: int, *, limit: int, newest_first: bool = False
    ) -> list[Entry]:
        self._check_open()
        self._layout.check_log(log, limit)
        rows = layers.rows_of((self._overlay,), log, key, first, last).entries
        return [rows[number] for number in sorted(rows, reverse=newest_first)[:limit]]

    async def scan(
        self, log: str, from_ms: int, to_ms: int, *, limit: int, cursor: str | None = None
    ) -> EntryPage:
        self._check_open()
        self._layout.check_log(log, limit)
        asked = (log, from_ms, to_ms)
        after = None if cursor is None else cursors.after_entry(cursor, asked)
        search = Search[EntryKey, Entry](
            above=lambda after: layers.entries((self._overlay,), log, from_ms, to_ms, after)
        )
        found, last = layers.take(search, limit, after)
        return EntryPage(tuple(found), last and cursors.make(asked, entry_key(found[-1])))

    async def close(self) -> None:
        self._closed = True

    def _loses(self, write: Write) -> bool:
        before = self._overlay.last_write(write.collection, write.id)
        return write.expected != (0 if before is None else revision_of(before))

    def _search(
        self, collection: str, field: str, ranges: Sequence[tuple[IndexValue, IndexValue]]
    ) -> Search[DocumentKey, Document]:
        here = (self._overlay,)
        return Search(
            above=lambda after: (
                hit
                for low, high in ranges
                for hit in layers.matches(here, collection, field, low, high, after)
            )
        )

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the store is closed")
