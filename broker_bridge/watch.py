"""Who behaves on the broker as no honest thing does: counters over what its log says. Pure.

The broker grants every subscription and delivers only what is allowed, so a foreign one brings nothing. But
it costs: a thousand sessions that hold ``$aws/things/+/#`` bring publishing from 170,000 a second down to
5,000. And one key in two hands shows by nothing but that its two holders throw each other off.
"""

from collections import deque
from enum import StrEnum
from typing import Final, NamedTuple

from broker_bridge.presence import Presence, Sign
from registry.rules import RESERVED_PREFIX

WINDOW_S: Final = 600.0
FOREIGN_MAX: Final = 3
"""Connections of a thing with a foreign subscription within the window; each is ended."""
TAKEOVERS_MAX: Final = 3
CONNECTIONS_MAX: Final = 60
THINGS_WATCHED_MAX: Final = 200_000
"""Things remembered by each counter; above it those are forgotten that were quiet longest."""


class Sentence(StrEnum):
    """What is to be done about it."""

    KICK = "kick"
    QUARANTINE = "quarantine"


class Cause(StrEnum):
    """Why; stands in the audit."""

    FOREIGN = "foreign subscription"
    FOREIGN_AGAIN = "foreign subscriptions again and again"
    CLONED = "two hold its key, or it runs twice: its sessions throw each other off"
    FLAPPING = "it connects again and again"
    UNREAD = "it does not read what it is sent"


class Verdict(NamedTuple):
    """What to do about which thing."""

    sentence: Sentence
    thing: str
    cause: Cause
    filter: str = ""


class Rate:
    """Tells for each name when something happens more than ``most`` times within the window."""

    def __init__(self, most: int, window_s: float = WINDOW_S, names_max: int = THINGS_WATCHED_MAX) -> None:
        self._most = most
        self._window_s = window_s
        self._names_max = names_max
        self._times: dict[str, deque[float]] = {}

    def __len__(self) -> int:
        return len(self._times)

    def exceeded(self, name: str, now_s: float) -> bool:
        """Count once; tell whether it was once too often, and then begin anew."""
        times = self._times.pop(name, None)
        if times is None:
            times = deque[float](maxlen=self._most + 1)
            if len(self._times) >= self._names_max:
                del self._times[next(iter(self._times))]
        self._times[name] = times  # to the end: the first is the one that was quiet longest
        times.append(now_s)
        if len(times) <= self._most or times[0] <= now_s - self._window_s:
            return False
        times.clear()
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._times.clear()


class Watch:
    """Reads signs, says verdicts."""

    def __init__(self) -> None:
        self._foreign = Rate(FOREIGN_MAX)
        self._takeovers = Rate(TAKEOVERS_MAX)
        self._connections = Rate(CONNECTIONS_MAX)
        self._held: dict[str, str] = {}
        """Sessions with a foreign subscription, connected or not: by thing, one of its filters."""
        self._judged: set[str] = set()
        """Connections that were judged for it already."""

    def read(self, presence: Presence, now_s: float) -> Verdict | None:
        """Take in a sign; return what is to be done, if anything."""
        thing = presence.thing
        if thing.startswith(RESERVED_PREFIX):
            return None  # our own canaries do such things
        match presence.sign:
            case Sign.SUBSCRIBED:
                assert presence.filter is not None
                return None if is_own(presence.filter, thing) else self._offend(thing, presence.filter, now_s)
            case Sign.TAKEN_OVER:
                over = self._takeovers.exceeded(thing, now_s)
                return Verdict(Sentence.QUARANTINE, thing, Cause.CLONED) if over else None
            case Sign.CONNECTED:
                return self._connect(presence, now_s)
            case Sign.DISCONNECTED:
                self._judged.discard(thing)
                return None

    def begin(self, presences: list[Presence], now_s: float) -> list[Verdict]:
        """Forget all, for the broker was lost; return what its log says is to be done about who is there."""
        for rate in (self._foreign, self._takeovers, self._connections):
            rate.clear()
        self._held.clear()
        self._judged.clear()
        there: dict[str, Verdict] = {}
        for presence in presences:
            verdict = self.read(presence, now_s)
            if presence.sign in (Sign.CONNECTED, Sign.DISCONNECTED):
                there.pop(presence.thing, None)
            if verdict is not None and verdict.sentence is Sentence.KICK:
                there[presence.thing] = verdict
        # What was counted above may have been counted before.
        for rate in (self._foreign, self._takeovers, self._connections):
            rate.clear()
        return list(there.values())

    def _connect(self, presence: Presence, now_s: float) -> Verdict | None:
        thing = presence.thing
        self._judged.discard(thing)
        if presence.fresh:
            self._held.pop(thing, None)
        if self._connections.exceeded(thing, now_s):
            return Verdict(Sentence.QUARANTINE, thing, Cause.FLAPPING)
        held = self._held.get(thing)
        return None if held is None else self._offend(thing, held, now_s)

    def _offend(self, thing: str, filter: str, now_s: float) -> Verdict | None:
        if len(self._held) < THINGS_WATCHED_MAX:
            self._held[thing] = filter
        if thing in self._judged:
            return None
        self._judged.add(thing)
        if self._foreign.exceeded(thing, now_s):
            return Verdict(Sentence.QUARANTINE, thing, Cause.FOREIGN_AGAIN, filter)
        return Verdict(Sentence.KICK, thing, Cause.FOREIGN, filter)


def is_own(filter: str, thing: str) -> bool:
    """Tell whether a subscription reaches nothing but what may be the thing's own."""
    return filter.startswith((f"$aws/things/{thing}/", f"gnomon/gateways/{thing}/"))
