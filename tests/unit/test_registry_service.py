"""The registry at work on a store: acts, their audit, what the bridge is told, races and failures."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import Document, InvalidCursorError, StoreUnavailableError, Write
from registry.errors import (
    AttachmentNotFoundError,
    InvalidThingNameError,
    NotAGatewayError,
    PremisesFullError,
    PremisesMismatchError,
    RegistryBusyError,
    ThingExistsError,
    ThingNotFoundError,
    TooManyAttachmentsError,
)
from registry.models import Attachment, NewThing, Standing, Thing, ThingKind
from registry.rules import THINGS_PER_PREMISES_MAX
from registry.service import SAVE_ATTEMPTS_MAX, UNKNOWN, RegistryService
from registry.store import COLLECTIONS, GATEWAYS_PER_THING_MAX
from security import audit
from security.audit import AuditEntry, Via
from security.policy import Principal, Role
from tests.fakes import NOW_MS, FakeClock

ANNA = Principal("anna", Role.OPERATOR)
REQUEST = Via("http", "req-1")
HALL = NewThing("hall", ThingKind.DEVICE, "acme-pct-2", "home-1")
METER = NewThing("meter", ThingKind.GATEWAY, "acme-hub", "home-1")


class Store(MemoryStore):
    """A memory store that counts, fails, and lets others in between when told so."""

    def __init__(self, *, exclusive: bool = True) -> None:
        super().__init__(COLLECTIONS, [audit.LOG])
        self.calls = 0
        self.down = False
        self.loses_replies = False
        self.losses = 0
        self.before_commit: list[Callable[[], Awaitable[object]]] = []
        self.before_get: list[Callable[[], Awaitable[object]]] = []
        self._exclusive = exclusive

    @property
    def exclusive(self) -> bool:
        return self._exclusive

    async def get(self, collection: str, ids: Collection[str]) -> dict[str, Document]:
        self.calls += 1
        if self.down:
            raise StoreUnavailableError("down")
        if self.before_get:
            await self.before_get.pop(0)()
        return await super().get(collection, ids)

    async def find_in(
        self, collection: str, field: str, values: Collection[str | int], *, limit: int
    ) -> list[Document]:
        self.calls += 1
        return await super().find_in(collection, field, values, limit=limit)

    async def commit(self, writes: Sequence[Write]) -> frozenset[int]:
        if self.before_commit:
            await self.before_commit.pop(0)()
        if self.losses:
            self.losses -= 1
            return frozenset(range(len(writes)))
        lost = await super().commit(writes)
        if self.loses_replies:
            raise StoreUnavailableError("the reply was lost")
        return lost


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def registry(store: Store, clock: FakeClock) -> RegistryService:
    return RegistryService(store, clock)


async def home(registry: RegistryService, *devices: str) -> None:
    """Register a gateway ``meter`` and devices at one home."""
    await registry.register(METER, ANNA)
    for name in devices or ("hall",):
        await registry.register(replace(HALL, name=name), ANNA)


async def audited(store: MemoryStore) -> list[AuditEntry]:
    return list((await audit.read(store, 0, NOW_MS * 2, 1_000)).entries)


async def acts(store: MemoryStore) -> list[tuple[str, str]]:
    return sorted((row.action, row.target) for row in await audited(store))


# Things


async def test_a_registered_thing_is_found(registry, clock):
    thing = await registry.register(HALL, ANNA)
    assert thing == Thing("hall", ThingKind.DEVICE, "acme-pct-2", "home-1", True, clock.now_ms())
    assert await registry.thing("hall") == thing


async def test_a_thing_that_is_not_registered_is_not_found(registry):
    with pytest.raises(ThingNotFoundError):
        await registry.thing("hall")


async def test_a_taken_name_is_refused_and_nothing_changes(registry, store):
    before = await registry.register(HALL, ANNA)
    with pytest.raises(ThingExistsError):
        await registry.register(replace(HALL, premises="home-2"), ANNA)
    assert await registry.thing("hall") == before
    assert await acts(store) == [("thing.register", "thing/hall")]


async def test_an_impossible_name_is_refused_before_the_store_is_asked(registry, store):
    with pytest.raises(InvalidThingNameError):
        await registry.register(replace(HALL, name="a/b"), ANNA)
    assert store.calls == 0


async def test_a_removed_thing_is_gone_and_its_name_may_be_used_elsewhere(registry):
    await registry.register(HALL, ANNA)
    await registry.remove("hall", ANNA)
    with pytest.raises(ThingNotFoundError):
        await registry.thing("hall")
    with pytest.raises(ThingNotFoundError):
        await registry.remove("hall", ANNA)
    again = await registry.register(replace(HALL, premises="home-2"), ANNA)
    assert (again.premises, again.registration) == ("home-2", 2)


async def test_a_revoked_thing_stays_registered_and_is_revoked_once(registry, store, clock):
    await registry.register(HALL, ANNA)
    revoked = await registry.revoke("hall", ANNA)
    assert revoked.revoked_at_ms == clock.now_ms()
    clock.advance(60)
    assert await registry.revoke("hall", ANNA) == revoked == await registry.thing("hall")
    assert await acts(store) == [("thing.register", "thing/hall"), ("thing.revoke", "thing/hall")]


async def test_a_suspended_thing_goes_on_when_it_is_let(registry, store, clock):
    thing = await registry.register(HALL, ANNA)
    suspended = await registry.suspend("hall", ANNA, reason="a cloned key")
    assert (suspended.suspended_at_ms, suspended.barred) == (clock.now_ms(), True)
    clock.advance(60)
    assert await registry.suspend("hall", ANNA) == suspended
    assert await registry.resume("hall", ANNA) == thing == await registry.thing("hall")
    assert await registry.resume("hall", ANNA) == thing
    assert await acts(store) == [
        ("thing.register", "thing/hall"), ("thing.resume", "thing/hall"), ("thing.suspend", "thing/hall"),
    ]  # fmt: skip
    page = await audit.read(store, 0, clock.now_ms(), 10)
    assert [row.reason for row in page.entries if row.action == "thing.suspend"] == ["a cloned key"]


async def test_to_let_a_revoked_thing_go_on_does_not_undo_its_revocation(registry):
    await registry.register(HALL, ANNA)
    await registry.suspend("hall", ANNA)
    await registry.revoke("hall", ANNA)
    assert (await registry.resume("hall", ANNA)).barred


async def test_a_thing_that_is_registered_again_is_not_suspended(registry):
    await registry.register(HALL, ANNA)
    await registry.suspend("hall", ANNA)
    await registry.remove("hall", ANNA)
    assert not (await registry.register(HALL, ANNA)).barred


# Pages


async def names(registry: RegistryService, limit: int, **filters: Any) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await registry.things(limit=limit, cursor=cursor, **filters)
        assert len(page.things) <= limit
        found += [thing.name for thing in page.things]
        cursor = page.next
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_every_thing_is_on_exactly_one_page(registry, limit):
    await home(registry, "a", "b", "c")
    await registry.register(replace(METER, name="box", premises="home-2"), ANNA)
    await registry.register(replace(HALL, name="d", premises="home-2"), ANNA)
    await registry.remove("b", ANNA)
    assert sorted(await names(registry, limit)) == ["a", "box", "c", "d", "meter"]
    assert await names(registry, limit, kind=ThingKind.GATEWAY) == ["box", "meter"]
    assert await names(registry, limit, premises="home-2") == ["box", "d"]
    assert await names(registry, limit, premises="home-2", kind=ThingKind.DEVICE) == ["d"]
    assert await names(registry, limit, premises="home-3") == []


async def test_a_cursor_of_another_search_is_refused(registry):
    await home(registry, "a", "b")
    page = await registry.things(limit=1)
    with pytest.raises(InvalidCursorError):
        await registry.things(premises="home-1", limit=1, cursor=page.next)


# Attachments


async def test_an_attached_thing_is_seen_from_both_ends(registry, clock):
    await home(registry)
    pair = await registry.attach("meter", "hall", ANNA)
    assert pair == Attachment("meter", "hall", 1, clock.now_ms())
    assert await registry.gateways_of("hall") == (pair,)
    assert (await registry.attached_to("meter", limit=10)).attachments == (pair,)


async def test_a_thing_may_have_several_gateways(registry):
    await home(registry)
    await registry.register(replace(METER, name="box"), ANNA)
    for gateway in ("meter", "box"):
        await registry.attach(gateway, "hall", ANNA)
    assert [pair.gateway for pair in await registry.gateways_of("hall")] == ["box", "meter"]
    assert (await registry.standings(["hall"]))["hall"].gateways == {"box", "meter"}


async def test_a_detached_thing_is_seen_from_neither_end(registry):
    await home(registry)
    await registry.attach("meter", "hall", ANNA)
    await registry.detach("meter", "hall", ANNA)
    assert await registry.gateways_of("hall") == ()
    assert (await registry.attached_to("meter", limit=10)).attachments == ()
    with pytest.raises(AttachmentNotFoundError):
        await registry.detach("meter", "hall", ANNA)


async def test_attaching_again_raises_the_epoch_and_attaching_twice_does_not(registry, store):
    await home(registry)
    first = await registry.attach("meter", "hall", ANNA)
    assert await registry.attach("meter", "hall", ANNA) == first
    await registry.detach("meter", "hall", ANNA)
    assert (await registry.attach("meter", "hall", ANNA)).epoch == 2
    actions = [row.action for row in await audited(store) if row.target.startswith("attachment/")]
    assert sorted(actions) == ["thing.attach", "thing.attach", "thing.detach"]


@pytest.mark.parametrize(
    ("gateway", "thing", "error"),
    [
        ("meter", "nobody", ThingNotFoundError),
        ("nobody", "hall", ThingNotFoundError),
        ("hall", "meter", NotAGatewayError),
        ("meter", "meter", NotAGatewayError),
        ("elsewhere", "hall", PremisesMismatchError),
    ],
)
async def test_a_refused_attach_changes_nothing(registry, store, gateway, thing, error):
    await home(registry)
    await registry.register(replace(METER, name="elsewhere", premises="home-2"), ANNA)
    before = await acts(store)
    with pytest.raises(error):
        await registry.attach(gateway, thing, ANNA)
    assert await registry.gateways_of("hall") == ()
    assert await acts(store) == before


async def test_a_thing_has_as_many_gateways_as_allowed_and_not_one_more(registry):
    await home(registry)
    for number in range(GATEWAYS_PER_THING_MAX + 1):
        await registry.register(replace(METER, name=f"g{number}"), ANNA)
    for number in range(GATEWAYS_PER_THING_MAX):
        await registry.attach(f"g{number}", "hall", ANNA)
    with pytest.raises(TooManyAttachmentsError, match="detach"):
        await registry.attach(f"g{GATEWAYS_PER_THING_MAX}", "hall", ANNA)
    assert len(await registry.gateways_of("hall")) == GATEWAYS_PER_THING_MAX
    await registry.detach("g0", "hall", ANNA)
    await registry.attach(f"g{GATEWAYS_PER_THING_MAX}", "hall", ANNA)


async def test_a_gateway_speaks_for_as_many_things_as_allowed_and_not_one_more(registry, monkeypatch):
    monkeypatch.setattr("registry.service.THINGS_PER_GATEWAY_MAX", 3)
    await home(registry, "a", "b", "c", "d")
    for name in "abc":
        await registry.attach("meter", name, ANNA)
    with pytest.raises(TooManyAttachmentsError, match="another"):
        await registry.attach("meter", "d", ANNA)


async def test_attached_things_come_page_by_page(registry):
    await home(registry, *"abcde")
    for name in "ebadc":
        await registry.attach("meter", name, ANNA)
    first = await registry.attached_to("meter", 3)
    second = await registry.attached_to("meter", 3, first.next)
    assert [pair.thing for pair in (*first.attachments, *second.attachments)] == list("abcde")
    assert second.next is None


async def test_removing_a_thing_or_a_gateway_ends_its_attachments(registry, store):
    await home(registry, "a", "b")
    await registry.register(replace(METER, name="box"), ANNA)
    for gateway, name in [("meter", "a"), ("meter", "b"), ("box", "a")]:
        await registry.attach(gateway, name, ANNA)
    await registry.remove("a", ANNA)
    assert [pair.thing for pair in (await registry.attached_to("meter", 10)).attachments] == ["b"]
    await registry.remove("meter", ANNA)
    assert await registry.gateways_of("b") == ()
    detached = [row for row in await audited(store) if row.action == "thing.detach"]
    assert sorted(row.target for row in detached) == [
        "attachment/box/a",
        "attachment/meter/a",
        "attachment/meter/b",
    ]
    assert {row.reason for row in detached} == {"removal"}


async def test_a_name_that_comes_back_is_attached_to_nothing_and_its_epoch_goes_on(registry):
    await home(registry)
    await registry.attach("meter", "hall", ANNA)
    await registry.remove("hall", ANNA)
    await registry.register(HALL, ANNA)
    assert await registry.gateways_of("hall") == ()
    assert (await registry.attach("meter", "hall", ANNA)).epoch == 2


# Audit


async def test_every_act_has_one_row_that_says_who_what_and_how(registry, store, clock):
    await registry.register(METER, ANNA)
    await registry.register(HALL, ANNA, REQUEST)
    rows = {row.target: row for row in await audited(store)}
    assert rows["thing/hall"] == AuditEntry(
        id="thing/hall:1",
        at_ms=clock.now_ms(),
        actor="anna",
        role="operator",
        via="http",
        request_id="req-1",
        action="thing.register",
        target="thing/hall",
        version_before=0,
        version_after=1,
    )
    await registry.attach("meter", "hall", ANNA)
    await registry.revoke("hall", ANNA)
    await registry.remove("hall", ANNA)
    await registry.register(HALL, ANNA)
    assert await acts(store) == [
        ("thing.attach", "attachment/meter/hall"),
        ("thing.detach", "attachment/meter/hall"),
        ("thing.register", "thing/hall"),
        ("thing.register", "thing/hall"),
        ("thing.register", "thing/meter"),
        ("thing.remove", "thing/hall"),
        ("thing.revoke", "thing/hall"),
    ]


# Standings


async def test_a_standing_is_unknown_until_it_was_asked_for(registry):
    await home(registry)
    assert registry.standing("hall") is UNKNOWN
    found = await registry.standings(["hall", "nobody"])
    assert list(found) == ["hall"]
    assert registry.standing("hall") == found["hall"]
    assert registry.standing("nobody") is None


async def test_known_standings_do_not_ask_the_store_again(registry, store):
    await home(registry, "a", "b")
    await registry.attach("meter", "a", ANNA)
    first = await registry.standings(["a", "b", "nobody", "meter"])
    store.calls = 0
    assert await registry.standings(["a", "b", "nobody", "meter"]) == first
    assert store.calls == 0


async def test_many_standings_cost_two_questions(registry, store):
    await home(registry, *(f"d{number}" for number in range(50)))
    store.calls = 0
    assert len(await registry.standings([f"d{number}" for number in range(50)])) == 50
    assert store.calls == 3


async def test_more_standings_than_fit_one_question_are_all_found(registry, monkeypatch):
    monkeypatch.setattr("registry.service.STANDINGS_LOADED_MAX", 4)
    everything = [f"d{number}" for number in range(10)]
    await home(registry, *everything)
    await registry.attach("meter", "d9", ANNA)
    found = await registry.standings(everything)
    assert list(found) == everything
    assert found["d9"].gateways == {"meter"}


@pytest.mark.parametrize("act", ["detach", "revoke", "revoke_gateway", "suspend_gateway", "remove"])
async def test_a_standing_is_as_the_last_act_left_it(registry, act):
    async def now():
        return (await registry.standings(["hall"])).get("hall")

    await registry.register(METER, ANNA)
    assert await now() is None
    thing = await registry.register(HALL, ANNA)
    assert await now() == Standing(thing, frozenset())
    await registry.attach("meter", "hall", ANNA)
    assert await now() == Standing(thing, frozenset({"meter"}))
    match act:
        case "detach":
            await registry.detach("meter", "hall", ANNA)
            assert await now() == Standing(thing, frozenset())
        case "revoke":
            revoked = await registry.revoke("hall", ANNA)
            assert await now() == Standing(revoked, frozenset({"meter"}))
        case "revoke_gateway":
            await registry.revoke("meter", ANNA)
            assert await now() == Standing(thing, frozenset())
        case "suspend_gateway":
            await registry.suspend("meter", ANNA)
            assert await now() == Standing(thing, frozenset())
            await registry.resume("meter", ANNA)
            assert await now() == Standing(thing, frozenset({"meter"}))
        case "remove":
            await registry.remove("meter", ANNA)
            assert await now() == Standing(thing, frozenset())
            await registry.remove("hall", ANNA)
            assert await now() is None
        case _:
            raise AssertionError(act)


async def test_beside_other_processes_a_change_of_theirs_is_seen_in_five_seconds(clock):
    store = Store(exclusive=False)
    ours, theirs = RegistryService(store, clock), RegistryService(store, clock)
    await home(ours)
    await ours.attach("meter", "hall", ANNA)
    assert (await ours.standings(["hall"]))["hall"].gateways == {"meter"}
    await theirs.detach("meter", "hall", ANNA)
    clock.advance(5)
    assert ours.standing("hall") is UNKNOWN
    assert (await ours.standings(["hall"]))["hall"].gateways == frozenset()


async def test_a_store_that_is_down_makes_nothing_absent(registry, store):
    await home(registry)
    store.down = True
    with pytest.raises(StoreUnavailableError):
        await registry.standings(["hall"])
    assert registry.standing("hall") is UNKNOWN
    store.down = False
    assert "hall" in await registry.standings(["hall"])


async def test_a_look_up_that_a_write_overtakes_is_not_remembered(registry, store):
    await home(registry)
    await registry.attach("meter", "hall", ANNA)
    # Between the question for the rows and that for the things, somebody detaches.
    store.before_get.append(lambda: registry.detach("meter", "hall", ANNA))
    await registry.standings(["hall"])
    assert registry.standing("hall") is UNKNOWN
    assert (await registry.standings(["hall"]))["hall"].gateways == frozenset()


async def test_a_write_whose_reply_was_lost_leaves_no_standing_behind(registry, store):
    await home(registry)
    await registry.attach("meter", "hall", ANNA)
    await registry.standings(["hall"])
    store.loses_replies = True
    with pytest.raises(StoreUnavailableError):
        await registry.detach("meter", "hall", ANNA)
    with pytest.raises(StoreUnavailableError):
        await registry.revoke("hall", ANNA)
    store.loses_replies = False
    standing = (await registry.standings(["hall"]))["hall"]
    assert standing.gateways == frozenset()
    assert standing.thing.revoked_at_ms is not None


# Listeners


async def test_listeners_hear_of_each_change_once_it_is_durable(registry):
    heard: list[tuple[str, bool]] = []
    await home(registry, "a", "b")
    registry.listeners.append(lambda name: heard.append((name, registry.standing(name) is UNKNOWN)))
    await registry.attach("meter", "a", ANNA)
    await registry.attach("meter", "b", ANNA)
    assert heard == [("a", True), ("b", True)]
    heard.clear()
    await registry.revoke("meter", ANNA)
    assert heard == [("meter", True), ("a", True), ("b", True)]
    heard.clear()
    await registry.remove("meter", ANNA)
    assert heard == [("a", True), ("b", True), ("meter", True)]


async def test_listeners_hear_nothing_of_what_did_not_happen(registry):
    heard: list[str] = []
    await home(registry)
    await registry.attach("meter", "hall", ANNA)
    await registry.revoke("hall", ANNA)
    registry.listeners.append(heard.append)
    await registry.attach("meter", "hall", ANNA)
    await registry.revoke("hall", ANNA)
    with pytest.raises(ThingExistsError):
        await registry.register(HALL, ANNA)
    assert heard == []


# Races


async def test_a_full_home_takes_no_more_until_one_is_removed(registry, store):
    for number in range(THINGS_PER_PREMISES_MAX):
        await registry.register(replace(HALL, name=f"d{number}"), ANNA)
    before = await acts(store)
    with pytest.raises(PremisesFullError):
        await registry.register(HALL, ANNA)
    assert await acts(store) == before
    await registry.register(replace(HALL, premises="home-2"), ANNA)
    await registry.remove("d7", ANNA)
    await registry.register(replace(HALL, name="d7"), ANNA)


async def test_those_who_come_at_once_do_not_fill_a_home_beyond_its_bound(registry):
    tries = [
        registry.register(replace(HALL, name=f"d{number}"), ANNA)
        for number in range(2 * THINGS_PER_PREMISES_MAX)
    ]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    taken = [one.name for one in answers if isinstance(one, Thing)]
    assert {type(one) for one in answers} == {Thing, PremisesFullError}
    page = await registry.things(premises="home-1", limit=1_000)
    assert sorted(thing.name for thing in page.things) == sorted(taken)
    assert len(taken) <= THINGS_PER_PREMISES_MAX


async def test_who_was_overtaken_for_the_last_place_of_a_home_leaves_nothing_behind(registry, store):
    for number in range(THINGS_PER_PREMISES_MAX - 1):
        await registry.register(replace(HALL, name=f"d{number}"), ANNA)
    store.before_commit.append(lambda: registry.register(replace(HALL, name="first"), ANNA))
    with pytest.raises(PremisesFullError):
        await registry.register(HALL, ANNA)
    assert (await registry.thing("first")).premises == "home-1"
    with pytest.raises(ThingNotFoundError):
        await registry.thing("hall")
    assert {("thing.register", "thing/hall"), ("thing.remove", "thing/hall")} <= {*await acts(store)}


async def test_of_two_registrations_at_once_one_wins(registry, store):
    store.before_commit.append(lambda: registry.register(replace(HALL, model="first"), ANNA))
    with pytest.raises(ThingExistsError):
        await registry.register(HALL, ANNA)
    assert (await registry.thing("hall")).model == "first"
    assert await acts(store) == [("thing.register", "thing/hall")]


async def test_of_many_attaches_at_once_one_makes_the_row(registry, store):
    await home(registry)
    pairs = await asyncio.gather(*(registry.attach("meter", "hall", ANNA) for _ in range(10)))
    assert {pair.epoch for pair in pairs} == {1}
    assert (await acts(store)).count(("thing.attach", "attachment/meter/hall")) == 1


async def test_a_lost_race_is_decided_again_on_what_the_winner_left(registry, store):
    await home(registry)
    await registry.attach("meter", "hall", ANNA)
    store.before_commit.append(lambda: registry.detach("meter", "hall", ANNA))
    with pytest.raises(AttachmentNotFoundError):
        await registry.detach("meter", "hall", ANNA)


async def test_who_always_loses_is_told_to_come_again(registry, store):
    await home(registry)
    pair = await registry.attach("meter", "hall", ANNA)
    await registry.detach("meter", "hall", ANNA)
    store.losses = SAVE_ATTEMPTS_MAX
    with pytest.raises(RegistryBusyError, match="try again"):
        await registry.attach("meter", "hall", ANNA)
    store.losses = SAVE_ATTEMPTS_MAX - 1
    assert (await registry.attach("meter", "hall", ANNA)).epoch == pair.epoch + 1


@pytest.mark.parametrize("name", ["hall", "meter"])
async def test_an_attach_that_a_removal_overtakes_never_counts(registry, store, name):
    """The thing goes, and comes back at other premises, between the attach's look and its write."""
    await home(registry)

    async def move() -> None:
        await registry.remove(name, ANNA)
        await registry.register(replace(HALL if name == "hall" else METER, premises="home-2"), ANNA)
        await registry.standings(["hall"])

    store.before_commit.append(move)
    await registry.attach("meter", "hall", ANNA)
    assert (await registry.standings(["hall"]))["hall"].gateways == frozenset()
    assert await registry.gateways_of("hall") == ()
    assert (await registry.attached_to("meter", 10)).attachments == ()
    with pytest.raises(PremisesMismatchError):
        await registry.attach("meter", "hall", ANNA)


async def test_an_attach_during_a_removal_is_swept_up(registry, store):
    """The row is written after the removal has looked for rows and before the thing is gone."""
    await home(registry)

    async def attach_and_ask() -> None:
        await registry.attach("meter", "hall", ANNA)
        assert (await registry.standings(["hall"]))["hall"].gateways == {"meter"}

    store.before_commit.append(attach_and_ask)
    await registry.remove("meter", ANNA)
    assert registry.standing("hall") is UNKNOWN
    assert (await registry.standings(["hall"]))["hall"].gateways == frozenset()
