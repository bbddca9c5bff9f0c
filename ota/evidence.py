"""What follows from what a device shows, for the targets that it is. Pure.

The job is the order and the shadow is the fact: a target has succeeded when its device says so *and* reports
the new image in good health *and* its configuration is as the order wants it. One without the other is
waited for; what comes, or does not, decides the bucket, once. (spec: ota, 3.4, 3.5, 10)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from ota import data
from ota.data import PRESERVE, PRESERVE_FAILED, RESET_FAILED, Side
from ota.executions import amended, moved
from ota.models import CONFIG, NEVER, Execution
from ota.reports import NOTHING, STAGED, Report
from ota.snapshot import Snapshot, since_s
from ota.states import ACTIVE, AFTER_GO, FINAL, WAITING, ExecutionState, ExecutionTrigger
from shadow.document import EMPTY, Part, Tree

HEALTH_MISSING: Final = "health_missing"
"""It said that it had succeeded, and never reported the new image."""
ROLLED_BACK: Final = "rolled_back"
THING_REMOVED: Final = "thing_removed"
DEADLINE: Final = "deadline"
ALREADY_CURRENT: Final = "already_current"
LATE, ON_SITE, ELSEWHERE = "late", "on_site", "elsewhere"
"""How a target came to its image that was not at work on it by this job."""
DATA_REASONS: Final = frozenset({PRESERVE_FAILED, RESET_FAILED})
"""The image runs: to try again would find it up to date, and hide what became of the configuration."""
ACTIVATION_FAILED: Final = 6
SELF_TESTED: Final = frozenset({"active", "accepted"})
"""What a FreeRTOS agent says in ``self_test`` once its new image runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a campaign wants of each of its targets, and how their model shows it."""

    sha256: str
    schema: int
    """Of the configuration that the image speaks."""
    data: str = PRESERVE
    health_ms: int = 60_000
    """How long the claim waits for the report, and the report for the claim."""
    gate: bool = True
    """Its model asks before it activates."""
    by_session: bool = False
    """Its model has no ``firmware`` shadow: its own test and a new session with the broker tell."""
    local: bool = False
    """It is carried out on site."""
    release: str = ""
    """Its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a device at one moment."""

    report: Report = NOTHING
    reported_at_s: int = 0
    """When it last said what runs on it."""
    config: Part = EMPTY
    config_wanted: Part = EMPTY
    program_applied: bool = True
    defaults: Mapping[int, Tree] = field(default_factory=dict)
    """The factory's configuration of its model, by the number of the schema."""
    snapshots: Mapping[str, Snapshot | None] = field(default_factory=dict)
    """Those of its executions, by id; None for one that was erased."""
    on_site: frozenset[str] = frozenset()
    """SHA-256 of images that a field tool has told of, as installed there."""
    session_at_ms: int = NEVER
    """When it was last connected anew."""
    registered: bool = True


class Verdict(Enum):
    """Whether the configuration is as the order wants it."""

    GOOD = auto()
    OPEN = auto()
    """Not yet, but what it waits for may still come."""
    BAD = auto()


def judge(execution: Execution, wanted: Wanted, facts: Facts, now_ms: int) -> Execution:
    """Return what becomes of a target, seen what its device shows; itself when nothing follows."""
    if execution.state in FINAL:
        return _over(execution, wanted, facts, now_ms)
    if not facts.registered:
        return moved(execution, ExecutionTrigger.REMOVE, now_ms, reason=THING_REMOVED)
    if execution.state in WAITING:
        return _waiting(execution, wanted, facts, now_ms)
    if execution.snapshot not in facts.snapshots and execution.snapshot:
        return execution  # it went on while we looked: what it was before is not at hand
    if _fell_back(execution, wanted, facts):
        reason = execution.details.get("reason") or ROLLED_BACK
        return moved(execution, ExecutionTrigger.ROLL_BACK, now_ms, reason=reason)
    return _active(execution, wanted, facts, now_ms)


def at_deadline(execution: Execution, wanted: Wanted) -> tuple[ExecutionTrigger, str]:
    """Return how an active target ends whose time is up, and why."""
    if execution.claimed_at_ms and execution.reported_at_ms and wanted.data != PRESERVE:
        return ExecutionTrigger.FAIL, RESET_FAILED
    return ExecutionTrigger.TIME_OUT, DEADLINE


def wakes_at_ms(execution: Execution, wanted: Wanted) -> int:
    """Return when a target has to be looked at again though nothing was heard; :data:`NEVER`: it need not."""
    if execution.state is not ExecutionState.CONFIRMING:
        return NEVER
    return max(execution.claimed_at_ms, execution.reported_at_ms) + wanted.health_ms


def may_be_late(execution: Execution) -> bool:
    """Tell whether of a target that is over it would be noted that its device has the image after all."""
    timed_out = execution.state is ExecutionState.TIMED_OUT
    silent = execution.state is ExecutionState.FAILED and execution.reason == HEALTH_MISSING
    return not execution.late and (timed_out or silent)


def verdict(execution: Execution, wanted: Wanted, facts: Facts) -> Verdict:
    """Return whether the configuration of a device is as the order wants it."""
    said = execution.details
    if said.get("reason") == ALREADY_CURRENT or execution.reason == ALREADY_CURRENT:
        return Verdict.GOOD  # it has changed nothing
    if not data.is_mode(said.get("data", ""), wanted.data):
        return Verdict.BAD
    told = said.get(CONFIG, "")
    if told and told != data.digest(facts.config.state):
        return Verdict.OPEN
    if wanted.data != PRESERVE:
        return _reset(wanted, facts)
    if not _not_preserved(execution, wanted, facts):
        return Verdict.GOOD
    return Verdict.BAD if told else Verdict.OPEN


