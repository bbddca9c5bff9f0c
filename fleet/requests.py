"""Requests that wait for their answers: the same bytes again, after random waits, until one comes. Pure.

One request of each kind is under way at a time, so there is never a queue.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from fleet.jobs import write_json
from fleet.retry import full_jitter_s
from fleet.topics import Route

ANSWER_S: Final = 10.0
RETRY_BASE_S, RETRY_CAP_S = 2.0, 60.0

Address = Callable[[Route], str]


@dataclass(slots=True)
class Request:
    """A message that waits for its answer; ``body`` never changes."""

    token: str
    body: bytes
    address: Address
    due_at: float
    tries: int = 0


class Requests:
    """At most one request of each kind."""

    __slots__ = ("_chance", "_number", "_prefix", "_waiting")

    def __init__(self, prefix: str, chance: random.Random) -> None:
        """``prefix`` must differ from one start of a device to the next."""
        self._prefix, self._chance = prefix, chance
        self._number = 0
        self._waiting: dict[str, Request] = {}

    def __contains__(self, kind: str) -> bool:
        return kind in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, kind: str, now: float, address: Address, body: dict[str, Any]) -> None:
        """Ask something new; what was asked of this kind before no longer matters."""
        self._number += 1
        token = f"{self._prefix}{self._number}"
        self._waiting[kind] = Request(token, write_json({**body, "clientToken": token}), address, now)

    def answered(self, kind: str, token: str) -> bool:
        """Whether this answers what is asked; then it is asked no more."""
        request = self._waiting.get(kind)
        if request is None or request.token != token:
            return False
        del self._waiting[kind]
        return True

    def postpone(self, kind: str, token: str, now: float, wait_s: float = 0.0) -> None:
        """Ask the same again, but not before ``wait_s``, or a random wait if it is not given."""
        request = self._waiting.get(kind)
        if request is not None and request.token == token:
            request.due_at = now + (wait_s or self._jitter_s(request))

    def drop(self, kind: str) -> None:
        """Ask it no more."""
        self._waiting.pop(kind, None)

    def again(self, now: float) -> None:
        """Ask everything at once: it went down with a connection."""
        for request in self._waiting.values():
            request.due_at = now

    def due(self, now: float, route: Route) -> Iterator[tuple[str, bytes]]:
        """Yield what to send now."""
        for request in self._waiting.values():
            if request.due_at <= now:
                request.due_at = now + ANSWER_S + self._jitter_s(request)
                request.tries += 1
                yield request.address(route), request.body

    def wake_at(self) -> float:
        """Return when ``due`` has something to send; infinite if nothing waits."""
        return min((request.due_at for request in self._waiting.values()), default=float("inf"))

    def _jitter_s(self, request: Request) -> float:
        return full_jitter_s(self._chance, request.tries, RETRY_BASE_S, RETRY_CAP_S)
