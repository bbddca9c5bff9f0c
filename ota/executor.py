"""Carries campaigns out: each second it plans, and does what was planned.

It is dull on purpose. What it does is decided by ``plan`` and judged once more in the lane, on the target as
it is then; tokens are taken by one compare-and-set on the campaign before anything is offered. So any number
of executors may run, and each may be killed anywhere: tokens are wasted at worst. (spec: ota, 9.4)
"""

import asyncio
import hashlib
from collections.abc import Collection, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import structlog

from infra.clock import Clock
from infra.documents.port import DocumentStore, StoreBrokenError, StoreUnavailableError
from infra.documents.records import Kept
from infra.presence import Presence
from infra.telemetry import Metrics
from ota import pace
from ota.actions import Abort, CampaignAction, Complete, Move, OpenWave, Pause, Plan, Schedule, Start
from ota.campaign import Campaign, Path, Terms, wave_ends, wave_of
from ota.campaign_ports import Releases, Signer
from ota.campaign_store import CampaignStore, Names
from ota.campaigns import need_of, unfit
from ota.claims import OFFER_MS_MAX, Claims
from ota.clocks import Limits, due_ms
from ota.equipment import AT_ONCE
from ota.events import Events
from ota.executions import Tell, ThingJobs
from ota.facts import FactReader
from ota.health import Health, Part
from ota.lane import Change, Decision, ExecutionLane, Failed
from ota.models import NEVER, Execution
from ota.needs import DeviceFacts, Need, Reason, why_not
from ota.plan import Around, Seen, is_due, kept_open_ms, limits_of, plan, zones_ms
from ota.rolls import Roll, Rolls
from ota.states import (
    ACTIVE,
    AFTER_GO,
    BEFORE_GO,
    EXECUTION,
    FINAL,
    OFFERED,
    CampaignState,
    ExecutionState,
    ExecutionTrigger,
)
from ota.steps import acted, carried_out
from registry.models import Standing
from registry.service import RegistryService

TICK_S: Final = 1.0
RECOUNT_MS: Final = 60_000
REACH_MS: Final = 60_000
"""So old may be what is known of the ways to a device."""
LOOKS_MAX: Final = 500
"""Devices of one campaign that a tick looks at before it offers them anything."""
SPARE_LOOKS: Final = 16
"""Looked at beyond what could be offered, for those that turn out unfit."""
HELD_MS: Final = 10_000
"""After which a device that somebody else holds is looked at again."""
CAME_MAX: Final = 200_000
"""Devices of which it is remembered when they came."""

_log: Final = structlog.get_logger(__name__)

_HARMLESS: Final = frozenset(
    {Reason.ALREADY_CURRENT, Reason.UNKNOWN_FIRMWARE, Reason.PINNED, Reason.OTHER_CAMPAIGN}
)
"""Reasons that were none when the targets were frozen, and that the offer itself settles."""


class Looker(Protocol):
    """Looks at what devices show, and moves their targets by it."""

    def hint(self, thing: str) -> None:
        """Look soon: something may have been shown that was not seen to."""
        ...

    async def look(self, things: Collection[str]) -> None:
        """See to it before it is said that their time is up."""
        ...


@dataclass(slots=True)
class _Work:
    """What an executor remembers of a campaign between two ticks."""

    planned_at: tuple[int, int, Around] | None = None
    """Revision of the campaign, changes of its targets and all around at which nothing was left to do."""
    wakes_at_ms: int = NEVER
    recounted_ms: int = NEVER
    ways: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By which names a device is reached: its own, or its gateways'."""
    ways_at_ms: int = NEVER
    turn: int = 0
    """The place from which on absent devices are looked at next."""
    held: dict[str, int] = field(default_factory=dict)
    """Devices that somebody else holds, and until when they are left alone."""


