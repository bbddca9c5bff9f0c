"""A bridge that serves streams on a real broker, and devices that load from it over TCP.

The store is in memory and who may have what is told by the test; broker, session, bridge and stream service
are the real ones.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mqtt5

from broker_bridge.deadletters import DeadLetters
from broker_bridge.fairness import PACE, Pace
from broker_bridge.link import Handler
from broker_bridge.mosquitto import LOOPBACK, Mosquitto
from broker_bridge.mosquitto_config import BrokerConfig
from broker_bridge.poison import Suspects
from broker_bridge.role import Bridge
from broker_bridge.session import Session
from broker_bridge.topics import SUBSCRIPTIONS
from infra.ids import RandomIds
from infra.live import Live
from infra.settings import BridgeSettings, ShadowLimits
from infra.telemetry import Journeys, Metrics
from registry.models import NewThing, ThingKind
from registry.service import RegistryService
from security.audit import Refusals
from security.policy import Principal, Role
from shadow.service import ShadowService
from shadow.store import ShadowStore
from tests.bridge_rig import memory
from tests.certificates import open_authority
from tests.fakes import FakeClock
from tests.faulty_store import FaultyStore
from tests.jobs_rig import JobsRig, make_jobs
from tests.session_rig import until
from tests.stream_rig import Files, Loader

OPERATOR = Principal("anna", Role.OPERATOR)
ANSWER_S_MAX = 10.0
ONCE = mqtt5.QoS.AT_LEAST_ONCE


@asynccontextmanager
async def a_broker(directory: Path, **config: Any) -> AsyncIterator[Mosquitto]:
    """Run a broker with a listener that takes any device by its name."""
    authority = open_authority(directory)
    broker = Mosquitto(
        BrokerConfig(
            directory=directory / "broker",
            authority_file=authority.authorities_path,
            **{"device_port": 0, "plain_port": 0, "testing": True, **config},
        ),
        authority.server_credentials(["localhost"]),
        ids=RandomIds(),
        rng=random.Random(0),
    )
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


@dataclass
class Served:
    """What runs."""

    broker: Mosquitto
    bridge: Bridge
    registry: RegistryService
    files: Files
    metrics: Metrics
    jobs: JobsRig

    async def register(self, name: str, kind: ThingKind = ThingKind.DEVICE, home: str = "home-1") -> None:
        await self.registry.register(NewThing(name, kind, "acme", home, has_certificate=True), OPERATOR)


@asynccontextmanager
async def serving(
    directory: Path, broker: Mosquitto, files: Files, pace: Pace = PACE, things: Sequence[str] = ()
) -> AsyncIterator[Served]:
    """Serve on a broker for the length of the block; these things are registered before it begins."""
    clock, ids, metrics, limits, store = FakeClock(), RandomIds(), Metrics(), ShadowLimits(), memory()
    shadows = ShadowService(ShadowStore(store, limits, 10_000_000), clock, ids, limits, metrics, Live())
    jobs = make_jobs(FaultyStore(store), clock, metrics)
    suspects = Suspects(directory / "bridge", limits.poison_tries_max)
    suspects.begin()

    def open_session(handler: Handler) -> Session:
        return Session(
            host=LOOPBACK,
            port=broker.service_port,
            client_id=broker.username,
            username=broker.username,
            password=broker.password,
            subscriptions=[mqtt5.TopicFilter(pattern, max_qos=ONCE) for pattern in SUBSCRIPTIONS],
            handler=handler,
            rng=random.Random(0),
        )

    registry = RegistryService(store, clock)
    bridge = Bridge(
        open_session=open_session,
        remember_session=lambda: None,
        shadows=shadows,
        registry=registry,
        jobs=jobs.jobs,
        dead_letters=DeadLetters(store, clock, metrics),
        refusals=Refusals(store, clock, ids),
        suspects=suspects,
        job_suspects=Suspects(directory / "jobs", limits.poison_tries_max),
        clock=clock,
        ids=ids,
        metrics=metrics,
        journeys=Journeys(clock, random.Random(1)),
        limits=limits,
        settings=BridgeSettings(),
        streams=files.service,
        pace=pace,
    )
    served = Served(broker, bridge, registry, files, metrics, jobs)
    for thing in things:
        await served.register(thing)
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(one, name="served") for one in (shadows.run(), jobs.lane.run(), bridge.run())
        ]
        try:
            await until(lambda: bridge.session.connected)
            yield served
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            suspects.end()


class Device:
    """A thing on the plain listener: MQTT 5 over TCP, as simple as it can be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""
        self._packet_id = 0

    async def read(self) -> Any:
        """Return the next packet."""
        async with asyncio.timeout(ANSWER_S_MAX):
            while True:
                with suppress(IndexError):
                    packet, size = mqtt5.read(memoryview(self._rest))
                    self._rest = self._rest[size:]
                    return packet
                data = await self._reader.read(1_048_576)
                if not data:
                    raise ConnectionError("the broker closed the connection")
                self._rest += data

    def write(self, packet: mqtt5.Packet) -> None:
        self._writer.write(packet.write())

    async def subscribe(self, *filters: str) -> None:
        topics = [mqtt5.TopicFilter(one, max_qos=ONCE) for one in filters]
        self.write(mqtt5.SubscribePacket(1, topics))
        await self.read()

    def publish(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        """Publish; with ``qos`` 1 the acknowledgement is among what is read."""
        self._packet_id += 1
        self.write(
            mqtt5.PublishPacket(
                topic,
                payload,
                qos=mqtt5.QoS(qos),
                packet_id=self._packet_id if qos else None,
            )
        )

    async def heard(self) -> mqtt5.PublishPacket:
        """Return the next message."""
        while True:
            packet = await self.read()
            if isinstance(packet, mqtt5.PublishPacket):
                return packet

    async def load(self, thing: str, stream: str, loader: Loader, *, by_bitmap: bool = True) -> None:
        """Load a whole file, a window after the other."""
        base = f"$aws/things/{thing}/streams/{stream}"
        while loader.holes:
            ask = loader.ask() if by_bitmap else loader.ask_from(loader.holes[0])
            self.publish(f"{base}/get/{loader.format}", ask)
            for _ in loader.holes[: loader.window]:
                packet = await self.heard()
                assert packet.topic == f"{base}/data/{loader.format}", packet
                loader.hear(packet.payload)


@asynccontextmanager
async def a_device(broker: Mosquitto, name: str, *filters: str) -> AsyncIterator[Device]:
    """Connect a thing and subscribe."""
    reader, writer = await asyncio.open_connection(LOOPBACK, broker.plain_port, limit=2_097_152)
    device = Device(reader, writer)
    device.write(mqtt5.ConnectPacket(name, username=name, clean_start=True))
    assert isinstance(await device.read(), mqtt5.ConnAckPacket)
    if filters:
        await device.subscribe(*filters)
    try:
        yield device
    finally:
        writer.close()
        await writer.wait_closed()
