"""What may be asked of a document store: the bounds, and the one place that refuses what breaks them.

Every adapter asks here first, so that all of them refuse the same things with the same words. What is
refused here is a mistake of the calling code (`ValueError`), never a fault of the store. Pure.
"""

import re
from collections.abc import Collection as SizedIterable
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from infra.documents.port import (
    COUNT_MAX,
    CUT_SPAN_MAX,
    IDS_MAX,
    PAGE_MAX,
    Collection,
    Cut,
    Entry,
    IndexValue,
    Write,
)

NUMBER_MAX: Final = 2**31 - 1
"""Highest number of a log entry."""
TEXT_CHARS_MAX: Final = 1_024
"""Characters of an id, a log key or an index value."""
BODY_BYTES_MAX: Final = 4 * 2**20
"""Bytes of one body: an image does not belong here, and one document must not fill the writer's queue."""
COMMIT_WRITES_MAX: Final = 10_000
"""Writes of one commit, and entries and cuts of one write or append."""
INTEGER_MAX: Final = 2**63 - 1

COMMIT_BYTES_MAX: Final = 32 * 2**20
"""Bytes of one commit or append."""
ROW_BYTES: Final = 64
"""What a row is counted with beside its body where bytes are bounded."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The collections and logs a store was opened with."""

    fields: dict[str, tuple[str, ...]]
    logs: frozenset[str]

    @classmethod
    def of(cls, collections: Sequence[Collection], logs: Sequence[str]) -> "Layout":
        """Check the names: they become names of tables."""
        names = [one.name for one in collections]
        for name in [*names, *logs, *(field for one in collections for field in one.indexed)]:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name for a collection, field or log: use a-z, 0-9 and _")
        if len(set(names)) < len(names) or len(set(logs)) < len(logs):
            raise ValueError("a collection or log is named twice")
        return cls({one.name: one.indexed for one in collections}, frozenset(logs))

    def check_writes(self, writes: Sequence[Write]) -> int:
        """Refuse writes no store could keep; return about how many bytes they are."""
        if len(writes) > COMMIT_WRITES_MAX:
            raise ValueError(f"a commit takes {COMMIT_WRITES_MAX} writes, not {len(writes)}: split it")
        if len({(write.collection, write.id) for write in writes}) < len(writes):
            raise ValueError("a commit names a document twice: put what belongs to one document in one write")
        size = 0
        for write in writes:
            size += ROW_BYTES + self._check_document(write)
            if write.entries:
                size += self.check_entries(write.entries)
            if write.cuts:
                self._check_cuts(write.cuts)
        return _check_size(size)

    def check_entries(self, entries: Sequence[Entry]) -> int:
        """Refuse entries no log could keep; return about how many bytes they are."""
        if len(entries) > COMMIT_WRITES_MAX:
            raise ValueError(f"at most {COMMIT_WRITES_MAX} entries at once, not {len(entries)}: split them")
        size = 0
        for entry in entries:
            if entry.log not in self.logs:
                raise ValueError(f"the store was not opened with a log {entry.log!r}")
            if not 0 <= entry.number <= NUMBER_MAX:
                raise ValueError(f"number {entry.number} of an entry is not within 0 and {NUMBER_MAX}")
            if not -INTEGER_MAX <= entry.at_ms <= INTEGER_MAX:
                raise ValueError(f"at_ms {entry.at_ms} does not fit 64 bits")
            _check_text(entry.key)
            size += ROW_BYTES + _check_body(entry.body)
        return _check_size(size)

    def check_ids(self, collection: str, ids: SizedIterable[str]) -> None:
        """Refuse a look-up that names too many documents or an unknown collection."""
        self._fields_of(collection)
        if len(ids) > IDS_MAX:
            raise ValueError(f"a look-up takes {IDS_MAX} ids, not {len(ids)}: split it")
        for id in ids:
            _check_text(id)

    def check_find(self, collection: str, field: str, low: IndexValue, high: IndexValue, limit: int) -> None:
        """Refuse a search by a field without index, or in a range of mixed types."""
        self._check_range(collection, field, low, high)
        check_limit(limit, PAGE_MAX)

    def check_count(
        self, collection: str, field: str, low: IndexValue, high: IndexValue, at_most: int
    ) -> None:
        """Refuse what a search would refuse, and to count nothing or without end."""
        self._check_range(collection, field, low, high)
        check_limit(at_most, COUNT_MAX)

    def check_find_in(
        self, collection: str, field: str, values: SizedIterable[IndexValue], limit: int
    ) -> None:
        """Refuse a search for too many values at once."""
        self._check_field(collection, field)
        if len(values) > IDS_MAX:
            raise ValueError(f"a look-up takes {IDS_MAX} values, not {len(values)}: split it")
        for value in values:
            _check_value(value)
        check_limit(limit, IDS_MAX)

    def check_log(self, log: str, limit: int) -> None:
        """Refuse a log that the store was not opened with."""
        if log not in self.logs:
            raise ValueError(f"the store was not opened with a log {log!r}")
        check_limit(limit, PAGE_MAX)

    def _fields_of(self, collection: str) -> tuple[str, ...]:
        try:
            return self.fields[collection]
        except KeyError:
            raise ValueError(f"the store was not opened with a collection {collection!r}") from None

    def _check_field(self, collection: str, field: str) -> None:
        if field not in self._fields_of(collection):
            raise ValueError(f"collection {collection!r} has no index on {field!r}")

    def _check_range(self, collection: str, field: str, low: IndexValue, high: IndexValue) -> None:
        self._check_field(collection, field)
        _check_value(low)
        _check_value(high)
        if isinstance(low, str) is not isinstance(high, str):
            raise ValueError(f"a range from {low!r} to {high!r} mixes text and numbers")

    def _check_document(self, write: Write) -> int:
        _check_text(write.id)
        if not 0 <= write.expected < INTEGER_MAX:
            raise ValueError(f"revision {write.expected} is not one a document can have")
        fields = self._fields_of(write.collection)
        if write.body is None:
            if not write.expected:
                raise ValueError(f"cannot delete {write.id!r} where it must not exist (expected revision 0)")
            return 0
        for name, value in write.index.items():
            if name not in fields:
                raise ValueError(f"collection {write.collection!r} has no index on {name!r}")
            _check_value(value)
        return _check_body(write.body)

    def _check_cuts(self, cuts: Iterable[Cut]) -> None:
        for cut in cuts:
            if cut.log not in self.logs:
                raise ValueError(f"the store was not opened with a log {cut.log!r}")
            _check_text(cut.key)
            if not 0 <= cut.below <= NUMBER_MAX + 1:
                raise ValueError(f"cannot cut below {cut.below}: numbers end at {NUMBER_MAX}")
            if cut.first and not 0 <= cut.below - cut.first <= CUT_SPAN_MAX:
                raise ValueError(f"a cut from {cut.first} to {cut.below} is not 0 to {CUT_SPAN_MAX} numbers")


