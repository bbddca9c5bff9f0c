"""The life cycles of firmware as tables: of a release, of a campaign, of an execution. Pure.

An execution is one target of a campaign. Its states are finer than what a device sees of it
(:data:`WIRE_STATUS`), and fall into three groups: waiting, active, final. (spec: ota, 3.4, 9.2)
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from infra.machines import Machine

# ---------------------------------------------------------------------------- releases


class ReleaseState(StrEnum):
    """What may be done with an image and what its vendor says of it."""

    VERIFIED = "verified"
    RELEASED = "released"
    WITHDRAWN = "withdrawn"


class ReleaseTrigger(StrEnum):
    """What moves a release on."""

    VERIFY = "verify"
    RELEASE = "release"
    WITHDRAW = "withdraw"


RELEASE: Final[Machine[ReleaseState, ReleaseTrigger]] = Machine(
    "release",
    MappingProxyType(
        {
            (None, ReleaseTrigger.VERIFY): ReleaseState.VERIFIED,
            (ReleaseState.VERIFIED, ReleaseTrigger.RELEASE): ReleaseState.RELEASED,
            (ReleaseState.VERIFIED, ReleaseTrigger.WITHDRAW): ReleaseState.WITHDRAWN,
            (ReleaseState.RELEASED, ReleaseTrigger.WITHDRAW): ReleaseState.WITHDRAWN,
        }
    ),
)


# ---------------------------------------------------------------------------- campaigns


class CampaignState(StrEnum):
    """Where the carrying out of an order is."""

    DRAFT = "DRAFT"
    FROZEN = "FROZEN"
    """A draft whose targets are counted and whose order is built: it waits for a second person."""
    APPROVED = "APPROVED"
    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ABORTED = "ABORTED"
    COMPLETED = "COMPLETED"


class CampaignTrigger(StrEnum):
    """What moves a campaign on."""

    CREATE = "create"
    EDIT = "edit"
    SUBMIT = "submit"
    APPROVE = "approve"
    SCHEDULE = "schedule"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    COMPLETE = "complete"


_S, _T = CampaignState, CampaignTrigger

CAMPAIGN: Final[Machine[CampaignState, CampaignTrigger]] = Machine(
    "campaign",
    MappingProxyType(
        {
            (None, _T.CREATE): _S.DRAFT,
            (_S.DRAFT, _T.EDIT): _S.DRAFT,
            (_S.FROZEN, _T.EDIT): _S.DRAFT,
            (_S.DRAFT, _T.SUBMIT): _S.FROZEN,
            (_S.FROZEN, _T.APPROVE): _S.APPROVED,
            (_S.APPROVED, _T.SCHEDULE): _S.SCHEDULED,
            (_S.APPROVED, _T.START): _S.RUNNING,
            (_S.SCHEDULED, _T.START): _S.RUNNING,
            (_S.RUNNING, _T.PAUSE): _S.PAUSED,
            (_S.PAUSED, _T.RESUME): _S.RUNNING,
            (_S.APPROVED, _T.ABORT): _S.ABORTED,
            (_S.SCHEDULED, _T.ABORT): _S.ABORTED,
            (_S.RUNNING, _T.ABORT): _S.ABORTED,
            (_S.PAUSED, _T.ABORT): _S.ABORTED,
            (_S.RUNNING, _T.COMPLETE): _S.COMPLETED,
        }
    ),
)


# ---------------------------------------------------------------------------- executions


class ExecutionState(StrEnum):
    """Where one target is."""

    PLANNED = "PLANNED"
    QUEUED = "QUEUED"
    NOTIFIED = "NOTIFIED"
    LOADING = "LOADING"
    LOADED = "LOADED"
    STAGED = "STAGED"
    ACTIVATING = "ACTIVATING"
    CONFIRMING = "CONFIRMING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ROLLED_BACK = "ROLLED_BACK"
    TIMED_OUT = "TIMED_OUT"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    REMOVED = "REMOVED"
    SKIPPED = "SKIPPED"
    REPLACEMENT_REQUIRED = "REPLACEMENT_REQUIRED"


class ExecutionTrigger(StrEnum):
    """What moves a target on."""

    PLAN = "plan"
    REPLACE = "replace"
    """Its model takes no firmware at all."""
    OFFER = "offer"
    NOTIFY = "notify"
    RECALL = "recall"
    START = "start"
    LOADED = "loaded"
    STAGED = "staged"
    GO = "go"
    CONFIRM = "confirm"
    """Its claim or its healthy report came; the other one is waited for."""
    SUCCEED = "succeed"
    FAIL = "fail"
    ROLL_BACK = "roll_back"
    TIME_OUT = "time_out"
    REJECT = "reject"
    CANCEL = "cancel"
    REMOVE = "remove"
    SKIP = "skip"
    RETRY = "retry"


_E, _X = ExecutionState, ExecutionTrigger

WAITING: Final = frozenset({_E.PLANNED, _E.QUEUED, _E.NOTIFIED})
OFFERED: Final = frozenset({_E.QUEUED, _E.NOTIFIED})
BEFORE_GO: Final = frozenset({_E.LOADING, _E.LOADED, _E.STAGED})
AFTER_GO: Final = frozenset({_E.ACTIVATING, _E.CONFIRMING})
ACTIVE: Final = BEFORE_GO | AFTER_GO
FINAL: Final = frozenset(_E) - WAITING - ACTIVE
RETRIED: Final = frozenset({_E.FAILED, _E.TIMED_OUT, _E.ROLLED_BACK})
"""May become PLANNED again; ROLLED_BACK only where its campaign says so."""
BAD: Final = RETRIED
"""Count against a campaign's thresholds."""
UNCOUNTED: Final = frozenset({_E.CANCELED, _E.REMOVED, _E.SKIPPED, _E.REPLACEMENT_REQUIRED})
"""Do not count in its thresholds at all."""

