"""The first steps of a call: search, verification, work orders, remedies; bounded and audited."""

import asyncio
from dataclasses import replace

import pytest

from infra.documents.memory import MemoryStore
from provisioning.care import CareAccount, CareCustomer, SearchBy
from provisioning.desk import SEARCHES, Desk
from provisioning.errors import (
    CredentialLockedError,
    CustomerNotFoundError,
    IdempotencyMismatchError,
    InvalidRequestError,
    TooManySearchesError,
    WorkOrderNotFoundError,
)
from provisioning.learning import Learning
from provisioning.remedies import Remedy, RemedyKind, built_in, fitting
from provisioning.session import Cause
from provisioning.tries import LOCK_MS, TRIES_MAX, Tries, locked_until_ms
from provisioning.verifications import (
    LIFE_MS,
    LIVE_MAX,
    VERIFICATIONS,
    NewVerification,
    Outcome,
    Verifications,
)
from registry.accounts import Account, AccountService
from registry.collections import COLLECTIONS
from registry.gateways import GatewayKind
from registry.service import RegistryService
from security import audit
from security.audit import Decision
from security.policy import Principal, Role
from tests.covers import covers
from tests.fakes import NOW_MS, FakeClock
from tests.homes import route
from tests.provisioning_rig import ACCOUNT, OPERATOR, PREMISES, ROSA, World

RUTH = Principal("rosalind", Role.REP)
HOUSE = CareAccount(ACCOUNT, "4711", "res", "active", PREMISES, "Elm Street 7")
GRACE = CareCustomer("cu-7", "Grace Example", "en", "555 0107", "g@example.com", (HOUSE,))


class FakeCare:
    """A care system that knows Grace."""

    async def search(self, by, value, limit):
        return (GRACE,) if value == HOUSE.number else ()

    async def customer(self, ref):
        return GRACE if ref == GRACE.ref else None

    async def deliver(self, item):
        raise NotImplementedError

    async def close(self):
        pass


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store():
    return MemoryStore([SEARCHES, VERIFICATIONS, *COLLECTIONS], [audit.LOG])


@pytest.fixture
def desk(store, clock):
    verifications = Verifications(store, clock)
    learning = Learning(AccountService(store, clock), RegistryService(store, clock))
    return Desk(
        store,
        clock,
        care=FakeCare(),
        verifications=verifications,
        learning=learning,
        searches_hour_max=3,
    )


@covers("3.2/4", "3.2/5", "X1")
async def test_a_search_needs_a_case_and_shows_no_more_than_is_needed_to_choose(desk, world):
    with pytest.raises(InvalidRequestError):
        await desk.search(SearchBy.ACCOUNT, "4711", "", world.ask())
    (found,) = await desk.search(SearchBy.ACCOUNT, "4711", "c-1", world.ask())
    assert found.ref == "cu-7"
    assert "Grace" not in str(found)
    assert "Elm" not in str(found)
    with pytest.raises(CustomerNotFoundError):
        await desk.search(SearchBy.ACCOUNT, "0815", "c-1", world.ask())


async def test_nobody_searches_for_more_customers_than_can_call(desk, world, clock, store):
    for _ in range(3):
        await desk.search(SearchBy.ACCOUNT, "4711", "c-1", world.ask())
        clock.advance(60)
    with pytest.raises(TooManySearchesError) as refused:
        await desk.search(SearchBy.ACCOUNT, "4711", "c-1", world.ask())
    assert refused.value.retry_s == 3_420
    clock.advance(refused.value.retry_s)
    await desk.search(SearchBy.ACCOUNT, "4711", "c-1", world.ask())
    rows = (await audit.read(store, 0, 2**62, 100)).entries
    assert [(row.action, row.reason) for row in rows] == [("customer.find", "c-1")] * 4
    assert all(row.decision is Decision.ALLOWED for row in rows)


