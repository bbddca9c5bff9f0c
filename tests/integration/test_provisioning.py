"""Scenario 3.2 through everything there is: broker, bridge, simulated home, programs, outbox, care system."""

import pytest

from fleet import provisioning as scenes
from provisioning.care import SearchBy
from provisioning.states import DeviceState
from shadow.document import ShadowId, delta
from tests.covers import covers
from tests.telephone import serving

pytestmark = pytest.mark.integration

SCENE = scenes.recognised(1)
LABELLED = ("thermostat", "heater", "display", "upstairs")
WANTED = {"thermostat": "tou-res", "display": "info-display"}


@covers("3.2/4", "3.2/5", "3.2/6", "3.2/7", "3.2/8", "3.2/12", "3.2/13", "3.2/14", "3.2/15", "S3.2-post")
async def test_scenario_3_2_on_a_real_broker(tmp_path):
    async with serving(tmp_path, SCENE) as served:
        call, services = served.call, served.system.services
        (account,) = call.customer.accounts
        desk = services.provisioning.desk
        (found,) = await desk.search(SearchBy.ACCOUNT, account.number, "case-1", call.ask())
        assert found.ref == call.customer.ref
        await call.open()
        await call.discover(*LABELLED)
        await call.until(lambda one: sum(
            device.state in (DeviceState.AUTH_OK, DeviceState.AUTH_FAILED) for device in one.devices.values()
        ) == 4 and one.others == 1)  # fmt: skip
        session = await call.stop()
        assert session.devices[SCENE.eui64s["upstairs"]].state is DeviceState.AUTH_FAILED
        await call.select(WANTED)
        await call.choose(WANTED)
        await call.provision()
        await call.recorded()
        await call.sessions.confirm(call.id, "phone", "", call.ask())
        for name in WANTED:
            shadow = await services.shadows.view(ShadowId(SCENE.eui64s[name], "program"))
            assert delta(shadow.desired.state, shadow.reported.state) == {}
        await has_all(served)


async def has_all(served):
    """Wait until the care system has what was recorded: two devices, two enrolments, the notice."""
    outbox, premises = served.system.services.outbox, SCENE.home.premises

    async def has():
        items = await outbox.items(premises)
        return len(items) == 5 and all(item.state == "delivered" for item in items)

    await served.call.until_so(has)
    items = await outbox.items(premises)
    assert [item.seq for item in items] == [1, 2, 3, 4, 5]
    assert items[-1].kind == "notify.customer"
