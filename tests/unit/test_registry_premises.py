"""Premises and what they belong to: ownership, the facts for the permission table, who is shown what."""

import asyncio
from dataclasses import replace

import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import InvalidCursorError, StoreUnavailableError
from registry import listing, rules
from registry.errors import (
    InvalidAccountError,
    InvalidDetailError,
    InvalidPremisesError,
    PremisesNotFoundError,
    ThingNotFoundError,
)
from registry.models import Location, NewThing, Owner, Premises, Thing, ThingKind
from registry.service import UNKNOWN, RegistryService
from registry.store import COLLECTIONS
from security import audit
from security.policy import Principal, Role, Target
from tests.covers import covers
from tests.fakes import NOW_MS, FakeClock

CCS = Principal("ccs", Role.CCS)
OFFICER = Principal("olga", Role.SECURITY)
ANNA = Principal("anna", Role.CUSTOMER, "a-1")
BEN = Principal("ben", Role.CUSTOMER, "a-2")
REP = Principal("rita", Role.REP, reach=frozenset({"a-1"}))
INSTALLER = Principal("ines", Role.INSTALLER, reach=frozenset({"home-2"}))
OPERATOR = Principal("otto", Role.OPERATOR)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(COLLECTIONS, [audit.LOG])


@pytest.fixture
def registry(store: MemoryStore, clock: FakeClock) -> RegistryService:
    return RegistryService(store, clock)


async def at(registry: RegistryService, premises: str, *names: str, owner: Owner = Owner.CUSTOMER) -> None:
    for name in names:
        await registry.register(NewThing(name, ThingKind.DEVICE, "m", premises, owner=owner), OFFICER)


async def seen(registry: RegistryService, reader: Principal, limit: int = 100, **by: object) -> list[str]:
    """Return all that somebody sees, page after page."""
    names: list[str] = []
    cursor: str | None = None
    for _ in range(100):
        fields = {"premises": None, "kind": None} | by
        page = await registry.listing.page(reader, limit=limit, cursor=cursor, **fields)  # type: ignore[arg-type]
        assert len(page.things) <= limit
        names += [thing.name for thing in page.things]
        cursor = page.next
        if cursor is None:
            return names
    raise AssertionError("the list has no end")


async def test_premises_belong_to_an_account_and_change_hands(registry, clock):
    first = await registry.hand_over("home-1", "a-1", CCS)
    assert first == Premises("home-1", "a-1", 1, NOW_MS)
    clock.advance(60)
    assert await registry.hand_over("home-1", "a-1", CCS) == first, "what stays the same is no new ownership"
    second = await registry.hand_over("home-1", "a-2", CCS)
    assert second == Premises("home-1", "a-2", 2, NOW_MS + 60_000)
    assert await registry.premises("home-1") == second
    empty = await registry.hand_over("home-1", "", CCS)
    assert (empty.account, empty.epoch) == ("", 3)
    again = await registry.hand_over("home-1", "a-2", CCS)
    assert again.since_ms > empty.since_ms, "who comes back sees nothing of before either"


async def test_each_change_of_hands_is_audited_once_and_names_no_account(registry, store):
    for account in ("a-1", "a-1", "a-2"):
        await registry.hand_over("home-1", account, CCS)
    rows = (await audit.read(store, 0, NOW_MS * 2, 100)).entries
    assert [(row.action, row.target, row.version_after) for row in rows] == [
        ("premises.write", "premises/home-1", 1),
        ("premises.write", "premises/home-1", 2),
    ]
    assert not any("a-1" in repr(row) for row in rows)


async def test_premises_that_nobody_put_there_are_not_found(registry):
    with pytest.raises(PremisesNotFoundError):
        await registry.premises("home-1")
    assert await registry.place("home-1") == Target(premises="home-1")


@pytest.mark.parametrize("id", ["", "a b", "x" * 129, "a/b", "a.b", "$ne"])
async def test_what_cannot_be_an_id_is_refused(registry, id):
    with pytest.raises(InvalidPremisesError):
        await registry.hand_over(id, "a-1", CCS)
    if id:
        with pytest.raises(InvalidAccountError):
            await registry.hand_over("home-1", id, CCS)


