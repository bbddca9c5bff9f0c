"""Provisioning put together: what opens sessions, keeps routes and sees changes through, over one store."""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore
from infra.ids import Ids
from infra.live import Live
from infra.outbox import Outbox
from infra.presence import Presence
from infra.settings.model import ProvisioningSettings, ShadowLimits
from provisioning.care import CustomerCare
from provisioning.desk import SEARCHES, Desk
from provisioning.executor import Executor
from provisioning.grants import LINK_KEYS, LinkKeys
from provisioning.hans import Hans
from provisioning.learning import Learning
from provisioning.moves import MOVES, Moves
from provisioning.observing import Observing
from provisioning.outgoing import OutboxOutgoing
from provisioning.ports import Belongings, Programs
from provisioning.reconciler import Reconciler
from provisioning.routes import ROUTES, RouteKeeper
from provisioning.service import SessionService
from provisioning.store import SESSIONS, SessionStore
from provisioning.tries import PROOF_TRIES, ProofTries
from provisioning.verifications import VERIFICATIONS, Verifications
from provisioning.work_orders import WORK_ORDERS, WorkOrders
from registry.accounts import AccountService
from registry.catalogue import ModelCatalogue
from registry.devices import DeviceService
from registry.gateways import GatewayService
from registry.meters import MeterService
from registry.service import RegistryService
from security.policy import Principal
from security.secretbox import SecretBox
from security.trust.issued import IssuedStore
from security.trust.pins import Pins
from shadow.service import ShadowService

COLLECTIONS: Final[tuple[Collection, ...]] = (
    SESSIONS,
    ROUTES,
    LINK_KEYS,
    VERIFICATIONS,
    PROOF_TRIES,
    WORK_ORDERS,
    MOVES,
    SEARCHES,
)


@dataclass(frozen=True, slots=True)
class Registers:
    """The services of the registry that provisioning stands on."""

    registry: RegistryService
    gateways: GatewayService
    devices: DeviceService
    models: ModelCatalogue
    meters: MeterService
    accounts: AccountService


@dataclass(frozen=True, slots=True)
class ProvisioningCenter:
    """All that is asked of it."""

    sessions: SessionService
    desk: Desk
    verifications: Verifications
    work_orders: WorkOrders
    moves: Moves
    routes: RouteKeeper

    async def reach_of(self, principal: Principal) -> frozenset[str]:
        """Return what is open to a person of ours now: accounts, or premises."""
        accounts = await self.verifications.reach_of(principal)
        return accounts | await self.work_orders.reach_of(principal)

    def runs(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what has to run, each until cancelled."""
        return self.sessions.run(), self.routes.run(), self.moves.run()


def open_provisioning(
    store: DocumentStore,
    *,
    clock: Clock,
    ids: Ids,
    live: Live,
    presence: Presence,
    settings: ProvisioningSettings,
    limits: ShadowLimits,
    registers: Registers,
    shadows: ShadowService,
    hans: Hans,
    box: SecretBox,
    issued: IssuedStore,
    pins: Pins,
    programs: Programs,
    belongings: Belongings,
    outbox: Outbox,
    care: CustomerCare,
) -> ProvisioningCenter:
    """Return provisioning over an open store; its parts share what they know."""
    registry, gateways, devices = registers.registry, registers.gateways, registers.devices
    keys, sessions, outgoing = LinkKeys(store, clock, box), SessionStore(store), OutboxOutgoing(outbox)
    verifications, work_orders = Verifications(store, clock), WorkOrders(store, clock, registry)
    tries = ProofTries(store, clock)
    routes = RouteKeeper(
        store, clock, registry=registry, gateways=gateways, hans=hans, shadows=shadows, presence=presence
    )
    observing = Observing(
        registry=registry,
        gateways=gateways,
        devices=devices,
        models=registers.models,
        hans=hans,
        presence=presence,
        keys=keys,
        issued=issued,
        programs=programs,
    )
    executor = Executor(
        sessions=sessions,
        registry=registry,
        gateways=gateways,
        devices=devices,
        models=registers.models,
        shadows=shadows,
        hans=hans,
        routes=routes,
        keys=keys,
        issued=issued,
        programs=programs,
        outgoing=outgoing,
    )
    service = SessionService(
        sessions=sessions,
        reconciler=Reconciler(
            sessions, observing, executor, verifications, tries, clock, live, registry, presence
        ),
        observing=observing,
        executor=executor,
        registry=registry,
        gateways=gateways,
        meters=registers.meters,
        verifications=verifications,
        tries=tries,
        work_orders=work_orders,
        programs=programs,
        keys=keys,
        pins=pins,
        issued=issued,
        clock=clock,
        ids=ids,
        settings=settings,
    )
    moves = Moves(
        store,
        clock,
        registry=registry,
        gateways=gateways,
        devices=devices,
        meters=registers.meters,
        sessions=sessions,
        shadows=shadows,
        limits=limits,
        hans=hans,
        routes=routes,
        keys=keys,
        executor=executor,
        programs=programs,
        belongings=belongings,
        outgoing=outgoing,
    )
    desk = Desk(
        store,
        clock,
        care=care,
        verifications=verifications,
        learning=Learning(registers.accounts, registry),
        searches_hour_max=settings.searches_hour_max,
    )
    return ProvisioningCenter(service, desk, verifications, work_orders, moves, routes)
