"""Bounds on guessing that belong to a place: tries from an address, and of a name from a network.

Kept in memory, bounded: after a restart they begin anew. The bound that must not be forgotten is kept with
the account itself.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from infra.clock import Clock
from security.addresses import OTHERS, network, place
from security.people.errors import TooManyTriesError
from security.people.persons import Failures, count_login, delay_s, login_wait_s

TRIES_PER_ADDRESS_MAX: Final = 20
WINDOW_S: Final = 60
ADDRESSES_MAX: Final = 10_000
"""Addresses told apart; those beyond share one place."""
NAMES_MAX: Final = 10_000
"""Names and networks remembered; the oldest makes room."""


@dataclass(slots=True)
class _Window:
    until_s: float
    count: int = 0


class AddressTries:
    """At most so many failed tries a minute from one address. A try that was right is given back."""

    def __init__(self, clock: Clock, *, tries_max: int = TRIES_PER_ADDRESS_MAX) -> None:
        self._clock = clock
        self._tries_max = tries_max
        self._windows: dict[str, _Window] = {}

    def take(self, address: str) -> None:
        """Count a try before it is made.

        Raises:
            TooManyTriesError: there were too many within a minute.
        """
        window = self._window(place(address))
        if window.count >= self._tries_max:
            raise TooManyTriesError(max(1, round(window.until_s - self._clock.elapsed_s())))
        window.count += 1

    def give_back(self, address: str) -> None:
        """Take a try back that was right."""
        window = self._windows.get(place(address))
        if window is not None and window.count:
            window.count -= 1

    def _window(self, name: str) -> _Window:
        now_s = self._clock.elapsed_s()
        window = self._windows.get(name)
        if window is not None and now_s < window.until_s:
            return window
        if window is None and len(self._windows) >= ADDRESSES_MAX:
            self._windows = {key: one for key, one in self._windows.items() if now_s < one.until_s}
            if len(self._windows) >= ADDRESSES_MAX and name != OTHERS:
                return self._window(OTHERS)
        window = self._windows[name] = _Window(now_s + WINDOW_S)
        return window


class LoginDelays:
    """Makes the next try of a name wait, for the network it came from, whether anybody has the name or not.

    Who fails on purpose keeps only who shares their network from an account.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tries: dict[bytes, tuple[int, float]] = {}
        self._known: dict[bytes, None] = {}

    def count(self, name: str, address: str) -> None:
        """Count a try before it is made.

        Raises:
            TooManyTriesError: it is too early.
        """
        key, now_s = _key(name, network(address)), self._clock.elapsed_s()
        failures, retry_at_s = self._tries.pop(key, (0, 0.0))
        if now_s < retry_at_s:
            self._tries[key] = (failures, retry_at_s)
            raise TooManyTriesError(max(1, round(retry_at_s - now_s)))
        _make_room(self._tries, NAMES_MAX)
        self._tries[key] = (failures + 1, now_s + delay_s(failures + 1))

    def proved(self, name: str, address: str) -> None:
        """Begin anew after a try that was right, and remember where it came from."""
        key = _key(name, network(address))
        self._tries.pop(key, None)
        self._known.pop(key, None)
        _make_room(self._known, NAMES_MAX)
        self._known[key] = None

    def is_known(self, name: str, address: str) -> bool:
        """Tell whether a right try of this name came from there: no ceiling for all keeps it out."""
        return _key(name, network(address)) in self._known


class Strangers:
    """Has for names that nobody has the ceiling of an account, so that it tells nothing about a name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[bytes, Failures] = {}

    def count(self, name: str) -> None:
        """Count a try before it is made.

        Raises:
            TooManyTriesError: there were too many.
        """
        key, now_ms = _key(name), self._clock.now_ms()
        failures = self._failures.pop(key, Failures())
        wait_s = login_wait_s(failures, now_ms)
        _make_room(self._failures, NAMES_MAX)
        self._failures[key] = failures if wait_s else count_login(failures, now_ms)
        if wait_s:
            raise TooManyTriesError(wait_s)


def _key(*parts: str) -> bytes:
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).digest()


def _make_room(table: dict[bytes, Any], most: int) -> None:
    """Let the oldest go for a new one."""
    if len(table) >= most:
        del table[next(iter(table))]
