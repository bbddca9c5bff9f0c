"""The demo: a city that is settled once, whose second run goes on where the first one ended."""

import asyncio
import random
import shutil
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.plan import GatewayPlan, Home, Plan, city
from fleet.provisioning import BRIDGE, SCENES
from fleet.statistics import Histogram, Statistics
from gnomon import demo, demo_city, demo_crew, demo_devices
from gnomon.proofs import RegistryProofs
from infra.documents.memory import MemoryStore
from infra.settings import Settings
from programs.catalogue import ProgramCatalogue
from programs.collections import COLLECTIONS as PROGRAMS
from programs.collections import LOGS as PROGRAM_LOGS
from programs.consents import ConsentService
from programs.models import OTA
from registry.accounts import AccountService
from registry.collections import COLLECTIONS
from registry.devices import DeviceService
from registry.gateways import GatewayService
from registry.meters import MeterService
from registry.models import Owner
from registry.service import RegistryService
from registry.states import DeviceTrigger, Lifecycle
from security import audit
from security.audit import Refusals
from security.hashing import Hashing
from security.policy import Role
from security.trust.claim_store import ClaimStore
from security.trust.collections import COLLECTIONS as TRUST
from security.trust.enrolment import Enrolment
from security.trust.issued import IssuedStore
from security.trust.known_keys import KnownKeys
from security.trust.tries import Tries
from tests.certificates import open_authority
from tests.fakes import FakeClock, SeededIds
from tests.faulty_store import FaultyStore

PLAN = city(6, seed=1)
GATEWAYS = {gateway.name for home in PLAN.homes for gateway in home.gateways}
DEVICES = {device.name: device for home in PLAN.homes for device in home.devices}


class Town:
    """What `settle_in` needs of the services, over a store that outlives a run."""

    def __init__(self, directory):
        self.directory = directory
        self.store = FaultyStore(MemoryStore([*COLLECTIONS, *TRUST, *PROGRAMS], [audit.LOG, *PROGRAM_LOGS]))
        self.clock = FakeClock()
        self.reconciled = []
        self.registry = RegistryService(self.store, self.clock)
        self.devices = DeviceService(self.store, self.clock, self.registry)
        self.consents = ConsentService(self.store, self.clock, ProgramCatalogue(self.store, self.clock))

    async def settle(self, plan=PLAN):
        clock, registry, authority = self.clock, self.registry, open_authority(self.directory)
        center: Any = Enrolment(
            claims=ClaimStore(self.store, clock),
            issued=IssuedStore(self.store, clock),
            keys=KnownKeys(self.store, clock),
            tries=Tries(clock),
            hashing=Hashing(cores=1),
            authority=authority,
            proofs=RegistryProofs(registry, self.devices),
            refusals=Refusals(self.store, clock, SeededIds()),
            clock=clock,
        )
        trust = SimpleNamespace(enrolment=center)
        services: Any = SimpleNamespace(
            registry=registry,
            authority=authority,
            trust=trust,
            clock=clock,
            accounts=AccountService(self.store, clock),
            gateways=GatewayService(self.store, clock, registry),
            meters=MeterService(self.store, clock),
            devices=self.devices,
            programs=SimpleNamespace(
                consents=self.consents, enrolments=SimpleNamespace(reconcile=self._reconcile)
            ),
        )
        await demo_city.settle_in(services, plan, self.certificates)
        await demo_devices.know(services, plan)
        return services.registry

    async def _reconcile(self, device):
        self.reconciled.append(device)

    async def asked(self, names):
        """Return those whose customers say yes to firmware."""
        standing = await self.consents.standing_of(names)
        return {name for name, one in standing.items() if OTA in one.consents}

    @property
    def certificates(self):
        return self.directory / "certificates"

    def files(self):
        return {path.name: path.read_bytes() for path in self.certificates.iterdir()}


@pytest.fixture
def town(tmp_path):
    return Town(tmp_path)


async def test_every_thing_of_the_plan_is_registered_and_attached_as_planned(town):
    registry = await town.settle()
    standings = await registry.standings([*GATEWAYS, *DEVICES])
    assert standings.keys() == GATEWAYS | DEVICES.keys()
    for name, device in DEVICES.items():
        assert standings[name].gateways == set(device.gateways)


async def test_who_connects_itself_has_a_certificate_and_a_key_that_nobody_else_reads(town):
    await town.settle()
    themselves = GATEWAYS | {name for name, device in DEVICES.items() if device.has_certificate}
    expected = {f"{name}.{kind}" for name in themselves for kind in ("crt", "key")} | {"ca.crt"}
    assert town.files().keys() == expected
    assert {path.stat().st_mode & 0o077 for path in town.certificates.iterdir()} == {0}


async def test_all_equipment_is_known_as_devices_and_is_its_customer_s_or_the_utility_s(town):
    await town.settle()
    known = await town.devices.devices([*GATEWAYS, *DEVICES])
    assert known.keys() == GATEWAYS | DEVICES.keys()
    ours = {name for name, device in known.items() if device.owner is Owner.UTILITY}
    assert ours == {name for name in GATEWAYS if name.endswith("-meter")}
    bound = {name for name, device in known.items() if device.lifecycle is Lifecycle.REGISTERED}
    assert bound == known.keys() - ours
    assert all(known[name].account for name in bound)
    assert not any(known[name].account for name in ours)


async def test_most_customers_say_yes_to_firmware_and_some_are_left_alone(town):
    await town.settle()
    customers = {name for name in GATEWAYS | DEVICES.keys() if not name.endswith("-meter")}
    assert await town.asked(customers) == {name for name in customers if demo_devices.says_yes(name)}
    assert set(town.reconciled) == customers, "the utility may see them from the first moment"
    assert 0.6 < len(await town.asked(customers)) / len(customers) < 0.9
    assert await town.asked(GATEWAYS - customers) == set()


