"""Who can be reached: what is connected, and what a connected gateway says that it hears."""

import pytest

from gnomon.reach import Reach
from infra.presence import Presence
from provisioning.hans import Hans
from registry.models import NewThing, ThingKind
from security.policy import Role
from shadow.commands import Channel, Origin, update
from shadow.document import ShadowId
from tests.programs_rig import HALL, HOME, TOOL, open_rig
from tests.shadow_rig import running

METER, BROADBAND = "gw-0001-meter", "gw-0001-home"


@pytest.fixture
async def here():
    made = open_rig()
    async with running(made.shadows):
        await made.settle_in()
        for gateway in (METER, BROADBAND):
            await made.registry.register(NewThing(gateway, ThingKind.GATEWAY, "acme-amg-4", HOME), TOOL)
            await made.registry.attach(gateway, HALL, TOOL)
        yield made


async def says(here, gateway, online):
    attach = {HALL: {"eui64": "", "state": "on", "active": True, "epoch": 1, "online": online}}
    state = {"reported": {"attach": attach}}
    origin = Origin(gateway, Role.GATEWAY, Channel.MQTT)
    await here.shadows.submit([update(ShadowId(gateway, "han"), origin, state, here.limits, None, b"")])


async def test_whoever_is_connected_can_be_reached(here):
    presence = Presence()
    reach = Reach(presence, here.registry, Hans(here.shadows, here.limits))
    assert await reach.online([HALL, "nobody"]) == frozenset()
    presence.came(HALL)
    presence.came("nobody")
    assert await reach.online([HALL, "nobody"]) == {HALL}


async def test_a_device_is_reached_through_a_gateway_that_is_connected_and_hears_it(here):
    presence = Presence()
    reach = Reach(presence, here.registry, Hans(here.shadows, here.limits))
    presence.came(METER)
    assert await reach.online([HALL]) == {HALL}, "it says nothing else"
    await says(here, METER, online=False)
    assert await reach.online([HALL]) == frozenset()
    await says(here, BROADBAND, online=True)
    assert await reach.online([HALL]) == frozenset(), "that one is away itself"
    presence.came(BROADBAND)
    assert await reach.online([HALL]) == {HALL}
    await here.registry.suspend(BROADBAND, TOOL)
    assert await reach.online([HALL]) == frozenset(), "who is barred speaks for nobody"
