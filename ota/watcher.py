"""Looks at what devices show, and moves their targets by it.

What wakes it is a hint and holds no data: a report that came, a commit of the lane, a new session, a thing
that was removed, or its own timer. A hint that is lost costs time: the executor of campaigns has everything
that was let go on looked at as well. Any number of processes may do this at once, because what follows from
what was seen is decided in the lane, on the target as it is then. (spec: ota, 3.4, 3.5, 10)
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

import structlog

from infra.clock import MS_PER_S, Clock
from infra.documents.port import StoreBrokenError, StoreUnavailableError
from infra.holdoff import HoldOff
from infra.presence import Presence
from ota import data, reports
from ota.equipment import Known
from ota.evidence import Facts, Wanted, judge, may_be_late, wakes_at_ms
from ota.executions import ThingJobs, amended
from ota.installed import InstalledService
from ota.lane import FOR_A_WHILE, Change, Commit, Decision, ExecutionLane, Failed
from ota.models import CONFIG, FIRMWARE, NEVER, Execution
from ota.reports import Report
from ota.snapshot import Why
from ota.snapshots import PROGRAM, Defaults, SnapshotService
from ota.states import ACTIVE, AFTER_GO
from registry.models import Standing
from registry.service import RegistryService
from shadow.decisions import NEVER_MADE, Accepted, Outcome, Shadow
from shadow.document import ShadowId
from shadow.errors import NoShadowError
from shadow.service import ShadowService

HINTS_MAX: Final = 50_000
"""Things that wait for a look; above it a hint is dropped, and the executor's next tick makes up for it."""
AWAITED_MAX: Final = 50_000
"""Things that were let go on and are heard of as soon as anything of theirs changes."""
ENDED_MAX: Final = 20
"""Past targets of one thing that a late success is looked for in."""
AT_ONCE: Final = 100
POLL_S: Final = 1.0
RETRY_S: Final = 2.0

_log: Final = structlog.get_logger(__name__)


class Orders(Protocol):
    """Knows what campaigns want."""

    async def wanted(self, campaigns: Collection[str]) -> Mapping[str, Wanted]:
        """Return what those campaigns that there are want of each of their targets."""
        ...


class _Look(NamedTuple):
    """What is to be decided of a thing, and what its campaigns want."""

    change: Change[ThingJobs]
    wanted: Mapping[str, Wanted]


