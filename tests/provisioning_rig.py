"""Provisioning as a process would run it, over a store that outlives it, with a real home at the other end.

The gateways are those of the fleet; programs and the outbox stand-ins that keep their ports' promises.
"""

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from fleet import provisioning as scenes
from fleet.network import Network
from fleet.program import Programs
from infra.documents.memory import MemoryStore
from infra.documents.port import DocumentStore
from infra.live import Live
from infra.presence import Presence
from infra.settings.model import ProvisioningSettings, ShadowLimits
from infra.telemetry import Metrics
from ota.belongings import Belongings
from ota.collections import COLLECTIONS as OTA
from ota.installed import InstalledService
from ota.snapshots import SnapshotService, factory_defaults
from programs.collections import COLLECTIONS as PROGRAMS
from programs.collections import LOGS as PROGRAM_LOGS
from programs.opening import open_programs
from programs.states import LIVE, EnrolmentState
from provisioning.asking import Ask
from provisioning.center import COLLECTIONS as PROVISIONING
from provisioning.executor import Executor
from provisioning.grants import LinkKeys
from provisioning.hans import Hans
from provisioning.moves import Moves
from provisioning.observed import Enrolled
from provisioning.observing import Observing
from provisioning.ports import Candidate, Offer, Outgoing, WillNotWorkError
from provisioning.reconciler import Reconciler
from provisioning.routes import RouteKeeper
from provisioning.service import Discovery, NewGrant, NewSession, SessionService
from provisioning.session import Consent, Proof, Record, Session, pair
from provisioning.store import SessionStore
from provisioning.taking_part import TakingPart
from provisioning.tries import ProofTries
from provisioning.verifications import NewVerification, Outcome, Verifications
from provisioning.work_orders import WorkOrders
from registry.accounts import Account, AccountService
from registry.catalogue import ModelCatalogue
from registry.collections import COLLECTIONS
from registry.devices import DeviceService
from registry.gateways import Gateway, GatewayKind, GatewayService
from registry.meters import Meter, MeterService
from registry.models import NewThing, Owner, ThingKind
from registry.service import RegistryService
from security import audit
from security.policy import Principal, Role
from security.secret import Secret
from security.secretbox import SecretBox
from security.trust.collections import COLLECTIONS as TRUST
from security.trust.issued import IssuedStore
from shadow.commands import Channel, Origin, update
from shadow.decisions import Accepted
from shadow.document import ShadowId, delta, merge_patch_between
from shadow.errors import NoShadowError
from shadow.records import LOGS, SHADOWS
from shadow.service import ShadowService
from shadow.store import ShadowStore
from tests.fakes import FakeClock, SeededIds
from tests.shadow_rig import running

LIMITS = ShadowLimits()
OPERATOR = Principal("otto", Role.OPERATOR)
ROSA = Principal("rosa", Role.REP)
IVO = Principal("ivo", Role.INSTALLER)
ADA = Principal("ada", Role.CUSTOMER, account="ac-0007")
PREMISES, ACCOUNT = "pr-0007", "ac-0007"
ALL = [
    *COLLECTIONS,
    *PROGRAMS,
    *TRUST,
    *PROVISIONING,
    *OTA,
    SHADOWS,
]


def open_store() -> MemoryStore:
    return MemoryStore(ALL, [*LOGS, *PROGRAM_LOGS, audit.LOG])


