"""The session against a broker that does what no honest broker does, or does it when we want it."""

import asyncio
from contextlib import suppress

import mqtt5
import pytest

from broker_bridge import session as session_module
from broker_bridge.link import ConnectionLostError
from broker_bridge.session import RETRY_S_MAX, STABLE_S, SubscriptionRefusedError
from tests.session_rig import Recorder, publish, running, scripted, until

pytestmark = pytest.mark.integration

GRANTED = mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE


@pytest.fixture
def handler():
    return Recorder()


# ---------------------------------------------------------------------- connecting


async def test_it_asks_for_a_session_that_lasts_and_subscribes_as_it_was_told(handler):
    seen = []

    async def act(broker):
        seen.append(await broker.read())
        broker.write(mqtt5.ConnAckPacket())
        seen.append(await broker.read())
        broker.write(mqtt5.SubAckPacket(seen[1].packet_id, [GRANTED, GRANTED]))
        await broker.stay()

    async with scripted(act) as port, running(handler, port, "a/+", "b/#", receive_max=77):
        await until(handler.ready_times)
    connect, subscribe = seen
    assert (connect.client_id, connect.username, connect.password) == ("svc.bridge", "svc.bridge", b"secret")
    assert connect.clean_start is False
    assert connect.session_expiry_interval == session_module.SESSION_EXPIRY_S
    assert connect.receive_max == 77
    assert [one.pattern for one in subscribe.topic_filters] == ["a/+", "b/#"]
    assert all(one.max_qos is mqtt5.QoS.AT_LEAST_ONCE for one in subscribe.topic_filters)
    assert all(one.retain_handling is mqtt5.RetainHandling.SEND_NEVER for one in subscribe.topic_filters)
    assert all(one.retain_as_published for one in subscribe.topic_filters)


async def test_it_says_goodbye_when_it_is_cancelled(handler):
    last = []

    async def act(broker):
        await broker.accept()
        last.append(await broker.read())

    async with scripted(act) as port, running(handler, port):
        await until(handler.ready_times)
    assert [type(one) for one in last] == [mqtt5.DisconnectPacket]
    assert last[0].reason_code is mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION
    assert handler.events[-1] == "disconnected"


async def test_it_ends_also_when_it_is_cancelled_just_as_its_connection_ends(handler):
    # Python 3.11's task group then raises only that the connection ended.
    async def connected(_session_present):
        handler.events.append("preparing")
        try:
            await asyncio.sleep(60)
        finally:
            (session,) = (one for one in asyncio.all_tasks() if one.get_name() == "session")
            session.cancel()

    handler.connected = connected

    async def act(broker):
        await broker.accept()
        await until(lambda: handler.events)

    async with asyncio.timeout(5), scripted(act) as port, running(handler, port):
        await asyncio.sleep(0.5)
        assert handler.events == ["preparing", "disconnected"]
        assert "session" not in {one.get_name() for one in asyncio.all_tasks()}


async def test_a_refused_subscription_is_named_and_ends_it(handler):
    async def act(broker):
        await broker.read()
        broker.write(mqtt5.ConnAckPacket())
        subscribe = await broker.read()
        broker.write(
            mqtt5.SubAckPacket(subscribe.packet_id, [GRANTED, mqtt5.SubAckReasonCode.NOT_AUTHORIZED])
        )
        await broker.stay()

    with pytest.raises(ExceptionGroup) as raised:
        async with scripted(act) as port, running(handler, port, "a/+", "secret/+"):
            await asyncio.sleep(5)
    (error,) = raised.value.exceptions
    assert isinstance(error, SubscriptionRefusedError)
    assert error.filter == "secret/+"
    assert "let this user read" in str(error)
    assert handler.events == []


async def test_a_refused_connection_is_tried_again(handler):
    async def busy(broker):
        await broker.read()
        broker.write(mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.SERVER_BUSY))
        await broker.stay()

    async def well(broker):
        await broker.accept()
        await broker.stay()

    async with scripted(busy, busy, well) as port, running(handler, port) as session:
        await until(handler.ready_times)
        assert session.counts.connections == 1


