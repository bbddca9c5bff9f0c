"""Audit rows: one for an act, one for a flood of equal refusals, and all of them found again."""

from collections.abc import Sequence

import msgspec
import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import Collection, Entry, StoreUnavailableError, Write
from security import audit
from security.audit import (
    ACTOR_ROWS_MAX,
    INSIDE,
    OTHERS,
    REFUSALS_FOLDED_MAX,
    TARGETS_MAX,
    TEXT_CHARS_MAX,
    AuditEntry,
    Decision,
    Refusals,
    Via,
)
from security.policy import Principal, Role
from tests.fakes import NOW_MS, FakeClock, SeededIds

ANNA = Principal("anna", Role.OPERATOR)
HALL = Principal("hall", Role.DEVICE)
SYSTEM = Principal("system", Role.SYSTEM)
REQUEST = Via("http", "req-1")
END_MS = NOW_MS + 10**9


class FlakyStore(MemoryStore):
    """A store that is down when told so."""

    def __init__(self) -> None:
        super().__init__([Collection("things")], [audit.LOG])
        self.down = False
        self.appends = 0

    async def append(self, entries: Sequence[Entry]) -> None:
        if self.down:
            raise StoreUnavailableError("down")
        self.appends += 1
        await super().append(entries)


def act(version: int = 3, *, at_ms: int = NOW_MS) -> AuditEntry:
    return audit.act(
        ANNA, REQUEST, "thing.register", "thing/hall", at_ms=at_ms, before=version - 1, after=version
    )


async def rows(store: MemoryStore) -> list[AuditEntry]:
    return list((await audit.read(store, 0, END_MS, 1_000)).entries)


def refusals(store: MemoryStore, clock: FakeClock, seed: int = 0) -> Refusals:
    return Refusals(store, clock, SeededIds(seed))


def note(refused: Refusals, times: int = 1, target: str = "shadow/attic", by: Principal = HALL) -> None:
    for _ in range(times):
        refused.note(by, Via("mqtt"), "shadow.update", target, "not attached")


# Acts


async def test_an_act_is_read_back_as_it_was_written():
    store = FlakyStore()
    await store.append([audit.entry(act(), 3, life=0)])
    (row,) = await rows(store)
    assert row == AuditEntry(
        id="thing/hall:3",
        at_ms=NOW_MS,
        actor="anna",
        role="operator",
        via="http",
        request_id="req-1",
        action="thing.register",
        target="thing/hall",
        decision=Decision.ALLOWED,
        version_before=2,
        version_after=3,
    )


def test_an_act_has_its_place_in_the_log_by_target_and_version():
    entry = audit.entry(act(), 3, life=0)
    assert (entry.log, entry.key, entry.number, entry.at_ms) == ("audit", "thing/hall", 3, NOW_MS)
    assert audit.entry(act(), 3, life=0) == entry


async def test_a_repeated_commit_writes_one_row():
    store = FlakyStore()
    write = Write("things", "hall", 0, b"{}", entries=(audit.entry(act(1), 1, life=0),))
    assert not await store.commit([write])
    assert await store.commit([write])
    await store.append(write.entries)
    assert len(await rows(store)) == 1


async def test_the_rows_of_a_removed_target_survive_a_successor_with_the_same_numbers():
    store = FlakyStore()
    await store.append([audit.entry(act(1), 1, life=NOW_MS)])
    later_ms = NOW_MS + 5_000
    await store.append([audit.entry(act(1, at_ms=later_ms), 1, life=later_ms)])
    assert [row.at_ms for row in await rows(store)] == [NOW_MS, later_ms]


def test_a_row_is_json_with_the_members_of_the_specification():
    written = msgspec.json.decode(audit.entry(act(), 3, life=0).body)
    assert set(written) == {
        "id", "at_ms", "actor", "role", "via", "action", "target", "decision", "reason", "cause",
        "request_id", "version_before", "version_after", "sha256", "count",
    }  # fmt: skip


def test_a_row_says_on_whose_behalf_and_what_was_sent():
    sent = Via("http", "req-1", "ab" * 32)
    row = audit.act(
        SYSTEM, sent, "certificate.revoke", "certificate/1", at_ms=1, before=0, after=1, cause="p-7"
    )
    assert (row.actor, row.cause, row.sha256) == ("system", "p-7", "ab" * 32)


