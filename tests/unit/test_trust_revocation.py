"""The four acts of a revocation: in their order, each repeated until it is done, on every broker."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import StoreBrokenError, StoreUnavailableError
from registry.errors import RegistryBusyError
from security import audit
from security.policy import Principal, Role
from security.private_files import DamagedFileError
from security.trust import revocation
from security.trust.crl import CrlTooSoonError, Revoked
from security.trust.revocation import (
    FINAL,
    NEXT,
    REVOCATIONS,
    Act,
    BrokerControlError,
    Revocation,
    RevocationError,
    RevocationList,
    Revocations,
    Stage,
)
from tests.fakes import FakeClock
from tests.faulty_store import Crash, FaultyStore

ANNA = Principal("anna", Role.SECURITY)
CANARY = Revoked("00", datetime(2026, 1, 1, tzinfo=UTC), "", "issuer")


class World:
    """Everything that revocations touch, in one list of what was done."""

    def __init__(self):
        self.done = []
        self.certificates = {"hall": ["1"], "lamp": ["2", "3"]}
        self.revoked_serials = []
        self.lists = []
        self.fails = {}
        """By act: errors to raise, one each time."""
        self.clock = FakeClock()
        self.due = False
        self.next_update = self.now() + timedelta(hours=24)

    def now(self):
        return datetime.fromtimestamp(self.clock.now_ms() / 1_000, UTC)

    def fail(self, act):
        waiting = self.fails.get(act)
        if waiting:
            error = waiting.pop(0)
            if error is not None:
                raise error

    async def bar(self, thing, by, _via):
        self.fail(Act.BAR)
        self.done.append(("bar", thing, by.name))

    # the registry of certificates

    async def revoke_all(self, thing, _reason, _by, _via):
        new = set(self.certificates.get(thing, ())) - set(self.revoked_serials)
        self.revoked_serials += sorted(new)

    async def revoked(self):
        return [Revoked(serial, self.now(), "", "issuer") for serial in self.revoked_serials]

    # the authority

    def write_crl(self, revoked):
        self.fail(Act.LIST)
        self.lists.append([one.serial for one in revoked])
        self.done.append(("list", tuple(self.lists[-1])))
        self.due = False
        self.next_update = self.now() + timedelta(hours=24)

    @property
    def crl_is_due(self):
        return self.due

    @property
    def crl_next_update(self):
        return self.next_update


class Broker:
    """One of them, with a name for the list of what was done."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.sick: bool | str = False

    async def reload(self):
        if self.sick == "cannot even reload":
            raise BrokerControlError("away")
        self.world.done.append(("reload", self.name))

    async def kick(self, thing):
        await asyncio.sleep(0)
        if self.sick:
            raise BrokerControlError("away")
        self.world.fail(Act.KICK)
        self.world.done.append(("kick", self.name, thing))


@pytest.fixture
def world():
    return World()


@pytest.fixture
def store():
    return FaultyStore(MemoryStore([REVOCATIONS], [audit.LOG]))


def make(world, store, *brokers):
    list = RevocationList(world, world, world.clock, [CANARY])
    return Revocations(
        store,
        world.clock,
        bar=world.bar,
        certificates=world,
        list=list,
        brokers={broker.name: broker for broker in brokers or [Broker(world, "one")]},
    )


@asynccontextmanager
async def running(revocations):
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(revocations.run(), name="revocations")
        try:
            yield
        finally:
            task.cancel()


async def rows(store, clock):
    page = await audit.read(store, 0, clock.now_ms(), 100)
    return [(row.actor, row.action, row.target, row.cause) for row in page.entries]


async def kept(store, thing):
    document = (await store.get(REVOCATIONS.name, [thing]))[thing]
    return revocation._decode(document.body)


# ---------------------------------------------------------------------- the life cycle


def test_each_stage_has_one_act_and_the_last_none():
    assert {stage for stage, _ in NEXT} | FINAL == set(Stage)
    assert {act for _, act in NEXT} == set(Act)
    assert frozenset({Stage.DONE}) == FINAL


