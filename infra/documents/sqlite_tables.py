"""The tables of the SQLite store and every statement that touches them, but for the journal.

```
d_<collection>  n INTEGER PRIMARY KEY · id · revision · body · x_<field> …   a row a document
k_<log>         n INTEGER PRIMARY KEY · key                                  a row a log key
l_<log>         r = n << 31 | number · at_ms · body                          rows of a key lie side by side
```
One statement writes many rows, in *one step*: each step gives up the interpreter lock and has to win it
back from a busy event loop. Row by row, the slowest of 100 commits took four times as long (measured).
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, TypeVar

import msgspec

from infra.documents.checks import NUMBER_MAX, sort_key
from infra.documents.layers import DocumentKey, EntryKey, entry_key
from infra.documents.port import Cut, Document, Entry, IndexValue, Write

CHUNK_ROWS: Final = 128
"""Rows of one statement. More costs a longer pause between two commits and gains little."""
NUMBER_BITS: Final = 31
_SIZES: Final = (CHUNK_ROWS, 32, 8, 1)
"""Statements are prepared for these numbers of rows only; a rest is made up of smaller ones."""

T = TypeVar("T")
_json = msgspec.json.Encoder().encode
_revisions = msgspec.json.Decoder(dict[str, int]).decode


@dataclass(frozen=True)
class DocumentTable:
    """The documents of one collection."""

    collection: str
    fields: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"d_{self.collection}"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return ("id", "revision", "body", *(f"x_{field}" for field in self.fields))

    @cached_property
    def selected(self) -> str:
        return ", ".join(f"d.{column}" for column in self.columns)

    def create(self, connection: sqlite3.Connection) -> None:
        """Make the table, or add what it lacks."""
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self.name} (n INTEGER PRIMARY KEY, id TEXT NOT NULL,"
            " revision INTEGER NOT NULL, body BLOB NOT NULL)"
        )
        connection.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS {self.name}_id ON {self.name} (id)")
        there = _fields_of(connection, self.name)
        for field in self.fields:
            if field not in there:
                connection.execute(f"ALTER TABLE {self.name} ADD COLUMN x_{field}")
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS {self.name}_x_{field} ON {self.name} (x_{field}, id)"
                f" WHERE x_{field} IS NOT NULL"
            )

    def put(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> None:
        """Make the rows of at most ``CHUNK_ROWS`` documents say what the writes say."""
        rows = [
            (write.id, write.expected + 1, write.body, *(write.index.get(field) for field in self.fields))
            for write in writes
        ]
        for chunk in in_sizes(rows):
            values = [value for row in chunk for value in row]
            # First the rows whose index values stay as they are: naming an indexed column in SET
            # makes SQLite write its index again, whether or not the value changed.
            done = connection.execute(self._update(len(chunk)), values).rowcount
            if done < len(chunk):
                connection.execute(self._insert(len(chunk)), values)

    def delete(self, connection: sqlite3.Connection, ids: Sequence[str]) -> None:
        connection.execute(
            f"DELETE FROM {self.name} WHERE id IN (SELECT value FROM json_each(?))", [_text(ids)]
        )

    def revisions(self, connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, int]:
        """Return the revisions of the documents that exist."""
        sql = (
            f"SELECT json_group_object(d.id, d.revision) FROM json_each(?) AS j"
            f" CROSS JOIN {self.name} AS d ON d.id = j.value"
        )
        return _revisions(connection.execute(sql, [_text(ids)]).fetchone()[0])

    def get(self, connection: sqlite3.Connection, ids: Sequence[str]) -> list[Document]:
        sql = f"SELECT {self.selected} FROM json_each(?) AS j CROSS JOIN {self.name} AS d ON d.id = j.value"
        return [self._document(row) for row in connection.execute(sql, [_text(ids)]).fetchall()]

    def between(
        self,
        connection: sqlite3.Connection,
        field: str,
        low: IndexValue,
        high: IndexValue,
        after: DocumentKey | None,
        n: int,
    ) -> list[tuple[DocumentKey, Document]]:
        """Return the first n documents in a range, after a key."""
        start = f"(x_{field}, id) > (?, ?)" if after else f"x_{field} >= ?"
        sql = (
            f"SELECT {self.selected} FROM {self.name} AS d WHERE {start} AND x_{field} <= ?"
            f" ORDER BY x_{field}, id LIMIT ?"
        )
        first = after[1:] if after else (low,)
        return self._hits(field, connection.execute(sql, [*first, high, n]).fetchall())

    def count(
        self,
        connection: sqlite3.Connection,
        field: str,
        low: IndexValue,
        high: IndexValue,
        without: Collection[str],
        at_most: int,
    ) -> int:
        """Return how many documents in a range are none of these, counted no further than ``at_most``."""
        but = "AND id NOT IN (SELECT value FROM json_each(?))" if without else ""
        sql = (
            f"SELECT count(*) FROM (SELECT 1 FROM {self.name} WHERE x_{field} BETWEEN ? AND ? {but} LIMIT ?)"
        )
        left_out = (_text(list(without)),) if without else ()
        (counted,) = connection.execute(sql, [low, high, *left_out, at_most]).fetchone()
        return int(counted)

    def among(
        self,
        connection: sqlite3.Connection,
        field: str,
        values: Sequence[IndexValue],
        after: DocumentKey | None,
        n: int,
    ) -> list[tuple[DocumentKey, Document]]:
        """Return the first n documents with one of the values, after a key."""
        start = f"AND (d.x_{field}, d.id) > (?, ?)" if after else ""
        sql = (
            f"SELECT {self.selected} FROM json_each(?) AS j CROSS JOIN {self.name} AS d"
            f" ON d.x_{field} = j.value {start} ORDER BY d.x_{field}, d.id LIMIT ?"
        )
        first = after[1:] if after else ()
        return self._hits(field, connection.execute(sql, [_text(values), *first, n]).fetchall())

    @lru_cache(maxsize=64)  # noqa: B019 - a handful of tables, alive as long as the process
    def _update(self, n: int) -> str:
        same = "".join(f" AND x_{field} IS v.column{i}" for i, field in enumerate(self.fields, 4))
        return (
            f"UPDATE {self.name} INDEXED BY {self.name}_id SET revision = v.column2, body = v.column3"
            f" FROM ({_values(n, 3 + len(self.fields))}) AS v WHERE id = v.column1{same}"
        )

    @lru_cache(maxsize=64)  # noqa: B019 - as above
    def _insert(self, n: int) -> str:
        columns = [f"x_{field}" for field in self.fields]
        assign = ", ".join(f"{name} = excluded.{name}" for name in ["revision", "body", *columns])
        differ = " OR ".join(f"{name} IS NOT excluded.{name}" for name in columns) or "FALSE"
        return (
            f"INSERT INTO {self.name} ({', '.join(self.columns)}) {_values(n, 3 + len(self.fields))}"
            f" ON CONFLICT (id) DO UPDATE SET {assign} WHERE {differ}"
        )

    def _document(self, row: tuple[str, int, bytes, *tuple[IndexValue | None, ...]]) -> Document:
        id, revision, body, *values = row
        index = {field: value for field, value in zip(self.fields, values, strict=True) if value is not None}
        return Document(id, revision, body, index)

    def _hits(
        self, field: str, rows: Sequence[tuple[str, int, bytes, *tuple[IndexValue | None, ...]]]
    ) -> list[tuple[DocumentKey, Document]]:
        documents = [self._document(row) for row in rows]
        return [(sort_key(document.index[field], document.id), document) for document in documents]


@dataclass(frozen=True)
class LogTable:
    """The entries of one log."""

    log: str

    def create(self, connection: sqlite3.Connection) -> None:
        """Make the tables if they are not there."""
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS k_{self.log} (n INTEGER PRIMARY KEY, key TEXT NOT NULL)"
        )
        connection.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS k_{self.log}_key ON k_{self.log} (key)")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS l_{self.log}"
            " (r INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, body BLOB NOT NULL)"
        )
        connection.execute(f"CREATE INDEX IF NOT EXISTS l_{self.log}_at ON l_{self.log} (at_ms)")

    def put(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        """Write at most ``CHUNK_ROWS`` entries, over what is there already."""
        keys = _text(list({entry.key for entry in entries}))
        connection.execute(
            f"INSERT INTO k_{self.log} (key) SELECT value FROM json_each(?) WHERE TRUE"
            " ON CONFLICT (key) DO NOTHING",
            [keys],
        )
        rows = [(entry.key, entry.number, entry.at_ms, entry.body) for entry in entries]
        for chunk in in_sizes(rows):
            connection.execute(self._insert(len(chunk)), [value for row in chunk for value in row])

    def cut(self, connection: sqlite3.Connection, cuts: Sequence[Cut]) -> None:
        """Delete spans of entries, and the keys that have none left."""
        spans = _text([(cut.key, cut.below, cut.first) for cut in cuts])
        connection.execute(
            f"DELETE FROM l_{self.log} WHERE r IN (SELECT l.r FROM json_each(?) AS j"
            f" CROSS JOIN k_{self.log} AS k ON k.key = j.value ->> 0"
            f" CROSS JOIN l_{self.log} AS l ON l.r >= (k.n << {NUMBER_BITS}) + (j.value ->> 2)"
            f" AND l.r < (k.n << {NUMBER_BITS}) + (j.value ->> 1))",
            [spans],
        )
        connection.execute(
            f"DELETE FROM k_{self.log} WHERE key IN (SELECT value ->> 0 FROM json_each(?)) AND NOT EXISTS"
            f" (SELECT 1 FROM l_{self.log} AS l"
            f" WHERE l.r BETWEEN n << {NUMBER_BITS} AND (n << {NUMBER_BITS}) + {NUMBER_MAX})",
            [spans],
        )

    def read(
        self, connection: sqlite3.Connection, key: str, first: int, last: int, n: int, *, newest_first: bool
    ) -> list[Entry]:
        """Return the first n entries of a key in a range, from either end."""
        sql = (
            f"SELECT l.r & {NUMBER_MAX}, l.at_ms, l.body FROM k_{self.log} AS k"
            f" CROSS JOIN l_{self.log} AS l ON l.r BETWEEN (k.n << {NUMBER_BITS}) + ?"
            f" AND (k.n << {NUMBER_BITS}) + ? WHERE k.key = ?"
            f" ORDER BY l.r {'DESC' if newest_first else 'ASC'} LIMIT ?"
        )
        rows = connection.execute(sql, [first, min(last, NUMBER_MAX), key, n]).fetchall()
        return [Entry(self.log, key, number, at_ms, body) for number, at_ms, body in rows]

    def between(
        self, connection: sqlite3.Connection, from_ms: int, to_ms: int, after: EntryKey | None, n: int
    ) -> list[tuple[EntryKey, Entry]]:
        """Return the first n entries of all keys in a range of time, after a key."""
        start = f"AND (l.at_ms, k.key, l.r & {NUMBER_MAX}) > (?, ?, ?)" if after else ""
        sql = (
            f"SELECT k.key, l.r & {NUMBER_MAX}, l.at_ms, l.body FROM l_{self.log} AS l"
            f" CROSS JOIN k_{self.log} AS k ON k.n = l.r >> {NUMBER_BITS}"
            f" WHERE l.at_ms BETWEEN ? AND ? {start}"
            f" ORDER BY l.at_ms, k.key, l.r LIMIT ?"
        )
        begin = max(from_ms, after[0]) if after else from_ms
        rows = connection.execute(sql, [begin, to_ms, *(after or ()), n]).fetchall()
        entries = [Entry(self.log, key, number, at_ms, body) for key, number, at_ms, body in rows]
        return [(entry_key(entry), entry) for entry in entries]

    @lru_cache(maxsize=8)  # noqa: B019 - a handful of tables, alive as long as the process
    def _insert(self, n: int) -> str:
        return (
            f"INSERT OR REPLACE INTO l_{self.log}"
            f" SELECT (k.n << {NUMBER_BITS}) + v.column2, v.column3, v.column4"
            f" FROM ({_values(n, 4)}) AS v CROSS JOIN k_{self.log} AS k ON k.key = v.column1"
        )


class Tables:
    """All tables of a file: those the store was opened with, and those that are there already.

    The journal may hold what an earlier process wrote to a table, or into a column, that this one
    does not ask for.
    """

    def __init__(
        self, connection: sqlite3.Connection, fields: Mapping[str, tuple[str, ...]], logs: Iterable[str]
    ) -> None:
        there = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        known = {name[2:]: _fields_of(connection, name) for name in there if name.startswith("d_")}
        for name, wanted in fields.items():
            known[name] = tuple(dict.fromkeys((*known.get(name, ()), *wanted)))
        self.documents = {name: DocumentTable(name, its_fields) for name, its_fields in known.items()}
        known_logs = {name[2:] for name in there if name.startswith("l_")} | set(logs)
        self.logs = {log: LogTable(log) for log in known_logs}
        for table in self.documents.values():
            table.create(connection)
        for log in self.logs.values():
            log.create(connection)


def _fields_of(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    return tuple(name[2:] for name in columns if name.startswith("x_"))


def in_sizes(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut rows into pieces for which there are prepared statements."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def _values(rows: int, columns: int) -> str:
    row = "(" + ", ".join(["?"] * columns) + ")"
    return "VALUES " + ", ".join([row] * rows)


def _text(value: object) -> str:
    return _json(value).decode()
