"""The lane: one commit a batch, nothing said before it, nobody held up, nothing lost by a failure."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from infra.documents.port import Entry, StoreBrokenError, StoreUnavailableError, Write
from infra.settings.model import ShadowLimits
from security import audit
from shadow import service as shadow_service
from shadow.commands import Command
from shadow.decisions import Accepted, Outcome, Rejected
from shadow.document import ShadowId
from shadow.errors import NoShadowError
from shadow.records import SHADOWS, history_log
from tests.fakes import NOW_MS, FakeClock
from tests.faulty_store import EVERYTHING, Crash, FaultyStore
from tests.shadow_rig import (
    ANNA,
    HALL,
    LIMITS,
    Rig,
    accepted,
    delete,
    get,
    make_rig,
    memory,
    rejected,
    rig,
    running,
    update,
)
from tests.vectors.cases import read

ATTIC, CELLAR = ShadowId("attic"), ShadowId("cellar")


def answers(outcomes: Sequence[Outcome]) -> list[int]:
    """Return the version of what was accepted and minus the code of what was not."""
    return [outcome.version if isinstance(outcome, Accepted) else -outcome.error.code for outcome in outcomes]


# ------------------------------------------------------------------------------------- batches


async def test_a_refused_update_changes_nothing_and_does_not_hold_up_the_rest():
    async with rig() as service:
        outcomes = await service.submit(
            update({"reported": {"a": 1}}, version=9), update({"reported": {"a": 1}}, ATTIC), get(CELLAR)
        )
        assert answers(outcomes) == [-409, 1, -404]
        assert (await service.stored()).version == 0
        assert len(service.store.commits) == 1


async def test_what_waits_while_a_commit_runs_is_the_next_batch():
    async with rig() as service:
        go_on = asyncio.Event()
        service.store.before_commit.append(go_on.wait)
        first = asyncio.create_task(service.report({"n": 0}))
        await asyncio.sleep(0)
        others = [
            asyncio.create_task(service.report({"n": n}, id)) for n in range(1, 6) for id in (HALL, ATTIC)
        ]
        await asyncio.sleep(0)
        go_on.set()
        await first
        assert answers(await asyncio.gather(*others)) == [2, 1, 3, 2, 4, 3, 5, 4, 6, 5]
        assert [len(writes) for writes in service.store.commits] == [1, 2]
        assert (await service.stored()).reported.state == {"n": 5}


async def test_a_batch_has_a_bound_but_one_submission_stays_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shadow_service, "BATCH_COMMANDS_MAX", 4)
    made = make_rig(limits=ShadowLimits(outbox_entries_max=1_000))
    waiting = [
        asyncio.create_task(made.submit(*(update({"reported": {"n": n}}) for n in range(size))))
        for size in (1, 2, 1, 9, 3)
    ]
    await asyncio.sleep(0)
    async with running(made.service):
        await asyncio.gather(*waiting)
    assert [len(writes[0].entries) for writes in made.store.commits] == [4, 9, 3]


async def test_more_than_may_wait_is_429_and_the_rest_is_served(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shadow_service, "WAITING_COMMANDS_MAX", 3)
    made = make_rig()
    waiting = asyncio.create_task(made.submit(*(update({"reported": {"n": n}}) for n in range(3))))
    await asyncio.sleep(0)
    refused = await made.submit(update({"reported": {"n": 9}}, clientToken="t"))
    assert answers(refused) == [-429]
    assert read(rejected(refused[0]).body)["clientToken"] == "t"
    assert made.heard == refused
    async with running(made.service):
        assert answers(await waiting) == [1, 2, 3]
        assert answers(await made.submit(update({"reported": {"n": 4}}))) == [4]


async def test_nothing_to_do_is_done():
    async with rig() as service:
        assert await service.submit() == []
        assert service.store.commits == []


# ------------------------------------------------------------------------------ commit, then speak


async def test_listeners_hear_only_what_is_stored_and_in_order():
    async with rig() as service:
        seen: list[tuple[int, int]] = []

        def listen(outcomes: Sequence[Outcome]) -> None:
            seen.extend(
                (outcome.version, len(service.store.commits))
                for outcome in outcomes
                if isinstance(outcome, Accepted)
            )

        service.service.listen(listen)
        await service.submit(*(update({"reported": {"n": n}}) for n in range(3)))
        await service.report({"n": 3})
        assert seen == [(1, 1), (2, 1), (3, 1), (4, 2)]
        assert [accepted(outcome).version for outcome in service.heard] == [1, 2, 3, 4]


async def test_listeners_hear_before_the_caller_does():
    async with rig() as service:
        outcome = await service.report({"n": 1})
        assert service.heard == [outcome]


async def test_refusals_reads_and_replays_are_heard_too():
    async with rig() as service:
        await service.report({"n": 1}, clientToken="t")
        outcomes = await service.submit(get(), update({"reported": {"n": 1}}, clientToken="t"), get(ATTIC))
        assert service.heard[1:] == outcomes
        assert [outcome.change for outcome in outcomes if isinstance(outcome, Accepted)] == [None, None]


async def test_who_watches_a_shadow_is_woken_by_a_change_and_by_nothing_else():
    async with rig() as service:
        with service.live.watch(HALL.key) as watcher:
            await service.report({"n": 1}, ATTIC)
            await service.one(get())
            await service.report({"n": 1}, version=5)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await watcher.wait()
            await service.report({"n": 1})
            async with asyncio.timeout(1):
                await watcher.wait()


# ------------------------------------------------------------------------------ a failing store


async def test_a_store_that_is_down_is_503_and_nothing_is_said_to_be_accepted():
    async with rig() as service:
        await service.report({"n": 0})
        service.heard.clear()
        service.store.refuses = EVERYTHING
        outcomes = await service.submit(update({"reported": {"n": 1}}, clientToken="t"), get(ATTIC))
        assert answers(outcomes) == [-503, -503]
        assert service.heard == outcomes
        body = read(rejected(outcomes[0]).body)
        assert (body["code"], body["message"], body["clientToken"]) == (503, "Service unavailable", "t")
        service.store.refuses = ()
        assert (await service.stored()).version == 1
        assert answers([await service.report({"n": 1}, clientToken="t")]) == [2]


async def test_a_commit_that_did_not_happen_leaves_nothing_behind():
    async with rig() as service:
        service.store.crash = Crash.BEFORE_COMMIT
        assert answers([await service.report({"n": 1})]) == [-503]
        assert (await service.stored()).version == 0
        assert answers([await service.report({"n": 1})]) == [1]
        assert [type(outcome) for outcome in service.heard] == [Rejected, Accepted]


@pytest.mark.parametrize("crash", [Crash.AFTER_COMMIT, Crash.BEFORE_ROWS])
async def test_a_commit_of_unknown_fate_is_503_and_its_repeat_a_replay(crash: Crash):
    async with rig() as service:
        service.store.crash = crash
        first = update({"desired": {"n": 1}}, origin=ANNA, clientToken="t")
        assert answers([await service.one(first)]) == [-503]
        again = accepted(await service.one(first))
        assert (again.version, again.replayed) == (1, True)
        # What the lost reply kept from being said is said now, before the answer and only once.
        said = accepted(service.heard[1])
        assert said.change is not None
        assert said.change.delta is not None
        assert said.change.documents is not None
        assert service.heard[2:] == [again]
        assert accepted(await service.one(first)).replayed
        assert len(service.heard) == 4
        assert [row.number for row in await history(service)] == [1]
        assert len(await audited(service)) == 1


@pytest.mark.parametrize("crash", [Crash.AFTER_COMMIT, Crash.BEFORE_ROWS])
async def test_what_a_lost_reply_left_unsaid_is_said_before_the_next_version(crash: Crash):
    async with rig() as service:
        await service.report({"n": 1})
        service.store.crash = crash
        await service.report({"n": 2})
        service.heard.clear()
        assert answers([await service.report({"n": 3})]) == [3]
        said = [accepted(outcome).change for outcome in service.heard]
        assert [change.version for change in said if change] == [1, 2, 3]
        assert [row.number for row in await history(service)] == [1, 2, 3]
        service.heard.clear()
        await service.report({"n": 4})
        assert [accepted(outcome).version for outcome in service.heard] == [4]


@pytest.mark.parametrize("crash", [Crash.AFTER_COMMIT, Crash.BEFORE_ROWS])
async def test_what_a_lost_reply_left_unsaid_is_said_by_the_next_sweep(crash: Crash):
    async with rig() as service:
        service.store.crash = crash
        assert answers([await service.one(update({"desired": {"n": 1}}, origin=ANNA))]) == [-503]
        service.heard.clear()
        await service.service.sweep_once()
        (said,) = service.heard
        change = accepted(said).change
        assert change is not None
        assert change.delta is not None
        assert (await service.stored()).version == 1
        service.heard.clear()
        await service.service.sweep_once()
        assert service.heard == []


def withheld(service: Rig) -> list[Sequence[Write]]:
    """Have the next commit time out; what it would write may land later, by whoever holds the list."""
    commit, kept = service.store.commit, list[Sequence[Write]]()

    async def time_out(writes: Sequence[Write]) -> frozenset[int]:
        kept.append(writes)
        service.store.commit = commit  # type: ignore[method-assign]  # once
        raise StoreUnavailableError("too slow")

    service.store.commit = time_out  # type: ignore[method-assign]  # of this one store
    return kept


async def test_a_commit_that_lands_after_its_time_out_is_shown_to_whoever_reads():
    async with rig() as service:
        await service.report({"n": 1})
        late = withheld(service)
        assert answers([await service.report({"n": 2})]) == [-503]
        assert (await service.service.view(HALL)).version == 1
        await service.store.inner.commit(late[0])
        assert (await service.service.view(HALL)).version == 2


@pytest.mark.parametrize("before", [0, 1], ids=["new", "known"])
async def test_a_commit_that_has_not_landed_by_the_sweep_never_does(before: int):
    async with rig() as service:
        for number in range(before):
            await service.report({"n": number})
        late = withheld(service)
        assert answers([await service.report({"n": 7})]) == [-503]
        await service.service.sweep_once()
        assert await service.store.inner.commit(late[0]) == {0}
        assert (await service.stored()).version == before
        assert answers([await service.report({"n": 8})]) == [before + 1]


async def test_a_broken_store_ends_the_lane_and_every_caller_hears_it():
    made = make_rig()
    made.store.crash, made.store.crash_with = Crash.BEFORE_COMMIT, StoreBrokenError("fsync failed")
    lane = asyncio.create_task(made.service.run())
    first = asyncio.create_task(made.report({"n": 1}))
    await asyncio.sleep(0)
    with pytest.raises(StoreBrokenError):
        await lane
    with pytest.raises(StoreBrokenError):
        await first
    with pytest.raises(StoreBrokenError):
        await made.report({"n": 2})
    assert made.heard == []


async def test_who_waits_when_the_lane_is_stopped_is_told():
    made = make_rig()
    stuck = asyncio.Event()
    made.store.before_commit.append(stuck.wait)
    lane = asyncio.create_task(made.service.run())
    taken = asyncio.create_task(made.report({"n": 1}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting = asyncio.create_task(made.report({"n": 2}, ATTIC))
    await asyncio.sleep(0)
    lane.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lane
    for caller in (taken, waiting, asyncio.create_task(made.report({"n": 3}))):
        with pytest.raises(StoreUnavailableError):
            await caller


async def test_a_caller_who_gave_up_neither_stops_the_lane_nor_its_command():
    async with rig() as service:
        go_on = asyncio.Event()
        service.store.before_commit.append(go_on.wait)
        gone = asyncio.create_task(service.report({"n": 1}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone.cancel()
        go_on.set()
        assert answers([await service.report({"n": 2})]) == [2]
        assert [row.number for row in await history(service)] == [1, 2]


class Fussy(FaultyStore):
    """Refuses one document for a reason nobody foresaw."""

    async def commit(self, writes: Sequence[Write]) -> frozenset[int]:
        if any(write.id == ATTIC.key for write in writes):
            raise ValueError("not this one")
        return await super().commit(writes)


async def test_an_unforeseen_failure_is_500_for_its_command_only_and_the_lane_goes_on():
    async with rig(Fussy(memory())) as service:
        outcomes = await service.submit(
            update({"reported": {"n": 1}}),
            update({"reported": {"n": 1}}, ATTIC),
            update({"reported": {"n": 2}}),
        )
        assert answers(outcomes) == [1, -500, 2]
        assert {id(outcome) for outcome in service.heard} == {id(outcome) for outcome in outcomes}
        body = read(rejected(outcomes[1]).body)
        assert body["message"] == "Internal service failure"
        assert body["detail"].startswith("trace ")
        assert answers([await service.report({"n": 3}, CELLAR)]) == [1]


# -------------------------------------------------------------------------- two services, one store


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[tuple[Rig, Rig]]:
    """Run two services as two processes would, on one store, in turns that interleave."""
    documents = memory()
    async with rig(Yielding(documents), **options) as one, rig(Yielding(documents), **options) as other:
        yield one, other


class Yielding(FaultyStore):
    """Lets others run between any two steps, as a network does."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner, exclusive=False)

    async def get(self, *args: Any) -> Any:
        found = await super().get(*args)
        await asyncio.sleep(0)
        return found

    async def commit(self, writes: Sequence[Write]) -> frozenset[int]:
        await asyncio.sleep(0)
        return await super().commit(writes)


