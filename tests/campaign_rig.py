"""Campaigns over real services: the base pair released for a model, devices that take part, and executors."""

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from infra.documents.memory import MemoryStore
from infra.documents.port import DocumentStore
from infra.documents.records import Records
from infra.live import Live
from infra.outbox import LANES, Outbox
from infra.outbox import LOG as OUTBOX
from infra.presence import Presence
from infra.settings.model import OtaSettings, ShadowLimits
from infra.telemetry import Metrics
from ota.campaign import Campaign, Wave
from ota.collections import COLLECTIONS as OTA
from ota.executions import ThingJobs, moved
from ota.job_requests import JobOperation
from ota.job_service import Answered, Asked
from ota.lane import Change, Commit, Decision
from ota.models import Execution
from ota.opening import Ota, open_ota
from ota.states import ExecutionState, ExecutionTrigger
from registry import devices as device_records
from registry.catalogue import ModelCatalogue
from registry.collections import COLLECTIONS
from registry.devices import DeviceService
from registry.gateways import GatewayService
from registry.lifecycle import Device
from registry.models import NewThing, Owner, ThingKind
from registry.service import RegistryService
from registry.states import Lifecycle
from security import audit
from security.policy import Principal, Role
from security.secretbox import SecretBox
from security.trust.authority import Authority
from shadow.commands import Channel, Origin
from shadow.document import ShadowId
from shadow.records import LOGS, SHADOWS
from shadow.service import ShadowService
from shadow.store import ShadowStore
from tests import release_rig
from tests.fakes import FakeClock, SeededIds
from tests.faulty_store import FaultyStore
from tests.shadow_rig import accepted, update

ANN = release_rig.AUTHOR
OTTO = release_rig.OTHER
EVE = Principal("eve", Role.OPERATOR)
OFFICER = release_rig.OFFICER
SYSTEM = Principal("sys", Role.SYSTEM)
MODEL = release_rig.MODEL.id
OLD = {"sha256": "0123" * 16, "version": "2.3.0.0", "counter": 2}
NEW_SHA256 = release_rig.MANIFEST.sha256
CONFIG = {"lang": "en"}


KEPT = [SHADOWS, LANES, *COLLECTIONS, *OTA]
KEPT_LOGS = [*LOGS, OUTBOX, audit.LOG]


@dataclass
class Process:
    """What one process runs."""

    ota: Ota
    shadows: ShadowService
    registry: RegistryService
    presence: Presence

    async def tick(self) -> None:
        await self.ota.executor.tick()


