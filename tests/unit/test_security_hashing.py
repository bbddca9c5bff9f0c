"""Slow hashes: right and wrong ones, what an unknown one costs, and what happens when too many ask."""

import asyncio
from dataclasses import replace

import pytest
from argon2 import PasswordHasher

from security.hashing import FULL, LIGHT, Hashing, HashingBusyError
from security.secret import Secret


@pytest.fixture
def hashing():
    hashing = Hashing(cores=2)
    yield hashing
    hashing.close()


@pytest.mark.parametrize("cost", [LIGHT, FULL])
async def test_the_secret_is_known_again_and_no_other(hashing, cost):
    kept = await hashing.hash(Secret("correct horse"), cost)
    assert kept.startswith(f"$argon2id$v=19$m={cost.memory_kib},t={cost.passes},p={cost.lanes}$")
    assert await hashing.verify(kept, Secret("correct horse"), cost)
    assert not await hashing.verify(kept, Secret("correct horsf"), cost)


async def test_equal_secrets_have_unlike_hashes(hashing):
    assert await hashing.hash(Secret("x"), LIGHT) != await hashing.hash(Secret("x"), LIGHT)


async def test_an_unknown_one_is_hashed_as_well_and_never_matches(hashing, monkeypatch):
    asked = []
    verify = PasswordHasher.verify

    def noted(self, hash, password):
        asked.append(hash)
        return verify(self, hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", noted)
    assert not await hashing.verify(None, Secret(""), LIGHT)
    assert len(asked) == 1
    assert LIGHT.hasher().check_needs_rehash(asked[0]) is False


async def test_a_damaged_hash_matches_nothing(hashing):
    assert not await hashing.verify("$argon2id$nonsense", Secret("x"), LIGHT)


async def test_what_may_not_wait_is_refused_at_once_and_leaves_room_again():
    hashing = Hashing(cores=1, waiting_ms_max=3 * LIGHT.about_ms)
    tries = [asyncio.ensure_future(hashing.hash(Secret("x"), LIGHT)) for _ in range(5)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(result) for result in results] == [str, str, str, HashingBusyError, HashingBusyError]
    assert await hashing.hash(Secret("x"), LIGHT)
    hashing.close()


async def test_a_caller_who_goes_away_still_counts_until_its_work_is_done():
    slow = replace(LIGHT, passes=40)
    hashing = Hashing(cores=1, waiting_ms_max=slow.about_ms)
    gone = asyncio.ensure_future(hashing.hash(Secret("x"), slow))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    with pytest.raises(HashingBusyError):
        await hashing.hash(Secret("x"), slow)
    hashing.close()


async def test_the_loop_goes_on_while_a_hash_is_made(hashing):
    turns = 0
    making = asyncio.ensure_future(hashing.hash(Secret("x"), FULL))
    while not making.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert turns > 3
