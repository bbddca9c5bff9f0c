"""One connection's bytes, without a connection: what the broker sends is fed in, what is written is kept."""

import asyncio

import mqtt5
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_bridge.link import READ_BYTES, ConnectionLostError, Counts, Link, ProtocolViolationError
from broker_bridge.outbound import Outbound

PACKET_BYTES_MAX = 400_000
ONCE = mqtt5.QoS.AT_LEAST_ONCE


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.writes = 0
        self.aborted = False

    def write(self, data):
        self.written += bytes(data)
        self.writes += 1

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def abort(self):
        self.aborted = True

    def close(self):
        self.aborted = True


class Recorder:
    """A handler that writes down what it is told."""

    def __init__(self):
        self.packets: list[mqtt5.PublishPacket] = []
        self.marks: list[object] = []
        self.on_received = lambda _packet: None

    def received(self, packet, connection):
        assert connection == 7
        self.packets.append(packet)
        self.on_received(packet)

    def settled(self, mark):
        self.marks.append(mark)

    async def connected(self, session_present):
        raise NotImplementedError

    def disconnected(self):
        raise NotImplementedError


class Rig:
    """A link with everything around it."""

    def __init__(self, window=10):
        self.handler = Recorder()
        self.outbound = Outbound()
        self.outbound.open(window)
        self.counts = Counts()
        self.link = Link(7, self.handler, self.outbound, self.counts, PACKET_BYTES_MAX)
        self.wire = Wire()
        self.link.connection_made(self.wire)

    def feed(self, data, slice_bytes=None):
        view = memoryview(data)
        while view:
            room = self.link.get_buffer(-1)
            size = min(len(room), len(view), slice_bytes or len(view))
            room[:size] = view[:size]
            view = view[size:]
            self.link.buffer_updated(size)

    def ended_by(self):
        assert self.link.closed.done()
        return self.link.closed.exception()


def publish(packet_id=1, payload=b"x", topic="t"):
    return mqtt5.PublishPacket(topic, payload, qos=ONCE, packet_id=packet_id).write()


async def test_messages_arrive_whole_however_the_bytes_are_cut():
    data = (
        publish(1, b"one") + mqtt5.PingRespPacket().write()[:0] + publish(2, bytes(5_000)) + publish(3, b"")
    )
    for slice_bytes in (1, 2, 3, 7, 4_096, None):
        rig = Rig()
        rig.feed(data, slice_bytes)
        assert [(one.packet_id, len(one.payload)) for one in rig.handler.packets] == [
            (1, 3),
            (2, 5_000),
            (3, 0),
        ]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=400), max_size=20), st.integers(1, 500))
def test_any_messages_in_any_slices_arrive_in_order(payloads, slice_bytes):
    async def arrive():
        rig = Rig()
        rig.feed(b"".join(publish(1 + at, one) for at, one in enumerate(payloads)), slice_bytes)
        assert [one.payload for one in rig.handler.packets] == payloads

    asyncio.run(arrive())


async def test_a_packet_larger_than_the_buffer_makes_it_grow():
    payload = bytes(range(256)) * (READ_BYTES // 256) + b"end"
    rig = Rig()
    rig.feed(publish(1, b"before") + publish(2, payload) + publish(3, b"after"))
    assert [one.payload for one in rig.handler.packets] == [b"before", payload, b"after"]


async def test_a_packet_above_the_limit_ends_the_link():
    rig = Rig()
    rig.feed(publish(1, bytes(PACKET_BYTES_MAX))[:100])
    assert isinstance(rig.ended_by(), ProtocolViolationError)
    assert rig.wire.aborted
    assert rig.counts.violations == 1


async def test_a_whole_run_of_acknowledgements_settles_its_marks_in_order():
    rig = Rig()
    for mark in ("a", None, "c"):
        assert rig.outbound.publish("t", b"", 1, mark)
    rig.feed(b"".join(mqtt5.PubAckPacket(id).write() for id in (1, 2, 3)), slice_bytes=3)
    assert rig.handler.marks == ["a", "c"]


async def test_an_acknowledgement_with_a_reason_settles_too_and_a_refusal_is_counted():
    rig = Rig()
    rig.outbound.publish("t", b"", 1, "nobody listens")
    rig.outbound.publish("t", b"", 1, "not allowed")
    for id, reason in enumerate(
        (mqtt5.PubAckReasonCode.NO_MATCHING_SUBSCRIBERS, mqtt5.PubAckReasonCode.NOT_AUTHORIZED), start=1
    ):
        rig.feed(mqtt5.PubAckPacket(id, reason_code=reason).write())
    assert rig.handler.marks == ["nobody listens", "not allowed"]
    assert rig.counts.refused == 1


async def test_what_the_handler_publishes_while_reading_is_written_once_at_the_end():
    rig = Rig()
    rig.handler.on_received = lambda packet: rig.outbound.acknowledge(packet.packet_id)
    rig.feed(publish(1) + publish(2) + publish(3))
    assert rig.wire.writes == 1
    assert rig.wire.written == b"".join(mqtt5.PubAckPacket(id).write() for id in (1, 2, 3))


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00",
        b"\xf0\x00",
        b"\x40\xff\xff\xff\xff\x01",
        b"\x40\x01\x00",
        mqtt5.PubAckPacket(9).write(),
        mqtt5.PubRecPacket(9).write(),
        mqtt5.ConnAckPacket().write(),
        mqtt5.PingRespPacket().write(),
        mqtt5.PingReqPacket().write(),
    ],
    ids=["no-type", "auth", "length", "short", "puback", "pubrec", "connack", "pingresp", "pingreq"],
)
async def test_what_the_broker_may_not_send_ends_the_link(data):
    rig = Rig()
    rig.feed(data)
    assert isinstance(rig.ended_by(), ProtocolViolationError)
    assert rig.counts.violations == 1
    assert not rig.outbound.publish("t", b"", 1, None)


