"""Who won: what a bulk's totals, its errors and a read-back say about each write. Pure.

A bulk tells how many writes took effect, not which. Each write leaves its random id in the document,
beside the ids of the writes before it, so reading the documents back tells. The same settles a reply
that never came.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

WRITE_IDS_KEPT: Final = 16
"""Ids of the last writes a document remembers: more may not happen between a write and its read-back."""


class Fate(StrEnum):
    """What became of a write."""

    WON = "won"
    LOST = "lost"
    OPEN = "open"
    """It did not happen so far; sending it again is safe and tells."""
    UNKNOWN = "unknown"


class Seen(NamedTuple):
    """A document as it was read back: revision 0 when it is gone."""

    revision: int
    write_ids: tuple[int, ...]


_ABSENT: Final = Seen(0, ())


def fate(expected: int, write_id: int, seen: Seen | None, *, answered: bool) -> Fate:
    """Judge one write. ``answered``: the server said that it is done with it, so only the race is open."""
    revision, write_ids = seen or _ABSENT
    if write_id in write_ids:
        return Fate.WON
    if revision > expected + WRITE_IDS_KEPT:
        return Fate.UNKNOWN  # ours may have been written and pushed out since
    if answered:
        return Fate.LOST
    if revision == expected:
        return Fate.OPEN
    if revision > expected:
        return Fate.LOST
    return Fate.UNKNOWN  # deleted since: by whom, and after ours or before?


def fates(
    asked: Mapping[str, tuple[int, int]], seen: Mapping[str, Seen], *, answered: bool
) -> dict[str, Fate]:
    """Judge writes, given as (expected, write id) by document id."""
    return {
        id: fate(expected, write_id, seen.get(id), answered=answered)
        for id, (expected, write_id) in asked.items()
    }
