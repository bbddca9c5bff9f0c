"""What the I/O half of the bridge costs beside the broker: CPU microseconds, in the same seconds.

    python -m bench.session [--seconds 6] [--devices 50] [--in-flight 8] [--commit-ms 2]

Devices (another process) send updates on a real Mosquitto; here each is answered as the bridge would, with
three publishes, the last one marked, and the acknowledgement, but without any work on documents. With
``--commit-ms`` a batch waits that long before it is answered, as it would for the store's commit: without
it, answering is so quick that hardly any two updates are ever in one batch.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import mqtt5
import uvloop

from bench.report import ROOT, emit, say
from broker_bridge.mosquitto import Mosquitto
from broker_bridge.mosquitto_config import BrokerConfig
from broker_bridge.session import Session
from broker_bridge.topics import SUBSCRIPTIONS, Request, answer_base, parse
from infra.ids import RandomIds
from infra.logs import configure
from infra.settings import LogSettings
from tests.certificates import issue_server, open_authority

BATCH_MAX = 256
WARM_UP_S = 1.5
READY_S_MAX = 10.0
ONCE = mqtt5.QoS.AT_LEAST_ONCE
REQUEST = (
    b'{"state":{"reported":{"temperature":2150,"humidity":41,"mode":"eco"}},"clientToken":"f3a9c2d1-17"}'
)
DELTA = (
    b'{"version":42,"timestamp":1790000000,"state":{"setpoint":2200},'
    b'"metadata":{"setpoint":{"timestamp":1790000000}}}'
)
ACCEPTED = (
    b'{"state":{"reported":{"temperature":2150,"humidity":41,"mode":"eco"}},"metadata":{"reported":'
    b'{"temperature":{"timestamp":1790000000},"humidity":{"timestamp":1790000000},"mode":{"timestamp":'
    b'1790000000}}},"version":42,"timestamp":1790000000,"clientToken":"f3a9c2d1-17"}'
)
DOCUMENTS = b'{"previous":%b,"current":%b,"timestamp":1790000000,"clientToken":"f3a9c2d1-17"}' % (
    ACCEPTED,
    ACCEPTED,
)


class Answering:
    """The session's handler: answers each update with three messages, a batch at a time."""

    def __init__(self, commit_s: float) -> None:
        self.commit_s = commit_s
        self.answers = True
        self.received_count = self.settled_count = self.batches = 0
        self.ready = asyncio.Event()
        self._waiting: list[tuple[Request | None, int, int]] = []
        self._arrived = asyncio.Event()

    def received(self, packet: mqtt5.PublishPacket, connection: int) -> None:
        self.received_count += 1
        assert packet.packet_id is not None
        self._waiting.append((parse(packet.topic), packet.packet_id, connection))
        self._arrived.set()

    def settled(self, mark: object) -> None:
        self.settled_count += 1

    async def connected(self, session_present: bool) -> None:
        self.ready.set()

    def disconnected(self) -> None:
        self.ready.clear()

    async def answer(self, session: Session) -> None:
        while True:
            await self._arrived.wait()
            await session.drained()
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            if not self._waiting:
                self._arrived.clear()
            self.batches += 1
            if self.commit_s:
                await asyncio.sleep(self.commit_s)
            for request, packet_id, connection in batch:
                if self.answers and request is not None:
                    base = answer_base(request.id, request.gateway)
                    session.publish(base + "/update/delta", DELTA, 3_600)
                    session.publish(base + "/update/documents", DOCUMENTS, 300)
                    session.publish(base + "/update/accepted", ACCEPTED, 300, request)
                session.acknowledge(packet_id, connection)
            session.flush()


# ---------------------------------------------------------------------- the devices' process


class Device(asyncio.Protocol):
    """Keeps a few updates in flight: sends another one for each that was answered."""

    def __init__(self, name: str, in_flight: int, answered: bool) -> None:
        self._name = name
        self._in_flight = in_flight
        self._answered = answered  # else a PUBACK is taken for an answer
        self._rest = b""
        self._id = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._write([mqtt5.ConnectPacket(self._name, username=self._name, clean_start=True).write()])

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        view, at, out = memoryview(data), 0, list[bytes]()
        while at < len(data):
            try:
                packet, size = mqtt5.read(view[at:])
            except IndexError:
                break
            at += size
            out += self._replies(packet)
        self._rest = data[at:]
        self._write(out)

    def _replies(self, packet: mqtt5.Packet) -> Iterator[bytes]:
        match packet:
            case mqtt5.PublishPacket(packet_id=int(id)):
                yield mqtt5.PubAckPacket(id).write()
                if packet.topic.endswith("accepted"):
                    yield self._update()
            case mqtt5.PubAckPacket() if not self._answered:
                yield self._update()
            case mqtt5.ConnAckPacket():
                filter = mqtt5.TopicFilter(f"$aws/things/{self._name}/shadow/update/+", max_qos=ONCE)
                yield mqtt5.SubscribePacket(1, [filter]).write()
            case mqtt5.SubAckPacket():
                yield from (self._update() for _ in range(self._in_flight))
            case _:
                pass

    def _update(self) -> bytes:
        self._id = self._id % 65_535 + 1
        topic = f"$aws/things/{self._name}/shadow/update"
        return mqtt5.PublishPacket(topic, REQUEST, qos=ONCE, packet_id=self._id).write()

    def _write(self, packets: list[bytes]) -> None:
        if packets:
            self._transport.write(b"".join(packets))  # type: ignore[attr-defined]  # uvloop's has no common class


