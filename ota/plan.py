"""What is to be done for a campaign now: values in, actions out. Pure.

The same input gives the same actions, and planning again once they are carried out gives none. The plan knows
no store, clock or chance: the executor brings what it needs to know, and carries it out. (spec: ota, 9)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from ota import calendar, pace
from ota.actions import Abort, CampaignAction, Complete, Move, OpenWave, Pause, Plan, Schedule, Start
from ota.campaign import (
    PRESTAGE_ACTIVATION_S,
    PRESTAGE_TRANSFER_S,
    Campaign,
    Failure,
    Path,
    Terms,
    wave_ends,
)
from ota.clocks import Limits, due_ms
from ota.evidence import DATA_REASONS, Wanted, at_deadline
from ota.models import NEVER, Execution
from ota.states import (
    AFTER_GO,
    BAD,
    FINAL,
    OFFERED,
    RETRIED,
    UNCOUNTED,
    CampaignState,
    ExecutionState,
    ExecutionTrigger,
)
from ota.steps import acted, carried_out

MS_PER_S: Final = 1_000
RETRY_AFTER_MS: Final = 60_000
"""From the end of an attempt to the next offer."""
BUSY_LOOK_MS: Final = 10_000
"""After which a device that another campaign or an event holds is looked at again."""
UNHEALTHY_MS_MAX: Final = 300_000
"""A service that is not well for longer pauses its campaigns; before, nothing is offered."""
WAVE_FINAL_PERCENT, WAVE_GOOD_PERCENT = 95, 98
ROUNDS_MAX: Final = 50
"""What follows from a plan at once, and from that: a wave opens, and a pause, an end."""
HOPELESS: Final = ("manifest_", "order_", "key_")
"""Begin the reasons of failures that another attempt does not change."""

ORDER_EXPIRED: Final = "order_expired"
SERVICE_HEALTH: Final = "service_health"
PAUSED_TOO_LONG: Final = "paused_too_long"
CANARY_BAD: Final = "canary_bad"
TOO_MANY_BAD: Final = "too_many_bad"
TOO_MANY_REJECTED: Final = "too_many_rejected"
WAVE_NOT_GOOD: Final = "wave_not_good"
CAMPAIGN_ABORTED: Final = "campaign_aborted"

# What is known


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of the device of a target that may be offered something."""

    here: bool = True
    came_at_ms: int = NEVER
    """When it was seen to come, as far as that was seen."""
    unfit: str = ""
    """Why it must not have the image any more."""
    gone: bool = False
    """It is not there any more, or takes no part: what was begun is not waited for."""
    busy: bool = False
    """Another campaign is at work on it."""
    quiet: bool = False
    """There is an event, or there is going to be one, or was just now."""


@dataclass(frozen=True, slots=True)
class Around:
    """What else a plan hangs on."""

    unfit: str = ""
    """Why nothing may be offered: the release was withdrawn, a key was revoked."""
    unhealthy_since_ms: int = NEVER
    """Since when broker or store are not well; NEVER: they are."""


@dataclass(slots=True)
class _Survey:
    """The targets, sorted out in one pass."""

    planned: list[Execution] = field(default_factory=list)
    offered: list[Execution] = field(default_factory=list)
    active: list[Execution] = field(default_factory=list)
    again: list[Execution] = field(default_factory=list)
    """Ended, and to be tried once more."""
    judged: list[tuple[ExecutionState, int]] = field(default_factory=list)
    """What counts for thresholds: how each target ended last, and when."""


def plan(
    now_ms: int,
    campaign: Campaign,
    targets: Sequence[Execution],
    devices: Mapping[str, Seen],
    around: Around,
) -> Plan:
    """Return what is to be done, with all that follows from it at once.

    ``targets`` stand in the order of their places; a device that is not in ``devices`` is offered nothing.
    """
    actions: list[CampaignAction] = []
    moves: list[Move] = []
    for _ in range(ROUNDS_MAX):
        step = _step(now_ms, campaign, targets, devices, around)
        if not step.campaign and not step.moves:
            return Plan(tuple(actions), tuple(moves), step.next_wake_ms)
        actions += step.campaign
        moves += step.moves
        if campaign.state is not CampaignState.RUNNING and not step.campaign:
            return Plan(tuple(actions), tuple(moves), step.next_wake_ms)  # nothing follows from a stop
        campaign = acted(campaign, step.campaign, step.offers, now_ms)
        targets = _after(targets, step.moves, now_ms)
    raise AssertionError("a plan never comes to an end")


