"""The jobs protocol of AWS IoT on the executions of one thing: what is asked, and what becomes of it. Pure.

The checks are made in the order of the specification: ResourceNotFound, TerminalStateReached,
InvalidStateTransition, VersionMismatch; those before them are made by ``job_requests``. Every accepted
update makes one new version, as many clients count along; an update that was answered within 30 s is
answered the same, and makes none. ``start-next`` is not remembered: what is begun is returned anyhow, and a
device that sends the same bytes for its next job must not get its last one. (spec: ota, 3.2, 3.3, 4)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from infra.machines import IllegalTransitionError
from ota.executions import PENDING, REMEMBERED_MAX, ThingJobs, amended, moved, next_of, pending_lists
from ota.job_ports import Go, Hold, Never, Permit
from ota.job_requests import Ask, Code, Describe, ListJobs, StartNext, Update
from ota.models import Execution, Remembered
from ota.states import AFTER_GO, BEFORE_GO, EXECUTION, OFFERED, ExecutionState, ExecutionTrigger, JobStatus
from ota.timers import in_progress_until, step_until, up_at_ms

REMEMBERED_MS: Final = 30_000
MS_PER_S: Final = 1_000
LISTED_MAX: Final = 10
"""Jobs that one list names."""
HELD: Final = "hold: "
"""Begins the message, and the reason, of an execution that waits at the gate."""

_T, _S = ExecutionTrigger, ExecutionState
_RANK: Final = {
    state: rank for rank, state in enumerate((_S.LOADING, _S.LOADED, _S.STAGED, _S.ACTIVATING, _S.CONFIRMING))
}
_STEPS: Final[Mapping[str, tuple[ExecutionState, ExecutionTrigger | None]]] = {
    "1": (_S.LOADING, None),
    "3": (_S.LOADED, _T.LOADED),
    "5": (_S.STAGED, _T.STAGED),
    "7": (_S.ACTIVATING, _T.GO),
    "8": (_S.ACTIVATING, _T.GO),
}
"""The file status of IEEE 2030.5, as a device reports it, and the step that it stands for."""
_ROLLED_BACK: Final = "6"
_ROLL_BACK_REASONS: Final = frozenset({"self_test", "health_timeout", "boot_loop", "preserve_failed"})
"""Why a device returns to its old image after it had started the new one."""
_SELF_TEST: Final = frozenset({"ready", "active"})
"""What a FreeRTOS agent reports of the new image before it is confirmed."""


class JobError(Exception):
    """A request that is refused; ``execution`` is what the device shall see of its state."""

    def __init__(
        self, code: Code, message: str, execution: Execution | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.execution = execution
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer without the job document of ``document``, which is put in where it is written."""

    members: Mapping[str, Any]
    executions: tuple[Execution, ...] = ()
    """What changes with it."""
    document: Execution | None = None
    replay: bytes = b""
    """The answer that was given to the same request."""


