"""A key serves one purpose; brought for another it is refused, told, and noted on both things."""

import asyncio

import pytest
import structlog

from security.audit import INSIDE
from security.policy import Principal, Role
from security.trust.known_keys import NOTED_MAX, Bringer, KeyKnownError, KnownKeys, Suspicion
from tests.fakes import FakeClock
from tests.trust import audited, open_store

KEY = "ab" * 32
HALL, ATTIC = Bringer("hall", "v1"), Bringer("attic", "v2")
BY = Principal("attic", Role.DEVICE)


@pytest.fixture
def store():
    return open_store()


@pytest.fixture
def keys(store):
    return KnownKeys(store, FakeClock())


async def test_a_new_key_is_let_in_and_may_come_again_for_the_same_purpose(keys, store):
    for _ in range(3):
        await keys.introduce(KEY, HALL, BY, INSIDE)
    assert await audited(store) == []
    assert await keys.suspicion("hall", 1) == Suspicion()


@pytest.mark.parametrize("other", [ATTIC, Bringer("hall", "v2"), Bringer("attic", "v1")])
async def test_for_another_purpose_it_is_refused_and_noted_on_both_things(keys, store, other):
    await keys.introduce(KEY, HALL, BY, INSIDE)
    with structlog.testing.capture_logs() as said, pytest.raises(KeyKnownError):
        await keys.introduce(KEY, other, BY, INSIDE)
    assert [(event["event"], event["log_level"]) for event in said] == [
        ("enrolment_key_seen_before", "error")
    ]
    things = sorted({"hall", other.thing})
    assert [(await keys.suspicion(thing, 1)).count for thing in things] == [1] * len(things)
    assert await audited(store) == [("attic", "thing.suspect", f"suspicion/{thing}") for thing in things]
    assert keys.duplicates.value == 1


async def test_of_many_at_once_one_is_first(keys):
    tries = [keys.introduce(KEY, Bringer(f"t{number}", "v"), BY, INSIDE) for number in range(20)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, KeyKnownError) for result in results) == 19


async def test_what_is_noted_is_bounded(keys):
    await keys.introduce(KEY, HALL, BY, INSIDE)
    for _ in range(NOTED_MAX + 4):
        with pytest.raises(KeyKnownError):
            await keys.introduce(KEY, ATTIC, BY, INSIDE)
    noted = await keys.suspicion("hall", 1)
    assert (noted.count, len(noted.at_ms)) == (NOTED_MAX + 4, NOTED_MAX)


async def test_what_was_noted_of_a_thing_is_not_noted_of_the_next_one_of_its_name(keys):
    await keys.introduce(KEY, HALL, BY, INSIDE)
    with pytest.raises(KeyKnownError):
        await keys.introduce(KEY, ATTIC, BY, INSIDE)
    assert (await keys.suspicion("hall", 1)).count == 1
    assert (await keys.suspicion("hall", 2)).count == 0


async def test_suspicions_of_the_next_thing_of_a_name_begin_anew_and_old_ones_are_not_added(keys):
    other, later = "cd" * 32, Bringer("hall", "v3", registration=2)
    await keys.introduce(KEY, HALL, BY, INSIDE)
    await keys.introduce(other, later, BY, INSIDE)
    for key in (KEY, KEY, other, KEY):
        with pytest.raises(KeyKnownError):
            await keys.introduce(key, ATTIC, BY, INSIDE)
    assert (await keys.suspicion("hall", 2)).count == 1
    assert (await keys.suspicion("attic", 1)).count == 4


async def test_a_key_may_come_again_for_its_purpose_when_the_thing_was_registered_anew(keys):
    await keys.introduce(KEY, HALL, BY, INSIDE)
    await keys.introduce(KEY, Bringer("hall", "v1", registration=2), BY, INSIDE)