def check_limit(limit: int, most: int) -> None:
    """Refuse a page of nothing and a page without end."""
    if not 1 <= limit <= most:
        raise ValueError(f"limit {limit} is not within 1 and {most}")


def sort_key(value: IndexValue, id: str) -> tuple[bool, IndexValue, str]:
    """Order documents as every adapter does: numbers before text, then by id."""
    return isinstance(value, str), value, id


def _check_text(text: str) -> None:
    # A lone surrogate cannot be stored as UTF-8; a NUL ends the text in some back ends.
    if len(text) > TEXT_CHARS_MAX or "\0" in text or not (text.isascii() or _is_unicode(text)):
        raise ValueError(f"{text[:40]!r} … is no text a store can keep: too long, NUL or a lone surrogate")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_value(value: IndexValue) -> None:
    kind = type(value)
    if kind is str:
        _check_text(value)  # type: ignore[arg-type]  # the line above told
    elif kind is not int or not -INTEGER_MAX <= value <= INTEGER_MAX:  # type: ignore[operator]  # an int
        raise ValueError(f"{value!r} is no index value: text, or a whole number of 64 bits")


def _check_size(size: int) -> int:
    if size > COMMIT_BYTES_MAX:
        raise ValueError(f"a commit has at most {COMMIT_BYTES_MAX} bytes, not {size}: split it")
    return size


def _check_body(body: bytes) -> int:
    if type(body) is not bytes:
        raise ValueError(f"a body is bytes, not {type(body).__name__}")
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"a body has at most {BODY_BYTES_MAX} bytes, not {len(body)}")
    return len(body)
