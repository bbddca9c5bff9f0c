"""Flow control towards the broker, without a broker."""

import mqtt5
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker_bridge.outbound import (
    DRAINED_BELOW,
    DRAINED_BELOW_BYTES,
    PACKET_ID_MAX,
    WAITING_BYTES_MAX,
    WAITING_MESSAGES_MAX,
    Outbound,
    OutOfOrderError,
)


def opened(window=2):
    out = Outbound()
    out.open(window)
    return out


def decoded(data):
    found: list[mqtt5.PublishPacket | mqtt5.PubAckPacket] = []
    view = memoryview(data)
    while view:
        packet, size = mqtt5.read(view)
        assert isinstance(packet, mqtt5.PublishPacket | mqtt5.PubAckPacket)
        found.append(packet)
        view = view[size:]
    return found


def sent(data):
    """What the bytes say: topics of publishes, ("ack", id) for acknowledgements."""
    return [
        packet.topic if isinstance(packet, mqtt5.PublishPacket) else ("ack", packet.packet_id)
        for packet in decoded(data)
    ]


def test_without_a_connection_nothing_is_taken():
    out = Outbound()
    assert not out.publish("a", b"", 1, None)
    assert out.take() == b""
    assert out.drained


BLOCK = mqtt5.PublishPacket("block", b"x").write()


def test_blocks_need_no_window_and_an_acknowledgement_comes_behind_its_answer():
    out = opened(window=1)
    assert out.publish("a", b"", 1, None)
    assert out.publish("b", b"", 1, None)
    assert out.pass_on([BLOCK, BLOCK])
    out.acknowledge(9)
    assert sent(out.take()) == ["a", "block", "block"]
    out.settle(1)
    assert sent(out.take()) == ["b", ("ack", 9)]


def test_blocks_keep_their_place_among_what_is_written():
    out = opened(window=9)
    out.publish("a", b"", 1, None)
    out.pass_on([BLOCK])
    out.acknowledge(9)
    out.publish("b", b"", 1, None)
    assert sent(out.take()) == ["a", "block", ("ack", 9), "b"]


def test_no_block_is_held_while_the_transport_is_full_or_away():
    out = Outbound()
    assert not out.pass_on([BLOCK])
    out.open(9)
    assert out.pass_on([BLOCK])
    out.hold()
    assert not out.pass_on([BLOCK])
    assert out.take() == b""
    out.release()
    assert sent(out.take()) == ["block"]
    out.pass_on([BLOCK])
    out.close()
    assert out.take() == b""


def test_all_that_was_queued_is_written_in_one_piece_and_in_order():
    out = opened(window=10)
    for topic in "abc":
        assert out.publish(topic, b"x", 1, None)
    out.acknowledge(9)
    assert sent(out.take()) == ["a", "b", "c", ("ack", 9)]
    assert out.take() == b""


def test_what_exceeds_the_window_waits_and_moves_up_as_acknowledgements_come():
    out = opened(window=2)
    for topic in "abcd":
        assert out.publish(topic, b"x", 1, None)
    assert sent(out.take()) == ["a", "b"]
    assert (out.window_free, out.waiting) == (0, 2)
    out.settle(1)
    assert sent(out.take()) == ["c"]
    out.settle(2)
    out.settle(3)
    assert sent(out.take()) == ["d"]
    assert (out.window_free, out.waiting) == (1, 0)


def test_a_request_is_not_acknowledged_before_its_answer_is_written():
    out = opened(window=1)
    out.publish("a", b"x", 1, None)
    out.publish("answer", b"x", 1, None)
    out.acknowledge(5)
    assert sent(out.take()) == ["a"]
    out.settle(1)
    assert sent(out.take()) == ["answer", ("ack", 5)]


def test_marks_come_back_in_the_order_of_their_publishes():
    out = opened(window=2)
    for mark in ("one", None, "three"):
        out.publish("t", b"", 1, mark)
    assert [out.settle(id) for id in (1, 2, 3)] == ["one", None, "three"]


@pytest.mark.parametrize("packet_id", [2, 0, 65_535])
def test_an_acknowledgement_out_of_order_is_refused_and_changes_nothing(packet_id):
    out = opened(window=3)
    out.publish("a", b"", 1, "first")
    out.publish("b", b"", 1, "second")
    with pytest.raises(OutOfOrderError):
        out.settle(packet_id)
    assert (out.in_flight, out.window_free) == (2, 1)
    assert out.settle(1) == "first"


def test_an_acknowledgement_of_nothing_is_refused():
    out = opened()
    with pytest.raises(OutOfOrderError):
        out.settle(1)


def test_packet_ids_begin_again_after_the_last_one():
    out = opened(window=1)
    for id in range(1, PACKET_ID_MAX + 1):
        out.publish("t", b"", 1, None)
        out.settle(id)
    out.take()
    out.publish("t", b"", 1, "again")
    assert [packet.packet_id for packet in decoded(out.take())] == [1]
    assert out.settle(1) == "again"


