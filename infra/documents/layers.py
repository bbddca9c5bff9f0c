"""Reading overlays and what lies beneath them as if they were one.

```
    newest overlay     takes the writes of now                  ┐
    older overlay      full, being folded into the tables       │ layers, newest first
    tables (beneath)   everything older                         ┘
```
A document in a layer covers the same document further down. A reader first takes hold of the layers,
then reads beneath, then looks into the layers it holds: what leaves a layer has reached the tables
before, so nothing can be missed, and what is folded meanwhile is only met twice. Pure.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from infra.documents.checks import sort_key
from infra.documents.overlay import Overlay, Rows, document_of
from infra.documents.port import Document, Entry, IndexValue, Write

Layers = tuple[Overlay, ...]
"""Newest first."""
DocumentKey = tuple[bool, IndexValue, str]
EntryKey = tuple[int, str, int]
K = TypeVar("K", DocumentKey, EntryKey)
V = TypeVar("V", Document, Entry)

BENEATH_ROWS: Final = 256
"""Rows read beneath over what is wanted, as some may be covered."""


_UNLOCKED: Final = nullcontext()


def _nothing(_after: object, _n: int) -> list[Any]:
    return []


def _never(_value: object) -> bool:
    return False


@dataclass(frozen=True)  # no slots: with them Python 3.11 cannot make a frozen Generic by `Search[K, V](…)`
class Search(Generic[K, V]):
    """One search: how to read beneath, how to look into the layers, what the layers cover."""

    above: Callable[[K | None], Iterable[tuple[K, V]]]
    """Return all in the layers after a key, in no order."""
    beneath: Callable[[K | None, int], list[tuple[K, V]]] = _nothing
    """Return the first n after a key, ascending."""
    covered: Callable[[V], bool] = _never
    """Tell whether the layers know better than what was read beneath."""
    lock: AbstractContextManager[object] = _UNLOCKED
    """Keeps writers out of the layers."""


def take(search: Search[K, V], limit: int, after: K | None = None) -> tuple[list[V], K | None]:
    """Return the first ``limit`` after a key, ascending, and the last key if there are more."""
    found: list[tuple[K, V]] = []
    while True:
        wanted = limit + 1 - len(found)
        rows = search.beneath(after, wanted + BENEATH_ROWS)
        with search.lock:
            hits = heapq.nsmallest(wanted, search.above(after), key=_key)
            hits += [row for row in rows if not search.covered(row[1])]
        complete = len(rows) < wanted + BENEATH_ROWS
        if not complete:
            after = rows[-1][0]
            hits = [hit for hit in hits if hit[0] <= after]
        found += sorted(hits, key=_key)[:wanted]
        if complete or len(found) > limit:
            break
    more = found[limit - 1][0] if len(found) > limit else None
    return [value for _, value in found[:limit]], more


def newest(layers: Layers, collection: str, id: str) -> Write | None:
    """Return the last write of a document in the layers, which may be its deletion."""
    for layer in layers:
        write = layer.last_write(collection, id)
        if write is not None:
            return write
    return None


def matches(
    layers: Layers, collection: str, field: str, low: IndexValue, high: IndexValue, after: DocumentKey | None
) -> Iterator[tuple[DocumentKey, Document]]:
    """Yield the documents of the layers in a range of an indexed field, after a key."""
    for depth, layer in enumerate(layers):
        for value, id in layer.matches(collection, field, low, high):
            key = sort_key(value, id)
            if (after is None or key > after) and newest(layers[:depth], collection, id) is None:
                document = document_of(layer.documents[collection][id])
                assert document is not None, "a deleted document is not indexed"
                yield key, document


def number(
    layers: Layers, collection: str, field: str, low: IndexValue, high: IndexValue, at_most: int
) -> int:
    """Return how many documents of the layers are in a range of an indexed field, up to ``at_most``."""
    there = (
        id
        for depth, layer in enumerate(layers)
        for _, id in layer.matches(collection, field, low, high)
        if newest(layers[:depth], collection, id) is None
    )
    return sum(1 for _ in islice(there, at_most))


def ids(layers: Layers, collection: str) -> set[str]:
    """Return the documents of which the layers know better than what lies beneath."""
    return {id for layer in layers for id in layer.documents.get(collection, ())}


def entries(
    layers: Layers, log: str, from_ms: int, to_ms: int, after: EntryKey | None
) -> Iterator[tuple[EntryKey, Entry]]:
    """Yield the entries of the layers in a range of time, after a key."""
    for depth, layer in enumerate(layers):
        for entry in layer.entries(log, from_ms, to_ms):
            key = entry_key(entry)
            if (after is None or key > after) and not covers(layers[:depth], entry):
                yield key, entry


def covers(layers: Layers, entry: Entry) -> bool:
    """Tell whether the layers replace or drop an entry from beneath."""
    for layer in layers:
        rows = layer.rows_of(entry.log, entry.key)
        if rows is not None and rows.hides(entry.number):
            return True
    return False


def rows_of(layers: Layers, log: str, key: str, first: int, last: int) -> Rows:
    """Return what the layers together know of a part of a key."""
    known = Rows()
    for layer in reversed(layers):
        rows = layer.rows_of(log, key)
        if rows is not None:
            known.cut(rows.below)
            known.drop(number for number in rows.gone if first <= number <= last)
            for number, entry in rows.entries.items():
                if first <= number <= last:
                    known.add(entry)
    return known


def entry_key(entry: Entry) -> EntryKey:
    """Order entries as every adapter does."""
    return entry.at_ms, entry.key, entry.number


def _key(hit: tuple[K, V]) -> K:
    return hit[0]