def test_an_act_that_is_not_due_moves_nothing():
    record = Revocation(
        thing="hall",
        reason="",
        by="anna",
        role="security",
        asked_at_ms=1,
        stages={"a": Stage.ASKED, "b": Stage.LISTED},
    )
    assert record.after(Act.KICK, ["a", "b"]) == record
    assert record.after(Act.BAR, ["a", "b"]).stages == {"a": Stage.BARRED, "b": Stage.LISTED}
    assert record.due(Act.RELOAD) == ("b",)
    assert not record.listed


# ---------------------------------------------------------------------- in order


async def test_the_four_acts_are_done_in_their_order(world, store):
    revocations = make(world, store)
    async with running(revocations):
        assert await revocations.revoke("hall", ANNA, reason="stolen")
    acts = list(dict.fromkeys(done[0] for done in world.done))
    assert acts == ["bar", "list", "reload", "kick"]
    assert world.lists == [["00", "1"]]
    record = await kept(store, "hall")
    assert (record.done, record.stages, record.reason) == (True, {"one": Stage.DONE}, "stolen")
    assert revocations.done == 1
    assert revocations._waiting == {}


async def test_asking_and_having_done_it_are_a_row_each(world, store):
    revocations = make(world, store)
    async with running(revocations):
        await revocations.revoke("hall", ANNA)
    assert await rows(store, world.clock) == [
        ("anna", "certificate.revoke", "revocation/hall", ""),
        ("gnomon.revocation", "certificate.revoke.done", "revocation/hall", "anna"),
    ]


async def test_every_broker_is_told(world, store):
    one, two = Broker(world, "one"), Broker(world, "two")
    revocations = make(world, store, one, two)
    async with running(revocations):
        assert await revocations.revoke("hall", ANNA)
    assert [done for done in world.done if done[0] != "bar"] == [
        ("list", ("00", "1")),
        ("reload", "one"), ("reload", "two"),
        ("kick", "one", "hall"), ("kick", "two", "hall"),
    ]  # fmt: skip


async def test_many_at_once_make_one_list(world, store):
    revocations = make(world, store)
    names = [f"th-{number}" for number in range(100)]
    world.certificates = {name: [name] for name in names}
    async with running(revocations):
        assert all(await asyncio.gather(*(revocations.revoke(name, ANNA) for name in names)))
    assert len(world.lists) <= 3
    assert sorted(world.lists[-1]) == ["00", *sorted(names)]
    assert sorted(done[2] for done in world.done if done[0] == "kick") == sorted(names)


async def test_again_is_done_again_for_a_name_may_have_come_to_somebody_new(world, store):
    revocations = make(world, store)
    async with running(revocations):
        await revocations.revoke("hall", ANNA)
        world.certificates["hall"] = ["9"]
        assert await revocations.revoke("hall", ANNA)
    assert world.lists[-1] == ["00", "1", "9"]
    assert [done for done in world.done if done[0] == "kick"] == [("kick", "one", "hall")] * 2


async def test_two_who_ask_at_once_are_one_record_and_both_are_answered(world, store):
    revocations = make(world, store)
    async with running(revocations):
        both = await asyncio.gather(*(revocations.revoke("hall", who) for who in (ANNA, ANNA)))
    assert both == [True, True]
    assert len(await rows(store, world.clock)) == 2


# ---------------------------------------------------------------------- what goes wrong


async def test_a_broker_that_is_away_is_told_later_and_the_name_is_free_all_the_same(
    world, store, monkeypatch
):
    monkeypatch.setattr(revocation, "ANSWER_S_MAX", 0.05)
    away, there = Broker(world, "away"), Broker(world, "there")
    away.sick = True
    revocations = make(world, store, away, there)
    async with running(revocations):
        assert not await revocations.revoke("hall", ANNA)
        assert (await kept(store, "hall")).stages == {"away": Stage.RELOADED, "there": Stage.DONE}
        assert revocations.open == 1
    away.sick = False
    await revocations.reconcile()
    assert (await kept(store, "hall")).done
    assert [done for done in world.done if done[0] == "kick"] == [
        ("kick", "there", "hall"),
        ("kick", "away", "hall"),
    ]


