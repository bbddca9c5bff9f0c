"""How many devices are offered an image, and when: a token bucket, in whole numbers. Pure.

In any window of W seconds at most C + per_hour * W / 3600 offers are made, with C = ceil(per_hour / 720):
what five seconds bring. (spec: ota, 9.3)
"""

from dataclasses import dataclass
from typing import Final

from ota.models import NEVER

OFFER: Final = 3_600_000
"""What one offer costs, so that a pace of n an hour earns n each millisecond."""
BURSTS_PER_HOUR: Final = 720


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is saved up; ``at_ms`` :data:`NEVER`: nothing was taken so far, it is full."""

    level: int = 0
    at_ms: int = NEVER


@dataclass(frozen=True, slots=True)
class Ramp:
    """A pace that grows: ``per_min`` at first, ``factor`` times as much with every ``every`` offers."""

    per_min: int = 50
    factor: float = 2.0
    every: int = 1_000


def capacity(per_hour: int) -> int:
    """Return how many offers may be made at once."""
    return -(-per_hour // BURSTS_PER_HOUR)


def pace(per_hour: int, ramp: Ramp | None, offered: int) -> int:
    """Return the offers an hour at the point where so many were made."""
    if ramp is None:
        return per_hour
    ramped = ramp.per_min * 60 * ramp.factor ** min(offered // ramp.every, 64)
    return max(1, min(per_hour, int(ramped)))


def filled(bucket: Bucket, per_hour: int, now_ms: int) -> Bucket:
    """Return a bucket as it is now. A clock that is set back fills nothing."""
    full = capacity(per_hour) * OFFER
    if bucket.at_ms == NEVER:
        return Bucket(full, now_ms)
    earned = max(0, now_ms - bucket.at_ms) * per_hour
    return Bucket(min(full, bucket.level + earned), max(now_ms, bucket.at_ms))


def affords(bucket: Bucket) -> int:
    """Return how many offers are in it."""
    return bucket.level // OFFER


def taken(bucket: Bucket, offers: int) -> Bucket:
    """Return what is left after some offers, of those it affords."""
    assert offers <= affords(bucket), "more offers than there is room for"
    return Bucket(bucket.level - offers * OFFER, bucket.at_ms)


def next_offer_ms(bucket: Bucket, per_hour: int) -> int:
    """Return when it affords an offer."""
    return bucket.at_ms + max(0, -(-(OFFER - bucket.level) // per_hour))
