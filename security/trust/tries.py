"""Limits on tries to use a code, asked before anything is hashed.

They are kept here in memory, for ids that exist and ids that do not alike, so neither an answer nor the time
it takes tells which is which. A restart forgets them: a code of 128 bits needs no limit at all, and one of
48 bits is not found by five guesses a restart.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import structlog

from infra.clock import Clock
from infra.telemetry import Metrics
from infra.telemetry.metrics import Count
from security.addresses import place
from security.hashing import FULL, LIGHT, Cost

WRONG_MAX: Final = 5
"""Wrong tries of one code in :data:`WRONG_WITHIN_S`; then it is locked for :data:`LOCK_S`."""
WRONG_WITHIN_S: Final = 900.0
LOCK_S: Final = 3_600.0
ADDRESS_TRIES_MAX: Final = 20
"""Tries of one address in :data:`MINUTE_S`, mistyped and malformed ones too; of IPv6, of all that one
subscriber has."""
MINUTE_S: Final = 60.0
CEILINGS: Final[Mapping[Cost, int]] = {LIGHT: 6_000, FULL: 300}
"""Tries of everybody in :data:`MINUTE_S`, by what one costs: half a core's time each at the most. Who guesses
at labels from many addresses keeps no voucher out, and to keep vouchers out takes 300 addresses."""
FAILURES_ALARM: Final = 50
"""Failures in :data:`HOUR_S` that raise an alarm, once in that time."""
HOUR_S: Final = 3_600.0
KEYS_MAX: Final = 65_536
"""Codes, and addresses, that are remembered; then the one longest quiet is forgotten."""
WAITING_MAX: Final = 128
"""Tries of one code that may wait for their turn."""
RETRY_S: Final = 1.0

T = TypeVar("T")

_log: Final = structlog.get_logger(__name__)


class TooManyTriesError(Exception):
    """Not looked at: too much was tried. ``retry_s`` says when it may be again."""

    def __init__(self, retry_s: float) -> None:
        super().__init__("too many tries: wait, and mind that a code locks itself after five wrong ones")
        self.retry_s = retry_s


class Tries:
    """Counts tries by code, by address and in all; every table is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._codes = _Windows(WRONG_MAX)
        self._locked: OrderedDict[str, float] = OrderedDict()
        self._addresses = _Windows(ADDRESS_TRIES_MAX)
        self._all = {cost: deque[float](maxlen=ceiling) for cost, ceiling in CEILINGS.items()}
        # No larger than the requests that are being answered.
        self._turns: dict[str, _Turns] = {}
        self._failures = deque[float](maxlen=FAILURES_ALARM)
        self.failures, self.refused, self.alarms = Count(), Count(), Count()

    def arrive(self, address: str) -> None:
        """Count a try of an address before anything of it is read, so that nonsense counts as well.

        Raises:
            TooManyTriesError: it must not be read.
        """
        now_s, name = self._clock.elapsed_s(), place(address)
        self._require(self._addresses.wait(name, MINUTE_S, now_s))
        self._addresses.add(name, now_s)

    @asynccontextmanager
    async def attempt(self, claim_id: str, cost: Cost) -> AsyncIterator[None]:
        """Run the block for one try; those of one code one after the other, so that five are five.

        ``cost`` is what hashing will cost; it follows from the form of the id, known or not.

        Raises:
            TooManyTriesError: it must not be hashed.
        """
        now_s = self._clock.elapsed_s()
        self._require(_wait(self._all[cost], CEILINGS[cost], MINUTE_S, now_s))
        self._all[cost].append(now_s)
        async with self._turn(claim_id):
            self._check_code(claim_id)
            yield

    def wrong(self, claim_id: str) -> None:
        """Say that a try turned out wrong; the fifth locks the code, the fiftieth in an hour is told."""
        now_s = self._clock.elapsed_s()
        self.failures.inc()
        self._codes.add(claim_id, now_s)
        if self._codes.wait(claim_id, WRONG_WITHIN_S, now_s) > 0:
            _put(self._locked, claim_id, now_s + LOCK_S)
        self._failures.append(now_s)
        if len(self._failures) == FAILURES_ALARM and now_s - self._failures[0] <= HOUR_S:
            self._failures.clear()
            self.alarms.inc()
            _log.error("enrolment_guessing", failures=FAILURES_ALARM, within_s=HOUR_S)

    def _check_code(self, claim_id: str) -> None:
        now_s = self._clock.elapsed_s()
        locked_s = self._locked.get(claim_id, 0.0) - now_s
        self._require(max(locked_s, self._codes.wait(claim_id, WRONG_WITHIN_S, now_s)))

    def _require(self, wait_s: float) -> None:
        if wait_s > 0:
            self.refused.inc()
            raise TooManyTriesError(wait_s)

    @asynccontextmanager
    async def _turn(self, claim_id: str) -> AsyncIterator[None]:
        turns = self._turns.setdefault(claim_id, _Turns())
        if turns.waiting >= WAITING_MAX:
            self._require(RETRY_S)
        turns.waiting += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.waiting -= 1
            if not turns.waiting:
                del self._turns[claim_id]

    def show(self, metrics: Metrics) -> None:
        """Let the metrics be read."""
        metrics.counter("enrolment_failures", "Wrong codes", lambda: self.failures.value)
        metrics.counter("enrolment_refused", "Tries above a limit, not hashed", lambda: self.refused.value)
        metrics.counter(
            "enrolment_alarms", "Times that many wrong codes came in an hour", lambda: self.alarms.value
        )


class _Windows:
    """The last times of each key, as many as are needed to judge the next."""

    def __init__(self, times_max: int) -> None:
        self._times_max = times_max
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, key: str, within_s: float, now_s: float) -> float:
        times = self._times.get(key)
        return 0.0 if times is None else _wait(times, self._times_max, within_s, now_s)

    def add(self, key: str, now_s: float) -> None:
        times = self._times.get(key)
        if times is None:
            times = deque(maxlen=self._times_max)
        times.append(now_s)
        _put(self._times, key, times)


class _Turns:
    """Who waits for their turn at one code."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


def _wait(times: deque[float], times_max: int, within_s: float, now_s: float) -> float:
    return times[0] + within_s - now_s if len(times) == times_max else 0.0


def _put(table: "OrderedDict[str, T]", key: str, value: T) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > KEYS_MAX:
        table.popitem(last=False)