def test_no_packet_id_is_used_twice_in_the_widest_window():
    out = opened(window=PACKET_ID_MAX)
    for _ in range(100):
        out.publish("t", b"", 1, None)
    for id in range(1, 101):
        out.settle(id)
    out.take()
    for _ in range(PACKET_ID_MAX):
        assert out.publish("t", b"", 1, None)
    assert out.window_free == 0
    ids = {packet.packet_id for packet in decoded(out.take())}
    assert ids == set(range(1, PACKET_ID_MAX + 1))


def test_as_many_wait_as_may_and_one_more_is_refused():
    out = opened(window=1)
    out.publish("t", b"", 1, None)
    for _ in range(WAITING_MESSAGES_MAX):
        assert out.publish("t", b"", 1, None)
    assert not out.publish("t", b"", 1, None)
    assert out.waiting == WAITING_MESSAGES_MAX
    out.settle(1)
    assert out.publish("t", b"", 1, None)


def test_as_many_bytes_wait_as_may_and_one_more_is_refused():
    out = opened(window=1)
    out.publish("t", b"", 1, None)
    assert out.publish("t", bytes(WAITING_BYTES_MAX), 1, None)
    assert not out.publish("t", b"x", 1, None)
    out.settle(1)
    assert out.publish("t", b"x", 1, None)


def test_it_is_drained_again_when_few_wait():
    out = opened(window=1)
    out.publish("t", b"", 1, None)
    for _ in range(DRAINED_BELOW - 1):
        out.publish("t", b"", 1, None)
    assert out.drained
    out.publish("t", b"", 1, None)
    assert not out.drained


def test_it_is_not_drained_while_a_few_large_ones_wait():
    """Or what waits for room would be told that there is some, and find none."""
    out = opened(window=1)
    out.publish("t", b"", 1, None)
    out.publish("t", bytes(DRAINED_BELOW_BYTES - 1), 1, None)
    assert out.drained
    out.publish("t", b"x", 1, None)
    assert not out.drained
    out.settle(1)
    assert out.drained


def test_while_the_transport_is_full_publishes_wait_and_nothing_is_written():
    out = opened(window=10)
    out.publish("a", b"", 1, None)
    out.hold()
    out.publish("b", b"", 1, None)
    assert out.take() == b""
    assert not out.drained
    out.release()
    assert sent(out.take()) == ["a", "b"]
    assert out.drained


def test_a_new_connection_knows_nothing_of_the_last():
    out = opened(window=1)
    out.publish("a", b"", 1, "old")
    out.publish("b", b"", 1, "old")
    out.acknowledge(3)
    out.open(4)
    assert out.take() == b""
    assert (out.window_free, out.waiting, out.in_flight) == (4, 0, 0)
    out.publish("c", b"", 1, "new")
    assert out.settle(1) == "new"


class FlowControl(RuleBasedStateMachine):
    """Any course of events against the simplest thing that could be right: one list."""

    WINDOW = 3

    def __init__(self):
        super().__init__()
        self.out = opened(self.WINDOW)
        self.expected = []  # all that was queued, in order
        self.written = []
        self.settled = 0
        self.held = False
        self.number = 0

    def publishes(self, items):
        return [item for item in items if isinstance(item, str)]

    @rule()
    def publish(self):
        self.number += 1
        assert self.out.publish(f"t{self.number}", b"", 1, self.number)
        self.expected.append(f"t{self.number}")

    @rule()
    def acknowledge(self):
        self.number += 1
        self.out.acknowledge(self.number)
        self.expected.append(("ack", self.number))

    @rule(count=st.integers(1, 3))
    def broker_acknowledges(self, count):
        for _ in range(min(count, len(self.publishes(self.written)) - self.settled)):
            self.settled += 1
            mark = self.out.settle(self.settled)
            assert f"t{mark}" == self.publishes(self.written)[self.settled - 1]

    @precondition(lambda self: not self.held)
    @rule()
    def transport_fills(self):
        self.out.hold()
        self.held = True

    @precondition(lambda self: self.held)
    @rule()
    def transport_empties(self):
        self.out.release()
        self.held = False

    @rule()
    def flush(self):
        self.written += sent(self.out.take())

    @invariant()
    def the_broker_is_never_sent_more_than_its_window(self):
        assert len(self.publishes(self.written)) - self.settled <= self.WINDOW
        assert self.out.in_flight <= self.WINDOW
        assert self.out.in_flight + self.out.window_free == self.WINDOW

    @invariant()
    def publishes_keep_their_order_and_no_acknowledgement_overtakes_one(self):
        publishes = self.publishes(self.expected)
        assert self.publishes(self.written) == publishes[: len(self.publishes(self.written))]
        for at, item in enumerate(self.written):
            if not isinstance(item, str):
                before = self.publishes(self.expected[: self.expected.index(item)])
                assert set(before) <= set(self.written[:at])


TestFlowControl = FlowControl.TestCase
TestFlowControl.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
