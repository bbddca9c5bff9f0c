"""How long devices take, and how many are done in an hour. Pure, on the server's time.

A clock starts with the first IN_PROGRESS of an attempt and stops with SUCCEEDED. For one that loads ahead, or
was held at the gate, it stands still between STAGED and go: then there are two, and what counts is their sum.
Nothing else stops a clock. (spec: ota, 11)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ota.models import NEVER, Execution
from ota.states import ACTIVE, ExecutionState

HOUR_MS: Final = 3_600_000
SHARES: Final = (50, 95, 99, 100)


@dataclass(frozen=True, slots=True)
class Clocks:
    """What one attempt took so far, in milliseconds."""

    transfer_ms: int = 0
    idle_ms: int = 0
    """Between both clocks: it waited to be let go on."""
    activation_ms: int = 0

    @property
    def sum_ms(self) -> int:
        """Return what counts."""
        return self.transfer_ms + self.activation_ms


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the clocks of a target may run."""

    transfer_ms: int
    activation_ms: int
    prestage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of a campaign; the percentiles are None while nobody is done."""

    p50_ms: int | None
    p95_ms: int | None
    p99_ms: int | None
    p100_ms: int | None
    over: int
    """Those that took longer than the limit, or had their time run out."""
    last_hour: int
    """Done within the last 60 minutes."""
    in_flight: int
    limit_ms: int


def clocks_of(execution: Execution, now_ms: int, *, prestage: bool = False) -> Clocks:
    """Return what the attempt that a target is in has taken."""
    if execution.started_at_ms == NEVER:
        return Clocks()
    until_ms = execution.ended_at_ms or max(now_ms, execution.updated_at_ms)
    staged_ms, go_ms = execution.staged_at_ms, execution.go_at_ms
    if not staged_ms or not (prestage or execution.held_at_ms):
        return Clocks(until_ms - execution.started_at_ms)
    left_ms = go_ms or until_ms
    return Clocks(staged_ms - execution.started_at_ms, left_ms - staged_ms, until_ms - left_ms)


def due_ms(execution: Execution, limits: Limits) -> int | None:
    """Return the last moment at which an active target may succeed; None: no clock runs."""
    timers = [at_ms for at_ms in (execution.timeout_at_ms, execution.step_at_ms) if at_ms]
    own = _own_due_ms(execution, limits)
    return min(timers if own is None else [*timers, own], default=None)


def _own_due_ms(execution: Execution, limits: Limits) -> int | None:
    started_ms, staged_ms, go_ms = execution.started_at_ms, execution.staged_at_ms, execution.go_at_ms
    if not staged_ms or not (limits.prestage or execution.held_at_ms):
        return started_ms + limits.transfer_ms if started_ms else None
    if not go_ms:
        return None
    if limits.prestage:
        return go_ms + limits.activation_ms
    return go_ms + limits.transfer_ms - (staged_ms - started_ms)


def figures(targets: Iterable[Execution], limit_ms: int, now_ms: int, *, prestage: bool = False) -> Figures:
    """Return the figures of a campaign. What came elsewhere than by its job has no clock."""
    took: list[int] = []
    over = last_hour = in_flight = 0
    for one in targets:
        if one.state in ACTIVE:
            in_flight += 1
        elif one.state is ExecutionState.SUCCEEDED:
            last_hour += one.ended_at_ms > now_ms - HOUR_MS
            if one.started_at_ms and not one.how:
                took.append(clocks_of(one, now_ms, prestage=prestage).sum_ms)
            over += one.late
        elif one.state is ExecutionState.TIMED_OUT:
            over += 1
    took.sort()
    shares = [_share(took, share) for share in SHARES]
    return Figures(
        p50_ms=shares[0],
        p95_ms=shares[1],
        p99_ms=shares[2],
        p100_ms=shares[3],
        over=over + sum(1 for one in took if one > limit_ms),
        last_hour=last_hour,
        in_flight=in_flight,
        limit_ms=limit_ms,
    )


def _share(ascending: Sequence[int], percent: int) -> int | None:
    """Return the smallest value that so many percent of all do not exceed."""
    return ascending[-(-len(ascending) * percent // 100) - 1] if ascending else None