async def be_devices(port: int, count: int, in_flight: int, answered: bool) -> None:
    for number in range(count):
        device = partial(Device, f"bench-{number}", in_flight, answered)
        await asyncio.get_running_loop().create_connection(device, "127.0.0.1", port)
    await asyncio.sleep(3_600)


@contextmanager
def devices(options: argparse.Namespace, port: int, *, answered: bool) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.session", "--port", str(port)]
    command += ["--devices", str(options.devices), "--in-flight", str(options.in_flight)]
    child = subprocess.Popen(command + ([] if answered else ["--unanswered"]), cwd=ROOT)
    try:
        yield
    finally:
        child.terminate()
        child.wait()


# ---------------------------------------------------------------------- measuring


class Meter:
    """CPU of this process and of the broker since it was made."""

    def __init__(self, broker: Mosquitto) -> None:
        assert broker.pid is not None
        self._pid = broker.pid
        self._began = self._now()

    def emit(self, figure: str, count: int, **more: object) -> None:
        user, system, broker, wall = (
            (now - began) / count * 1e6 for now, began in zip(self._now(), self._began, strict=True)
        )
        more |= {"user_us": round(user, 2), "system_us": round(system, 2), "broker_us": round(broker, 2)}
        more |= {"of_broker": round((user + system) / broker, 3), "per_s": round(1e6 / wall)}
        emit(figure, user + system, "us CPU", count, **more)

    def _now(self) -> tuple[float, float, float, float]:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        broker_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        own = os.times()
        return own.user, own.system, broker_s, time.monotonic()


async def measure_updates(options: argparse.Namespace, broker: Mosquitto, handler: Answering) -> None:
    """Whole updates first, then requests that are only received and acknowledged."""
    assert broker.plain_port is not None
    for figure, answers in (("session.update", True), ("session.received", False)):
        say(f"{figure}: {options.devices} devices, {options.in_flight} in flight each")
        handler.answers = answers
        with devices(options, broker.plain_port, answered=answers):
            await asyncio.sleep(WARM_UP_S)
            meter, received, batches = Meter(broker), handler.received_count, handler.batches
            await asyncio.sleep(options.seconds)
            done = handler.received_count - received
            meter.emit(figure, done, batch_mean=round(done / max(1, handler.batches - batches), 1))
        await asyncio.sleep(WARM_UP_S)


async def measure_publishes(
    options: argparse.Namespace, broker: Mosquitto, session: Session, handler: Answering
) -> None:
    """Publish to nobody, as fast as the window lets us."""
    say("session.published: as fast as the window lets us")
    topics = [f"$aws/things/idle-{number}/shadow/update/accepted" for number in range(BATCH_MAX)]
    meter, settled, sent = Meter(broker), handler.settled_count, 0
    until_s = time.monotonic() + options.seconds / 2
    while time.monotonic() < until_s:
        for topic in topics:
            sent += session.publish(topic, ACCEPTED, 300, topic)
        session.flush()
        await session.drained()
        await asyncio.sleep(0)
    while handler.settled_count - settled < sent:  # noqa: ASYNC110 - a benchmark may poll
        await asyncio.sleep(0.01)
    meter.emit("session.published", sent)


@asynccontextmanager
async def started(directory: Path) -> AsyncIterator[Mosquitto]:
    authority = open_authority(directory)
    config = BrokerConfig(
        directory=directory / "broker",
        authority_file=authority.authorities_path,
        device_port=0,
        plain_port=0,
        testing=True,
    )
    credentials = issue_server(authority)
    broker = Mosquitto(config, credentials, ids=RandomIds(), rng=random.Random(0))
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with started(Path(folder)) as broker, asyncio.TaskGroup() as tasks:
            handler = Answering(options.commit_ms / 1_000)
            never = mqtt5.RetainHandling.SEND_NEVER
            session = Session(
                host="127.0.0.1",
                port=broker.service_port,
                client_id=broker.username,
                username=broker.username,
                password=broker.password,
                subscriptions=[
                    mqtt5.TopicFilter(pattern, max_qos=ONCE, retain_handling=never)
                    for pattern in SUBSCRIPTIONS
                ],
                handler=handler,
                rng=random.Random(0),
            )
            running = [
                tasks.create_task(session.run(), name="session"),
                tasks.create_task(handler.answer(session), name="answers"),
            ]
            async with asyncio.timeout(READY_S_MAX):
                await handler.ready.wait()
            await measure_updates(options, broker, handler)
            await measure_publishes(options, broker, session, handler)
            for task in running:
                task.cancel()


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--seconds", type=float, default=6)
    arguments.add_argument("--devices", type=int, default=50)
    arguments.add_argument(
        "--in-flight", type=int, default=8, help="updates of one device unanswered at once"
    )
    arguments.add_argument("--commit-ms", type=float, default=2, help="what a batch waits, as for a commit")
    arguments.add_argument("--port", type=int, help="be the devices, of the broker on this port")
    arguments.add_argument("--unanswered", action="store_true", help="devices wait for a PUBACK only")
    options = arguments.parse_args()
    configure(LogSettings(level="warning"))  # figures alone go to standard output
    if options.port:
        uvloop.run(be_devices(options.port, options.devices, options.in_flight, not options.unanswered))
    else:
        uvloop.run(measure(options))


if __name__ == "__main__":
    main()
