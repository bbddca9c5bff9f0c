"""Snapshots over the real shadow service and registry: taken, kept, given back, forgotten."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from infra.documents.memory import MemoryStore
from ota.data import leaves
from ota.models import Execution
from ota.snapshot import Why
from ota.snapshots import (
    KEPT_MAX,
    KEPT_MS,
    SNAPSHOTS,
    NotItsSuccessorError,
    SnapshotNotFoundError,
    SnapshotService,
)
from ota.states import ExecutionState
from registry.collections import COLLECTIONS
from registry.devices import Device, DeviceService
from registry.service import RegistryService
from registry.states import DeviceTrigger
from security import audit
from security.policy import Principal, Role
from shadow.commands import Channel, Origin
from shadow.document import ShadowId
from shadow.errors import ForbiddenError, NoShadowError
from shadow.records import LOGS, SHADOWS
from tests.covers import covers
from tests.shadow_rig import Rig, accepted, rig, update

OPERATOR = Principal("olga", Role.OPERATOR)
ANNA = Principal("anna", Role.CUSTOMER, account="account-7")
UTILITY = Principal("sys", Role.SYSTEM)
CAMPAIGN = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
CONFIG_NOW: Any = {"set": {"day": 21.5, "night": 18}, "lang": "en"}
FIRMWARE_NOW: Any = {
    "fw": {"sha256": "aa", "version": "2.3.0.0", "counter": 3, "confirmed": True},
    "schema": 5,
    "boot": 17,
    "healthy": True,
}
DEFAULTS: Any = {("pct-3", 9): {"set": {"day": 20, "night": 16}, "fan": "auto", "lang": 1}}


@dataclass
class World:
    shadows: Rig
    devices: DeviceService
    snapshots: SnapshotService

    async def report(self, thing: str, shadow: str, state: Any) -> None:
        origin = Origin(thing, Role.DEVICE, Channel.MQTT)
        accepted(await self.shadows.one(update({"reported": state}, ShadowId(thing, shadow), origin)))

    async def desired(self, thing: str, shadow: str) -> Any:
        try:
            return (await self.shadows.service.view(ShadowId(thing, shadow))).desired.state
        except NoShadowError:
            return {}

    async def know(self, thing: str, model: str, *, in_place_of: str = "") -> None:
        new = Device(id=thing, model=model, predecessor=in_place_of)
        await self.devices.apply(thing, DeviceTrigger.JOINED, UTILITY, new=new)
        if in_place_of:
            await self.devices.amend(in_place_of, lambda one: replace(one, successor=thing), UTILITY)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    store = MemoryStore([SHADOWS, SNAPSHOTS, *COLLECTIONS], [*LOGS, audit.LOG])

    async def defaults(model: str, schema: int) -> Any:
        return DEFAULTS.get((model, schema))

    async with rig(store) as shadows:
        devices = DeviceService(store, shadows.clock, RegistryService(store, shadows.clock))
        snapshots = SnapshotService(
            shadows.store,
            shadows.clock,
            shadows=shadows.service,
            devices=devices,
            defaults=defaults,
            limits=shadows.limits,
        )
        made = World(shadows, devices, snapshots)
        await made.know("hall", "pct-2")
        await made.report("hall", "", {"setpoint_c": 21, "on": True})
        await made.report("hall", "config", CONFIG_NOW)
        await made.report("hall", "firmware", FIRMWARE_NOW)
        yield made


def execution(thing: str = "hall", attempt: int = 1) -> Execution:
    return Execution(
        campaign=CAMPAIGN,
        thing=thing,
        wave=0,
        place=0,
        proof_index=0,
        state=ExecutionState.STAGED,
        attempt=attempt,
    )


@covers("I3FR3.1")
async def test_before_a_device_goes_on_its_shadows_are_kept_with_their_versions():
    async with world() as one:
        taken = await one.snapshots.before([execution()])
        (kept,) = await one.snapshots.of_thing("hall")
        assert taken == {execution().id: kept}
        assert (kept.why, kept.job, kept.model, kept.schema, kept.boot) == (
            Why.GATE,
            execution().job,
            "pct-2",
            5,
            17,
        )
        assert kept.reported("config") == CONFIG_NOW
        assert kept.reported("") == {"setpoint_c": 21, "on": True}
        assert {name: copy.version for name, copy in kept.shadows.items()} == {
            "": 1,
            "config": 1,
            "firmware": 1,
        }


async def test_a_snapshot_holds_no_security_counter():
    async with world() as one:
        (kept,) = (await one.snapshots.before([execution()])).values()
        assert kept.reported("firmware")["fw"] == {"sha256": "aa", "version": "2.3.0.0", "confirmed": True}


async def test_who_asks_again_has_the_same_snapshot_taken_again():
    async with world() as one:
        (first,) = (await one.snapshots.before([execution()])).values()
        await one.report("hall", "config", {"lang": "de"})
        one.shadows.clock.advance(1)
        (second,) = (await one.snapshots.before([execution()])).values()
        assert second.id == first.id
        assert second.reported("config")["lang"] == "de"
        assert await one.snapshots.of_thing("hall") == (second,)


async def test_many_devices_are_kept_in_one_commit():
    async with world() as one:
        before = len(one.shadows.store.commits)
        taken = await one.snapshots.before([execution(f"t-{number}") for number in range(20)])
        assert len(taken) == 20
        assert len(one.shadows.store.commits) == before + 1


async def test_the_last_few_of_a_device_are_kept():
    async with world() as one:
        for attempt in range(1, KEPT_MAX + 3):
            one.shadows.clock.advance(1)
            await one.snapshots.before([execution(attempt=attempt)])
        kept = await one.snapshots.of_thing("hall")
        assert len(kept) == KEPT_MAX
        stored = await one.shadows.store.find_in(SNAPSHOTS.name, "thing", ["hall"], limit=100)
        assert len(stored) == KEPT_MAX, "the others are gone from the store too"
        assert [one.at_ms for one in kept] == sorted((one.at_ms for one in kept), reverse=True)
        newest = (await one.snapshots.before([execution(attempt=KEPT_MAX + 2)])).popitem()[1]
        assert kept[0].id == newest.id


async def test_they_go_after_four_hundred_days_and_not_before():
    async with world() as one:
        await one.snapshots.before([execution()])
        one.shadows.clock.advance(KEPT_MS / 1_000 - 1)
        assert await one.snapshots.sweep_once() == 0
        one.shadows.clock.advance(1)
        assert await one.snapshots.sweep_once() == 1
        assert await one.snapshots.of_thing("hall") == ()


async def test_they_go_with_the_customers_data():
    async with world() as one:
        await one.snapshots.before([execution(), execution("attic")])
        await one.snapshots.forget("hall")
        assert await one.snapshots.of_thing("hall") == ()
        assert len(await one.snapshots.of_thing("attic")) == 1
        await one.snapshots.forget("hall")


async def test_a_person_takes_one_once_under_one_key_and_it_is_in_the_trail():
    async with world() as one:
        first = await one.snapshots.take("hall", "s-key", OPERATOR)
        assert await one.snapshots.take("hall", "s-key", OPERATOR) == first
        rows = await one.shadows.store.scan(audit.LOG, 0, 2**62, limit=100)
        assert [b"snapshot.take" in row.body for row in rows.entries].count(True) == 1
        with pytest.raises(SnapshotNotFoundError):
            await one.snapshots.snapshot("attic", "s-key")


@covers("I3FR3.1")
async def test_an_operator_gives_a_device_back_what_it_had():
    async with world() as one:
        (kept,) = (await one.snapshots.before([execution()])).values()
        await one.report("hall", "config", {"set": {"night": 3}})
        done = await one.snapshots.restore("hall", kept.id, "hall", ["config", "classic"], OPERATOR)
        assert done.dropped == ()
        assert done.written == (
            "/classic/on",
            "/classic/setpoint_c",
            "/config/lang",
            "/config/set/day",
            "/config/set/night",
        )
        assert await one.desired("hall", "config") == CONFIG_NOW
        assert await one.desired("hall", "") == {"setpoint_c": 21, "on": True}
        assert await one.desired("hall", "firmware") == {}
        assert await one.desired("hall", "program") == {}


@covers("I3FR3.1", "I3FR3.1-n")
async def test_a_successor_is_given_what_its_schema_knows_and_the_rest_is_named():
    async with world() as one:
        await one.know("hall-2", "pct-3", in_place_of="hall")
        await one.report("hall-2", "firmware", FIRMWARE_NOW | {"schema": 9})
        await one.report("hall", "config", {"old/way~": 1})
        done = await one.snapshots.carry_over("hall", "hall-2")
        assert done.written == ("/config/set/day", "/config/set/night")
        # `lang` is another setting there: a number.
        assert done.dropped == ("/config/lang", "/config/old~1way~0")
        assert await one.desired("hall-2", "config") == {"set": {"day": 21.5, "night": 18}}
        assert await one.snapshots.carry_over("hall", "hall-2") == done


async def test_a_device_that_speaks_another_schema_by_now_is_given_what_it_knows_of_its_own_past():
    async with world() as one:
        (kept,) = (await one.snapshots.before([execution()])).values()
        await one.report("hall", "firmware", {"schema": 9})
        await one.report("hall", "config", {"lang": None})
        done = await one.snapshots.restore("hall", kept.id, "hall", ["config"], OPERATOR)
        assert (done.written, done.dropped) == (("/config/set/day", "/config/set/night"), ("/config/lang",))


async def test_where_nobody_knows_a_schema_what_the_successor_reports_is_what_it_knows():
    async with world() as one:
        await one.know("hall-2", "other", in_place_of="hall")
        await one.report("hall-2", "", {"on": False, "level": 3})
        await one.report("hall-2", "config", {"lang": "fr"})
        (kept,) = (await one.snapshots.before([execution()])).values()
        done = await one.snapshots.restore("hall", kept.id, "hall-2", ["classic", "config"], OPERATOR)
        assert done.written == ("/classic/on", "/config/lang")
        assert done.dropped == ("/classic/setpoint_c", "/config/set/day", "/config/set/night")


async def test_a_successor_of_a_successor_is_one_and_a_stranger_is_none():
    async with world() as one:
        await one.know("hall-2", "pct-2", in_place_of="hall")
        await one.know("hall-3", "pct-2", in_place_of="hall-2")
        await one.know("attic", "pct-2")
        (kept,) = (await one.snapshots.before([execution()])).values()
        await one.snapshots.restore("hall", kept.id, "hall-3", ["classic"], OPERATOR)
        with pytest.raises(NotItsSuccessorError):
            await one.snapshots.restore("hall", kept.id, "attic", ["classic"], OPERATOR)
        with pytest.raises(NotItsSuccessorError):
            await one.snapshots.restore("hall", kept.id, "nobody", ["classic"], OPERATOR)
        assert await one.desired("attic", "") == {}


async def test_a_customer_gives_back_what_a_customer_may_desire_and_nothing_else():
    async with world() as one:
        (kept,) = (await one.snapshots.before([execution()])).values()
        await one.snapshots.restore("hall", kept.id, "hall", ["classic"], ANNA)
        with pytest.raises(ForbiddenError):
            await one.snapshots.restore("hall", kept.id, "hall", ["config"], ANNA)
        assert await one.desired("hall", "config") == {}


async def test_what_was_only_reported_and_is_gone_from_the_device_is_still_in_the_snapshot():
    async with world() as one:
        (kept,) = (await one.snapshots.before([execution()])).values()
        await one.report("hall", "config", {"lang": None, "set": None})
        assert dict(leaves((await one.snapshots.snapshot("hall", kept.id)).reported("config"))) == dict(
            leaves(CONFIG_NOW)
        )
        assert msgspec.json.encode(kept)