async def test_the_facts_of_a_thing_are_those_of_its_premises_now(registry, clock):
    await at(registry, "home-1", "hall")
    await at(registry, "home-1", "meter", owner=Owner.UTILITY)
    assert (await registry.targets(["hall"]))["hall"] == Target(
        "hall", premises="home-1", customers=True, liftable=True
    )
    for account in ("a-1", "a-2"):
        clock.advance(60)
        since_ms = (await registry.hand_over("home-1", account, CCS)).since_ms
        facts = Target(
            "hall", frozenset(), account, "home-1", customers=True, liftable=True, since_ms=since_ms
        )
        assert await registry.targets(["hall", "meter", "nobody"]) == {
            "hall": facts,
            "meter": replace(facts, thing="meter", enrolled=True, customers=False),
        }


async def test_who_listens_hears_of_every_thing_of_premises_that_change_hands(registry):
    await at(registry, "home-1", "hall", "attic")
    await at(registry, "home-2", "other")
    await registry.targets(["hall", "attic", "other"])
    heard: list[tuple[str, bool]] = []
    registry.listeners.append(lambda name: heard.append((name, registry.standing(name) is UNKNOWN)))
    await registry.hand_over("home-1", "a-1", CCS)
    assert sorted(heard) == [("attic", True), ("hall", True)]
    assert registry.standing("other") is not UNKNOWN


async def test_a_change_of_hands_that_may_have_reached_the_disk_leaves_nothing_known(
    registry, store, monkeypatch
):
    await at(registry, "home-1", "hall")
    await registry.targets(["hall"])

    async def down(*_: object, **__: object) -> object:
        raise StoreUnavailableError("down")

    commit = store.commit

    async def reply_lost(writes: object) -> object:
        await commit(writes)
        monkeypatch.setattr(store, "find", down)
        raise StoreUnavailableError("the reply was lost")

    monkeypatch.setattr(store, "commit", reply_lost)
    with pytest.raises(StoreUnavailableError):
        await registry.hand_over("home-1", "a-1", CCS)
    assert registry.standing("hall") is UNKNOWN
    assert (await registry.targets(["hall"]))["hall"].account == "a-1"


async def test_a_thing_that_is_there_one_of_others_and_none_cost_the_same_look_ups(
    registry, store, monkeypatch
):
    await at(registry, "home-1", "hall")
    await at(registry, "home-2", "foreign")
    await registry.hand_over("home-1", "a-1", CCS)
    asked: list[tuple[str, str]] = []
    for method in ("get", "find", "find_in"):
        original = getattr(store, method)

        def count(collection: str, *rest: object, _of=original, _as=method, **more: object) -> object:
            asked.append((_as, collection))
            return _of(collection, *rest, **more)

        monkeypatch.setattr(store, method, count)
    costs = []
    for name in ("hall", "foreign", "nobody"):
        for _ in range(2):
            asked.clear()
            await registry.targets([name])
            costs.append(list(asked))
    assert costs[0] == costs[2] == costs[4] != []
    assert costs[1] == costs[3] == costs[5] == []


# Lists


@pytest.fixture
async def city(registry: RegistryService) -> RegistryService:
    """Return a registry with three homes of two accounts, in which the utility owns the meters."""
    for number, account in enumerate(("a-1", "a-2", "a-1"), 1):
        await registry.hand_over(f"home-{number}", account, CCS)
        await at(registry, f"home-{number}", f"lamp-{number}", f"oven-{number}")
        await at(registry, f"home-{number}", f"meter-{number}", owner=Owner.UTILITY)
    await at(registry, "home-9", "lamp-9")
    return registry


AT_1, AT_2, AT_3 = ([f"lamp-{n}", f"meter-{n}", f"oven-{n}"] for n in (1, 2, 3))


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
@pytest.mark.parametrize(
    ("reader", "names"),
    [
        (ANNA, AT_1 + AT_3),
        (BEN, AT_2),
        (Principal("carl", Role.CUSTOMER, "a-3"), []),
        (Principal("none", Role.CUSTOMER), []),
        (REP, AT_1 + AT_3),
        (replace(REP, reach=frozenset()), []),
        (INSTALLER, AT_2),
        (replace(INSTALLER, reach=frozenset({"home-1", "home-2", "nowhere"})), AT_1 + AT_2),
        (OPERATOR, ["meter-1", "meter-2", "meter-3"]),
        (Principal("v", Role.VEN, "a-2"), AT_2),
        (OFFICER, []),
        (Principal("a", Role.AUDITOR), []),
        (Principal("lamp-1", Role.DEVICE), []),
    ],
)
async def test_everybody_sees_what_is_theirs_over_pages_of_any_length(city, reader, names, limit):
    assert sorted(await seen(city, reader, limit)) == sorted(names)