@dataclass(frozen=True, slots=True)
class GateAsk:
    """All is in order but the leave to activate, which others give."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class Held:
    """Not now: ``error`` says when to ask again."""

    error: JobError
    executions: tuple[Execution, ...] = field(default=())


def answer(ask: Ask, jobs: ThingJobs, now_ms: int) -> Reply | GateAsk:
    """Return what becomes of a request; raise :class:`JobError` with the first failed check."""
    match ask:
        case ListJobs():
            return Reply(_lists(jobs))
        case StartNext():
            return _start_next(ask, jobs, now_ms)
        case Describe():
            return _describe(ask, jobs, now_ms)
        case Update():
            return _update(ask, jobs, now_ms)


def grant(ask: Update, permit: Permit, jobs: ThingJobs, now_ms: int) -> Reply | Held:
    """Return what becomes of a gate ask once it is decided; raises as :func:`answer`.

    All is checked again: time has passed. That it got so far is noted also when it is held.
    """
    checked = _update(ask, jobs, now_ms)
    if isinstance(checked, Reply):
        return checked  # others were faster
    execution = checked.execution
    match permit:
        case Go(snapshot, boot):
            changes = {"details": _gone(ask), "reason": "", "snapshot": snapshot, "boot": boot}
            timers = _timers(ask, execution, now_ms)
            after = moved(_staged(execution, now_ms), _T.GO, now_ms, **(timers | changes))
            return _updated(ask, execution, after, now_ms)
        case Hold(reason, retry_after_s):
            error = JobError(Code.REQUEST_THROTTLED, HELD + reason, retry_after_s=retry_after_s)
            waiting = _staged(execution, now_ms)
            if waiting.reason != error.message:
                held_at_ms = waiting.held_at_ms or now_ms
                waiting = amended(waiting, now_ms, reason=error.message, held_at_ms=held_at_ms)
            return Held(error, () if waiting == execution else (waiting,))
        case Never():
            raise JobError(Code.INVALID_STATE_TRANSITION, "this job is not carried out any more", execution)


def summary(execution: Execution) -> dict[str, Any]:
    """Return what a list says of a job. Times are seconds, as clients read them, whatever examples show."""
    times = {"queuedAt": execution.queued_at_ms, "startedAt": execution.started_at_ms}
    return {
        "jobId": execution.job,
        **{name: at_ms // MS_PER_S for name, at_ms in times.items() if at_ms},
        "lastUpdatedAt": execution.updated_at_ms // MS_PER_S,
        "versionNumber": execution.version,
        "executionNumber": execution.attempt,
    }


def described(execution: Execution, now_ms: int) -> dict[str, Any]:
    """Return all that a thing is told of a job, but for its document."""
    until_ms = up_at_ms(execution)
    left = {} if until_ms is None else {"approximateSecondsBeforeTimedOut": _left_s(until_ms, now_ms)}
    return {
        **summary(execution),
        "thingName": execution.thing,
        "status": execution.status,
        "statusDetails": execution.details,
        **left,
    }


def state_of(execution: Execution) -> dict[str, Any]:
    """Return the executionState of an answer."""
    return {
        "status": execution.status,
        "statusDetails": execution.details,
        "versionNumber": execution.version,
    }


def pushed_lists(open: Iterable[Execution]) -> dict[str, list[dict[str, Any]]]:
    """Return the ``jobs`` of a notify: the first ten there are, by status; empty when there are none."""
    in_progress, queued = pending_lists(open)
    queued = queued[: max(0, LISTED_MAX - len(in_progress))]
    lists = {JobStatus.IN_PROGRESS: in_progress[:LISTED_MAX], JobStatus.QUEUED: queued}
    return {status: [summary(one) for one in some] for status, some in lists.items() if some}


# ---------------------------------------------------------------------------- the four requests


def _lists(jobs: ThingJobs) -> dict[str, Any]:
    in_progress, queued = pending_lists(jobs.open)
    return {
        "inProgressJobs": [summary(one) for one in in_progress[:LISTED_MAX]],
        "queuedJobs": [summary(one) for one in queued[:LISTED_MAX]],
    }


def _start_next(ask: StartNext, jobs: ThingJobs, now_ms: int) -> Reply:
    execution = next_of(jobs.open)
    if execution is None:
        return Reply({})
    if execution.status is JobStatus.IN_PROGRESS:
        return Reply({"execution": described(execution, now_ms)}, document=execution)
    details = {} if ask.details is None else {"details": dict(ask.details)}
    after = _counted(execution, _started(execution, now_ms, ask, details))
    return Reply({"execution": described(after, now_ms)}, (after,), document=after)


def _describe(ask: Describe, jobs: ThingJobs, now_ms: int) -> Reply:
    execution = next_of(jobs.open)
    if ask.campaign is not None:
        execution = _named(jobs, ask.campaign, ask.number)
        if execution.status not in PENDING:
            raise JobError(Code.TERMINAL_STATE_REACHED, f"this job is {execution.status}")
    elif execution is not None and ask.number not in {None, execution.attempt}:
        execution = None
    if execution is None:
        return Reply({})
    return Reply({"execution": described(execution, now_ms)}, document=execution if ask.document else None)


def _update(ask: Update, jobs: ThingJobs, now_ms: int) -> Reply | GateAsk:
    execution = _named(jobs, ask.campaign, ask.number)
    known = _remembered(execution, ask, now_ms)
    if known is not None:
        return Reply({}, document=execution if ask.document else None, replay=known.answer)
    if execution.status not in PENDING:
        raise JobError(Code.INVALID_STATE_TRANSITION, f"this job is {execution.status}", execution)
    after = _told(ask, execution, now_ms)
    if ask.expected_version is not None and ask.expected_version != execution.version:
        raise JobError(
            Code.VERSION_MISMATCH, f"this job has version {execution.version}, not that", execution
        )
    return GateAsk(execution) if after is None else _updated(ask, execution, after, now_ms)


# ---------------------------------------------------------------------------- what an update does


def _told(ask: Update, execution: Execution, now_ms: int) -> Execution | None:
    """Return what an update makes of an execution; None: that is for the gate to say."""
    if ask.asks_the_gate:
        if execution.state in BEFORE_GO:
            return None
        if execution.state in AFTER_GO:  # the device lost our word, or its own memory of it
            return amended(execution, now_ms, details=_gone(ask))
        raise JobError(Code.INVALID_STATE_TRANSITION, "this job was not begun", execution)
    details: Any = execution.details if ask.details is None else dict(ask.details)
    changes = {"details": details} | _timers(ask, execution, now_ms)
    try:
        match ask.status:
            case JobStatus.IN_PROGRESS:
                return _further(ask, execution, now_ms, changes)
            case JobStatus.SUCCEEDED:
                return _claimed(ask, execution, now_ms, changes)
            case JobStatus.FAILED:
                trigger = _ending(execution, details)
            case JobStatus.REJECTED:
                trigger = _T.REJECT
            case _:
                raise JobError(Code.INVALID_STATE_TRANSITION, "a job that was offered stays so", execution)
        return moved(execution, trigger, now_ms, reason=details.get("reason", ""), **changes)
    except IllegalTransitionError as error:
        message = f"a job that is {execution.state} does not become {ask.status}"
        raise JobError(Code.INVALID_STATE_TRANSITION, message, execution) from error


def _further(ask: Update, execution: Execution, now_ms: int, changes: dict[str, Any]) -> Execution:
    """Return an execution in progress: steps may be skipped forward, never back."""
    if execution.state in OFFERED:
        execution, changes = _started(execution, now_ms, ask, changes), {}
    step = _step(ask, execution)
    if step is None or not EXECUTION.takes(execution.state, step):
        return amended(execution, now_ms, **changes)
    return moved(execution, step, now_ms, **changes)


def _step(ask: Update, execution: Execution) -> ExecutionTrigger | None:
    """Return the step that the details of an update stand for.

    What a FreeRTOS agent says of it moves an execution on; only a status of the standard can be refused.
    """
    details: Any = ask.details or {}
    if (known := _STEPS.get(details.get("fs", ""))) is not None:
        state, trigger = known
        if _RANK[state] < _RANK[execution.state] and state is not _S.ACTIVATING:
            raise JobError(Code.INVALID_STATE_TRANSITION, f"this job is {execution.state} already", execution)
        return trigger
    return _T.GO if details.get("self_test") in _SELF_TEST else None


def _claimed(ask: Update, execution: Execution, now_ms: int, changes: dict[str, Any]) -> Execution:
    """Return an execution whose device says that it is done; what its shadow says decides."""
    if execution.state in OFFERED:
        execution = _started(execution, now_ms, ask, {})
    changes["claimed_at_ms"] = now_ms
    if execution.state is _S.CONFIRMING:
        return amended(execution, now_ms, **changes)
    return moved(execution, _T.CONFIRM, now_ms, **changes)


def _ending(execution: Execution, details: Mapping[str, str]) -> ExecutionTrigger:
    back = details.get("fs") == _ROLLED_BACK or (
        execution.state in AFTER_GO and details.get("reason") in _ROLL_BACK_REASONS
    )
    return _T.ROLL_BACK if back and execution.state not in OFFERED else _T.FAIL


def _started(
    execution: Execution, now_ms: int, ask: StartNext | Update, changes: dict[str, Any]
) -> Execution:
    until_ms = in_progress_until(now_ms, execution.timeout_min)
    timers = {"timeout_at_ms": until_ms}
    if ask.step_min is not None:
        timers["step_at_ms"] = step_until(now_ms, ask.step_min, until_ms)
    return moved(execution, _T.START, now_ms, **(changes | timers))


def _staged(execution: Execution, now_ms: int) -> Execution:
    if not EXECUTION.takes(execution.state, _T.STAGED):
        return execution
    return moved(execution, _T.STAGED, now_ms)


def _timers(ask: Update, execution: Execution, now_ms: int) -> dict[str, Any]:
    if ask.step_min is None:
        return {}
    return {"step_at_ms": step_until(now_ms, ask.step_min, execution.timeout_at_ms)}


def _gone(ask: Update) -> dict[str, str]:
    return {**(ask.details or {}), "gate": "go"}


# ---------------------------------------------------------------------------- details


def _named(jobs: ThingJobs, campaign: str, number: int | None) -> Execution:
    execution = jobs.find(campaign)
    if execution is None or execution.status is None or number not in {None, execution.attempt}:
        raise JobError(Code.RESOURCE_NOT_FOUND, "there is no such job for this thing")
    return execution


def _remembered(execution: Execution, ask: Update, now_ms: int) -> Remembered | None:
    return next(
        (
            one
            for one in execution.remembered
            if (one.token, one.digest) == (ask.token, ask.digest) and now_ms - one.at_ms <= REMEMBERED_MS
        ),
        None,
    )


def _counted(before: Execution, after: Execution) -> Execution:
    """Return an execution with one new version, however many steps were made."""
    return replace(after, version=before.version + 1)


def _updated(ask: Update, before: Execution, after: Execution, now_ms: int) -> Reply:
    after = _counted(before, after)
    state = {"executionState": state_of(after)} if ask.state or ask.asks_the_gate else {}
    document = after if ask.document else None
    if ask.token is not None:
        body = encoded(state, ask.token, now_ms)
        known = Remembered(token=ask.token, digest=ask.digest, at_ms=now_ms, answer=body)
        after = replace(after, remembered=(*after.remembered, known)[-REMEMBERED_MAX:])
    return Reply(state, (after,), document)


def _left_s(until_ms: int, now_ms: int) -> int:
    return max(0, until_ms - now_ms) // MS_PER_S


_encode: Final = msgspec.json.Encoder().encode


def encoded(members: Mapping[str, Any], token: str | None, now_ms: int) -> bytes:
    """Return the bytes of an answer."""
    ends = {"timestamp": now_ms // MS_PER_S} | ({} if token is None else {"clientToken": token})
    return _encode({**members, **ends})
