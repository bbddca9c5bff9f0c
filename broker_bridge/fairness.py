"""Requests for blocks that wait, and whose turn it is. Pure: time is an argument.

Each *share* (a thing, or a thing by one of its gateways) has a few places; one more request drops the oldest,
since a device that asks again no longer waits for what it asked before. Shares take turns. Who had more bytes
than its pace allows waits until that is made up for, and nobody waits with it. (spec: ota, 5 and 13)
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Generic, TypeVar

REQUESTS_PER_SHARE_MAX: Final = 4
REQUESTS_MAX: Final = 20_000
"""Waiting in all; one more is dropped itself."""
REQUEST_BYTES_MAX: Final = 16_777_216
"""Of all requests that wait."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """How many bytes a share gets: so many a second, and so many at once after a rest."""

    bytes_per_s: int = 1_048_576
    burst_bytes: int = 262_144


PACE: Final = Pace()


@dataclass(slots=True, eq=False)
class _Share(Generic[T]):
    name: str
    requests: "deque[tuple[T, int]]" = field(default_factory=deque)
    paid_until_s: float = 0.0
    """When what it had would have come at its pace, without a burst."""
    in_line: bool = False
    """It has its place in the line, or waits for one until it is due."""


class Turns(Generic[T]):
    """Requests, one after the other, each share in its turn."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._burst_s = pace.burst_bytes / pace.bytes_per_s
        self._shares: dict[str, _Share[T]] = {}
        self._line: deque[_Share[T]] = deque()
        self._due: list[tuple[float, int, _Share[T]]] = []
        """Those that had too much, by when they are due again."""
        self._resting: list[tuple[float, int, _Share[T]]] = []
        """Those that wait for nothing, by when they may be forgotten."""
        self._number = count()
        self._waiting = self._bytes = 0

    def __len__(self) -> int:
        """How many requests wait."""
        return self._waiting

    @property
    def shares(self) -> int:
        """How many shares are remembered: those that wait, and those that had something a moment ago."""
        return len(self._shares)

    def put(self, name: str, request: T, size_bytes: int) -> T | None:
        """Add a request; return the one that is dropped for it, perhaps itself."""
        if self._waiting >= REQUESTS_MAX or self._bytes + size_bytes > REQUEST_BYTES_MAX:
            return request
        share = self._shares.get(name)
        if share is None:
            share = self._shares[name] = _Share(name)
        dropped = self._pop(share) if len(share.requests) >= REQUESTS_PER_SHARE_MAX else None
        share.requests.append((request, size_bytes))
        self._waiting += 1
        self._bytes += size_bytes
        self._line_up(share)
        return dropped

    def take(self, now_s: float) -> tuple[str, T] | None:
        """Return the next request; :meth:`spent` has to follow. None: it is nobody's turn."""
        self._forget(now_s)
        while self._due and self._due[0][0] <= now_s:
            self._line.append(heapq.heappop(self._due)[2])
        while self._line:
            share = self._line.popleft()
            due_s = share.paid_until_s - self._burst_s
            if due_s > now_s:
                heapq.heappush(self._due, (due_s, next(self._number), share))
            elif share.requests:
                share.in_line = False
                return share.name, self._pop(share)
        return None

    def spent(self, name: str, size_bytes: int, now_s: float) -> None:
        """Note how much was sent for the request that was taken last of this share."""
        share = self._shares[name]
        share.paid_until_s = max(share.paid_until_s, now_s) + size_bytes / self._pace.bytes_per_s
        if share.requests:
            self._line_up(share)
        else:
            self._rest(share)

    def next_s(self) -> float | None:
        """Return when to ask again; None: not before there is another request."""
        if not self._waiting:
            return None
        return 0.0 if self._line else self._due[0][0]

    def clear(self) -> None:
        """Let go of all that waits. What was spent is not forgotten."""
        for share in self._shares.values():
            share.requests.clear()
            share.in_line = False
            self._rest(share)
        self._line.clear()
        self._due.clear()
        self._waiting = self._bytes = 0

    def _line_up(self, share: _Share[T]) -> None:
        if not share.in_line:
            share.in_line = True
            self._line.append(share)

    def _rest(self, share: _Share[T]) -> None:
        heapq.heappush(self._resting, (share.paid_until_s, next(self._number), share))

    def _forget(self, now_s: float) -> None:
        """Drop the shares that a new one would be no better than."""
        while self._resting and self._resting[0][0] <= now_s:
            share = heapq.heappop(self._resting)[2]
            if not share.requests and share.paid_until_s <= now_s:
                self._shares.pop(share.name, None)

    def _pop(self, share: _Share[T]) -> T:
        request, size_bytes = share.requests.popleft()
        self._waiting -= 1
        self._bytes -= size_bytes
        return request
