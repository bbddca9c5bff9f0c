"""Devices as they are kept: a step is durable with its audit row, and the thing loses and gets its rights."""

import asyncio
from dataclasses import replace

import pytest

from infra.documents.memory import MemoryStore
from infra.documents.port import StoreUnavailableError
from infra.machines import IllegalTransitionError
from registry.collections import COLLECTIONS
from registry.devices import PURGE_PAGE, DeviceService
from registry.errors import DeviceNotFoundError, DeviceTakenError, InvalidDetailError, ThingNotFoundError
from registry.lifecycle import PURGE_AFTER_MS, Device
from registry.models import NewThing, ThingKind
from registry.service import RegistryService
from registry.states import DeviceTrigger, Lifecycle
from security import audit
from security.audit import Via
from security.policy import Principal, Role
from tests.covers import covers
from tests.fakes import NOW_MS, FakeClock
from tests.faulty_store import Crash, FaultyStore

D, L = DeviceTrigger, Lifecycle
TOOL = Principal("provisioning", Role.SYSTEM)
OTTO = Principal("otto", Role.OPERATOR)
EUI64, OTHER = "00124B0014B5D2A1", "00124B0014B5D2A2"
SEEN = Device(id=EUI64, eui64=EUI64, model="acme-pct-2", maker="Acme", premises="home-1", premises_epoch=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore(COLLECTIONS, [audit.LOG]))


@pytest.fixture
def registry(store: FaultyStore, clock: FakeClock) -> RegistryService:
    return RegistryService(store, clock)


@pytest.fixture
def devices(store: FaultyStore, clock: FakeClock, registry: RegistryService) -> DeviceService:
    return DeviceService(store, clock, registry)


def bind(device: Device) -> Device:
    return replace(device, account="a-1", name="Hall")


async def registered(devices: DeviceService, registry: RegistryService, id: str = EUI64) -> Device:
    new = replace(SEEN, id=id, eui64=id)
    await registry.register(
        NewThing(id, ThingKind.DEVICE, "acme-pct-2", "home-1", has_certificate=False), TOOL
    )
    await devices.apply(id, D.SEEN, TOOL, new=new)
    await devices.apply(id, D.PROVED, TOOL)
    return await devices.apply(id, D.REGISTER, TOOL, change=bind)


async def rows(store: FaultyStore) -> list[tuple[str, str]]:
    return [(row.action, row.target) for row in (await audit.read(store, 0, NOW_MS * 2, 1_000)).entries]


@covers("A8")
async def test_a_device_goes_its_way_and_each_step_is_audited_once(devices, store, clock):
    await devices.apply(EUI64, D.SEEN, TOOL, Via("http", "r-1"), reason="session s-1", new=SEEN)
    for _ in range(2):
        clock.advance(1)
        await devices.apply(EUI64, D.PROVED, TOOL)
    device = await devices.apply(EUI64, D.REGISTER, TOOL, change=bind)
    assert device == await devices.device(EUI64)
    assert (device.lifecycle, device.account) == (L.REGISTERED, "a-1")
    entries = (await audit.read(store, 0, NOW_MS * 2, 100)).entries
    assert [(row.action, row.target, row.version_after) for row in entries] == [
        ("device.seen", f"device/{EUI64}", 1),
        ("device.proved", f"device/{EUI64}", 2),
        ("device.register", f"device/{EUI64}", 3),
    ]
    assert (entries[0].reason, entries[0].request_id) == ("session s-1", "r-1")


async def test_what_is_refused_changes_nothing_and_is_not_audited(devices, store):
    await devices.apply(EUI64, D.SEEN, TOOL, new=SEEN)
    before, told = await devices.device(EUI64), await rows(store)
    with pytest.raises(IllegalTransitionError):
        await devices.apply(EUI64, D.REGISTER, TOOL, change=bind)
    with pytest.raises(InvalidDetailError):
        await devices.apply(EUI64, D.PROVED, TOOL, change=lambda one: replace(one, name="\n"))
    assert (await devices.device(EUI64), await rows(store)) == (before, told)


