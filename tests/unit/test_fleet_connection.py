"""A link between a broker's bytes, cut anywhere, and a listener; and names for what goes wrong."""

import asyncio
import ssl
from collections import Counter
from typing import cast

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.connection import (
    PACKET_BYTES_MAX,
    QUEUE_PACKETS_MAX,
    Link,
    LinkError,
    Will,
    _kind,
    plain_identity,
)

QOS_1 = mqtt5.QoS.AT_LEAST_ONCE


class Transport:
    """Keeps what is written, as packets."""

    def __init__(self):
        self.data = b""
        self.writes = 0
        self.is_aborted = self.is_closed = False

    def write(self, data):
        self.data += data
        self.writes += 1

    def is_closing(self):
        return self.is_aborted or self.is_closed

    def abort(self):
        self.is_aborted = True

    def close(self):
        self.is_closed = True

    def packets(self):
        found, view = [], memoryview(self.data)
        while view:
            packet, size = mqtt5.read(view)
            found.append(packet)
            view = view[size:]
        self.data = b""
        return found


class Listener:
    def __init__(self):
        self.heard: list[object] = []

    def connected(self):
        self.heard.append("connected")

    def disconnected(self):
        self.heard.append("disconnected")

    def message(self, topic, payload):
        self.heard.append((topic, payload))


class Bench:
    """A link that has sent CONNECT; `open` lets it in."""

    def __init__(self, will=None):
        self.transport, self.listener = Transport(), Listener()
        self.errors: Counter[str] = Counter()
        self.link = Link(plain_identity("th", will), self.listener, self.errors)
        self.link.connection_made(cast("asyncio.Transport", self.transport))
        [self.connect] = self.transport.packets()

    def open(self, receive_max=100):
        self.read(mqtt5.ConnAckPacket(receive_max=receive_max))
        return self

    def read(self, *packets):
        self.bytes(b"".join(packet.write() for packet in packets))

    def bytes(self, data):
        buffer = self.link.get_buffer(-1)
        buffer[: len(data)] = data
        self.link.buffer_updated(len(data))


async def bench(**options):
    return Bench(**options)


async def test_connect_carries_name_and_will_and_starts_clean():
    connect = (await bench(will=Will("t", b"gone"))).connect
    assert (connect.client_id, connect.username, connect.clean_start) == ("th", "th", True)
    assert (connect.will.topic, connect.will.payload, connect.will.retain) == ("t", b"gone", False)


@given(cuts=st.lists(st.integers(1, 40), max_size=30))
def test_messages_are_heard_in_order_wherever_the_bytes_are_cut(cuts):
    async def run():
        link = Bench()
        messages = [(f"t/{n}", bytes([n]) * n * 20) for n in range(6)]
        data = mqtt5.ConnAckPacket().write()
        for n, (topic, payload) in enumerate(messages):
            data += mqtt5.PublishPacket(topic, payload, qos=QOS_1, packet_id=n + 1).write()
        for cut in cuts:
            link.bytes(data[:cut])
            data = data[cut:]
        link.bytes(data)
        assert link.listener.heard == ["connected", *messages]
        acknowledged = [
            one.packet_id for one in link.transport.packets() if isinstance(one, mqtt5.PubAckPacket)
        ]
        assert acknowledged == [1, 2, 3, 4, 5, 6]
        link.link.connection_lost(None)

    asyncio.run(run())


async def test_what_is_sent_in_one_turn_leaves_in_one_write():
    link = (await bench()).open()
    before = link.transport.writes
    for n in range(5):
        assert link.link.publish("t", b"%d" % n)
    await asyncio.sleep(0)
    assert link.transport.writes == before + 1
    assert [one.payload for one in link.transport.packets()] == [b"0", b"1", b"2", b"3", b"4"]


async def test_no_more_is_under_way_than_the_broker_allows_and_the_rest_follows_in_order():
    link = (await bench()).open(receive_max=2)
    for n in range(5):
        assert link.link.publish("t", b"%d" % n)
    await asyncio.sleep(0)
    first = link.transport.packets()
    assert [one.payload for one in first] == [b"0", b"1"]
    link.read(mqtt5.PubAckPacket(first[0].packet_id), mqtt5.PubAckPacket(first[1].packet_id))
    second = link.transport.packets()
    assert [one.payload for one in second] == [b"2", b"3"]
    assert not {one.packet_id for one in first} & {one.packet_id for one in second}


async def test_a_full_queue_says_no_and_loses_nothing_that_was_taken():
    link = (await bench()).open(receive_max=1)
    taken = [link.link.publish("t", b"") for _ in range(QUEUE_PACKETS_MAX + 2)]
    assert taken == [True] * (QUEUE_PACKETS_MAX + 1) + [False]


