"""What firmware can be brought to: the devices, and things that nobody has made a device of.

The utility registers its gateways and meters with their model, and so by hand what no session has seen; that
is all that has to be known of them. Where there is a device, it is what counts.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final, Protocol

from registry.devices import DeviceService
from registry.gateways import GatewayKind, GatewayService
from registry.lifecycle import Device
from registry.models import Standing, Thing, ThingKind
from registry.service import RegistryService
from registry.states import Lifecycle

AT_ONCE: Final = 500
EQUIPMENT_MAX: Final = 200_000
"""Of one model that is looked at."""


class Kind(StrEnum):
    """What a piece of equipment is."""

    METER = "meter"
    """The radio of a meter, which is a gateway."""
    GATEWAY = "gateway"
    DEVICE = "device"


class Known(Protocol):
    """Knows devices."""

    async def devices(self, ids: Collection[str]) -> dict[str, Device]:
        """Return what is known of these, by name."""
        ...


class Equipment:
    """Looks equipment up."""

    def __init__(self, devices: DeviceService, gateways: GatewayService, registry: RegistryService) -> None:
        self._devices = devices
        self._gateways = gateways
        self._registry = registry

    async def devices(self, ids: Collection[str]) -> dict[str, Device]:
        """Return what is known of these, by name; of what is neither device nor thing nothing is."""
        found = await self._devices.devices(ids)
        if missing := [id for id in ids if id not in found]:
            standings = await self._registry.standings(missing)
            found |= {id: _device(one.thing) for id, one in standings.items()}
        return found

    async def of_model(self, model: str) -> AsyncIterator[list[Device]]:
        """Yield all of a model, some at a time: the devices, then the other things."""
        after: str | None = None
        for _ in range(EQUIPMENT_MAX // AT_ONCE):
            devices = await self._devices.of_model(model, AT_ONCE, after)
            yield list(devices.devices)
            if (after := devices.next) is None:
                break
        after = None
        for _ in range(EQUIPMENT_MAX // AT_ONCE):
            things = await self._registry.of_model(model, AT_ONCE, after)
            yield await self._strangers(things.things)
            if (after := things.next) is None:
                break

    async def kinds(self, standings: Iterable[Standing]) -> Mapping[str, Kind]:
        """Return what each is, by name."""
        things = [one.thing for one in standings]
        gateways = [one.name for one in things if one.kind is ThingKind.GATEWAY]
        known = await self._gateways.gateways(gateways) if gateways else {}
        meters = {id for id, one in known.items() if one.kind is GatewayKind.METER}
        return {one.name: Kind.METER if one.name in meters else Kind(one.kind) for one in things}

    async def _strangers(self, things: Iterable[Thing]) -> list[Device]:
        """Return those that are no devices, whatever model a device of their name is."""
        by_name = {one.name: one for one in things}
        known = await self._devices.devices(by_name)
        return [_device(one) for name, one in by_name.items() if name not in known]


def _device(thing: Thing) -> Device:
    """Return what is known of a thing by its registration alone."""
    return Device(
        id=thing.name,
        model=thing.model,
        owner=thing.owner,
        premises=thing.premises,
        lifecycle=Lifecycle.COMMISSIONED,
    )
