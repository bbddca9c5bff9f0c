"""The cache in front of the documents: never a truth, always bounded."""

import asyncio

import pytest

from infra.documents.port import Cut, StoreUnavailableError, Write
from infra.settings.model import ShadowLimits
from shadow import store as shadow_store
from shadow.document import ShadowId
from shadow.errors import NoShadowError
from shadow.records import SHADOWS, UnknownFormatError, body_of, history_log, index_of, shadow_of
from shadow.store import CACHED_FIXED_BYTES
from tests.faulty_store import Crash, FaultyStore
from tests.shadow_rig import (
    HALL,
    accepted,
    delete,
    get,
    memory,
    put,
    rejected,
    rig,
    shadow_from,
    update,
)

ATTIC = ShadowId("attic")
SMALL = shadow_from(
    {
        "state": {"reported": {"a": 1}},
        "metadata": {"reported": {"a": {"timestamp": 1}}},
        "version": 7,
        "timestamp": 1,
    }
)


def things(count: int) -> list[ShadowId]:
    return [ShadowId(f"thing-{number}") for number in range(count)]


# ----------------------------------------------------------------------------------- the bound


async def test_no_more_is_remembered_than_the_bound_says_whoever_asks():
    bound = 20 * CACHED_FIXED_BYTES
    async with rig(cache_bytes_max=bound) as service:
        for id in things(50):
            await service.report({"a": 1}, id)
            assert service.shadows.cached_bytes <= bound
        assert 5 < service.shadows.cached_shadows <= 20
        for id in things(50):
            await service.service.view(id)
            assert service.shadows.cached_bytes <= bound
        for id in things(50):
            with pytest.raises(NoShadowError):
                await service.service.view(ShadowId(id.thing, "none"))
            assert service.shadows.cached_bytes <= bound


async def test_what_was_written_longest_ago_is_forgotten_first():
    async with rig(cache_bytes_max=10 * CACHED_FIXED_BYTES) as service:
        for id in things(20):
            await service.report({"a": 1}, id)
            await service.report({"a": 1}, HALL)
        gets = service.store.gets
        await service.service.view(HALL)
        assert service.store.gets == gets
        await service.service.view(things(1)[0])
        assert service.store.gets == gets + 1


async def test_one_document_larger_than_the_bound_is_served_all_the_same():
    async with rig(cache_bytes_max=1) as service:
        for version in (1, 2, 3):
            assert accepted(await service.report({"a": version})).version == version


async def test_the_count_of_bytes_returns_to_nothing():
    async with rig() as service:
        for id in things(5):
            await service.report({"a": "x" * 100}, id)
            await service.report({"a": "y"}, id)
        service.shadows.forget(things(5))
        assert (service.shadows.cached_bytes, service.shadows.cached_shadows) == (0, 0)


# ------------------------------------------------------------------------------- fresh, not stale


async def test_a_slow_read_never_hides_a_newer_write():
    documents = FaultyStore(memory())
    await put(documents, HALL, SMALL)
    async with rig(documents) as service:
        answered, go_on = asyncio.Event(), asyncio.Event()

        async def dawdle() -> None:
            answered.set()
            await go_on.wait()

        documents.after_get.append(dawdle)
        slow = asyncio.create_task(service.service.view(HALL))
        await answered.wait()
        await service.report({"a": 2})
        go_on.set()
        assert (await slow).version == 8
        assert (await service.service.view(HALL)).version == 8