def _after(targets: Sequence[Execution], moves: Sequence[Move], now_ms: int) -> Sequence[Execution]:
    if not moves:
        return targets
    after, places = list(targets), {one.thing: place for place, one in enumerate(targets)}
    for move in moves:
        place = places[move.thing]
        after[place] = carried_out(move, after[place], now_ms) or after[place]
    return after


def _step(
    now_ms: int,
    campaign: Campaign,
    targets: Sequence[Execution],
    devices: Mapping[str, Seen],
    around: Around,
) -> Plan:
    match campaign.state:
        case CampaignState.APPROVED | CampaignState.SCHEDULED:
            return _before(now_ms, campaign, around)
        case CampaignState.RUNNING:
            return _running(now_ms, campaign, targets, devices, around)
        case CampaignState.PAUSED:
            return _paused(now_ms, campaign, _survey(campaign, targets))
        case CampaignState.ABORTED:
            return _aborted(now_ms, campaign, _survey(campaign, targets))
        case CampaignState.DRAFT | CampaignState.FROZEN | CampaignState.COMPLETED:
            return Plan()


def limits_of(terms: Terms) -> Limits:
    """Return how long the clocks of its targets may run."""
    if terms.prestage:
        return Limits(PRESTAGE_TRANSFER_S * MS_PER_S, PRESTAGE_ACTIVATION_S * MS_PER_S, prestage=True)
    return Limits(terms.deadline_s * MS_PER_S, terms.deadline_s * MS_PER_S)


def may_retry(terms: Terms, execution: Execution) -> bool:
    """Tell whether a target that ended is tried once more by itself."""
    if execution.state not in RETRIED or execution.late or execution.attempt > terms.retries:
        return False
    if execution.state is ExecutionState.ROLLED_BACK and not terms.retry_rolled_back:
        return False
    return execution.reason not in DATA_REASONS and not execution.reason.startswith(HOPELESS)


def _survey(campaign: Campaign, targets: Iterable[Execution]) -> _Survey:
    found = _Survey()
    planned, offered, active = found.planned.append, found.offered.append, found.active.append
    judged, terms = found.judged.append, campaign.terms
    for one in targets:
        state = one.state
        if state in FINAL:
            if state not in UNCOUNTED:
                judged((state, one.ended_at_ms))
                if state in RETRIED and may_retry(terms, one):
                    found.again.append(one)
            continue
        if one.past:
            last = one.past[-1]
            # It counts as it ended until it ends otherwise: trying again makes no failure undone.
            judged((last.state, last.ended_at_ms))
        if state is ExecutionState.PLANNED:
            planned(one)
        elif state in OFFERED:
            offered(one)
        else:
            active(one)
    return found


# Before and after


def _before(now_ms: int, campaign: Campaign, around: Around) -> Plan:
    assert campaign.frozen is not None, "what is approved was frozen"
    if now_ms >= campaign.frozen.not_after_s * MS_PER_S:
        return Plan((Abort(ORDER_EXPIRED),))
    if now_ms < campaign.terms.start_at_ms:
        waits = campaign.state is CampaignState.APPROVED
        return Plan((Schedule(),) if waits else (), next_wake_ms=campaign.terms.start_at_ms)
    return Plan() if around.unfit or not campaign.created else Plan((Start(),))


def _paused(now_ms: int, campaign: Campaign, found: _Survey) -> Plan:
    assert campaign.stop is not None, "what is paused has a reason"
    over_ms = campaign.stop.at_ms + campaign.terms.pause_ttl_s * MS_PER_S
    # Those that were let go on come to their end also while it is paused.
    if reason := PAUSED_TOO_LONG if now_ms >= over_ms else _aborts(campaign, found):
        return _ending(now_ms, campaign, found, reason)
    moves, wake_ms = _expiring(now_ms, campaign, found.active)
    return Plan((), (*_recalled(found.offered, now_ms), *moves), _first(over_ms, wake_ms))


