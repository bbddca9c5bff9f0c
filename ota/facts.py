"""What is known of devices, read for many at once."""

from collections.abc import AsyncIterator, Collection, Iterable
from itertools import islice

from ota import reports
from ota.campaign import Selector
from ota.equipment import AT_ONCE, Equipment
from ota.lane import ExecutionLane
from ota.models import FIRMWARE
from ota.needs import DeviceFacts, takes_part
from ota.states import ACTIVE, OFFERED
from registry.catalogue import ModelCatalogue
from registry.lifecycle import Device
from registry.service import RegistryService
from shadow.document import ShadowId
from shadow.service import ShadowService


class FactReader:
    """Reads what ``needs`` judges by."""

    def __init__(
        self,
        equipment: Equipment,
        registry: RegistryService,
        models: ModelCatalogue,
        shadows: ShadowService,
        lane: ExecutionLane,
    ) -> None:
        self._equipment = equipment
        self._registry = registry
        self._models = models
        self._shadows = shadows
        self._lane = lane

    async def of(self, things: Collection[str]) -> dict[str, DeviceFacts]:
        """Return what is known of these; of what is neither device nor thing nothing is."""
        found: dict[str, DeviceFacts] = {}
        for some in _portions(things):
            devices = await self._equipment.devices(some)
            found |= {one.device.id: one for one in await self._read(list(devices.values()))}
        return found

    async def select(self, model: str, selector: Selector) -> AsyncIterator[list[DeviceFacts]]:
        """Yield what is known of the devices of a selector, some at a time.

        Those that it names by themselves are looked at whatever model they are of.
        """
        premises = frozenset(selector.premises)

        def fits(one: Device) -> bool:
            here = not premises or one.premises in premises
            return here and (selector.owner is None or one.owner is selector.owner)

        if selector.things:
            for some in _portions(sorted(set(selector.things))):
                devices = await self._equipment.devices(some)
                yield await self._read([one for one in devices.values() if fits(one)])
            return
        async for every in self._equipment.of_model(model):
            yield await self._read([one for one in every if fits(one)])

    async def strangers(self, selector: Selector) -> int:
        """Return how many names of a selector are of nothing that takes part; whether it exists, none tells.

        Where else such a device is looked for by name does not matter: that would tell where it is.
        """
        count = 0
        for some in _portions(sorted(set(selector.things))):
            devices, standings = await self._equipment.devices(some), await self._registry.standings(some)
            count += sum(
                1
                for name in some
                if name not in devices or not takes_part(devices[name], standings.get(name))
            )
        return count

    async def _read(self, devices: Collection[Device]) -> list[DeviceFacts]:
        names = [one.id for one in devices]
        if not names:
            return []
        standings = await self._registry.standings(names)
        models = await self._models.models({one.model for one in devices})
        shadows = await self._shadows.views([ShadowId(name, FIRMWARE) for name in names])
        jobs = await self._lane.views(names)
        found: list[DeviceFacts] = []
        for device in devices:
            shadow = shadows.get(ShadowId(device.id, FIRMWARE))
            open = jobs[device.id].open
            found.append(
                DeviceFacts(
                    device=device,
                    standing=standings.get(device.id),
                    model=models.get(device.model),
                    report=reports.NOTHING if shadow is None else reports.read(shadow.reported.state),
                    heard_at_ms=0 if shadow is None else shadow.at_ms,
                    other=frozenset(one.campaign for one in open),
                    busy_with=frozenset(one.campaign for one in open if one.state in OFFERED | ACTIVE),
                )
            )
        return found


def _portions(names: Iterable[str]) -> Iterable[list[str]]:
    waiting = iter(names)
    while some := list(islice(waiting, AT_ONCE)):
        yield some