def test_a_long_or_odd_reason_makes_no_row_that_a_store_cannot_keep():
    row = audit.act(ANNA, REQUEST, "a", "b", at_ms=1, before=0, after=1, reason="\0" + "x" * 10_000)
    assert row.reason == "?" + "x" * (TEXT_CHARS_MAX - 1)


# Reading


async def test_rows_are_read_by_time_both_ends_included_page_by_page():
    store = FlakyStore()
    await store.append([audit.entry(act(n, at_ms=NOW_MS + n), n, life=0) for n in range(1, 8)])
    first = await audit.read(store, NOW_MS + 2, NOW_MS + 6, 3)
    assert [row.version_after for row in first.entries] == [2, 3, 4]
    second = await audit.read(store, NOW_MS + 2, NOW_MS + 6, 3, first.next)
    assert [row.version_after for row in second.entries] == [5, 6]
    assert second.next is None


# Refusals


async def test_equal_refusals_of_a_minute_are_one_row_with_a_count():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    note(refused, 1_000)
    await refused.flush()
    (row,) = await rows(store)
    assert (row.actor, row.role, row.action, row.target) == (
        "hall",
        "device",
        "shadow.update",
        "shadow/attic",
    )
    assert (row.decision, row.reason, row.count, row.at_ms) == (
        Decision.REFUSED,
        "not attached",
        1_000,
        NOW_MS,
    )


async def test_a_later_flush_raises_the_count_of_the_same_row():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    note(refused, 2)
    await refused.flush()
    clock.advance(5)
    note(refused, 3)
    await refused.flush()
    assert [row.count for row in await rows(store)] == [5]


async def test_the_next_minute_begins_a_new_row():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    note(refused, 2)
    clock.advance(60)
    note(refused, 3)
    await refused.flush()
    assert [row.count for row in await rows(store)] == [2, 3]


@pytest.mark.parametrize(
    "other",
    [
        (ANNA, "shadow.update", "shadow/attic"),
        (HALL, "shadow.delete", "shadow/attic"),
        (HALL, "shadow.update", "shadow/cellar"),
    ],
    ids=["actor", "action", "target"],
)
async def test_refusals_that_differ_are_told_apart(other):
    store = FlakyStore()
    refused = refusals(store, FakeClock())
    note(refused)
    by, action, target = other
    refused.note(by, INSIDE, action, target, "no")
    await refused.flush()
    assert sorted(row.count for row in await rows(store)) == [1, 1]


async def test_nothing_new_writes_nothing():
    store = FlakyStore()
    refused = refusals(store, FakeClock())
    await refused.flush()
    note(refused)
    await refused.flush()
    await refused.flush()
    assert store.appends == 1


async def test_two_writers_do_not_write_over_each_other():
    store, clock = FlakyStore(), FakeClock()
    for seed in (1, 2):
        refused = refusals(store, clock, seed)
        note(refused, 2)
        await refused.flush()
    assert [row.count for row in await rows(store)] == [2, 2]


async def test_a_store_that_is_down_loses_no_count():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    store.down = True
    note(refused, 2)
    with pytest.raises(StoreUnavailableError):
        await refused.flush()
    clock.advance(120)
    note(refused, 1)
    store.down = False
    await refused.flush()
    assert [row.count for row in await rows(store)] == [2, 1]


async def test_what_is_counted_while_a_flush_is_under_way_is_written_by_the_next():
    clock = FakeClock()

    class Slow(FlakyStore):
        async def append(self, entries: Sequence[Entry]) -> None:
            if not self.appends:
                note(refused)
            await super().append(entries)

    store = Slow()
    refused = refusals(store, clock)
    note(refused)
    await refused.flush()
    clock.advance(60)
    await refused.flush()
    assert [row.count for row in await rows(store)] == [2]


async def test_of_a_flood_of_targets_a_few_are_named_and_the_rest_is_counted():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    for number in range(5_000):
        note(refused, target=f"shadow/{number}")
    note(refused, target="shadow/0")
    await refused.flush()
    counts = {row.target: row.count for row in await read_all(store)}
    assert len(counts) == TARGETS_MAX + 1
    assert counts[OTHERS] == 5_000 - TARGETS_MAX
    assert counts["shadow/0"] == 2


async def test_flushes_in_between_give_no_more_room_for_targets():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    for number in range(100):
        note(refused, target=f"shadow/{number}")
        await refused.flush()
    assert len(await read_all(store)) == TARGETS_MAX + 1


