"""What was issued: found by every name it has, ended once and for good, told to the revocation list."""

import asyncio
from dataclasses import replace

import pytest

from gnomon.revocations import Recorded
from security.audit import INSIDE
from security.policy import Principal, Role
from security.trust.issued import (
    CACHE_S,
    CHANGE_ATTEMPTS_MAX,
    OF_THING_MAX,
    CertificateBusyError,
    IssuedState,
    IssuedStore,
)
from tests.fakes import FakeClock
from tests.trust import SECURITY, audited, open_authority, open_store, sign

HALL = Principal("hall", Role.DEVICE)
DAY_S = 86_400


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def authority(tmp_path, clock):
    return open_authority(tmp_path, clock)


@pytest.fixture
def store():
    return open_store()


@pytest.fixture
def issued(store, clock):
    return IssuedStore(store, clock)


async def test_a_certificate_is_found_by_serial_thing_and_both_short_names(issued, authority):
    made = sign(authority, "hall")
    record = await issued.record(made, "hall", HALL)
    assert await issued.by_serial(made.serial) == record
    assert await issued.of_thing("hall") == (record,)
    assert await issued.by_lfdi(made.lfdi) == record
    assert await issued.by_sfdi(made.sfdi) == (record,)
    assert (record.state, record.thing, record.spki) == (IssuedState.ACTIVE, "hall", made.spki_sha256)
    assert await issued.by_serial("0" * 32) is None
    assert await issued.by_lfdi("0" * 40) is None


async def test_each_pair_of_short_names_a_thing_ever_had_finds_it(issued, authority, clock):
    first, second = sign(authority, "hall"), sign(authority, "hall")
    await issued.record(first, "hall", HALL)
    clock.advance(1)
    await issued.record(second, "hall", HALL)
    await issued.revoke([first.serial], "superseded", SECURITY)
    for made in (first, second):
        found = await issued.by_lfdi(made.lfdi)
        assert found is not None
        assert found.thing == "hall"
    assert [record.serial for record in await issued.of_thing("hall")] == [second.serial, first.serial]


async def test_everything_of_a_thing_is_revoked_however_much_it_has(issued, authority):
    made = sign(authority, "hall")
    count = OF_THING_MAX + 2
    for number in range(count):
        await issued.record(replace(made, serial=f"{number:032x}"), "hall", HALL)
    assert len(await issued.not_revoked("hall")) == count
    await Recorded(issued).revoke_all("hall", "removed", SECURITY, INSIDE)
    assert await issued.not_revoked("hall") == ()
    last = await issued.by_serial(f"{count - 1:032x}", fresh=True)
    assert last is not None
    assert (last.state, last.reason) == (IssuedState.REVOKED, "removed")


async def test_issuing_and_revoking_leave_one_audit_row_each(issued, authority, store):
    made = sign(authority, "hall")
    await issued.record(made, "hall", HALL, INSIDE, "ada")
    await issued.record(made, "hall", HALL, INSIDE, "ada")
    await issued.revoke([made.serial], "key_compromise", SECURITY)
    await issued.revoke([made.serial], "key_compromise", SECURITY)
    target = f"certificate/hall/{made.serial}"
    assert await audited(store) == [
        ("hall", "certificate.issue", target),
        ("sam", "certificate.revoke", target),
    ]


async def test_the_first_revocation_stays_the_date_and_the_graver_reason_wins(issued, authority, clock):
    made = sign(authority, "hall")
    await issued.record(made, "hall", HALL)
    (first,) = await issued.revoke([made.serial], "superseded", SECURITY)
    clock.advance(60)
    (second,) = await issued.revoke([made.serial], "key_compromise", SECURITY)
    (third,) = await issued.revoke([made.serial], "superseded", SECURITY)
    assert (first.reason, second.reason, third.reason) == ("superseded", "key_compromise", "key_compromise")
    assert first.at == second.at == third.at
    record = await issued.by_serial(made.serial)
    assert record is not None
    assert record.state is IssuedState.REVOKED
    assert await issued.revoke(["0" * 32], "key_compromise", SECURITY) == ()


async def test_the_list_holds_what_is_revoked_until_it_would_have_expired(issued, authority, clock):
    made = [sign(authority, f"t{number}") for number in range(3)]
    for one in made:
        await issued.record(one, "t", HALL)
    await issued.revoke([one.serial for one in made[:2]], "key_compromise", SECURITY)
    first, cursor = await issued.revoked(limit=1)
    rest, end = await issued.revoked(limit=10, cursor=cursor)
    assert {row.serial for row in (*first, *rest)} == {one.serial for one in made[:2]}
    assert end is None
    assert {row.issuer for row in first} == {made[0].issuer}
    clock.advance(366 * DAY_S)
    assert await issued.revoked() == ((), None)


