"""A lane of the outbox: order, once, and what a late sender may not undo. Pure, so without a store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import lanes
from infra.lanes import (
    ITEM_BYTES_MAX,
    ITEMS_WAITING_MAX,
    OVERDUE_MS,
    RECENT_MAX,
    Item,
    Lane,
    LaneFullError,
)
from infra.states import ItemState
from tests.fakes import NOW_MS

HOME = "pr-0001"
LATER_MS = NOW_MS + 60_000


def item(key="a", lane=HOME, body=b"{}", kind="han.device.registered"):
    return Item(key, lane, kind, body, NOW_MS)


def lane_of(*keys):
    return lanes.queued(Lane(), [item(key) for key in keys], NOW_MS)


def sending(*keys, lease="l1"):
    return lanes.claimed(lane_of(*keys), lease, NOW_MS, LATER_MS)


def test_items_are_numbered_in_the_order_they_were_put():
    lane = lanes.queued(lane_of("a", "b"), [item("c")], NOW_MS)
    assert [(one.key, one.seq) for one in lane.waiting] == [("a", 1), ("b", 2), ("c", 3)]


def test_a_second_copy_of_a_key_changes_nothing():
    lane = lane_of("a", "b")
    assert lanes.queued(lane, [item("a", body=b"other"), item("b")], LATER_MS) is lane
    assert lane_of("a", "a") == lane_of("a")


def test_a_copy_of_what_was_just_delivered_changes_nothing():
    lane = lanes.delivered(sending("a"), 1, "r-1", NOW_MS)
    assert lanes.queued(lane, [item("a")], LATER_MS) is lane


def test_a_full_lane_takes_none_of_what_does_not_fit():
    full = lane_of(*(f"k{number}" for number in range(ITEMS_WAITING_MAX)))
    assert lanes.queued(full, [item("k3")], NOW_MS) is full
    with pytest.raises(LaneFullError):
        lanes.queued(full, [item("one more")], NOW_MS)
    with pytest.raises(LaneFullError):
        lane_of(*(f"k{number}" for number in range(ITEMS_WAITING_MAX + 1)))


def test_a_body_has_a_bound():
    assert item(body=b"x" * ITEM_BYTES_MAX).body
    with pytest.raises(ValueError, match="at most"):
        item(body=b"x" * (ITEM_BYTES_MAX + 1))
    for wrong in ({"key": ""}, {"lane": ""}, {"key": "k" * 257}):
        with pytest.raises(ValueError, match="characters"):
            item(**wrong)


def test_only_the_head_is_taken_and_only_once_until_its_time_is_over():
    lane = sending("a", "b")
    assert [one.state for one in lane.waiting] == [ItemState.SENDING, ItemState.QUEUED]
    assert lanes.claimed(lane, "l2", LATER_MS - 1, LATER_MS) is lane
    taken_over = lanes.claimed(lane, "l2", LATER_MS, LATER_MS + 1)
    assert (taken_over.lease, taken_over.waiting[0].attempts) == ("l2", 2)


def test_an_empty_lane_has_nothing_to_take():
    assert lanes.claimed(Lane(), "l1", NOW_MS, LATER_MS) == Lane()
    assert (Lane().due_ms, Lane().oldest_ms) == (None, None)


def test_what_was_delivered_leaves_without_its_body_and_the_next_is_due():
    lane = lanes.delivered(sending("a", "b"), 1, "r-1", LATER_MS)
    (done,) = lane.recent
    assert (done.state, done.receipt, done.body, done.delivered_at_ms) == (
        ItemState.DELIVERED,
        "r-1",
        b"",
        LATER_MS,
    )
    assert ([one.key for one in lane.waiting], lane.due_ms) == (["b"], NOW_MS)


def test_a_late_sender_may_say_delivered_but_neither_put_off_nor_block():
    lane = lanes.claimed(sending("a", lease="late"), "l2", LATER_MS, LATER_MS + 1)
    assert lanes.put_off(lane, "late", LATER_MS, "down") is lane
    assert lanes.blocked(lane, "late", "no") is lane
    done = lanes.delivered(lane, 1, "r-1", LATER_MS)
    assert done.waiting == ()
    assert lanes.delivered(done, 1, "r-1", LATER_MS) is done
    assert lanes.put_off(done, "l2", LATER_MS, "down") is done


def test_what_is_put_off_waits_for_its_time_and_says_why():
    lane = lanes.put_off(sending("a"), "l1", LATER_MS, "down")
    (head,) = lane.waiting
    assert (head.state, head.problem, lane.due_ms, lane.lease) == (ItemState.QUEUED, "down", LATER_MS, "")


def test_a_blocked_head_holds_its_lane_until_a_person_lets_it_go():
    lane = lanes.blocked(sending("a", "b"), "l1", "422 no such device")
    assert (lane.due_ms, lane.waiting[0].problem) == (None, "422 no such device")
    assert lanes.claimed(lane, "l2", 2**62, 2**62) is lane
    assert lanes.released(lane, "b", LATER_MS) is lane
    again = lanes.released(lane, "a", LATER_MS)
    assert (again.waiting[0].state, again.due_ms) == (ItemState.QUEUED, LATER_MS)


def test_what_is_in_hand_is_not_let_go_again():
    lane = sending("a")
    assert lanes.released(lane, "a", LATER_MS) is lane


def test_the_number_of_remembered_items_has_a_bound():
    lane = lane_of(*(f"k{number}" for number in range(RECENT_MAX + 1)))
    for seq in range(1, RECENT_MAX + 2):
        lane = lanes.delivered(lanes.claimed(lane, "l", NOW_MS, NOW_MS), seq, "", NOW_MS)
    assert [one.seq for one in lane.recent] == list(range(2, RECENT_MAX + 2))


def test_an_item_is_overdue_after_three_days_and_never_once_it_is_delivered():
    (head,) = lane_of("a").waiting
    assert not head.overdue(NOW_MS + OVERDUE_MS)
    assert head.overdue(NOW_MS + OVERDUE_MS + 1)
    (done,) = lanes.delivered(sending("a"), 1, "", NOW_MS).recent
    assert not done.overdue(NOW_MS + OVERDUE_MS + 1)


def test_the_idempotency_key_is_of_kind_premises_and_number_alone():
    first, second = lane_of("a", "b").waiting
    assert first.idempotency_key != second.idempotency_key
    assert first.idempotency_key == sending("a", "b").waiting[0].idempotency_key
    # Pinned: a receiver may have it in its records.
    assert first.idempotency_key == "8fdda152a6059062c7bb3fcb8d9bbc5f31c130cbdf80b845ccac07ddc13c17d3"


@given(st.lists(st.sampled_from(["put", "take", "done", "off", "block", "free", "take over"]), max_size=40))
def test_whatever_happens_items_leave_in_order_once_and_none_is_lost(acts):
    lane, put, at_ms = Lane(), 0, NOW_MS
    left = []
    for act in acts:
        at_ms += 1
        before = lane
        match act:
            case "put":
                put += 1
                lane = lanes.queued(lane, [item(f"k{put}")], at_ms)
            case "take":
                lane = lanes.claimed(lane, "l", at_ms, at_ms + 5)
            case "take over":
                at_ms += 10
                lane = lanes.claimed(lane, f"l{at_ms}", at_ms, at_ms + 5)
            case "done" if lane.waiting:
                lane = lanes.delivered(lane, lane.waiting[0].seq, "", at_ms)
            case "off":
                lane = lanes.put_off(lane, "l", at_ms + 3, "")
            case "block":
                lane = lanes.blocked(lane, "l", "")
            case "free" if lane.waiting:
                lane = lanes.released(lane, lane.waiting[0].key, at_ms)
        left += [one.seq for one in lane.recent if one not in before.recent]
        assert [*left, *(one.seq for one in lane.waiting)] == list(range(1, put + 1))
        assert lane.next_seq == put + 1
