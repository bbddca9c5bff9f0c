"""The document store port: what every adapter promises, and all that callers may ask for.

The port is small on purpose, so that the same code is right on SQLite, on a MongoDB replica set and
on a sharded cluster: single-document compare-and-set, logs whose rows travel with the document that
owns them, look-ups by id or by *one* indexed field. No transactions over documents, no queries into
bodies: a body is opaque bytes. Adapters live beside this file; nothing else may import a driver.
"""

from collections.abc import Collection as SizedIterable
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

IDS_MAX = 10_000
"""Ids (or values) one look-up may name."""
PAGE_MAX = 1_000
"""Documents or entries one page may hold."""
COUNT_MAX = 1_000_000_000
"""How far a count may go."""
CUT_SPAN_MAX = 1_000
"""Numbers that one cut names where it does not begin at 0."""

IndexValue = str | int


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of documents and the fields it can be searched by."""

    name: str
    indexed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A stored document. ``revision`` is 1 at creation and rises by 1 with every write."""

    id: str
    revision: int
    body: bytes
    index: Mapping[str, IndexValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of an append-only log, known by (log, key, number). ``number`` is 0 … 2**31-1."""

    log: str
    key: str
    number: int
    at_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """Drop the entries of one key numbered from ``first`` to below ``below``.

    From 0 that is everything old; from a higher one it is a span of at most :data:`CUT_SPAN_MAX` numbers.
    """

    log: str
    key: str
    below: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Write:
    """Put ``body`` in place of revision ``expected``; 0 means the document must not exist yet.

    ``body`` None deletes. Entries and cuts take effect if and only if the write wins. An entry that
    is there already is replaced: a repeated write stores the same bytes. A crash may be followed by entries
    that are written a little later, and by cuts that are never made. ``retells``: the document itself tells
    which of its entries are missing, and its owner writes them again, so the store need not see to it.
    """

    collection: str
    id: str
    expected: int
    body: bytes | None
    index: Mapping[str, IndexValue] = field(default_factory=dict)
    entries: Sequence[Entry] = ()
    cuts: Sequence[Cut] = ()
    retells: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Documents in ascending (value, id) order; ``next`` continues after the last, None = no more."""

    documents: tuple[Document, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Entries in ascending (at_ms, key, number) order; ``next`` as in :class:`Page`."""

    entries: tuple[Entry, ...]
    next: str | None


class StoreError(Exception):
    """The store did not do what was asked."""


class StoreUnavailableError(StoreError):
    """Down, full or too slow: nothing was accepted as far as we know; the caller may try again later."""


class StoreBrokenError(StoreError):
    """An fsync failed: what is on disk is unknown. The process must stop and read the disk again."""


class InvalidCursorError(StoreError):
    """The cursor was not made by this search."""


class DocumentStore(Protocol):
    """Durable documents and logs. Each method raises :class:`StoreUnavailableError` when it cannot answer."""

    @property
    def exclusive(self) -> bool:
        """True when no other process can write here, so a cached document cannot be outdated."""
        ...

    @property
    def description(self) -> str:
        """For people: adapter, version and place, without credentials."""
        ...

    async def get(self, collection: str, ids: SizedIterable[str]) -> dict[str, Document]:
        """Return the documents that exist; reads see every commit that was acknowledged."""
        ...

    async def commit(self, writes: Sequence[Write]) -> frozenset[int]:
        """Apply the writes durably and return the positions of those that lost their race.

        Each write stands alone (compare-and-set on (id, revision)); the others are not undone by a
        lost one. At most one write per document. When this returns, the winners survive power loss.
        """
        ...

    async def append(self, entries: Sequence[Entry]) -> None:
        """Write entries that belong to no document, durably."""
        ...

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
        """Documents whose indexed ``field`` is between ``low`` and ``high``, both included."""
        ...

    async def count(
        self, collection: str, field: str, low: IndexValue, high: IndexValue, *, at_most: int
    ) -> int:
        """How many documents :meth:`find` would name on all its pages, counted up to ``at_most``."""
        ...

    async def find_in(
        self, collection: str, field: str, values: SizedIterable[IndexValue], *, limit: int
    ) -> list[Document]:
        """Documents whose indexed ``field`` equals one of ``values``; at most ``limit`` of them."""
        ...

    async def read(
        self, log: str, key: str, first: int, last: int, *, limit: int, newest_first: bool = False
    ) -> list[Entry]:
        """Entries of ``key`` numbered ``first`` to ``last``, both included."""
        ...

    async def scan(
        self, log: str, from_ms: int, to_ms: int, *, limit: int, cursor: str | None = None
    ) -> EntryPage:
        """Entries of all keys with ``from_ms`` <= at_ms <= ``to_ms``."""
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of files and connections."""
        ...
