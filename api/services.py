"""What the API stands on; the composition root fills it in."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from api.limits import ApiLimits
from infra.clock import Clock
from infra.documents.port import DocumentStore
from infra.ids import Ids
from infra.live import Live
from infra.outbox import Outbox
from infra.settings import Settings
from infra.telemetry import Metrics
from ota.opening import Ota
from programs.opening import Programs
from provisioning.center import ProvisioningCenter
from registry.accounts import AccountService
from registry.catalogue import ModelCatalogue
from registry.devices import DeviceService
from registry.gateways import GatewayService
from registry.meters import MeterService
from registry.service import RegistryService
from security.audit import Refusals, Via
from security.heads import Heads
from security.people.people import People
from security.policy import Action, Principal
from security.trust.center import TrustCenter
from shadow.service import ShadowService

Readiness = Callable[[], Awaitable[tuple[str, ...]]]
"""Returns why this process cannot do its work now; nothing when it can."""

Revoke = Callable[[str, Principal, Via, str], Awaitable[bool]]
"""Revokes a thing and all its certificates, with a reason; False: a live session may last a little longer."""

Figures = Callable[[], Awaitable[Mapping[str, int | float | str]]]
"""Returns the figures of the fleet by name, each with its unit in the name."""


class Bearer(Protocol):
    """Knows who holds a bearer token now."""

    async def principal(self, bearer: str, /) -> Principal | None:
        """Return who that is; None for whatever is no token, or is one no longer."""


class StepUps(Protocol):
    """Knows which acts somebody has confirmed by a fresh second factor."""

    async def take(self, by: Principal, action: Action, target: str, body_sha256: str, token: str, /) -> bool:
        """Tell whether this token confirms exactly this act; it counts once."""


class NoStepUps:
    """Nobody has confirmed anything."""

    async def take(
        self,
        principal: Principal,  # noqa: ARG002 - the port's signature
        action: Action,  # noqa: ARG002
        target: str,  # noqa: ARG002
        body_sha256: str,  # noqa: ARG002
        token: str,  # noqa: ARG002
    ) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class ApiServices:
    """Everything a handler may ask."""

    shadows: ShadowService
    registry: RegistryService
    models: ModelCatalogue
    accounts: AccountService
    meters: MeterService
    gateways: GatewayService
    devices: DeviceService
    programs: Programs
    ota: Ota
    revoke: Revoke
    store: DocumentStore
    """Only to read the audit trail."""
    refusals: Refusals
    people: People
    bearer: Bearer
    metrics: Metrics
    live: Live
    clock: Clock
    ids: Ids
    settings: Settings
    readiness: Readiness
    figures: Figures
    trust: TrustCenter
    provisioning: ProvisioningCenter
    outbox: Outbox
    version: str
    """Of this Gnomon."""
    heads: Heads | None = None
    """Of the audit chain, as they are published; None where no chain is kept."""
    limits: ApiLimits = field(default_factory=ApiLimits)
    step_ups: StepUps = field(default_factory=NoStepUps)
