"""Folding: bringing a full overlay into the tables, in small pieces between commits.

All of it may be done again after a crash: the overlay is made from the journal anew, and each piece
only puts rows into the state they are to have in the end. So the journal goes when all pieces are in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from sqlite3 import Connection
from typing import TypeVar

from infra.documents.overlay import Overlay, Rows
from infra.documents.port import Cut, Entry, Write
from infra.documents.sqlite_tables import CHUNK_ROWS, DocumentTable, LogTable, Tables

T = TypeVar("T")
Piece = tuple[int, Callable[[Connection], None]]
"""Number of rows, and what writes them."""


class Fold:
    """An overlay on its way into the tables. ``done`` counts the pieces that are committed."""

    __slots__ = ("done", "last_seq", "pieces")

    def __init__(self, overlay: Overlay, last_seq: int, tables: Tables) -> None:
        self.last_seq = last_seq
        self.pieces = list(_pieces(overlay, tables))
        self.done = 0

    def goal(self, share: float) -> int:
        """Return how many pieces are to be done when ``share`` of the time is over."""
        return max(self.done, min(len(self.pieces), int(len(self.pieces) * share)))

    def write(self, connection: Connection, goal: int) -> int:
        """Write the pieces up to ``goal``; return the number of rows. Counts nothing as done yet."""
        rows = 0
        for its_rows, write in self.pieces[self.done : goal]:
            write(connection)
            rows += its_rows
        return rows


def _pieces(overlay: Overlay, tables: Tables) -> Iterator[Piece]:
    """Cut first: an entry may have been written again below the cut of its key.

    Sorted by id and key, so that rows which lie side by side are written together. No more than that
    is done here, as it is done at one go.
    """
    for log, keys in overlay.rows.items():
        for some in _chunks(sorted(key for key, rows in keys.items() if rows.below or rows.gone)):
            yield len(some), partial(_cut, tables.logs[log], keys, some)
    for name, writes in overlay.documents.items():
        for some in _chunks(sorted(writes)):
            yield len(some), partial(_put_documents, tables.documents[name], writes, some)
    for log, keys in overlay.rows.items():
        entries = [entry for key in sorted(keys) for entry in keys[key].entries.values()]
        for its_entries in _chunks(entries):
            yield len(its_entries), partial(_put_entries, tables.logs[log], its_entries)


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), CHUNK_ROWS):
        yield items[start : start + CHUNK_ROWS]


def _cut(table: LogTable, rows: Mapping[str, Rows], keys: Sequence[str], connection: Connection) -> None:
    for some in _chunks([cut for key in keys for cut in _cuts(table.log, key, rows[key])]):
        table.cut(connection, some)


def _cuts(log: str, key: str, rows: Rows) -> Iterator[Cut]:
    if rows.below:
        yield Cut(log, key, rows.below)
    for number in sorted(rows.gone):
        yield Cut(log, key, number + 1, number)


def _put_documents(
    table: DocumentTable, writes: Mapping[str, Write], ids: Sequence[str], connection: Connection
) -> None:
    some = [writes[id] for id in ids]
    gone = [write.id for write in some if write.body is None]
    if gone:
        table.delete(connection, gone)
    table.put(connection, [write for write in some if write.body is not None])


def _put_entries(table: LogTable, entries: Sequence[Entry], connection: Connection) -> None:
    table.put(connection, entries)