async def test_a_search_by_premises_finds_nothing_at_those_of_others(city):
    assert await seen(city, ANNA, premises="home-1") == AT_1
    for elsewhere in ("home-2", "home-9", "nowhere"):
        assert await seen(city, ANNA, premises=elsewhere) == []
    assert await seen(city, INSTALLER, premises="home-1") == []
    assert await seen(city, OPERATOR, premises="home-1") == ["meter-1"]
    assert await seen(city, OPERATOR, premises="home-9") == []


async def test_a_search_by_kind_stays_within_what_is_theirs(city):
    await city.register(NewThing("gw", ThingKind.GATEWAY, "m", "home-1"), OFFICER)
    await city.register(NewThing("gw-u", ThingKind.GATEWAY, "m", "home-2", owner=Owner.UTILITY), OFFICER)
    assert await seen(city, ANNA, kind=ThingKind.GATEWAY) == ["gw"]
    assert await seen(city, OPERATOR, kind=ThingKind.GATEWAY) == ["gw-u"]
    assert await seen(city, OPERATOR, kind=ThingKind.DEVICE) == ["meter-1", "meter-2", "meter-3"]


async def test_after_a_move_the_old_owner_sees_nothing_and_the_new_one_all(city):
    await city.hand_over("home-1", "a-2", CCS)
    assert await seen(city, ANNA) == AT_3
    assert sorted(await seen(city, BEN)) == sorted(AT_1 + AT_2)


@pytest.mark.parametrize("cursor", ["", "x", "home-2.", "home-2.abc", ".", "nowhere."])
async def test_a_cursor_that_leads_elsewhere_is_refused_whether_or_not_there_is_such_a_place(city, cursor):
    with pytest.raises(InvalidCursorError):
        await city.listing.page(ANNA, premises=None, kind=None, limit=5, cursor=cursor)


async def test_many_empty_homes_cost_one_page_a_bounded_number_of_searches(registry, monkeypatch):
    monkeypatch.setattr(listing, "SEARCHES_MAX", 3)
    for number in range(10):
        await registry.hand_over(f"home-{number}", "a-1", CCS)
    await at(registry, "home-9", "lamp")
    page = await registry.listing.page(ANNA, premises=None, kind=None, limit=5, cursor=None)
    assert (page.things, page.next is not None) == ((), True)
    assert await seen(registry, ANNA) == ["lamp"]


def test_what_the_utility_owns_is_enrolled():
    thing = Thing("x", ThingKind.DEVICE, "m", "home-1", True, 0)
    assert not rules.enrolled(thing)
    assert rules.enrolled(replace(thing, owner=Owner.UTILITY))


# Where premises lie, who works there, and what of a customer's takes part


async def test_premises_are_known_by_where_they_lie_before_they_are_anybodys(registry, store):
    described = Premises("home-1", "", 1, NOW_MS, "north", "f-7", "sp-1")
    for _ in range(2):
        assert await registry.describe_premises("home-1", Location("north", "f-7", "sp-1"), CCS) == described
    owned = await registry.hand_over("home-1", "a-1", CCS)
    assert owned == replace(described, account="a-1", epoch=2, since_ms=owned.since_ms)
    moved = await registry.describe_premises("home-1", Location("south", "f-8", "sp-1", "Europe/Berlin"), CCS)
    assert moved == replace(owned, zone="south", feeder="f-8", time_zone="Europe/Berlin"), (
        "whose they are stays"
    )
    rows = (await audit.read(store, 0, NOW_MS * 2, 100)).entries
    assert [row.version_after for row in rows if row.target == "premises/home-1"] == [1, 2, 3]


