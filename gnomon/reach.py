"""Which things can be reached now: connected themselves, or behind a gateway that is. A hint."""

from collections.abc import Collection

from infra.presence import Presence
from provisioning.hans import Hans
from registry.models import Standing
from registry.service import RegistryService


class Reach:
    """Answers programs, which wait longer for what is away."""

    def __init__(self, presence: Presence, registry: RegistryService, hans: Hans) -> None:
        self._presence = presence
        self._registry = registry
        self._hans = hans

    async def online(self, things: Collection[str]) -> frozenset[str]:
        """Return those that could answer now."""
        standings = await self._registry.standings(things)
        return frozenset([name for name, standing in standings.items() if await self._reaches(standing)])

    async def _reaches(self, standing: Standing) -> bool:
        name = standing.thing.name
        if self._presence.is_here(name):
            return True
        gateways = [gateway for gateway in sorted(standing.gateways) if self._presence.is_here(gateway)]
        for han in (await self._hans.of_all(gateways)).values():
            said = han.attached.get(name)
            # A gateway without a HAN of its own says nothing of what it speaks for: then it counts itself.
            if said is None or said.online:
                return True
        return False
