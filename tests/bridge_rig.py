"""The bridge over real services and a session that writes down what it is told, and can be told to refuse.

Everything but the network is real: inbox, dispatcher, speaker, catch-up, shadow service, registry, store.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import mqtt5
import msgspec

from broker_bridge.deadletters import DEAD_LETTERS, DeadLetters
from broker_bridge.fairness import PACE, Pace
from broker_bridge.link import Counts, Handler
from broker_bridge.poison import Suspects
from broker_bridge.role import Bridge
from infra.documents.memory import MemoryStore
from infra.live import Live
from infra.settings import BridgeSettings, ShadowLimits
from infra.telemetry import Journeys, Metrics
from ota.execution_store import EXECUTIONS
from ota.stream_service import StreamService
from registry.models import NewThing, ThingKind
from registry.service import RegistryService
from registry.store import COLLECTIONS
from security import audit
from security.audit import Refusals
from security.policy import Principal, Role
from shadow.commands import Channel, Origin, update
from shadow.decisions import Outcome
from shadow.document import ShadowId
from shadow.records import LOGS, SHADOWS
from shadow.service import ShadowService
from shadow.store import ShadowStore
from tests.fakes import FakeClock, SeededIds
from tests.faulty_store import FaultyStore
from tests.jobs_rig import JobsRig, make_jobs
from tests.stream_rig import make_files

LIMITS = ShadowLimits(catchup_rate_max=100_000)
ANNA = Principal("anna", Role.OPERATOR)
BY_HTTP = Origin("anna", Role.STAND_IN, Channel.HTTP)
TURNS_MAX = 20_000


class Said(NamedTuple):
    """A message the broker was given."""

    topic: str
    body: Any
    mark: object = None


class Sent(NamedTuple):
    """A message with QoS 0 that the broker was given, and how often something was written before it."""

    topic: str
    payload: bytes
    writes: int


class Acked(NamedTuple):
    """A request the broker was told to forget."""

    packet_id: int


class FakeSession:
    """What the session promises, without a network: one list of all that was said and acknowledged."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.log: list[Said | Sent | Acked] = []
        self.flushes = 0
        self.counts = Counts()
        self.connection = 0
        self.open = False
        self.room: int | None = None
        """How many publishes it still takes; None: any number."""
        self._drained = asyncio.Event()
        self._drained.set()
        self._unsettled: list[object] = []

    # ------------------------------------------------------------------ what the bridge uses

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    def publish(self, topic: str, payload: bytes, _expiry_s: int, mark: object | None = None) -> bool:
        if not self.open or self.room == 0:
            return False
        if self.room is not None:
            self.room -= 1
        self.log.append(Said(topic, msgspec.json.decode(payload), mark))
        self._unsettled.append(mark)
        return True

    def send(self, topic: str, head: bytes, tails: list[bytes]) -> bool:
        if not self.open or self.room == 0:
            return False
        self.log.extend(Sent(topic, head + tail, self.flushes) for tail in tails)
        return True

    def acknowledge(self, packet_id: int, connection: int) -> None:
        assert packet_id, "the broker ends the connection for an acknowledgement of packet 0"
        if self.open and connection == self.connection:
            self.log.append(Acked(packet_id))

    def flush(self) -> None:
        self.flushes += 1

    async def drained(self) -> None:
        while self.open and not self._drained.is_set():
            await self._drained.wait()

    # ------------------------------------------------------------------ what a test does

    async def connect(self, *, session_present: bool = True) -> None:
        self.begin()
        await self.handler.connected(session_present)

    def begin(self) -> None:
        self.connection += 1
        self.open = True
        self._unsettled.clear()

    def disconnect(self) -> None:
        self.open = False
        self._drained.set()
        self.handler.disconnected()

    def fill(self) -> None:
        """Take nothing more, until :meth:`make_room`."""
        self.room = 0
        self._drained.clear()

    def make_room(self, room: int | None = None) -> None:
        self.room = room
        self._drained.set()

    def settle(self) -> None:
        """Have the broker acknowledge all that it was given."""
        marks = [mark for mark in self._unsettled if mark is not None]
        self._unsettled.clear()
        for mark in marks:
            self.handler.settled(mark)

    @property
    def said(self) -> list[Said]:
        return [one for one in self.log if isinstance(one, Said)]

    @property
    def sent(self) -> list[Sent]:
        return [one for one in self.log if isinstance(one, Sent)]

    @property
    def topics(self) -> list[str]:
        return [one.topic for one in self.said]

    @property
    def acked(self) -> list[int]:
        return [one.packet_id for one in self.log if isinstance(one, Acked)]

    def on(self, topic: str) -> list[Any]:
        """Return the bodies said on a topic."""
        return [one.body for one in self.said if one.topic == topic]


