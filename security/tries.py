"""How often something may be tried within a time: by one, by each of many, by an address.

Kept in memory and bounded: a restart forgets it, and each process has its own.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Final, TypeVar

from infra.clock import Clock
from security.addresses import place

TRIES_PER_ADDRESS_MAX: Final = 20
"""Tries of one address in :data:`MINUTE_S`; of IPv6, of all that one subscriber has."""
MINUTE_S: Final = 60.0
KEYS_MAX: Final = 65_536
"""Codes, names and addresses that are remembered, each kind; then the one longest quiet is forgotten."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TooManyTriesError(Exception):
    """Not looked at: too much was tried. ``retry_s`` says when it may be again."""

    def __init__(self, retry_s: float) -> None:
        super().__init__(f"too many tries: wait {math.ceil(retry_s)} s")
        self.retry_s = retry_s


def require(wait_s: float) -> None:
    """Refuse a try for which one has to wait.

    Raises:
        TooManyTriesError: there is some time left.
    """
    if wait_s > 0:
        raise TooManyTriesError(wait_s)


def remember(table: OrderedDict[K, V], key: K, value: V) -> None:
    """Keep a value as the newest of a table, whose oldest makes room."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > KEYS_MAX:
        table.popitem(last=False)


class Window:
    """The last times of something, as many as are needed to judge the next."""

    __slots__ = ("_times", "_within_s")

    def __init__(self, times_max: int, within_s: float) -> None:
        self._times = deque[float](maxlen=times_max)
        self._within_s = within_s

    def wait_s(self, now_s: float) -> float:
        """Return how long it is until the next is within the bound; at most 0 when it is."""
        times = self._times
        return times[0] + self._within_s - now_s if len(times) == times.maxlen else 0.0

    def add(self, now_s: float) -> None:
        """Count one."""
        self._times.append(now_s)

    def give_back(self) -> None:
        """Count one less."""
        if self._times:
            self._times.pop()


class Windows:
    """The same for each of many."""

    def __init__(self, times_max: int, within_s: float) -> None:
        self._times_max = times_max
        self._within_s = within_s
        self._windows: OrderedDict[Hashable, Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def wait_s(self, key: Hashable, now_s: float) -> float:
        """Return how long it is until the next of this key is within the bound; at most 0 when it is."""
        window = self._windows.get(key)
        return 0.0 if window is None else window.wait_s(now_s)

    def add(self, key: Hashable, now_s: float) -> None:
        """Count one of this key."""
        window = self._windows.get(key) or Window(self._times_max, self._within_s)
        window.add(now_s)
        remember(self._windows, key, window)

    def give_back(self, key: Hashable) -> None:
        """Count one less of this key."""
        window = self._windows.get(key)
        if window is not None:
            window.give_back()


class AddressTries:
    """At most so many tries a minute of one address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows = Windows(TRIES_PER_ADDRESS_MAX, MINUTE_S)

    def __len__(self) -> int:
        return len(self._windows)

    def take(self, address: str) -> None:
        """Count a try before it is made.

        Raises:
            TooManyTriesError: it must not be made.
        """
        now_s, name = self._clock.elapsed_s(), place(address)
        require(self._windows.wait_s(name, now_s))
        self._windows.add(name, now_s)

    def give_back(self, address: str) -> None:
        """Take a try back that was right, where only wrong ones count."""
        self._windows.give_back(place(address))
