"""The lane in which executions change."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import StoreBrokenError, StoreUnavailableError, Write
from infra.machines import IllegalTransitionError
from infra.telemetry import Metrics
from ota import lane as lanes
from ota.errors import ExecutionBusyError, LaneFullError
from ota.execution_store import EXECUTIONS, Act
from ota.executions import Tell, ThingJobs, amended, moved, told
from ota.lane import Change, Commit, Decision, ExecutionLane, Failed
from ota.models import Execution
from ota.states import ExecutionState, ExecutionTrigger
from security import audit
from security.audit import INSIDE
from security.policy import Principal, Role
from tests.fakes import FakeClock
from tests.faulty_store import Crash, FaultyStore
from tests.unit.test_ota_executions import NOON, ONE, TWO, planned

X = ExecutionTrigger
ANN, OTTO = Principal("ann", Role.OPERATOR), Principal("otto", Role.OPERATOR)


@dataclass
class Rig:
    lane: ExecutionLane
    store: FaultyStore
    clock: FakeClock
    commits: list[Commit] = field(default_factory=list)


@asynccontextmanager
async def running(*, exclusive: bool = True, inner: FaultyStore | None = None) -> AsyncIterator[Rig]:
    store = FaultyStore(
        MemoryStore([EXECUTIONS], [audit.LOG]) if inner is None else inner.inner, exclusive=exclusive
    )
    clock = FakeClock(NOON)
    rig = Rig(ExecutionLane(store, clock, Metrics()), store, clock)
    rig.lane.listen(rig.commits.extend)
    task = asyncio.create_task(rig.lane.run())
    try:
        yield rig
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def there(rig: Rig, campaign: str) -> Execution:
    execution = await rig.lane.load(campaign, "th-1")
    assert execution is not None
    return execution


def move(trigger: ExecutionTrigger, campaign: str = ONE, thing: str = "th-1") -> Change[int]:
    def decide(jobs: ThingJobs, now_ms: int) -> Decision[int]:
        execution = jobs.find(campaign)
        assert execution is not None
        after = moved(execution, trigger, now_ms)
        return Decision(after.version, (after,))

    return Change(thing, decide, (campaign,))


def many(trigger: ExecutionTrigger, count: int) -> list[Change[int]]:
    return [move(trigger, thing=f"th-{number}") for number in range(count)]


def by_hand(person: Principal, trigger: ExecutionTrigger) -> Change[int]:
    change = move(trigger)
    act = Act(person, INSIDE, f"campaign.{trigger}_target", "because")
    return replace(change, decide=lambda jobs, now_ms: replace(change.decide(jobs, now_ms), act=act))


def note(campaign: str, key: str) -> Change[None]:
    def decide(jobs: ThingJobs, now_ms: int) -> Decision[None]:
        execution = jobs.find(campaign)
        assert execution is not None
        details = {**execution.details, key: str(len(execution.details))}
        return Decision(None, (amended(execution, now_ms, details=details),))

    return Change("th-1", decide)


async def test_what_is_made_is_made_once():
    async with running() as rig:
        await rig.lane.create([planned(), planned(TWO)])
        await rig.lane.submit([move(X.OFFER)])
        await rig.lane.create([planned()])
        assert (await there(rig, ONE)).state is ExecutionState.QUEUED
        assert [commit.before is None for commit in rig.commits] == [True, True, False]


async def test_one_commit_serves_all_who_wait_and_each_hears_its_own_answer():
    async with running() as rig:
        await rig.lane.create([planned(thing=f"th-{number}") for number in range(5)])
        rig.store.commits.clear()
        answers = await asyncio.gather(*(rig.lane.submit([change]) for change in many(X.OFFER, 5)))
        assert answers == [[1]] * 5
        assert len(rig.store.commits) == 1


async def test_changes_of_one_thing_keep_their_order_and_see_each_other():
    async with running() as rig:
        await rig.lane.create([planned()])
        assert await rig.lane.submit([move(X.OFFER), move(X.START), move(X.LOADED)]) == [1, 2, 2]
        (_, last) = rig.commits
        assert (last.before, last.after.state) == (planned(), ExecutionState.LOADED)


async def test_acts_of_people_that_come_at_once_have_a_row_each():
    async with running() as rig:
        await rig.lane.create([planned()])
        changes = [move(X.OFFER), by_hand(ANN, X.RECALL), by_hand(OTTO, X.CANCEL)]
        assert await rig.lane.submit(changes) == [1, 1, 2]
        page = await audit.read(rig.store, 0, 2**53, 10)
        rows = [(row.actor, row.version_before, row.version_after) for row in page.entries]
        assert rows == [("ann", 1, 2), ("otto", 2, 3)]
        assert {(row.target, row.reason) for row in page.entries} == {
            (f"execution/{planned().id}", "because")
        }


async def test_an_act_that_loses_its_race_has_no_row_of_what_it_would_have_done():
    async with running(exclusive=False) as one, running(exclusive=False, inner=one.store) as other:
        await one.lane.create([planned()])
        one.store.before_commit.append(partial(other.lane.submit, [move(X.CANCEL)]))
        (refused,) = await one.lane.submit([by_hand(ANN, X.CANCEL)])
        assert isinstance(refused, Failed)
        assert (await audit.read(one.store, 0, 2**53, 10)).entries == ()


async def test_what_the_table_refuses_fails_alone_and_changes_nothing():
    async with running() as rig:
        await rig.lane.create([planned(), planned(thing="th-2")])
        refused, offered = await rig.lane.submit([move(X.GO), move(X.OFFER, thing="th-2")])
        assert isinstance(refused, Failed)
        assert isinstance(refused.error, IllegalTransitionError)
        assert offered == 1
        assert await rig.lane.load(ONE, "th-1") == planned()


async def test_who_loses_a_race_decides_again_on_what_the_winner_left():
    async with running(exclusive=False) as one, running(exclusive=False, inner=one.store) as other:
        await one.lane.create([planned()])
        await one.lane.submit([move(X.OFFER)])
        one.store.before_commit.append(lambda: other.lane.submit([note(ONE, "other")]))
        await one.lane.submit([note(ONE, "one")])
        assert (await there(one, ONE)).details == {"other": "0", "one": "1"}


async def test_who_loses_every_race_is_told_so_and_nothing_is_changed():
    async with running(exclusive=False) as one, running(exclusive=False, inner=one.store) as other:
        await one.lane.create([planned()])
        for number in range(lanes.SAVE_ATTEMPTS_MAX):
            one.store.before_commit.append(partial(other.lane.submit, [note(ONE, f"other-{number}")]))
        (failed,) = await one.lane.submit([note(ONE, "one")])
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, ExecutionBusyError)
        assert "one" not in (await there(one, ONE)).details


async def test_a_change_of_another_execution_of_the_thing_is_never_decided_twice_for_a_lost_race():
    async with running(exclusive=False) as one, running(exclusive=False, inner=one.store) as other:
        await one.lane.create([planned(), planned(TWO)])
        one.store.commits.clear()
        one.store.before_commit.append(lambda: other.lane.submit([note(TWO, "other")]))
        await one.lane.submit([note(ONE, "a"), note(TWO, "b"), note(ONE, "c")])
        assert (await there(one, ONE)).details == {"a": "0", "c": "1"}
        assert (await there(one, TWO)).details == {"other": "0", "b": "1"}


async def test_a_store_that_is_down_fails_what_waits_and_the_lane_goes_on():
    async with running() as rig:
        await rig.lane.create([planned()])
        rig.store.refuses = ("commit",)
        (failed,) = await rig.lane.submit([move(X.OFFER)])
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, StoreUnavailableError)
        rig.store.refuses = ()
        assert await rig.lane.submit([move(X.OFFER)]) == [1]


async def test_after_a_lost_reply_nothing_that_was_remembered_is_believed():
    async with running() as rig:
        await rig.lane.create([planned()])
        rig.store.crash = Crash.AFTER_COMMIT
        (failed,) = await rig.lane.submit([move(X.OFFER)])
        assert isinstance(failed, Failed)
        (shown,) = (await rig.lane.view("th-1")).open
        assert shown.state is ExecutionState.QUEUED
        assert await rig.lane.submit([move(X.START)]) == [2]


async def test_a_broken_store_ends_the_lane_and_everybody_hears_of_it():
    async with running() as rig:
        await rig.lane.create([planned()])
        rig.store.crash, rig.store.crash_with = Crash.BEFORE_COMMIT, StoreBrokenError("fsync")
        with pytest.raises(StoreBrokenError):
            await rig.lane.submit([move(X.OFFER)])
        with pytest.raises(StoreBrokenError):
            await rig.lane.submit([move(X.OFFER)])


async def test_what_cannot_be_written_fails_alone():
    async with running() as rig:
        await rig.lane.create([planned(), planned(thing="th-2")])

        def huge(jobs: ThingJobs, now_ms: int) -> Decision[int]:
            return Decision(0, (amended(jobs.open[0], now_ms, reason="x" * 2**23),))

        failed, offered = await rig.lane.submit([Change("th-1", huge), move(X.OFFER, thing="th-2")])
        assert isinstance(failed, Failed)
        assert offered == 1


async def test_a_listener_that_fails_undoes_nothing():
    async with running() as rig:

        def fail(_commits: Sequence[Commit]) -> None:
            raise ZeroDivisionError

        rig.lane.listen(fail)
        await rig.lane.create([planned()])
        assert await rig.lane.submit([move(X.OFFER)]) == [1]
        assert len(rig.commits) == 2


async def test_ten_thousand_are_stopped_in_portions_and_a_device_is_served_between_them():
    async with running() as rig:
        await rig.lane.create([planned(thing=f"th-{number}") for number in range(3_000)])
        stopped = asyncio.create_task(rig.lane.submit(many(X.CANCEL, 3_000)))
        await asyncio.sleep(0)
        await rig.lane.create([planned(thing="door")])
        assert await rig.lane.submit([move(X.OFFER, thing="door")]) == [1]
        assert await stopped == [1] * 3_000
        assert all(len(writes) <= lanes.BATCH_CHANGES_MAX for writes in rig.store.commits)


async def test_what_would_wait_without_end_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lanes, "WAITING_CHANGES_MAX", 2)
    async with running() as rig:
        await rig.lane.create([planned()])
        refused = await rig.lane.submit([move(X.OFFER)] * 3)
        assert all(isinstance(one, Failed) and isinstance(one.error, LaneFullError) for one in refused)
        assert await rig.lane.load(ONE, "th-1") == planned()


async def test_what_is_kept_in_memory_is_asked_of_the_store_once(monkeypatch: pytest.MonkeyPatch):
    async with running() as rig:
        await rig.lane.create([planned()])
        looks, find_in = 0, rig.store.inner.find_in

        async def counted(*args, **options):
            nonlocal looks
            looks += 1
            return await find_in(*args, **options)

        monkeypatch.setattr(rig.store.inner, "find_in", counted)
        for _ in range(3):
            assert (await rig.lane.view("th-1")).open == (planned(),)
            assert (await rig.lane.view("nobody")).open == ()
        assert looks == 2


async def test_where_others_write_too_what_is_shown_is_a_second_old_at_most():
    async with running(exclusive=False) as one, running(exclusive=False, inner=one.store) as other:
        await one.lane.create([planned()])
        assert (await other.lane.view("th-1")).open[0].state is ExecutionState.PLANNED
        await one.lane.submit([move(X.OFFER)])
        other.clock.advance(1.0)
        assert (await other.lane.view("th-1")).open[0].state is ExecutionState.QUEUED


async def test_what_is_read_while_it_is_written_is_not_remembered(monkeypatch: pytest.MonkeyPatch):
    async with running() as rig:
        await rig.lane.create([planned()])
        find_in = rig.store.inner.find_in

        async def slowly(*args, **options):
            found = await find_in(*args, **options)
            monkeypatch.undo()
            await rig.lane.submit([move(X.OFFER)])
            return found

        rig.lane._store._forget(["th-1"])
        monkeypatch.setattr(rig.store.inner, "find_in", slowly)
        await rig.lane.view("th-1")
        assert (await rig.lane.view("th-1")).open[0].state is ExecutionState.QUEUED


async def test_the_pending_are_found_until_they_were_told():
    async with running() as rig:
        await rig.lane.create([planned(), planned(TWO)])
        await rig.lane.submit([move(X.OFFER)])
        (waiting,) = (await rig.lane.pending()).executions
        assert waiting.untold == Tell.NOTIFY | Tell.NEXT

        def say(jobs: ThingJobs, _now_ms: int) -> Decision[None]:
            return Decision(None, tuple(told(one, Tell.NOTIFY | Tell.NEXT) for one in jobs.open))

        await rig.lane.submit([Change("th-1", say)])
        assert (await rig.lane.pending()).executions == ()


async def test_a_campaign_is_found_whole_and_by_what_was_touched_since():
    async with running() as rig:
        await rig.lane.create([planned(thing=f"th-{number}", updated_at_ms=NOON) for number in range(1_200)])
        assert len(await rig.lane.of_campaign(ONE)) == 1_200
        rig.clock.advance(10)
        await rig.lane.submit([move(X.OFFER)])
        assert [one.thing for one in await rig.lane.touched_since(ONE, NOON + 1)] == ["th-1"]
        assert await rig.lane.of_campaign(TWO) == []
        assert [one.thing for one in (await rig.lane.of_thing("th-7", 10)).executions] == ["th-7"]


async def test_one_execution_that_cannot_be_read_stops_no_other():
    async with running() as rig:
        await rig.lane.create([planned(), planned(TWO)])
        await rig.store.inner.commit([Write(EXECUTIONS.name, planned(TWO).id, 1, b"?", {"open": "th-1"})])
        rig.lane._store._forget(["th-1"])
        assert await rig.lane.submit([move(X.OFFER)]) == [1]
        odd = Write(EXECUTIONS.name, f"{ONE}:th-2", 0, b"?", {"campaign": ONE, "pending": 1})
        await rig.store.inner.commit([odd])
        assert [one.thing for one in (await rig.lane.pending()).executions] == ["th-1"]
        assert [one.thing for one in await rig.lane.of_campaign(ONE)] == ["th-1"]
