"""The registry as the Trust Center sees it."""

from contextlib import suppress
from typing import Final

import structlog

from infra.machines import IllegalTransitionError
from registry.devices import DeviceService
from registry.models import ThingKind
from registry.service import RegistryService
from registry.states import DeviceTrigger
from security.policy import Principal, Role
from security.trust.proofs import IN_PERSON, Placing

TRUST_CENTER: Final = Principal("trust center", Role.SYSTEM)

_log: Final = structlog.get_logger(__name__)


class RegistryProofs:
    """Answers for things. What a proof means for the life of a thing is the registry's to say."""

    def __init__(self, registry: RegistryService, devices: DeviceService) -> None:
        self._registry = registry
        self._devices = devices

    async def placing(self, thing: str, *, fresh: bool = False) -> Placing | None:
        """Return what is known of a thing."""
        standing = (await self._registry.standings([thing], fresh=fresh)).get(thing)
        if standing is None:
            return None
        found, premises = standing.thing, standing.premises
        return Placing(
            premises=found.premises,
            is_gateway=found.kind is ThingKind.GATEWAY,
            model=found.model,
            has_certificate=found.has_certificate,
            barred=found.barred,
            registration=found.registration,
            since_ms=0 if premises is None else premises.since_ms,
        )

    async def proof_accepted(self, thing: str, kind: str, serial: str) -> None:
        """Say that a thing has proved itself; the audit names those whom we let in ourselves."""
        if kind != IN_PERSON:
            _log.info("proof_accepted", thing=thing, kind=kind, serial=serial)
        # A device that nobody has seen in a session, or that is no device, is none the further for it.
        with suppress(IllegalTransitionError):
            await self._devices.apply(thing, DeviceTrigger.PROVED, TRUST_CENTER, reason=kind)
