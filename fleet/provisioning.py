"""Ready-made homes for scenarios 3.2 and 3.3: equipment that a customer has bought and plugged in.

What stands on the labels is given apart from what is in the devices: one label is misprinted. Each home is a
value, to be given to :class:`~fleet.simulation.Simulation` as any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from types import MappingProxyType
from typing import Final, Literal

from fleet.link_keys import printed
from fleet.plan import Boxed, GatewayPlan, Home, Plan
from fleet.program import WELL, Behaviour

Way = Literal["meter", "broadband"]

THERMOSTAT, HEATER, DISPLAY, UPSTAIRS, DOOR = "thermostat", "heater", "display", "upstairs", "door"
CODE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Scene:
    """A home, and what its customer reads from the labels."""

    home: Home
    eui64s: Mapping[str, str]
    """By what the customer calls the device."""
    labels: Mapping[str, str]
    """Install codes, by EUI-64, as they are printed."""


def recognised(
    number: int, way: Way = "meter", *, behaviours: Mapping[str, Behaviour] = MappingProxyType({})
) -> Scene:
    """Return a home with five devices: three are capable, one label is wrong, one is no equipment."""
    gateways = {
        "meter": GatewayPlan(f"gw-{number:04d}-meter", "meter", "acme-amg-4"),
        "broadband": GatewayPlan(f"gw-{number:04d}-home", "customer_broadband", "hearth-hub-2"),
    }
    return _scene(number, (gateways[way],), _equipment(number, behaviours))


def reachable_twice(number: int, *, behaviours: Mapping[str, Behaviour] = MappingProxyType({})) -> Scene:
    """Return the same home with both gateways, so that a route can fail."""
    meter, broadband = (recognised(number, way).home.gateways[0] for way in ("meter", "broadband"))
    return _scene(number, (meter, broadband), _equipment(number, behaviours))


def without_gateway(number: int) -> Scene:
    """Return a home whose meter has no radio: nothing can be discovered."""
    return _scene(number, (), _equipment(number, {}))


def with_new_meter(number: int) -> GatewayPlan:
    """Return the gateway that such a home gets with its new meter."""
    return GatewayPlan(f"gw-{number:04d}-new", "meter", "acme-amg-4")


def with_bridge(number: int) -> GatewayPlan:
    """Return the gateway that such a home gets when its customer installs a bridge."""
    return GatewayPlan(f"gw-{number:04d}-bridge", "bridge", "hearth-bridge-1")


def with_scenes(plan: Plan) -> Plan:
    """Return a city in which the homes of the scenes are as they are before the customer calls."""
    scenes = {scene.home.premises: scene.home for scene in SCENES.values()}
    return Plan(tuple(scenes.get(home.premises, home) for home in plan.homes))


def _equipment(number: int, behaviours: Mapping[str, Behaviour]) -> dict[str, Boxed]:
    thermostat = Boxed(
        eui64=_eui64(number, 1),
        maker="Acme",
        model="PCT-2",
        hw=3,
        fw="1.4.0",
        categories=1 << 0,
        capabilities=("price", "text", "load.setpoint", "load.offset"),
        kind="thermostat",
        code=_code(number, THERMOSTAT),
    )
    equipment = {
        THERMOSTAT: thermostat,
        HEATER: replace(
            thermostat,
            eui64=_eui64(number, 2),
            model="LCS-1",
            categories=1 << 3 | 1 << 15,
            capabilities=("load.duty", "shed_report"),
            kind="load_switch",
            code=_code(number, HEATER),
            appears_s=0.4,
        ),
        DISPLAY: replace(
            thermostat,
            eui64=_eui64(number, 3),
            model="IHD-3",
            categories=0,
            capabilities=("price", "text", "metering"),
            kind="display",
            code=_code(number, DISPLAY),
            appears_s=0.6,
        ),
        UPSTAIRS: replace(thermostat, eui64=_eui64(number, 4), code=_code(number, UPSTAIRS), appears_s=0.8),
        DOOR: replace(
            thermostat,
            eui64=_eui64(number, 5),
            maker="Nestor",
            model="Door 7",
            categories=0,
            capabilities=(),
            kind=None,
            code=_code(number, DOOR),
            appears_s=1.0,
        ),
    }
    return {name: replace(one, behaviour=behaviours.get(name, WELL)) for name, one in equipment.items()}


def _scene(number: int, gateways: tuple[GatewayPlan, ...], equipment: Mapping[str, Boxed]) -> Scene:
    labels = {one.eui64: one.code for one in equipment.values()}
    labels[equipment[UPSTAIRS].eui64] = _code(number, "misprinted")
    return Scene(
        Home(f"pr-{number:04d}", gateways, (), tuple(equipment.values())),
        {name: one.eui64 for name, one in equipment.items()},
        labels,
    )


def _eui64(number: int, device: int) -> str:
    return f"00124B00{number:06X}{device:02X}"


def _code(number: int, what: str) -> str:
    return printed(blake2b(f"{number}/{what}".encode(), digest_size=CODE_BYTES).digest())


METER, BROADBAND, TWICE, NO_METER, BRIDGE = 50, 52, 53, 51, 54
SCENES: Final[Mapping[int, Scene]] = MappingProxyType(
    {
        METER: recognised(METER),
        NO_METER: without_gateway(NO_METER),
        BROADBAND: recognised(BROADBAND, "broadband"),
        TWICE: reachable_twice(TWICE),
        BRIDGE: without_gateway(BRIDGE),
    }
)
"""The homes of the demo city where somebody is about to call, by number."""
