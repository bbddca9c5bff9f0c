"""The SQLite store: the embedded default. Durable, one process, no server.

How it is fast and right: `sqlite_writer` (group commit), `sqlite_journal` (what a commit writes),
`sqlite_fold` (how that gets into the tables), `layers` (how all of it is read as one).
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from collections.abc import Collection as SizedIterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeVar

from infra.documents import cursors, layers, sqlite_journal
from infra.documents.checks import Layout, sort_key
from infra.documents.layers import DocumentKey, EntryKey, Search
from infra.documents.overlay import document_of
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
from infra.documents.sqlite_files import FileLock, connect_reader, connect_writer, make_place, translate
from infra.documents.sqlite_tables import Tables
from infra.documents.sqlite_writer import Writer

ANSWER_TIMEOUT_S: Final = 1.7
"""A store that is silent for longer is as good as gone: the caller has to answer within 2 s."""
READS_WAITING_MAX: Final = 1_024
"""Reads that may wait for the reading thread."""

T = TypeVar("T")


class SqliteStore:
    """Documents and logs in one SQLite file."""

    @classmethod
    async def open(cls, path: Path, collections: Sequence[Collection], logs: Sequence[str]) -> "SqliteStore":
        """Open or create the file; refuse it if another process has it."""
        try:
            return await asyncio.to_thread(cls, path, Layout.of(collections, logs))
        except sqlite3.Error as error:
            raise translate(error) from error
        except OSError as error:
            raise StoreUnavailableError(f"cannot open {path}: {error}") from error

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path = path
        self._layout = layout
        make_place(path)
        with ExitStack() as undo:
            self._lock = FileLock(path)
            undo.callback(self._lock.release)
            connection = connect_writer(path)
            undo.callback(connection.close)
            connection.execute(sqlite_journal.CREATE)
            self._tables = Tables(connection, layout.fields, layout.logs)
            self._connection = connect_reader(path)
            undo.callback(self._connection.close)
            self._writer = Writer(connection, self._tables)
            undo.pop_all()
        self._reads_waiting = 0
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="sqlite-reader")

    @property
    def exclusive(self) -> bool:
        return True

    @property
    def description(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}, {self._path}"

    async def get(self, collection: str, ids: SizedIterable[str]) -> dict[str, Document]:
        self._writer.check_serving()
        self._layout.check_ids(collection, ids)
        found: dict[str, Document] = {}
        beneath: list[str] = []
        held = self._writer.layers
        for id in ids:
            write = layers.newest(held, collection, id)
            if write is None:
                beneath.append(id)
            elif (document := document_of(write)) is not None:
                found[id] = document
        if beneath:
            table = self._tables.documents[collection]
            for document in await self._read(lambda: table.get(self._connection, beneath)):
                found[document.id] = document
        return found

    async def commit(self, writes: Sequence[Write]) -> frozenset[int]:
        return await self._write(writes, (), self._layout.check_writes(writes))

    async def append(self, entries: Sequence[Entry]) -> None:
        await self._write((), entries, self._layout.check_entries(entries))

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
        self._layout.check_find(collection, field, low, high, limit)
        asked = (collection, field, low, high)
        after = None if cursor is None else sort_key(*cursors.after_document(cursor, asked))
        held = self._writer.layers
        table = self._tables.documents[collection]
        search = Search[DocumentKey, Document](
            above=lambda after: layers.matches(held, collection, field, low, high, after),
            beneath=lambda after, n: table.between(self._connection, field, low, high, after, n),
            covered=lambda document: layers.newest(held, collection, document.id) is not None,
            lock=self._writer.lock,
        )
        found, last = await self._read(lambda: layers.take(search, limit, after))
        return Page(tuple(found), last and cursors.make(asked, last[1:]))

    async def count(
        self, collection: str, field: str, low: IndexValue, high: IndexValue, *, at_most: int
    ) -> int:
        self._layout.check_count(collection, field, low, high, at_most)
        held = self._writer.layers
        table = self._tables.documents[collection]

        def both() -> int:
            # Both looks into the layers at one moment: what is written or folded after it is left out
            # beneath if it was there, and counted beneath as it is then if it was not.
            with self._writer.lock:
                above = layers.number(held, collection, field, low, high, at_most)
                covered = layers.ids(held, collection)
            return above + table.count(self._connection, field, low, high, covered, at_most - above)

        return await self._read(both)

    async def find_in(
        self, collection: str, field: str, values: SizedIterable[IndexValue], *, limit: int
    ) -> list[Document]:
        self._layout.check_find_in(collection, field, values, limit)
        distinct = list(dict.fromkeys(values))
        held = self._writer.layers
        table = self._tables.documents[collection]
        search = Search[DocumentKey, Document](
            above=lambda after: (
                hit
                for value in distinct
                for hit in layers.matches(held, collection, field, value, value, after)
            ),
            beneath=lambda after, n: table.among(self._connection, field, distinct, after, n),
            covered=lambda document: layers.newest(held, collection, document.id) is not None,
            lock=self._writer.lock,
        )
        return (await self._read(lambda: layers.take(search, limit)))[0]

    async def read(
        self, log: str, key: str, first: int, last: int, *, limit: int, newest_first: bool = False
    ) -> list[Entry]:
        self._layout.check_log(log, limit)
        held = self._writer.layers

        def both() -> list[Entry]:
            with self._writer.lock:
                above = layers.rows_of(held, log, key, first, last)
            beneath = self._tables.logs[log].read(
                self._connection,
                key,
                max(first, above.below, 0),
                last,
                limit + len(above.gone),
                newest_first=newest_first,
            )
            rows = {entry.number: entry for entry in beneath if not above.hides(entry.number)} | above.entries
            return [rows[number] for number in sorted(rows, reverse=newest_first)[:limit]]

        return await self._read(both)

    async def scan(
        self, log: str, from_ms: int, to_ms: int, *, limit: int, cursor: str | None = None
    ) -> EntryPage:
        self._layout.check_log(log, limit)
        asked = (log, from_ms, to_ms)
        after = None if cursor is None else cursors.after_entry(cursor, asked)
        held = self._writer.layers
        table = self._tables.logs[log]
        search = Search[EntryKey, Entry](
            above=lambda after: layers.entries(held, log, from_ms, to_ms, after),
            beneath=lambda after, n: table.between(self._connection, from_ms, to_ms, after, n),
            covered=lambda entry: layers.covers(held, entry),
            lock=self._writer.lock,
        )
        found, last = await self._read(lambda: layers.take(search, limit, after))
        return EntryPage(tuple(found), last and cursors.make(asked, last))

    async def close(self) -> None:
        """Write what waits, then let go of the file."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.stop()
        self._reader.shutdown()
        self._connection.close()
        self._writer.close()
        self._lock.release()

    async def _write(self, writes: Sequence[Write], entries: Sequence[Entry], size: int) -> frozenset[int]:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self._writer.submit(writes, entries, size)
        except TimeoutError:
            raise StoreUnavailableError(f"the disk did not answer within {ANSWER_TIMEOUT_S} s") from None

    async def _read(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the reading thread: it waits for no fsync, and the event loop not for it."""
        self._writer.check_serving()
        if self._reads_waiting >= READS_WAITING_MAX:
            raise StoreUnavailableError(f"{READS_WAITING_MAX} reads are waiting already: try again later")
        self._reads_waiting += 1
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._reader, work)
        except TimeoutError:
            raise StoreUnavailableError(f"the disk did not answer within {ANSWER_TIMEOUT_S} s") from None
        except sqlite3.Error as error:
            raise translate(error) from error
        finally:
            self._reads_waiting -= 1