_ENDS: Final = (
    (_X.SUCCEED, _E.SUCCEEDED),
    (_X.FAIL, _E.FAILED),
    (_X.ROLL_BACK, _E.ROLLED_BACK),
    (_X.TIME_OUT, _E.TIMED_OUT),
    (_X.REMOVE, _E.REMOVED),
)
_FORWARD: Final = ((_X.LOADED, _E.LOADED), (_X.STAGED, _E.STAGED), (_X.GO, _E.ACTIVATING))
_RANK: Final = {state: rank for rank, state in enumerate((_E.LOADING, _E.LOADED, _E.STAGED, _E.ACTIVATING))}


def _execution() -> Iterator[tuple[tuple[ExecutionState | None, ExecutionTrigger], ExecutionState]]:
    yield (None, _X.PLAN), _E.PLANNED
    yield (None, _X.REPLACE), _E.REPLACEMENT_REQUIRED
    yield (_E.PLANNED, _X.OFFER), _E.QUEUED
    yield (_E.QUEUED, _X.NOTIFY), _E.NOTIFIED
    yield (_E.PLANNED, _X.SKIP), _E.SKIPPED
    for state in sorted(WAITING):
        # Reported healthy before it was asked, by whatever way it came there.
        yield (state, _X.SUCCEED), _E.SUCCEEDED
        yield (state, _X.CANCEL), _E.CANCELED
        yield (state, _X.REMOVE), _E.REMOVED
    for state in sorted(OFFERED):
        yield (state, _X.RECALL), _E.PLANNED
        yield (state, _X.START), _E.LOADING
        yield (state, _X.REJECT), _E.REJECTED
        yield (state, _X.FAIL), _E.FAILED
    for state in sorted(BEFORE_GO):
        yield (state, _X.CANCEL), _E.CANCELED
        # A device that finds itself up to date, or refuses, may say so late in the load.
        yield (state, _X.REJECT), _E.REJECTED
    # Steps may be skipped forward, never back within an attempt.
    for state in sorted(BEFORE_GO | {_E.ACTIVATING}):
        for trigger, following in _FORWARD:
            if _RANK[following] > _RANK[state]:
                yield (state, trigger), following
    for state in sorted(ACTIVE):
        for trigger, end in _ENDS:
            yield (state, trigger), end
    for state in sorted(BEFORE_GO | {_E.ACTIVATING}):
        yield (state, _X.CONFIRM), _E.CONFIRMING
    for state in sorted(RETRIED):
        yield (state, _X.RETRY), _E.PLANNED


EXECUTION: Final[Machine[ExecutionState, ExecutionTrigger]] = Machine(
    "target of a campaign", MappingProxyType(dict(_execution()))
)


class JobStatus(StrEnum):
    """What a device sees of an execution: the words of AWS IoT Jobs."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    REMOVED = "REMOVED"


WIRE_STATUS: Final[Mapping[ExecutionState, JobStatus]] = MappingProxyType(
    {
        **dict.fromkeys(OFFERED, JobStatus.QUEUED),
        **dict.fromkeys(ACTIVE, JobStatus.IN_PROGRESS),
        _E.SUCCEEDED: JobStatus.SUCCEEDED,
        _E.FAILED: JobStatus.FAILED,
        _E.ROLLED_BACK: JobStatus.FAILED,
        _E.TIMED_OUT: JobStatus.TIMED_OUT,
        _E.REJECTED: JobStatus.REJECTED,
        _E.CANCELED: JobStatus.CANCELED,
        _E.REMOVED: JobStatus.REMOVED,
    }
)
"""What a device sees; what is not here it does not see at all. One that has claimed its success sees that."""
