"""Programs over a store, with everything below them as it really is and devices that answer when told to."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from infra.documents.memory import MemoryStore
from infra.documents.port import DocumentStore
from infra.live import Live
from infra.settings.model import ShadowLimits
from infra.telemetry import Metrics
from programs.catalogue import ProgramCatalogue
from programs.collections import COLLECTIONS as PROGRAMS
from programs.collections import LOGS as PROGRAM_LOGS
from programs.consents import ConsentService
from programs.enrolments import EnrolmentService
from programs.opening import open_programs
from programs.records import ConsentChannel, ConsentRecord, Enrolment, NewConsent
from programs.worker import EnrolmentWorker
from registry.accounts import Account, AccountService
from registry.catalogue import ModelCatalogue
from registry.collections import COLLECTIONS as REGISTRY
from registry.devices import DeviceService
from registry.lifecycle import Device
from registry.models import NewThing, ThingKind
from registry.service import RegistryService
from registry.states import DeviceTrigger
from security import audit
from security.policy import Principal, Role
from shadow.commands import Channel, Origin, update
from shadow.decisions import Accepted, Outcome, Rejected
from shadow.document import ShadowId, Tree, delta
from shadow.errors import NoShadowError
from shadow.records import LOGS, SHADOWS
from shadow.service import ShadowService
from shadow.store import ShadowStore
from tests.fakes import FakeClock, SeededIds
from tests.faulty_store import FaultyStore
from tests.shadow_rig import CACHE_BYTES_MAX, running

COLLECTIONS = (SHADOWS, *REGISTRY, *PROGRAMS)
ALL_LOGS = (*LOGS, *PROGRAM_LOGS, audit.LOG)
TOOL = Principal("provisioning", Role.SYSTEM)
ANNA = Principal("anna", Role.CUSTOMER, "a-1")
RITA = Principal("rita", Role.REP)
HALL = "th-0001-hall"
HOME, ACCOUNT = "pr-0001", "a-1"


class FakePresence:
    """Everybody can be reached but for those who are away."""

    def __init__(self) -> None:
        self.away: set[str] = set()

    async def online(self, things: Collection[str]) -> set[str]:
        return set(things) - self.away


@dataclass
class Rig:
    """One process' worth of programs; another one may be opened over the same store."""

    store: FaultyStore
    clock: FakeClock
    limits: ShadowLimits
    presence: FakePresence
    shadows: ShadowService
    registry: RegistryService
    devices: DeviceService
    models: ModelCatalogue
    accounts: AccountService
    catalogue: ProgramCatalogue
    consents: ConsentService
    enrolments: EnrolmentService
    worker: EnrolmentWorker

    async def settle_in(self, *names: str, model: str = "acme-pct-2", account: str = ACCOUNT) -> None:
        """Let devices be registered things of an account at home."""
        await self.catalogue.seed()
        await self.models.seed()
        await self.registry.hand_over(HOME, account, TOOL)
        await self.accounts.put(Account(id=account, customer=f"c-{account}", tariff="t7"), TOOL)
        for name in names or (HALL,):
            await self.registry.register(NewThing(name, ThingKind.DEVICE, model, HOME), TOOL)
            new = Device(id=name, eui64=name, model=model, fw="1.4.0", premises=HOME)
            await self.devices.apply(name, DeviceTrigger.SEEN, TOOL, new=new)
            await self.devices.apply(name, DeviceTrigger.PROVED, TOOL)
            await self.devices.apply(
                name,
                DeviceTrigger.REGISTER,
                TOOL,
                change=lambda one: replace(one, account=account, premises=HOME),
            )

    async def say_yes(
        self, program: str, device: str = HALL, account: str = ACCOUNT, **more: Any
    ) -> ConsentRecord:
        return await self.consents.give(yes(program, device, account, **more), RITA)

    async def enrol(self, program: str, device: str = HALL, **more: Any) -> Enrolment:
        """Say yes, and enrol."""
        await self.say_yes(program, device)
        return await self.enrolments.enrol(device, program, ACCOUNT, HOME, RITA, **more)

    async def ready(self, program: str, device: str = HALL) -> Enrolment:
        """Enrol a device that answers well."""
        made = await self.enrol(program, device)
        await self.obey(device)
        await self.ack(device, program, activated=made.rev, ready=made.rev)
        await self.enrolments.reconcile(device)
        return await self.enrolments.enrolment(made.id)

    async def sections(self, device: str = HALL) -> tuple[Tree, Tree]:
        try:
            shadow = await self.shadows.view(ShadowId(device, "program"))
        except NoShadowError:
            return {}, {}
        return shadow.desired.state, shadow.reported.state

    async def delta(self, device: str = HALL) -> Tree:
        return delta(*await self.sections(device))

    async def report(self, state: Tree | None, device: str = HALL) -> None:
        payload = msgspec.json.encode({"state": {"reported": state}})
        origin = Origin(device, Role.DEVICE, Channel.MQTT)
        id = ShadowId(device, "program")
        (outcome,) = await self.shadows.submit(
            [update(id, origin, {"reported": state}, self.limits, None, payload)]
        )
        if isinstance(outcome, Rejected):
            raise outcome.error

    async def obey(self, device: str = HALL) -> None:
        """Let a device do as it is told, and say so."""
        told = await self.delta(device)
        if told:
            await self.report(told, device)

    async def ack(self, device: str, program: str, code: str = "", **revs: int) -> None:
        """Let a device answer: ``activated=3``, ``ready=3``, ``failed=3``."""
        at = self.clock.now_ms() // 1_000
        answers = {
            kind: {"rev": rev, "at": at} | ({"code": code} if code else {}) for kind, rev in revs.items()
        }
        await self.report({"ack": {program: answers}}, device)

    async def states(self, device: str = HALL) -> dict[str, str]:
        return {one.program: str(one.state) for one in await self.enrolments.of_device(device)}

    async def taking_part(self, device: str = HALL) -> bool:
        return (await self.registry.thing(device)).taking_part

    async def audited(self, prefix: str) -> list[tuple[str, str, str]]:
        rows = (await audit.read(self.store, 0, self.clock.now_ms() + 1, 1_000)).entries
        return [(row.actor, row.action, row.target) for row in rows if row.action.startswith(prefix)]


