"""Bounds on guessing that belong to no account: tries from one address, and tries of names that nobody has.

Kept in memory, bounded: after a restart they begin anew. The bound that must not be forgotten is kept with
the account itself.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from infra.clock import Clock
from security.addresses import OTHERS, place
from security.people.errors import TooManyTriesError
from security.people.persons import delay_s

TRIES_PER_ADDRESS_MAX: Final = 20
WINDOW_S: Final = 60
ADDRESSES_MAX: Final = 10_000
"""Addresses told apart; those beyond share one place."""
STRANGERS_MAX: Final = 10_000


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


class Strangers:
    """Makes names that nobody has wait as an account would, so that waiting tells nothing about a name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tries: dict[bytes, tuple[int, float]] = {}

    def count(self, name: str) -> None:
        """Count a try before it is made.

        Raises:
            TooManyTriesError: it is too early.
        """
        key, now_s = hashlib.sha256(name.encode(errors="replace")).digest(), self._clock.elapsed_s()
        failures, retry_at_s = self._tries.pop(key, (0, 0.0))
        if now_s < retry_at_s:
            self._tries[key] = (failures, retry_at_s)
            raise TooManyTriesError(max(1, round(retry_at_s - now_s)))
        if len(self._tries) >= STRANGERS_MAX:
            del self._tries[next(iter(self._tries))]
        self._tries[key] = (failures + 1, now_s + delay_s(failures + 1))
