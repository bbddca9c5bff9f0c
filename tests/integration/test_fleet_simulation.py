"""Simulated homes on a real broker over mutual TLS, with a stand-in for the service."""

import asyncio
import contextlib

import pytest

from fleet.connection import Certificates, Endpoint
from fleet.plan import DevicePlan, GatewayPlan, Home, Plan
from fleet.simulation import Simulation
from infra.clock import SystemClock
from tests.fleet_broker import Broker, served, until
from tests.shadow_stand_in import StandIn

pytestmark = pytest.mark.integration

GATEWAYS = ("gw-1-meter", "gw-1-home")
HALL, HEATER, WIFI = "th-1-hall", "ls-1-heater", "th-1-wifi"
HOME = Home(
    "pr-1",
    (GatewayPlan(GATEWAYS[0], "meter", "m"), GatewayPlan(GATEWAYS[1], "customer_broadband", "b")),
    (
        DevicePlan(HALL, "thermostat", "t", has_certificate=False, gateways=GATEWAYS),
        DevicePlan(HEATER, "load_switch", "l", has_certificate=False, gateways=GATEWAYS[:1]),
        DevicePlan(WIFI, "thermostat", "w", has_certificate=True, gateways=GATEWAYS[1:]),
    ),
)
ATTACHMENTS = {HALL: GATEWAYS, HEATER: GATEWAYS[:1], WIFI: GATEWAYS[1:]}


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path)
    broker.issue(*GATEWAYS, WIFI)
    broker.start()
    yield broker
    broker.stop()


@contextlib.asynccontextmanager
async def simulated(broker):
    simulation = Simulation(
        Plan((HOME,)),
        endpoint=Endpoint("127.0.0.1", broker.port),
        identities=Certificates(broker.certificates).identity,
        clock=SystemClock(),
        seed=1,
    )
    async with served(broker, StandIn(ATTACHMENTS)) as service, asyncio.TaskGroup() as tasks:
        tasks.create_task(simulation.run(), name="simulation")
        await until(lambda: all(device.in_step for device in simulation.devices.values()))
        try:
            yield simulation, service
        finally:
            simulation.stop()


async def test_every_thing_of_a_home_reports_what_it_is(broker):
    async with simulated(broker) as (simulation, service):
        for name in (*GATEWAYS, HALL, HEATER, WIFI):
            assert service.stand_in.document(name).reported
            assert service.stand_in.document(name, "config").reported["lang"] == "en"
        assert service.stand_in.document(WIFI).reported["online"] is True
        assert service.stand_in.document(GATEWAYS[0], "han").reported["capacity"]["used"] == 2
        assert simulation.statistics.connected == 3
        assert not simulation.statistics.rejected.keys() - {404}
    assert simulation.statistics.connected == 0


async def test_a_spoken_for_device_never_uses_its_own_topics(broker):
    async with simulated(broker) as (_, service):
        about = [topic for topic, _ in service.requests if f"/things/{HEATER}/" in topic]
        assert about
        assert all(topic.startswith(f"gnomon/gateways/{GATEWAYS[0]}/up/") for topic in about)


async def test_a_wish_reaches_a_device_behind_a_gateway_and_comes_back_as_reported(broker):
    async with simulated(broker) as (simulation, service):
        service.send(service.stand_in.wish(HEATER, {"on": False}))
        await until(lambda: service.stand_in.document(HEATER).reported["on"] is False)
        await until(lambda: simulation.statistics.convergence.count == 1)


async def test_when_its_gateway_is_gone_the_other_speaks_and_nothing_is_lost(broker):
    async with simulated(broker) as (simulation, service):
        first = simulation.devices[HALL].route.gateway
        [second] = set(GATEWAYS) - {first}
        simulation.cut(first)
        service.send(service.stand_in.wish(HALL, {"heat_c": 18.5}))
        await until(lambda: service.stand_in.document(HALL).reported["heat_c"] == 18.5)
        assert simulation.devices[HALL].route.gateway == second
        await until(lambda: simulation.statistics.connected == 3)
        assert simulation.devices[HALL].route.gateway == second  # no fluttering back


async def test_after_the_broker_restarts_everything_comes_back_and_catches_up(broker):
    async with simulated(broker) as (simulation, service):
        broker.stop()
        await until(lambda: simulation.statistics.connected == 0)
        service.stand_in.wish(HALL, {"heat_c": 18.5})  # nobody hears of it
        broker.start()
        await until(lambda: service.stand_in.document(HALL).reported["heat_c"] == 18.5, seconds=20)
        await until(lambda: simulation.statistics.connected == 3, seconds=20)


async def test_a_cut_connection_is_seen_as_offline_and_later_as_online(broker):
    async with simulated(broker) as (simulation, service):
        seen = []

        def watch():
            seen.append(service.stand_in.document(WIFI).reported.get("online"))
            return False in seen and seen[-1] is True

        simulation.cut(WIFI)
        await until(watch)


async def test_a_certificate_of_a_stranger_is_not_let_in(broker, tmp_path):
    stranger = Broker(_directory(tmp_path / "other"))
    stranger.issue(*GATEWAYS, WIFI)
    (stranger.certificates / "ca.crt").write_bytes((broker.certificates / "ca.crt").read_bytes())
    simulation = Simulation(
        Plan((HOME,)),
        endpoint=Endpoint("127.0.0.1", broker.port),
        identities=Certificates(stranger.certificates).identity,
        clock=SystemClock(),
        seed=1,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(simulation.run(), name="simulation")
        await until(lambda: simulation.statistics.errors.total() >= 3)
        simulation.stop()
    assert simulation.statistics.connects == 0


def _directory(path):
    path.mkdir()
    return path
