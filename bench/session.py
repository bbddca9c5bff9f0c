"""What the I/O half of the bridge costs beside the broker, on a real Mosquitto.

    python -m bench.session [--seconds 8] [--devices 50]

Devices (another process) send updates; here each is answered as the bridge would: three publishes, the
last one marked, and the acknowledgement, without any work on documents. One JSON object a line: CPU
microseconds per message or per update, user and system time, of the session and of Mosquitto in the same run.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mqtt5
import uvloop

from broker_bridge.mosquitto import Mosquitto
from broker_bridge.mosquitto_config import BrokerConfig
from broker_bridge.session import Session
from broker_bridge.topics import SUBSCRIPTIONS, answer_base, parse
from infra.clock import SystemClock
from infra.ids import RandomIds
from security.authority import Authority

BATCH_MAX = 256
IN_FLIGHT_PER_DEVICE = int(os.environ.get("IFL", "8"))
REQUEST = b'{"state":{"reported":{"temperature":2150,"humidity":41,"mode":"eco"}},"clientToken":"f3a9c2d1-17"}'
DELTA = b'{"version":42,"timestamp":1790000000,"state":{"setpoint":2200},"metadata":{"setpoint":{"timestamp":1790000000}}}'
ACCEPTED = (
    b'{"state":{"reported":{"temperature":2150,"humidity":41,"mode":"eco"}},"metadata":{"reported":'
    b'{"temperature":{"timestamp":1790000000},"humidity":{"timestamp":1790000000},"mode":{"timestamp":'
    b'1790000000}}},"version":42,"timestamp":1790000000,"clientToken":"f3a9c2d1-17"}'
)
DOCUMENTS = (
    b'{"previous":'
    + ACCEPTED[:-1]
    + b'},"current":'
    + ACCEPTED[:-1]
    + b'},"timestamp":1790000000,"clientToken":"f3a9c2d1-17"}'
)


class Answering:
    """A handler that answers each update with three messages, a batch at a time."""

    def __init__(self, commit_s) -> None:
        self.session: Session | None = None
        self.commit_s = commit_s
        self.waiting: list[mqtt5.PublishPacket] = []
        self.arrived = asyncio.Event()
        self.ready = asyncio.Event()
        self.received_count = self.settled_count = self.batches = 0
        self.answering = True

    def received(self, packet, connection):
        self.received_count += 1
        if not self.answering:
            assert self.session is not None
            if packet.packet_id is not None:
                self.session.acknowledge(packet.packet_id, connection)
            return
        self.waiting.append((parse(packet.topic), packet.packet_id, connection))
        self.arrived.set()

    def settled(self, mark):
        self.settled_count += 1

    async def connected(self, session_present):
        self.ready.set()

    def disconnected(self):
        self.ready.clear()

    async def answer(self):
        session = self.session
        assert session is not None
        publish, acknowledge = session.publish, session.acknowledge
        while True:
            await self.arrived.wait()
            await session.drained()
            batch, self.waiting = self.waiting[:BATCH_MAX], self.waiting[BATCH_MAX:]
            if not self.waiting:
                self.arrived.clear()
            self.batches += 1
            if self.commit_s:
                await asyncio.sleep(self.commit_s)
            for request, packet_id, connection in batch:
                base = answer_base(request.id, request.gateway)
                publish(base + "/update/delta", DELTA, 3600)
                publish(base + "/update/documents", DOCUMENTS, 300)
                publish(base + "/update/accepted", ACCEPTED, 300, request)
                acknowledge(packet_id, connection)
            session.flush()


# -------------------------------------------------------------------------------- the devices' process


class Device(asyncio.Protocol):
    """Keeps a few updates in flight: sends another one for each that was accepted."""

    def __init__(self, name, answered):
        self.name = name
        self.answered = answered  # whether answers come; else a PUBACK is enough
        self.rest = b""
        self.next_id = 1

    def connection_made(self, transport):
        self.transport = transport
        transport.write(mqtt5.ConnectPacket(self.name, username=self.name, clean_start=True).write())

    def update(self):
        id = self.next_id
        self.next_id = id % 65_535 + 1
        return mqtt5.PublishPacket(
            f"$aws/things/{self.name}/shadow/update", REQUEST, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=id
        ).write()

    def data_received(self, data):
        data = self.rest + data if self.rest else data
        view, at, out = memoryview(data), 0, []
        while True:
            try:
                packet, size = mqtt5.read(view[at:])
            except IndexError:
                break
            at += size
            if isinstance(packet, mqtt5.PublishPacket):
                out.append(mqtt5.PubAckPacket(packet.packet_id).write())
                if packet.topic.endswith("accepted"):
                    out.append(self.update())
            elif isinstance(packet, mqtt5.PubAckPacket) and not self.answered:
                out.append(self.update())
            elif isinstance(packet, mqtt5.ConnAckPacket):
                filter = mqtt5.TopicFilter(f"$aws/things/{self.name}/shadow/update/+", max_qos=mqtt5.QoS.AT_LEAST_ONCE)
                out.append(mqtt5.SubscribePacket(1, [filter]).write())
            elif isinstance(packet, mqtt5.SubAckPacket):
                out += [self.update() for _ in range(IN_FLIGHT_PER_DEVICE)]
        self.rest = data[at:]
        if out:
            self.transport.write(b"".join(out))


async def devices(port, count, answered):
    loop = asyncio.get_running_loop()
    for number in range(count):
        await loop.create_connection(lambda n=number: Device(f"bench-{n}", answered), "127.0.0.1", port)
    await asyncio.sleep(3600)


# -------------------------------------------------------------------------------- measuring


def broker_cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def say(**figures):
    print(json.dumps(figures), flush=True)


class Meter:
    def __init__(self, broker):
        self.broker = broker
        self.wall, self.own, self.of_broker = time.monotonic(), os.times(), broker_cpu_s(broker.pid)

    def us(self, count):
        wall = time.monotonic() - self.wall
        now = os.times()
        user, system = ((now[i] - self.own[i]) / count * 1e6 for i in (0, 1))
        own = user + system
        other = (broker_cpu_s(self.broker.pid) - self.of_broker) / count * 1e6
        return {
            "count": count,
            "per_s": round(count / wall),
            "session_us": round(own, 2),
            "session_user_us": round(user, 2),
            "session_system_us": round(system, 2),
            "broker_us": round(other, 2),
            "ratio": round(own / other, 3) if other else None,
        }


async def measure_updates(broker, handler, seconds, count, answered):
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.session", "--port", str(broker.plain_port), "--devices", str(count)]
        + ([] if answered else ["--unanswered"])
    )
    try:
        await asyncio.sleep(2)
        meter, before, batches = Meter(broker), handler.received_count, handler.batches
        await asyncio.sleep(seconds)
        done = handler.received_count - before
        figures = meter.us(done)
        if answered:
            figures["batch_mean"] = round(done / max(1, handler.batches - batches), 1)
        return figures
    finally:
        child.terminate()
        child.wait()


async def measure_publishes(broker, session, handler, seconds):
    """Publish as fast as the window lets us, to nobody."""
    loop = asyncio.get_running_loop()
    topics = [f"$aws/things/idle-{n}/shadow/update/accepted" for n in range(1000)]
    meter, before, sent = Meter(broker), handler.settled_count, 0
    until = loop.time() + seconds
    while loop.time() < until:
        for topic in topics[:BATCH_MAX]:
            sent += session.publish(topic, ACCEPTED, 300, topic)
        session.flush()
        await session.drained()
        await asyncio.sleep(0)
    while handler.settled_count - before < sent:
        await asyncio.sleep(0.01)
    return meter.us(sent)


async def run(options):
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        authority = Authority.open(directory / "authority", SystemClock())
        config = BrokerConfig(
            directory=directory / "broker",
            authority_file=authority.root_pem_path,
            device_port=0,
            plain_port=0,
            testing=True,
        )
        credentials = authority.issue_server(["localhost"])
        broker = Mosquitto(config, credentials, ids=RandomIds(), rng=random.Random(0))
        await broker.start()
        handler = Answering(options.commit_ms / 1000)
        filters = [
            mqtt5.TopicFilter(
                pattern,
                max_qos=mqtt5.QoS.AT_LEAST_ONCE,
                retain_handling=mqtt5.RetainHandling.SEND_NEVER,
            )
            for pattern in SUBSCRIPTIONS
        ]
        session = handler.session = Session(
            host="127.0.0.1",
            port=broker.service_port,
            client_id=broker.username,
            username=broker.username,
            password=broker.password,
            subscriptions=filters,
            handler=handler,
            rng=random.Random(0),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(session.run(), name="session"),
                    tasks.create_task(handler.answer(), name="answers"),
                ]
                async with asyncio.timeout(5):
                    await handler.ready.wait()
                for name, answered in (("update", True), ("received", False)):
                    handler.answering = answered
                    figures = await measure_updates(broker, handler, options.seconds, options.devices, answered)
                    say(bench=f"session.{name}", **figures)
                    await asyncio.sleep(0.5)
                say(bench="session.published", **await measure_publishes(broker, session, handler, options.seconds / 2))
                for task in running:
                    task.cancel()
        finally:
            await broker.stop()
        say(bench="session.counts", **{name: getattr(session.counts, name) for name in session.counts.__slots__})


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=8)
    arguments.add_argument("--devices", type=int, default=50)
    arguments.add_argument("--commit-ms", type=float, default=0, help="let each batch wait as for a commit")
    arguments.add_argument("--port", type=int, help="be the devices, of the broker on this port")
    arguments.add_argument("--unanswered", action="store_true", help="devices do not wait for answers")
    options = arguments.parse_args()
    if options.port:
        uvloop.run(devices(options.port, options.devices, not options.unanswered))
    else:
        uvloop.run(run(options))


if __name__ == "__main__":
    main()
