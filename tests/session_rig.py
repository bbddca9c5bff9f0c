"""A session under test, with a handler that writes everything down, and the two kinds of broker it meets."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import mqtt5

from broker_bridge.session import Session

WAIT_S_MAX = 10.0
ONCE = mqtt5.QoS.AT_LEAST_ONCE


def filters(*patterns: str) -> list[mqtt5.TopicFilter]:
    never = mqtt5.RetainHandling.SEND_NEVER
    return [mqtt5.TopicFilter(pattern, max_qos=ONCE, retain_handling=never) for pattern in patterns]


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds, or fail."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


class Recorder:
    """A handler that takes everything and answers nothing, unless a test changes that."""

    def __init__(self) -> None:
        self.received_packets: list[tuple[mqtt5.PublishPacket, int]] = []
        self.marks: list[object] = []
        self.events: list[str] = []
        self.let_in = asyncio.Event()
        self.let_in.set()

    def received(self, packet: mqtt5.PublishPacket, connection: int) -> None:
        self.received_packets.append((packet, connection))
        self.events.append(f"received {packet.payload.decode(errors='replace')}")

    def settled(self, mark: object) -> None:
        self.marks.append(mark)

    async def connected(self, session_present: bool) -> None:
        self.events.append(f"connected {'again' if session_present else 'anew'}")
        await self.let_in.wait()
        self.events.append("ready")

    def disconnected(self) -> None:
        self.events.append("disconnected")

    async def has_received(self, count: int) -> None:
        """Return once that many messages came."""
        await until(lambda: len(self.received_packets) >= count)

    def payloads(self) -> list[bytes]:
        return [packet.payload for packet, _ in self.received_packets]

    def ready_times(self) -> int:
        return self.events.count("ready")


@asynccontextmanager
async def running(handler: Recorder, port: int, *patterns: str, **options: Any) -> AsyncIterator[Session]:
    """Run a session for the length of the block; it is ready when the block begins."""
    session = Session(
        **{
            "host": "127.0.0.1",
            "port": port,
            "client_id": "svc.bridge",
            "username": "svc.bridge",
            "password": "secret",
            "subscriptions": filters(*(patterns or ("a/+",))),
            "handler": handler,
            "rng": random.Random(0),
            **options,
        }
    )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(session.run(), name="session")
        try:
            yield session
        finally:
            task.cancel()


class Script:
    """One connection of a broker that does what the test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""

    async def read(self) -> Any:
        """Return the next packet of the session; fail when the connection ends before."""
        while True:
            with suppress(IndexError):
                packet, size = mqtt5.read(memoryview(self._rest))
                self._rest = self._rest[size:]
                return packet
            data = await self._reader.read(65_536)
            if not data:
                raise ConnectionError("the session closed the connection")
            self._rest += data

    async def read_publishes(self, count: int) -> list[mqtt5.PublishPacket]:
        packets = [await self.read() for _ in range(count)]
        assert all(isinstance(packet, mqtt5.PublishPacket) for packet in packets), packets
        return cast("list[mqtt5.PublishPacket]", packets)

    async def quiet(self, for_s: float = 0.05) -> bool:
        """Tell whether the session says nothing for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                self._rest += await self._reader.read(65_536)
        return not self._rest

    def write(self, *packets: Any) -> None:
        self._writer.write(b"".join(one if isinstance(one, bytes) else one.write() for one in packets))

    async def resume(self, **connack: Any) -> None:
        """Go through CONNECT only: the broker knows the session, and the session knows that it does."""
        assert isinstance(await self.read(), mqtt5.ConnectPacket)
        self.write(mqtt5.ConnAckPacket(session_present=True, **connack))

    async def accept(self, *, session_present: bool = False, **connack: Any) -> None:
        """Go through CONNECT and SUBSCRIBE."""
        assert isinstance(await self.read(), mqtt5.ConnectPacket)
        self.write(mqtt5.ConnAckPacket(session_present=session_present, **connack))
        subscribe = await self.read()
        assert isinstance(subscribe, mqtt5.SubscribePacket)
        granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE] * len(subscribe.topic_filters)
        self.write(mqtt5.SubAckPacket(subscribe.packet_id, granted))

    async def stay(self) -> None:
        """Read until the session goes."""
        with suppress(ConnectionError):
            while True:
                packet = await self.read()
                if isinstance(packet, mqtt5.PingReqPacket):
                    self.write(mqtt5.PingRespPacket())


Act = Callable[[Script], Awaitable[None]]


@asynccontextmanager
async def scripted(*acts: Act) -> AsyncIterator[int]:
    """Run a broker whose first connection follows the first act, and so on; yield its port.

    What goes wrong in an act fails the test.
    """
    waiting = list(acts)
    failures: list[Exception] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if waiting:
                await waiting.pop(0)(Script(reader, writer))
        except Exception as error:  # noqa: BLE001 - handed to the test
            failures.append(error)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
    assert not failures, failures
    assert not waiting, f"{len(waiting)} acts were never played"


def publish(packet_id: int, payload: bytes, topic: str = "a/b", qos: mqtt5.QoS = ONCE) -> mqtt5.PublishPacket:
    return mqtt5.PublishPacket(topic, payload, qos=qos, packet_id=packet_id or None)