def _aborted(now_ms: int, campaign: Campaign, found: _Survey) -> Plan:
    canceled = [
        Move(one.thing, one.attempt, ExecutionTrigger.CANCEL, CAMPAIGN_ABORTED)
        for some in (found.planned, found.offered, found.active)
        for one in some
        if one.state not in AFTER_GO
    ]
    moves, wake_ms = _expiring(now_ms, campaign, [one for one in found.active if one.state in AFTER_GO])
    return Plan((), (*canceled, *moves), _first(wake_ms, kept_open_ms(now_ms, campaign)))


def _ending(now_ms: int, campaign: Campaign, found: _Survey, reason: str) -> Plan:
    after = _aborted(now_ms, campaign, found)
    return Plan((Abort(reason),), after.moves, after.next_wake_ms)


def _stopping(now_ms: int, campaign: Campaign, found: _Survey, reason: str) -> Plan:
    moves, wake_ms = _expiring(now_ms, campaign, found.active)
    over_ms = now_ms + campaign.terms.pause_ttl_s * MS_PER_S
    return Plan((Pause(reason),), (*_recalled(found.offered, now_ms), *moves), _first(over_ms, wake_ms))


# At work


def _running(
    now_ms: int,
    campaign: Campaign,
    targets: Sequence[Execution],
    devices: Mapping[str, Seen],
    around: Around,
) -> Plan:
    assert campaign.frozen is not None, "what runs was frozen"
    over_ms, found = campaign.frozen.not_after_s * MS_PER_S, _survey(campaign, targets)
    if reason := _aborts(campaign, found):
        return _ending(now_ms, campaign, found, reason)
    if reason := _pauses(now_ms, campaign, found, around):
        return _stopping(now_ms, campaign, found, reason)
    wave, wave_wake_ms = _open_wave(now_ms, campaign, targets)
    if wave is None:
        return _stopping(now_ms, campaign, found, WAVE_NOT_GOOD)
    if not (found.planned or found.offered or found.active or found.again):
        kept_open = kept_open_ms(now_ms, campaign)
        return Plan((Complete(),)) if kept_open is None else Plan((), (), _first(over_ms, kept_open))
    opened = (OpenWave(wave),) if wave != campaign.wave else ()
    expired, expiry_ms = _expiring(now_ms, campaign, found.active)
    recalled, grace_ms = _late_starters(now_ms, campaign, found.offered)
    room = campaign.terms.max_in_flight - (
        len(found.active) + len(found.offered) - len(expired) - len(recalled)
    )
    skipped, fit = _unfit(found.planned, devices)
    offers, offer_ms = _offers(now_ms, campaign, fit, devices, around, wave, room)
    again = (_again(one, now_ms) for one in found.again)
    moves = (*expired, *recalled, *again, *skipped, *_left(found.active, devices), *offers)
    return Plan(opened, moves, _first(over_ms, wave_wake_ms, expiry_ms, grace_ms, offer_ms))


def kept_open_ms(now_ms: int, campaign: Campaign) -> int | None:
    """Return until when it is not over though all its targets are: one is being tried once more."""
    return campaign.open_until_ms if now_ms < campaign.open_until_ms else None


def _again(one: Execution, now_ms: int) -> Move:
    return Move(one.thing, one.attempt, ExecutionTrigger.RETRY, not_before_ms=now_ms + RETRY_AFTER_MS)


def _pauses(now_ms: int, campaign: Campaign, found: _Survey, around: Around) -> str:
    """Return why a campaign has to stop by itself; empty: it need not."""
    assert campaign.frozen is not None, "what runs was frozen"
    if around.unfit:
        return around.unfit
    if now_ms >= campaign.frozen.not_after_s * MS_PER_S:
        return ORDER_EXPIRED
    if around.unhealthy_since_ms and now_ms - around.unhealthy_since_ms >= UNHEALTHY_MS_MAX:
        return SERVICE_HEALTH
    limits, since_ms = campaign.terms.thresholds, campaign.judged_from_ms
    states = [state for state, at_ms in found.judged if at_ms > since_ms]
    bad = sum(1 for state in states if state in BAD)
    if campaign.wave == 0 and bad:
        return CANARY_BAD
    if len(states) >= limits.least and _reaches(bad, len(states), limits.pause_percent):
        return TOO_MANY_BAD
    rejected = sum(1 for state in states if state is ExecutionState.REJECTED)
    if len(states) >= limits.least and _reaches(rejected, len(states), limits.rejected_percent):
        return TOO_MANY_REJECTED
    return ""


