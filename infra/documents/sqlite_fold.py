"""Folding: bringing a full overlay into the tables, in small pieces between commits.

All of it may be done again after a crash: the overlay is made from the journal anew, and each piece
only puts rows into the state they are to have in the end. So the journal goes when all pieces are in.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TypeVar

from infra.documents.overlay import Overlay
from infra.documents.port import Cut
from infra.documents.sqlite_tables import CHUNK_ROWS, Tables

T = TypeVar("T")
Piece = tuple[int, Callable[[sqlite3.Connection], None]]
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

    def write(self, connection: sqlite3.Connection, goal: int) -> int:
        """Write the pieces up to ``goal``; return the number of rows. Counts nothing as done yet."""
        rows = 0
        for its_rows, write in self.pieces[self.done : goal]:
            write(connection)
            rows += its_rows
        return rows


def _pieces(overlay: Overlay, tables: Tables) -> Iterator[Piece]:
    """Cuts first: an entry may have been written again below the cut of its key."""
    cuts = [
        Cut(log, key, rows.below)
        for (log, key), rows in sorted(overlay.rows.items(), key=itemgetter(0))
        if rows.below
    ]
    for log, its_cuts in _by(attrgetter("log"), cuts):
        yield len(its_cuts), partial(_call, tables.logs[log].cut, its_cuts)
    # Sorted, so that rows which lie side by side are written together.
    writes = sorted(overlay.documents.values(), key=attrgetter("collection", "id"))
    for name, gone in _by(attrgetter("collection"), [write for write in writes if write.body is None]):
        yield len(gone), partial(_call, tables.documents[name].delete, [write.id for write in gone])
    for name, kept in _by(attrgetter("collection"), [write for write in writes if write.body is not None]):
        yield len(kept), partial(_call, tables.documents[name].put, kept)
    entries = [entry for place in sorted(overlay.rows) for entry in overlay.rows[place].entries.values()]
    for log, its_entries in _by(attrgetter("log"), entries):
        yield len(its_entries), partial(_call, tables.logs[log].put, its_entries)


def _call(
    write: Callable[[sqlite3.Connection, Sequence[T]], None],
    rows: Sequence[T],
    connection: sqlite3.Connection,
) -> None:
    write(connection, rows)


def _by(attribute: Callable[[T], str], items: Iterable[T]) -> Iterator[tuple[str, Sequence[T]]]:
    for name, group in groupby(items, attribute):
        some = list(group)
        for start in range(0, len(some), CHUNK_ROWS):
            yield name, some[start : start + CHUNK_ROWS]
