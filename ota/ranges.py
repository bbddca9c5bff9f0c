"""Which bytes of an image a request is for: one range, or all of it. Pure.

What is malformed, or asks for several ranges, is ignored: the whole image is an answer that every client
understands. (spec: ota, 7; RFC 9110, 14)
"""

import re
from dataclasses import dataclass
from typing import Final

_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from ``first`` to ``last``, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """Return how many they are."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Outside:
    """A range that begins after the end: 416."""


def wanted(range: str | None, if_range: str | None, etag: str, size: int) -> Part | Outside | None:
    """Return the part that is wanted of ``size`` bytes; None: all of it.

    ``etag`` is ours, in its quotes. An ``If-Range`` that is another one asks for all, because what the caller
    has is of something else; so does a weak one, and a date.
    """
    found = None if range is None else _RANGE.fullmatch(range.strip())
    if found is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = found.groups()
    if not first:
        return _last_bytes(last, size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        return Outside()
    return Part(int(first), min(int(last), size - 1) if last else size - 1)


def is_had(if_none_match: str | None, etag: str) -> bool:
    """Tell whether the caller has the image already: 304."""
    if if_none_match is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags


def _last_bytes(count: str, size: int) -> Part | Outside | None:
    if not count:
        return None
    if int(count) == 0 or size == 0:
        return Outside()
    return Part(max(0, size - int(count)), size - 1)