def _not_preserved(execution: Execution, wanted: Wanted, facts: Facts) -> bool:
    before = facts.snapshots.get(execution.snapshot)
    if before is None:
        return False  # of what it was there is nothing to compare with
    wanted_since = data.written_since(facts.config_wanted.state, facts.config_wanted.stamps, since_s(before))
    after = Side(facts.config.state, facts.report.schema or wanted.schema)
    return bool(data.not_preserved(Side(before.reported(CONFIG), before.schema), after, wanted_since))


def _reset(wanted: Wanted, facts: Facts) -> Verdict:
    defaults = facts.defaults.get(facts.report.schema or wanted.schema)
    if defaults is None or not facts.program_applied:
        return Verdict.OPEN
    wrong = data.not_reset(defaults, facts.config_wanted.state, facts.config.state)
    return Verdict.OPEN if wrong else Verdict.GOOD


def _runs(execution: Execution, wanted: Wanted, facts: Facts) -> bool:
    """Tell whether the wanted image runs there in good health."""
    if not wanted.by_session:
        return facts.report.runs(wanted.sha256)
    began_ms = execution.go_at_ms or execution.started_at_ms
    tested = execution.details.get("self_test") in SELF_TESTED
    return execution.state in ACTIVE and tested and facts.session_at_ms > began_ms


def _is_for_good(wanted: Wanted, facts: Facts) -> bool:
    """Tell whether what runs stays. What is still on trial may fall back, however well it has said it is."""
    return wanted.by_session or facts.report.confirmed


def _fell_back(execution: Execution, wanted: Wanted, facts: Facts) -> bool:
    """Tell whether a device that was let go on runs something else after a restart."""
    report = facts.report
    if execution.state not in AFTER_GO or not execution.go_at_ms or report.sha256 in ("", wanted.sha256):
        return False
    if facts.reported_at_s < execution.go_at_ms // 1_000:
        return False  # said before it went on
    # One that lost its power before it set about it starts the old image once more, and then goes on.
    restarted = report.boot > execution.boot and report.status not in STAGED
    return report.status == ACTIVATION_FAILED or restarted


def _waiting(execution: Execution, wanted: Wanted, facts: Facts, now_ms: int) -> Execution:
    if not _runs(execution, wanted, facts):
        return execution
    how = _how(execution, wanted, facts)
    return moved(
        execution, ExecutionTrigger.SUCCEED, now_ms, how=how, late=how == LATE, reported_at_ms=now_ms
    )


def _active(execution: Execution, wanted: Wanted, facts: Facts, now_ms: int) -> Execution:
    seen: dict[str, Any] = {}
    if not execution.reported_at_ms and _runs(execution, wanted, facts):
        seen["reported_at_ms"] = now_ms
    claimed, reported = execution.claimed_at_ms, seen.get("reported_at_ms", execution.reported_at_ms)
    if not claimed and not reported:
        return execution
    over = now_ms >= max(claimed, reported) + wanted.health_ms
    if not reported:
        return (
            moved(execution, ExecutionTrigger.FAIL, now_ms, reason=HEALTH_MISSING)
            if over
            else _confirming(execution, seen, now_ms)
        )
    if not claimed and not (over and _is_for_good(wanted, facts)):
        return _confirming(execution, seen, now_ms)
    found = verdict(execution, wanted, facts)
    if found is Verdict.GOOD:
        how = "" if claimed else _how_closed(execution, wanted, facts)
        return moved(execution, ExecutionTrigger.SUCCEED, now_ms, data_checked=True, how=how, **seen)
    if found is Verdict.BAD or (over and wanted.data == PRESERVE):
        reason = PRESERVE_FAILED if wanted.data == PRESERVE else RESET_FAILED
        return moved(execution, ExecutionTrigger.FAIL, now_ms, reason=reason, **seen)
    return _confirming(execution, seen, now_ms)


def _confirming(execution: Execution, seen: Mapping[str, Any], now_ms: int) -> Execution:
    if execution.state is not ExecutionState.CONFIRMING:
        return moved(execution, ExecutionTrigger.CONFIRM, now_ms, **seen)
    return amended(execution, now_ms, **seen) if seen else execution


def _over(execution: Execution, wanted: Wanted, facts: Facts, now_ms: int) -> Execution:
    """Note of one that ended without its image that it has it now: it stays in its bucket."""
    has_it = facts.report.runs(wanted.sha256) and _is_for_good(wanted, facts)
    if not may_be_late(execution) or not has_it:
        return execution
    return amended(execution, now_ms, late=True, reported_at_ms=now_ms)


def _how(execution: Execution, wanted: Wanted, facts: Facts) -> str:
    if wanted.local or wanted.sha256 in facts.on_site:
        return ON_SITE
    return LATE if execution.past else ELSEWHERE


def _how_closed(execution: Execution, wanted: Wanted, facts: Facts) -> str:
    """Return how a target came to its image that never said that this job was done."""
    if wanted.local or wanted.sha256 in facts.on_site:
        return ON_SITE
    return ELSEWHERE if facts.report.job not in ("", execution.job) else ""
