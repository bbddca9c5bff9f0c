"""Windows in local time: when offers may be made and devices may activate. Pure.

A window begins at the first and ends at the last occurrence of its wall time where clocks are set back; a
wall time that clocks leave out is the moment at which they do. (spec: ota, 9.3)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

MINUTES_PER_DAY: Final = 24 * 60
DAYS_AHEAD: Final = 8
"""Each window comes once a week at least."""


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of a day; one that ends before it begins, or with it, goes on into the next day."""

    start_min: int
    """Minutes from midnight, 0 to 1439."""
    end_min: int
    days: frozenset[int] = frozenset()
    """On which it begins, Monday is 0; empty: every day."""


def is_open(windows: Sequence[Window], zone: ZoneInfo, now_ms: int) -> bool:
    """Tell whether it is within one of the windows; without any it always is."""
    return not windows or any(start <= now_ms < end for start, end in _spans(windows, zone, now_ms))


def opens_at_ms(windows: Sequence[Window], zone: ZoneInfo, now_ms: int) -> int:
    """Return when a window is open next: now, where one is."""
    if is_open(windows, zone, now_ms):
        return now_ms
    return min(start for start, _ in _spans(windows, zone, now_ms) if start > now_ms)


def instant_ms(wall: datetime, zone: ZoneInfo, *, last: bool) -> int:
    """Return when a clock in this zone shows ``wall``, the first or the last time that it does.

    One that it never shows is the moment at which the clock is set beyond it.
    """
    first, second = (wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    before, after = first.utcoffset(), second.utcoffset()
    assert before is not None
    assert after is not None
    if after > before:
        return _ms(_change(wall - after, wall - before, before, zone))
    return _ms((second if last else first).astimezone(UTC))


def _change(low: datetime, high: datetime, before: timedelta, zone: ZoneInfo) -> datetime:
    """Return the moment between two in UTC from which on another offset than ``before`` holds."""
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        holds = middle.replace(tzinfo=UTC).astimezone(zone).utcoffset()
        low, high = (middle, high) if holds == before else (low, middle)
    return high.replace(tzinfo=UTC)


def _spans(windows: Sequence[Window], zone: ZoneInfo, now_ms: int) -> Iterator[tuple[int, int]]:
    """Yield the windows of yesterday and of the days to come."""
    today = datetime.fromtimestamp(now_ms / 1_000, zone).date()
    for ahead in range(-1, DAYS_AHEAD + 1):
        day = today + timedelta(days=ahead)
        for window in windows:
            if not window.days or day.weekday() in window.days:
                ends_on = day if window.end_min > window.start_min else day + timedelta(days=1)
                start = instant_ms(_wall(day, window.start_min), zone, last=False)
                yield start, instant_ms(_wall(ends_on, window.end_min), zone, last=True)


def _wall(day: date, minutes: int) -> datetime:
    return datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)  # noqa: DTZ001 - a wall clock


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1_000)
