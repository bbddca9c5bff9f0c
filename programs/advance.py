"""What becomes of a device's enrolments when they are looked at. Pure: what was seen in, what to do out.

A step is taken only on what was *seen* (an answer in the shadow, a consent on record, a life cycle in the
registry), and what is to be done is what is wanted and not seen yet. So looking again after a crash, or in
two processes at once, does the same as looking once. (spec: han, 2.2 and 8.3)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from infra.machines import Transition, remember
from programs import shadow
from programs.eligibility import REGISTERED, SUSPENDED
from programs.models import MS_PER_S, OTA, Program, Tariff
from programs.records import NOTHING_SAID, ConsentRecord, Enrolment, Limit, Standing
from programs.shadow import SHADOW_BUDGET
from programs.states import ENROLMENT, TOLD, EnrolmentState, EnrolmentTrigger, ProgramState
from shadow.document import Tree

MINUTE_MS: Final = 60 * MS_PER_S
DAY_MS: Final = 24 * 60 * MINUTE_MS
ACTIVATED_MS_MAX: Final = 120 * MS_PER_S
READY_MS_MAX: Final = 300 * MS_PER_S
"""Both from the first look on, counted while the device can be reached: one that is away is late only."""
PENDING_MS_MAX: Final = 30 * DAY_MS
ENDING_MS_MAX: Final = 30 * DAY_MS
LOOK_MS: Final = 60 * MS_PER_S
"""Between two looks at a device that could answer."""
COUNTED_MS_MAX: Final = 90 * MS_PER_S
"""What one look adds to a limit: while nobody looks, no device fails."""
PATIENCE_MS_MIN, PATIENCE_MS_MAX = 15 * MS_PER_S, 15 * MINUTE_MS
"""Between two looks at one that could not; it grows with the wait."""
RECHECK_MS: Final = 6 * 60 * MINUTE_MS
"""Between two looks at what is settled: what nobody told us of is noticed all the same."""
SOON_MS: Final = 5 * MS_PER_S
"""When to look again if what has to be done was perhaps not done."""
STEPS_MAX: Final = len(EnrolmentState)
LIMIT: Final = "LIMIT"
"""Why an enrolment failed whose device said nothing in time."""
OURSELVES: Final = "programs"

_S, _T = EnrolmentState, EnrolmentTrigger
_LIMITS: Final = {_S.PROVISIONING: ACTIVATED_MS_MAX, _S.ACTIVATED: READY_MS_MAX}
_OVER: Final = frozenset({_S.ENDING, _S.ENDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one look at a device finds."""

    now_ms: int
    is_thing: bool
    """A thing of this name is registered: somebody is there to be told."""
    lifecycle: str
    account: str
    """Which the device is bound to now."""
    online: bool
    taking_part: bool
    """What the registry says about it."""
    desired: Tree = field(default_factory=dict)
    reported: Tree = field(default_factory=dict)
    version: int = 0
    """Of the shadow; 0: there is none."""
    programs: Mapping[str, Program] = field(default_factory=dict)
    tariffs: Mapping[str, Tariff] = field(default_factory=dict)
    standing: Standing = NOTHING_SAID
    barred: Mapping[str, str] = field(default_factory=dict)
    """Why those that wait for consent could not begin, by program; what could has no entry."""
    too_large: bool = False
    """What was to be written last did not fit into the shadow."""


class WriteShadow(NamedTuple):
    """Bring the ``program`` shadow to what is wanted, if it still is the version that was seen."""

    state: Tree
    version: int


class CloseConsent(NamedTuple):
    """Take back the consent to what has ended, unless it is younger than the end."""

    program: str
    given_until_ms: int


class TakePart(NamedTuple):
    """Tell the registry whether the device takes part in anything."""

    taking_part: bool


Effect = WriteShadow | CloseConsent | TakePart


@dataclass(frozen=True, slots=True)
class Advance:
    """Enrolments that have changed, and what is to be done once they are stored."""

    changed: tuple[Enrolment, ...]
    effects: tuple[Effect, ...]


class _Step(NamedTuple):
    trigger: EnrolmentTrigger
    reason: str = ""
    actor: str = OURSELVES
    changes: Mapping[str, Any] = {}


def advance(enrolments: Sequence[Enrolment], seen: Observed) -> Advance:
    """Return what becomes of all enrolments of one device, and what is to be done."""
    moved = [_moved(one, seen) for one in enrolments]
    effects = tuple(_effects(moved, seen))
    after = [_timed(old, new, seen, effects) for old, new in zip(enrolments, moved, strict=True)]
    changed = tuple(new for old, new in zip(enrolments, after, strict=True) if new != old)
    return Advance(changed, effects)


