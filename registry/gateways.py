"""Gateways: what kind each is, how much it takes, and which come first. They are things, too.

A gateway without a thing that may speak serves nobody, whatever is written here.
"""

from collections.abc import Collection as SizedIterable
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, IndexValue
from infra.documents.records import Records
from registry.errors import GatewayNotFoundError, InvalidDetailError, NotAGatewayError, PremisesMismatchError
from registry.models import Standing, ThingKind
from registry.rules import THINGS_PER_PREMISES_MAX, check_id, check_text
from registry.service import RegistryService
from security.audit import INSIDE, Via
from security.audited import Audited
from security.policy import Principal

GATEWAYS: Final = "gateways"
COLLECTION: Final = Collection(GATEWAYS, ("premises",))
DEVICES_DEFAULT: Final = 5
DEVICES_MAX: Final = 64
TECHNOLOGIES_MAX: Final = 16
PRIORITY_MAX: Final = 1_000


class GatewayKind(StrEnum):
    """What connects a HAN, and whose it is."""

    METER = "meter"
    """A meter with a HAN radio: the utility's own, over its metering network."""
    STANDALONE = "standalone"
    """Beside the meter, run for the utility."""
    CUSTOMER_BROADBAND = "customer_broadband"
    """The customer's: acts only for what is attached to it."""
    BRIDGE = "bridge"
    """Makes one HAN technology reachable through another."""


PRIORITY: Final[Mapping[GatewayKind, int]] = MappingProxyType(
    {
        GatewayKind.METER: 10,
        GatewayKind.STANDALONE: 10,
        GatewayKind.CUSTOMER_BROADBAND: 20,
        GatewayKind.BRIDGE: 30,
    }
)
"""The lowest number comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway, by its thing name. A device with its own WAN is one to itself (``customer_broadband``)."""

    id: str
    kind: GatewayKind
    premises: str
    parent: str = ""
    """Of a bridge without a WAN: the gateway behind which it hangs."""
    wan: str = ""
    technologies: frozenset[str] = frozenset()
    """What HANs it makes or reaches."""
    devices_max: int = DEVICES_DEFAULT
    load_control_max: int = DEVICES_DEFAULT
    """How many of the devices may control loads."""
    priority: int | None = None
    """None: as its kind has it."""
    installed_by: str = ""
    supplier: str = ""

    @property
    def rank(self) -> int:
        """Which comes first, the lowest number."""
        return PRIORITY[self.kind] if self.priority is None else self.priority


def capacity_refusal(gateway: Gateway, *, attached: int, grants: int, load_control: int) -> str | None:
    """Return why a gateway can not have these, None if it can.

    All three count what is asked for too: devices attached, devices that open grants let in, and how many of
    both control loads.
    """
    devices = attached + grants
    if devices > gateway.devices_max:
        return f"this gateway takes {gateway.devices_max} devices, and this would be number {devices}"
    if load_control > gateway.load_control_max:
        return (
            f"this gateway takes {gateway.load_control_max} devices that control loads, "
            f"and this would be number {load_control}"
        )
    return None


def check(gateway: Gateway) -> None:
    """Raise :class:`InvalidDetailError` unless a gateway can be so."""
    check_id(gateway.id)
    check_text(gateway.wan, gateway.installed_by, gateway.supplier, *gateway.technologies)
    if len(gateway.technologies) > TECHNOLOGIES_MAX:
        raise InvalidDetailError(f"a gateway has at most {TECHNOLOGIES_MAX} technologies")
    if not 0 <= gateway.load_control_max <= gateway.devices_max <= DEVICES_MAX:
        raise InvalidDetailError(
            f"a gateway takes up to {DEVICES_MAX} devices, and no more that control loads than devices"
        )
    if not 0 <= gateway.rank <= PRIORITY_MAX:
        raise InvalidDetailError(f"a priority is 0 to {PRIORITY_MAX}")
    if gateway.parent == gateway.id:
        raise NotAGatewayError("a gateway does not hang behind itself")


class GatewayService:
    """Looks gateways up and keeps what is known of them."""

    def __init__(self, store: DocumentStore, clock: Clock, registry: RegistryService) -> None:
        self._records = Records(store, GATEWAYS, Gateway, _found_by)
        self._audited = Audited(self._records, clock, "gateway")
        self._registry = registry

    async def gateway(self, id: str) -> Gateway:
        """Return what is known of a gateway, also of one that serves nobody now."""
        kept = await self._records.load(id)
        if kept is None:
            raise GatewayNotFoundError(id)
        return kept.record

    async def gateways(self, ids: SizedIterable[str]) -> dict[str, Gateway]:
        """Return the gateways that are known, by id, also those that serve nobody now."""
        return await self._records.load_all(ids)

    async def at(self, premises: str) -> tuple[Gateway, ...]:
        """Return the gateways that may serve premises now, the one that comes first first."""
        page = await self._records.page("premises", premises, premises, THINGS_PER_PREMISES_MAX)
        standings = await self._registry.standings([one.id for one in page.records])
        able = [one for one in page.records if _may_serve(one, standings.get(one.id))]
        return tuple(sorted(able, key=_order))

    async def put(self, gateway: Gateway, by: Principal, via: Via = INSIDE) -> Gateway:
        """Keep what is known of a gateway, whose thing is registered at its premises."""
        check(gateway)
        thing = await self._registry.thing(gateway.id)
        if thing.kind is not ThingKind.GATEWAY and gateway.kind is not GatewayKind.CUSTOMER_BROADBAND:
            raise NotAGatewayError("only a thing of kind gateway can be a gateway of this kind")
        if thing.premises != gateway.premises:
            raise PremisesMismatchError(gateway.id, gateway.id)
        if gateway.parent and (await self.gateway(gateway.parent)).premises != gateway.premises:
            raise PremisesMismatchError(gateway.parent, gateway.id)
        return await self._audited.change(gateway.id, lambda _before: gateway, "gateway.write", by, via)


def _may_serve(gateway: Gateway, standing: Standing | None) -> bool:
    # Its name may have been registered again, at other premises.
    return standing is not None and not standing.thing.barred and standing.thing.premises == gateway.premises


def _order(gateway: Gateway) -> tuple[int, str]:
    return gateway.rank, gateway.id


def _found_by(gateway: Gateway) -> Mapping[str, IndexValue]:
    return {"premises": gateway.premises}
