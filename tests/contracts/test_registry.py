"""What the registry keeps comes back the same from every store, is found there, and is won by one."""

import asyncio
from dataclasses import replace

import pytest

from infra.documents.port import DocumentStore
from infra.machines import IllegalTransitionError
from registry.accounts import Account, AccountService, AccountStatus
from registry.catalogue import ModelCatalogue, built_in
from registry.collections import COLLECTIONS
from registry.devices import DeviceService
from registry.gateways import Gateway, GatewayKind, GatewayService
from registry.lifecycle import PURGE_AFTER_MS, Device
from registry.meters import Meter, MeterService
from registry.models import NewThing, Owner, ThingKind
from registry.service import RegistryService
from registry.states import DeviceTrigger, Lifecycle
from security import audit
from security.policy import Principal, Role
from tests.fakes import NOW_MS, FakeClock

D = DeviceTrigger
TOOL = Principal("provisioning", Role.SYSTEM)
SEEN = Device(
    id="00124B0014B5D2A1",
    eui64="00124B0014B5D2A1",
    model="acme-pct-2",
    maker="Acme",
    hw=3,
    fw="1.4.0",
    serial="s-1",
    lfdi="3E4F45AB31EDFE5B67E343E5E4562E31984E23E5",
    owner=Owner.CUSTOMER,
    premises="home-1",
    premises_epoch=2,
    rated_w=3_500,
)


@pytest.fixture
def store_collections():
    return COLLECTIONS


@pytest.fixture
def store_logs():
    return (audit.LOG,)


def services(store: DocumentStore) -> tuple[RegistryService, DeviceService]:
    registry = RegistryService(store, FakeClock())
    return registry, DeviceService(store, FakeClock(), registry)


async def test_a_device_comes_back_with_its_life_and_is_found_by_all_it_is_known_by(store):
    _, devices = services(store)
    await devices.apply(SEEN.id, D.SEEN, TOOL, reason="session s-1", new=SEEN)
    await devices.apply(SEEN.id, D.PROVED, TOOL)
    device = await devices.apply(
        SEEN.id,
        D.REGISTER,
        TOOL,
        change=lambda one: replace(one, account="a-1", name="Wohnzimmer ü", location="1"),
    )
    # Another process over the same store.
    _, others = services(store)
    assert await others.device(SEEN.id) == device
    assert [one.trigger for one in device.transitions] == ["seen", "proved", "register"]
    assert await others.by_eui64([SEEN.eui64]) == {SEEN.eui64: device}
    assert (await others.at("home-1", 9)).devices == (device,)
    assert (await others.of_account("a-1", 9)).devices == (device,)
    rows = (await audit.read(store, 0, NOW_MS * 2, 100)).entries
    assert [row.action for row in rows] == ["device.seen", "device.proved", "device.register"]


async def test_what_was_left_out_is_found_when_it_is_due_and_not_again(store):
    clock = FakeClock()
    devices = DeviceService(store, clock, RegistryService(store, clock))
    await devices.apply(SEEN.id, D.SEEN, TOOL, new=SEEN)
    await devices.apply(SEEN.id, D.LEFT_OUT, TOOL)
    assert await devices.purge() == 0
    clock.advance(PURGE_AFTER_MS / 1_000)
    assert await devices.purge() == 1
    assert await devices.purge() == 0
    assert (await devices.at("home-1", 9)).devices == ()


async def test_of_two_processes_that_take_a_device_two_ways_one_wins_and_the_other_is_refused(store):
    registry, ours = services(store)
    _, theirs = services(store)
    await registry.register(NewThing(SEEN.id, ThingKind.DEVICE, "m", "home-1", has_certificate=False), TOOL)
    await ours.apply(SEEN.id, D.SEEN, TOOL, new=SEEN)
    await ours.apply(SEEN.id, D.PROVED, TOOL)
    done = await asyncio.gather(
        ours.apply(SEEN.id, D.REGISTER, TOOL, change=lambda one: replace(one, account="a-1")),
        theirs.apply(SEEN.id, D.LEFT_OUT, TOOL),
        return_exceptions=True,
    )
    won = [one for one in done if isinstance(one, Device)]
    assert len(won) == 1
    assert len([one for one in done if isinstance(one, IllegalTransitionError)]) == 1
    assert await ours.device(SEEN.id) == won[0]
    assert won[0].lifecycle in {Lifecycle.REGISTERED, Lifecycle.COMMISSIONED}


async def test_the_catalogue_comes_back_with_its_sets_and_limits(store):
    catalogue = ModelCatalogue(store, FakeClock())
    await catalogue.seed()
    assert (await catalogue.page(100)).models == tuple(sorted(built_in(), key=lambda one: one.id))
    found = await catalogue.recognise("Acme", "PCT-2", 3)
    assert found is not None
    assert found.limits["offset_dc_max"] == 40


async def test_gateways_meters_and_accounts_come_back_the_same(store):
    registry, _ = services(store)
    await registry.register(NewThing("gw-1", ThingKind.GATEWAY, "m", "home-1"), TOOL)
    gateways, meters = GatewayService(store, FakeClock(), registry), MeterService(store, FakeClock())
    gateway = Gateway(
        id="gw-1",
        kind=GatewayKind.METER,
        premises="home-1",
        technologies=frozenset({"zigbee-se1", "wifi"}),
        devices_max=10,
        load_control_max=8,
        priority=7,
    )
    meter = Meter(
        id="m-1", model="amg-4", premises="home-1", technologies=frozenset({"zigbee-se1"}), gateway="gw-1"
    )
    account = Account(id="a-1", customer="c-1", tariff="tou-res", status=AccountStatus.CLOSED)
    accounts = AccountService(store, FakeClock())
    await gateways.put(gateway, TOOL)
    await meters.put(meter, TOOL)
    await accounts.put(account, TOOL)
    assert await gateways.at("home-1") == (gateway,)
    assert await accounts.account("a-1") == account
    stands = await meters.exchange("m-1", replace(meter, id="m-2"), TOOL, at_ms=NOW_MS, work_order="w-1")
    assert await meters.at("home-1") == (stands,)


async def test_of_openers_in_several_processes_one_works_at_premises(store):
    processes = [services(store)[0] for _ in range(4)]
    await processes[0].hand_over("home-1", "a-1", TOOL)

    async def never(_session: str) -> bool:
        return False

    winners = await asyncio.gather(
        *(one.take_session("home-1", f"s-{number}", never) for number, one in enumerate(processes))
    )
    assert len(set(winners)) == 1
    assert (await processes[0].premises("home-1")).open_session == winners[0]
