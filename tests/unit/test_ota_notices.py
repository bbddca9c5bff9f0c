"""A device that takes no firmware: its customer is told once, whatever happens on the way."""

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import StoreUnavailableError
from infra.lanes import ITEMS_WAITING_MAX, LaneFullError
from infra.outbox import LANES, LOG, Item, Outbox
from infra.telemetry import Metrics
from ota.evidence import Wanted
from ota.execution_store import EXECUTIONS
from ota.executions import Tell
from ota.lane import ExecutionLane
from ota.models import Execution
from ota.notices import Notices
from ota.states import ExecutionState
from registry.collections import COLLECTIONS
from registry.devices import Device, DeviceService
from registry.service import RegistryService
from registry.states import DeviceTrigger
from security import audit
from security.policy import Principal, Role
from tests.covers import covers
from tests.fakes import FakeClock
from tests.faulty_store import FaultyStore

ONE, TWO = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d", "00000000-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
SYSTEM = Principal("sys", Role.SYSTEM)


@dataclass
class Orders:
    known: dict[str, Wanted] = field(
        default_factory=lambda: dict.fromkeys((ONE, TWO), Wanted(sha256="aa", schema=1, release="r-1"))
    )

    async def wanted(self, campaigns: Collection[str]) -> Mapping[str, Wanted]:
        return {id: self.known[id] for id in campaigns if id in self.known}


@dataclass
class World:
    store: FaultyStore
    clock: FakeClock
    lane: ExecutionLane
    outbox: Outbox
    devices: DeviceService
    notices: Notices

    def again(self) -> Notices:
        """Return what a process would have that has just started."""
        return Notices(self.lane, Orders(), self.outbox, self.devices, self.clock)

    async def owed(self) -> list[Execution]:
        return [one for one in (await self.lane.pending()).executions if one.untold & Tell.NOTICE]


@asynccontextmanager
async def world(account: str = "account-7") -> AsyncIterator[World]:
    store = FaultyStore(MemoryStore([EXECUTIONS, LANES, *COLLECTIONS], [LOG, audit.LOG]))
    clock = FakeClock()
    devices = DeviceService(store, clock, RegistryService(store, clock))
    lamp = Device(id="lamp", account=account, premises="home-7", name="Lamp", location="hall")
    await devices.apply("lamp", DeviceTrigger.JOINED, SYSTEM, new=lamp)
    lane = ExecutionLane(store, clock, Metrics())
    outbox = Outbox(store, clock, random.Random(0), Metrics())
    running = asyncio.create_task(lane.run())
    try:
        yield World(store, clock, lane, outbox, devices, Notices(lane, Orders(), outbox, devices, clock))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def required(campaign: str = ONE) -> Execution:
    return Execution(
        campaign=campaign,
        thing="lamp",
        wave=0,
        place=0,
        proof_index=-1,
        state=ExecutionState.REPLACEMENT_REQUIRED,
        untold=Tell.NOTICE,
    )


@covers("I3FR7", "I3FR6.1-n")
async def test_the_customer_is_told_once_by_names_they_know():
    async with world() as one:
        await one.lane.create([required()])
        await one.notices.send()
        (item,) = await one.outbox.items("home-7")
        assert (item.key, item.kind, item.seq) == ("replacement/lamp/r-1", "notify.customer", 1)
        assert msgspec.json.decode(item.body) == {
            "template": "replacement_required",
            "language": "customer",
            "channel": "customer",
            "account": "account-7",
            "devices": [{"name": "Lamp", "location": "hall"}],
        }
        assert await one.owed() == []


async def test_another_campaign_with_the_same_release_tells_nobody_again():
    async with world() as one:
        await one.lane.create([required(), required(TWO)])
        await one.notices.send()
        await one.notices.send()
        assert len(await one.outbox.items("home-7")) == 1
        assert await one.owed() == []


@pytest.mark.parametrize("copied", [False, True], ids=["before it was copied", "before that was noted"])
async def test_a_crash_on_the_way_neither_loses_nor_repeats_it(copied: bool):
    async with world() as one:
        await one.lane.create([required()])
        if copied:
            submit, one.lane.submit = one.lane.submit, gone  # type: ignore[method-assign, assignment]
            with pytest.raises(StoreUnavailableError):
                await one.notices.send()
            one.lane.submit = submit  # type: ignore[method-assign]
        assert len(await one.owed()) == 1
        fresh = one.again()
        await fresh.recover()
        await fresh.send()
        assert len(await one.outbox.items("home-7")) == 1
        assert await one.owed() == []


async def test_premises_for_which_much_waits_hold_up_no_other():
    async with world() as one:
        await one.outbox.put([Item(f"k-{n}", "home-7", "kind", b"{}", 0) for n in range(ITEMS_WAITING_MAX)])
        shed = Device(id="shed", account="account-8", premises="home-8", name="Shed", location="yard")
        await one.devices.apply("shed", DeviceTrigger.JOINED, SYSTEM, new=shed)
        await one.lane.create([required(), replace(required(), thing="shed")])
        for _ in range(2):
            with pytest.raises(LaneFullError):
                await one.notices.send()
        assert [item.key for item in await one.outbox.items("home-8")] == ["replacement/shed/r-1"]
        assert [each.thing for each in await one.owed()] == ["lamp"]


async def gone(*_: object) -> list[None]:
    raise StoreUnavailableError("crashed")


async def test_where_there_is_no_customer_nobody_is_told():
    async with world(account="") as one:
        await one.lane.create([required()])
        await one.notices.send()
        assert await one.outbox.items("home-7") == ()
        assert await one.owed() == []


async def test_what_a_device_is_to_be_told_itself_is_left_alone():
    async with world() as one:
        await one.lane.create([replace(required(), untold=Tell.NOTICE | Tell.NOTIFY)])
        await one.notices.send()
        (left,) = (await one.lane.pending()).executions
        assert left.untold == Tell.NOTIFY
