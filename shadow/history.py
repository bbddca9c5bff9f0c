"""Reading a shadow's history: rows, folds, differences, conflicts. Pure.

One row a version. A row holds the patch; every so manieth holds the whole document too, and a fold
starts at the newest of those. It goes through the same :func:`shadow.document.write` as the update
did, so the bytes come out the same. (spec: shadow, sections 7 and 11, E6 and E7)
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from shadow.document import EMPTY, Part, Tree, write

MS_PER_S: Final = 1_000
LEAVES_MAX: Final = 4_096
"""Leaves written since that a conflict is compared with: help must not cost more than the update."""
POINTERS_CHARS_MAX: Final = 8_192
"""Text of a conflict's pointers: a path may be long, and stands before each of its leaves."""

_Pointer = tuple[str, ...]

_BOTH: Final[Mapping[str, None]] = {"desired": None, "reported": None}
"""What ``"state": null`` says."""


class Full(msgspec.Struct, frozen=True):
    """The whole document as it stands in a row."""

    exists: bool
    desired: Tree
    desired_stamps: Tree
    reported: Tree
    reported_stamps: Tree


class HistoryRow(msgspec.Struct, frozen=True):
    """Who changed what when: one version of a shadow."""

    version: int
    at_ms: int
    operation: str
    actor: str
    role: str
    channel: str
    state: Tree | None
    gateway: str | None = None
    token: str | None = None
    request_id: str = ""
    sha256: str = ""
    """Of the request's body, in hex; like ``request_id`` only where the audit needs it."""
    full: Full | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """A shadow as it was at one version."""

    version: int
    at_ms: int
    exists: bool
    desired: Part
    reported: Part


_decode_row = msgspec.json.Decoder(HistoryRow).decode
_encode = msgspec.json.Encoder().encode


def row_of(body: bytes) -> HistoryRow:
    """Return the row that was stored."""
    return _decode_row(body)


def fold(rows: Iterable[HistoryRow], start: Snapshot | None = None) -> Iterator[Snapshot]:
    """Yield the document after each row, in version order.

    The rows begin with version 1, with one that holds the whole document, or right after ``start``.
    """
    now = start or Snapshot(0, 0, exists=False, desired=EMPTY, reported=EMPTY)
    for row in rows:
        assert row.full is not None or row.version == now.version + 1, "history has a gap"
        now = _of_full(row, row.full) if row.full is not None else _next(now, row)
        yield now


def _of_full(row: HistoryRow, full: Full) -> Snapshot:
    return Snapshot(
        row.version,
        row.at_ms,
        full.exists,
        _part(full.desired, full.desired_stamps),
        _part(full.reported, full.reported_stamps),
    )


def _part(state: Tree, stamps: Tree) -> Part:
    return Part(state, stamps, _encode(state), _encode(stamps)) if state else EMPTY


def _next(before: Snapshot, row: HistoryRow) -> Snapshot:
    if row.operation == "delete":
        return Snapshot(row.version, row.at_ms, exists=False, desired=EMPTY, reported=EMPTY)
    stamp = {"timestamp": row.at_ms // MS_PER_S}
    sections = _BOTH if row.state is None else row.state
    return Snapshot(
        row.version,
        row.at_ms,
        exists=True,
        desired=write(before.desired, sections["desired"], stamp)
        if "desired" in sections
        else before.desired,
        reported=write(before.reported, sections["reported"], stamp)
        if "reported" in sections
        else before.reported,
    )


def conflicts(wanted: Tree | None, since: Iterable[HistoryRow]) -> tuple[str, ...] | None:
    """Return JSON Pointers of the leaves ``wanted`` would write that ``since`` wrote (E7).

    Two leaves touch when they are equal or one lies below the other. None when it is too much to tell.
    """
    leaves = list(islice((pointer for row in since for pointer in _written(row.state)), LEAVES_MAX + 1))
    if len(leaves) > LEAVES_MAX:
        return None
    written = set(leaves)
    above = {pointer[:length] for pointer in written for length in range(len(pointer))}
    touched = [
        "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in pointer)
        for pointer in set(_written(wanted))
        if pointer in above or any(pointer[:length] in written for length in range(1, len(pointer) + 1))
    ]
    return tuple(sorted(touched)) if sum(map(len, touched)) <= POINTERS_CHARS_MAX else None


def _written(state: Tree | None) -> Iterator[_Pointer]:
    """Yield what a request's ``state`` writes; an empty section writes nothing, null writes all of it."""
    for name, section in (_BOTH if state is None else state).items():
        if section is None:
            yield (name,)
        else:
            yield from _leaves(section, (name,))


def _leaves(tree: Mapping[str, Any], above: _Pointer) -> Iterator[_Pointer]:
    for name, value in tree.items():
        pointer = (*above, name)
        if type(value) is dict and value:
            yield from _leaves(value, pointer)
        else:
            yield pointer
