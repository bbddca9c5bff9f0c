"""How the fleet stands to what the utility has set: minutes of a device, devices of an hour. Pure.

Both numbers are settings; beside them stands what was measured. (spec: ota, 11; requirements: S-cap)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ota.clocks import HOUR_MS, Figures

SINCE_MS: Final = HOUR_MS
"""Campaigns that ended longer ago are not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevels:
    """Over all campaigns that are under way, or ended within the last 60 minutes."""

    limit_ms: int
    """A device may take so long."""
    per_hour: int
    """So many devices are to be done in an hour."""
    campaigns: int
    longest_ms: int | None
    """None: none is done."""
    over: int
    """Devices that took longer, or whose time ran out."""
    last_hour: int
    in_flight: int


def combined(figures: Iterable[Figures], *, limit_ms: int, per_hour: int) -> ServiceLevels:
    """Return the service levels of several campaigns together."""
    every = list(figures)
    longest = [one.p100_ms for one in every if one.p100_ms is not None]
    return ServiceLevels(
        limit_ms=limit_ms,
        per_hour=per_hour,
        campaigns=len(every),
        longest_ms=max(longest, default=None),
        over=sum(one.over for one in every),
        last_hour=sum(one.last_hour for one in every),
        in_flight=sum(one.in_flight for one in every),
    )
