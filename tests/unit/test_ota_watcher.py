"""The watcher over real services: what is reported moves targets, whoever hinted at it, and only once."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import StoreUnavailableError
from infra.presence import Presence
from infra.telemetry import Metrics
from ota import data
from ota.errors import LaneFullError
from ota.evidence import Wanted
from ota.execution_store import EXECUTIONS
from ota.executions import ThingJobs, amended, moved
from ota.installed import INSTALLED, Installed, InstalledService, NotesFullError, OtherNoteError, Result
from ota.lane import Change, Commit, Decision, ExecutionLane, Failed
from ota.models import Execution
from ota.snapshots import SNAPSHOTS, SnapshotService
from ota.states import ExecutionState, ExecutionTrigger
from ota.watcher import Watcher
from registry.collections import COLLECTIONS
from registry.devices import DeviceService
from registry.models import NewThing, ThingKind
from registry.service import RegistryService
from security import audit
from security.policy import Principal, Role
from shadow.commands import Channel, Origin
from shadow.document import ShadowId
from shadow.records import LOGS, SHADOWS
from tests.covers import covers
from tests.shadow_rig import Rig, accepted, rig, update

E, X = ExecutionState, ExecutionTrigger
CAMPAIGN = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
NEW, OLD = "6e97" * 16, "0123" * 16
WANTED = Wanted(sha256=NEW, schema=5)
CONFIG: Any = {"set": {"day": 21.5, "night": 18}, "lang": "en"}
SYSTEM = Principal("sys", Role.SYSTEM)
CREW = Principal("ines", Role.INSTALLER)


@dataclass
class Orders:
    """Campaigns as they would be: what they want by id."""

    known: dict[str, Wanted] = field(default_factory=lambda: {CAMPAIGN: WANTED})
    broken: bool = False

    async def wanted(self, campaigns: Collection[str]) -> Mapping[str, Wanted]:
        if self.broken:
            raise RuntimeError("a release that cannot be read")
        return {id: self.known[id] for id in campaigns if id in self.known}


@dataclass
class World:
    shadows: Rig
    lane: ExecutionLane
    orders: Orders
    watcher: Watcher
    snapshots: SnapshotService
    installed: InstalledService
    registry: RegistryService
    presence: Presence
    commits: list[Commit]

    async def report(self, shadow: str, state: Any, thing: str = "hall") -> None:
        origin = Origin(thing, Role.DEVICE, Channel.MQTT)
        accepted(await self.shadows.one(update({"reported": state}, ShadowId(thing, shadow), origin)))

    async def runs(self, sha256: str, boot: int, *, healthy: bool = True, **more: Any) -> None:
        state = {
            "fw": {"sha256": sha256, "confirmed": True},
            "healthy": healthy,
            "boot": boot,
            "schema": 5,
            **more,
        }
        await self.report("firmware", state)
        await self.watcher.round()

    async def step(self, *triggers: ExecutionTrigger, **changes: Any) -> None:
        """Move the target as others do: the executor, or the device by its job."""

        def decide(jobs: ThingJobs, now_ms: int) -> Decision[None]:
            after = jobs.find(CAMPAIGN)
            assert after is not None
            for trigger in triggers:
                again = trigger is X.CONFIRM and after.state is E.CONFIRMING
                after = (
                    amended(after, now_ms, **changes) if again else moved(after, trigger, now_ms, **changes)
                )
            return Decision(None, (after,))

        (answer,) = await self.lane.submit([Change("hall", decide, (CAMPAIGN,))])
        assert answer is None, answer

    async def go(self) -> None:
        """Let the target go on, as the gate does."""
        (taken,) = (await self.snapshots.before([await self.target()])).values()
        await self.step(X.GO, snapshot=taken.id, boot=taken.boot)

    async def claim(self, **details: str) -> None:
        said = {"data": "preserve", "config": data.digest(CONFIG)} | details
        await self.step(X.CONFIRM, claimed_at_ms=self.shadows.clock.now_ms(), details=said)
        await self.watcher.round()

    async def target(self) -> Execution:
        found = await self.lane.load(CAMPAIGN, "hall")
        assert found is not None
        return found

    async def later(self, seconds: float) -> Execution:
        self.shadows.clock.advance(seconds)
        await self.watcher.round()
        return await self.target()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    store = MemoryStore([SHADOWS, SNAPSHOTS, EXECUTIONS, INSTALLED, *COLLECTIONS], [*LOGS, audit.LOG])

    async def defaults(model: str, schema: int) -> Any:  # noqa: ARG001 - the port's signature
        return None

    async with rig(store) as shadows:
        clock = shadows.clock
        registry = RegistryService(store, clock)
        devices = DeviceService(store, clock, registry)
        await registry.register(NewThing("hall", ThingKind.DEVICE, "pct-2", "home-7", True), SYSTEM)
        snapshots = SnapshotService(
            store, clock, shadows=shadows.service, devices=devices, defaults=defaults, limits=shadows.limits
        )
        lane, orders, installed = (
            ExecutionLane(store, clock, Metrics()),
            Orders(),
            InstalledService(store, clock),
        )
        commits: list[Commit] = []
        lane.listen(commits.extend)
        presence = Presence()
        watcher = Watcher(
            lane,
            orders,
            clock,
            shadows=shadows.service,
            snapshots=snapshots,
            installed=installed,
            devices=devices,
            registry=registry,
            presence=presence,
            defaults=defaults,
        )
        one = World(shadows, lane, orders, watcher, snapshots, installed, registry, presence, commits)
        running = asyncio.create_task(lane.run())
        try:
            await one.report("config", CONFIG)
            await one.runs(OLD, 17)
            planned = Execution(
                campaign=CAMPAIGN, thing="hall", wave=0, place=0, proof_index=0, state=E.PLANNED
            )
            await lane.create([planned])
            yield one
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@covers("I3FR3.1", "I3NFR4")
async def test_an_upgrade_that_went_well_is_a_success_at_the_commit_of_the_last_evidence():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.runs(NEW, 18, job="c-x")
        assert (await one.target()).state is E.CONFIRMING
        one.shadows.clock.advance(3)
        await one.claim()
        target = await one.target()
        assert (target.state, target.data_checked, target.how) == (E.SUCCEEDED, True, "")
        assert target.ended_at_ms == target.claimed_at_ms == target.reported_at_ms + 3_000


async def test_the_claim_may_come_before_the_report():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.claim()
        assert (await one.target()).state is E.CONFIRMING
        await one.runs(NEW, 18)
        assert (await one.target()).state is E.SUCCEEDED


async def test_its_own_timer_ends_a_claim_without_a_report():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.claim()
        assert (await one.later(59.9)).state is E.CONFIRMING
        target = await one.later(0.1)
        assert (target.state, target.reason) == (E.FAILED, "health_missing")


async def test_its_own_timer_closes_a_report_without_a_claim():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.runs(NEW, 18)
        assert (await one.later(59.9)).state is E.CONFIRMING
        assert (await one.later(0.1)).state is E.SUCCEEDED


async def test_an_image_on_trial_is_awaited_without_being_looked_at_again_and_again():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.runs(NEW, 18, fw={"sha256": NEW, "confirmed": False})
        assert (await one.later(61)).state is E.CONFIRMING
        assert one.watcher._awaited == {"hall": 0}
        await one.runs(NEW, 18)
        assert (await one.target()).state is E.SUCCEEDED


async def test_a_process_that_has_just_started_needs_no_hint():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.claim()
        one.watcher._awaited.clear()
        one.shadows.clock.advance(60)
        await one.watcher.round()
        assert (await one.target()).state is E.CONFIRMING
        await one.watcher.look(["hall"])
        assert (await one.target()).reason == "health_missing"


async def test_the_old_image_after_go_is_rolled_back():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.runs(OLD, 21)
        assert (await one.target()).state is E.ROLLED_BACK


@covers("I3FR3.1")
async def test_a_value_that_the_upgrade_lost_is_found():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.report("config", {"lang": None})
        await one.runs(NEW, 18)
        await one.claim(config=data.digest({"set": CONFIG["set"]}))
        target = await one.target()
        assert (target.state, target.reason) == (E.FAILED, "preserve_failed")


@covers("I3FR3.1")
async def test_a_value_that_was_desired_meanwhile_is_kept():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        one.shadows.clock.advance(2)
        origin = Origin("olga", Role.OPERATOR, Channel.HTTP)
        desired = update({"desired": {"lang": "de"}}, ShadowId("hall", "config"), origin)
        accepted(await one.shadows.one(desired))
        await one.report("config", {"lang": "de"})
        await one.runs(NEW, 18)
        await one.claim(config=data.digest(CONFIG | {"lang": "de"}))
        assert (await one.target()).state is E.SUCCEEDED


@covers("I3FR3.1")
async def test_a_reset_is_done_once_its_programs_are_applied_again():
    async with world() as one:
        one.orders.known[CAMPAIGN] = replace(WANTED, data=data.RESET)

        async def defaults(model: str, schema: int) -> Any:  # noqa: ARG001 - the port's signature
            return CONFIG if schema == 5 else None

        one.watcher._defaults = defaults
        programs = update(
            {"desired": {"p": 1}}, ShadowId("hall", "program"), Origin("p", Role.SYSTEM, Channel.SYSTEM)
        )
        accepted(await one.shadows.one(programs))
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.runs(NEW, 18)
        await one.claim(data="reset")
        assert (await one.target()).state is E.CONFIRMING
        await one.report("program", {"p": 1})
        await one.watcher.round()
        assert (await one.target()).state is E.SUCCEEDED


async def test_a_target_that_timed_out_and_has_the_image_afterwards_is_late_and_stays_where_it_is():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.TIME_OUT)
        await one.runs(NEW, 18)
        target = await one.target()
        assert (target.state, target.late) == (E.TIMED_OUT, True)
        made = len(one.commits)
        await one.runs(NEW, 19)
        assert len(one.commits) == made, "noted once"


async def test_what_a_device_says_whose_targets_all_ended_well_costs_no_further_look(monkeypatch):
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.runs(NEW, 18)
        await one.claim()
        assert (await one.target()).state is E.SUCCEEDED
        honest, asked = one.orders.wanted, list[str]()

        async def counted(campaigns: Collection[str]) -> Mapping[str, Wanted]:
            asked.extend(campaigns)
            return await honest(campaigns)

        monkeypatch.setattr(one.orders, "wanted", counted)
        await one.runs(NEW, 19)
        assert asked == []


async def test_a_device_that_was_removed_takes_its_target_along():
    async with world() as one:
        await one.step(X.OFFER, X.START)
        await one.registry.remove("hall", SYSTEM)
        await one.watcher.round()
        assert (await one.target()).state is E.REMOVED


def noted(result: Result = Result.SUCCEEDED, **changes: Any) -> Installed:
    known = Installed(
        thing="hall",
        order="ab" * 32,
        manifest="cd" * 32,
        sha256=NEW,
        started_at=1_789_990_000,
        finished_at=1_789_990_100,
        result=result,
        operator="ines",
    )
    return replace(known, **changes)


@covers("I3FR6.1")
@pytest.mark.parametrize("when", ["before", "after", "never"])
async def test_on_site_during_a_campaign_is_one_success_whenever_the_tool_tells_of_it(when: str):
    async with world() as one:
        if when == "before":
            await one.installed.note(noted(), CREW)
            await one.watcher.round()
            assert (await one.target()).state is E.PLANNED, "a note closes nothing"
        await one.runs(NEW, 18)
        if when == "after":
            await one.installed.note(noted(), CREW)
            await one.watcher.round()
        target = await one.target()
        assert (target.state, target.how) == (E.SUCCEEDED, "on_site" if when == "before" else "elsewhere")
        assert [commit.after.state for commit in one.commits].count(E.SUCCEEDED) == 1


@covers("I3FR6.1")
async def test_a_note_is_idempotent_and_another_one_of_the_same_installation_is_refused():
    async with world() as one:
        first = await one.installed.note(noted(), CREW)
        one.shadows.clock.advance(9)
        assert await one.installed.note(noted(), CREW) == first
        with pytest.raises(OtherNoteError):
            await one.installed.note(noted(Result.FAILED), CREW)
        assert await one.installed.of_thing("hall") == (first,)
        await one.installed.note(noted(started_at=1_789_999_999), CREW)
        assert len(await one.installed.of_thing("hall")) == 2
        rows = await one.shadows.store.scan(audit.LOG, 0, 2**62, limit=100)
        assert [b"installed.note" in row.body for row in rows.entries].count(True) == 2
        await one.installed.forget("hall")
        assert await one.installed.of_thing("hall") == ()


async def test_so_many_notes_of_a_thing_are_kept_and_none_is_let_go_for_another(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("ota.installed.NOTES_MAX", 2)
    async with world() as one:
        first = await one.installed.note(noted(), CREW)
        await one.installed.note(noted(started_at=1_789_999_999), CREW)
        with pytest.raises(NotesFullError):
            await one.installed.note(noted(started_at=1_789_999_998), CREW)
        assert await one.installed.note(noted(), CREW) == first
        assert len(await one.installed.of_thing("hall")) == 2


async def test_one_that_failed_on_site_says_nothing_of_its_way():
    async with world() as one:
        await one.installed.note(noted(Result.FAILED), CREW)
        assert await one.installed.on_site("hall") == frozenset()


async def test_a_model_without_a_gate_is_kept_as_it_was_when_it_began_to_load():
    async with world() as one:
        one.orders.known[CAMPAIGN] = replace(WANTED, gate=False)
        await one.step(X.OFFER, X.START)
        await one.watcher.round()
        target = await one.target()
        (kept,) = await one.snapshots.of_thing("hall")
        assert (target.snapshot, target.boot, kept.why) == (kept.id, 17, "loading")
        await one.runs(NEW, 18)
        await one.claim()
        assert (await one.target()).state is E.SUCCEEDED


async def test_a_model_without_a_firmware_shadow_confirms_by_its_test_and_a_new_session():
    async with world() as one:
        one.orders.known[CAMPAIGN] = replace(WANTED, gate=False, by_session=True)
        one.presence.came("hall")
        await one.step(X.OFFER, X.START)
        await one.watcher.round()
        await one.step(X.GO, details={"self_test": "active"})
        await one.watcher.round()
        assert (await one.target()).state is E.ACTIVATING, "it has not come back"
        one.shadows.clock.advance(1)
        one.presence.went("hall")
        await one.watcher.look(["hall"])
        assert (await one.target()).state is E.ACTIVATING, "it has only gone"
        one.presence.came("hall")
        await one.watcher.round()
        assert (await one.target()).state is E.CONFIRMING
        await one.claim()
        assert (await one.target()).state is E.SUCCEEDED


async def test_nothing_is_awaited_of_a_target_that_others_ended():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        assert one.watcher._awaited.keys() == {"hall"}
        await one.step(X.TIME_OUT)
        assert one.watcher._awaited == {}


async def test_a_device_that_cannot_be_judged_stops_no_other_and_is_left_alone_for_a_while():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        one.orders.broken = True
        await one.runs(NEW, 18)
        one.orders.broken = False
        await one.watcher.look(["hall", "nobody"])
        assert (await one.target()).state is E.ACTIVATING
        one.shadows.clock.advance(30)
        await one.watcher.look(["hall"])
        assert (await one.target()).state is E.CONFIRMING


async def test_a_store_that_is_away_loses_no_hint():
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        await one.report("firmware", {"fw": {"sha256": NEW}, "healthy": True, "boot": 18, "schema": 5})
        hints = set(one.watcher._hints)
        assert hints == {"hall"}

        async def silent(campaigns: Collection[str]) -> Mapping[str, Wanted]:
            raise StoreUnavailableError(str(len(campaigns)))

        honest, one.orders.wanted = one.orders.wanted, silent  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailableError):
            await one.watcher.round()
        one.orders.wanted = honest  # type: ignore[method-assign]
        await one.watcher.round()
        assert (await one.target()).state is E.CONFIRMING


async def test_a_store_that_takes_no_writes_is_asked_again_with_the_next_poll_and_not_before(monkeypatch):
    async with world() as one:
        await one.step(X.OFFER, X.START, X.STAGED)
        await one.go()
        honest, refused = one.lane.submit, 0

        async def full(changes: Sequence[Change[Any]]) -> list[Any]:
            nonlocal refused
            refused += 1
            return [Failed(LaneFullError()) for _ in changes]

        monkeypatch.setattr(one.lane, "submit", full)
        monkeypatch.setattr("ota.watcher.POLL_S", 0.05)
        running = asyncio.create_task(one.watcher.run())
        await one.report("firmware", {"fw": {"sha256": NEW}, "healthy": True, "boot": 18, "schema": 5})
        await asyncio.sleep(0.12)
        monkeypatch.setattr(one.lane, "submit", honest)
        assert 1 <= refused <= 4
        await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await one.target()).state is E.CONFIRMING