def _aborts(campaign: Campaign, found: _Survey) -> str:
    """Return why a campaign has to end; empty: it need not. The canary ends nothing, it only pauses."""
    limits, states = campaign.terms.thresholds, [state for state, _ in found.judged]
    bad = sum(1 for state in states if state in BAD)
    if campaign.wave > 0 and len(states) >= limits.least and _reaches(bad, len(states), limits.abort_percent):
        return TOO_MANY_BAD
    for extra in limits.extras:
        counted = sum(1 for state in states if state in _FAILURES[extra.failure])
        if len(states) >= extra.least and _reaches(counted, len(states), extra.percent):
            return TOO_MANY_BAD
    return ""


_FAILURES: Final = {
    Failure.FAILED: frozenset({ExecutionState.FAILED, ExecutionState.ROLLED_BACK}),
    Failure.REJECTED: frozenset({ExecutionState.REJECTED}),
    Failure.TIMED_OUT: frozenset({ExecutionState.TIMED_OUT}),
    Failure.ALL: BAD | {ExecutionState.REJECTED},
}


def _reaches(part: int, whole: int, percent: float) -> bool:
    return part * 100 >= whole * percent


# Waves


def _open_wave(
    now_ms: int, campaign: Campaign, targets: Sequence[Execution]
) -> tuple[int | None, int | None]:
    """Return the wave that may be open now, and when to look again; None: it never will get any further."""
    assert campaign.frozen is not None, "what runs was frozen"
    ends = wave_ends(campaign.terms, campaign.frozen.ordered)
    wave = campaign.wave
    while wave < len(ends) - 1:
        members = targets[ends[wave - 1] if wave else 0 : ends[wave]]
        if not members:
            wave += 1
            continue
        over = sorted(one.ended_at_ms for one in members if one.state in FINAL)
        needed = -(-len(members) * WAVE_FINAL_PERCENT // 100)
        if len(over) < needed:
            return wave, None
        if not _was_good(campaign, members):
            unsettled = len(over) < len(members) or any(may_retry(campaign.terms, one) for one in members)
            return (wave if unsettled else None), None
        soaked_ms = over[needed - 1] + campaign.terms.soak_s * MS_PER_S
        if now_ms < soaked_ms:
            return wave, soaked_ms
        wave += 1
    return wave, None


def _was_good(campaign: Campaign, members: Iterable[Execution]) -> bool:
    """Tell whether enough of a wave succeeded. What people know of and let go on does not count.

    One that is tried again counts as it ended, until it ends otherwise.
    """
    since_ms = campaign.judged_from_ms
    ends = [end for one in members if (end := _last_end(one)) is not None]
    good = sum(1 for state, _ in ends if state is ExecutionState.SUCCEEDED)
    bad = sum(
        1
        for state, at_ms in ends
        if state is not ExecutionState.SUCCEEDED and state not in UNCOUNTED and at_ms > since_ms
    )
    if not good and not bad:
        return since_ms != NEVER  # a wave that showed nothing lets nothing follow by itself
    return _reaches(good, good + bad, WAVE_GOOD_PERCENT)


def _last_end(one: Execution) -> tuple[ExecutionState, int] | None:
    """Return how and when a target ended last; None: it never did."""
    if one.state in FINAL:
        return one.state, one.ended_at_ms
    return (one.past[-1].state, one.past[-1].ended_at_ms) if one.past else None


# Targets


def _expiring(now_ms: int, campaign: Campaign, active: Iterable[Execution]) -> tuple[list[Move], int | None]:
    """Return those whose time is up, and when the next one's is."""
    limits, wanted = limits_of(campaign.terms), Wanted(sha256="", schema=0, data=campaign.terms.data)
    moves: list[Move] = []
    wake_ms: int | None = None
    for one in active:
        due = due_ms(one, limits)
        if due is None:
            continue
        if now_ms > due:
            trigger, reason = at_deadline(one, wanted)
            moves.append(Move(one.thing, one.attempt, trigger, reason))
        elif wake_ms is None or due < wake_ms:
            wake_ms = due
    return moves, None if wake_ms is None else wake_ms + 1


def _recalled(offered: Iterable[Execution], now_ms: int, hold_ms: int = 0) -> list[Move]:
    return [
        Move(one.thing, one.attempt, ExecutionTrigger.RECALL, not_before_ms=now_ms + hold_ms)
        for one in offered
    ]


def _late_starters(
    now_ms: int, campaign: Campaign, offered: Sequence[Execution]
) -> tuple[list[Move], int | None]:
    """Take back offers that were not begun: an absent device holds no place."""
    grace_ms = campaign.terms.start_grace_s * MS_PER_S
    late = [one for one in offered if now_ms >= one.queued_at_ms + grace_ms]
    first = min((one.queued_at_ms for one in offered if now_ms < one.queued_at_ms + grace_ms), default=None)
    return _recalled(late, now_ms, grace_ms), None if first is None else first + grace_ms


def _unfit(planned: Iterable[Execution], devices: Mapping[str, Seen]) -> tuple[list[Move], list[Execution]]:
    """Return the moves of those that get nothing any more, here or not and by whatever way; and the rest."""
    moves: list[Move] = []
    fit: list[Execution] = []
    for one in planned:
        seen = devices.get(one.thing)
        if seen is not None and seen.unfit:
            moves.append(Move(one.thing, one.attempt, ExecutionTrigger.SKIP, seen.unfit))
        else:
            fit.append(one)
    return moves, fit


def _left(active: Iterable[Execution], devices: Mapping[str, Seen]) -> list[Move]:
    """Return the moves of those that were not let go on, and are gone."""
    return [
        Move(one.thing, one.attempt, ExecutionTrigger.CANCEL, seen.unfit)
        for one in active
        if one.state not in AFTER_GO and (seen := devices.get(one.thing)) is not None and seen.gone
    ]


def _offers(
    now_ms: int,
    campaign: Campaign,
    planned: Sequence[Execution],
    devices: Mapping[str, Seen],
    around: Around,
    wave: int,
    room: int,
) -> tuple[list[Move], int | None]:
    """Return the offers to be made, and when to look again."""
    terms = campaign.terms
    if terms.path is Path.LOCAL or around.unhealthy_since_ms:
        return [], None
    waking = zones_ms(now_ms, terms, planned)
    wakes = [opens_ms for opens_ms in waking.values() if opens_ms > now_ms]
    per_hour = pace.pace(terms.per_hour, terms.ramp, campaign.offered)
    bucket = pace.filled(campaign.bucket, per_hour, now_ms)
    most, moves = min(room, pace.affords(bucket)), list[Move]()
    for one in planned:
        seen = devices.get(one.thing)
        if one.wave > wave or seen is None or waking[one.time_zone] > now_ms:
            continue
        if not seen.here:
            continue
        if not is_due(one, seen.came_at_ms, now_ms):
            wakes.append(one.retry_at_ms)
        elif seen.busy or (seen.quiet and terms.blackout):
            wakes.append(now_ms + BUSY_LOOK_MS)
        elif len(moves) < most:
            moves.append(Move(one.thing, one.attempt, ExecutionTrigger.OFFER))
        elif room > len(moves):
            wakes.append(pace.next_offer_ms(pace.taken(bucket, len(moves)), per_hour))
            break
        else:
            break
    return moves, min(wakes, default=None)


def zones_ms(now_ms: int, terms: Terms, planned: Iterable[Execution]) -> dict[str, int]:
    """Return the time zones of targets, and from when on something may be offered there."""
    return {
        zone: calendar.opens_at_ms(terms.windows, _zone(terms, zone), now_ms)
        for zone in sorted({one.time_zone for one in planned})
    }


def _zone(terms: Terms, zone: str) -> ZoneInfo:
    """Return the time zone of a target; the campaign's for premises that have none of their own."""
    return ZoneInfo(zone or terms.time_zone)


def is_due(planned: Execution, came_at_ms: int, now_ms: int) -> bool:
    """Tell whether a target may be offered again: its time has come, or its device has."""
    return now_ms >= planned.retry_at_ms or came_at_ms > planned.updated_at_ms


def _first(*at_ms: int | None) -> int | None:
    return min((one for one in at_ms if one is not None), default=None)


# Gate


def gate_opens_ms(now_ms: int, terms: Terms, zone: str) -> int:
    """Return from when on a device in this time zone may activate: now, where it may."""
    windows = terms.activation if terms.prestage else terms.windows
    return calendar.opens_at_ms(windows, _zone(terms, zone), max(now_ms, terms.activate_at_ms))
