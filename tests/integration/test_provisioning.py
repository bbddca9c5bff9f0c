"""Scenario 3.2 through everything there is: broker, bridge, simulated home, programs, outbox, care system."""

import asyncio

import pytest

from fleet import provisioning as scenes
from fleet.connection import Certificates, Endpoint
from fleet.plan import Plan
from fleet.simulation import Simulation
from gnomon import demo_city
from gnomon.roles import running
from infra.settings import ApiSettings, BrokerSettings, Settings
from provisioning import care_demo
from provisioning.acts import Assignment, Choice
from provisioning.asking import Ask
from provisioning.care import SearchBy
from provisioning.care_embedded import EmbeddedCare
from provisioning.service import Discovery, NewGrant, NewSession
from provisioning.session import Consent, Proof
from provisioning.states import DeviceState, SessionState
from provisioning.verifications import Outcome
from registry.accounts import Account
from registry.gateways import Gateway, GatewayKind
from registry.meters import Meter
from security.policy import Principal, Role
from security.secret import Secret
from shadow.document import ShadowId, delta
from tests.covers import covers

pytestmark = pytest.mark.integration

SCENE = scenes.recognised(1)
PREMISES = SCENE.home.premises
ROSA = Principal("rosa", Role.REP)
OPERATOR = Principal("otto", Role.OPERATOR)
WAIT_S_MAX = 40.0


def settings(directory):
    return Settings(
        directory=directory,
        broker=BrokerSettings(device_port=0),
        api=ApiSettings(port=0, device_port=0),
    )


class Call:
    """A representative on the telephone."""

    def __init__(self, services):
        self.services, self.asked = services, 0
        self.sessions = services.provisioning.sessions

    def ask(self):
        self.asked += 1
        return Ask(by=ROSA, key=f"key-{self.asked}", digest=f"{self.asked}")

    async def until(self, id, good):
        async with asyncio.timeout(WAIT_S_MAX):
            while True:
                session = await self.sessions.session(id)
                if good(session):
                    return session
                await asyncio.sleep(0.1)


async def settle_in(services, directory, customer):
    (account,) = customer.accounts
    await demo_city.settle_in(services, Plan((SCENE.home,)), directory)
    await services.registry.hand_over(PREMISES, account.id, OPERATOR)
    await services.accounts.put(
        Account(id=account.id, customer=customer.ref, tariff=account.tariff), OPERATOR
    )
    (gateway,) = SCENE.home.gateways
    await services.gateways.put(
        Gateway(
            id=gateway.name,
            kind=GatewayKind.METER,
            premises=PREMISES,
            technologies=frozenset({"zigbee-se1"}),
            devices_max=10,
            load_control_max=8,
        ),
        OPERATOR,
    )
    now_ms = services.clock.now_ms()
    meter = Meter(id="m-1", model="m", premises=PREMISES, installed_at_ms=now_ms, comms_seen_at_ms=now_ms)
    await services.meters.put(meter, OPERATOR)


@covers("3.2/4", "3.2/5", "3.2/6", "3.2/7", "3.2/8", "3.2/12", "3.2/13", "3.2/14", "3.2/15", "S3.2-post")
async def test_scenario_3_2_on_a_real_broker(tmp_path):
    async with running(settings(tmp_path)) as system:
        services = system.services
        assert isinstance(services.care, EmbeddedCare)
        customers = care_demo.customers()
        await services.care.put(customers)
        customer = next(one for one in customers if one.accounts[0].premises == PREMISES)
        await settle_in(services, tmp_path / "certificates", customer)
        simulation = Simulation(
            Plan((SCENE.home,)),
            endpoint=Endpoint("localhost", system.broker.device_port),
            identities=Certificates(tmp_path / "certificates").identity,
            clock=services.clock,
            seed=1,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(simulation.run(), name="simulation")
            try:
                await the_call(services, customer)
            finally:
                simulation.stop()


async def the_call(services, customer):
    call, desk = Call(services), services.provisioning.desk
    (account,) = customer.accounts
    (found,) = await desk.search(SearchBy.ACCOUNT, account.number, "case-1", call.ask())
    verification = await desk.verify(found.ref, "birthday", Outcome.PASSED, "case-1", call.ask())
    new = NewSession(premises=PREMISES, account=account.id, verification=verification.id, case="case-1")
    session = await call.sessions.open(new, call.ask())
    grants = tuple(
        NewGrant(device=eui64, proof=Proof.INSTALL_CODE, value=Secret(label))
        for eui64, label in SCENE.labels.items()
        if eui64 != SCENE.eui64s["door"]
    )
    await call.sessions.discover(session.id, Discovery(grants=grants), call.ask())
    await call.until(session.id, lambda one: sum(
        device.state in (DeviceState.AUTH_OK, DeviceState.AUTH_FAILED) for device in one.devices.values()
    ) == 4 and one.others == 1)  # fmt: skip
    await call.sessions.stop_discovery(session.id, call.ask())
    session = await call.until(session.id, lambda one: one.state is SessionState.DISCOVERED)
    assert session.devices[SCENE.eui64s["upstairs"]].state is DeviceState.AUTH_FAILED
    wanted = {SCENE.eui64s["thermostat"]: "tou-res", SCENE.eui64s["display"]: "info-display"}
    choices = [Choice(device=device, take_part=True, name="Mine") for device in wanted]
    await call.sessions.select(session.id, choices, call.ask())
    some = [Assignment(device=device, program=program) for device, program in wanted.items()]
    await call.sessions.choose_programs(session.id, some, call.ask())
    yes = [
        Consent(device, program, customer.ref, "holder", "phone", "1", "", 0)
        for device, program in wanted.items()
    ]
    await call.sessions.consent(session.id, yes, call.ask())
    await call.sessions.provision(session.id, call.ask())
    await call.until(session.id, lambda one: one.state is SessionState.RECORDED)
    await call.sessions.confirm(session.id, "phone", "", call.ask())
    for device in wanted:
        shadow = await services.shadows.view(ShadowId(device, "program"))
        assert delta(shadow.desired.state, shadow.reported.state) == {}
    await delivered(services)


async def delivered(services):
    """Wait until the care system has what was recorded: two devices, two enrolments, the notice."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            items = await services.outbox.items(PREMISES)
            if len(items) == 5 and all(item.state == "delivered" for item in items):
                break
            await asyncio.sleep(0.1)
    assert [item.seq for item in items] == [1, 2, 3, 4, 5]
    assert items[-1].kind == "notify.customer"
