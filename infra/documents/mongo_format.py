"""How documents and log rows are spelled in MongoDB, so that a single-field index gives each order.

```
index field    x_<field>:  type · value · END · id         ascending (value, id) by bytes alone
owed rows      o_<write>:  rows of that write, p: how many  until they are in their logs
log row        _id:        key · ':' · number              the rows of a key side by side
               t:          at_ms · key · END · number      ascending (at_ms, key, number)
```
A compound index would say the same; it is not used because not everything that speaks MongoDB's
protocol keeps one. Text compares by code point there as everywhere here. Pure.
"""

from typing import Any, Final

import msgspec
from pymongo import DeleteMany, DeleteOne, UpdateOne

from infra.documents.mongo_settle import WRITE_IDS_KEPT
from infra.documents.port import Cut, Document, Entry, IndexValue, Write

_END: Final = "\1\1"
_AFTER_END: Final = "\1\2"
_OFFSET: Final = 2**63
"""Makes a signed number sort as text."""
_TIME_CHARS: Final = 16

_OWED: Final = "o_"
_Row = tuple[str, str, int, int, bytes]
_packed: Final = msgspec.msgpack.Encoder().encode
_rows: Final = msgspec.msgpack.Decoder(list[_Row]).decode

Stored = dict[str, Any]
"""A document as the driver gives it."""


def index_key(value: IndexValue, id: str) -> str:
    """Return what the index field of a document holds."""
    return _start(value) + _END + id


def lowest(value: IndexValue) -> str:
    """Return where the keys of a value begin."""
    return _start(value) + _END


def beyond(value: IndexValue) -> str:
    """Return what is above all keys of a value and below those of the next."""
    return _start(value) + _AFTER_END


def value_of(index_key: str) -> IndexValue:
    """Return the value an index key was made of."""
    if index_key[0] == "i":
        return int(index_key[1 : 1 + _TIME_CHARS], 16) - _OFFSET
    return index_key[1 : index_key.index(_END)].replace(_AFTER_END, "\1")


def row_id(key: str, number: int) -> str:
    """Return the ``_id`` of a log row."""
    return f"{key}:{number:010d}"


def row_time(at_ms: int, key: str, number: int) -> str:
    """Return what the index of a log orders by."""
    return f"{_sortable(at_ms)}{_escape(key)}{_END}{number:010d}"


def time_start(at_ms: int) -> str:
    """Return where the rows of a time begin."""
    return _sortable(at_ms)


def document_of(stored: Stored, fields: tuple[str, ...]) -> Document:
    """Read a document."""
    index = {field: value_of(stored[f"x_{field}"]) for field in fields if f"x_{field}" in stored}
    return Document(stored["_id"], stored["r"], bytes(stored["b"]), index)


def entry_of(stored: Stored, log: str) -> Entry:
    """Read a log row."""
    at_ms = int(stored["t"][:_TIME_CHARS], 16) - _OFFSET
    return Entry(log, stored["k"], stored["n"], at_ms, bytes(stored["b"]))


def update_of(write: Write, write_id: int, fields: tuple[str, ...]) -> UpdateOne:
    """Return the compare-and-set that a write is. Revision 0 stands for a document that is gone."""
    index = {} if write.body is None else write.index
    values: dict[str, Any] = {f"x_{name}": index_key(value, write.id) for name, value in index.items()}
    values |= {"r": 0 if write.body is None else write.expected + 1, "b": write.body or b""}
    change: dict[str, Any] = {
        "$set": values,
        "$push": {"w": {"$each": [write_id], "$slice": -WRITE_IDS_KEPT}},
    }
    if owes(write):
        change["$inc"] = {"p": 1}
    if owes(write):
        values[f"{_OWED}{write_id}"] = _packed([_row(entry) for entry in write.entries])
    absent = {f"x_{field}": "" for field in fields if field not in index}
    if absent and write.expected:
        change["$unset"] = absent
    return UpdateOne({"_id": write.id, "r": write.expected}, change, upsert=not write.expected)


def owes(write: Write) -> bool:
    """Tell whether the document keeps the entries of this write until they are in their logs."""
    return bool(write.entries) and not write.retells


def owing() -> Stored:
    """Return what finds the documents that keep entries."""
    return {"p": {"$gt": 0}}


def owed_of(stored: Stored) -> dict[int, list[Entry]]:
    """Return the entries that a document keeps until they are in their logs, by write id."""
    return {
        int(name.removeprefix(_OWED)): [Entry(*row) for row in _rows(bytes(value))]
        for name, value in stored.items()
        if name.startswith(_OWED)
    }


def payment_of(id: str, write_id: int) -> UpdateOne:
    """Return what makes a document forget the entries of a write; doing it twice does nothing."""
    name = f"{_OWED}{write_id}"
    return UpdateOne({"_id": id, name: {"$exists": True}}, {"$unset": {name: ""}, "$inc": {"p": -1}})


def removals_of(id: str) -> list[DeleteOne]:
    """Return what takes a document away that is gone and keeps no entries."""
    return [DeleteOne({"_id": id, "r": 0, "p": {"$exists": False}}), DeleteOne({"_id": id, "r": 0, "p": 0})]


def upsert_of(entry: Entry) -> UpdateOne:
    """Return what writes a log row; doing it twice does nothing."""
    row = {
        "k": entry.key,
        "n": entry.number,
        "t": row_time(entry.at_ms, entry.key, entry.number),
        "b": entry.body,
    }
    return UpdateOne({"_id": row_id(entry.key, entry.number)}, {"$set": row}, upsert=True)


def deletion_of(cut: Cut) -> DeleteMany:
    """Return what deletes the rows of a cut."""
    first, last = row_id(cut.key, cut.first), row_id(cut.key, cut.below - 1)
    return DeleteMany({"_id": {"$gte": first, "$lte": last}, "k": cut.key})


def _row(entry: Entry) -> _Row:
    return entry.log, entry.key, entry.number, entry.at_ms, entry.body


def _start(value: IndexValue) -> str:
    return "s" + _escape(value) if isinstance(value, str) else "i" + _sortable(value)


def _escape(text: str) -> str:
    # No text ends another way than with _END, and _END sorts below whatever may follow instead.
    return text.replace("\1", _AFTER_END)


def _sortable(number: int) -> str:
    return f"{number + _OFFSET:016x}"