@dataclass
class World:
    """A store, a clock and the processes that work on it."""

    store: FaultyStore
    clock: FakeClock
    directory: Path
    release: str
    rig: release_rig.Rig
    stack: AsyncExitStack
    settings: OtaSettings
    processes: list[Process] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)

    @property
    def ota(self) -> Ota:
        return self.processes[0].ota

    async def open(self) -> Process:
        """Start another process on the same store."""
        process = _process(self)
        self.processes.append(process)
        process.ota.lane.listen(self.commits.extend)
        for name, run in (("lane", process.ota.lane.run()), ("shadows", process.shadows.run())):
            task = asyncio.create_task(run, name=name)
            self.stack.push_async_callback(_stopped, task)
        return process

    async def add(
        self, names: Iterable[str], *, taking_part: bool = True, here: bool = True, **changes: Any
    ) -> None:
        """Register devices that run the old firmware, and are connected if they are here."""
        registry, store = self.processes[0].registry, self.store
        records = Records(store, device_records.DEVICES, Device, device_records._found_by)
        for name in names:
            usual: dict[str, Any] = {
                "model": MODEL,
                "hw": 2,
                "lifecycle": Lifecycle.REGISTERED,
                "premises": f"home-{name}",
            }
            device = Device(id=name, **(usual | changes))
            await records.put(name, device, 0)
            new = NewThing(name, ThingKind.DEVICE, MODEL, device.premises, owner=device.owner)
            await registry.register(new, SYSTEM)
            if taking_part and device.owner is Owner.CUSTOMER:
                await registry.set_taking_part(name, True, SYSTEM)
            for process in self.processes if here else ():
                process.presence.came(name)
        await self.runs(names)

    async def change_device(self, name: str, **changes: Any) -> None:
        """Have a device be another one in the registry."""
        records = Records(self.store, device_records.DEVICES, Device, device_records._found_by)
        kept = await records.load(name)
        assert kept is not None
        assert await records.put(name, replace(kept.record, **changes), kept.revision)

    async def report(self, thing: str, shadow: str, state: Any) -> None:
        origin = Origin(thing, Role.DEVICE, Channel.MQTT)
        command = update({"reported": state}, ShadowId(thing, shadow), origin)
        (outcome,) = await self.processes[0].shadows.submit([command])
        accepted(outcome)

    async def runs(self, things: Iterable[str], fw: Any = OLD, **more: Any) -> None:
        state = {"fw": fw, "healthy": True, "boot": 1, "schema": 5, **more}
        origins = [(thing, Origin(thing, Role.DEVICE, Channel.MQTT)) for thing in things]
        commands = [update({"reported": state}, ShadowId(one, "firmware"), origin) for one, origin in origins]
        for outcome in await self.processes[0].shadows.submit(commands):
            accepted(outcome)

    async def running(self, *, by: Principal = ANN, **wishes: Any) -> Campaign:
        """Return a campaign that was created, submitted, approved and begun."""
        campaign = await self.approved(by=by, **wishes)
        for _ in range(3):
            await self.processes[0].tick()
        return await self.ota.campaigns.campaign(campaign.id)

    async def approved(self, *, by: Principal = ANN, **wishes: Any) -> Campaign:
        campaigns = self.ota.campaigns
        usual: dict[str, Any] = {"release": self.release, "waves": (Wave(percent=100),), "soak_s": 0}
        made = await campaigns.create(campaigns.terms(**(usual | wishes)), by)
        await campaigns.submit(made.id, by)
        return await campaigns.approve(made.id, OTTO)

    async def targets(self, campaign: str) -> list[Execution]:
        return sorted(await self.ota.lane.of_campaign(campaign), key=lambda one: one.place)

    async def states(self, campaign: str) -> dict[str, ExecutionState]:
        return {one.thing: one.state for one in await self.targets(campaign)}

    async def step(
        self, campaign: str, things: Sequence[str], *triggers: ExecutionTrigger, **changes: Any
    ) -> None:
        """Move targets as their devices would."""

        def change(thing: str) -> Change[None]:
            def decide(jobs: ThingJobs, now_ms: int) -> Decision[None]:
                after = jobs.find(campaign)
                assert after is not None
                for trigger in triggers:
                    after = moved(after, trigger, now_ms)
                return Decision(None, (replace(after, **changes),))

            return Change(thing, decide, (campaign,))

        for answer in await self.ota.lane.submit([change(thing) for thing in things]):
            assert answer is None, answer

    async def ask(self, thing: str, operation: JobOperation, job: str = "", **body: Any) -> Answered:
        """Have a device ask about its jobs."""
        (answer,) = await self.ota.jobs.handle([Asked(operation, thing, job, msgspec.json.encode(body))])
        return answer

    async def trail(self) -> list[tuple[str, str]]:
        page = await audit.read(self.store, 0, 2**53, 1_000)
        return [(row.actor, row.action) for row in page.entries if row.action.startswith("campaign.")]


def decoded(text: str) -> bytes:
    return base64.b64decode(text)


@asynccontextmanager
async def world(
    directory: Path,
    *,
    devices: int = 0,
    exclusive: bool = True,
    settings: OtaSettings | None = None,
    inner: DocumentStore | None = None,
) -> AsyncIterator[World]:
    """Yield a world with one process and some devices that need the release."""
    store = FaultyStore(inner or MemoryStore(KEPT, KEPT_LOGS), exclusive=exclusive)
    rig = await release_rig.rig(directory, store)
    made = await rig.releases.create(release_rig.new(), ANN, key="r")
    await rig.releases.let_out(made.id, OTTO)
    async with AsyncExitStack() as stack:
        one = World(store, rig.clock, directory, made.id, rig, stack, settings or OtaSettings())
        await one.open()
        if devices:
            await one.add([name(number) for number in range(devices)])
        yield one


def name(number: int) -> str:
    return f"han-{number:05d}"


def _process(world: World) -> Process:
    store, clock, limits = world.store, world.clock, ShadowLimits()
    ids, live, metrics = SeededIds(len(world.processes)), Live(), Metrics()
    shadows = ShadowService(ShadowStore(store, limits, 50_000_000), clock, ids, limits, metrics, live)
    registry, presence = RegistryService(store, clock), Presence()
    box = SecretBox.open(world.directory / "secrets" / "master.key", ids)
    ota = open_ota(
        store,
        clock,
        ids,
        metrics,
        world.settings,
        live=live,
        shadows=shadows,
        registry=registry,
        devices=DeviceService(store, clock, registry),
        gateways=GatewayService(store, clock, registry),
        models=ModelCatalogue(store, clock),
        presence=presence,
        outbox=Outbox(store, clock, random.Random(0), metrics),
        limits=limits,
        images_url="https://utility.example/v1/ota/images/",
        directory=world.directory,
        box=box,
        authority=Authority.open(world.directory / "ca", box, clock),
    )
    return Process(ota, shadows, registry, presence)


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
