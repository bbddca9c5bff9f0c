"""What we spell by hand is what the codec would have written."""

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_bridge import packets

topics = st.text(st.characters(codec="utf-8", exclude_characters="\0#+"), min_size=1, max_size=200)
ids = st.integers(1, 65_535)
expiries = st.integers(0, 2**32 - 1)


def by_codec(topic, payload, packet_id, expiry_s):
    return mqtt5.PublishPacket(
        topic,
        payload,
        qos=mqtt5.QoS.AT_LEAST_ONCE,
        packet_id=packet_id,
        message_expiry_interval=expiry_s,
    ).write()


@given(topics, st.binary(max_size=300), ids, expiries)
def test_a_publish_by_hand_has_the_bytes_of_the_codec(topic, payload, packet_id, expiry_s):
    assert packets.publish(topic, payload, packet_id, expiry_s) == by_codec(
        topic, payload, packet_id, expiry_s
    )


@pytest.mark.parametrize("around", [0x7F, 0x80, 0x3FFF, 0x4000, 0x1FFFFF, 0x200000])
def test_where_the_length_takes_another_byte_the_bytes_are_still_right(around):
    for size in range(around - 16, around + 3):
        payload = bytes(size)
        assert packets.publish("t", payload, 7, 300) == by_codec("t", payload, 7, 300)


@given(ids)
def test_a_puback_by_hand_has_the_bytes_of_the_codec(packet_id):
    assert packets.puback(packet_id) == mqtt5.PubAckPacket(packet_id).write()


@given(topics, st.binary(max_size=40), st.lists(st.binary(max_size=300), max_size=5))
def test_blocks_by_hand_have_the_bytes_of_the_codec(topic, head, tails):
    by_hand = b"".join(packets.blocks(topic, head, tails))
    assert by_hand == b"".join(mqtt5.PublishPacket(topic, head + tail).write() for tail in tails)


@pytest.mark.parametrize("around", [0x7F, 0x80, 0x3FFF, 0x4000, 0x1FFFFF, 0x200000])
def test_where_the_length_of_a_block_takes_another_byte_the_bytes_are_still_right(around):
    tails = [bytes(size) for size in range(around - 6, around + 2)]
    by_hand = b"".join(packets.blocks("t", b"h", tails))
    assert by_hand == b"".join(mqtt5.PublishPacket("t", b"h" + tail).write() for tail in tails)


def test_the_bytes_of_a_block_are_not_copied():
    tails = [bytes(4096), bytes(4096)]
    parts = packets.blocks("t", b"h", tails)
    assert parts[1] is tails[0]
    assert parts[3] is tails[1]
    assert parts[0] is parts[2]
