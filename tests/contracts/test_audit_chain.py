"""Sealing on every store: every row is in the chain once, whoever dies and whoever seals beside."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from infra.documents.opening import open_store
from infra.documents.port import Collection, Cut, Entry, StoreUnavailableError, Write
from security import audit, chain
from security.audit import AuditEntry, Refusals, Via
from security.blocks import BLOCKS, Blocks
from security.policy import Principal, Role
from security.sealer import REFUSALS_SETTLE_MS, Sealer, cuts
from security.trail import Trail
from tests.fakes import NOW_MS, FakeClock, SeededIds
from tests.faulty_store import Crash, FaultyStore

ANNA = Principal("anna", Role.OPERATOR)
END_MS = NOW_MS + 10**9


@pytest.fixture
def store_collections() -> Sequence[Collection]:
    return (BLOCKS, Collection("things"))


@pytest.fixture
def store_logs() -> Sequence[str]:
    return (audit.LOG,)


def row(number: int, target: str = "thing/hall", at_ms: int | None = None) -> Entry:
    at_ms = NOW_MS + number if at_ms is None else at_ms
    act = audit.act(ANNA, Via("http", "r"), "thing.register", target, at_ms=at_ms, before=0, after=number)
    return audit.entry(act, number, life=0)


async def ids(store) -> list[str]:
    """Return the ids of the whole trail, in its order."""
    return [msgspec.json.decode(one.body, type=AuditEntry).id async for one in Trail(store).export()]


async def unsealed(store) -> list[Entry]:
    return list((await store.scan(audit.LOG, -(2**62), 2**62, limit=1_000)).entries)


async def sealed_ids(store) -> list[str]:
    trail = Trail(store)
    return [msgspec.json.decode(one.body, type=AuditEntry).id async for one in trail.export() if one.block]


async def test_rows_move_into_a_block_and_leave_the_log(store):
    await store.append([row(n) for n in range(1, 4)])
    sealer = Sealer(store, FakeClock())
    assert await sealer.seal() == 3
    assert await unsealed(store) == []
    assert await sealed_ids(store) == ["thing/hall:1", "thing/hall:2", "thing/hall:3"]
    assert await Trail(store).verify({}) == sealer.head
    assert (sealer.head.number, sealer.head.entries, sealer.unsealed) == (1, 3, 0)


async def test_nothing_to_seal_makes_no_block(store):
    sealer = Sealer(store, FakeClock())
    assert await sealer.seal() == 0
    await store.append([row(1)])
    await sealer.seal()
    assert await sealer.seal() == 0
    assert (await Trail(store).head()).number == 1


async def test_the_chain_goes_on_after_a_restart(store):
    for number in range(1, 12):
        await store.append([row(number)])
        await Sealer(store, FakeClock()).seal()
    head = await Trail(store).verify({})
    assert (head.number, head.entries) == (11, 11)
    assert await Trail(store).head() == head


async def test_many_rows_go_into_blocks_of_a_thousand(store):
    for start in range(1, 2_502, 500):
        await store.append([row(n) for n in range(start, min(start + 500, 2_502))])
    sealer = Sealer(store, FakeClock())
    assert await sealer.seal() == 2_501
    assert (sealer.head.number, sealer.head.entries) == (3, 2_501)
    assert await Trail(store).verify({}) == sealer.head


async def test_a_row_that_is_older_than_a_sealed_one_is_sealed_when_it_comes(store):
    sealer = Sealer(store, FakeClock())
    await store.append([row(5)])
    await sealer.seal()
    await store.append([row(3), row(7)])
    await sealer.seal()
    assert await sealed_ids(store) == ["thing/hall:5", "thing/hall:3", "thing/hall:7"]


async def test_a_row_that_comes_while_a_block_is_made_is_neither_lost_nor_cut(store):
    """With several processes an older row can arrive after a newer one."""
    faulty = FaultyStore(store)
    await store.append([row(1), row(3)])

    async def late() -> None:
        await store.append([row(2)])

    faulty.before_commit = [late]
    sealer = Sealer(faulty, FakeClock())
    assert await sealer.seal() == 2
    assert [one.number for one in await unsealed(store)] == [2]
    assert await sealer.seal() == 1
    assert sorted(await sealed_ids(store)) == ["thing/hall:1", "thing/hall:2", "thing/hall:3"]


async def test_a_row_that_is_written_again_after_it_was_sealed_is_not_sealed_twice(store):
    sealer = Sealer(store, FakeClock())
    await store.append([row(n) for n in range(1, 4)])
    await sealer.seal()
    await store.append([row(4)])
    await sealer.seal()
    await store.append([row(2), row(5)])
    await Sealer(store, FakeClock()).seal()
    await store.append([row(1)])
    assert await ids(store) == [f"thing/hall:{n}" for n in range(1, 6)]
    await sealer.seal()
    assert await unsealed(store) == []
    assert await sealed_ids(store) == [f"thing/hall:{n}" for n in range(1, 6)]
    assert (await Trail(store).verify({})).entries == 5


@pytest.mark.parametrize("crash", Crash)
async def test_a_crash_at_any_step_loses_nothing_and_seals_nothing_twice(store, crash):
    faulty = FaultyStore(store)
    await store.append([row(n) for n in range(1, 6)])
    faulty.crash = crash
    with pytest.raises(StoreUnavailableError):
        await Sealer(faulty, FakeClock()).seal()
    assert sorted(await ids(store)) == [f"thing/hall:{n}" for n in range(1, 6)]
    await store.append([row(6)])
    sealer = Sealer(store, FakeClock())
    await sealer.seal()
    assert await unsealed(store) == []
    assert await sealed_ids(store) == [f"thing/hall:{n}" for n in range(1, 7)]
    assert (await Trail(store).verify({})).entries == 6


@pytest.mark.parametrize("crash", Crash)
async def test_the_same_sealer_goes_on_after_a_commit_of_unknown_fate(store, crash):
    faulty = FaultyStore(store)
    sealer = Sealer(faulty, FakeClock())
    for number in range(1, 4):
        await store.append([row(number)])
        faulty.crash = crash
        await sealer.seal_and_publish()
    await sealer.seal()
    assert sorted(await sealed_ids(store)) == ["thing/hall:1", "thing/hall:2", "thing/hall:3"]
    assert await unsealed(store) == []


async def test_any_number_of_sealers_seal_every_row_once(store):
    sealers = [Sealer(store, FakeClock()) for _ in range(4)]
    for start in range(1, 41, 10):
        await store.append([row(n) for n in range(start, start + 10)])
        await asyncio.gather(*(sealer.seal() for sealer in sealers))
    assert sorted(await sealed_ids(store)) == sorted(f"thing/hall:{n}" for n in range(1, 41))
    assert await unsealed(store) == []
    assert (await Trail(store).verify({})).entries == 40


async def test_a_sealer_that_is_overtaken_between_looking_and_inserting_seals_the_rest(store):
    first, second = FaultyStore(store), Sealer(store, FakeClock())
    await store.append([row(1), row(2)])

    async def other() -> None:
        await second.seal()
        await store.append([row(3)])

    first.before_commit = [other]
    sealer = Sealer(first, FakeClock())
    assert await sealer.seal() == 0
    assert await sealer.seal() == 1
    assert await sealed_ids(store) == ["thing/hall:1", "thing/hall:2", "thing/hall:3"]


async def test_an_act_and_its_row_survive_a_sealing_of_its_target(store):
    """The next act on the same target writes the next number."""
    sealer = Sealer(store, FakeClock())
    for number in range(1, 5):
        write = Write("things", "hall", number - 1, b"{}", entries=(row(number),))
        assert not await store.commit([write])
        await sealer.seal()
    assert await sealed_ids(store) == [f"thing/hall:{n}" for n in range(1, 5)]


# Refusals


def refused(store, clock) -> Refusals:
    refusals = Refusals(store, clock, SeededIds())
    refusals.note(ANNA, Via("http"), "thing.remove", "thing/hall", "no")
    return refusals


async def test_a_row_of_refusals_is_sealed_once_nobody_counts_it_any_more(store):
    clock = FakeClock()
    refusals, sealer = refused(store, clock), Sealer(store, clock)
    await refusals.flush()
    assert (await sealer.seal(), sealer.unsealed) == (0, 1)
    refusals.note(ANNA, Via("http"), "thing.remove", "thing/hall", "no")
    await refusals.flush()
    clock.advance(60 + REFUSALS_SETTLE_MS / 1_000)
    assert (await sealer.seal(), sealer.unsealed) == (1, 0)
    (item,) = (await Trail(store).read(0, END_MS, 10)).items
    assert (item.entry.count, item.block, item.position) == (2, 1, 1)


async def test_at_the_end_a_writer_says_which_refusals_it_counts_no_more(store):
    clock = FakeClock()
    refusals, sealer = refused(store, clock), Sealer(store, clock)
    other = Refusals(store, clock, SeededIds(9))
    other.note(ANNA, Via("http"), "thing.remove", "thing/hall", "no")
    await other.flush()
    await refusals.flush()
    assert (await sealer.seal(refusals.keys), sealer.unsealed) == (1, 1)


async def test_refusals_counted_on_after_they_were_sealed_are_sealed_with_their_higher_count(store):
    clock = FakeClock()
    refusals, sealer = refused(store, clock), Sealer(store, clock)
    await refusals.flush()
    refusals.note(ANNA, Via("http"), "thing.remove", "thing/hall", "no")
    clock.advance(60 + REFUSALS_SETTLE_MS / 1_000)
    await sealer.seal()
    await refusals.flush()
    await sealer.seal()
    counts = [item.entry.count for item in (await Trail(store).read(0, END_MS, 10)).items]
    assert counts == [1, 2]


# What does not fit


async def test_what_is_no_entry_stays_in_the_log_and_holds_up_nothing(store):
    await store.append([Entry(audit.LOG, "odd", 1, NOW_MS, b"\xff"), row(1)])
    sealer = Sealer(store, FakeClock())
    assert await sealer.seal() == 1
    assert [one.key for one in await unsealed(store)] == ["odd"]
    assert sealer.unsealed == 1


async def test_a_block_cannot_be_put_over_another(store):
    await store.append([row(1)])
    sealer = Sealer(store, FakeClock())
    await sealer.seal()
    assert await Blocks(store).add(chain.EMPTY, [row(2)], []) is None
    assert await sealed_ids(store) == ["thing/hall:1"]


def test_cuts_name_the_rows_and_no_others():
    rows = [row(n) for n in (0, 1, 5, 7, 8)] + [row(3, "thing/attic")]
    assert list(cuts(rows)) == [
        Cut("audit", "thing/attic", 4, 3),
        Cut("audit", "thing/hall", 2, 0),
        Cut("audit", "thing/hall", 6, 5),
        Cut("audit", "thing/hall", 9, 7),
    ]


# The trail


async def pages(store, limit: int, from_ms: int = 0, to_ms: int = END_MS):
    trail, found, cursor = Trail(store), [], None
    for _ in range(100):
        page = await trail.read(from_ms, to_ms, limit, cursor)
        assert len(page.items) <= limit
        found += [(one.entry.version_after, one.block, one.position) for one in page.items]
        cursor = page.next
        if cursor is None:
            return found
    raise AssertionError("endless")


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_go_through_the_blocks_and_then_the_rest(store, limit):
    sealer = Sealer(store, FakeClock())
    for numbers in ((1, 2, 3), (4,), (5, 6)):
        await store.append([row(n) for n in numbers])
        await sealer.seal()
    await store.append([row(7), row(8)])
    everything = [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 2, 1), (5, 3, 1), (6, 3, 2), (7, 0, 0), (8, 0, 0)]
    assert await pages(store, limit) == everything
    assert await pages(store, limit, NOW_MS + 3, NOW_MS + 7) == everything[2:7]
    assert await pages(store, limit, NOW_MS + 6) == everything[5:]
    assert await pages(store, limit, NOW_MS + 8) == everything[7:]
    assert await pages(store, limit, NOW_MS + 9) == []


async def test_what_is_sealed_between_two_pages_is_neither_told_twice_nor_left_out(store):
    trail, sealer = Trail(store), Sealer(store, FakeClock())
    await store.append([row(n) for n in range(1, 7)])
    first = await trail.read(0, END_MS, 2)
    await sealer.seal()
    await store.append([row(7)])
    second = await trail.read(0, END_MS, 3, first.next)
    third = await trail.read(0, END_MS, 3, second.next)
    told = [one.entry.version_after for page in (first, second, third) for one in page.items]
    assert told == [1, 2, 3, 4, 5, 6, 7]
    assert third.next is None


async def test_what_is_sealed_while_a_page_is_read_is_told_once(store):
    await store.append([row(1), row(2)])
    sealer = Sealer(store, FakeClock())

    class Overtaken(FaultyStore):
        async def scan(self, *args, **options):
            page = await self.inner.scan(*args, **options)
            await sealer.seal()
            return page

    assert [place[1:] for place in await pages(Overtaken(store), 10)] == [(1, 1), (1, 2)]


async def test_verification_takes_bounded_steps_and_finds_a_missing_block(store):
    sealer = Sealer(store, FakeClock())
    for number in range(1, 20):
        await store.append([row(number)])
        await sealer.seal()
    trail, verification = Trail(store), chain.Verification({})
    assert not await trail.verify_some(verification, 9)
    assert verification.head.number == 9
    assert not await trail.verify_some(verification, 9)
    assert await trail.verify_some(verification, 9)
    assert verification.head == sealer.head
    await store.commit([Write(BLOCKS.name, f"{7:012d}", 1, None)])
    with pytest.raises(chain.BadPositionError) as raised:
        await trail.verify({})
    assert (raised.value.block, raised.value.index) == (7, 0)
    # What seals on does not take the hole for the end.
    await store.append([row(20)])
    await Sealer(store, FakeClock()).seal()
    assert (await trail.head()).number == 20


async def test_verification_finds_a_block_that_is_indexed_elsewhere(store):
    sealer = Sealer(store, FakeClock())
    for number in range(1, 4):
        await store.append([row(number)])
        await sealer.seal()
    (document,) = (await store.get(BLOCKS.name, [f"{2:012d}"])).values()
    index = {"number": 2, "upto_ms": 1}
    await store.commit([Write(BLOCKS.name, document.id, 1, document.body, index)])
    with pytest.raises(chain.BadPositionError) as raised:
        await Trail(store).verify({})
    assert (raised.value.block, raised.value.index) == (2, 0)


async def test_a_chain_outlives_its_process(store_url, store_collections, store_logs):
    if store_url.startswith("memory"):
        pytest.skip("keeps nothing")
    for number in (1, 2):
        store = await open_store(store_url, store_collections, store_logs)
        await store.append([row(number)])
        await Sealer(store, FakeClock()).seal()
        await store.close()
    store = await open_store(store_url, store_collections, store_logs)
    assert (await Trail(store).verify({})).entries == 2
    await store.close()
