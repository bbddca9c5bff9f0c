"""The journal of the SQLite store: what one group commit writes down, and reading it back.

A record holds all winning writes of one group. It is small and lies in one piece, where writing each
document and each log entry in its own place would touch a page for every one of them: this is what
makes a commit cheap. What is in the journal is folded into the tables later (`sqlite_fold`).
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from infra.documents.overlay import Overlay
from infra.documents.port import Cut, Entry, IndexValue, Write

CREATE: Final = "CREATE TABLE IF NOT EXISTS journal (seq INTEGER PRIMARY KEY, record BLOB NOT NULL)"

_Entry = tuple[str, str, int, int, bytes]


class _Cut(msgspec.Struct, array_like=True, frozen=True):
    """A cut; records of earlier versions have no ``first``."""

    log: str
    key: str
    below: int
    first: int = 0


_Write = tuple[str, str, int, bytes | None, Mapping[str, IndexValue], Sequence[_Entry], Sequence[_Cut]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(
    tuple[
        list[tuple[str, str, int, bytes | None, dict[str, str | int], list[_Entry], list[_Cut]]], list[_Entry]
    ]
).decode


class Recovered(NamedTuple):
    """What an earlier process committed and had not folded yet."""

    overlay: Overlay
    last_seq: int
    bytes: int


def record_of(writes: Sequence[Write], entries: Sequence[Entry]) -> bytes:
    """Return the record of writes that won and of entries that belong to no document."""
    return _encode(([_plain_write(write) for write in writes], [_plain_entry(entry) for entry in entries]))


def insert(connection: sqlite3.Connection, seq: int, record: bytes) -> None:
    """Add a record."""
    connection.execute("INSERT INTO journal VALUES (?, ?)", [seq, record])


def drop(connection: sqlite3.Connection, last_seq: int) -> None:
    """Remove the records up to ``last_seq``."""
    connection.execute("DELETE FROM journal WHERE seq <= ?", [last_seq])


def recover(connection: sqlite3.Connection) -> Recovered:
    """Read the whole journal."""
    overlay, last_seq, size = Overlay(), 0, 0
    for seq, record in connection.execute("SELECT seq, record FROM journal ORDER BY seq"):
        _replay(overlay, record)
        last_seq = seq
        size += len(record)
    return Recovered(overlay, last_seq, size)


def _replay(overlay: Overlay, record: bytes) -> None:
    writes, entries = _decode(record)
    for collection, id, expected, body, index, its_entries, cuts in writes:
        overlay.put(
            Write(
                collection,
                id,
                expected,
                body,
                index,
                [Entry(*entry) for entry in its_entries],
                [Cut(cut.log, cut.key, cut.below, cut.first) for cut in cuts],
            )
        )
    for entry in entries:
        overlay.add(Entry(*entry))


def _plain_write(write: Write) -> _Write:
    return (
        write.collection,
        write.id,
        write.expected,
        write.body,
        dict(write.index),
        [_plain_entry(entry) for entry in write.entries],
        [_Cut(cut.log, cut.key, cut.below, cut.first) for cut in write.cuts],
    )


def _plain_entry(entry: Entry) -> _Entry:
    return entry.log, entry.key, entry.number, entry.at_ms, entry.body