async def test_of_two_slow_reads_the_one_that_ends_last_hides_nothing_either():
    documents = FaultyStore(memory())
    await put(documents, HALL, SMALL)
    async with rig(documents) as service:
        first, second = asyncio.Event(), asyncio.Event()
        documents.after_get += [first.wait, second.wait]
        slow = [asyncio.create_task(service.service.view(HALL)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.set()
        assert (await slow[1]).version == 7
        await service.report({"a": 2})
        first.set()
        assert (await slow[0]).version == 8
        assert (await service.service.view(HALL)).version == 8


async def test_a_read_that_began_before_a_commit_of_unknown_fate_is_made_again():
    documents = FaultyStore(memory())
    await put(documents, HALL, SMALL)
    async with rig(documents) as service:
        go_on = asyncio.Event()
        documents.after_get.append(go_on.wait)
        slow = asyncio.create_task(service.service.view(HALL))
        await asyncio.sleep(0)
        documents.crash = Crash.AFTER_COMMIT
        assert rejected(await service.report({"a": 2})).error.code == 503
        go_on.set()
        assert (await slow).version == 8


async def test_a_read_during_an_erasure_does_not_bring_the_shadow_back():
    documents = FaultyStore(memory())
    async with rig(documents) as service:
        await service.report({"a": 1})

        async def look() -> None:
            assert (await service.service.view(HALL)).version == 1

        documents.before_commit.append(look)
        await service.service.forget("hall")
        with pytest.raises(NoShadowError):
            await service.service.view(HALL)
        assert rejected(await service.one(get())).error.code == 404


async def test_a_lost_race_is_decided_again_on_what_the_other_one_wrote():
    documents = memory()
    async with rig(documents) as one, rig(documents) as other:
        await one.report({"a": 1})
        await other.report({"b": 2})
        assert accepted(await one.report({"c": 3})).version == 3
        assert (await one.stored()).reported.state == {"a": 1, "b": 2, "c": 3}


async def test_nothing_is_shown_from_memory_where_others_write_too():
    documents = memory()
    async with rig(FaultyStore(documents, exclusive=False)) as one, rig(documents) as other:
        await one.report({"a": 1})
        await other.report({"a": 2})
        assert (await one.service.view(HALL)).reported.state == {"a": 2}
        await other.report({"a": 3})
        assert accepted(await one.one(get())).version == 3


@pytest.mark.parametrize("other_deletes", [False, True])
async def test_nobody_is_refused_for_what_was_true_before_others_wrote(other_deletes: bool):
    documents = memory()
    async with rig(FaultyStore(documents, exclusive=False)) as one, rig(documents) as other:
        await one.report({"a": 1}, sequence={"epoch": 1, "number": 1})
        if other_deletes:
            accepted(await other.one(delete()))
            assert rejected(await one.one(get())).error.code == 404
            assert accepted(await one.report({"a": 3}, version=0)).version == 3
        else:
            await other.report({"a": 2})
            assert accepted(await one.report({"a": 3}, version=2)).version == 3


async def test_a_repeat_of_what_another_process_answered_is_a_replay():
    documents = memory()
    async with rig(FaultyStore(documents, exclusive=False)) as one, rig(documents) as other:
        await one.report({"a": 1})
        first = accepted(await other.report({"a": 2}, clientToken="t"))
        again = accepted(await one.report({"a": 2}, clientToken="t"))
        assert (again.replayed, again.body) == (True, first.body)
        assert (await one.stored()).version == 2


# ------------------------------------------------------------------------- what cannot be read


async def spoil(documents: FaultyStore, id: ShadowId, body: bytes, *, pending: bool = True) -> None:
    index: dict[str, str | int] = {"thing": id.thing} | ({"pending": 1} if pending else {})
    assert not await documents.commit([Write(SHADOWS.name, id.key, 0, body, index)])


FROM_TOMORROW = b"\x9d\x02" + body_of(SMALL)[2:]


@pytest.mark.parametrize("body", [b"", b"\xc1", b"{}", body_of(SMALL)[:-3], FROM_TOMORROW])
async def test_a_document_that_cannot_be_read_answers_500_and_the_others_go_on(body: bytes):
    documents = FaultyStore(memory())
    await spoil(documents, HALL, body)
    async with rig(documents) as service:
        broken, good, again = await service.submit(
            update({"reported": {"a": 1}}), update({"reported": {"a": 1}}, ATTIC), get()
        )
        assert [rejected(one).error.code for one in (broken, again)] == [500, 500]
        assert accepted(good).version == 1
        with pytest.raises(RuntimeError, match="hall/"):
            await service.service.view(HALL)
        assert accepted(await service.report({"a": 2}, ATTIC)).version == 2


async def test_a_document_that_cannot_be_read_does_not_hold_up_its_neighbours():
    documents = FaultyStore(memory())
    await spoil(documents, ShadowId("hall", "diag"), b"nonsense")
    async with rig(documents) as service:
        config, garage = ShadowId("hall", "config"), ShadowId("garage")
        assert accepted(await service.report({"a": 1}, config)).version == 1
        assert accepted(await service.report({"a": 1}, garage)).version == 1
        assert await service.service.shadows_of("hall") == [config, ShadowId("hall", "diag")]
        unsent, _ = await service.service.unsent(None)
        assert {outcome.command.id for outcome in unsent} == {config, garage}
        assert await service.service.unsent_of(ShadowId("hall", "diag")) == []


async def test_a_document_that_cannot_be_read_can_be_removed_with_its_thing():
    documents = FaultyStore(memory())
    async with rig(documents) as service:
        await service.report({"a": 1})
        stored = (await documents.get(SHADOWS.name, [HALL.key]))[HALL.key]
        await documents.commit(
            [Write(SHADOWS.name, HALL.key, stored.revision, b"nonsense", {"thing": "hall"})]
        )
        service.shadows.forget([HALL])
        await service.service.forget("hall")
        assert await documents.get(SHADOWS.name, [HALL.key]) == {}
        assert await documents.read(history_log(HALL), HALL.key, 0, 100, limit=100) == []


def test_a_document_of_a_newer_program_says_so():
    with pytest.raises(UnknownFormatError, match="upgrade"):
        shadow_of("hall/", FROM_TOMORROW)


def test_a_stored_shadow_comes_back_as_it_was():
    for shadow in (SMALL, SMALL.swept(), shadow_of("hall/", body_of(SMALL))):
        assert shadow_of("hall/", body_of(shadow)) == shadow


# ------------------------------------------------------------------------------- large commits


async def test_a_batch_larger_than_a_commit_may_be_goes_in_portions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shadow_store, "COMMIT_BYTES_MAX", 30_000)
    async with rig() as service:
        outcomes = await service.submit(*(update({"reported": {"a": "x" * 3_000}}, id) for id in things(9)))
        assert [accepted(outcome).version for outcome in outcomes] == [1] * 9
        assert 1 < len(service.store.commits) < 9
        assert service.heard == outcomes
        for id in things(9):
            assert (await service.stored(id)).version == 1


async def test_a_portion_that_fails_takes_nothing_back_from_those_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shadow_store, "COMMIT_BYTES_MAX", 30_000)
    async with rig() as service:

        async def nothing() -> None:
            pass

        async def down() -> None:
            service.store.refuses = {"get", "commit"}
            raise StoreUnavailableError("down")

        service.store.before_commit += [nothing, down]
        outcomes = await service.submit(*(update({"reported": {"a": "x" * 3_000}}, id) for id in things(9)))
        answers = [getattr(getattr(outcome, "error", None), "code", 200) for outcome in outcomes]
        saved = answers.count(200)
        assert 0 < saved < 9
        assert answers == [200] * saved + [503] * (9 - saved)
        service.store.refuses = ()
        for id, answer in zip(things(9), answers, strict=True):
            assert (await service.stored(id)).version == (1 if answer == 200 else 0)