@covers("3.2/5", "X2")
async def test_a_verification_opens_the_accounts_that_the_care_system_names(desk, world, clock):
    ask = world.ask()
    made, accounts = await desk.verify("cu-7", "pin", Outcome.PASSED, "c-1", ask)
    assert (made.accounts, made.expires_at_ms) == ((ACCOUNT,), NOW_MS + 1_800_000)
    assert accounts == (HOUSE,)
    assert (await desk.verify("cu-7", "pin", Outcome.PASSED, "c-1", ask))[0].id == made.id
    with pytest.raises(IdempotencyMismatchError):
        await desk.verify("cu-7", "pin", Outcome.PASSED, "c-1", replace(ask, digest="other"))
    clock.advance(3_600)
    with pytest.raises(CustomerNotFoundError):
        await desk.verify("cu-8", "pin", Outcome.PASSED, "c-1", world.ask())
    with pytest.raises(InvalidRequestError):
        await desk.verify("cu-7", "what is your cat called?", Outcome.PASSED, "c-1", world.ask())


async def test_who_guesses_references_of_customers_is_stopped_and_seen_like_who_guesses_numbers(
    desk, world, store
):
    for guess in ("cu-1", "cu-2", "cu-3"):
        with pytest.raises(CustomerNotFoundError):
            await desk.verify(guess, "pin", Outcome.PASSED, "c-1", world.ask())
    with pytest.raises(TooManySearchesError):
        await desk.verify("cu-7", "pin", Outcome.PASSED, "c-1", world.ask())
    assert await AccountService(store, FakeClock()).accounts([ACCOUNT]) == {}
    rows = (await audit.read(store, 0, 2**62, 100)).entries
    assert [(row.action, row.target) for row in rows] == [("customer.find", "verifications/rosa")] * 3


async def test_reach_is_what_lives_however_much_was_verified_before(clock, world):
    verifications = Verifications(MemoryStore([VERIFICATIONS], [audit.LOG]), clock)
    old = NewVerification(customer="cu-1", accounts=("ac-1",), method="pin", outcome=Outcome.PASSED, case="c")
    for _ in range(LIVE_MAX):
        await verifications.record(old, world.ask())
    clock.advance(LIFE_MS / 1_000)
    await verifications.record(replace(old, accounts=("ac-2",)), world.ask())
    await verifications.record(replace(old, accounts=("ac-3",), outcome=Outcome.FAILED), world.ask())
    await verifications.record(replace(old, accounts=("ac-4",)), replace(world.ask(), by=RUTH))
    assert await verifications.reach_of(ROSA) == {"ac-2"}


async def test_what_is_learned_of_a_customer_is_what_programs_ask_for_and_no_word_of_theirs(
    desk, world, clock, store
):
    accounts, registry = AccountService(store, clock), RegistryService(store, clock)
    assert (await desk.verify("cu-7", "pin", Outcome.FAILED, "c-1", world.ask()))[1] == ()
    assert await accounts.accounts([ACCOUNT]) == {}
    await desk.verify("cu-7", "pin", Outcome.PASSED, "c-1", world.ask())
    assert await accounts.account(ACCOUNT) == Account(id=ACCOUNT, customer="cu-7", tariff="res")
    assert (await registry.premises(PREMISES)).account == ACCOUNT


async def test_premises_that_somebody_has_left_are_not_given_back_by_a_telephone_call(
    desk, world, clock, store
):
    registry = RegistryService(store, clock)
    await registry.hand_over(PREMISES, ACCOUNT, OPERATOR)
    await registry.hand_over(PREMISES, "", OPERATOR)
    await desk.verify("cu-7", "pin", Outcome.PASSED, "c-1", world.ask())
    assert (await registry.premises(PREMISES)).account == ""
    await registry.hand_over(PREMISES, "ac-0008", OPERATOR)
    await desk.verify("cu-7", "pin", Outcome.PASSED, "c-1", world.ask())
    assert (await registry.premises(PREMISES)).account == "ac-0008"