class Executor:
    """Runs until cancelled."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        metrics: Metrics,
        *,
        campaigns: CampaignStore,
        lane: ExecutionLane,
        rolls: Rolls,
        facts: FactReader,
        releases: Releases,
        signer: Signer,
        events: Events,
        health: Health,
        presence: Presence,
        registry: RegistryService,
        looker: Looker,
    ) -> None:
        self._clock = clock
        self._campaigns = campaigns
        self._lane = lane
        self._rolls = rolls
        self._facts = facts
        self._releases = releases
        self._signer = signer
        self._events = events
        self._health = health
        self._presence = presence
        self._registry = registry
        self._looker = looker
        self._claims = Claims(store)
        self._work: dict[str, _Work] = {}
        self._came: dict[str, int] = {}
        self._woken = asyncio.Event()
        self._miscounts = 0
        presence.listeners.append(self._moved)
        metrics.counter(
            "campaign_miscounts",
            "Campaigns whose targets were not in the states that were kept of them",
            lambda: self._miscounts,
        )

    def wake(self) -> None:
        """Have it look now: a person has changed something."""
        self._woken.set()

    async def run(self) -> None:
        """Carry out what there is, each second, until cancelled. A broken store alone ends it."""
        while True:
            self._woken.clear()
            try:
                await self.tick()
                self._health.note(Part.STORE, well=True)
            except StoreUnavailableError as error:
                self._health.note(Part.STORE, well=False)
                _log.warning("campaigns_wait_for_store", reason=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._woken.wait()

    async def tick(self) -> None:
        """Do what is to be done now. What goes wrong with one campaign holds up no other."""
        kept = await self._campaigns.at_work()
        self._work = {one.record.id: self._work.get(one.record.id) or _Work() for one in kept}
        astray = set[str]()
        # Stopping comes first: others may have much to do.
        for one in sorted(kept, key=lambda one: (not one.record.is_over, one.record.id)):
            try:
                await self._carry_out(one)
            except (StoreBrokenError, StoreUnavailableError):
                raise
            except Exception as error:  # noqa: BLE001 - our bug in one campaign stops no other
                astray.add(one.record.id)
                _log.error("campaign_failed", campaign=one.record.id, exc_info=error)
        self._health.note_astray(astray)

    # One campaign

    async def _carry_out(self, kept: Kept[Campaign]) -> None:
        campaign, work = kept.record, self._work[kept.record.id]
        if not campaign.created:
            await self._create(kept)
            return
        roll = await self._rolls.roll(campaign.id)
        await self._recount(campaign, roll, work)
        around = await self._around(campaign)
        if (
            work.planned_at == (kept.revision, roll.changes, around)
            and self._clock.now_ms() < work.wakes_at_ms
        ):
            return
        devices = await self._devices(campaign, roll, work, around)
        now_ms = self._clock.now_ms()
        planned = plan(now_ms, campaign, roll.targets(), devices, around)
        if looked := [move.thing for move in planned.moves if _is_late(move, roll)]:
            # What they show may have come and not been seen to.
            await self._looker.look(looked)
            planned = plan(now_ms, campaign, roll.targets(), devices, around)
        if planned.campaign or planned.moves:
            await self._do(kept, planned, now_ms)
        elif campaign.is_over and not _open(roll) and kept_open_ms(now_ms, campaign) is None:
            await self._campaigns.note(replace(campaign, settled=True), kept)
        else:
            self._sleep(kept, roll, work, around, planned)

    def _sleep(self, kept: Kept[Campaign], roll: Roll, work: _Work, around: Around, planned: Plan) -> None:
        """Note that nothing is to be done until something changes, or it is time."""
        now_ms = self._clock.now_ms()
        soon_ms = now_ms + REACH_MS
        work.wakes_at_ms = min(planned.next_wake_ms or soon_ms, soon_ms)
        if _offered_zones(kept.record, roll, now_ms):
            work.wakes_at_ms = NEVER  # devices come and go
        work.planned_at = (kept.revision, roll.changes, around)

    async def _around(self, campaign: Campaign) -> Around:
        """Return what else a plan hangs on: release and keys are to be good at every tick (U12)."""
        now_ms = self._clock.now_ms()
        reason = "" if campaign.is_over else await unfit(campaign, self._releases, self._signer, now_ms)
        return Around(reason, self._health.unhealthy_since_ms)

    async def _do(self, kept: Kept[Campaign], planned: Plan, now_ms: int) -> None:
        """Write the campaign, then move its targets. Whoever loses the first does not do the second."""
        # It is complete once its targets are, not before: the next tick says so again.
        actions = [one for one in planned.campaign if not (isinstance(one, Complete) and planned.moves)]
        for one in actions:
            if not (stood := await self._act(kept, one, now_ms)):
                return
            kept = stood
        after = acted(kept.record, (), planned.offers, now_ms)
        if after == kept.record or await self._campaigns.note(after, kept):
            await self._move(after, planned.moves, now_ms)

    async def _act(self, kept: Kept[Campaign], action: CampaignAction, now_ms: int) -> Kept[Campaign] | None:
        """Write one act with its row; None: others were first, and it is to be planned again."""
        after = acted(kept.record, (action,), 0, now_ms)
        name, reason = _named(action)
        noted = await self._campaigns.note(after, kept, name, reason)
        if noted is not None and name:
            _log.info("campaign_moved", campaign=after.id, act=name, reason=reason)
        return noted

    # Targets

    async def _create(self, kept: Kept[Campaign]) -> None:
        """Make a document for each target. Done again after a crash, it adds what is missing."""
        campaign = kept.record
        assert campaign.frozen is not None, "what was approved was frozen"
        names = await self._campaigns.names(campaign.id, campaign.frozen.revision, campaign.frozen.parts)
        zones = await self._zones(names.ordered)
        await self._lane.create(executions_of(campaign, names, zones, self._clock.now_ms()))
        if await self._campaigns.note(replace(campaign, created=True), kept):
            self.wake()

    async def _zones(self, things: Sequence[str]) -> Mapping[str, str]:
        """Return the time zones of premises that have one of their own, by the thing that is there."""
        zones: dict[str, str] = {}
        for first in range(0, len(things), AT_ONCE):
            standings = await self._registry.standings(things[first : first + AT_ONCE])
            zones |= {
                thing: standing.premises.time_zone
                for thing, standing in standings.items()
                if standing.premises is not None and standing.premises.time_zone
            }
        return zones

    async def _move(self, campaign: Campaign, moves: Sequence[Move], now_ms: int) -> None:
        offered = [move.thing for move in moves if move.trigger is ExecutionTrigger.OFFER]
        claimed = await self._claims.take(offered, campaign.id, now_ms)
        limits = limits_of(campaign.terms)
        changes = [
            _change(campaign.id, limits, move, now_ms)
            for move in moves
            if move.trigger is not ExecutionTrigger.OFFER or move.thing in claimed
        ]
        for answer in await self._lane.submit(changes):
            if isinstance(answer, Failed):
                _log.warning("target_not_moved", campaign=campaign.id, reason=str(answer.error))

    # Devices

    def _moved(self, thing: str) -> None:
        if self._presence.is_here(thing):
            self._came.pop(thing, None)
            self._came[thing] = self._clock.now_ms()
            if len(self._came) > CAME_MAX:
                del self._came[next(iter(self._came))]

    async def _devices(
        self, campaign: Campaign, roll: Roll, work: _Work, around: Around
    ) -> Mapping[str, Seen]:
        """Return what is known of the devices that may be offered something next, and of some absent ones."""
        now_ms = self._clock.now_ms()
        if around.unfit or campaign.state is not CampaignState.RUNNING:
            return {}
        absent = self._absent(campaign.terms, roll, work) if await self._find_ways(roll, work, now_ms) else []
        zones = _offered_zones(campaign, roll, now_ms)
        most = min(_affordable(campaign, roll, now_ms) + SPARE_LOOKS, LOOKS_MAX)
        here = self._next(campaign, roll, work, now_ms, zones, most) if zones else []
        things = [*here, *absent]
        if not things:
            return {}
        release = await self._releases.view(campaign.terms.release)
        facts = await self._facts.of(things)
        quiet = await self._events.quiet(things, now_ms)
        need = need_of(campaign.terms, release)
        seen = {
            thing: _seen(
                facts.get(thing),
                need,
                campaign.id,
                thing in quiet,
                self._came_at_ms(work.ways.get(thing, ())),
            )
            for thing in things
        }
        for thing, one in facts.items():
            if one.report.runs(need.manifest.sha256):
                self._looker.hint(thing)
        work.held |= {thing: now_ms + HELD_MS for thing in here if seen[thing].busy or seen[thing].quiet}
        return seen | {thing: replace(seen[thing], here=False) for thing in absent}

    def _next(
        self,
        campaign: Campaign,
        roll: Roll,
        work: _Work,
        now_ms: int,
        zones: Container[str],
        most: int,
    ) -> list[str]:
        """Return the devices that stand next in line and are here, in their order."""
        work.held = {thing: until_ms for thing, until_ms in work.held.items() if until_ms > now_ms}
        ways, held, is_here = work.ways, work.held, self._presence.is_here
        found: list[str] = []
        for one in roll.targets():
            if one.state is not ExecutionState.PLANNED or one.wave > campaign.wave + 1:
                continue
            names = ways.get(one.thing, ())
            if one.thing in held or one.time_zone not in zones or not any(map(is_here, names)):
                continue
            if is_due(one, self._came_at_ms(names), now_ms):
                found.append(one.thing)
                if len(found) == most:
                    break
        return found

    def _absent(self, terms: Terms, roll: Roll, work: _Work) -> list[str]:
        """Return some that wait and are not here, in turn: who has fallen out of the scope may never come.

        Those that wait to be let go on, too: while they do no clock runs that would end them.
        """
        limits = limits_of(terms)
        absent = [
            one
            for one in roll.targets()
            if (
                one.state is ExecutionState.PLANNED
                or (one.state in BEFORE_GO and due_ms(one, limits) is None)
            )
            and not any(map(self._presence.is_here, work.ways.get(one.thing, ())))
        ]
        some = [one for one in absent if one.place >= work.turn][:LOOKS_MAX] or absent[:LOOKS_MAX]
        work.turn = some[-1].place + 1 if some else 0
        return [one.thing for one in some]

    def _came_at_ms(self, names: Collection[str]) -> int:
        return max((self._came.get(name, NEVER) for name in names), default=NEVER)

    async def _find_ways(self, roll: Roll, work: _Work, now_ms: int) -> bool:
        """See by which names devices are reached, and to those that are gone; False: it was done just now."""
        if work.ways and now_ms < work.ways_at_ms + REACH_MS:
            return False
        # Of those that are over, too: they may be tried once more.
        things = [one.thing for one in roll.targets()]
        ways: dict[str, tuple[str, ...]] = {}
        for first in range(0, len(things), AT_ONCE):
            standings = await self._registry.standings(things[first : first + AT_ONCE])
            ways |= {thing: _ways(standing) for thing, standing in standings.items()}
        work.ways, work.ways_at_ms = ways, now_ms
        if gone := [one.thing for one in roll.targets() if one.thing not in ways and one.state not in FINAL]:
            # Nobody is left to say anything of them, so a hint that was lost never comes again.
            await self._looker.look(gone)
        return True

    # Counting

    async def _recount(self, campaign: Campaign, roll: Roll, work: _Work) -> None:
        """Count the documents, and compare with what was kept: they are to be the same."""
        now_ms = self._clock.now_ms()
        if work.recounted_ms == NEVER:
            work.recounted_ms = now_ms  # just read
            for one in roll.targets():
                if one.state in ACTIVE:
                    self._looker.hint(one.thing)  # what was shown before this process began woke nobody
        if now_ms < work.recounted_ms + RECOUNT_MS:
            return
        work.recounted_ms = now_ms
        kept, counted = await self._rolls.recount(campaign.id)
        frozen = campaign.frozen
        if kept != counted or (frozen is not None and counted.total() != frozen.targets):
            self._miscounts += 1
            _log.error("campaign_miscounted", campaign=campaign.id, kept=dict(kept), counted=dict(counted))


def executions_of(campaign: Campaign, names: Names, zones: Mapping[str, str], now_ms: int) -> list[Execution]:
    """Return the targets of a campaign as they begin, in the order of their places."""
    index = {thing: number for number, thing in enumerate(names.ordered)}
    ends = wave_ends(campaign.terms, len(names.ordered))
    lined_up = sorted(names.ordered, key=lambda thing: _lot(campaign.id, thing))
    planned = [
        Execution(
            campaign=campaign.id,
            thing=thing,
            wave=wave_of(place, ends),
            place=place,
            proof_index=index[thing],
            time_zone=zones.get(thing, ""),
            state=EXECUTION.after(None, ExecutionTrigger.PLAN),
            updated_at_ms=now_ms,
        )
        for place, thing in enumerate(lined_up)
    ]
    replaced = [
        Execution(
            campaign=campaign.id,
            thing=thing,
            wave=0,
            place=place,
            proof_index=-1,
            state=EXECUTION.after(None, ExecutionTrigger.REPLACE),
            updated_at_ms=now_ms,
            ended_at_ms=now_ms,
            untold=Tell.NOTICE,
        )
        for place, thing in enumerate(names.replaced, len(planned))
    ]
    return planned + replaced


def _lot(campaign: str, thing: str) -> bytes:
    return hashlib.sha256(f"{campaign}{thing}".encode()).digest()


def _change(campaign: str, limits: Limits, move: Move, planned_ms: int) -> Change[bool]:
    """Return a move as the lane decides on it: on the target as it is then."""

    def decide(jobs: ThingJobs, now_ms: int) -> Decision[bool]:
        execution = jobs.find(campaign)
        if execution is None:
            return Decision(False)
        if move.trigger is ExecutionTrigger.OFFER:
            at_work = any(one.state in OFFERED | ACTIVE for one in jobs.open if one.campaign != campaign)
            if at_work or now_ms > planned_ms + OFFER_MS_MAX:
                return Decision(False)
        if execution.state in ACTIVE and move.trigger is not ExecutionTrigger.CANCEL:
            due = due_ms(execution, limits)
            if due is None or now_ms <= due:
                return Decision(False)  # it has come further meanwhile
        after = carried_out(move, execution, now_ms)
        return Decision(False) if after is None else Decision(True, (after,))

    return Change(move.thing, decide, (campaign,) if move.trigger in _OF_ENDED else ())


_OF_ENDED: Final = frozenset({ExecutionTrigger.RETRY})
"""Moves of targets that are over: they are looked for."""


def _offered_zones(campaign: Campaign, roll: Roll, now_ms: int) -> frozenset[str]:
    """Return the time zones of the devices that may be offered something now; on site none is."""
    if campaign.state is not CampaignState.RUNNING or campaign.terms.path is Path.LOCAL:
        return frozenset()
    planned = (one for one in roll.targets() if one.state is ExecutionState.PLANNED)
    zones = zones_ms(now_ms, campaign.terms, planned)
    return frozenset(zone for zone, opens_ms in zones.items() if opens_ms <= now_ms)


def _is_late(move: Move, roll: Roll) -> bool:
    """Tell whether it is said of a device that went on that its time is up."""
    execution = roll.get(move.thing)
    ends = move.trigger in {ExecutionTrigger.TIME_OUT, ExecutionTrigger.FAIL}
    return ends and execution is not None and execution.state in AFTER_GO


def _open(roll: Roll) -> int:
    return sum(
        count
        for state, count in roll.counts.items()
        if state in OFFERED | ACTIVE or state is ExecutionState.PLANNED
    )


def _affordable(campaign: Campaign, roll: Roll, now_ms: int) -> int:
    per_hour = pace.pace(campaign.terms.per_hour, campaign.terms.ramp, campaign.offered)
    room = campaign.terms.max_in_flight - sum(roll.counts[state] for state in OFFERED | ACTIVE)
    return max(0, min(room, pace.affords(pace.filled(campaign.bucket, per_hour, now_ms))))


def _ways(standing: Standing) -> tuple[str, ...]:
    own = (standing.thing.name,) if standing.thing.has_certificate else ()
    return (*own, *sorted(standing.gateways))


def _seen(facts: DeviceFacts | None, need: Need, campaign: str, quiet: bool, came_at_ms: int) -> Seen:
    if facts is None:
        return Seen(unfit=Reason.RETIRED, gone=True)
    reason = why_not(facts, need, campaign)
    return Seen(
        came_at_ms=came_at_ms,
        unfit="" if reason is None or reason in _HARMLESS else str(reason),
        gone=reason in {Reason.RETIRED, Reason.NOT_ENROLLED},
        busy=bool(facts.busy_with - {campaign}),
        quiet=quiet,
    )


def _named(action: CampaignAction) -> tuple[str, str]:
    """Return what the audit calls it, and why; nothing of what follows from the terms alone."""
    match action:
        case Schedule():
            return "campaign.schedule", ""
        case Start():
            return "campaign.start", ""
        case OpenWave():
            return "", ""
        case Pause(reason):
            return "campaign.pause", reason
        case Abort(reason):
            return "campaign.abort", reason
        case Complete():
            return "campaign.complete", ""