async def test_a_broker_that_never_answers_is_given_up(handler, monkeypatch):
    monkeypatch.setattr(session_module, "CONNECT_S_MAX", 0.1)

    async def mute(broker):
        await broker.stay()

    async def well(broker):
        await broker.accept()
        await broker.stay()

    async with scripted(mute, well) as port, running(handler, port):
        await until(handler.ready_times)


async def test_it_subscribes_at_first_and_then_only_when_the_broker_has_forgotten(handler):
    async def first(broker):
        await broker.accept(session_present=True)  # of an earlier process: the filters may have changed

    async def remembered(broker):
        await broker.resume()
        broker.write(publish(5, b"waiting"))
        assert not isinstance(await broker.read(), mqtt5.SubscribePacket)

    async def forgotten(broker):
        await broker.accept(session_present=False)
        await broker.stay()

    async with scripted(first, remembered, forgotten) as port, running(handler, port) as session:
        await until(lambda: handler.received_packets)
        session.acknowledge(5, handler.received_packets[0][1])
        session.flush()
        await until(lambda: handler.ready_times() == 3)
    starts = [event for event in handler.events if event.startswith("connected")]
    assert starts == ["connected again", "connected again", "connected anew"]


# ---------------------------------------------------------------------- receiving


async def test_messages_wait_until_the_handler_is_ready_and_keep_their_order(handler):
    handler.let_in.clear()

    async def act(broker):
        await broker.read()
        broker.write(mqtt5.ConnAckPacket(), publish(1, b"before the subscription is granted"))
        subscribe = await broker.read()
        broker.write(mqtt5.SubAckPacket(subscribe.packet_id, [GRANTED]), publish(2, b"second"))
        await asyncio.sleep(0.05)
        handler.let_in.set()
        broker.write(publish(3, b"third"))
        await broker.stay()

    async with scripted(act) as port, running(handler, port):
        await until(lambda: len(handler.received_packets) == 3)
    assert handler.events[:5] == [
        "connected anew",
        "ready",
        "received before the subscription is granted",
        "received second",
        "received third",
    ]


async def test_of_messages_that_need_no_acknowledgement_only_so_many_wait(handler):
    handler.let_in.clear()

    async def act(broker):
        await broker.accept()
        broker.write(*(publish(0, b"loose", qos=mqtt5.QoS.AT_MOST_ONCE) for _ in range(9)))
        broker.write(publish(1, b"kept"))
        await asyncio.sleep(0.05)
        handler.let_in.set()
        await broker.stay()

    async with scripted(act) as port, running(handler, port, receive_max=5) as session:
        await until(lambda: b"kept" in handler.payloads())
        assert handler.payloads().count(b"loose") == 5
        assert session.counts.early == 4


async def test_an_acknowledgement_for_an_earlier_connection_is_not_sent(handler):
    async def first(broker):
        await broker.accept()
        broker.write(publish(9, b"old"))
        await asyncio.sleep(0.05)

    async def second(broker):
        await broker.resume()
        broker.write(publish(9, b"again"))
        assert (await broker.read()).packet_id == 9
        assert await broker.quiet()

    async def last(broker):
        await broker.resume()
        await broker.stay()

    async with scripted(first, second, last) as port, running(handler, port) as session:
        await until(lambda: len(handler.received_packets) == 2)
        (_, old), (_, new) = handler.received_packets
        assert old != new
        session.acknowledge(9, old)
        session.acknowledge(9, new)
        session.flush()
        await until(lambda: handler.ready_times() == 3)


# ---------------------------------------------------------------------- publishing