@pytest.mark.parametrize(
    "at",
    [
        Location("x" * 129),
        Location("a\nb"),
        Location(time_zone="Mars/Base"),
        Location(time_zone="Europe"),
        Location(time_zone="../../etc/passwd"),
        Location(time_zone="\ud800"),
        Location(time_zone="x" * 65),
    ],
    ids=str,
)
async def test_what_is_said_of_a_place_is_bounded(registry, at):
    with pytest.raises(InvalidDetailError):
        await registry.describe_premises("home-1", at, CCS)
    with pytest.raises(PremisesNotFoundError):
        await registry.premises("home-1")


def finished(*sessions: str):
    async def is_finished(session: str) -> bool:
        return session in sessions

    return is_finished


@covers("3.2/6")
async def test_one_session_works_at_premises_and_the_other_hears_which(registry, store):
    await registry.hand_over("home-1", "a-1", CCS)
    told = await audit.read(store, 0, NOW_MS * 2, 100)
    assert await registry.take_session("home-1", "s-1", finished()) == "s-1"
    assert await registry.take_session("home-1", "s-2", finished()) == "s-1"
    assert await registry.take_session("home-1", "s-1", finished()) == "s-1", "who has it may ask again"
    assert (await registry.premises("home-1")).open_session == "s-1"
    assert await audit.read(store, 0, NOW_MS * 2, 100) == told, "the session's own document tells"


@covers("3.2/6")
async def test_of_many_openers_at_once_one_works(registry):
    await registry.hand_over("home-1", "a-1", CCS)
    names = [f"s-{number}" for number in range(8)]
    winners = await asyncio.gather(*(registry.take_session("home-1", name, finished()) for name in names))
    assert len(set(winners)) == 1
    assert winners[0] == (await registry.premises("home-1")).open_session


async def test_a_session_that_is_over_holds_nobody_up(registry):
    await registry.hand_over("home-1", "a-1", CCS)
    await registry.take_session("home-1", "s-1", finished())
    assert await registry.take_session("home-1", "s-2", finished("s-1")) == "s-2"
    await registry.release_session("home-1", "s-1")
    assert (await registry.premises("home-1")).open_session == "s-2", "only one's own"
    await registry.release_session("home-1", "s-2")
    assert (await registry.premises("home-1")).open_session == ""
    await registry.release_session("nowhere", "s-2")


async def test_nobody_works_where_nothing_is_known(registry):
    with pytest.raises(PremisesNotFoundError):
        await registry.take_session("home-1", "s-1", finished())


async def test_a_lock_survives_a_change_of_hands(registry):
    await registry.hand_over("home-1", "a-1", CCS)
    await registry.take_session("home-1", "s-1", finished())
    assert (await registry.hand_over("home-1", "a-2", CCS)).open_session == "s-1"


@covers("S1.4e")
async def test_what_a_customer_lets_take_part_is_seen_by_the_utility_until_it_does_no_more(registry, store):
    await at(registry, "home-1", "hall", "attic")
    assert await seen(registry, OPERATOR) == []
    for _ in range(2):
        assert (await registry.set_taking_part("hall", True, CCS)).taking_part
    assert await seen(registry, OPERATOR) == ["hall"]
    assert await seen(registry, OPERATOR, premises="home-1") == ["hall"]
    assert (await registry.targets(["hall", "attic"]))["hall"].enrolled
    await registry.set_taking_part("hall", False, CCS)
    assert await seen(registry, OPERATOR) == []
    assert not (await registry.targets(["hall"]))["hall"].enrolled
    acts = (await audit.read(store, 0, NOW_MS * 2, 100)).entries
    assert [row.action for row in acts if row.target == "thing/hall"] == [
        "thing.register",
        "thing.take_part",
        "thing.take_part",
    ]
    with pytest.raises(ThingNotFoundError):
        await registry.set_taking_part("nobody", True, CCS)


async def test_a_name_that_is_registered_again_takes_part_in_nothing(registry):
    await at(registry, "home-1", "hall")
    await registry.set_taking_part("hall", True, CCS)
    await registry.remove("hall", OFFICER)
    await at(registry, "home-1", "hall")
    assert not (await registry.thing("hall")).taking_part
