"""Who won: what a bulk's totals, its errors and a read-back say about each write. Pure.

A bulk tells how many writes took effect, not which. Each write leaves its random id in the document,
beside the ids of the writes before it, so reading the documents back tells. The same settles a reply
that never came.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

WRITE_IDS_KEPT: Final = 16
"""Ids of the last writes a document remembers: who reads back later than that many writes cannot tell."""
PROMPT_S: Final = 0.25
"""Within this time nobody writes a document ``WRITE_IDS_KEPT`` times: each write takes a majority's fsync."""


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


def fate(expected: int, write_id: int, seen: Seen | None, *, promptly: bool) -> Fate:
    """Judge one write. ``promptly``: the server said that it is done, and was read back at once."""
    revision, write_ids = seen or _ABSENT
    if write_id in write_ids:
        return Fate.WON
    if promptly:
        return Fate.LOST
    if revision == expected:
        return Fate.OPEN
    if expected < revision <= expected + WRITE_IDS_KEPT:
        return Fate.LOST
    # Deleted since, by whom, and after ours or before? Or ours may have been written and pushed out.
    return Fate.UNKNOWN


def fates(
    asked: Mapping[str, tuple[int, int]], seen: Mapping[str, Seen], *, promptly: bool
) -> dict[str, Fate]:
    """Judge writes, given as (expected, write id) by document id."""
    return {
        id: fate(expected, write_id, seen.get(id), promptly=promptly)
        for id, (expected, write_id) in asked.items()
    }
