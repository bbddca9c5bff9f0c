"""The session on a real broker: what is redelivered, what survives a kill, what stays bounded."""

import asyncio
import os
import random
import signal
from contextlib import asynccontextmanager

import mqtt5
import pytest

from broker_bridge.link import LinkError
from broker_bridge.mosquitto import Mosquitto
from broker_bridge.mosquitto_config import BrokerConfig
from broker_bridge.outbound import WAITING_MESSAGES_MAX
from broker_bridge.topics import SUBSCRIPTIONS
from infra.ids import RandomIds
from tests.certificates import open_authority
from tests.session_rig import ONCE, Recorder, Script, filters, running, until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

UPDATE = "$aws/things/{}/shadow/update"
ACCEPTED = "$aws/things/{}/shadow/update/accepted"


@pytest.fixture
def handler():
    return Recorder()


@asynccontextmanager
async def a_broker(directory, **config):
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
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(broker.run(), name="broker")
            try:
                yield broker
            finally:
                task.cancel()
    finally:
        await broker.stop()


@pytest.fixture
async def broker(tmp_path):
    async with a_broker(tmp_path) as broker:
        yield broker


def connected(broker, handler, **options):
    return running(
        handler,
        broker.service_port,
        *SUBSCRIPTIONS,
        **{"client_id": broker.username, "username": broker.username, "password": broker.password, **options},
    )


@asynccontextmanager
async def device(broker, name="lamp"):
    """A thing on the plain listener."""
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.plain_port)
    thing = Script(reader, writer)
    thing.write(mqtt5.ConnectPacket(name, username=name, clean_start=True))
    assert isinstance(await thing.read(), mqtt5.ConnAckPacket)
    try:
        yield thing
    finally:
        writer.close()
        await writer.wait_closed()


def update(packet_id, payload, name="lamp"):
    return mqtt5.PublishPacket(UPDATE.format(name), payload, qos=ONCE, packet_id=packet_id)


async def send(thing, *payloads):
    """Publish requests and wait for the broker's acknowledgements."""
    thing.write(*(update(1 + at, payload) for at, payload in enumerate(payloads)))
    for _ in payloads:
        assert isinstance(await thing.read(), mqtt5.PubAckPacket)


# ---------------------------------------------------------------------- receiving


async def test_a_request_arrives_and_once_acknowledged_never_again(broker, handler):
    async with connected(broker, handler) as session, device(broker) as thing:
        await until(handler.ready_times)
        await send(thing, b"once")
        await until(lambda: handler.received_packets)
        packet, connection = handler.received_packets[0]
        assert (packet.topic, packet.payload) == (UPDATE.format("lamp"), b"once")
        assert not packet.duplicate
        session.acknowledge(packet.packet_id, connection)
        session.flush()
        await session.echo()
    async with connected(broker, handler) as session:
        await until(lambda: handler.ready_times() == 2)
        await session.echo()
    assert handler.payloads() == [b"once"]


async def test_a_request_that_was_not_acknowledged_comes_again_marked_as_such(broker, handler):
    async with connected(broker, handler), device(broker) as thing:
        await until(handler.ready_times)
        await send(thing, b"first", b"second")
        await until(lambda: len(handler.received_packets) == 2)
    async with connected(broker, handler) as session:
        await until(lambda: len(handler.received_packets) == 4)
        assert "connected again" in handler.events
        assert handler.payloads() == [b"first", b"second"] * 2
        assert [packet.duplicate for packet, _ in handler.received_packets] == [False, False, True, True]
        for packet, connection in handler.received_packets[2:]:
            session.acknowledge(packet.packet_id, connection)
        session.flush()
        await session.echo()
    async with connected(broker, handler) as session:
        await until(lambda: handler.ready_times() == 3)
        await session.echo()
    assert len(handler.received_packets) == 4


async def test_on_a_live_connection_nothing_is_redelivered_and_the_window_bounds_what_comes(
    tmp_path, handler
):
    async with a_broker(tmp_path) as broker, connected(broker, handler, receive_max=5) as session:
        await until(handler.ready_times)
        async with device(broker) as thing:
            await send(thing, *(str(number).encode() for number in range(12)))
            await until(lambda: len(handler.received_packets) == 5)
            await session.echo()
            await session.echo()
            assert len(handler.received_packets) == 5
            for seen in range(12):
                await handler.has_received(seen + 1)
                packet, connection = handler.received_packets[seen]
                session.acknowledge(packet.packet_id, connection)
                session.flush()
    assert handler.payloads() == [str(number).encode() for number in range(12)]


