"""What becomes of the targets of one thing, and what it is to be told of it. Pure.

Every change of an execution is made by :func:`moved` or :func:`amended`: they keep the times, the version
that devices see and the attempts that are over. What a thing is told (``notify``, ``notify-next``) hangs
on all its executions together, so :func:`settled` adds that once it is known what changed.
(spec: ota, 3.4, 4)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Any, Final, NamedTuple

from infra.machines import IllegalTransitionError
from ota.models import ATTEMPTS_MAX, NEVER, Attempt, Execution, status_of
from ota.states import EXECUTION, FINAL, ExecutionState, ExecutionTrigger, JobStatus

REMEMBERED_MAX: Final = 2
"""Answered requests that an execution remembers."""
PENDING: Final = frozenset({JobStatus.QUEUED, JobStatus.IN_PROGRESS})
"""What a device may still work on."""


class Tell(IntFlag):
    """What somebody is still to be told of a change: the bits of :attr:`ota.models.Execution.untold`."""

    NOTIFY = 1
    """The thing: its list of pending jobs is another one."""
    NEXT = 2
    """The thing: its next job is another one."""
    NOTICE = 4
    """The customer: the equipment has to be replaced."""


PUSHES: Final = Tell.NOTIFY | Tell.NEXT
"""What the thing itself is told."""


class Pending(NamedTuple):
    """The jobs of a thing that are not over, as it sees them, each list in the order of its work."""

    in_progress: tuple[Execution, ...]
    queued: tuple[Execution, ...]


@dataclass(frozen=True, slots=True)
class ThingJobs:
    """The executions of one thing."""

    thing: str
    open: tuple[Execution, ...] = ()
    """All that are not final, of every campaign, those that it does not see yet too."""
    ended: tuple[Execution, ...] = ()
    """Those final ones that were asked for by their campaigns."""

    def find(self, campaign: str) -> Execution | None:
        """Return its execution in this campaign."""
        return next((one for one in (*self.open, *self.ended) if one.campaign == campaign), None)

    def after(self, changed: Iterable[Execution]) -> "ThingJobs":
        """Return what there is once these have taken the place of what they were."""
        all = {one.id: one for one in (*self.open, *self.ended)} | {one.id: one for one in changed}
        return ThingJobs(
            self.thing,
            tuple(one for one in all.values() if one.state not in FINAL),
            tuple(one for one in all.values() if one.state in FINAL),
        )


def pending_lists(open: Iterable[Execution]) -> Pending:
    """Return the jobs a thing has, in the order in which it is to work on them."""
    pending = sorted((one for one in open if one.status in PENDING), key=_turn)
    return Pending(
        tuple(one for one in pending if one.status is JobStatus.IN_PROGRESS),
        tuple(one for one in pending if one.status is JobStatus.QUEUED),
    )


def next_of(open: Iterable[Execution]) -> Execution | None:
    """Return the job that a thing is to work on: one that it began, else the one queued first."""
    in_progress, queued = pending_lists(open)
    return next(iter(in_progress + queued), None)


def moved(execution: Execution, trigger: ExecutionTrigger, at_ms: int, **changes: Any) -> Execution:  # noqa: ANN401 - fields of it
    """Return what an execution is after a trigger; ``changes`` are further fields of it.

    Raises:
        IllegalTransitionError: the table has no row for it, or it has had all its attempts.
    """
    state = EXECUTION.after(execution.state, trigger)
    # Never back, also when a clock is: no time that something took is less than nothing.
    at_ms = max(at_ms, execution.updated_at_ms)
    if trigger is ExecutionTrigger.RETRY:
        return _tried_again(execution, at_ms, changes)
    return _changed(execution, at_ms, _times(state, trigger, at_ms) | changes | {"state": state})


def amended(execution: Execution, at_ms: int, **changes: Any) -> Execution:  # noqa: ANN401 - fields of it
    """Return an execution of which more is known; its state stays."""
    return _changed(execution, at_ms, changes)


def settled(before: ThingJobs, after: ThingJobs, changed: Sequence[Execution]) -> tuple[Execution, ...]:
    """Return what changed between the two, each with what the thing is to be told because of it.

    ``notify`` when an execution joins or leaves the list of pending ones, ``notify-next`` when it is
    another job that comes next: not when the one that came next was begun.
    """
    following, preceding = next_of(after.open), next_of(before.open)
    next_is_another = _identity(preceding) != _identity(following)
    return tuple(_to_be_told(before.find(one.campaign), one, next_is_another) for one in changed)


def told(execution: Execution, bits: Tell) -> Execution:
    """Return an execution of which this has been said."""
    return replace(execution, untold=execution.untold & ~bits)


def _to_be_told(before: Execution | None, after: Execution, next_is_another: bool) -> Execution:
    bits = Tell(0)
    if _listed(before) != _listed(after):
        bits |= Tell.NOTIFY
    if next_is_another:
        bits |= Tell.NEXT
    return replace(after, untold=after.untold | bits, news=after.news + 1) if bits else after


def _listed(execution: Execution | None) -> tuple[str, int] | None:
    return _identity(execution) if execution is not None and execution.status in PENDING else None


def _identity(execution: Execution | None) -> tuple[str, int] | None:
    return None if execution is None else (execution.campaign, execution.attempt)


def _turn(execution: Execution) -> tuple[bool, int, str]:
    return execution.status is not JobStatus.IN_PROGRESS, execution.queued_at_ms, execution.campaign


def _times(state: ExecutionState, trigger: ExecutionTrigger, at_ms: int) -> dict[str, Any]:
    if state in FINAL:
        return {"ended_at_ms": at_ms}
    field = _STAMPED.get(trigger)
    if trigger is ExecutionTrigger.RECALL:
        return {"queued_at_ms": NEVER}
    return {} if field is None else {field: at_ms}


_STAMPED: Final = {
    ExecutionTrigger.OFFER: "queued_at_ms",
    ExecutionTrigger.START: "started_at_ms",
    ExecutionTrigger.STAGED: "staged_at_ms",
    ExecutionTrigger.GO: "go_at_ms",
}


def _changed(before: Execution, at_ms: int, changes: dict[str, Any]) -> Execution:
    # One copy, as ten thousand are stopped within a second.
    claimed_at_ms = changes.get("claimed_at_ms", before.claimed_at_ms)
    status = status_of(changes.get("state", before.state), claimed_at_ms)
    details = changes.get("details", before.details)
    seen = status is not None and (before.status, before.details) != (status, details)
    # Never back, also when a clock is: what was touched since is looked for by this.
    at_ms = max(at_ms, before.updated_at_ms)
    return replace(
        before, **changes, updated_at_ms=at_ms, version=before.version + 1 if seen else before.version
    )


def _tried_again(execution: Execution, at_ms: int, changes: dict[str, Any]) -> Execution:
    if execution.attempt >= ATTEMPTS_MAX:
        raise IllegalTransitionError(EXECUTION.name, execution.state, ExecutionTrigger.RETRY)
    over = Attempt(
        number=execution.attempt,
        state=execution.state,
        reason=execution.reason,
        queued_at_ms=execution.queued_at_ms,
        started_at_ms=execution.started_at_ms,
        staged_at_ms=execution.staged_at_ms,
        held_at_ms=execution.held_at_ms,
        go_at_ms=execution.go_at_ms,
        ended_at_ms=execution.ended_at_ms,
        late=execution.late,
    )
    fresh = Execution(
        campaign=execution.campaign,
        thing=execution.thing,
        wave=execution.wave,
        place=execution.place,
        proof_index=execution.proof_index,
        time_zone=execution.time_zone,
        state=EXECUTION.after(execution.state, ExecutionTrigger.RETRY),
        attempt=execution.attempt + 1,
        updated_at_ms=at_ms,
        timeout_min=execution.timeout_min,
        untold=execution.untold,
        news=execution.news,
        past=(*execution.past, over),
    )
    return replace(fresh, **changes)