class Watcher:
    """Runs until cancelled."""

    def __init__(
        self,
        lane: ExecutionLane,
        orders: Orders,
        clock: Clock,
        *,
        shadows: ShadowService,
        snapshots: SnapshotService,
        installed: InstalledService,
        devices: Known,
        registry: RegistryService,
        presence: Presence,
        defaults: Defaults,
    ) -> None:
        self._lane = lane
        self._orders = orders
        self._clock = clock
        self._shadows = shadows
        self._snapshots = snapshots
        self._installed = installed
        self._devices = devices
        self._registry = registry
        self._presence = presence
        self._defaults = defaults
        self._hints: set[str] = set()
        self._told = asyncio.Event()
        self._awaited: dict[str, int] = {}
        """Things that were let go on, and when their next timer is up; NEVER: no timer."""
        self._sessions: dict[str, int] = {}
        self._held = HoldOff(clock)
        shadows.listen(self.heard)
        lane.listen(self._moved)
        installed.listeners.append(self.hint)
        registry.listeners.append(self.hint)
        presence.listeners.append(self._came)

    # Hints

    def hint(self, thing: str) -> None:
        """Have a thing looked at soon."""
        if len(self._hints) < HINTS_MAX:
            self._hints.add(thing)
            self._told.set()

    def heard(self, outcomes: Iterable[Outcome]) -> None:
        """Note which devices have said something that counts; on the way of every update."""
        for outcome in outcomes:
            id = outcome.command.id
            counts = id.name == FIRMWARE or (id.name in _OTHERS and id.thing in self._awaited)
            if counts and isinstance(outcome, Accepted) and outcome.change is not None:
                self.hint(id.thing)

    def _moved(self, commits: Sequence[Commit]) -> None:
        for before, after in commits:
            if after.state in ACTIVE and (before is None or _news(before) != _news(after)):
                self.hint(after.thing)
            if after.state in AFTER_GO and len(self._awaited) < AWAITED_MAX:
                self._awaited.setdefault(after.thing, NEVER)
            elif before is not None and before.state in AFTER_GO:
                self._forget(after.thing)  # others ended it

    def _came(self, thing: str) -> None:
        if thing in self._awaited and self._presence.is_here(thing):
            self._sessions[thing] = self._clock.now_ms()
            self.hint(thing)

    # Looking

    async def run(self) -> None:
        """Look at what is hinted at and due, until cancelled. A broken store alone ends it."""
        while True:
            try:
                await self.round()
            except StoreUnavailableError as error:
                _log.warning("firmware_waits_for_store", reason=str(error))
                await asyncio.sleep(RETRY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._told.wait()

    async def round(self) -> None:
        """Look at everything that is hinted at or due now."""
        now_ms = self._clock.now_ms()
        things, self._hints = self._hints, set()
        self._told.clear()
        things |= {thing for thing, at_ms in self._awaited.items() if at_ms and at_ms <= now_ms}
        try:
            await self.look(things)
        except BaseException:
            self._hints |= things
            raise

    async def look(self, things: Collection[str]) -> None:
        """See what things show, and do to their targets what follows. One that fails is left alone a while.

        Raises:
            StoreUnavailableError: some of them were not looked at.
        """
        waiting = self._held.free(sorted(set(things)))
        for first in range(0, len(waiting), AT_ONCE):
            some, began_ms = waiting[first : first + AT_ONCE], self._clock.now_ms()
            looks = [one for one in await asyncio.gather(*map(self._carefully, some)) if one is not None]
            answers = await self._lane.submit([one.change for one in looks])
            for look, answer in zip(looks, answers, strict=True):
                if isinstance(answer, Failed):
                    self._hold(look.change.thing, answer.error)
                else:
                    self._held.worked(look.change.thing)
                    self._note_timers(answer, look.wanted, began_ms)

    async def _carefully(self, thing: str) -> _Look | None:
        try:
            return await self._look(thing)
        except (StoreBrokenError, StoreUnavailableError):
            raise
        except Exception as error:  # noqa: BLE001 - the others go on
            self._hold(thing, error)
            return None

    def _hold(self, thing: str, error: Exception) -> None:
        if isinstance(error, FOR_A_WHILE):
            # No fault of the thing's. It wakes nobody: the next poll comes soon enough.
            if len(self._hints) < HINTS_MAX:
                self._hints.add(thing)
            return
        _log.warning("firmware_not_judged", thing=thing, reason=repr(error))
        self._held.failed(thing)

    async def _look(self, thing: str) -> _Look | None:
        """Return what is to be decided of a thing, with all that it takes; None: there is nothing."""
        jobs = await self._lane.view(thing)
        shadow = await self._shadow(thing, FIRMWARE)
        report = reports.read(shadow.reported.state)
        ended = await self._ended(thing) if report.healthy and not jobs.open else ()
        wanted = await self._orders.wanted({one.campaign for one in (*jobs.open, *ended)})
        if not wanted:
            self._note_timers(jobs, wanted, self._clock.now_ms())
            return None
        await self._keep_before(jobs, wanted)
        facts = await self._facts(thing, shadow, jobs, wanted)

        def decide(now: ThingJobs, now_ms: int) -> Decision[ThingJobs]:
            judged = (
                (one, judge(one, wanted[one.campaign], facts, now_ms))
                for one in (*now.open, *now.ended)
                if one.campaign in wanted
            )
            changed = tuple(after for before, after in judged if after != before)
            return Decision(now.after(changed), changed)

        return _Look(Change(thing, decide, tuple(one.campaign for one in ended)), wanted)

    async def _ended(self, thing: str) -> tuple[Execution, ...]:
        """Return the targets of a thing in which an image that came late may be noted."""
        page = await self._lane.of_thing(thing, ENDED_MAX)
        return tuple(one for one in page.executions if may_be_late(one))

    async def _facts(
        self, thing: str, shadow: Shadow, jobs: ThingJobs, wanted: Mapping[str, Wanted]
    ) -> Facts:
        report = reports.read(shadow.reported.state)
        config, program = await self._shadow(thing, CONFIG), await self._shadow(thing, PROGRAM)
        standing = (await self._registry.standings([thing])).get(thing)
        ids = {one.snapshot for one in jobs.open if one.snapshot}
        kept = await self._snapshots.by_ids(ids) if ids else {}
        return Facts(
            report=report,
            reported_at_s=_said_at_s(shadow),
            config=config.reported,
            config_wanted=config.desired,
            program_applied=data.is_applied(program.desired.state, program.reported.state),
            defaults=await self._factory(thing, report.schema, wanted.values()),
            snapshots={id: kept.get(id) for id in ids},
            on_site=await self._on_site(thing, report, jobs, wanted),
            session_at_ms=self._session_at_ms(thing, standing),
            registered=standing is not None,
        )

    async def _on_site(
        self, thing: str, report: Report, jobs: ThingJobs, wanted: Mapping[str, Wanted]
    ) -> frozenset[str]:
        """Return the images that crews have told of, where one came by nobody knows which way."""
        unexplained = (
            one.campaign in wanted and report.runs(wanted[one.campaign].sha256)
            for one in jobs.open
            if not one.claimed_at_ms
        )
        return await self._installed.on_site(thing) if any(unexplained) else frozenset()

    async def _shadow(self, thing: str, name: str) -> Shadow:
        try:
            return await self._shadows.view(ShadowId(thing, name))
        except NoShadowError:
            return NEVER_MADE

    async def _factory(
        self, thing: str, schema: int, wanted: Iterable[Wanted]
    ) -> dict[int, dict[str, object]]:
        """Return the factory's configuration, where a reset has to be judged by it."""
        schemas = {schema or one.schema for one in wanted if one.data == data.RESET}
        if not schemas:
            return {}
        device = (await self._devices.devices([thing])).get(thing)
        model = "" if device is None else device.model
        found = {one: await self._defaults(model, one) for one in sorted(schemas)}
        return {one: tree for one, tree in found.items() if tree is not None}

    def _session_at_ms(self, thing: str, standing: Standing | None) -> int:
        """Return when a thing was last connected anew; of one without a session its gateway's word counts."""
        if standing is not None and not standing.thing.has_certificate:
            return self._clock.now_ms()
        return self._sessions.get(thing, NEVER)

    async def _keep_before(self, jobs: ThingJobs, wanted: Mapping[str, Wanted]) -> None:
        """Take the snapshot of a device that will ask nobody before it goes on."""
        some = [
            one
            for one in jobs.open
            if one.state in ACTIVE
            and not one.snapshot
            and one.campaign in wanted
            and not wanted[one.campaign].gate
        ]
        if not some:
            return
        taken = await self._snapshots.before(some, Why.LOADING)
        await self._lane.submit([_with_snapshot(one, taken[one.id].id, taken[one.id].boot) for one in some])

    def _note_timers(self, jobs: ThingJobs, wanted: Mapping[str, Wanted], looked_ms: int) -> None:
        """Remember when a thing has to be looked at again; forget one that nothing is awaited of."""
        thing = jobs.thing
        awaited = [one for one in jobs.open if one.state in AFTER_GO]
        if not awaited:
            self._forget(thing)
            return
        if thing in self._awaited or len(self._awaited) < AWAITED_MAX:
            due = [wakes_at_ms(one, wanted[one.campaign]) for one in awaited if one.campaign in wanted]
            # What was due when it was looked at waits for the device now: an image may stay on trial.
            self._awaited[thing] = min((at_ms for at_ms in due if at_ms > looked_ms), default=NEVER)

    def _forget(self, thing: str) -> None:
        self._awaited.pop(thing, None)
        self._sessions.pop(thing, None)


_OTHERS: Final = frozenset({CONFIG, PROGRAM})


def _news(execution: Execution) -> tuple[object, ...]:
    """Return what of a target a look depends on, beside what its device shows elsewhere."""
    tested = execution.details.get("self_test")
    return execution.state, execution.claimed_at_ms, execution.snapshot, tested


def _said_at_s(shadow: Shadow) -> int:
    """Return the second in which a device last said which image it runs."""
    running = shadow.reported.stamps.get("fw")
    stamp = running.get("sha256") if isinstance(running, dict) else None
    second = stamp.get("timestamp") if isinstance(stamp, dict) else None
    return second if isinstance(second, int) else shadow.at_ms // MS_PER_S


def _with_snapshot(execution: Execution, snapshot: str, boot: int) -> Change[None]:
    def decide(now: ThingJobs, now_ms: int) -> Decision[None]:
        there = now.find(execution.campaign)
        if there is None or there.state not in ACTIVE or there.snapshot or there.attempt != execution.attempt:
            return Decision(None)
        return Decision(None, (amended(there, now_ms, snapshot=snapshot, boot=boot),))

    return Change(execution.thing, decide)