async def test_until_it_is_on_the_list_the_caller_hears_no(world, store, monkeypatch):
    monkeypatch.setattr(revocation, "ANSWER_S_MAX", 0.05)
    monkeypatch.setattr(revocation, "RETRY_S", 0.01)
    world.fails[Act.LIST] = [OSError(28, "No space left on device")] * 1_000
    revocations = make(world, store)
    async with running(revocations):
        with pytest.raises(RevocationError, match="ask again"):
            await revocations.revoke("hall", ANNA)
        assert ("bar", "hall", "anna") in world.done
        world.fails.clear()
        assert await revocations.revoke("hall", ANNA)
    assert not any(
        done[0] in ("reload", "kick") for done in world.done[: world.done.index(("list", ("00", "1")))]
    )


async def test_a_session_is_not_ended_before_its_broker_has_read_the_list(world, store):
    away, there = Broker(world, "away"), Broker(world, "there")
    away.sick = "cannot even reload"
    revocations = make(world, store, away, there)
    await revocations._ask("hall", ANNA, audit.INSIDE, "")
    await revocations.reconcile()
    assert (await kept(store, "hall")).stages == {"away": Stage.LISTED, "there": Stage.DONE}
    assert ("kick", "away", "hall") not in world.done
    away.sick = False
    await revocations.reconcile()
    assert (await kept(store, "hall")).done
    assert world.done[-2:] == [("reload", "away"), ("kick", "away", "hall")]
    assert len(world.lists) == 1


async def test_a_young_list_that_a_broker_has_not_read_is_read_later_and_not_made_again(world, store):
    broker = Broker(world, "one")
    broker.sick = "cannot even reload"
    revocations = make(world, store, broker)
    revocations.relist()
    await revocations.reconcile()
    broker.sick = False
    await revocations.reconcile()
    await revocations.reconcile()
    assert world.done == [("list", ("00",)), ("reload", "one")]


@pytest.mark.parametrize(
    "error", [CrlTooSoonError("wait"), StoreUnavailableError("away"), OSError(28, "full")], ids=str
)
async def test_what_goes_by_is_tried_again_soon(world, store, monkeypatch, error):
    monkeypatch.setattr(revocation, "RETRY_S", 0.01)
    world.fails[Act.LIST] = [error]
    revocations = make(world, store)
    async with running(revocations):
        assert await revocations.revoke("hall", ANNA)


@pytest.mark.parametrize(
    "error", [RegistryBusyError("this thing"), DamagedFileError(Path("x"), "is damaged", "")], ids=repr
)
@pytest.mark.parametrize("act", [Act.BAR, Act.LIST])
async def test_what_nobody_foresaw_ends_nothing_and_is_tried_again(world, store, monkeypatch, error, act):
    monkeypatch.setattr(revocation, "RETRY_S", 0.01)
    monkeypatch.setattr(revocation, "RECONCILE_S", 0.01)
    revocations = make(world, store)
    await revocations._ask("hall", ANNA, audit.INSIDE, "")
    world.fails[act] = [error]
    done = revocations._waiting.setdefault("hall", asyncio.Event())
    async with running(revocations), asyncio.timeout(5):
        await done.wait()
    assert (await kept(store, "hall")).done
    assert world.fails[act] == []


async def test_one_that_cannot_be_carried_out_stops_no_other(world, store):
    revocations = make(world, store)
    for thing in ("hall", "lamp"):
        await revocations._ask(thing, ANNA, audit.INSIDE, "")
    world.fails[Act.BAR] = [RegistryBusyError("this thing")]
    await revocations.reconcile()
    assert [(await kept(store, thing)).done for thing in ("hall", "lamp")] == [False, True]
    assert revocations.open == 1
    assert world.lists == [["00", "2", "3"]]
    await revocations.reconcile()
    assert (await kept(store, "hall")).done
    assert revocations.open == 0


async def test_a_broken_store_ends_it(world, store):
    revocations = make(world, store)
    world.fails[Act.BAR] = [StoreBrokenError("fsync failed")]
    await revocations._ask("hall", ANNA, audit.INSIDE, "")
    with pytest.raises(StoreBrokenError):
        await revocations.run()


