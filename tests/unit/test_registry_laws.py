"""Whatever is done in whatever order: what must always hold of the registry."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.documents.memory import MemoryStore
from registry.errors import RegistryError
from registry.models import NewThing, Standing, ThingKind
from registry.service import RegistryService, Unknown
from registry.store import COLLECTIONS
from security import audit
from security.policy import Principal, Role
from tests.fakes import NOW_MS, FakeClock

ANNA = Principal("anna", Role.OPERATOR)
GATEWAYS, DEVICES, HOMES = ("g1", "g2"), ("d1", "d2", "d3"), ("home-1", "home-2")
NAMES = GATEWAYS + DEVICES

names, homes = st.sampled_from(NAMES), st.sampled_from(HOMES)
steps = st.one_of(
    st.tuples(st.just("register"), names, homes),
    st.tuples(st.just("remove"), names, st.none()),
    st.tuples(st.just("revoke"), names, st.none()),
    st.tuples(st.just("attach"), st.sampled_from(GATEWAYS), names),
    st.tuples(st.just("detach"), st.sampled_from(GATEWAYS), names),
    st.tuples(st.just("ask"), names, st.none()),
)
Step = tuple[str, str, str | None]


@dataclass
class Model:
    """The registry as a few dictionaries, without caring how it is kept."""

    homes: dict[str, str] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    pairs: set[tuple[str, str]] = field(default_factory=set)
    epochs: dict[tuple[str, str], int] = field(default_factory=dict)
    acts: int = 0

    def act(self, step: Step) -> bool:
        """Carry a step out and return whether it should succeed."""
        what, first, second = step
        match what:
            case "register":
                if first in self.homes:
                    return False
                self.homes[first] = second or ""
            case "remove" | "revoke" if first not in self.homes:
                return False
            case "remove":
                del self.homes[first]
                self.revoked.discard(first)
                gone = {pair for pair in self.pairs if first in pair}
                self.pairs -= gone
                self.acts += len(gone)
            case "revoke":
                if first in self.revoked:
                    return True
                self.revoked.add(first)
            case "attach":
                pair = (first, second or "")
                if first == second or not set(pair) <= set(self.homes):
                    return False
                if self.homes[first] != self.homes[pair[1]]:
                    return False
                if pair in self.pairs:
                    return True
                self.pairs.add(pair)
                self.epochs[pair] = self.epochs.get(pair, 0) + 1
            case "detach":
                if (first, second) not in self.pairs:
                    return False
                self.pairs.remove((first, second or ""))
            case _:
                return True
        self.acts += 1
        return True


def deed(registry: RegistryService, step: Step) -> Awaitable[object]:
    what, first, second = step
    kind = ThingKind.GATEWAY if first in GATEWAYS else ThingKind.DEVICE
    deeds: dict[str, Callable[[], Awaitable[object]]] = {
        "register": lambda: registry.register(NewThing(first, kind, "m", second or ""), ANNA),
        "remove": lambda: registry.remove(first, ANNA),
        "revoke": lambda: registry.revoke(first, ANNA),
        "attach": lambda: registry.attach(first, second or "", ANNA),
        "detach": lambda: registry.detach(first, second or "", ANNA),
        "ask": lambda: registry.standings([first]),
    }
    return deeds[what]()


async def succeeds(registry: RegistryService, step: Step) -> bool:
    try:
        await deed(registry, step)
    except RegistryError:
        return False
    return True


async def check(registry: RegistryService, store: MemoryStore, model: Model) -> None:
    standings: dict[str, Standing] = await registry.standings(NAMES)
    assert {name: one.thing.premises for name, one in standings.items()} == model.homes
    assert {name for name, one in standings.items() if one.thing.revoked_at_ms} == model.revoked
    for name, standing in standings.items():
        able = {gateway for gateway, thing in model.pairs if thing == name} - model.revoked
        assert standing.gateways == able
        assert all(model.homes[gateway] == standing.thing.premises for gateway in able)
    # A registry that remembers nothing says the same.
    assert await RegistryService(store, FakeClock()).standings(NAMES) == standings
    rows = {(row.gateway, row.thing): row.epoch for name in NAMES for row in await registry.gateways_of(name)}
    assert rows == {pair: model.epochs[pair] for pair in model.pairs}
    for gateway in GATEWAYS:
        page = await registry.attached_to(gateway, limit=100)
        assert {(gateway, row.thing) for row in page.attachments} == {
            pair for pair in model.pairs if pair[0] == gateway
        }
    assert {thing.name for thing in (await registry.things(limit=100)).things} == set(model.homes)
    assert len((await audit.read(store, 0, NOW_MS * 2, 1_000)).entries) == model.acts


async def replay(plan: list[Step]) -> None:
    store = MemoryStore(COLLECTIONS, [audit.LOG])
    registry, model = RegistryService(store, FakeClock()), Model()
    for step in plan:
        assert await succeeds(registry, step) is model.act(step), step
        # What is still believed after the step must be what a fresh look-up finds.
        believed = {name: registry.standing(name) for name in NAMES}
        truth = await RegistryService(store, FakeClock()).standings(NAMES)
        for name, standing in believed.items():
            assert isinstance(standing, Unknown) or standing == truth.get(name)
    await check(registry, store, model)


@given(st.lists(steps, max_size=40))
@settings(deadline=None, max_examples=150)
def test_any_sequence_of_acts_leaves_what_a_simple_model_says(plan: list[Step]):
    asyncio.run(replay(plan))


@given(st.lists(steps, min_size=2, max_size=12))
@settings(deadline=None, max_examples=150)
def test_acts_at_the_same_time_leave_nothing_across_premises_and_no_stale_standing(plan: list[Step]):
    asyncio.run(race(plan))


class YieldingStore(MemoryStore):
    """Lets everybody else in before and after each question, as a real store does."""

    async def get(self, *arguments, **named):
        await asyncio.sleep(0)
        found = await super().get(*arguments, **named)
        await asyncio.sleep(0)
        return found

    async def find_in(self, *arguments, **named):
        await asyncio.sleep(0)
        found = await super().find_in(*arguments, **named)
        await asyncio.sleep(0)
        return found

    async def commit(self, *arguments, **named):
        await asyncio.sleep(0)
        lost = await super().commit(*arguments, **named)
        await asyncio.sleep(0)
        return lost


async def race(plan: list[Step]) -> None:
    store = YieldingStore(COLLECTIONS, [audit.LOG])
    registry = RegistryService(store, FakeClock())
    for name in NAMES:
        await deed(registry, ("register", name, HOMES[0]))
    await deed(registry, ("attach", "g1", "d1"))
    await asyncio.gather(*(succeeds(registry, step) for step in plan))
    truth = await RegistryService(store, FakeClock()).standings(NAMES)
    for name in NAMES:
        believed = registry.standing(name)
        assert isinstance(believed, Unknown) or believed == truth.get(name)
    for name, standing in truth.items():
        assert name == standing.thing.name
        assert all(truth[gateway].thing.premises == standing.thing.premises for gateway in standing.gateways)
