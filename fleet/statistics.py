"""What a fleet or a load saw, counted as it goes: a few integers, no lists that grow."""

from collections import Counter
from typing import Final

US_PER_S: Final = 1_000_000
_FINE_BITS: Final = 5  # 32 steps between powers of two: a reading is at most 3 % off
_BUCKETS: Final = 40 << _FINE_BITS  # up to 2^39 µs, six days: longer waits share the last one


class Histogram:
    """Durations in buckets that widen with them; one list, whatever it has seen."""

    __slots__ = ("buckets", "count", "max_s", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * _BUCKETS
        self.count = 0
        self.sum_s = 0.0
        self.max_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration; a negative one (a clock's fault) as zero."""
        us = int(seconds * US_PER_S) if seconds > 0 else 0
        shift = us.bit_length() - _FINE_BITS - 1
        index = us if shift <= 0 else (shift << _FINE_BITS) + (us >> shift)
        self.buckets[min(index, _BUCKETS - 1)] += 1
        self.count += 1
        self.sum_s += max(seconds, 0.0)
        self.max_s = max(self.max_s, seconds)

    def at_share(self, share: float) -> float:
        """Return the duration that ``share`` (0 to 1) of all did not exceed, in seconds; 0 if none."""
        wanted = share * self.count
        seen = 0
        for index, count in enumerate(self.buckets):
            seen += count
            if count and seen >= wanted:
                return min(_upper_us(index) / US_PER_S, self.max_s)
        return 0.0

    def copy(self) -> "Histogram":
        """Return what was counted up to now."""
        copy = Histogram()
        copy.merge(self)
        return copy

    def since(self, earlier: "Histogram") -> "Histogram":
        """Return what was counted after ``earlier``, a copy of this; ``max_s`` is that of all time."""
        later = Histogram()
        later.buckets = [mine - theirs for mine, theirs in zip(self.buckets, earlier.buckets, strict=True)]
        later.count = self.count - earlier.count
        later.sum_s = self.sum_s - earlier.sum_s
        later.max_s = self.max_s
        return later

    def merge(self, other: "Histogram") -> None:
        """Add everything that ``other`` has counted."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.count += other.count
        self.sum_s += other.sum_s
        self.max_s = max(self.max_s, other.max_s)

    def summary(self) -> dict[str, float]:
        """Return count, median, tail and maximum; durations in milliseconds."""
        shares = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}
        found = {name: round(self.at_share(share) * 1_000, 3) for name, share in shares.items()}
        return {"count": self.count, **found, "max_ms": round(self.max_s * 1_000, 3)}


class Statistics:
    """Live counts of one fleet; whoever shows them reads, nobody is told."""

    __slots__ = (
        "accepted",
        "connected",
        "connects",
        "convergence",
        "errors",
        "latency",
        "outdated",
        "received",
        "rejected",
        "repeated",
        "sent",
    )

    def __init__(self) -> None:
        self.connected = 0  # right now
        self.connects = 0  # ever
        self.sent = 0  # requests, each counted once
        self.repeated = 0  # the same bytes again
        self.received = 0  # messages of any kind
        self.accepted = 0
        self.outdated = 0  # deltas older than what was known: ignored
        self.rejected: Counter[int] = Counter()  # by code
        self.errors: Counter[str] = Counter()  # by kind
        self.latency = Histogram()  # first publish → accepted
        self.convergence = Histogram()  # delta received → the report that closes it accepted

    def summary(self) -> dict[str, object]:
        """Return everything as one tree for a line of JSON or a page."""
        return {
            "connected": self.connected,
            "connects": self.connects,
            "sent": self.sent,
            "repeated": self.repeated,
            "received": self.received,
            "accepted": self.accepted,
            "outdated": self.outdated,
            "rejected": {str(code): count for code, count in sorted(self.rejected.items())},
            "errors": dict(sorted(self.errors.items())),
            "latency": self.latency.summary(),
            "convergence": self.convergence.summary(),
        }


def _upper_us(index: int) -> int:
    """Return the largest duration that falls into this bucket."""
    shift = (index >> _FINE_BITS) - 1
    if shift <= 0:
        return index
    return (((index & ((1 << _FINE_BITS) - 1)) + (1 << _FINE_BITS) + 1) << shift) - 1
