"""Limits on tries: five for a code, twenty a minute for an address, and never more tables than bounded."""

import asyncio

import pytest
import structlog

from security.hashing import FULL, LIGHT
from security.tries import MINUTE_S, TRIES_PER_ADDRESS_MAX, TooManyTriesError
from security.trust.tries import (
    CEILINGS,
    FAILURES_ALARM,
    HOUR_S,
    LOCK_S,
    WAITING_MAX,
    WRONG_MAX,
    WRONG_WITHIN_S,
    Tries,
)
from tests.fakes import FakeClock, numbered


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def tries(clock):
    return Tries(clock)


async def wrong(tries, code, address="a"):
    tries.arrive(address)
    async with tries.attempt(code, LIGHT):
        tries.wrong(code)


async def right(tries, code, address="a", cost=LIGHT):
    tries.arrive(address)
    async with tries.attempt(code, cost):
        pass


async def test_five_wrong_tries_lock_a_code_for_an_hour_and_no_other(tries, clock):
    for _ in range(WRONG_MAX):
        await wrong(tries, "c1")
    with pytest.raises(TooManyTriesError) as refused:
        await right(tries, "c1")
    assert refused.value.retry_s == LOCK_S
    await right(tries, "c2")
    clock.advance(LOCK_S - 1)
    with pytest.raises(TooManyTriesError):
        await right(tries, "c1")
    clock.advance(1)
    await right(tries, "c1")


async def test_wrong_tries_are_forgotten_after_a_quarter_of_an_hour(tries, clock):
    for _ in range(WRONG_MAX - 1):
        await wrong(tries, "c1")
    clock.advance(WRONG_WITHIN_S)
    for _ in range(WRONG_MAX - 1):
        await wrong(tries, "c1")
    await right(tries, "c1")


async def test_of_wrong_tries_at_once_five_are_looked_at(tries):
    looked_at = []

    async def guess(number):
        async with tries.attempt("c1", LIGHT):
            looked_at.append(number)
            await asyncio.sleep(0)
            tries.wrong("c1")

    results = await asyncio.gather(*(guess(n) for n in range(100)), return_exceptions=True)
    assert len(looked_at) == WRONG_MAX
    assert sum(isinstance(result, TooManyTriesError) for result in results) == 100 - WRONG_MAX


async def test_right_tries_at_once_are_all_looked_at_one_after_the_other(tries):
    inside = most = 0

    async def use():
        nonlocal inside, most
        async with tries.attempt("c1", LIGHT):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(use() for _ in range(100)))
    assert most == 1
    assert tries._turns == {}


async def test_more_than_may_wait_for_one_code_are_refused(tries):
    held = asyncio.Event()

    async def use():
        async with tries.attempt("c1", LIGHT):
            await held.wait()

    waiting = [asyncio.ensure_future(use()) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyTriesError):
        await right(tries, "c1", "late")
    held.set()
    await asyncio.gather(*waiting)
    await right(tries, "c1", "late")


async def test_an_address_has_twenty_tries_a_minute_right_or_wrong(tries, clock):
    for number in range(TRIES_PER_ADDRESS_MAX):
        await right(tries, f"c{number}")
    with pytest.raises(TooManyTriesError):
        await right(tries, "c")
    await right(tries, "c", "192.0.2.2")
    clock.advance(MINUTE_S)
    await right(tries, "c")


@pytest.mark.parametrize(("cost", "other"), [(FULL, LIGHT), (LIGHT, FULL)], ids=["labels", "vouchers"])
async def test_everybody_together_has_a_ceiling_that_leaves_the_other_kind_alone(tries, clock, cost, other):
    for number in range(CEILINGS[cost]):
        await right(tries, "c", numbered(number), cost)
    with pytest.raises(TooManyTriesError):
        await right(tries, "c", "b", cost)
    await right(tries, "c", "b", other)
    clock.advance(MINUTE_S)
    await right(tries, "c", "b", cost)


async def fail(tries, times, since=0):
    for number in range(since, since + times):
        await wrong(tries, f"c{number}", numbered(number))


async def test_fifty_failures_in_an_hour_are_told_once(tries, clock):
    with structlog.testing.capture_logs() as said:
        await fail(tries, FAILURES_ALARM - 1)
        assert said == []
        await fail(tries, 1, FAILURES_ALARM)
        await fail(tries, FAILURES_ALARM - 1, 100)
    assert [event["event"] for event in said] == ["enrolment_guessing"]
    assert tries.alarms.value == 1
    clock.advance(HOUR_S + 1)
    await fail(tries, FAILURES_ALARM - 1, 300)
    assert tries.alarms.value == 1


async def test_no_table_grows_above_its_bound(tries, monkeypatch):
    monkeypatch.setattr("security.tries.KEYS_MAX", 50)
    await fail(tries, 200)
    assert (len(tries._codes), len(tries._addresses)) == (50, 50)
    for number in range(60):
        for time in range(WRONG_MAX):
            await wrong(tries, f"l{number}", numbered(300 * time + number))
    assert len(tries._locked) == 50


async def test_who_has_one_address_of_ipv6_has_the_whole_network(tries):
    for number in range(TRIES_PER_ADDRESS_MAX):
        await right(tries, f"c{number}", f"2001:db8::{number + 1:x}")
    with pytest.raises(TooManyTriesError):
        await right(tries, "c", "2001:db8::ffff")
    await right(tries, "c", "2001:db8:0:1::1")