async def test_the_broker_is_never_sent_more_than_it_takes_at_once(handler):
    counts = []

    async def act(broker):
        await broker.accept(receive_max=3)
        sent = 0
        while sent < 10:
            batch = await broker.read_publishes(min(3, 10 - sent))
            counts.append(len(batch))
            assert await broker.quiet()
            broker.write(*(mqtt5.PubAckPacket(one.packet_id) for one in batch))
            sent += len(batch)
        await broker.stay()

    async with scripted(act) as port, running(handler, port) as session:
        await until(handler.ready_times)
        assert session.window_free == 3
        for number in range(10):
            assert session.publish("t", b"x", 60, number)
        session.flush()
        await until(lambda: len(handler.marks) == 10)
    assert handler.marks == list(range(10))
    assert counts == [3, 3, 3, 1]


async def test_one_write_carries_all_that_was_queued(handler):
    sizes = []

    async def act(broker):
        await broker.accept()
        sizes.append(len(await broker._reader.read(65_536)))
        await broker.stay()

    async with scripted(act) as port, running(handler, port) as session:
        await until(handler.ready_times)
        for _ in range(5):
            session.publish("t", bytes(200), 60)
        session.flush()
        await until(lambda: sizes)
    assert sizes[0] > 5 * 200


async def test_without_a_connection_nothing_is_taken_and_nobody_waits(handler):
    async def act(broker):
        await broker.accept()

    async with scripted(act) as port, running(handler, port) as session:
        assert not session.publish("t", b"", 60)
        await session.drained()
        with pytest.raises(ConnectionLostError):
            await session.echo()
        await until(lambda: "disconnected" in handler.events)
        assert not session.connected
        assert not session.publish("t", b"", 60)
        assert session.window_free == 0


async def test_what_was_not_settled_is_forgotten_with_its_connection(handler):
    async def first(broker):
        await broker.accept(receive_max=1)
        await broker.read_publishes(1)

    async def second(broker):
        await broker.resume()
        (packet,) = await broker.read_publishes(1)
        assert packet.payload == b"said again by whoever marked it"
        broker.write(mqtt5.PubAckPacket(packet.packet_id))
        await broker.stay()

    async with scripted(first, second) as port, running(handler, port) as session:
        await until(handler.ready_times)
        session.publish("t", b"in flight", 60, "lost")
        session.publish("t", b"waiting", 60, "lost too")
        session.flush()
        await until(lambda: handler.ready_times() == 2)
        session.publish("t", b"said again by whoever marked it", 60, "settled")
        session.flush()
        await until(lambda: handler.marks)
    assert handler.marks == ["settled"]


async def test_whoever_waits_for_room_is_woken_by_room_and_by_the_end(handler):
    go = asyncio.Event()

    async def first(broker):
        await broker.accept(receive_max=1)
        await go.wait()
        while True:
            packet = await broker.read()
            if packet.payload == b"end":
                return
            broker.write(mqtt5.PubAckPacket(packet.packet_id))

    async def second(broker):
        await broker.resume()
        await broker.stay()

    async with scripted(first, second) as port, running(handler, port) as session:
        await until(handler.ready_times)
        for _ in range(2_000):
            session.publish("t", b"x", 60)
        session.flush()
        async with asyncio.TaskGroup() as tasks:
            waits = [tasks.create_task(session.drained(), name=f"wait {n}") for n in range(3)]
            await asyncio.sleep(0.05)
            assert not any(one.done() for one in waits)
            go.set()
        session.publish("t", b"end", 60)
        for _ in range(2_000):
            session.publish("t", b"x", 60)
        session.flush()
        async with asyncio.timeout(5):
            await session.drained()
        await until(lambda: handler.ready_times() == 2)


async def test_a_message_above_the_brokers_limit_is_left_out_and_the_connection_lives(handler):
    async def act(broker):
        await broker.accept(max_packet_size=5_000)
        (packet,) = await broker.read_publishes(1)
        assert packet.payload == b"small"
        await broker.stay()

    async with scripted(act) as port, running(handler, port) as session:
        await until(handler.ready_times)
        assert session.publish("t", bytes(5_000), 60, "too large")
        assert session.publish("t", b"small", 60)
        session.flush()
        assert handler.marks == ["too large"]
        assert session.counts.oversized == 1
        assert session.connected