async def test_what_is_not_known_is_not_found(devices):
    for deed in (
        devices.device("nobody"),
        devices.apply("nobody", D.SEEN, TOOL),
        devices.amend("nobody", bind, TOOL),
    ):
        with pytest.raises(DeviceNotFoundError):
            await deed
    assert await devices.devices(["nobody"]) == await devices.by_eui64([EUI64]) == {}


@covers("S1.4e")
async def test_a_suspended_device_loses_its_rights_at_once_and_gets_them_back(devices, registry):
    await registered(devices, registry)
    for _ in range(2):
        assert (await devices.apply(EUI64, D.SUSPEND, OTTO, reason="odd reports")).lifecycle is L.SUSPENDED
        assert (await registry.thing(EUI64)).barred
    for _ in range(2):
        assert (await devices.apply(EUI64, D.LIFT, OTTO)).lifecycle is L.REGISTERED
        assert not (await registry.thing(EUI64)).barred


async def test_a_crash_between_thing_and_device_leaves_fewer_rights_and_is_mended_by_the_next_try(
    devices, registry, store
):
    await registered(devices, registry)

    async def plant() -> None:  # the thing is written first, so it is the second commit that fails
        store.before_commit.append(fail)

    async def fail() -> None:
        raise StoreUnavailableError("gone")

    store.before_commit.append(plant)
    with pytest.raises(StoreUnavailableError):
        await devices.apply(EUI64, D.SUSPEND, OTTO)
    assert (await registry.thing(EUI64)).barred
    assert (await devices.device(EUI64)).lifecycle is L.REGISTERED
    assert (await devices.apply(EUI64, D.SUSPEND, OTTO)).lifecycle is L.SUSPENDED
    store.before_commit.append(plant)
    with pytest.raises(StoreUnavailableError):
        await devices.apply(EUI64, D.LIFT, OTTO)
    assert (await registry.thing(EUI64)).barred
    await devices.apply(EUI64, D.LIFT, OTTO)
    assert not (await registry.thing(EUI64)).barred


@pytest.mark.parametrize("trigger", [D.RETIRE, D.REPLACE])
async def test_what_does_not_come_back_counts_for_nothing(devices, registry, trigger):
    await registered(devices, registry)
    for _ in range(2):
        await devices.apply(EUI64, trigger, OTTO)
    assert (await registry.thing(EUI64)).revoked_at_ms is not None


async def test_what_is_no_thing_yet_can_be_retired(devices, registry):
    await devices.apply(EUI64, D.SEEN, TOOL, new=SEEN)
    assert (await devices.apply(EUI64, D.RETIRE, OTTO)).lifecycle is L.RETIRED
    with pytest.raises(ThingNotFoundError):
        await registry.thing(EUI64)


@pytest.mark.parametrize("trigger", [D.SUSPEND, D.REPLACE])
async def test_a_step_that_is_refused_takes_nothing_away(devices, registry, trigger):
    await registered(devices, registry)
    await devices.apply(EUI64, D.DEREGISTER, OTTO)
    with pytest.raises(IllegalTransitionError):
        await devices.apply(EUI64, trigger, OTTO)
    assert not (await registry.thing(EUI64)).barred


async def test_two_accounts_at_once_get_one_device(devices, registry, store):
    await registry.register(NewThing(EUI64, ThingKind.DEVICE, "m", "home-1", has_certificate=False), TOOL)
    await devices.apply(EUI64, D.SEEN, TOOL, new=SEEN)
    await devices.apply(EUI64, D.PROVED, TOOL)

    async def bound_to(account: str) -> str:
        try:
            await devices.apply(EUI64, D.REGISTER, TOOL, change=lambda one: replace(one, account=account))
        except DeviceTakenError:
            return "taken"
        return account

    store.before_commit.append(lambda: bound_to("a-2"))
    assert sorted(await asyncio.gather(bound_to("a-1"))) == ["taken"]
    assert (await devices.device(EUI64)).account == "a-2"