async def test_versions_have_no_gaps_when_two_processes_race():
    async with two(limits=ShadowLimits(save_attempts_max=100, outbox_entries_max=1_000)) as (one, other):
        outcomes = await asyncio.gather(
            *(
                service.report({f"{name}{n}": n})
                for n in range(50)
                for name, service in (("a", one), ("b", other))
            )
        )
        assert sorted(answers(outcomes)) == list(range(1, 101))
        assert [row.number for row in await history(one)] == list(range(1, 101))
        shadow = await one.stored()
        assert shadow.version == 100
        assert shadow.reported.state == {f"{name}{n}": n for name in "ab" for n in range(50)}


async def test_of_two_that_name_the_same_version_exactly_one_wins():
    async with two() as (one, other):
        await one.report({"n": 0})
        for version in range(1, 20):
            outcomes = await asyncio.gather(
                *(service.report({"n": 1}, version=version) for service in (one, other))
            )
            assert sorted(answers(outcomes)) == [-409, version + 1]
            conflict = next(outcome for outcome in outcomes if isinstance(outcome, Rejected))
            assert read(conflict.body)["currentVersion"] == version + 1
            assert read(conflict.body)["conflicts"] == ["/reported/n"]
            for service in (one, other):
                service.service.settle(HALL, version + 1)