class DeathError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("crash", [Crash.BEFORE_COMMIT, Crash.AFTER_COMMIT])
@pytest.mark.parametrize("commit", [1, 2, 3], ids=["asked", "listed", "done"])
async def test_wherever_it_dies_the_next_run_completes_it(world, store, crash, commit):
    commits = 0
    to_inner = store.commit

    async def commit_or_die(writes):
        nonlocal commits
        commits += 1
        if commits == commit:
            store.crash, store.crash_with = crash, DeathError()
        return await to_inner(writes)

    store.commit = commit_or_die
    revocations = make(world, store)

    async def live():
        await revocations._ask("hall", ANNA, audit.INSIDE, "")
        await revocations.reconcile()

    with pytest.raises(DeathError):
        await live()
    await make(world, store).reconcile()
    if (crash, commit) == (Crash.BEFORE_COMMIT, 1):
        assert world.done == []  # nothing was promised
    else:
        assert (await kept(store, "hall")).done
        assert len(await rows(store, world.clock)) == 2


async def test_a_broker_that_was_added_is_told_everything_and_one_that_is_gone_nothing(world, store):
    old, new = Broker(world, "old"), Broker(world, "new")
    old.sick = True
    first = make(world, store, old)
    await first._ask("hall", ANNA, audit.INSIDE, "")
    await first.reconcile()
    await make(world, store, new).reconcile()
    assert ("kick", "new", "hall") in world.done
    assert (await kept(store, "hall")).stages == {"new": Stage.DONE}


async def test_one_that_is_asked_for_anew_while_it_is_carried_out_is_carried_out_anew(world, store):
    revocations = make(world, store)
    await revocations._ask("hall", ANNA, audit.INSIDE, "")
    ended = Broker.kick

    async def kick(self, thing):
        await ended(self, thing)
        await revocations._ask("hall", ANNA, audit.INSIDE, "again")

    broker = revocations._brokers["one"]
    broker.kick = kick.__get__(broker)
    await revocations.reconcile()
    record = await kept(store, "hall")
    assert (record.reason, record.done) == ("again", False)
    broker.kick = ended.__get__(broker)
    await revocations.reconcile()
    assert (await kept(store, "hall")).done


# ---------------------------------------------------------------------- the list


async def test_the_list_is_written_when_it_is_due_and_brokers_read_it(world, store):
    revocations = make(world, store)
    await revocations.reconcile()
    assert world.done == []
    world.due = True
    await revocations.reconcile()
    assert world.done == [("list", ("00",)), ("reload", "one")]


async def test_a_certificate_that_is_replaced_comes_onto_the_list_and_nobody_is_kicked(world, store):
    revocations = make(world, store)
    world.revoked_serials = ["7"]
    revocations.relist()
    await revocations.reconcile()
    await revocations.reconcile()
    assert world.done == [("list", ("00", "7")), ("reload", "one")]


async def test_a_list_that_could_not_be_written_is_written_next_time(world, store):
    revocations = make(world, store)
    world.fails[Act.LIST] = [OSError(28, "full")]
    revocations.relist()
    with pytest.raises(OSError, match="full"):
        await revocations.reconcile()
    await revocations.reconcile()
    assert world.done == [("list", ("00",)), ("reload", "one")]


async def test_how_long_the_list_lasts_is_known(world):
    list = RevocationList(world, world, world.clock)
    await list.issue()
    world.clock.advance(3_600)
    assert list.left_s == 23 * 3_600


async def test_a_damaged_list_is_due_and_lasts_no_longer(world):
    class Damaged(World):
        @property
        def crl_is_due(self):
            raise DamagedFileError("crl.pem", "is damaged", "")  # type: ignore[arg-type]

        @property
        def crl_next_update(self):
            raise DamagedFileError("crl.pem", "is damaged", "")  # type: ignore[arg-type]

    list = RevocationList(Damaged(), world, world.clock)
    assert list.due
    assert list.left_s == 0