async def test_a_later_portion_of_unknown_fate_is_503_and_applied_once(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(shadow_store, "COMMIT_BYTES_MAX", 30_000)
    async with rig() as service:

        async def nothing() -> None:
            pass

        async def reply_lost() -> None:
            service.store.crash = Crash.AFTER_COMMIT

        service.store.before_commit += [nothing, reply_lost]
        outcomes = await service.submit(*(update({"reported": {"a": "x" * 3_000}}, id) for id in things(9)))
        answers = [getattr(getattr(outcome, "error", None), "code", 200) for outcome in outcomes]
        assert set(answers) == {200, 503}
        assert service.heard == outcomes
        versions = [(await service.stored(id)).version for id in things(9)]
        made = answers.count(200)
        assert versions[:made] == [1] * made
        assert 1 in versions[made:], "the portion whose reply was lost is there, once"
        assert max(versions) == 1


# ------------------------------------------------------------------------------------- names


async def test_a_thing_has_its_shadows_listed_by_name_and_not_those_of_others():
    async with rig() as service:
        for id in (ShadowId("hall", "b"), HALL, ShadowId("hall", "a"), ShadowId("hal", "l"), ATTIC):
            await service.report({"a": 1}, id)
        await service.one(delete(ShadowId("hall", "b")))
        assert await service.service.shadows_of("hall") == [HALL, ShadowId("hall", "a")]
        assert await service.service.shadows_of("nobody") == []


async def test_a_thing_that_leaves_takes_all_with_it_and_begins_anew():
    ids = [HALL, ShadowId("hall", "a"), ShadowId("hall", "b")]
    async with rig() as service:
        for id in (*ids, ATTIC):
            await service.report({"a": 1}, id)
        await service.one(delete(ShadowId("hall", "b")))
        await service.service.forget("hall")
        for id in ids:
            assert (await service.stored(id)).version == 0
            assert await service.store.read(history_log(id), id.key, 0, 100, limit=100) == []
        assert (await service.stored(ATTIC)).version == 1
        assert accepted(await service.report({"a": 1})).version == 1


async def test_an_erasure_that_others_get_in_the_way_of_is_tried_again():
    documents = FaultyStore(memory())
    async with rig(documents) as service, rig(documents.inner) as other:
        await service.report({"a": 1})

        async def write() -> None:
            await other.report({"a": 2})

        documents.before_commit += [write, write]
        await service.service.forget("hall")
        assert (await service.stored()).version == 0
        documents.before_commit += [write] * 10
        await other.report({"a": 1})
        with pytest.raises(StoreUnavailableError):
            await service.service.forget("hall")


async def test_a_document_is_found_by_its_thing_and_while_something_is_unsent():
    assert index_of(HALL, SMALL) == {"thing": "hall"}
    async with rig() as service:
        await service.report({"a": 1})
        shadow = await service.stored()
        assert index_of(HALL, shadow) == {"thing": "hall", "pending": 1}
        assert index_of(HALL, shadow.swept()) == {"thing": "hall"}


def test_the_han_shadow_has_a_log_of_its_own():
    assert (
        history_log(ShadowId("hall", "han")) != history_log(ShadowId("hall", "config")) == history_log(HALL)
    )


async def test_cuts_travel_with_the_version_that_makes_them_due():
    limits = ShadowLimits(history_full_every=2, history_versions_max=4, outbox_entries_max=1)
    async with rig(limits=limits) as service:
        for number in range(1, 9):
            await service.report({"n": number})
            service.service.settle(HALL, number)
        cuts = [[cut for write in writes for cut in write.cuts] for writes in service.store.commits]
        assert cuts[-1] == [Cut("history", HALL.key, 6)]
