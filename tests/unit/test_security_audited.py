"""A change of a record and its row in the audit trail are one write, whoever else is at it."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import Collection
from infra.documents.records import SAVE_ATTEMPTS_MAX, Records
from security import audit
from security.audit import Via
from security.audited import Audited, RecordBusyError
from security.policy import Principal, Role
from tests.fakes import NOW_MS, FakeClock
from tests.faulty_store import FaultyStore

ANNA = Principal("anna", Role.OPERATOR)


@dataclass(frozen=True, slots=True)
class Jar:
    sweets: int = 0
    words: frozenset[str] = frozenset()


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore([Collection("jars", ("sweets",))], [audit.LOG]))


@pytest.fixture
def records(store: FaultyStore) -> Records[Jar]:
    return Records(store, "jars", Jar, lambda jar: {"sweets": jar.sweets})


@pytest.fixture
def jars(records: Records[Jar]) -> Audited[Jar]:
    return Audited(records, FakeClock(), "jar")


def one_more(before: Jar | None) -> Jar:
    return Jar(1) if before is None else replace(before, sweets=before.sweets + 1)


async def rows(store: FaultyStore) -> list[audit.AuditEntry]:
    return list((await audit.read(store, 0, NOW_MS * 2, 100)).entries)


async def test_a_change_has_its_row_and_what_changes_nothing_has_none(jars, records, store):
    await jars.change("j-1", one_more, "jar.fill", ANNA, Via("http", "r-1"), reason="hungry")
    await jars.change("j-1", lambda before: before, "jar.fill", ANNA)
    [row] = await rows(store)
    assert (row.actor, row.action, row.target, row.reason) == ("anna", "jar.fill", "jar/j-1", "hungry")
    assert (row.version_before, row.version_after, row.request_id) == (0, 1, "r-1")
    kept = await records.load("j-1")
    assert kept is not None
    assert (kept.record, kept.revision) == (Jar(1), 1)


async def test_a_lost_race_is_decided_again_and_nothing_is_lost(jars, records, store):
    await asyncio.gather(*(jars.change("j-1", one_more, "jar.fill", ANNA) for _ in range(3)))
    store.before_commit.append(lambda: jars.change("j-1", one_more, "jar.fill", ANNA))
    await jars.change("j-1", one_more, "jar.fill", ANNA)
    assert (await records.load_all(["j-1", "j-2"])) == {"j-1": Jar(5)}
    assert sorted(row.version_after or 0 for row in await rows(store)) == [1, 2, 3, 4, 5]


async def test_who_always_loses_is_told_to_come_again(jars, records, store, monkeypatch):
    put, losses = records.put, [False] * SAVE_ATTEMPTS_MAX

    async def lose(*record: Any) -> bool:
        return losses.pop() if losses else await put(*record)

    monkeypatch.setattr(records, "put", lose)
    with pytest.raises(RecordBusyError, match="this jar is being changed by others"):
        await jars.change("j-1", one_more, "jar.fill", ANNA)
    assert await rows(store) == []
    losses += [False] * (SAVE_ATTEMPTS_MAX - 1)
    assert await jars.change("j-1", one_more, "jar.fill", ANNA) == Jar(1)


async def test_a_rule_that_refuses_leaves_all_as_it_was(jars, records, store):
    def never(_before: Jar | None) -> Jar:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await jars.change("j-1", never, "jar.fill", ANNA)
    assert await records.load("j-1") is None
    assert await rows(store) == []


async def test_records_are_found_by_several_values_and_their_bytes_do_not_depend_on_chance(records, store):
    words = frozenset(f"w{number}" for number in range(20))
    for number in range(4):
        await records.put(f"j-{number}", Jar(number, words), 0)
    assert {jar.sweets for jar in await records.load_by("sweets", [1, 3, 9], 10)} == {1, 3}
    body = (await store.get("jars", ["j-1"]))["j-1"].body
    assert body == b'{"sweets":1,"words":[%s]}' % b",".join(b'"%s"' % word.encode() for word in sorted(words))
