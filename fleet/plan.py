"""Which homes a simulated city has: pure values, drawn by hash from one seed.

Here lives *what there is* (premises, gateways, devices, who speaks for whom).
How a device behaves is in `device`, how it connects in `simulation`. Every draw
depends on (seed, home, question) only, so home 12 of a city of 60 is the same
home in a city of 6,000, and no draw moves the next one.

    premises pr-0012
      gw-0012-meter   meter               speaks for the Zigbee devices
      gw-0012-home    customer_broadband  speaks for them too in some homes (fail-over)
      th-0012-hall    thermostat          own certificate, or spoken for
      ls-0012-heater  load switch         no IP: always spoken for
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

from fleet.link_keys import link_key
from fleet.program import WELL, Behaviour

HOMES_MAX = 99_999

GatewayKind = Literal["meter", "customer_broadband", "bridge"]
DeviceKind = Literal["thermostat", "load_switch", "display"]


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """A gateway: it connects with its own certificate and speaks for attached devices."""

    name: str
    kind: GatewayKind
    model: str
    technology: str = "zigbee-se1"


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A device; ``gateways`` are those it is attached to, the preferred one first."""

    name: str
    kind: DeviceKind
    model: str
    has_certificate: bool
    gateways: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxed:
    """A device that its customer has bought and plugged in: a gateway sees it, nobody knows it yet."""

    eui64: str
    maker: str
    model: str
    hw: int = 1
    fw: str = "1.0.0"
    categories: int = 0
    """Bits of IEEE 2030.5 device categories."""
    capabilities: tuple[str, ...] = ()
    kind: DeviceKind | None
    """None for what is no equipment of any program, such as a door sensor."""
    code: str
    """Its install code, as it is printed on the label."""
    appears_s: float = 0.2
    """From the opening of the window to being seen."""
    rssi: int = -60
    behaviour: Behaviour = field(default=WELL)

    @property
    def link_key(self) -> bytes:
        """Return the key with which it joins."""
        return link_key(self.code)

    @property
    def controls_load(self) -> bool:
        """Whether it counts among the load-control devices of a gateway."""
        return self.kind in {"thermostat", "load_switch"}


@dataclass(frozen=True, slots=True)
class Home:
    """One premises with all that is in it."""

    premises: str
    gateways: tuple[GatewayPlan, ...]
    devices: tuple[DevicePlan, ...]
    boxed: tuple[Boxed, ...] = ()
    """In sight of each of its gateways."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A city: what the registry must hold and the simulation brings to life."""

    homes: tuple[Home, ...]


# Share of homes, in percent.
METER_ONLY_SHARE, BROADBAND_ONLY_SHARE = 25, 15  # the others have both
SHARED_SHARE = 40  # of the homes with both: devices attached to both gateways
OWN_CERTIFICATE_SHARE = 50  # of thermostats: Wi-Fi models, which connect themselves
ALSO_ATTACHED_SHARE = 30  # of those: also on the gateway's radio, so reachable twice

# What a home may have: room, kind, models, share of homes that have it.
_ROOMS: tuple[tuple[str, DeviceKind, tuple[str, ...], int], ...] = (
    ("hall", "thermostat", ("acme-pct-2", "norland-t1"), 100),
    ("upstairs", "thermostat", ("acme-pct-2", "norland-t1"), 50),
    ("heater", "load_switch", ("acme-lcs-1", "voltaire-30a"), 80),
    ("pool", "load_switch", ("voltaire-30a",), 28),
    ("kitchen", "display", ("acme-ihd-3",), 75),
)
_PREFIX: dict[DeviceKind, str] = {"thermostat": "th", "load_switch": "ls", "display": "dp"}
_WIFI_MODEL = "norland-t1-wifi"


def city(homes: int, seed: int) -> Plan:
    """Return a city of ``homes`` homes; the same arguments give the same city."""
    if not 0 <= homes <= HOMES_MAX:
        raise ValueError(f"a city has 0 to {HOMES_MAX} homes, not {homes}: ask for fewer")
    return Plan(tuple(_home(seed, number) for number in range(1, homes + 1)))


def _home(seed: int, number: int) -> Home:
    gateways = _gateways(seed, number)
    devices = tuple(_devices(seed, number, gateways))
    return Home(f"pr-{number:04d}", gateways, devices)


def _gateways(seed: int, number: int) -> tuple[GatewayPlan, ...]:
    meter = GatewayPlan(f"gw-{number:04d}-meter", "meter", "acme-amg-4")
    broadband = GatewayPlan(f"gw-{number:04d}-home", "customer_broadband", "hearth-hub-2")
    share = _percent(seed, number, "gateways")
    if share < METER_ONLY_SHARE:
        return (meter,)
    if share < METER_ONLY_SHARE + BROADBAND_ONLY_SHARE:
        return (broadband,)
    return (meter, broadband)


def _devices(seed: int, number: int, gateways: tuple[GatewayPlan, ...]) -> Iterator[DevicePlan]:
    speakers = _speakers(seed, number, gateways)
    for room, kind, models, share in _ROOMS:
        if _percent(seed, number, f"{room} exists") >= share:
            continue
        name = f"{_PREFIX[kind]}-{number:04d}-{room}"
        if kind == "thermostat" and _percent(seed, number, f"{room} wifi") < OWN_CERTIFICATE_SHARE:
            attached = speakers if _percent(seed, number, f"{room} twice") < ALSO_ATTACHED_SHARE else ()
            yield DevicePlan(name, kind, _WIFI_MODEL, has_certificate=True, gateways=attached)
        else:
            model = models[_percent(seed, number, f"{room} model") % len(models)]
            yield DevicePlan(name, kind, model, has_certificate=False, gateways=speakers)


def _speakers(seed: int, number: int, gateways: tuple[GatewayPlan, ...]) -> tuple[str, ...]:
    """Return the gateways this home's radio devices are attached to."""
    names = tuple(gateway.name for gateway in gateways)
    if len(names) == 1 or _percent(seed, number, "shared") < SHARED_SHARE:
        return names
    return (names[_percent(seed, number, "speaker") % len(names)],)


def _percent(seed: int, number: int, question: str) -> int:
    """Answer ``question`` about this home with 0 to 99, always the same."""
    digest = blake2b(f"{seed}/{number}/{question}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 100