# ---------------------------------------------------------------------- when things go wrong


@pytest.mark.parametrize(
    "fault",
    [
        b"\x00\x00",
        mqtt5.PubAckPacket(7).write(),
        mqtt5.SubAckPacket(1, [GRANTED]).write(),
        mqtt5.PubRelPacket(1).write(),
        b"\x3f\xff\xff\xff\x7f",
    ],
    ids=["no-packet", "puback-of-nothing", "suback-again", "pubrel", "huge"],
)
async def test_what_the_broker_may_not_send_ends_the_connection_and_a_new_one_is_made(handler, fault):
    async def wrong(broker):
        await broker.accept()
        await until(handler.ready_times)
        broker.write(fault)
        await broker.stay()

    async def well(broker):
        await broker.resume()
        await broker.stay()

    async with scripted(wrong, well) as port, running(handler, port) as session:
        await until(lambda: handler.ready_times() == 2)
        assert session.counts.violations == 1
        assert session.counts.connections == 2
    assert handler.events == [
        *("connected anew", "ready", "disconnected"),
        *("connected again", "ready", "disconnected"),
    ]


async def test_a_broker_that_stops_answering_pings_is_left(handler, monkeypatch):
    monkeypatch.setattr(session_module, "PING_S_MAX", 0.1)

    async def asleep(broker):
        await broker.accept(server_keep_alive=1)
        assert isinstance(await broker.read(), mqtt5.PingReqPacket)
        with suppress(ConnectionError):
            await broker.read()

    async def well(broker):
        await broker.resume()
        await broker.stay()

    async with scripted(asleep, well) as port, running(handler, port):
        await until(lambda: handler.ready_times() == 2)


async def test_an_echo_returns_when_the_broker_has_answered(handler):
    async def act(broker):
        await broker.accept()
        await broker.stay()

    async with scripted(act) as port, running(handler, port) as session:
        await until(handler.ready_times)
        async with asyncio.timeout(5):
            await session.echo()


async def test_a_handler_that_is_still_preparing_when_the_connection_ends_is_stopped(handler):
    handler.let_in.clear()

    async def first(broker):
        await broker.accept()
        await until(lambda: handler.events)

    async def second(broker):
        await broker.resume()
        await until(lambda: len(handler.events) == 3)
        handler.let_in.set()
        await broker.stay()

    async with scripted(first, second) as port, running(handler, port):
        await until(handler.ready_times)
    assert handler.events[:3] == ["connected anew", "disconnected", "connected again"]


async def test_a_bug_in_the_handler_ends_the_session_loudly(handler):
    def stumble(packet, connection):
        raise ZeroDivisionError(packet, connection)

    handler.received = stumble

    async def act(broker):
        await broker.accept()
        broker.write(publish(1, b"x"))
        await broker.stay()

    with pytest.raises(ExceptionGroup) as raised:
        async with scripted(act) as port, running(handler, port):
            await asyncio.sleep(5)
    assert raised.value.subgroup(ZeroDivisionError) is not None


async def test_waiting_between_tries_grows_at_random_up_to_a_limit(handler):
    async with scripted() as port, running(handler, port) as session:
        ceilings = [
            max(session._retry_delay_s(failures) for _ in range(200)) for failures in (0, 3, 6, 1_000)
        ]
        assert ceilings == sorted(ceilings)
        assert ceilings[0] <= session_module.RETRY_S_MIN
        assert RETRY_S_MAX / 2 < ceilings[-1] <= RETRY_S_MAX
        assert min(session._retry_delay_s(1_000) for _ in range(200)) < RETRY_S_MAX / 10
    assert STABLE_S > RETRY_S_MAX / 2
