"""Bounds on guessing at logins: of a name from a network, and of everybody together.

They know names that somebody has and names that nobody has alike. The bound that must not be forgotten at a
restart is kept with the account itself.
"""

import hashlib
from collections import OrderedDict
from enum import Enum, auto
from typing import Final

from infra.clock import Clock
from security.addresses import network
from security.people.persons import Failures, count_login, delay_s, login_wait_s
from security.tries import MINUTE_S, Window, Windows, remember, require

LOGINS_MAX: Final = 300
"""Logins a minute that are hashed, of everybody of one kind of :class:`Comer`: half a core's time each."""
LOGINS_PER_NAME_MAX: Final = 20
"""Those of one name from where it logged in before, right ones too: each is a hash and a row of the audit."""
LATELY_S: Final = 600.0
_NEVER: Final = float("-inf")


class Comer(Enum):
    """Who wants to log in, as far as is known before anything is hashed. Each kind keeps no other out."""

    KNOWN = auto()
    """With this name somebody logged in from this network before."""
    NEW = auto()
    FAILING = auto()
    """Something with this name, or from this network, failed lately."""


class LoginTries:
    """Makes the next try of a name wait, for the network it came from, whether anybody has the name or not.

    Who fails on purpose keeps only who shares their network from an account; and who fails from many networks
    with many names, only those who fail as well.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tries: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._failed_s: OrderedDict[bytes, float] = OrderedDict()
        self._names = Windows(LOGINS_PER_NAME_MAX, MINUTE_S)
        self._ceilings = {comer: Window(LOGINS_MAX, MINUTE_S) for comer in Comer}

    def count(self, name: str, address: str) -> None:
        """Count a try before it is made, as one that fails.

        Raises:
            TooManyTriesError: it is too early.
        """
        key, now_s = _key(name, network(address)), self._clock.elapsed_s()
        failures, retry_at_s = self._tries.get(key, (0, 0.0))
        require(retry_at_s - now_s)
        self._count_with_all(name, address, now_s)
        remember(self._tries, key, (failures + 1, now_s + delay_s(failures + 1)))

    def _count_with_all(self, name: str, address: str, now_s: float) -> None:
        comer, both = self._comer(name, address, now_s), _name_and_network(name, address)
        require(self._ceilings[comer].wait_s(now_s))
        if comer is Comer.KNOWN:
            require(self._names.wait_s(both[0], now_s))
            self._names.add(both[0], now_s)
        else:
            for one in both:
                remember(self._failed_s, one, now_s)
        self._ceilings[comer].add(now_s)

    def _comer(self, name: str, address: str, now_s: float) -> Comer:
        if self.is_known(name, address):
            return Comer.KNOWN
        times_s = [self._failed_s.get(one, _NEVER) for one in _name_and_network(name, address)]
        return Comer.FAILING if now_s - max(times_s) < LATELY_S else Comer.NEW

    def proved(self, name: str, address: str) -> None:
        """Begin anew after a try that was right, and remember where it came from."""
        key = _key(name, network(address))
        self._tries.pop(key, None)
        remember(self._known, key, None)
        for one in _name_and_network(name, address):
            self._failed_s.pop(one, None)

    def is_known(self, name: str, address: str) -> bool:
        """Tell whether a right try of this name came from there: no failures elsewhere keep it out."""
        return _key(name, network(address)) in self._known


class Strangers:
    """Has for names that nobody has the ceiling of an account, so that it tells nothing about a name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[bytes, Failures] = OrderedDict()

    def count(self, name: str) -> None:
        """Count a try before it is made.

        Raises:
            TooManyTriesError: there were too many.
        """
        key, now_ms = _key(name), self._clock.now_ms()
        failures = self._failures.get(key, Failures())
        require(login_wait_s(failures, now_ms))
        remember(self._failures, key, count_login(failures, now_ms))


def _name_and_network(name: str, address: str) -> tuple[bytes, bytes]:
    return _key("name", name), _key("network", network(address))


def _key(*parts: str) -> bytes:
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).digest()
