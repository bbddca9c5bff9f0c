"""A real mosquitto with both kinds of listener, and the stand-in service on it: for tests of the fleet."""

import asyncio
import contextlib
import getpass
import random
import shutil
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from fleet.connection import Connection, Endpoint, plain_identity
from tests.certificates import certificate_files, issue_server, open_authority
from tests.shadow_stand_in import SendList, StandIn

READY_S = 5.0
REQUESTS = [
    f"$aws/things/+/shadow{middle}/{operation}"
    for middle in ("", "/name/+")
    for operation in ("get", "update")
] + ["gnomon/gateways/+/up/#"]
FIRMWARE_REQUESTS = [
    f"$aws/things/+/{tail}"
    for tail in ("jobs/get", "jobs/start-next", "jobs/+/get", "jobs/+/update", "streams/+/get/+")
]


class Broker:
    """One mosquitto child: `port` takes certificates only, `plain_port` believes user names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.plain_port = free_port(), free_port()
        self.authority = open_authority(directory)
        self.certificates = directory / "certificates"
        self.certificates.mkdir()
        shutil.copy(self.authority.root_pem_path, self.certificates / "ca.crt")
        server = issue_server(self.authority)
        (directory / "server.crt").write_bytes(server.certificate_pem)
        (directory / "server.key").write_bytes(server.private_key_pem)
        self._configuration = directory / "mosquitto.conf"
        self._configuration.write_text(self._lines())
        self._process: subprocess.Popen[bytes] | None = None

    def issue(self, *names: str) -> None:
        """Write certificate and key of these things, as a factory would."""
        for name in names:
            certificate_files(self.authority, self.certificates, name)

    def start(self) -> None:
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(program).exists():
            pytest.skip("needs the Debian package mosquitto")
        command = [program, "-c", str(self._configuration)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, "mosquitto ended: see its configuration"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.plain_port), 0.2):
                return
            time.sleep(0.01)
        raise TimeoutError("mosquitto did not listen in time")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _lines(self) -> str:
        here = self.directory
        return "\n".join(
            [
                f"user {getpass.getuser()}",  # it would leave root and lose sight of our files
                "per_listener_settings true",
                "persistence false",
                "log_dest none",
                "max_inflight_messages 4096",
                f"listener {self.port} 127.0.0.1",
                "allow_anonymous true",
                f"cafile {self.authority.authorities_path}",
                f"certfile {here / 'server.crt'}",
                f"keyfile {here / 'server.key'}",
                "require_certificate true",
                "use_identity_as_username true",
                "use_username_as_clientid true",
                f"listener {self.plain_port} 127.0.0.1",
                "allow_anonymous true",
                "",
            ]
        )


class Service:
    """The stand-in on the broker's plain listener; `silence` lets requests vanish."""

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.requests: list[tuple[str, bytes]] = []
        self.silence = 0  # so many requests still vanish
        self.ready = asyncio.Event()
        self.errors: Counter[str] = Counter()
        self.connection: Connection | None = None

    def connected(self) -> None:
        assert self.connection is not None
        self.connection.subscribe(REQUESTS + FIRMWARE_REQUESTS)
        self.ready.set()

    def disconnected(self) -> None:
        self.ready.clear()

    def message(self, topic: str, payload: bytes) -> None:
        self.requests.append((topic, payload))
        if self.silence:
            self.silence -= 1
            return
        self.send(self.stand_in.handle(topic, payload))

    def send(self, messages: SendList) -> None:
        assert self.connection is not None
        for topic, payload in messages:
            assert self.connection.publish(topic, payload)


@contextlib.asynccontextmanager
async def served(broker: Broker, stand_in: StandIn):
    """Run the stand-in beside the test."""
    service = Service(stand_in)
    service.connection = Connection(
        Endpoint("127.0.0.1", broker.plain_port),
        plain_identity("service"),
        service,
        door=asyncio.Semaphore(1),
        chance=random.Random(1),
        errors=service.errors,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(service.connection.run(), name="service")
        async with asyncio.timeout(READY_S):
            await service.ready.wait()
        try:
            yield service
        finally:
            service.connection.stop()


async def until(condition, seconds: float = 10.0) -> None:
    """Wait until a condition holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
