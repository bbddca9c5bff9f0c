"""Programs with a real broker in between: simulated devices hear of them, answer twice, and leave."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from fleet.connection import Certificates, Endpoint
from fleet.plan import DevicePlan, GatewayPlan, Home, Plan
from fleet.simulation import Simulation
from gnomon import demo_city, roles
from infra.settings import Settings
from infra.settings.model import ApiSettings, BrokerSettings
from programs.states import EnrolmentState
from registry.lifecycle import Device
from registry.states import DeviceTrigger
from shadow.document import ShadowId, delta
from tests.covers import covers
from tests.programs_rig import ACCOUNT, ANNA, RITA, TOOL, yes

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

HOME = "pr-0001"
GATEWAY, HALL, DISPLAY, WIFI = "gw-0001-meter", "th-0001-hall", "dp-0001-kitchen", "th-0001-attic"
MODELS = {HALL: "acme-pct-2", DISPLAY: "acme-ihd-3", WIFI: "norland-t1-wifi"}
PLAN = Plan(
    (
        Home(
            HOME,
            (GatewayPlan(GATEWAY, "meter", "acme-amg-4"),),
            (
                DevicePlan(HALL, "thermostat", MODELS[HALL], has_certificate=False, gateways=(GATEWAY,)),
                DevicePlan(DISPLAY, "display", MODELS[DISPLAY], has_certificate=False, gateways=(GATEWAY,)),
                DevicePlan(WIFI, "thermostat", MODELS[WIFI], has_certificate=True, gateways=()),
            ),
        ),
    )
)


@pytest.fixture
async def system(tmp_path, monkeypatch):
    monkeypatch.setattr(roles, "_tune_the_interpreter", lambda: None)  # this process goes on after it
    settings = Settings(
        directory=tmp_path,
        broker=BrokerSettings(device_port=0, service_port=0),
        api=ApiSettings(port=0, device_port=0),
    )
    async with roles.running(settings) as system:
        await demo_city.settle_in(system.services, PLAN, tmp_path / "certificates")
        await system.services.registry.hand_over(HOME, ACCOUNT, TOOL)
        for name, model in MODELS.items():
            await _register(system.services.devices, name, model)
        yield system


async def _register(devices, name, model):
    new = Device(id=name, eui64=name, model=model, fw="1.4.0", premises=HOME)
    await devices.apply(name, DeviceTrigger.SEEN, TOOL, new=new)
    await devices.apply(name, DeviceTrigger.PROVED, TOOL)
    await devices.apply(
        name, DeviceTrigger.REGISTER, TOOL, change=lambda one: replace(one, account=ACCOUNT, premises=HOME)
    )


@asynccontextmanager
async def living(system, directory):
    """Let the home live for as long as the block lasts."""
    simulation = Simulation(
        PLAN,
        endpoint=Endpoint("localhost", system.broker.device_port),
        identities=Certificates(directory).identity,
        clock=system.services.clock,
        seed=1,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(simulation.run(), name="fleet")
        try:
            yield simulation
        finally:
            simulation.stop()


async def enrol(services, device, program):
    await services.programs.consents.give(yes(program, device), RITA)
    return await services.programs.enrolments.enrol(device, program, ACCOUNT, HOME, RITA)


async def until(services, states):
    """Wait until the enrolments of these ids are in these states."""
    found = {}
    for _ in range(600):
        found = {id: str((await services.programs.enrolments.enrolment(id)).state) for id in states}
        if found == states:
            return
        await asyncio.sleep(0.05)
    assert found == states


async def sections(services, device):
    shadow = await services.shadows.view(ShadowId(device, "program"))
    return shadow.desired.state, shadow.reported.state


@covers("3.2/12", "3.2/13", "O3", "A4")
async def test_devices_answer_twice_take_part_and_leave_without_a_trace(system, tmp_path):
    services = system.services
    async with living(system, tmp_path / "certificates"):
        pairs = [(HALL, "cpp-27"), (HALL, "info-display"), (DISPLAY, "info-display"), (WIFI, "tou-res")]
        made = [await enrol(services, device, program) for device, program in pairs]
        await until(services, {one.id: "READY" for one in made})
        for device in MODELS:
            assert delta(*await sections(services, device)) == {}, (
                "no delta is left of a device that is ready"
            )
        await services.programs.enrolments.leave(made[0].id, ANNA)
        await until(services, {made[0].id: "ENDED", made[1].id: "READY"})
        desired, reported = await sections(services, HALL)
        assert desired["enrolments"].keys() == reported["enrolments"].keys() == {"info-display"}
        assert "tariffs" not in desired
        assert reported["ack"].keys() == {"info-display"}


@covers("3.2/12")
async def test_a_program_reaches_a_device_that_is_away_when_it_comes_back(system, tmp_path):
    services = system.services
    made = await enrol(services, WIFI, "tou-res")
    await asyncio.sleep(1)
    waiting = await services.programs.enrolments.enrolment(made.id)
    assert (waiting.state, waiting.limit.online) == (EnrolmentState.PROVISIONING, False)
    async with living(system, tmp_path / "certificates"):
        await until(services, {made.id: "READY"})