def step(
    one: Enrolment,
    trigger: EnrolmentTrigger,
    at_ms: int,
    actor: str,
    reason: str = "",
    **changes: Any,  # noqa: ANN401 - fields of an enrolment
) -> Enrolment:
    """Return an enrolment one row of the table on; raise :class:`IllegalTransitionError` without a row."""
    state = ENROLMENT.after(one.state, trigger)
    kept = remember(one.transitions, Transition(at_ms, actor, reason, one.state, trigger, state))
    return replace(one, state=state, state_ms=at_ms, transitions=kept, **changes)


def retried(one: Enrolment, at_ms: int, actor: str) -> Enrolment:
    """Return a failed enrolment as it is told to its device once more."""
    fresh: dict[str, Any] = {"failure": "", "activated_at_ms": None, "limit": Limit()}
    return step(one, _T.RETRY, at_ms, actor, rev=one.rev + 1, **fresh)


# ---------------------------------------------------------------------------- one step after the other


def _moved(one: Enrolment, seen: Observed) -> Enrolment:
    for _ in range(STEPS_MAX):
        following = _next(one, seen)
        if following is None:
            return one
        trigger, reason, actor, changes = following
        one = step(one, trigger, seen.now_ms, actor, reason, **changes)
    raise RuntimeError(f"enrolment {one.id} goes round in a circle")


def _next(one: Enrolment, seen: Observed) -> _Step | None:
    if one.is_live and (end := _end(one, seen)):
        return end
    match one.state:
        case _S.PENDING_CONSENT:
            return _after_pending(one, seen)
        case _S.PROVISIONING | _S.ACTIVATED:
            return _after_waiting(one, seen)
        case _S.PROVISION_FAILED:
            if _is_news(one, shadow.answer(seen.reported, one.program, one.rev)):
                return _Step(_T.LATE, "it has answered", one.device, {"failure": "", "limit": Limit()})
        case _S.READY:
            if held := _held(one, seen):
                return _Step(_T.HOLD, held)
        case _S.SUSPENDED:
            if not _held(one, seen):
                return _Step(_T.LIFT)
        case _S.ENDING:
            return _after_ending(one, seen)
        case _S.ENDED:
            return None
    return None


def _end(one: Enrolment, seen: Observed) -> _Step | None:
    """Return the end of an enrolment that may not go on."""
    over = {"over_ms": seen.now_ms}
    left = over | {"left_ms": seen.now_ms}
    if not seen.is_thing or seen.lifecycle not in (REGISTERED, SUSPENDED):
        return _Step(_T.END, f"the device is {seen.lifecycle or 'gone'}", changes=over)
    if seen.account != one.account:
        return _Step(_T.END, "the device belongs to another account", changes=over)
    if one.until_ms is not None and one.until_ms <= seen.now_ms:
        return _Step(_T.END, one.until_reason, one.until_by, left)
    if one.state in TOLD and _consent(one, seen) is None:
        return _Step(_T.END, "consent was withdrawn", changes=left)
    program = seen.programs.get(one.program)
    if program is not None and program.state is ProgramState.CLOSED:
        return _Step(_T.END, "the program was closed", changes=over)
    return None


def _after_pending(one: Enrolment, seen: Observed) -> _Step | None:
    over = {"over_ms": seen.now_ms}
    if seen.now_ms - one.state_ms >= PENDING_MS_MAX:
        return _Step(_T.LAPSE, "nobody has said yes", changes=over)
    consent, program = _consent(one, seen), seen.programs.get(one.program)
    if consent is None or program is None or consent.text_version != program.consent_text_version:
        return None
    if one.program in seen.barred:
        return _Step(_T.LAPSE, seen.barred[one.program], changes=over)
    return _Step(_T.CONSENT, consent.id, consent.recorded_by, {"consent": consent.id, "limit": Limit()})


def _after_waiting(one: Enrolment, seen: Observed) -> _Step | None:
    said = shadow.answer(seen.reported, one.program, one.rev)
    now_ms = seen.now_ms
    if said.failed:
        return _Step(_T.FAIL, said.failed, one.device, {"failure": said.failed})
    if one.state is _S.PROVISIONING and said.well:
        return _Step(_T.ACK_ACTIVATED, "", one.device, {"activated_at_ms": now_ms})
    if said.ready:
        return _Step(_T.ACK_READY, "", one.device, {"ready_at_ms": now_ms})
    if seen.too_large and one.program not in seen.desired.get(shadow.ENROLMENTS, {}):
        return _Step(_T.FAIL, SHADOW_BUDGET, changes={"failure": SHADOW_BUDGET})
    if _counted(one.limit, seen).counted_ms >= _LIMITS[one.state]:
        return _Step(_T.FAIL, LIMIT, changes={"failure": LIMIT})
    return None