def unknown_property(payload=b"poison"):
    """A message with packet id 0x0102 and a property that MQTT does not know."""
    body = b"\x00\x03bad\x01\x02" + b"\x02\x7f\x01" + payload
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
    return b"\x32" + length + body


def text_that_is_no_utf8():
    return publish(0x0102, b"poison", topic="bad").replace(b"bad", b"b\xffd")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the codec's panic leaves one
@pytest.mark.parametrize(
    "poison",
    [unknown_property(), unknown_property(bytes(300)), text_that_is_no_utf8()],
    ids=["property", "long", "panic"],
)
@pytest.mark.parametrize("slice_bytes", [1, None])
async def test_a_message_that_our_codec_refuses_is_acknowledged_and_dropped(poison, slice_bytes):
    # Redelivered after a new connection it would be refused again, for ever.
    rig = Rig()
    rig.feed(poison + publish(3), slice_bytes)
    assert [one.packet_id for one in rig.handler.packets] == [3]
    assert rig.counts.undecodable == 1
    assert rig.wire.written == mqtt5.PubAckPacket(0x0102).write()
    assert not rig.link.closed.done()


async def test_one_that_holds_no_packet_id_ends_the_link():
    rig = Rig()
    rig.feed(b"\x32\x03\x00\x09b")
    assert isinstance(rig.ended_by(), ProtocolViolationError)


async def test_a_bug_in_the_handler_is_not_taken_for_the_brokers_fault():
    rig = Rig()

    def stumble(_packet):
        raise ZeroDivisionError

    rig.handler.on_received = stumble
    rig.feed(publish(1))
    assert isinstance(rig.ended_by(), ZeroDivisionError)
    assert rig.counts.violations == 0


async def test_whoever_waits_for_an_answer_hears_that_the_link_has_ended():
    rig = Rig()
    ping = asyncio.ensure_future(rig.link.ping())
    await asyncio.sleep(0)
    rig.link.connection_lost(None)
    with pytest.raises(ConnectionLostError):
        await ping
    with pytest.raises(ConnectionLostError):
        await rig.link.ping()
    rig.ended_by()


async def test_pings_are_answered_in_order():
    rig = Rig()
    first, second = (asyncio.ensure_future(rig.link.ping()) for _ in range(2))
    await asyncio.sleep(0)
    rig.feed(mqtt5.PingRespPacket().write())
    await first
    assert not second.done()
    rig.feed(mqtt5.PingRespPacket().write())
    await second


async def test_while_the_transport_is_full_nothing_is_written_and_then_all_of_it():
    rig = Rig()
    rig.link.pause_writing()
    rig.outbound.publish("a", b"", 1, None)
    rig.outbound.publish("b", b"", 1, None)
    rig.link.flush()
    assert rig.wire.written == b""
    rig.link.resume_writing()
    assert rig.wire.writes == 1
    assert rig.outbound.in_flight == 2


async def test_a_goodbye_comes_after_what_was_queued():
    rig = Rig()
    rig.outbound.publish("a", b"", 1, None)
    rig.link.leave(mqtt5.DisconnectPacket())
    goodbye = mqtt5.DisconnectPacket().write()
    assert rig.wire.written.endswith(goodbye)
    assert len(rig.wire.written) > len(goodbye)


async def test_a_late_end_of_an_old_link_does_not_disturb_the_new_one():
    rig = Rig()
    rig.link.fail(ConnectionLostError("first"))
    rig.outbound.open(5)
    rig.link.connection_lost(None)
    assert rig.outbound.publish("t", b"", 1, None)
    rig.ended_by()