async def test_a_repeat_that_reaches_another_process_is_applied_once():
    async with two() as (one, other):
        outcomes = await asyncio.gather(
            *(each.report({"n": 1}, clientToken="t") for each in (one, other) * 3)
        )
        assert answers(outcomes) == [1] * 6
        assert len({accepted(outcome).body for outcome in outcomes}) == 1
        assert sum(not accepted(outcome).replayed for outcome in outcomes) == 1


async def test_who_loses_every_race_is_told_503_and_changed_nothing():
    documents = FaultyStore(memory())
    limits = ShadowLimits(save_attempts_max=3)
    async with rig(documents, limits=limits) as one, rig(documents.inner) as other:

        async def get_ahead() -> None:
            await other.report({"b": 1})

        documents.before_commit += [get_ahead] * 3
        lost, good = await one.submit(update({"reported": {"a": 1}}), update({"reported": {"a": 1}}, ATTIC))
        assert answers([lost, good]) == [-503, 1]
        assert (await one.stored()).reported.state == {"b": 1}
        documents.before_commit += [get_ahead] * 2
        assert answers([await one.report({"a": 1})]) == [6]


# ----------------------------------------------------------------------------------- many shadows


def named(count: int, first: int = 0) -> list[ShadowId]:
    return [ShadowId("hall", f"n{number}") for number in range(first, first + count)]


