"""The outbox on every store: once, in order, lane by lane, whoever dies and however long others are down."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from infra.documents.port import Collection, Entry, StoreBrokenError, StoreUnavailableError
from infra.outbox import (
    DELIVERY_S_MAX,
    LANES,
    LANES_AT_ONCE,
    LATE_MS,
    LEASE_MS,
    LOG,
    LOOK_S,
    RETRY_AFTER_S_MAX,
    RETRY_S_MAX,
    DeliveryRefusedError,
    DeliveryUnavailableError,
    Item,
    ItemState,
    LaneFullError,
    Outbox,
    OutboxItem,
    Receipt,
    UnknownItemError,
)
from infra.telemetry import Metrics
from tests.fakes import NOW_MS, FakeClock
from tests.faulty_store import Crash, FaultyStore

HOME, OTHER = "pr-0001", "pr-0002"


@pytest.fixture
def store_collections() -> Sequence[Collection]:
    return (LANES,)


@pytest.fixture
def store_logs() -> Sequence[str]:
    return (LOG, "audit")


class Receiver:
    """The other system: keeps what it took, by idempotency key, and fails when told so."""

    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}
        self.order: list[tuple[str, int]] = []
        self.calls: list[OutboxItem] = []
        self.fails: dict[str, Exception] = {}
        """By lane; what is raised instead of an answer."""
        self.slow_lanes: set[str] = set()

    async def __call__(self, item):
        self.calls.append(item)
        if item.lane in self.slow_lanes:
            await asyncio.Event().wait()
        if item.lane in self.fails:
            raise self.fails[item.lane]
        if item.idempotency_key not in self.taken:
            self.taken[item.idempotency_key] = item.body
            self.order.append((item.lane, item.seq))
        return Receipt(f"r-{item.lane}-{item.seq}")


def item(key, lane=HOME, made_at_ms=NOW_MS):
    return Item(key, lane, "han.device.registered", f'{{"key":"{key}"}}'.encode(), made_at_ms)


def outbox(store, clock=None, seed=1, metrics=None):
    return Outbox(store, clock or FakeClock(), random.Random(seed), metrics or Metrics())


async def states(box, lane=HOME):
    return {one.key: one.state for one in await box.items(lane)}


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is a fake's, which has no event
            await asyncio.sleep(0.005)


async def test_what_is_put_is_delivered_in_order_and_leaves_its_receipt(store):
    box, receiver = outbox(store), Receiver()
    await box.put([item("a"), item("b"), item("c", OTHER)])
    await box.deliver_due(receiver)
    assert sorted(receiver.order) == [(HOME, 1), (HOME, 2), (OTHER, 1)]
    assert [body for _, body in zip(range(2), receiver.taken.values(), strict=False)]
    done = await box.item("b")
    assert (done.state, done.receipt, done.delivered_at_ms, done.body) == (
        ItemState.DELIVERED,
        "r-pr-0001-2",
        NOW_MS,
        b"",
    )
    assert (await box.waiting(10)).items == ()


async def test_a_key_is_taken_once_while_it_waits_and_after_it_was_delivered(store):
    box, receiver = outbox(store), Receiver()
    await box.put([item("a"), item("a")])
    await box.put([item("a")])
    await box.deliver_due(receiver)
    await box.put([item("a"), item("b")])
    await outbox(store, seed=2).put([item("a")])
    await box.deliver_due(receiver)
    assert receiver.order == [(HOME, 1), (HOME, 2)]


async def test_a_key_is_known_long_after_its_lane_forgot_it(store):
    box, receiver = outbox(store), Receiver()
    await box.put([item(f"k{number}") for number in range(40)])
    for _ in range(2):
        await box.deliver_due(receiver)
    await box.put([item("k0")])
    assert len(receiver.order) == 40
    assert (await box.item("k0")).state is ItemState.DELIVERED
    assert (await box.waiting(10)).items == ()


async def test_puts_at_once_keep_each_item_once_with_numbers_without_gaps(store):
    boxes = [outbox(store, seed=seed) for seed in range(4)]
    await asyncio.gather(*(box.put([item(f"k{n}"), item(f"k{n + 1}")]) for n, box in enumerate(boxes)))
    kept = await boxes[0].items(HOME)
    assert sorted(one.key for one in kept) == ["k0", "k1", "k2", "k3", "k4"]
    assert [one.seq for one in kept] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("crash", Crash)
async def test_a_put_that_was_not_answered_can_be_repeated(store, crash):
    faulty = FaultyStore(store)
    faulty.crash = crash
    with pytest.raises(StoreUnavailableError):
        await outbox(faulty).put([item("a")])
    box, receiver = outbox(store), Receiver()
    await box.put([item("a")])
    await box.deliver_due(receiver)
    assert receiver.order == [(HOME, 1)]


async def test_a_full_lane_refuses_and_keeps_what_it_has(store):
    box = outbox(store)
    await box.put([item(f"k{number}") for number in range(256)])
    with pytest.raises(LaneFullError):
        await box.put([item("one more")])
    assert await box.item("one more") is None
    assert len(await box.items(HOME)) == 256


# Attempts


async def test_while_the_other_system_is_down_nothing_is_lost_and_then_all_comes_once_in_order(store):
    clock, receiver = FakeClock(), Receiver()
    box = outbox(store, clock)
    receiver.fails = {HOME: DeliveryUnavailableError("down"), OTHER: DeliveryUnavailableError("down")}
    await box.put([item("a"), item("b"), item("c", OTHER)])
    waits = []
    for _ in range(30):
        await box.deliver_due(receiver)
        (head, *_rest) = await box.items(HOME)
        assert head.problem == "down"
        waits.append(head.due_ms - clock.now_ms())
        clock.advance(RETRY_S_MAX)
    assert max(waits[:2]) <= 4_000
    assert RETRY_S_MAX * 300 < max(waits) <= RETRY_S_MAX * 1_000
    assert {one.key for one in receiver.calls} == {"a", "c"}
    receiver.fails = {}
    await box.deliver_due(receiver)
    assert sorted(receiver.order) == [(HOME, 1), (HOME, 2), (OTHER, 1)]


async def test_what_the_other_system_asked_for_is_waited_for(store):
    clock, receiver = FakeClock(), Receiver()
    box = outbox(store, clock)
    await box.put([item("a")])
    for asked_s, least_s in ((120.0, 120.0), (-5.0, 0.0), (1e9, RETRY_AFTER_S_MAX)):
        receiver.fails = {HOME: DeliveryUnavailableError("busy", asked_s)}
        await box.deliver_due(receiver)
        (head,) = await box.items(HOME)
        assert least_s * 1_000 <= head.due_ms - clock.now_ms() <= (least_s + RETRY_S_MAX) * 1_000
        clock.advance(least_s + RETRY_S_MAX)


async def test_a_refused_item_blocks_its_lane_and_no_other_until_a_person_lets_it_go(store):
    clock, receiver = FakeClock(), Receiver()
    box = outbox(store, clock)
    receiver.fails = {HOME: DeliveryRefusedError(422, "Unknown model")}
    await box.put([item("a"), item("b"), item("c", OTHER)])
    with capture_logs() as said:
        await box.deliver_due(receiver)
    assert [one["event"] for one in said] == ["outbox_item_blocked"]
    clock.advance(1_000_000)
    await box.deliver_due(receiver)
    assert await states(box) == {"a": ItemState.BLOCKED, "b": ItemState.QUEUED}
    assert (await box.item("a")).problem == "422 Unknown model"
    assert len(receiver.calls) == 2
    receiver.fails = {}
    assert (await box.retry("a")).state is ItemState.QUEUED
    await box.deliver_due(receiver)
    assert receiver.order == [(OTHER, 1), (HOME, 1), (HOME, 2)]


async def test_the_audit_row_of_a_retry_is_written_if_and_only_if_it_did_something(store):
    box, receiver = outbox(store), Receiver()
    receiver.fails = {HOME: DeliveryRefusedError(400, "")}
    await box.put([item("a"), item("b")])
    await box.deliver_due(receiver)

    def row(number):
        return Entry("audit", "outbox/pr-0001", number, NOW_MS, b"row")

    await box.retry("a", row)
    await box.retry("b", row)
    assert len(await store.read("audit", "outbox/pr-0001", 0, 99, limit=9)) == 1
    with pytest.raises(UnknownItemError):
        await box.retry("none", row)


async def test_a_retry_brings_forward_what_waits_for_its_time(store):
    box, receiver = outbox(store), Receiver()
    receiver.fails = {HOME: DeliveryUnavailableError("down", 3_600)}
    await box.put([item("a")])
    await box.deliver_due(receiver)
    receiver.fails = {}
    await box.retry("a")
    await box.deliver_due(receiver)
    assert (await box.retry("a")).state is ItemState.DELIVERED


async def test_a_bug_in_the_adapter_is_a_failed_attempt(store):
    clock, receiver = FakeClock(), Receiver()
    box = outbox(store, clock)
    receiver.fails = {HOME: KeyError("a bug")}
    await box.put([item("a"), item("b", OTHER)])
    with capture_logs() as said:
        await box.deliver_due(receiver)
    assert [one["event"] for one in said] == ["outbox_delivery_failed"]
    assert receiver.order == [(OTHER, 1)]
    receiver.fails = {}
    clock.advance(RETRY_S_MAX)
    await box.deliver_due(receiver)
    assert receiver.order == [(OTHER, 1), (HOME, 1)]


# Senders that die, and several of them


@pytest.mark.parametrize("crash", Crash)
@pytest.mark.parametrize("at", ["taking", "delivered"])
async def test_a_sender_that_dies_is_replaced_and_the_receiver_sees_one_item(store, crash, at):
    clock, receiver, faulty = FakeClock(), Receiver(), FaultyStore(store)
    await outbox(store).put([item("a"), item("b")])

    async def deliver(taken):
        receipt = await receiver(taken)
        faulty.crash = crash
        return receipt

    if at == "taking":
        faulty.crash = crash
        await outbox(faulty, clock).deliver_due(receiver)
    else:
        await outbox(faulty, clock).deliver_due(deliver)
    clock.advance(LEASE_MS / 1_000)
    await outbox(store, clock, seed=2).deliver_due(receiver)
    assert receiver.order == [(HOME, 1), (HOME, 2)]
    assert len({one.idempotency_key for one in receiver.calls}) == 2
    await outbox(store).put([item("a"), item("b")])
    assert (await outbox(store).waiting(9)).items == ()


async def test_several_processes_send_each_item_by_one_of_them_in_order(store):
    boxes, receiver = [outbox(store, seed=seed) for seed in range(4)], Receiver()
    await boxes[0].put([item(f"{lane}-{n}", f"lane-{lane}") for lane in range(10) for n in range(5)])
    await asyncio.gather(*(box.deliver_due(receiver) for box in boxes))
    await boxes[0].deliver_due(receiver)
    assert len(receiver.calls) == 50
    for lane in range(10):
        assert [seq for name, seq in receiver.order if name == f"lane-{lane}"] == [1, 2, 3, 4, 5]


async def test_a_slow_lane_holds_up_no_other_and_is_ended(store):
    receiver = Receiver()
    receiver.slow_lanes = {HOME}
    box = outbox(store)
    async with asyncio.TaskGroup() as group:
        work = group.create_task(box.run(receiver))
        await box.put([item("a"), item("b", OTHER)])
        await until(lambda: receiver.order == [(OTHER, 1)])
        await box.put([item("c", OTHER)])
        await until(lambda: receiver.order == [(OTHER, 1), (OTHER, 2)])
        work.cancel()
    assert DELIVERY_S_MAX * 1_000 < LEASE_MS


async def test_so_many_lanes_are_sent_at_once_and_no_more(store):
    receiver = Receiver()
    receiver.slow_lanes = {f"lane-{number}" for number in range(LANES_AT_ONCE)}
    box = outbox(store)
    await box.put([item(lane, lane) for lane in receiver.slow_lanes])
    await box.put([item("z", "z")])
    async with asyncio.TaskGroup() as group:
        work = group.create_task(box.run(receiver))
        await until(lambda: len(receiver.calls) == LANES_AT_ONCE)
        await asyncio.sleep(0.05)
        assert {one.lane for one in receiver.calls} == receiver.slow_lanes
        work.cancel()


async def test_an_attempt_that_does_not_end_is_a_failed_one(store, monkeypatch):
    monkeypatch.setattr("infra.outbox.DELIVERY_S_MAX", 0.01)
    receiver = Receiver()
    receiver.slow_lanes = {HOME}
    box = outbox(store)
    await box.put([item("a")])
    await box.deliver_due(receiver)
    (head,) = await box.items(HOME)
    assert (head.state, head.attempts) == (ItemState.QUEUED, 1)
    assert head.problem.startswith("no answer")


async def test_a_store_that_is_down_is_waited_for(store):
    faulty, receiver = FaultyStore(store), Receiver()
    box = outbox(faulty)
    await box.put([item("a")])
    faulty.refuses = ["find"]
    with capture_logs() as said:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(box.run(receiver))
            await until(lambda: said)
            faulty.refuses = []
            await until(lambda: receiver.order)
            work.cancel()
    assert {one["event"] for one in said} == {"outbox_waits_for_the_store"}


async def test_a_broken_disk_ends_it(store):
    faulty, receiver = FaultyStore(store), Receiver()
    box = outbox(faulty)
    await box.put([item("a")])
    faulty.crash, faulty.crash_with = Crash.BEFORE_COMMIT, StoreBrokenError("fsync")
    with pytest.raises(ExceptionGroup) as ended:
        await box.run(receiver)
    assert ended.group_contains(StoreBrokenError)


async def test_it_ends_when_told_to_though_a_driver_lost_that(store):
    class Losing(FaultyStore):
        async def find(self, *args, **options):
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                seen.append("lost")
            return await super().find(*args, **options)

    seen: list[str] = []
    async with asyncio.TaskGroup() as group:
        work = group.create_task(outbox(Losing(store)).run(Receiver()))
        await asyncio.sleep(0.005)
        work.cancel()
    assert seen == ["lost"]
    assert work.cancelled()


# Watching


async def test_an_hour_is_an_alarm_said_once_and_its_end_too(store):
    clock, receiver, metrics = FakeClock(), Receiver(), Metrics()
    box = outbox(store, clock, metrics=metrics)
    receiver.fails = {HOME: DeliveryUnavailableError("down")}
    await box.put([item("a", made_at_ms=NOW_MS - LATE_MS + 1_000)])
    said = []
    for after_s in (0, LOOK_S, LOOK_S, RETRY_S_MAX):
        clock.advance(after_s)
        with capture_logs() as lines:
            await box.deliver_due(receiver)
        said += [line["event"] for line in lines]
    assert said == ["outbox_late"]
    assert b"gnomon_outbox_lanes_waiting 1.0" in metrics.render()
    assert b"gnomon_outbox_oldest_seconds 45" in metrics.render()
    receiver.fails = {}
    clock.advance(RETRY_S_MAX)
    with capture_logs() as lines:
        await box.deliver_due(receiver)
        clock.advance(LOOK_S)
        await box.deliver_due(receiver)
    assert [line["event"] for line in lines] == ["outbox_caught_up"]
    assert b"gnomon_outbox_delivered_total 1.0" in metrics.render()


async def test_a_blocked_lane_is_counted(store):
    clock, receiver, metrics = FakeClock(), Receiver(), Metrics()
    box = outbox(store, clock, metrics=metrics)
    receiver.fails = {HOME: DeliveryRefusedError(403, "Forbidden")}
    await box.put([item("a")])
    await box.deliver_due(receiver)
    clock.advance(LOOK_S)
    await box.deliver_due(receiver)
    assert b"gnomon_outbox_lanes_blocked 1.0" in metrics.render()
    assert b"gnomon_outbox_failures_total 1.0" in metrics.render()


async def test_what_waits_is_listed_by_lane_the_oldest_first(store):
    box = outbox(store)
    await box.put(
        [item("young", OTHER, NOW_MS + 5), item("old", HOME, NOW_MS), item("next", HOME, NOW_MS + 9)]
    )
    first = await box.waiting(1)
    assert [one.key for one in first.items] == ["old", "next"]
    second = await box.waiting(1, first.next)
    assert ([one.key for one in second.items], second.next) == (["young"], None)
