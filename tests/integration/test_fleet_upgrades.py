"""Fleets that take new firmware on a real broker over mutual TLS, with a stand-in for the service."""

import asyncio
import contextlib
import sys

import msgspec
import pytest

from fleet.boot import FileStatus
from fleet.connection import Certificates, Endpoint
from fleet.keys import write_keys
from fleet.makes import MAKES
from fleet.plan import DevicePlan, GatewayPlan, Home, Plan
from fleet.simulation import Simulation
from fleet.upgrades import Upgrades
from infra.clock import SystemClock
from tests.covers import covers
from tests.firmware_bench import TRUSTED, job, release
from tests.fleet_broker import Broker, served, until
from tests.ota_stand_in import OtaStandIn

pytestmark = pytest.mark.integration

METER, HALL, WIFI = "gw-1-meter", "th-1-hall", "th-1-wifi"
HOME = Home(
    "pr-1",
    (GatewayPlan(METER, "meter", "acme-amg-4"),),
    (
        DevicePlan(HALL, "thermostat", "acme-pct-2", has_certificate=False, gateways=(METER,)),
        DevicePlan(WIFI, "thermostat", "norland-t1-wifi", has_certificate=True, gateways=()),
    ),
)
MODELS = {METER: "acme-amg-4", HALL: "acme-pct-2", WIFI: "norland-t1-wifi"}


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


def wanted(thing, model, number=1, size=100_000):
    now_s = SystemClock().now_ms() // 1_000
    make = MAKES[model]
    of = release(size=size, schema=max(make.schemas), make=make, now_s=now_s // 3_600 * 3_600)
    return job(of, number=number, thing=thing, now_s=now_s)


@contextlib.asynccontextmanager
async def simulated(broker):
    broker.issue(METER, WIFI)
    simulation = Simulation(
        Plan((HOME,)),
        endpoint=Endpoint("127.0.0.1", broker.port),
        identities=Certificates(broker.certificates).identity,
        clock=SystemClock(),
        seed=1,
        keys=TRUSTED,
    )
    async with served(broker, OtaStandIn({HALL: (METER,)})) as service, asyncio.TaskGroup() as tasks:
        tasks.create_task(simulation.run(), name="simulation")
        await until(lambda: all(device.in_step for device in simulation.devices.values()))
        try:
            yield simulation, service
        finally:
            simulation.stop()


@covers("I3FR6.1")
@pytest.mark.parametrize("thing", [METER, HALL, WIFI], ids=["gateway", "spoken for", "by itself"])
async def test_every_kind_of_thing_takes_new_firmware_by_its_own_way(broker, thing):
    async with simulated(broker) as (simulation, service):
        stand_in = service.stand_in
        service.send(stand_in.offer(thing, wanted(thing, MODELS[thing])))
        await until(lambda: stand_in.jobs[thing].status == "SUCCEEDED", 20)
        await until(lambda: stand_in.document(thing, "firmware").reported["fw"]["confirmed"])
        computer = simulation.devices[thing].computer
        assert computer.firmware.state is FileStatus.ACTIVATED
        schema = computer.firmware.image.schema
        assert stand_in.document(thing, "config").reported == MAKES[MODELS[thing]].factory_defaults(schema)
        # It goes on as before: a wish is obeyed by the new image.
        service.send(stand_in.wish(HALL, {"heat_c": 18.5}))
        await until(lambda: stand_in.document(HALL).reported.get("heat_c") == 18.5)
    assert not simulation.statistics.errors


async def upgrade(broker, count, **options):
    things = [f"load-{number}" for number in range(count)]
    broker.issue(*things)
    async with served(broker, OtaStandIn()) as service:
        for number, thing in enumerate(things):
            service.stand_in.jobs[thing] = wanted(thing, "norland-t1-wifi", number + 1)
        upgrades = Upgrades(
            things,
            MAKES["norland-t1-wifi"],
            endpoint=Endpoint("127.0.0.1", broker.port),
            identities=Certificates(broker.certificates).identity,
            keys=TRUSTED,
            clock=SystemClock(),
            restart_s=0.2,
            **options,
        )
        await upgrades.run(60)
    return upgrades.summary(), service.stand_in


async def test_a_load_of_devices_is_upgraded_and_each_is_counted_once(broker):
    summary, stand_in = await upgrade(broker, 20)
    assert summary["succeeded"] == 20
    assert summary["states"] == {"activated": 20}
    assert summary["connects"] == 40  # each restarts once
    assert summary["seconds"]["count"] == 20
    assert not summary["errors"]
    assert {one.status for one in stand_in.jobs.values()} == {"SUCCEEDED"}


async def test_devices_that_lose_their_power_at_some_write_are_upgraded_too(broker):
    summary, stand_in = await upgrade(broker, 20, power_cuts=1.0)
    assert summary["succeeded"] == 20
    assert summary["power_cuts"] > 0
    assert {one.status for one in stand_in.jobs.values()} == {"SUCCEEDED"}


async def test_the_load_is_a_program_that_prints_its_figures(broker, tmp_path):
    broker.issue("load-00000", "load-00001")
    write_keys(tmp_path / "keys.json", TRUSTED)
    async with served(broker, OtaStandIn()) as service:
        for thing in ("load-00000", "load-00001"):
            service.stand_in.jobs[thing] = wanted(thing, "norland-t1-wifi")
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fleet.upgrades", "--port", str(broker.port), "--count", "2",
            "--certificates", str(broker.certificates), "--keys", str(tmp_path / "keys.json"),
            "--restart", "0.2", "--every", "0.2", "--seconds", "30",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await child.communicate()
    lines = [msgspec.json.decode(line) for line in out.splitlines()]
    assert lines[-1]["final"]
    assert lines[-1]["succeeded"] == 2
