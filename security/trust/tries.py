"""Limits on tries to use a code, asked before anything is hashed.

They are kept here in memory, for ids that exist and ids that do not alike, so neither an answer nor the time
it takes tells which is which. A restart forgets them: a code of 128 bits needs no limit at all, and one of
48 bits is not found by five guesses a restart.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog

from infra.clock import Clock
from infra.telemetry import Metrics
from infra.telemetry.metrics import Count
from security.hashing import FULL, LIGHT, Cost
from security.tries import MINUTE_S, AddressTries, TooManyTriesError, Window, Windows, remember, require

WRONG_MAX: Final = 5
"""Wrong tries of one code in :data:`WRONG_WITHIN_S`; then it is locked for :data:`LOCK_S`."""
WRONG_WITHIN_S: Final = 900.0
LOCK_S: Final = 3_600.0
CEILINGS: Final[Mapping[Cost, int]] = {LIGHT: 6_000, FULL: 300}
"""Tries of everybody a minute, by what one costs: half a core's time each at the most. Who guesses at labels
from many addresses keeps no voucher out, and to keep vouchers out takes 300 addresses."""
FAILURES_ALARM: Final = 50
"""Failures in :data:`HOUR_S` that raise an alarm, once in that time."""
HOUR_S: Final = 3_600.0
WAITING_MAX: Final = 128
"""Tries of one code that may wait for their turn."""
RETRY_S: Final = 1.0

_log: Final = structlog.get_logger(__name__)


class Tries:
    """Counts tries by code, by address and in all; every table is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._codes = Windows(WRONG_MAX, WRONG_WITHIN_S)
        self._locked: OrderedDict[str, float] = OrderedDict()
        self._addresses = AddressTries(clock)
        self._all = {cost: Window(ceiling, MINUTE_S) for cost, ceiling in CEILINGS.items()}
        # No larger than the requests that are being answered.
        self._turns: dict[str, _Turns] = {}
        self._failures = deque[float](maxlen=FAILURES_ALARM)
        self.failures, self.refused, self.alarms = Count(), Count(), Count()

    def arrive(self, address: str) -> None:
        """Count a try of an address before anything of it is read, so that nonsense counts as well.

        Raises:
            TooManyTriesError: it must not be read.
        """
        try:
            self._addresses.take(address)
        except TooManyTriesError:
            self.refused.inc()
            raise

    @asynccontextmanager
    async def attempt(self, claim_id: str, cost: Cost) -> AsyncIterator[None]:
        """Run the block for one try; those of one code one after the other, so that five are five.

        ``cost`` is what hashing will cost; it follows from the form of the id, known or not.

        Raises:
            TooManyTriesError: it must not be hashed.
        """
        now_s = self._clock.elapsed_s()
        self._require(self._all[cost].wait_s(now_s))
        self._all[cost].add(now_s)
        async with self._turn(claim_id):
            self._check_code(claim_id)
            yield

    def wrong(self, claim_id: str) -> None:
        """Say that a try turned out wrong; the fifth locks the code, the fiftieth in an hour is told."""
        now_s = self._clock.elapsed_s()
        self.failures.inc()
        self._codes.add(claim_id, now_s)
        if self._codes.wait_s(claim_id, now_s) > 0:
            remember(self._locked, claim_id, now_s + LOCK_S)
        self._failures.append(now_s)
        if len(self._failures) == FAILURES_ALARM and now_s - self._failures[0] <= HOUR_S:
            self._failures.clear()
            self.alarms.inc()
            _log.error("enrolment_guessing", failures=FAILURES_ALARM, within_s=HOUR_S)

    def _check_code(self, claim_id: str) -> None:
        now_s = self._clock.elapsed_s()
        locked_s = self._locked.get(claim_id, 0.0) - now_s
        self._require(max(locked_s, self._codes.wait_s(claim_id, now_s)))

    def _require(self, wait_s: float) -> None:
        if wait_s > 0:
            self.refused.inc()
        require(wait_s)

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


class _Turns:
    """Who waits for their turn at one code."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