def _is_news(one: Enrolment, said: shadow.Answer) -> bool:
    """Tell whether a device that had failed has answered since: what it had said before is no news."""
    return said.well and (said.ready or one.activated_at_ms is None)


def _after_ending(one: Enrolment, seen: Observed) -> _Step | None:
    if shadow.is_off(seen.reported, one.program, one.rev):
        return _Step(_T.OFF, "", one.device)
    if not seen.is_thing or one.failure == SHADOW_BUDGET:
        return _Step(_T.OFF, "there is nobody to tell")
    if seen.now_ms - one.state_ms >= ENDING_MS_MAX:
        return _Step(_T.OFF, "the device has never answered")
    return None


def _held(one: Enrolment, seen: Observed) -> str:
    if seen.lifecycle == SUSPENDED:
        return "the device is suspended"
    return "paused by the customer" if one.paused else ""


def _consent(one: Enrolment, seen: Observed) -> ConsentRecord | None:
    consent = seen.standing.consents.get(one.program)
    return consent if consent is not None and consent.account == one.account else None


# ---------------------------------------------------------------------------- what is to be done


def _effects(enrolments: Sequence[Enrolment], seen: Observed) -> Iterator[Effect]:
    """Yield what is wanted and not seen; nothing is said to a thing that is not there."""
    state = shadow.patch(enrolments, seen.tariffs, seen.desired, seen.reported)
    if state and seen.is_thing:
        yield WriteShadow(state, seen.version)
    for one in enrolments:
        standing = seen.standing.consents.get(one.program)
        is_over = one.state in _OVER and one.over_ms is not None
        if is_over and standing is not None and standing.at_ms <= (one.over_ms or 0):
            yield CloseConsent(one.program, one.over_ms or 0)
    taking_part = any(one.state in TOLD for one in enrolments) or OTA in seen.standing.consents
    if seen.is_thing and taking_part is not seen.taking_part:
        yield TakePart(taking_part)


# ---------------------------------------------------------------------------- when to look again


def _timed(old: Enrolment, new: Enrolment, seen: Observed, effects: Sequence[Effect]) -> Enrolment:
    """Return an enrolment with when to look again; what is not due yet and has not moved stays as it is."""
    is_due = old.due_ms is not None and old.due_ms <= seen.now_ms
    if new.state in _LIMITS and (is_due or new is not old):
        new = replace(new, limit=_counted(new.limit, seen))
    due_ms = _due_ms(new, seen, effects)
    if new is old and not is_due and old.due_ms is not None and due_ms is not None:
        due_ms = min(due_ms, old.due_ms)
    return new if due_ms == new.due_ms else replace(new, due_ms=due_ms)


def _due_ms(one: Enrolment, seen: Observed, effects: Sequence[Effect]) -> int | None:
    now_ms = seen.now_ms
    times: list[int] = [now_ms + SOON_MS] if effects else []
    if one.is_live and one.until_ms is not None:
        times.append(one.until_ms)
    match one.state:
        case _S.PENDING_CONSENT:
            times.append(one.state_ms + PENDING_MS_MAX)
        case _S.PROVISIONING | _S.ACTIVATED if seen.online:
            left_ms = _LIMITS[one.state] - one.limit.counted_ms
            times.append(now_ms + min(max(left_ms, MS_PER_S), LOOK_MS))
        case _S.ENDING:
            times += [now_ms + _patience_ms(one, now_ms), one.state_ms + ENDING_MS_MAX]
        case _S.PROVISIONING | _S.ACTIVATED | _S.PROVISION_FAILED:
            times.append(now_ms + _patience_ms(one, now_ms))
        case _S.READY | _S.SUSPENDED:
            times.append(now_ms + RECHECK_MS)
        case _S.ENDED:
            pass
    return min(times, default=None)


def _patience_ms(one: Enrolment, now_ms: int) -> int:
    return min(max((now_ms - one.state_ms) // 10, PATIENCE_MS_MIN), PATIENCE_MS_MAX)


def _counted(limit: Limit, seen: Observed) -> Limit:
    """Return a limit up to now: time counts if the device could be reached before and can be now."""
    gap_ms = min(max(seen.now_ms - limit.seen_ms, 0), COUNTED_MS_MAX)
    counts = limit.seen_ms and limit.online and seen.online
    return Limit(limit.counted_ms + (gap_ms if counts else 0), seen.now_ms, seen.online)