async def test_a_thing_has_as_many_named_shadows_as_the_bound_says_beside_the_classic_one():
    most = LIMITS.named_shadows_max
    async with rig() as service:
        made = await service.submit(*(update({"reported": {"a": 1}}, id) for id in named(most + 2)))
        assert answers(made) == [1] * most + [-413] * 2
        assert answers([await service.report({"a": 1}), await service.report({"a": 2}, named(1)[0])]) == [
            1,
            2,
        ]
        assert answers([await service.report({"a": 1}, named(1, most)[0])]) == [-413]
        assert answers([await service.report({"a": 1}, ShadowId("attic", "n"))]) == [1]
        await service.one(delete(named(1)[0]))
        assert answers([await service.report({"a": 1}, named(1, most)[0])]) == [1]
        assert answers([await service.report({"a": 1}, named(1)[0])]) == [-413]


async def test_one_id_twice_in_a_batch_takes_one_place():
    limits = ShadowLimits(named_shadows_max=2)
    one, other = named(2)
    async with rig(limits=limits) as service:
        batch = (update({"reported": {"a": n}}, id) for n, id in enumerate((one, one, other, one)))
        assert answers(await service.submit(*batch)) == [1, 2, 1, 3]


async def test_deleted_names_are_remembered_up_to_a_bound_and_can_be_made_again(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(shadow_service, "TOMBSTONES_MAX", 2)
    async with rig(limits=ShadowLimits(named_shadows_max=1)) as service:
        for id in named(3):
            assert answers([await service.report({"a": 1}, id), await service.one(delete(id))]) == [1, 1]
        assert answers([await service.report({"a": 1}, named(1, 3)[0])]) == [-413]
        assert answers([await service.report({"a": 1}, named(3)[1])]) == [3]


# ------------------------------------------------------------------------------ outbox and sweep


async def history(service: Rig, id: ShadowId = HALL) -> list[Any]:
    return list(await service.store.inner.read(history_log(id), id.key, 0, 10_000, limit=1_000))


async def audited(service: Rig) -> list[Any]:
    return list((await audit.read(service.store.inner, 0, 10**15, 1_000)).entries)


async def pending(service: Rig) -> set[str]:
    page = await service.store.inner.find(SHADOWS.name, "pending", 1, 1, limit=100)
    return {document.id for document in page.documents}


async def test_the_sweep_empties_what_is_delivered_and_quiet_and_makes_no_version():
    async with rig() as service:
        await service.submit(update({"reported": {"a": 1}}), update({"reported": {"a": 1}}, ATTIC))
        service.service.settle(HALL, 1)
        await service.service.sweep_once()
        assert await pending(service) == {HALL.key, ATTIC.key}  # not quiet for long enough
        service.clock.advance(LIMITS.outbox_sweep_s)
        before = await service.stored()
        await service.service.sweep_once()
        assert await pending(service) == {ATTIC.key}  # the attic's is not delivered
        after = await service.stored()
        assert (after.version, after.outbox) == (1, ())
        assert (after.reported, after.at_ms, after.ledger) == (before.reported, before.at_ms, before.ledger)
        assert len(await history(service)) == 1
        heard = len(service.heard)
        assert answers([await service.report({"a": 2}, version=1)]) == [2]
        assert len(service.heard) == heard + 1


async def test_the_sweep_leaves_what_was_delivered_only_in_part():
    async with rig() as service:
        await service.submit(update({"reported": {"a": 1}}), update({"reported": {"a": 2}}))
        service.service.settle(HALL, 1)
        service.clock.advance(60)
        await service.service.sweep_once()
        assert [entry.version for entry in (await service.stored()).outbox] == [1, 2]
        service.service.settle(HALL, 2)
        await service.service.sweep_once()
        assert await pending(service) == set()


async def test_a_sweep_that_loses_its_race_tries_again_next_time():
    documents = FaultyStore(memory())
    async with rig(documents) as service, rig(documents.inner) as other:
        await service.report({"a": 1})
        service.settle_all()
        service.clock.advance(60)

        async def write() -> None:
            await other.report({"a": 2})

        documents.before_commit.append(write)
        await service.service.sweep_once()
        assert (await service.stored()).version == 2
        assert [entry.version for entry in (await service.stored()).outbox] == [1, 2]


async def test_a_sweep_that_finds_the_store_down_is_no_end():
    async with rig() as service:
        await service.report({"a": 1})
        service.settle_all()
        service.clock.advance(60)
        service.store.refuses = EVERYTHING
        with pytest.raises(StoreUnavailableError):
            await service.service.sweep_once()
        service.store.refuses = ()
        await service.service.sweep_once()
        assert await pending(service) == set()


async def test_a_sweep_meets_a_shadow_that_was_removed_while_it_waited():
    async with rig() as service:
        await service.report({"a": 1})
        await service.report({"a": 1}, ATTIC)
        service.settle_all()
        service.clock.advance(60)
        removes, go_on = asyncio.Event(), asyncio.Event()

        async def remove() -> None:
            removes.set()
            await go_on.wait()

        service.store.before_commit.append(remove)
        removing = asyncio.create_task(service.service.forget("hall"))
        await removes.wait()
        sweeping = asyncio.create_task(service.service.sweep_once())
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(removing, sweeping)
        assert await pending(service) == set()


async def test_delivered_entries_leave_with_the_next_commit():
    async with rig() as service:
        for number in range(3 * LIMITS.outbox_entries_max):
            assert answers([await service.report({"n": number})]) == [number + 1]
            service.service.settle(HALL, number + 1)
            assert len((await service.stored()).outbox) == 1


async def test_undelivered_entries_stop_the_shadow_at_the_bound_and_only_that_shadow():
    async with rig() as service:
        most = LIMITS.outbox_entries_max
        outcomes = await service.submit(*(update({"reported": {"n": n}}) for n in range(most + 2)))
        assert answers(outcomes) == [*range(1, most + 1), -503, -503]
        assert answers([await service.report({"n": 1}, ATTIC)]) == [1]
        service.service.settle(HALL, 1)
        assert answers([await service.report({"n": 1})]) == [most + 1]


async def test_settling_goes_only_forward():
    async with rig() as service:
        await service.submit(*(update({"reported": {"n": n}}) for n in range(3)))
        service.service.settle(HALL, 3)
        service.service.settle(HALL, 1)
        await service.report({"n": 3})
        assert [entry.version for entry in (await service.stored()).outbox] == [4]


# ------------------------------------------------------------------------------------- recovery


async def messages(service: Rig) -> list[tuple[int, bytes, bytes | None, bytes | None]]:
    """Return what a service that has just started has left to say."""
    unsent, cursor = await service.service.unsent(None)
    assert cursor is None
    return [said(outcome) for outcome in unsent]


def said(outcome: Outcome) -> tuple[int, bytes, bytes | None, bytes | None]:
    outcome = accepted(outcome)
    assert outcome.change is not None
    return outcome.change.version, outcome.body, outcome.change.delta, outcome.change.documents


def life() -> list[Command]:
    """Return commands with everything that recovery must say in the same bytes."""
    return [
        update({"desired": {"a": {"b": [1.0, {"c": True}], "x": None}}}, origin=ANNA, clientToken="ü"),
        update({"reported": {"a": {"b": [1, {"c": 1}]}, "é": {}}}, sequence={"epoch": 1, "number": 1}),
        update({"desired": {"a": None, "timestamp": {"timestamp": 3}}}),
        delete(clientToken="d"),
        update({"desired": {"z": -0.0, "y": 1e300}, "reported": {"z": 0}}, clientToken="t"),
        update(None, clientToken="t2"),
        update({"desired": {"w": 1}}),
    ]


@pytest.mark.parametrize("crash", Crash)
@pytest.mark.parametrize("last", range(1, 8))
@pytest.mark.parametrize("every", [1, 2, 3, 64])
async def test_after_a_crash_the_same_bytes_are_said_and_the_same_rows_are_there(
    crash: Crash, last: int, every: int
):
    limits = ShadowLimits(history_full_every=every)
    clock = FakeClock()
    whole, torn = make_rig(limits=limits), make_rig(limits=limits)
    for made in (whole, torn):
        made.clock = clock
        made.service._clock = clock
    commands = [*life()[:last], update({"desired": {"last": [True]}}, origin=ANNA)]
    async with running(whole.service), running(torn.service):
        for number, command in enumerate(commands):
            clock.advance(1.7)
            # Two in a row are torn, so that the second one finds what the first one left.
            torn.store.crash = crash if number >= last - (crash is not Crash.BEFORE_COMMIT) else None
            await torn.one(command)
            if number < last or crash is not Crash.BEFORE_COMMIT:
                await whole.one(command)
    async with rig(torn.store.inner, limits=limits, clock=clock) as reborn:
        first = await messages(reborn)
        expected = [said(outcome) for outcome in whole.heard]
        newest = expected[-1][0]
        assert first == [
            (version, body, delta if version == newest else None, documents)
            for version, body, delta, documents in expected
        ]
        assert await messages(reborn) == first
        assert await history(reborn) == await history(whole)
        assert await audited(reborn) == await audited(whole)
        for version, *_ in expected:
            try:
                was = await whole.service.archive.at_version(HALL, version)
            except NoShadowError:
                continue
            assert await reborn.service.archive.at_version(HALL, version) == was


async def test_recovery_reads_only_what_is_pending():
    async with rig() as service:
        ids = [ShadowId(f"thing-{n}") for n in range(20)]
        await service.submit(*(update({"reported": {"n": 1}}, id) for id in ids))
        for id in ids[2:]:
            service.service.settle(id, 1)
        service.clock.advance(60)
        await service.service.sweep_once()
        store = service.store
    async with rig(store) as service:
        gets = store.gets
        unsent, _ = await service.service.unsent(None)
        assert {outcome.command.id for outcome in unsent} == set(ids[:2])
        assert store.gets == gets


async def test_what_is_delivered_is_not_said_again():
    async with rig() as service:
        await service.submit(*(update({"reported": {"n": n}}) for n in range(4)))
        service.service.settle(HALL, 2)
        assert [one[0] for one in await messages(service)] == [3, 4]
        assert [accepted(one).version for one in await service.service.unsent_of(HALL)] == [3, 4]
        service.service.settle(HALL, 4)
        assert await messages(service) == []


async def test_recovery_of_a_history_without_beginning_starts_at_a_whole_row():
    limits = ShadowLimits(history_full_every=4, history_versions_max=12, outbox_entries_max=3)
    async with rig(limits=limits) as service:
        for number in range(1, 60):
            await service.report({"n": number, f"f{number % 7}": number})
            if number > 2:
                service.service.settle(HALL, number - 2)
            async with rig(service.store.inner, limits=limits) as reborn:
                expected = [said(outcome) for outcome in service.heard[-min(number, 3) :]]
                again = await messages(reborn)
                assert [one[0] for one in again] == [one[0] for one in expected]
                assert [one[3] for one in again] == [one[3] for one in expected]


# ----------------------------------------------------------------------------------------- audit


async def test_an_act_of_no_thing_has_one_audit_row_in_the_same_commit():
    async with rig() as service:
        await service.one(update({"desired": {"a": 1}}, origin=ANNA, key="k"))
        await service.one(update({"desired": {"a": 1}}, origin=ANNA, key="k"))
        await service.one(update({"desired": {"a": 1}}, origin=ANNA, version=7))
        await service.report({"a": 1})
        command = delete(origin=ANNA)
        await service.one(command)
        made, gone = await audited(service)
        assert (made.actor, made.role, made.action, made.target) == (
            "anna",
            "stand_in",
            "shadow.update",
            "shadow/hall/",
        )
        assert (made.version_before, made.version_after, made.request_id, made.via) == (0, 1, "req-1", "http")
        assert (gone.action, gone.version_before, gone.version_after) == ("shadow.delete", 2, 3)
        assert made.sha256 == update({"desired": {"a": 1}}).digest.hex()
        assert made.at_ms == NOW_MS
        assert gone.sha256 == command.digest.hex()


# ----------------------------------------------------------------------------- help that fails


async def test_a_conflict_that_cannot_be_explained_makes_no_update_twice(monkeypatch: pytest.MonkeyPatch):
    async with rig() as service:
        await service.report({"a": 1})

        async def fail(*_: object) -> None:
            raise RuntimeError("planted")

        monkeypatch.setattr(service.service.archive, "conflicts", fail)
        outcomes = await service.submit(
            update({"reported": {"a": 2}}, ATTIC), update({"reported": {"a": 2}}, version=9)
        )
        assert answers(outcomes) == [1, -409]
        assert (await service.stored(ATTIC)).version == 1


# ------------------------------------------------------------------------------------- retention


async def test_history_older_than_its_age_goes_but_the_newest_version_stays():
    day = 86_400
    limits = ShadowLimits(history_age_d=10, history_age_d_han=1)
    han = ShadowId("meter", "han")
    async with rig(limits=limits) as service:
        for number in range(1, 31):
            service.clock.advance(day)
            await service.report({"n": number, f"f{number % 4}": number})
            await service.report({"n": number}, ATTIC) if number < 5 else None
            service.settle_all()
        service.clock.advance(60)
        await service.service.sweep_once()
        seen = {n: await service.service.archive.at_version(HALL, n) for n in range(1, 31)}
        await service.service.retain_once()
        rows = [row.version for row in await service.service.archive.history(HALL, limit=100)]
        assert rows == list(range(30, 20, -1))
        assert {n: await service.service.archive.at_version(HALL, n) for n in rows} == {
            n: seen[n] for n in rows
        }
        assert [row.version for row in await service.service.archive.history(ATTIC, limit=100)] == [4]
        assert (await service.service.archive.at_version(ATTIC, 4)).reported.state == {"n": 4}
        assert (await service.stored()).version == 30
        assert answers([await service.report({"n": 31}, version=30)]) == [31]
        assert history_log(han) != history_log(HALL)


async def test_a_past_that_cannot_be_read_keeps_no_other_from_its_age():
    async with rig(limits=ShadowLimits(history_age_d=1)) as service:
        for number in range(5):
            for id in (ATTIC, CELLAR, HALL):
                await service.report({"n": number}, id)
            service.settle_all()
        service.clock.advance(3 * 86_400)
        await service.service.sweep_once()
        log = history_log(ATTIC)
        await service.store.inner.append([Entry(log, ATTIC.key, 3, NOW_MS, b"damaged")])
        await service.service.retain_once()
        assert [row.number for row in await history(service)] == [5]
        assert len(await service.store.inner.read(log, CELLAR.key, 1, 9, limit=9)) == 1
        assert len(await service.store.inner.read(log, ATTIC.key, 1, 9, limit=9)) == 5


async def test_retention_that_is_done_twice_changes_nothing_more():
    async with rig(limits=ShadowLimits(history_age_d=1)) as service:
        for number in range(5):
            await service.report({"n": number})
            service.settle_all()
        service.clock.advance(3 * 86_400)
        await service.service.sweep_once()
        await service.service.retain_once()
        commits = len(service.store.commits)
        await service.service.retain_once()
        assert len(service.store.commits) == commits
        assert [row.number for row in await history(service)] == [5]
