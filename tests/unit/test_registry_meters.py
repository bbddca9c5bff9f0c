"""Meters and accounts: what is kept, and which meter came in place of which."""

import asyncio
from dataclasses import replace

import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import StoreUnavailableError
from registry.accounts import Account, AccountService, AccountStatus
from registry.collections import COLLECTIONS
from registry.errors import (
    AccountNotFoundError,
    InvalidDetailError,
    InvalidPremisesError,
    MeterElsewhereError,
    MeterExchangedError,
    MeterNotFoundError,
)
from registry.meters import Exchange, Meter, MeterService
from security import audit
from security.policy import Principal, Role
from tests.covers import covers
from tests.fakes import NOW_MS, FakeClock
from tests.faulty_store import FaultyStore

CCS = Principal("ccs", Role.CCS)
OLD = Meter(id="m-1", model="amr-1", premises="home-1", installed_at_ms=1)
NEW = Meter(id="m-2", model="amg-4", premises="home-1", technologies=frozenset({"zigbee-se1"}))
NEXT = replace(NEW, id="m-3")


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore(COLLECTIONS, [audit.LOG]))


@pytest.fixture
def meters(store: FaultyStore) -> MeterService:
    return MeterService(store, FakeClock())


async def acts(store: FaultyStore) -> list[tuple[str, str]]:
    return [(row.action, row.target) for row in (await audit.read(store, 0, NOW_MS * 2, 100)).entries]


@covers("S1.4c")
async def test_a_meter_is_kept_and_need_have_no_radio(meters, store):
    for _ in range(2):
        assert await meters.put(OLD, CCS) == OLD
    assert await meters.meter("m-1") == OLD
    assert await meters.at("home-1") == (OLD,)
    assert await acts(store) == [("meter.write", "meter/m-1")]
    with pytest.raises(MeterNotFoundError):
        await meters.meter("m-2")


@covers("3.3/6.3", "X22")
async def test_a_new_meter_takes_the_place_of_the_old_one(meters, store):
    await meters.put(OLD, CCS)
    stands = replace(NEW, installed_at_ms=NOW_MS, came=Exchange("m-1", NOW_MS, "w-1"))
    for at_ms in (NOW_MS, NOW_MS + 1):  # repeated: the first time stays
        assert await meters.exchange("m-1", NEW, CCS, at_ms=at_ms, work_order="w-1") == stands
    assert await meters.at("home-1") == (stands,)
    assert await meters.meter("m-1") == replace(OLD, went=Exchange("m-2", NOW_MS, "w-1"))
    assert await acts(store) == [
        ("meter.write", "meter/m-1"),
        ("meter.exchange", "meter/m-1"),
        ("meter.exchange", "meter/m-2"),
    ]


async def test_an_exchange_that_a_crash_cut_in_two_is_finished_by_the_next_try(meters, store):
    await meters.put(OLD, CCS)

    async def plant() -> None:
        store.before_commit.append(fail)

    async def fail() -> None:
        raise StoreUnavailableError("gone")

    store.before_commit.append(plant)
    with pytest.raises(StoreUnavailableError):
        await meters.exchange("m-1", NEW, CCS, at_ms=NOW_MS)
    assert await meters.at("home-1") == ()
    await meters.exchange("m-1", NEW, CCS, at_ms=NOW_MS + 5)
    assert [one.id for one in await meters.at("home-1")] == ["m-2"]
    assert (await meters.meter("m-2")).came == Exchange("m-1", NOW_MS)


async def test_of_two_new_meters_at_once_one_stands(meters):
    await meters.put(OLD, CCS)
    done = await asyncio.gather(
        *(meters.exchange("m-1", one, CCS, at_ms=NOW_MS) for one in (NEW, NEXT)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in done) == ["Meter", "MeterExchangedError"]
    assert len(await meters.at("home-1")) == 1


async def test_a_meter_may_come_back_and_an_old_exchange_revives_nothing(meters):
    await meters.put(OLD, CCS)
    await meters.exchange("m-1", NEW, CCS, at_ms=NOW_MS)
    await meters.exchange("m-2", NEXT, CCS, at_ms=NOW_MS + 1)
    await meters.exchange("m-1", NEW, CCS, at_ms=NOW_MS + 2)
    assert [one.id for one in await meters.at("home-1")] == ["m-3"]
    await meters.exchange("m-3", OLD, CCS, at_ms=NOW_MS + 3)
    back = await meters.meter("m-1")
    assert (back.came, back.went) == (Exchange("m-3", NOW_MS + 3), None)
    assert await meters.at("home-1") == (back,)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("nobody", NEW, MeterNotFoundError),
        ("m-1", replace(NEW, premises="home-2"), MeterElsewhereError),
        ("m-1", OLD, MeterElsewhereError),
        ("m-1", replace(NEW, id="m-9"), MeterElsewhereError),
        ("m-1", replace(NEW, model="a\nb"), InvalidDetailError),
        ("m-1", replace(NEW, id="a b"), InvalidDetailError),
        ("m-1", replace(NEW, technologies=frozenset(map(str, range(17)))), InvalidDetailError),
        ("m-1", replace(NEW, premises=""), InvalidPremisesError),
    ],
)
async def test_an_exchange_that_can_not_be_so_changes_nothing(meters, store, old, new, error):
    await meters.put(OLD, CCS)
    await meters.put(replace(NEW, id="m-9", premises="home-9"), CCS)
    told = await acts(store)
    with pytest.raises(error):
        await meters.exchange(old, new, CCS, at_ms=NOW_MS)
    assert await acts(store) == told
    assert await meters.at("home-1") == (OLD,)


async def test_a_meter_that_was_taken_out_makes_way_only_once(meters):
    await meters.put(OLD, CCS)
    await meters.exchange("m-1", NEW, CCS, at_ms=NOW_MS)
    with pytest.raises(MeterExchangedError):
        await meters.exchange("m-1", NEXT, CCS, at_ms=NOW_MS)
    await meters.put(replace(OLD, comms_seen_at_ms=5), CCS)
    assert [one.id for one in await meters.at("home-1")] == ["m-2"], "it does not stand there again by that"
    await meters.exchange("m-2", replace(OLD, id="m-4"), CCS, at_ms=NOW_MS)
    other = await meters.put(replace(NEW, id="m-5", premises="home-2"), CCS)
    await meters.exchange(other.id, replace(OLD, premises="home-2"), CCS, at_ms=NOW_MS)
    assert [one.id for one in await meters.at("home-2")] == ["m-1"], "mended, and put in elsewhere"


async def test_an_account_is_kept_without_a_word_about_its_customer(store):
    accounts = AccountService(store, FakeClock())
    account = Account(id="a-1", customer="c-1", tariff="tou-res")
    for _ in range(2):
        assert await accounts.put(account, CCS) == account
    closed = await accounts.put(replace(account, status=AccountStatus.CLOSED), CCS)
    assert await accounts.account("a-1") == closed
    assert await accounts.accounts(["a-1", "a-2"]) == {"a-1": closed}
    assert await acts(store) == [("account.write", "account/a-1")] * 2
    with pytest.raises(AccountNotFoundError):
        await accounts.account("a-2")
    for bad in (
        replace(account, id="a b"),
        replace(account, tariff="x\n"),
        replace(account, customer="x" * 129),
    ):
        with pytest.raises(InvalidDetailError):
            await accounts.put(bad, CCS)
