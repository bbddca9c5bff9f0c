"""Documents and log entries held in memory, lying over a store beneath, or over nothing.

The memory store is one overlay over nothing. The SQLite store keeps in overlays what it has committed
to its journal and not yet folded into its tables. Here live the data and the questions that one overlay
can answer; how several of them and a table are read together is in :mod:`infra.documents.layers`.
No I/O, no locks: the owner sees to it that nobody writes while somebody iterates.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from infra.documents.port import Cut, Document, Entry, IndexValue, Write


class Rows:
    """What is known of one key of a log: rows, and what beneath is gone: all below ``below``, and some."""

    __slots__ = ("below", "entries", "gone")

    def __init__(self) -> None:
        self.below = 0
        self.gone: set[int] = set()
        self.entries: dict[int, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Put an entry in its place."""
        self.gone.discard(entry.number)
        self.entries[entry.number] = entry

    def cut(self, below: int, first: int = 0) -> None:
        """Drop what is numbered from ``first`` to below ``below``, here and beneath."""
        if first:
            self.drop(range(first, below))
            return
        self.below = max(self.below, below)
        self.gone = {number for number in self.gone if number >= below}
        for number in [number for number in self.entries if number < below]:
            del self.entries[number]

    def drop(self, numbers: Iterable[int]) -> None:
        """Drop these, here and beneath."""
        for number in numbers:
            self.entries.pop(number, None)
            if number >= self.below:
                self.gone.add(number)

    def hides(self, number: int) -> bool:
        """Tell whether a row beneath is replaced or gone."""
        return number < self.below or number in self.entries or number in self.gone


class Overlay:
    """The newest state of the documents and log keys that were written since it was made."""

    __slots__ = ("_ids", "documents", "rows")

    def __init__(self) -> None:
        self.documents: defaultdict[str, dict[str, Write]] = defaultdict(dict)
        """The last winning write by collection and id; one without body says that the document is gone."""
        self.rows: defaultdict[str, dict[str, Rows]] = defaultdict(dict)
        """By log and key."""
        self._ids: dict[tuple[str, str], dict[IndexValue, set[str]]] = {}

    def put(self, write: Write) -> None:
        """Take over a write that won, with its entries and then its cuts."""
        documents = self.documents[write.collection]
        before = documents.get(write.id)
        old = _NOTHING if before is None or before.body is None else before.index
        new = _NOTHING if write.body is None else write.index
        documents[write.id] = write
        if old != new:
            self._reindex(write.collection, write.id, old, new)
        for entry in write.entries:
            self.add(entry)
        for cut in write.cuts:
            self.cut(cut)

    def add(self, entry: Entry) -> None:
        """Put an entry in its place, over one that is there already."""
        log = self.rows[entry.log]
        rows = log.get(entry.key)
        if rows is None:
            rows = log[entry.key] = Rows()
        rows.add(entry)

    def cut(self, cut: Cut) -> None:
        """Drop the oldest entries of a key."""
        self.rows[cut.log].setdefault(cut.key, Rows()).cut(cut.below, cut.first)

    def prune(self, write: Write) -> None:
        """Forget what ``write`` only says to be gone: right where nothing lies beneath."""
        if write.body is None:
            self.documents[write.collection].pop(write.id, None)
        for cut in write.cuts:
            rows = self.rows[cut.log].get(cut.key)
            if rows is None:
                continue
            rows.gone.clear()
            if not rows.entries:
                del self.rows[cut.log][cut.key]

    def last_write(self, collection: str, id: str) -> Write | None:
        """Return the last write of a document, which may be its deletion."""
        # Not `self.documents[collection]`: that would add to what another thread may iterate over.
        return self.documents.get(collection, _NO_WRITES).get(id)

    def rows_of(self, log: str, key: str) -> Rows | None:
        """Return what is known of a key."""
        return self.rows.get(log, _NO_ROWS).get(key)

    def matches(
        self, collection: str, field: str, low: IndexValue, high: IndexValue
    ) -> Iterator[tuple[IndexValue, str]]:
        """Yield (value, id) of the documents in a range, in no order."""
        by_value = self._ids.get((collection, field), {})
        values = [low] if low == high else [one for one in by_value if _within(low, one, high)]
        for value in values:
            for id in by_value.get(value, ()):
                yield value, id

    def entries(self, log: str, from_ms: int, to_ms: int) -> Iterator[Entry]:
        """Yield the entries of all keys in a range of time, in no order."""
        for rows in self.rows.get(log, _NO_ROWS).values():
            yield from (entry for entry in rows.entries.values() if from_ms <= entry.at_ms <= to_ms)

    def _reindex(
        self, collection: str, id: str, old: Mapping[str, IndexValue], new: Mapping[str, IndexValue]
    ) -> None:
        for field, value in old.items():
            if new.get(field) != value:
                ids = self._ids[collection, field][value]
                ids.remove(id)
                if not ids:
                    del self._ids[collection, field][value]
        for field, value in new.items():
            if old.get(field) != value:
                self._ids.setdefault((collection, field), {}).setdefault(value, set()).add(id)


def document_of(write: Write) -> Document | None:
    """Return the document that a winning write left behind."""
    if write.body is None:
        return None
    return Document(write.id, write.expected + 1, write.body, write.index)


def revision_of(write: Write) -> int:
    """Return the revision a winning write left behind; 0 when it deleted."""
    return 0 if write.body is None else write.expected + 1


_NOTHING: Final[Mapping[str, IndexValue]] = {}
_NO_WRITES: Final[dict[str, Write]] = {}
_NO_ROWS: Final[dict[str, Rows]] = {}


def _within(low: IndexValue, value: IndexValue, high: IndexValue) -> bool:
    if isinstance(low, str):
        return isinstance(value, str) and isinstance(high, str) and low <= value <= high
    return isinstance(value, int) and isinstance(high, int) and low <= value <= high
