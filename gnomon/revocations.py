"""What a revocation acts on in this process: the registry, what was issued, the broker beside us."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from broker_bridge.janitor import Janitor
from broker_bridge.mosquitto import Mosquitto
from registry.errors import ThingNotFoundError
from registry.service import RegistryService
from security.audit import Via
from security.policy import Principal
from security.trust.crl import Revoked
from security.trust.issued import IssuedStore
from security.trust.revocation import Bar

REVOKED: Final = "revoked"
"""The reason where none was given."""


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """The Mosquitto that this process runs."""

    mosquitto: Mosquitto
    janitor: Janitor

    async def reload(self) -> None:
        """Have it read the revocation list; return when it has."""
        self.mosquitto.reload()
        await self.janitor.barrier()

    async def kick(self, name: str) -> None:
        """End all sessions of this name."""
        await self.janitor.kick(name)


class Recorded:
    """The record of what was issued, as revocations need it."""

    def __init__(self, issued: IssuedStore) -> None:
        self._issued = issued

    async def revoke_all(self, thing: str, reason: str, by: Principal, via: Via) -> None:
        """Revoke every certificate that the thing has now."""
        serials = [record.serial for record in await self._issued.not_revoked(thing)]
        await self._issued.revoke(serials, reason or REVOKED, by, via)

    async def revoked(self) -> Sequence[Revoked]:
        """Return all that are revoked and have not expired."""
        rows: list[Revoked] = []
        cursor: str | None = None
        while True:
            page, cursor = await self._issued.revoked(cursor=cursor)
            rows += page
            if cursor is None:
                return rows


def bar_in(registry: RegistryService) -> Bar:
    """Return the act that makes a thing count for nothing; one that is gone counts for nothing already."""

    async def bar(thing: str, by: Principal, via: Via) -> None:
        with suppress(ThingNotFoundError):
            await registry.revoke(thing, by, via)

    return bar