async def test_what_is_good_ends_with_its_life_or_its_revocation(issued, authority, clock):
    made = sign(authority, "hall")
    record = await issued.record(made, "hall", HALL)
    assert record.is_good(clock.now_ms())
    assert not record.is_good(record.not_after_ms)
    assert not record.is_good(record.not_before_ms - 1)
    await issued.revoke([made.serial], "key_compromise", SECURITY)
    ended = await issued.by_serial(made.serial)
    assert ended is not None
    assert not ended.is_good(clock.now_ms())


async def test_a_revocation_by_another_process_is_seen_within_five_seconds(issued, authority, store, clock):
    made = sign(authority, "hall")
    await issued.record(made, "hall", HALL)
    await issued.by_serial(made.serial)
    await IssuedStore(store, clock).revoke([made.serial], "key_compromise", SECURITY)
    believed, fresh = await issued.by_serial(made.serial), await issued.by_serial(made.serial, fresh=True)
    assert believed is not None
    assert fresh is not None
    assert believed.is_good(clock.now_ms())
    assert not fresh.is_good(clock.now_ms())
    clock.advance(CACHE_S)
    seen = await issued.by_serial(made.serial)
    assert seen is not None
    assert not seen.is_good(clock.now_ms())


async def test_a_certificate_that_was_unknown_is_known_once_it_is_recorded(issued, authority):
    made = sign(authority, "hall")
    assert await issued.by_serial(made.serial) is None
    await issued.record(made, "hall", HALL)
    assert await issued.by_serial(made.serial) is not None


async def test_the_old_certificate_ends_when_its_time_comes_and_not_before(issued, authority, clock):
    old, new = sign(authority, "hall"), sign(authority, "hall")
    await issued.record(old, "hall", HALL)
    due_ms = clock.now_ms() + DAY_S * 1_000
    await issued.record(new, "hall", HALL, supersedes=(old.serial,), supersedes_at_ms=due_ms)
    clock.advance(DAY_S - 1)
    assert await issued.supersede_due(SECURITY) == 0
    clock.advance(1)
    assert await issued.supersede_due(SECURITY) == 1
    assert await issued.supersede_due(SECURITY) == 0
    ended, successor = await issued.by_serial(old.serial), await issued.by_serial(new.serial)
    assert ended is not None
    assert successor is not None
    assert (ended.state, successor.state) == (IssuedState.SUPERSEDED, IssuedState.ACTIVE)


async def test_one_that_others_keep_changing_keeps_no_other_from_its_end(
    issued, authority, clock, monkeypatch
):
    old = [sign(authority, "hall") for _ in range(2)]
    new = [sign(authority, "hall") for _ in range(2)]
    for before, after in zip(old, new, strict=True):
        await issued.record(before, "hall", HALL)
        await issued.record(after, "hall", HALL, supersedes=(before.serial,), supersedes_at_ms=clock.now_ms())
    busy = [old[0].serial]
    revoke = issued.revoke

    async def revoke_or_lose(serials, *rest, **more):
        if busy == [*serials]:
            busy.clear()
            raise CertificateBusyError
        return await revoke(serials, *rest, **more)

    monkeypatch.setattr(issued, "revoke", revoke_or_lose)
    assert await issued.supersede_due(SECURITY) == 1
    assert await issued.supersede_due(SECURITY) == 1
    assert {(await issued.by_serial(one.serial)).state for one in old} == {IssuedState.SUPERSEDED}


async def test_changes_at_once_are_all_made(issued, authority):
    made = sign(authority, "hall")
    await issued.record(made, "hall", HALL)
    add = [
        issued.change(made.serial, lambda record: replace(record, renewal=record.renewal + "x"))
        for _ in range(CHANGE_ATTEMPTS_MAX)
    ]
    await asyncio.gather(*add)
    record = await issued.by_serial(made.serial)
    assert record is not None
    assert record.renewal == "x" * CHANGE_ATTEMPTS_MAX


async def test_one_that_others_keep_changing_is_given_up(issued, authority, store, monkeypatch):
    made = sign(authority, "hall")
    await issued.record(made, "hall", HALL)

    async def lose(writes):
        return frozenset(range(len(writes)))

    monkeypatch.setattr(store, "commit", lose)
    with pytest.raises(CertificateBusyError):
        await issued.revoke([made.serial], "key_compromise", SECURITY)