async def test_a_work_order_that_is_closed_stays_closed(world):
    async with world.process() as one:
        await one.settle_in()
        order = await one.work_orders.open(PREMISES, "ivo", world.ask(OPERATOR))
        closed = await one.work_orders.close(order.id, world.ask(OPERATOR))
        world.clock.advance(60)
        assert await one.work_orders.close(order.id, world.ask(OPERATOR)) == closed
        with pytest.raises(WorkOrderNotFoundError):
            await one.work_orders.close("wo-none", world.ask(OPERATOR))


def test_five_codes_in_a_quarter_of_an_hour_lock_a_device_for_an_hour():
    minutes = [NOW_MS + minute * 60_000 for minute in (0, 3, 6, 9, 14)]
    locked = Tries(tuple(minutes))
    assert locked_until_ms(locked, minutes[-1]) == minutes[-1] + LOCK_MS
    assert locked_until_ms(locked, minutes[-1] + LOCK_MS) == 0
    slow = Tries((*minutes[:-1], NOW_MS + 15 * 60_000))
    assert locked_until_ms(slow, NOW_MS + 15 * 60_000) == 0
    assert locked_until_ms(Tries(), minutes[-1]) == 0


async def test_of_several_devices_none_is_counted_where_one_is_locked(world):
    async with world.process() as one:
        for _ in range(TRIES_MAX):
            await one.tries.take(["A"])
        for _ in range(TRIES_MAX):
            with pytest.raises(CredentialLockedError):
                await one.tries.take(["B", "A"])
        await one.tries.take(["B"])


async def test_of_those_who_try_at_the_same_time_no_more_than_five_may(world):
    async with world.process() as one, world.process() as other:
        tries = (one.tries.take(["A"]) for one in (one, other) * 10)
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert outcomes.count(None) == TRIES_MAX
        assert {type(outcome) for outcome in outcomes} == {type(None), CredentialLockedError}


async def test_tries_that_mean_nothing_any_more_are_forgotten(world):
    async with world.process() as one:
        await one.tries.take(["A", "B"])
        world.clock.advance(1)
        await one.tries.take(["B"])
        world.clock.advance(LOCK_MS / 1_000 - 1)
        assert await one.tries.sweep() == 1
        world.clock.advance(1)
        assert await one.tries.sweep() == 1


# ---------------------------------------------------------------------------- remedies


def kinds(cause, *routes, wanted=()):
    return [one.remedy.id for one in fitting(cause, routes, wanted, built_in())]


@covers("3.3/6.2")
def test_only_what_fits_is_offered_the_cheapest_first_and_what_cannot_be_had_last():
    assert kinds(Cause.NO_HAN_ROUTE) == [
        "bridge-zigbee", "bridge-homeplug", "broadband-gateway", "new-meter", "bridge-zwave",
    ]  # fmt: skip
    assert kinds(Cause.WRONG_TECHNOLOGY, route(), wanted={"zwave"}) == ["replace-device", "bridge-zwave"]
    assert kinds(Cause.UNKNOWN_MODEL, route()) == ["replace-device"]
    everything = route(technologies=frozenset({"zigbee-se1", "zigbee-se2", "homeplug", "zwave", "wifi"}))
    assert kinds(Cause.NOTHING_SEEN, everything) == ["replace-device"]


def test_a_route_that_did_not_come_up_may_be_put_in_the_place_of():
    meter = route(technologies=frozenset({"zigbee-se1", "zigbee-se2"}), kind=GatewayKind.METER)
    assert "new-meter" in kinds(Cause.HAN_NOT_READY, meter)


def test_the_remedies_that_come_with_the_software_are_well_formed():
    assert {one.kind for one in built_in()} == set(RemedyKind)
    assert all(isinstance(one, Remedy) and len(one.currency) == 3 for one in built_in())
