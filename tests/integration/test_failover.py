"""A device moves from the meter's route to the broadband route and back, in mid-session and later."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from fleet import provisioning as scenes
from fleet.program import Behaviour
from programs.records import enrolment_id
from programs.states import EnrolmentState
from provisioning import routes as keeper
from provisioning.care_embedded import EmbeddedCare
from provisioning.states import DeviceState, SessionState
from registry import routes
from security.policy import Role
from shadow.commands import Channel, Origin, update
from shadow.decisions import Accepted, Outcome
from shadow.document import ShadowId, delta
from tests.covers import covers
from tests.telephone import OPERATOR, Call, serving

pytestmark = pytest.mark.integration

SLOW = Behaviour(activate_s=8.0, ready_s=1.0)
"""Slow enough that the meter is lost before the device has answered."""
SCENE = scenes.reachable_twice(1, behaviours={"thermostat": SLOW})
METER, BROADBAND = (gateway.name for gateway in SCENE.home.gateways)
THING = SCENE.eui64s["thermostat"]
PREMISES = SCENE.home.premises
PROGRAM = "tou-res"
CUSTOMER = Origin("ada", Role.CUSTOMER, Channel.HTTP)


class Told:
    """What the gateways have been told of the device, in the order in which it became true."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Any]] = {}
        self.chosen: list[tuple[int, str]] = []
        """Each choice: its epoch, and the gateway that speaks from then on."""
        self.twice_active = 0

    def heard(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Accepted) and outcome.command.id.name == "han":
                state = getattr(outcome.command, "state", None) or {}
                entry = ((state.get("desired") or {}).get("attach") or {}).get(THING)
                if entry is not None:
                    self._told(outcome.command.id.thing, entry)

    def _told(self, gateway: str, entry: dict[str, Any]) -> None:
        held = self.entries[gateway] = self.entries.get(gateway, {}) | entry
        self.twice_active += sum(bool(one.get("active")) for one in self.entries.values()) > 1
        choice = (held["epoch"], gateway)
        if held.get("active") and choice not in self.chosen:
            self.chosen.append(choice)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Two minutes and a quarter of an hour are too long for a test: the rule is the same with seconds."""
    monkeypatch.setattr(routes, "FAIL_AFTER_MS", 2_000)
    monkeypatch.setattr(routes, "BACK_AFTER_MS", 1_500)
    monkeypatch.setattr(keeper, "POLL_S", 0.2)
    return Told()


@covers("S1.4d")
async def test_a_device_that_changes_its_route_in_mid_session_and_later_loses_nothing_and_doubles_nothing(
    tmp_path, told
):
    async with serving(tmp_path, SCENE) as served:
        call, simulation = served.call, served.simulation
        call.services.shadows.listen(told.heard)
        await call.open()
        await see_by_both(call)
        await call.select(["thermostat"])
        await call.choose({"thermostat": PROGRAM})
        await call.provision()
        await call.until(lambda one: one.devices[THING].state is DeviceState.SENT)
        await call.until_so(lambda: speaks_by(call, METER))  # whichever has answered first

        simulation.lose(METER)  # in mid-session, and nobody has answered yet
        await wish(call, 17.5)
        await call.until_so(lambda: speaks_by(call, BROADBAND))
        assert (await call.sessions.session(call.id)).state is SessionState.PROVISIONING
        await call.recorded()
        await call.delivered()
        assert await converged(call, "")
        assert await converged(call, "program")

        simulation.find(METER)  # afterwards: back to the better one, with a wish that nobody waits for
        await call.until_so(lambda: speaks_by(call, METER))
        await wish(call, 19.0)
        await call.until_so(lambda: converged(call, ""))

        simulation.lose(METER)  # and once more, with a wish that the gateway never hears
        await call.services.programs.enrolments.leave(enrolment_id(THING, PROGRAM), OPERATOR)
        await call.until_so(lambda: speaks_by(call, BROADBAND))
        await call.until_so(lambda: ended(call))
        await call.delivered()
        await nothing_is_there_twice(call)
    assert [gateway for _, gateway in told.chosen][-4:] == [METER, BROADBAND, METER, BROADBAND]
    epochs = [epoch for epoch, _ in told.chosen]
    assert epochs == sorted(set(epochs)), "each choice has a higher epoch than the one before"
    assert told.twice_active == 0


async def see_by_both(call: Call) -> None:
    """Open a window by each gateway, so that both may speak for the device; its label is read once."""
    await call.discover("thermostat", gateway=METER)
    await call.until(lambda one: THING in one.devices and one.devices[THING].state is DeviceState.AUTH_OK)
    await call.stop()
    await call.discover(gateway=BROADBAND)
    await call.until(lambda one: set(one.devices[THING].gateways) == {METER, BROADBAND})
    await call.stop()


async def in_use(call: Call) -> str:
    known = await call.services.provisioning.routes.of(THING)
    return "" if known is None else known.in_use


async def speaks_by(call: Call, gateway: str) -> bool:
    return await in_use(call) == gateway


async def wish(call: Call, heat_c: float) -> None:
    """Let the customer turn the thermostat."""
    state = {"desired": {"heat_c": heat_c}}
    limits = call.services.settings.limits
    command = update(ShadowId(THING), CUSTOMER, state, limits, None, msgspec.json.encode(state))
    (outcome,) = await call.services.shadows.submit([command])
    assert isinstance(outcome, Accepted)


async def converged(call: Call, name: str) -> bool:
    """Tell whether the device has done all that it was to do."""
    shadow = await call.services.shadows.view(ShadowId(THING, name) if name else ShadowId(THING))
    return delta(shadow.desired.state, shadow.reported.state) == {}


async def ended(call: Call) -> bool:
    one = await call.services.programs.enrolments.enrolment(enrolment_id(THING, PROGRAM))
    return one.state is EnrolmentState.ENDED


async def nothing_is_there_twice(call: Call) -> None:
    """Check that there is one thing, one enrolment and one registration, and no gap in what was recorded."""
    services = call.services
    assert set(await services.devices.by_eui64([THING])) == {THING}
    things = await services.registry.things(premises=PREMISES, limit=10)
    assert sorted(one.name for one in things.things) == sorted([THING, METER, BROADBAND])
    (enrolment,) = await services.programs.enrolments.of_device(THING)
    assert enrolment.period == 1
    assert isinstance(services.care, EmbeddedCare)
    records = await services.care.records(PREMISES, limit=100)
    kinds = [record.kind for record in records]
    assert kinds.count("han.device.registered") == 1
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert len({record.key for record in records}) == len(records)