@dataclass
class BridgeRig:
    """One process's worth of bridge."""

    store: FaultyStore
    clock: FakeClock
    shadows: ShadowService
    registry: RegistryService
    refusals: Refusals
    metrics: Metrics
    jobs: JobsRig
    bridge: Bridge
    session: FakeSession
    remembered: list[int] = field(default_factory=list)
    """The connection on which the broker was asked to save that our session exists."""
    _packet_ids: Iterator[int] = field(default_factory=lambda: iter(range(1, 65_536)))

    # ------------------------------------------------------------------ things

    async def register(
        self,
        name: str,
        kind: ThingKind = ThingKind.DEVICE,
        *,
        has_certificate: bool = True,
        gateways: tuple[str, ...] = (),
    ) -> None:
        await self.registry.register(NewThing(name, kind, "acme", "home-1", has_certificate), ANNA)
        for gateway in gateways:
            await self.registry.attach(gateway, name, ANNA)

    # ------------------------------------------------------------------ requests

    def send(  # one argument for each part of a packet
        self,
        thing: str,
        body: Any = None,
        *,
        operation: str = "update",
        shadow: str = "",
        gateway: str | None = None,
        qos: int = 1,
        packet_id: int | None = None,
        retain: bool = False,
        duplicate: bool = False,
    ) -> int:
        """Let a request come from the broker; return its packet id."""
        tree = f"gnomon/gateways/{gateway}/up/things/{thing}" if gateway else f"$aws/things/{thing}"
        name = f"/name/{shadow}" if shadow else ""
        payload = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        return self.deliver(
            f"{tree}/shadow{name}/{operation}",
            payload,
            qos=qos,
            packet_id=packet_id,
            retain=retain,
            duplicate=duplicate,
        )

    def deliver(  # as above
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        packet_id: int | None = None,
        retain: bool = False,
        duplicate: bool = False,
    ) -> int:
        number = (packet_id or next(self._packet_ids)) if qos else None
        packet = mqtt5.PublishPacket(
            topic,
            payload,
            qos=mqtt5.QoS.AT_LEAST_ONCE if qos else mqtt5.QoS.AT_MOST_ONCE,
            packet_id=number,
            retain=retain,
            duplicate=duplicate,
        )
        self.bridge.received(packet, self.session.connection)
        return number or 0

    def report(self, thing: str, state: Any, **rest: Any) -> int:
        members = {key: rest.pop(key) for key in ("clientToken", "version") if key in rest}
        return self.send(thing, {"state": {"reported": state}, **members}, **rest)

    async def wish(self, thing: str, state: Any, shadow: str = "") -> Outcome:
        """Write ``desired`` as an application would, over HTTP."""
        patch = {"desired": state}
        command = update(ShadowId(thing, shadow), BY_HTTP, patch, LIMITS, None, msgspec.json.encode(patch))
        (outcome,) = await self.shadows.submit([command])
        return outcome

    async def version(self, thing: str, shadow: str = "") -> int:
        return (await self.shadows.view(ShadowId(thing, shadow))).version

    async def dead_letters(self) -> list[Any]:
        page = await self.store.scan(DEAD_LETTERS, 0, 2**62, limit=100)
        return [msgspec.json.decode(entry.body) for entry in page.entries]

    def dropped(self, reason: str) -> int:
        return self.metrics.drops.values.get(reason, 0)

    # ------------------------------------------------------------------ waiting

    async def quiet(self) -> None:
        """Return when all that was sent is settled."""
        await settled(lambda: not len(self.bridge.inbox))
        await turns(20)


async def turns(number: int = 20) -> None:
    """Let every task go as far as it can."""
    for _ in range(number):
        await asyncio.sleep(0)


async def settled(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Wait until a condition holds: for the loop to turn, then for a moment of real time."""
    for _ in range(TURNS_MAX):
        if condition():
            return
        await asyncio.sleep(0)
    for _ in range(300):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"did not come true: {what}")


def memory() -> MemoryStore:
    return MemoryStore([SHADOWS, EXECUTIONS, *COLLECTIONS], [*LOGS, audit.LOG, DEAD_LETTERS])


def make_rig(  # one argument for each part a test may want otherwise
    directory: Path,
    *,
    store: FaultyStore | None = None,
    limits: ShadowLimits = LIMITS,
    settings: BridgeSettings | None = None,
    clock: FakeClock | None = None,
    journeys: Callable[[FakeClock], Journeys] | None = None,
    streams: StreamService | None = None,
    pace: Pace = PACE,
) -> BridgeRig:
    """Put a bridge together that does not run yet."""
    store, clock, ids, metrics = store or FaultyStore(memory()), clock or FakeClock(), SeededIds(), Metrics()
    shadows = ShadowService(ShadowStore(store, limits, 10_000_000), clock, ids, limits, metrics, Live())
    registry = RegistryService(store, clock)
    refusals = Refusals(store, clock, ids)
    suspects = Suspects(directory, limits.poison_tries_max)
    suspects.begin()
    job_suspects = Suspects(directory / "jobs", limits.poison_tries_max)
    job_suspects.begin()
    jobs = make_jobs(store, clock, metrics)
    remembered: list[int] = []
    bridge = Bridge(
        open_session=FakeSession,  # type: ignore[arg-type]  # speaks the part of a session that is used
        remember_session=lambda: remembered.append(bridge.session.connection),  # type: ignore[attr-defined]  # see above
        shadows=shadows,
        registry=registry,
        jobs=jobs.jobs,
        dead_letters=DeadLetters(store, clock, metrics),
        refusals=refusals,
        suspects=suspects,
        job_suspects=job_suspects,
        clock=clock,
        ids=ids,
        metrics=metrics,
        journeys=journeys(clock) if journeys else Journeys(clock, random.Random(1)),
        limits=limits,
        settings=settings or BridgeSettings(),
        streams=streams or make_files().service,
        pace=pace,
    )
    session: Any = bridge.session
    return BridgeRig(store, clock, shadows, registry, refusals, metrics, jobs, bridge, session, remembered)


@asynccontextmanager
async def running(rig: BridgeRig, *, connect: bool = True) -> AsyncIterator[BridgeRig]:
    """Run a bridge and its lane for as long as the block lasts; what ends them by itself ends the test."""
    try:
        async with asyncio.TaskGroup() as tasks:
            lane = tasks.create_task(rig.shadows.run(), name="lane")
            job_lane = tasks.create_task(rig.jobs.lane.run(), name="job lane")
            bridge = tasks.create_task(rig.bridge.run(), name="bridge")
            if connect:
                await rig.session.connect()
            yield rig
            bridge.cancel()
            await asyncio.wait({bridge})
            lane.cancel()
            job_lane.cancel()
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) == 1:
            raise errors.exceptions[0] from None
        raise