async def test_what_was_sent_while_the_bridge_was_away_waits_for_it(broker, handler):
    async with connected(broker, handler):
        await until(handler.ready_times)
    async with device(broker) as thing:
        await send(thing, b"while you were out")
    async with connected(broker, handler):
        await until(lambda: handler.received_packets)
    assert handler.payloads() == [b"while you were out"]


# ---------------------------------------------------------------------- publishing


async def test_answers_reach_the_device_in_order_with_an_expiry_and_not_retained(broker, handler):
    async with connected(broker, handler) as session, device(broker) as thing:
        await until(handler.ready_times)
        thing.write(mqtt5.SubscribePacket(1, filters("$aws/things/lamp/shadow/update/+")))
        assert isinstance(await thing.read(), mqtt5.SubAckPacket)
        payloads = [b"small", bytes(200), bytes(20_000), b""]
        for payload in payloads:
            assert session.publish(ACCEPTED.format("lamp"), payload, 300)
        session.flush()
        packets = await thing.read_publishes(len(payloads))
    assert [packet.payload for packet in packets] == payloads
    assert all(packet.qos is ONCE and not packet.retain for packet in packets)
    assert all((packet.message_expiry_interval or 0) in {299, 300} for packet in packets)


async def test_marks_are_settled_in_order_and_only_marks(tmp_path, handler):
    async with a_broker(tmp_path, in_flight_max=20) as broker, connected(broker, handler) as session:
        await until(handler.ready_times)
        assert session.window_free == 20
        for number in range(500):
            mark = number if number % 3 == 0 else None
            assert session.publish(ACCEPTED.format("nobody"), b"x", 60, mark)
        session.flush()
        await until(lambda: session.window_free == 20 and handler.marks[-1:] == [498])
        assert handler.marks == list(range(0, 500, 3))
        assert session.counts.refused == session.counts.violations == 0


async def test_what_the_broker_does_not_allow_us_is_counted(broker, handler):
    async with connected(broker, handler) as session:
        await until(handler.ready_times)
        session.publish("not/ours", b"x", 60, "settled all the same")
        session.flush()
        await until(lambda: handler.marks)
        assert session.counts.refused == 1


async def test_while_the_broker_is_stuck_what_waits_is_bounded_and_afterwards_all_of_it_is_sent(
    broker, handler
):
    async with connected(broker, handler) as session:
        await until(handler.ready_times)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            taken = 0
            while session.publish(ACCEPTED.format("nobody"), bytes(3_000), 60, taken):
                taken += 1
                session.flush()
                assert taken <= WAITING_MESSAGES_MAX + 65_535
            assert not session.publish(ACCEPTED.format("nobody"), bytes(3_000), 60)
            waiter = asyncio.ensure_future(session.drained())
            await asyncio.sleep(0.05)
            assert not waiter.done()
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        await waiter
        await until(lambda: len(handler.marks) == taken)
        assert handler.marks == list(range(taken))
        assert session.counts.connections == 1


# ---------------------------------------------------------------------- when the broker goes


async def test_after_the_broker_was_killed_the_session_comes_back_and_subscribes_anew(broker, handler):
    async with connected(broker, handler) as session:
        await until(handler.ready_times)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await until(lambda: not session.connected)
        assert not session.publish(ACCEPTED.format("lamp"), b"x", 60)
        await until(lambda: handler.ready_times() == 2)
        async with device(broker) as thing:
            await send(thing, b"after the kill")
            await until(lambda: handler.received_packets)
    # It had never saved our session, so that it began anew.
    assert handler.events[:5] == ["connected anew", "ready", "disconnected", "connected anew", "ready"]


async def test_after_an_orderly_restart_the_broker_remembers_the_session(broker, handler):
    async with connected(broker, handler):
        await until(handler.ready_times)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGTERM)
        await until(lambda: handler.ready_times() == 2)
        async with device(broker) as thing:
            await send(thing, b"after the restart")
            await until(lambda: handler.received_packets)
    assert handler.events[3] == "connected again"


async def test_an_echo_tells_a_living_broker_from_a_stuck_one(broker, handler):
    async with connected(broker, handler) as session:
        with pytest.raises(LinkError):
            await session.echo()
        await until(handler.ready_times)
        await session.echo()
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await session.echo()
        os.kill(broker.pid, signal.SIGCONT)
        await session.echo()


async def test_a_wrong_password_is_tried_again_and_disturbs_nothing(broker, handler):
    async with connected(broker, handler, password="wrong") as session:
        await asyncio.sleep(0.3)
        assert session.counts.connections == 0
        assert not session.connected
    assert handler.events == []
