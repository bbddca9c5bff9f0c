"""Gateways: which serve a home, which comes first, and how much each takes."""

from dataclasses import replace

import pytest

from infra.documents.memory import MemoryStore
from registry.collections import COLLECTIONS
from registry.errors import (
    GatewayNotFoundError,
    InvalidDetailError,
    NotAGatewayError,
    PremisesMismatchError,
    ThingNotFoundError,
)
from registry.gateways import DEVICES_MAX, Gateway, GatewayKind, GatewayService, capacity_refusal
from registry.models import NewThing, ThingKind
from registry.service import RegistryService
from security import audit
from security.policy import Principal, Role
from tests.covers import covers
from tests.fakes import NOW_MS, FakeClock

OTTO = Principal("otto", Role.OPERATOR)
METER = Gateway(
    id="gw-meter",
    kind=GatewayKind.METER,
    premises="home-1",
    wan="ami",
    technologies=frozenset({"zigbee-se1"}),
)
HUB = Gateway(id="gw-hub", kind=GatewayKind.CUSTOMER_BROADBAND, premises="home-1", wan="dsl")
BRIDGE = Gateway(id="gw-bridge", kind=GatewayKind.BRIDGE, premises="home-1", parent="gw-hub")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(COLLECTIONS, [audit.LOG])


@pytest.fixture
def registry(store: MemoryStore) -> RegistryService:
    return RegistryService(store, FakeClock())


@pytest.fixture
async def gateways(store: MemoryStore, registry: RegistryService) -> GatewayService:
    for gateway in (METER, HUB, BRIDGE):
        await registry.register(NewThing(gateway.id, ThingKind.GATEWAY, "m", gateway.premises), OTTO)
    return GatewayService(store, FakeClock(), registry)


async def written(store: MemoryStore) -> list[str]:
    page = await audit.read(store, 0, NOW_MS * 2, 100)
    return [row.target for row in page.entries if row.action == "gateway.write"]


@covers("A6", "A7", "S1.4c")
async def test_the_gateways_of_a_home_come_by_their_rank(gateways):
    for gateway in (HUB, BRIDGE, METER):
        assert await gateways.put(gateway, OTTO) == gateway
    assert await gateways.at("home-1") == (METER, HUB, BRIDGE)
    first = replace(BRIDGE, priority=1)
    await gateways.put(first, OTTO)
    assert await gateways.at("home-1") == (first, METER, HUB)
    assert await gateways.at("home-2") == ()


async def test_what_is_written_again_is_written_once(gateways, store):
    for _ in range(2):
        await gateways.put(HUB, OTTO)
    assert await written(store) == ["gateway/gw-hub"]
    assert await gateways.gateway("gw-hub") == HUB
    assert await gateways.gateways(["gw-hub", "gw-meter"]) == {"gw-hub": HUB}


async def test_what_may_not_speak_serves_nobody_and_is_still_known(gateways, registry):
    for gateway in (HUB, METER):
        await gateways.put(gateway, OTTO)
    await registry.suspend("gw-hub", OTTO)
    assert await gateways.at("home-1") == (METER,)
    await registry.remove("gw-meter", OTTO)
    assert await gateways.at("home-1") == ()
    await registry.register(NewThing("gw-meter", ThingKind.GATEWAY, "m", "home-2"), OTTO)
    assert await gateways.at("home-1") == await gateways.at("home-2") == ()
    assert await gateways.gateway("gw-meter") == METER
    await registry.resume("gw-hub", OTTO)
    assert await gateways.at("home-1") == (HUB,)


async def test_a_device_with_a_wan_of_its_own_is_a_gateway_to_itself_and_no_other_kind(gateways, registry):
    await registry.register(NewThing("hall", ThingKind.DEVICE, "m", "home-1"), OTTO)
    own = replace(HUB, id="hall")
    assert await gateways.put(own, OTTO) == own
    with pytest.raises(NotAGatewayError):
        await gateways.put(replace(METER, id="hall"), OTTO)
    assert await gateways.gateway("hall") == own


@pytest.mark.parametrize(
    ("gateway", "error"),
    [
        (replace(METER, id="nobody"), ThingNotFoundError),
        (replace(METER, premises="home-2"), PremisesMismatchError),
        (replace(BRIDGE, parent="nobody"), GatewayNotFoundError),
        (replace(BRIDGE, parent="gw-bridge"), NotAGatewayError),
        (replace(METER, wan="a\nb"), InvalidDetailError),
        (replace(METER, devices_max=DEVICES_MAX + 1), InvalidDetailError),
        (replace(METER, devices_max=4), InvalidDetailError),
        (replace(METER, load_control_max=-1), InvalidDetailError),
        (replace(METER, priority=-1), InvalidDetailError),
        (replace(METER, priority=1_001), InvalidDetailError),
        (replace(METER, technologies=frozenset(f"t{number}" for number in range(17))), InvalidDetailError),
    ],
)
async def test_what_can_not_be_so_is_refused_and_not_written(gateways, store, gateway, error):
    with pytest.raises(error):
        await gateways.put(gateway, OTTO)
    assert await written(store) == []


async def test_a_bridge_hangs_behind_a_gateway_of_its_own_home(gateways, registry):
    await registry.register(NewThing("elsewhere", ThingKind.GATEWAY, "m", "home-2"), OTTO)
    await gateways.put(replace(HUB, id="elsewhere", premises="home-2"), OTTO)
    with pytest.raises(PremisesMismatchError):
        await gateways.put(replace(BRIDGE, parent="elsewhere"), OTTO)


@covers("O9")
@pytest.mark.parametrize(
    ("attached", "grants", "load_control", "refusal"),
    [
        (4, 1, 5, None),
        (5, 0, 0, None),
        (5, 1, 0, "takes 5 devices, and this would be number 6"),
        (4, 2, 0, "takes 5 devices, and this would be number 6"),
        (0, 6, 6, "takes 5 devices, and this would be number 6"),
    ],
)
def test_a_gateway_takes_five_devices_and_a_refusal_names_both_numbers(
    attached, grants, load_control, refusal
):
    said = capacity_refusal(METER, attached=attached, grants=grants, load_control=load_control)
    assert (said is None) if refusal is None else (said is not None and refusal in said)


@covers("O9")
def test_of_ten_devices_eight_may_control_loads():
    large = replace(METER, devices_max=10, load_control_max=8)
    assert capacity_refusal(large, attached=10, grants=0, load_control=8) is None
    said = capacity_refusal(large, attached=9, grants=1, load_control=9)
    assert said == "this gateway takes 8 devices that control loads, and this would be number 9"
