"""Jobs as devices see them: broker, session, bridge and job service are the real ones.

What the job service asks of campaigns, documents and leave to activate, is answered by the test, so that a
case has the job that it needs.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mqtt5

from broker_bridge.deadletters import DeadLetters
from broker_bridge.link import Handler
from broker_bridge.mosquitto import LOOPBACK
from broker_bridge.poison import Suspects
from broker_bridge.role import Bridge
from broker_bridge.session import Session
from broker_bridge.topics import SUBSCRIPTIONS
from infra.ids import RandomIds
from infra.live import Live
from infra.settings import BridgeSettings, ShadowLimits
from infra.telemetry import Journeys, Metrics
from ota.states import ExecutionTrigger
from registry.models import NewThing, ThingKind
from registry.service import RegistryService
from security.audit import Refusals
from shadow.service import ShadowService
from shadow.store import ShadowStore
from tests.bridge_rig import ANNA, memory
from tests.broker_rig import BrokerRig
from tests.fakes import FakeClock
from tests.faulty_store import FaultyStore
from tests.jobs_rig import CAMPAIGN, JobsRig, make_jobs
from tests.stream_rig import make_files
from tests.system.mqtt import until


class JobHost:
    """A broker with a bridge, and the executions behind it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._broker = BrokerRig(directory)
        self.jobs: JobsRig
        self._registry: RegistryService
        self._bridge: Bridge

    # ------------------------------------------------------------------ what a client needs

    @property
    def device_port(self) -> int:
        return self._broker.device_port

    @property
    def root_certificate(self) -> Path:
        return self._broker.root_certificate

    def identity(self, thing: str) -> tuple[Path, Path]:
        """Return certificate and key of a thing."""
        return self._broker.certificate(thing)

    # ------------------------------------------------------------------ what a case needs

    def register(self, thing: str) -> None:
        new = NewThing(thing, ThingKind.DEVICE, "acme", f"home-of-{thing}", has_certificate=True)
        self._broker.call(self._registry.register(new, ANNA))

    def plan(self, thing: str, campaign: str = CAMPAIGN) -> None:
        self._broker.call(self.jobs.plan(thing, campaign))

    def move(self, thing: str, trigger: ExecutionTrigger, campaign: str = CAMPAIGN) -> None:
        self._broker.call(self.jobs.move(thing, trigger, campaign))

    def offer(self, thing: str, campaign: str = CAMPAIGN) -> None:
        self._broker.call(self.jobs.offer(thing, campaign))

    def state(self, thing: str) -> str:
        return str(self._broker.call(self.jobs.execution(thing)).state)

    # ------------------------------------------------------------------ life

    @contextmanager
    def running(self) -> Iterator["JobHost"]:
        """Serve for the length of the block."""
        self._broker.start()
        try:
            self._broker.call(self._open())
            served = asyncio.run_coroutine_threadsafe(self._serve(), self._broker._loop)
            try:
                until(lambda: self._bridge.session.connected, "the bridge is connected")
                yield self
            finally:
                served.cancel()
        finally:
            self._broker.close()

    async def _open(self) -> None:
        clock, ids, metrics, limits = FakeClock(), RandomIds(), Metrics(), ShadowLimits()
        store = FaultyStore(memory())
        self._shadows = ShadowService(
            ShadowStore(store, limits, 10_000_000), clock, ids, limits, metrics, Live()
        )
        self._registry, self.jobs = RegistryService(store, clock), make_jobs(store, clock, metrics)
        suspects = [Suspects(self._directory / name, limits.poison_tries_max) for name in ("bridge", "jobs")]
        for one in suspects:
            one.begin()
        self._bridge = Bridge(
            open_session=self._session,
            remember_session=lambda: None,
            shadows=self._shadows,
            registry=self._registry,
            jobs=self.jobs.jobs,
            streams=make_files().service,
            dead_letters=DeadLetters(store, clock, metrics),
            refusals=Refusals(store, clock, ids),
            suspects=suspects[0],
            job_suspects=suspects[1],
            clock=clock,
            ids=ids,
            metrics=metrics,
            journeys=Journeys(clock, random.Random(1)),
            limits=limits,
            settings=BridgeSettings(),
        )

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for one in (self._shadows.run(), self.jobs.lane.run(), self._bridge.run()):
                tasks.create_task(one)

    def _session(self, handler: Handler) -> Session:
        broker: Any = self._broker.broker
        once = mqtt5.QoS.AT_LEAST_ONCE
        return Session(
            host=LOOPBACK,
            port=broker.service_port,
            client_id=broker.username,
            username=broker.username,
            password=broker.password,
            subscriptions=[mqtt5.TopicFilter(pattern, max_qos=once) for pattern in SUBSCRIPTIONS],
            handler=handler,
            rng=random.Random(0),
        )