def yes(program: str, device: str = HALL, account: str = ACCOUNT, **more: Any) -> NewConsent:
    said = NewConsent(
        device=device,
        program=program,
        account=account,
        customer=f"c-{account}",
        given_by=f"c-{account}",
        relation="holder",
        channel=ConsentChannel.PHONE,
        text_version="1",
    )
    return replace(said, **more)


def open_rig(
    documents: DocumentStore | None = None,
    clock: FakeClock | None = None,
    *,
    limits: ShadowLimits | None = None,
    presence: FakePresence | None = None,
) -> Rig:
    """Build the services over a store, as a process does that starts; its shadows do not run yet."""
    kept = documents if isinstance(documents, FaultyStore) else FaultyStore(documents or memory())
    clock, limits, presence = clock or FakeClock(), limits or ShadowLimits(), presence or FakePresence()
    shadows = ShadowService(
        ShadowStore(kept, limits, CACHE_BYTES_MAX), clock, SeededIds(), limits, Metrics(), Live()
    )
    shadows.listen(lambda outcomes: _deliver(shadows, outcomes))
    registry = RegistryService(kept, clock)
    devices, models = DeviceService(kept, clock, registry), ModelCatalogue(kept, clock)
    accounts = AccountService(kept, clock)
    programs = open_programs(
        kept,
        clock,
        devices=devices,
        models=models,
        accounts=accounts,
        registry=registry,
        shadows=shadows,
        presence=presence,
        limits=limits,
    )
    return Rig(
        kept, clock, limits, presence, shadows, registry, devices, models, accounts,
        programs.catalogue, programs.consents, programs.enrolments, programs.worker,
    )  # fmt: skip


def _deliver(shadows: ShadowService, outcomes: Sequence[Outcome]) -> None:
    """Be the broker that has everything it was told."""
    for outcome in outcomes:
        if isinstance(outcome, Accepted) and outcome.change is not None:
            shadows.settle(outcome.command.id, outcome.change.version)


@asynccontextmanager
async def rig(**options: Any) -> AsyncIterator[Rig]:
    """Run programs over a memory for as long as the block lasts, with one device settled in."""
    made = open_rig(**options)
    async with running(made.shadows):
        await made.settle_in()
        yield made


def memory() -> MemoryStore:
    return MemoryStore(COLLECTIONS, ALL_LOGS)