class FakePrograms:
    """Programs that take whoever is not said to be unfit, and devices that answer when they are told to."""

    def __init__(self) -> None:
        self.known = {id: Offer(id, id.upper(), "1") for id in ("cpp-27", "tou-res", "dlc-ac")}
        self.unfit: dict[tuple[str, str], tuple[str, ...]] = {}
        self.made: dict[str, Enrolled] = {}
        self.given: dict[str, str] = {}
        self.answer = EnrolmentState.READY
        """What a device does of itself once it is told."""
        self.calls: list[tuple[str, ...]] = []

    async def offers(self, programs: Collection[str]) -> Mapping[str, Offer]:
        return {id: self.known[id] for id in programs if id in self.known}

    async def weigh(
        self, device: Candidate, chosen: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Mapping[str, Sequence[str]]:
        return {id: self.unfit.get((device.id, id), ()) for id in (self.known if chosen is None else chosen)}

    async def enrolments(self, things: Collection[str]) -> Mapping[str, Enrolled]:
        return {key: one for key, one in self.made.items() if key.partition("/")[0] in things}

    async def consents(self, things: Collection[str], account: str) -> Mapping[str, str]:
        return {key: one for key, one in self.given.items() if key.partition("/")[0] in things}

    async def give(self, thing: str, consent: Consent, account: str) -> None:
        self.calls.append(("give", thing, consent.program))
        self.given[pair(thing, consent.program)] = consent.text_version

    async def enrol(
        self, thing: str, program: str, account: str, premises: str, params: Mapping[str, Any]
    ) -> None:
        key = pair(thing, program)
        if self.unfit.get((thing, program)):
            raise WillNotWorkError(self.unfit[thing, program][0])
        if key not in self.made or self.made[key].state not in LIVE:
            self.calls.append(("enrol", thing, program))
            self.made[key] = Enrolled(f"enr-{thing}-{program}", self.answer, 1)

    async def retry(self, enrolment: str) -> None:
        key = self._key(enrolment)
        self.made[key] = Enrolled(enrolment, self.answer, self.made[key].rev + 1)

    async def end(self, enrolment: str, reason: str) -> None:
        key = self._key(enrolment)
        self.calls.append(("end", enrolment))
        self.made[key] = Enrolled(enrolment, EnrolmentState.ENDED, self.made[key].rev)

    async def carry_over(self, old: str, new: str, account: str, premises: str) -> None:
        for key, one in list(self.made.items()):
            thing, _, program = key.partition("/")
            if thing == old and one.state in LIVE:
                self.calls.append(("carry", new, program))
                self.made.setdefault(pair(new, program), Enrolled(f"enr-{new}-{program}", self.answer, 1))

    async def end_all(self, thing: str, reason: str) -> bool:
        for key, one in self.made.items():
            if key.partition("/")[0] == thing:
                self.made[key] = Enrolled(one.id, EnrolmentState.ENDED, one.rev)
        return True

    def become(self, thing: str, program: str, state: EnrolmentState, code: str = "") -> None:
        key = pair(thing, program)
        self.made[key] = Enrolled(self.made[key].id, state, self.made[key].rev, code)

    def _key(self, enrolment: str) -> str:
        return next(key for key, one in self.made.items() if one.id == enrolment)


class Everybody:
    """All can be reached."""

    async def online(self, things: Collection[str]) -> set[str]:
        return set(things)


class FakeOutgoing:
    """An outbox: each key once, in order."""

    def __init__(self) -> None:
        self.taken: dict[str, tuple[str, Record]] = {}

    async def put(self, premises: str, records: Sequence[Record]) -> None:
        for one in records:
            self.taken.setdefault(one.key, (premises, one))

    def kinds(self) -> list[str]:
        return [one.kind for _, one in self.taken.values()]


class World:
    """What outlives a process: the store, time, the home, and what programs and the outbox keep."""

    def __init__(
        self,
        directory: Path,
        scene: scenes.Scene | None = None,
        *,
        real: bool = False,
        store: DocumentStore | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        self.store: DocumentStore = store or open_store()
        self.clock = clock or FakeClock()
        self.directory = directory
        self.scene = scene or scenes.recognised(7)
        self.programs = FakePrograms()
        self.real = real
        """With the real programs, and devices that answer through their gateways."""
        self.equipment: dict[str, Programs] = {}
        self.outgoing = FakeOutgoing()
        self.networks: dict[str, Network] = {}
        self.away: set[str] = set()
        self.asked = 0

    @asynccontextmanager
    async def process(self, settings: ProvisioningSettings | None = None) -> AsyncIterator["Process"]:
        """Run one process, until the block ends or is left by an error: then all it had in memory is gone."""
        one = Process(self, settings)
        async with running(one.shadows):
            yield one

    def ask(self, by: Principal = ROSA, **fields: Any) -> Ask:
        self.asked += 1
        return Ask(by=by, **{"key": f"key-{self.asked}", "digest": f"digest-{self.asked}", **fields})


class Process:
    """The services of one process."""

    def __init__(
        self,
        world: World,
        settings: ProvisioningSettings | None = None,
        *,
        live: Live | None = None,
        shadows: ShadowService | None = None,
        registry: RegistryService | None = None,
        outgoing: Outgoing | None = None,
    ) -> None:
        """Make them; those that are given are shared with who gives them."""
        self.world, clock, store, ids = world, world.clock, world.store, SeededIds(world.asked)
        box = SecretBox.open(world.directory / "master.key", SeededIds())
        self.live, self.presence = live or Live(), Presence()
        self.shadows = shadows or ShadowService(
            ShadowStore(store, LIMITS, 10_000_000), clock, ids, LIMITS, Metrics(), self.live
        )
        self.registry = registry or RegistryService(store, clock)
        self.gateways = GatewayService(store, clock, self.registry)
        self.devices = DeviceService(store, clock, self.registry)
        self.models = ModelCatalogue(store, clock)
        self.meters = MeterService(store, clock)
        self.issued = IssuedStore(store, clock)
        self.hans = Hans(self.shadows, LIMITS)
        self.keys = LinkKeys(store, clock, box)
        self.accounts = AccountService(store, clock)
        part = open_programs(
            store,
            clock,
            devices=self.devices,
            models=self.models,
            accounts=self.accounts,
            registry=self.registry,
            shadows=self.shadows,
            presence=Everybody(),
            limits=LIMITS,
        )
        self.catalogue, self.consents, self.enrolments = part.catalogue, part.consents, part.enrolments
        self.taking_part = TakingPart(
            catalogue=self.catalogue,
            consents=self.consents,
            enrolments=self.enrolments,
            accounts=self.accounts,
            devices=self.devices,
            models=self.models,
        )
        programs: Any = self.taking_part if world.real else world.programs
        self.verifications = Verifications(store, clock)
        self.tries = ProofTries(store, clock)
        self.work_orders = WorkOrders(store, clock, self.registry)
        self.sessions = SessionStore(store)
        self.routes = RouteKeeper(
            store,
            clock,
            registry=self.registry,
            gateways=self.gateways,
            hans=self.hans,
            shadows=self.shadows,
            presence=self.presence,
        )
        parts: dict[str, Any] = {
            "registry": self.registry,
            "gateways": self.gateways,
            "devices": self.devices,
            "models": self.models,
            "hans": self.hans,
            "keys": self.keys,
            "issued": self.issued,
            "programs": programs,
        }
        self.observing = Observing(presence=self.presence, **parts)
        self.executor = Executor(
            sessions=self.sessions,
            shadows=self.shadows,
            routes=self.routes,
            outgoing=outgoing or world.outgoing,
            **parts,
        )
        self.reconciler = Reconciler(
            self.sessions,
            self.observing,
            self.executor,
            self.verifications,
            self.tries,
            clock,
            self.live,
            self.registry,
            self.presence,
        )
        self.snapshots = SnapshotService(
            store,
            clock,
            shadows=self.shadows,
            devices=self.devices,
            defaults=factory_defaults(self.models),
            limits=LIMITS,
        )
        self.moves = Moves(
            store,
            clock,
            registry=self.registry,
            gateways=self.gateways,
            devices=self.devices,
            meters=self.meters,
            sessions=self.sessions,
            shadows=self.shadows,
            limits=LIMITS,
            hans=self.hans,
            routes=self.routes,
            keys=self.keys,
            executor=self.executor,
            programs=programs,
            belongings=Belongings(self.snapshots, InstalledService(store, clock)),
            outgoing=outgoing or world.outgoing,
        )
        self.service = SessionService(
            sessions=self.sessions,
            reconciler=self.reconciler,
            observing=self.observing,
            executor=self.executor,
            registry=self.registry,
            gateways=self.gateways,
            meters=self.meters,
            verifications=self.verifications,
            tries=self.tries,
            work_orders=self.work_orders,
            programs=programs,
            keys=self.keys,
            pins=_NoPins(),  # type: ignore[arg-type] # the Trust Center's own suite has them
            issued=self.issued,
            clock=clock,
            ids=ids,
            settings=settings or ProvisioningSettings(),
        )
        for name in world.networks:
            if name not in world.away:
                self.presence.came(name)

    # ------------------------------------------------------------------ the home

    async def settle_in(self) -> None:
        """Make the home known: its premises, its gateways and its meter."""
        await self.models.seed()
        await self.catalogue.seed()
        await self.accounts.put(Account(id=ACCOUNT, customer="cu-7", tariff="res"), OPERATOR)
        await self.registry.hand_over(PREMISES, ACCOUNT, OPERATOR)
        for plan in self.world.scene.home.gateways:
            await self.bring(plan.name, GatewayKind(plan.kind))
        await self.meters.put(
            Meter(
                id="m-7",
                model="acme-meter",
                premises=PREMISES,
                installed_at_ms=1,
                comms_seen_at_ms=self.world.clock.now_ms(),
            ),
            OPERATOR,
        )

    async def bring(
        self,
        name: str,
        kind: GatewayKind,
        technology: str = "zigbee-se1",
        owner: Owner = Owner.UTILITY,
    ) -> None:
        """Bring a gateway into the home."""
        await self.registry.register(
            NewThing(name, ThingKind.GATEWAY, "acme-amg-4", PREMISES, owner=owner), OPERATOR
        )
        known = Gateway(
            id=name,
            kind=kind,
            premises=PREMISES,
            technologies=frozenset({technology}),
            devices_max=10,
            load_control_max=8,
        )
        await self.gateways.put(known, OPERATOR)
        self.world.networks[name] = Network(
            self.world.scene.home.boxed, moved=lambda *_: None, technology=technology
        )
        self.presence.came(name)
        await self.live_on()

    def lose(self, name: str) -> None:
        """Let a gateway be away."""
        self.world.away.add(name)
        self.presence.went(name)

    def find(self, name: str) -> None:
        """Let a gateway come back."""
        self.world.away.discard(name)
        self.presence.came(name)

    async def live_on(self, seconds: float = 0.0, rounds: int = 6) -> None:
        """Let time pass, and the gateways and the workers do what is to be done until they rest."""
        self.world.clock.advance(seconds)
        for _ in range(rounds):
            for name in sorted(self.world.networks):
                if name not in self.world.away:
                    await self._gateway_acts(name)
                    await self._devices_act(name)
            await self.reconciler.pass_once()
            await self.routes.pass_once()
            await self.moves.pass_once()

    async def _gateway_acts(self, name: str) -> None:
        network = self.world.networks[name]
        network.pass_time(self.world.clock.now_ms() / 1_000)
        desired, reported = await self.han(name)
        network.document(desired, reported)
        network.obey(delta(desired, reported))
        network.pass_time(self.world.clock.now_ms() / 1_000)
        patch = merge_patch_between(reported, network.readings())
        if patch:
            await self._report(ShadowId(name, "han"), Origin(name, Role.GATEWAY, Channel.MQTT), patch)

    async def _devices_act(self, gateway: str) -> None:
        """Let the devices that a gateway speaks for obey, and answer through it."""
        if not self.world.real:
            return
        for thing in self.world.networks[gateway].attached:
            id = ShadowId(thing, "program")
            try:
                shadow = await self.shadows.view(id)
            except NoShadowError:
                continue
            subject = self.world.equipment.setdefault(thing, Programs())
            desired, reported = shadow.desired.state, shadow.reported.state
            subject.pass_time(self.world.clock.now_ms() / 1_000)
            subject.document(desired, reported)
            subject.obey(delta(desired, reported))
            subject.pass_time(self.world.clock.now_ms() / 1_000)
            patch = merge_patch_between(reported, {**subject.settings, **subject.readings()})
            if patch:
                await self._report(id, Origin(gateway, Role.RELAY, Channel.MQTT, gateway), patch)

    async def _report(self, id: ShadowId, origin: Origin, patch: Any) -> None:
        payload = msgspec.json.encode(patch)
        state = {"reported": msgspec.json.decode(payload)}
        (outcome,) = await self.shadows.submit([update(id, origin, state, LIMITS, None, payload)])
        assert isinstance(outcome, Accepted), outcome.error

    async def han(self, gateway: str) -> tuple[Any, Any]:
        with contextlib.suppress(NoShadowError):
            shadow = await self.shadows.view(ShadowId(gateway, "han"))
            return shadow.desired.state, shadow.reported.state
        return {}, {}

    # ------------------------------------------------------------------ a call

    async def verified(self, by: Principal = ROSA) -> str:
        new = NewVerification(
            customer="cu-7", accounts=(ACCOUNT,), method="pin", outcome=Outcome.PASSED, case="c-1"
        )
        return (await self.verifications.record(new, self.world.ask(by))).id

    async def opened(self, by: Principal = ROSA, **fields: Any) -> Session:
        if "verification" not in fields:
            fields["verification"] = await self.verified(by)
        return await self.service.open(
            NewSession(premises=PREMISES, account=ACCOUNT, **fields), self.world.ask(by)
        )

    def label(self, name: str) -> NewGrant:
        eui64 = self.world.scene.eui64s[name]
        return NewGrant(device=eui64, proof=Proof.INSTALL_CODE, value=Secret(self.world.scene.labels[eui64]))

    async def discovered(self, *names: str, **fields: Any) -> Session:
        """Open a session and see who is there until the window is over."""
        session = await self.opened(**fields)
        how = Discovery(grants=tuple(self.label(name) for name in names))
        await self.service.discover(session.id, how, self.world.ask())
        for _ in range(4):
            await self.live_on(2)
        await self.service.stop_discovery(session.id, self.world.ask())
        await self.live_on(1)
        return await self.service.session(session.id)


class _NoPins:
    pass