async def test_the_actions_of_a_flood_are_bounded_for_each_actor():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    for number in range(1_000):
        refused.note(HALL, INSIDE, f"action.{number}", "x", "no")
    await refused.flush()
    found = await read_all(store)
    assert len(found) == ACTOR_ROWS_MAX + 1
    (rest,) = [row for row in found if row.target == OTHERS]
    assert (rest.actor, rest.action, rest.count) == ("hall", OTHERS, 1_000 - ACTOR_ROWS_MAX)


async def test_nobodys_flood_takes_the_place_of_anybody_else():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    for number in range(100_000):
        refused.note(HALL, INSIDE, f"action.{number % 500}", f"thing/{number}", "no")
    refused.note(ANNA, INSIDE, "thing.remove", "thing/hall", "no")
    await refused.flush()
    (annas,) = [row for row in await read_all(store) if row.actor == "anna"]
    assert (annas.action, annas.target, annas.count) == ("thing.remove", "thing/hall", 1)


async def test_where_the_table_is_full_everybody_is_still_named():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    for number in range(REFUSALS_FOLDED_MAX + 50):
        refused.note(Principal(f"rogue-{number}", Role.DEVICE), INSIDE, "shadow.get", "shadow/x", "no")
    for _ in range(3):
        refused.note(ANNA, INSIDE, "thing.remove", "thing/hall", "no")
    await refused.flush()
    found = await read_all(store)
    assert len({row.actor for row in found}) == REFUSALS_FOLDED_MAX + 51
    (annas,) = [row for row in found if row.actor == "anna"]
    assert (annas.action, annas.target, annas.count) == (OTHERS, OTHERS, 3)


async def test_even_actors_without_end_stay_bounded_and_are_counted(monkeypatch):
    monkeypatch.setattr(audit, "REFUSALS_FOLDED_MAX", 10)
    monkeypatch.setattr(audit, "ACTORS_MAX", 5)
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    for number in range(100):
        refused.note(Principal(f"rogue-{number}", Role.DEVICE), INSIDE, "shadow.get", "shadow/x", "no")
    assert len(refused._folded) == 10 + 5 + 1
    await refused.flush()
    assert {row.actor: row.count for row in await read_all(store)}[OTHERS] == 85


async def test_a_flood_while_the_store_is_down_stays_bounded():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    store.down = True
    for minute in range(30):
        for number in range(100):
            note(refused, target=f"shadow/{minute}/{number}")
        with pytest.raises(StoreUnavailableError):
            await refused.flush()
        clock.advance(60)
    assert len(refused._folded) == ACTOR_ROWS_MAX + 1
    store.down = False
    await refused.flush()
    assert sum(row.count for row in await read_all(store)) == 3_000
    assert refused._folded == {}
    note(refused, target="shadow/again")
    await refused.flush()
    assert "shadow/again" in {row.target for row in await read_all(store)}


async def test_a_flood_in_two_minutes_writes_no_row_over_another():
    store, clock = FlakyStore(), FakeClock()
    refused = refusals(store, clock)
    for minute in range(2):
        for number in range(TARGETS_MAX + 10):
            note(refused, target=f"shadow/{minute}/{number}")
        for number in range(ACTOR_ROWS_MAX):
            refused.note(HALL, INSIDE, f"action.{number}", "x", "no")
        await refused.flush()
        clock.advance(60)
        await refused.flush()
    found = [row for row in await read_all(store) if row.target == OTHERS]
    assert sorted((row.action, row.count) for row in found) == sorted(
        [(OTHERS, TARGETS_MAX + 1), ("shadow.update", 10)] * 2
    )


@pytest.mark.parametrize(
    "odd",
    ["\ud800", "x" * 10_000, "\N{GREEK SMALL LETTER OMEGA}" * 10_000, "\n\0", "a/b\udfff"],
    ids=["surrogate", "long", "wide", "nul", "end"],
)
async def test_odd_texts_from_outside_do_not_hold_up_the_rest(odd: str):
    store = FlakyStore()
    refused = refusals(store, FakeClock())
    refused.note(Principal(odd, Role.DEVICE), Via(odd, odd), odd, odd, odd)
    note(refused)
    await refused.flush()
    written = await rows(store)
    assert len(written) == 2
    assert all(len(row.target) <= TEXT_CHARS_MAX for row in written)


async def read_all(store: MemoryStore) -> list[AuditEntry]:
    found: list[AuditEntry] = []
    cursor: str | None = None
    while True:
        page = await audit.read(store, 0, END_MS, 1_000, cursor)
        found += page.entries
        cursor = page.next
        if cursor is None:
            return found