async def test_while_the_peer_does_not_read_nothing_is_written():
    link = (await bench()).open()
    link.link.pause_writing()
    assert link.link.publish("t", b"1")
    await asyncio.sleep(0)
    assert link.transport.packets() == []
    link.link.resume_writing()
    await asyncio.sleep(0)
    assert [one.payload for one in link.transport.packets()] == [b"1"]


async def test_before_connack_and_after_the_end_publish_says_no():
    link = await bench()
    assert not link.link.publish("t", b"")
    link.open()
    link.link.connection_lost(None)
    assert not link.link.publish("t", b"")
    assert link.listener.heard == ["connected", "disconnected"]


async def test_a_goodbye_is_said_and_a_power_cut_is_not():
    link = (await bench()).open()
    link.link.close()
    assert [type(one) for one in link.transport.packets()] == [mqtt5.DisconnectPacket]
    assert link.transport.is_closed
    other = (await bench()).open()
    other.link.abort()
    assert other.transport.packets() == []
    assert other.transport.is_aborted


async def test_after_a_goodbye_nothing_more_is_heard_of_a_link():
    link = (await bench()).open()
    link.link.close()
    assert link.listener.heard == ["connected", "disconnected"]
    link.read(mqtt5.PublishPacket("t", b"late"))
    link.link.connection_lost(None)
    assert link.listener.heard == ["connected", "disconnected"]
    assert not link.link.publish("t", b"")


async def test_a_broker_that_says_no_or_something_else_is_left_with_the_reason():
    refused = await bench()
    refused.read(mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode.NOT_AUTHORIZED))
    assert refused.errors == {"CONNACK NOT_AUTHORIZED": 1}
    with pytest.raises(LinkError, match="NOT_AUTHORIZED"):
        await refused.link.opened
    assert refused.listener.heard == []
    garbled = (await bench()).open()
    garbled.bytes(b"\x00\x00\x00\x00")
    assert garbled.transport.is_aborted
    assert garbled.errors == {"malformed packet": 1}
    odd = (await bench()).open()
    odd.read(mqtt5.PingReqPacket())
    assert odd.errors == {"unexpected PingReqPacket": 1}
    told = (await bench()).open()
    told.read(mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER))
    assert told.errors == {"broker said SESSION_TAKEN_OVER": 1}


async def test_a_packet_without_end_is_not_kept():
    link = (await bench()).open()
    head = b"\x30\xff\xff\xff\x7f"  # a PUBLISH of 256 MB
    link.bytes(head + bytes(PACKET_BYTES_MAX - len(head)))
    assert not link.transport.is_aborted
    link.bytes(b"1")
    assert link.transport.is_aborted
    assert link.errors == {"packet too large": 1}


async def test_refused_subscriptions_and_publishes_are_counted():
    link = (await bench()).open()
    link.link.subscribe(["a", "b"])
    link.link.publish("t", b"")
    await asyncio.sleep(0)
    subscribe, publish = link.transport.packets()
    assert [(one.pattern, one.retain_handling) for one in subscribe.topic_filters] == [
        ("a", mqtt5.RetainHandling.SEND_NEVER),
        ("b", mqtt5.RetainHandling.SEND_NEVER),
    ]
    link.read(mqtt5.SubAckPacket(subscribe.packet_id, [mqtt5.SubAckReasonCode.NOT_AUTHORIZED] * 2))
    link.read(mqtt5.PubAckPacket(publish.packet_id, reason_code=mqtt5.PubAckReasonCode.NOT_AUTHORIZED))
    assert link.errors == {"subscription refused": 1, "PUBACK NOT_AUTHORIZED": 1}


async def test_a_peer_that_does_not_answer_a_ping_is_given_up():
    link = await bench()
    link.read(mqtt5.ConnAckPacket(server_keep_alive=1))
    await asyncio.sleep(0.6)
    assert [type(one) for one in link.transport.packets()] == [mqtt5.PingReqPacket]
    link.read(mqtt5.PingRespPacket())
    await asyncio.sleep(1.1)
    assert link.transport.is_aborted
    assert link.errors == {"no answer to ping": 1}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LinkError("closed before CONNACK"), "closed before CONNACK"),
        (TimeoutError(), "connect timed out"),
        (ssl.SSLError(1, "no"), "TLS failed"),
        (ConnectionRefusedError(), "connection refused"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_errors_are_counted_by_kind(error, kind):
    assert _kind(error) == kind
