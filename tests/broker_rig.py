"""The broker as a deployment has it, run for tests, and clients that test what it allows.

Everything is the real thing: the generated configuration, mutual TLS with certificates of our authority,
paho-mqtt as a device. Only the loop that owns the child lives in a thread, so that tests may be plain.
"""

import asyncio
import random
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import mqtt5
from paho.mqtt.client import Client

from broker_bridge.janitor import Janitor
from broker_bridge.link import Handler
from broker_bridge.mosquitto import LOOPBACK, Mosquitto, find_plugin
from broker_bridge.mosquitto_config import JANITOR_USER, BrokerConfig
from broker_bridge.session import Session
from broker_bridge.topics import CONTROL_ANSWERS
from infra.ids import RandomIds
from tests.certificates import certificate_files, issue_server, open_authority
from tests.system.mqtt import Thing, until

WAIT_S_MAX = 20.0


class BrokerRig:
    """An authority, a broker that believes it, and a loop to run both in."""

    def __init__(self, directory: Path, **config: Any) -> None:
        self.directory = directory
        self.authority = open_authority(directory)
        self.config = BrokerConfig(
            directory=directory / "broker",
            authority_file=self.authority.authorities_path,
            plugin=find_plugin(),
            **{"device_port": 0, "revocation_file": self.authority.crl_path, **config},
        )
        self.broker = self.new_broker()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="broker rig", daemon=True)
        self._thread.start()

    def new_broker(self, **config: Any) -> Mosquitto:
        return Mosquitto(
            self.config,
            issue_server(self.authority),
            ids=RandomIds(),
            rng=random.Random(0),
            **config,
        )

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S_MAX)

    def start(self) -> None:
        self.call(self.broker.start())

    def close(self) -> None:
        self.call(self.broker.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S_MAX)
        self._loop.close()

    # ------------------------------------------------------------------ what a Thing asks of a service

    @property
    def device_port(self) -> int:
        return self.broker.device_port

    @property
    def root_certificate(self) -> Path:
        return self.authority.root_pem_path

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Return the files with a thing's certificate and key; make them at first."""
        return certificate_files(self.authority, self.directory / "things", name)

    # ------------------------------------------------------------------ clients

    @contextmanager
    def janitor(self) -> Iterator[Janitor]:
        """Run who ends sessions for the length of the block."""

        def open_session(handler: Handler) -> Session:
            return Session(
                host=LOOPBACK,
                port=self.broker.service_port,
                client_id=JANITOR_USER,
                username=JANITOR_USER,
                password=self.broker.janitor_password,
                subscriptions=[mqtt5.TopicFilter(CONTROL_ANSWERS, max_qos=mqtt5.QoS.AT_LEAST_ONCE)],
                handler=handler,
                rng=random.Random(0),
                outdated=lambda: True,
            )

        async def make() -> Janitor:
            return Janitor(open_session)

        janitor = self.call(make())
        running = asyncio.run_coroutine_threadsafe(janitor.run(), self._loop)
        until(lambda: janitor.session.connected, "the janitor is connected")
        try:
            yield janitor
        finally:
            running.cancel()

    @contextmanager
    def thing(self, name: str, **options: Any) -> Iterator[Thing]:
        """Connect a device for the length of the block."""
        thing = Thing(cast("Any", self), name, **options).connect()
        try:
            yield thing
        finally:
            thing.disconnect()

    @contextmanager
    def bridge(self, user: str | None = None, password: str | None = None) -> Iterator[Thing]:
        """Connect to the service listener for the length of the block: the bridge, unless told otherwise."""
        if user is None:
            user = self.broker.username
        service = ServiceClient(self, user, self.broker.password if password is None else password)
        service.connect()
        try:
            yield service
        finally:
            service.disconnect()


class ServiceClient(Thing):
    """A client of the service listener: with a password instead of a certificate."""

    def __init__(self, rig: BrokerRig, user: str, password: str) -> None:
        self._credentials = (user, password)
        super().__init__(cast("Any", _ServicePort(rig)), user)

    def _prove_identity(self, client: Client) -> None:
        client.username_pw_set(*self._credentials)


class _ServicePort:
    """What :class:`Thing` knows as its service, seen from the service listener."""

    def __init__(self, rig: BrokerRig) -> None:
        self.device_port = rig.broker.service_port