async def test_what_a_customer_says_later_is_not_overruled_by_the_next_run(town):
    await town.settle()
    name = next(name for name in DEVICES if demo_devices.says_yes(name))
    await town.consents.withdraw(name, OTA, demo_city.DEMO)
    gone = next(other for other in DEVICES if other != name)
    await town.devices.apply(gone, DeviceTrigger.DEREGISTER, demo_city.DEMO)
    await town.settle()
    assert await town.asked([name]) == set()
    assert (await town.devices.device(gone)).lifecycle is Lifecycle.DEREGISTERED


async def test_equipment_in_nobody_s_home_is_known_and_bound_to_no_account(town):
    gateway = GatewayPlan("gw-0099-home", "customer_broadband", "hearth-hub-2")
    await town.settle(Plan((Home("pr-0099", (gateway,), ()),)))
    device = await town.devices.device(gateway.name)
    assert (device.lifecycle, device.account) == (Lifecycle.AUTHENTICATED, "")
    assert await town.asked([gateway.name]) == set()


async def test_each_certificate_is_recorded_as_issued(town):
    await town.settle()
    issued = IssuedStore(town.store, FakeClock())
    for path in town.certificates.glob("*.key"):
        (record,) = await issued.of_thing(path.stem)
        assert record.chain.encode() == path.with_suffix(".crt").read_bytes()


async def test_a_second_run_changes_nothing(town):
    await town.settle()
    files, commits = town.files(), len(town.store.commits)
    await town.settle()
    assert town.files() == files
    assert len(town.store.commits) == commits


async def test_a_larger_city_later_keeps_what_was_there(town):
    await town.settle()
    before = town.files()
    registry = await town.settle(city(8, seed=1))
    assert before.items() <= town.files().items()
    assert await registry.standings(["gw-0008-home", "gw-0008-meter"])


async def test_with_a_new_root_all_get_new_certificates(town):
    await town.settle()
    before = town.files()
    shutil.rmtree(town.directory / "ca")
    await town.settle()
    after = town.files()
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in after)


async def test_a_run_that_ended_while_settling_is_finished_by_the_next(town):
    settled = await town.settle(city(2, seed=1))
    assert settled is not None
    lost = next(path for path in town.certificates.glob("*.key"))
    lost.unlink()
    await town.settle()
    assert lost.exists()


def test_labels_lie_there_for_the_homes_of_the_city_that_are_about_to_call(tmp_path):
    demo_city.write_labels(city(51, seed=1), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pr-0050.txt", "pr-0051.txt"]
    assert "account 9900-0050-" in (tmp_path / "pr-0050.txt").read_text()


async def test_a_city_too_small_for_a_scene_has_a_crew_that_is_never_called(town):
    registry = await town.settle()
    services: Any = SimpleNamespace(registry=registry)
    assert not await demo_crew._is_awaited(services, SCENES[BRIDGE].home.premises)


# ---------------------------------------------------------------------- customers, figures


async def test_customers_wish_something_possible_of_thermostats_now_and_then(monkeypatch):
    monkeypatch.setattr(demo, "WISH_EVERY_S", 0.0)
    wishes: list[Any] = []
    done = asyncio.Event()

    async def submit(commands):
        wishes.extend(commands)
        if len(wishes) >= 50:
            done.set()

    services: Any = SimpleNamespace(settings=Settings(), shadows=SimpleNamespace(submit=submit))
    wishing = asyncio.ensure_future(demo._wish(services, PLAN, random.Random(1)))
    await done.wait()
    wishing.cancel()
    with suppress(asyncio.CancelledError):
        await wishing
    for wish in wishes:
        assert DEVICES[wish.id.thing].kind == "thermostat"
        assert wish.origin.role is Role.OPERATOR
        assert demo.HEAT_C_MIN <= wish.state["desired"]["heat_c"] <= demo.HEAT_C_MAX


async def test_a_city_without_thermostats_has_no_customers_with_wishes():
    async with asyncio.timeout(1):
        await demo._wish(SimpleNamespace(), city(0, seed=1), random.Random(1))  # type: ignore[arg-type]  # unused


def counted(*seconds):
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    return histogram


def figures(fleet, before=None, *, updates=150):
    system: Any = SimpleNamespace(bridge=SimpleNamespace(inbox=[]))
    now = demo._Glance(2.0, updates, fleet.latency, fleet.convergence)
    return demo._figures(system, fleet, before or demo._Glance(0.0, 100, Histogram(), Histogram()), now)


def test_the_figures_count_404_of_new_things_as_no_error():
    fleet = Statistics()
    fleet.rejected.update({404: 5, 409: 2})
    fleet.errors["timeout"] = 1
    found = figures(fleet)
    assert (found.errors, found.rate) == (3, 25.0)


def test_the_figures_are_of_the_last_interval_and_not_of_the_start():
    fleet = Statistics()
    fleet.latency.add(4.0)  # the start, when all come at once
    before = demo._Glance(1.0, 100, fleet.latency.copy(), fleet.convergence.copy())
    assert " accepted -  done - " in figures(fleet, before).line()
    for _ in range(10):
        fleet.latency.add(0.010)
    assert " accepted 10/10 ms " in figures(fleet, before).line()


def test_a_line_of_figures_fits_a_terminal():
    fleet = Statistics()
    fleet.connected, fleet.errors["timeout"] = 9_999, 999
    fleet.latency, fleet.convergence = counted(0.9, 9.9), counted(0.9, 9.9)
    assert len(figures(fleet, updates=20_000).line()) < 80