async def test_a_step_whose_reply_was_lost_is_not_taken_twice(devices, store):
    await devices.apply(EUI64, D.SEEN, TOOL, new=SEEN)
    store.crash = Crash.AFTER_COMMIT
    with pytest.raises(StoreUnavailableError):
        await devices.apply(EUI64, D.PROVED, TOOL)
    assert len((await devices.apply(EUI64, D.PROVED, TOOL)).transitions) == 2
    assert (await rows(store)).count(("device.proved", f"device/{EUI64}")) == 1


async def test_devices_are_found_by_id_radio_place_and_account(devices, registry):
    for id in (EUI64, OTHER):
        await registered(devices, registry, id)
    await devices.apply("dev-7", D.SEEN, TOOL, new=replace(SEEN, id="dev-7", eui64=EUI64))
    assert set(await devices.devices([EUI64, "nobody"])) == {EUI64}
    assert (await devices.by_eui64([EUI64]))[EUI64].id == EUI64, "the registered one of two"
    first = await devices.at("home-1", 2)
    assert [one.id for one in first.devices] == [EUI64, OTHER]
    assert [one.id for one in (await devices.at("home-1", 2, first.next)).devices] == ["dev-7"]
    assert [one.id for one in (await devices.of_account("a-1", 9)).devices] == [EUI64, OTHER]
    await devices.apply(EUI64, D.DEREGISTER, OTTO)
    assert [one.id for one in (await devices.of_account("a-1", 9)).devices] == [OTHER]


async def test_devices_of_a_model_are_found_whatever_has_become_of_them(devices):
    for id in (EUI64, OTHER):
        await devices.apply(id, DeviceTrigger.SEEN, TOOL, new=Device(id=id, model="acme-pct-2"))
    await devices.apply(OTHER, DeviceTrigger.LEFT_OUT, TOOL)
    first = await devices.of_model("acme-pct-2", 1)
    rest = await devices.of_model("acme-pct-2", 1, first.next)
    assert [one.id for one in (*first.devices, *rest.devices)] == [EUI64, OTHER]
    assert (await devices.of_model("acme-lcs-1", 9)).devices == ()


async def test_details_change_without_a_step_and_are_audited(devices, registry, store):
    before = await registered(devices, registry)
    after = replace(before, name="Attic")
    for _ in range(2):
        assert await devices.amend(EUI64, lambda one: replace(one, name="Attic"), OTTO) == after
    assert await devices.device(EUI64) == after
    assert (await rows(store)).count(("device.amend", f"device/{EUI64}")) == 1


@covers("S1.4e")
async def test_what_was_left_out_is_forgotten_after_a_day_however_many_there_are(devices, clock):
    ids = [f"{number:016X}" for number in range(PURGE_PAGE + 1)]
    for id in ids:
        await devices.apply(id, D.SEEN, TOOL, new=replace(SEEN, id=id, eui64=id))
        await devices.apply(id, D.LEFT_OUT, TOOL)
    clock.advance(PURGE_AFTER_MS / 1_000 - 1)
    assert await devices.purge() == 0
    assert len((await devices.at("home-1", 1_000)).devices) == len(ids)
    await devices.apply(ids[0], D.SEEN, TOOL)
    clock.advance(1)
    assert await devices.purge() == len(ids) - 1
    assert [one.id for one in (await devices.at("home-1", 1_000)).devices] == ids[:1]
    assert (await devices.device(ids[1])).model == ""
    assert await devices.purge() == 0


async def test_a_purge_that_fails_is_tried_again(devices, clock, store, monkeypatch):
    done = asyncio.Event()
    purge = devices.purge

    async def noticed() -> int:
        purged: int = await purge()
        if purged:
            done.set()
        return purged

    await devices.apply(EUI64, D.SEEN, TOOL, new=SEEN)
    await devices.apply(EUI64, D.LEFT_OUT, TOOL)
    clock.advance(PURGE_AFTER_MS / 1_000)
    monkeypatch.setattr("registry.devices.PURGE_EVERY_S", 0.001)
    monkeypatch.setattr(devices, "purge", noticed)
    store.refuses = ("find",)
    running = asyncio.create_task(devices.run())
    await asyncio.sleep(0.01)
    assert (await devices.device(EUI64)).model
    store.refuses = ()
    async with asyncio.timeout(5):
        await done.wait()
    assert (await devices.device(EUI64)).model == ""
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
