"""Whose turn it is to be given blocks."""

from hypothesis import given
from hypothesis import strategies as st

from broker_bridge import fairness
from broker_bridge.fairness import PACE, REQUESTS_PER_SHARE_MAX, Pace, Turns

NOW = 1_000.0
KIB = 1_024


def turns(pace=PACE):
    return Turns(pace)


def served(line, now_s=NOW, size_bytes=0):
    """Take all whose turn it is."""
    out = []
    while (taken := line.take(now_s)) is not None:
        out.append(taken)
        line.spent(taken[0], size_bytes, now_s)
    return out


def test_things_take_turns_and_each_keeps_its_order():
    line = turns()
    for number in range(3):
        line.put("a", number, 10)
    line.put("b", 10, 10)
    line.put("c", 20, 10)
    assert served(line) == [("a", 0), ("b", 10), ("c", 20), ("a", 1), ("a", 2)]
    assert len(line) == 0


def test_a_thing_that_asks_once_more_than_it_has_places_loses_its_oldest_request():
    line = turns()
    for number in range(REQUESTS_PER_SHARE_MAX):
        assert line.put("a", number, 10) is None
    assert line.put("a", 4, 10) == 0
    assert line.put("b", 9, 10) is None
    assert served(line) == [("a", 1), ("b", 9), ("a", 2), ("a", 3), ("a", 4)]


def test_what_is_above_the_bounds_of_all_is_dropped_itself(monkeypatch):
    monkeypatch.setattr(fairness, "REQUESTS_MAX", 3)
    monkeypatch.setattr(fairness, "REQUEST_BYTES_MAX", 100)
    line = turns()
    assert [line.put(name, name, 33) for name in "abc"] == [None] * 3
    assert line.put("d", "d", 1) == "d"
    assert [request for _, request in served(line)] == ["a", "b", "c"]
    assert line.put("a", "a", 100) is None
    assert line.put("b", "b", 1) == "b"
    assert line.put("c", "c", 101) == "c"


def test_after_a_rest_there_is_a_burst_and_then_the_pace():
    line = turns(Pace(bytes_per_s=1_000, burst_bytes=500))
    given_bytes, now_s = 0, NOW
    for _ in range(2_000):
        line.put("a", 0, 1)
        if line.take(now_s) is not None:
            line.spent("a", 100, now_s)
            given_bytes += 100
        now_s += 0.005
    # One answer may be begun while anything is left of the burst.
    assert 500 + 10_000 <= given_bytes <= 500 + 10_000 + 100


def test_who_had_too_much_waits_and_nobody_with_it():
    line = turns(Pace(bytes_per_s=1_000, burst_bytes=100))
    for number in range(3):
        line.put("greedy", number, 1)
    assert line.take(NOW) == ("greedy", 0)
    line.spent("greedy", 1_000, NOW)
    assert line.take(NOW) is None
    assert line.next_s() == NOW + 0.9
    line.put("other", 7, 1)
    assert line.next_s() == 0.0
    assert served(line, NOW) == [("other", 7)]
    assert line.take(NOW + 0.89) is None
    assert line.take(NOW + 0.9) == ("greedy", 1)


def test_nobody_waits_for_a_turn_when_nothing_waits():
    line = turns()
    assert line.next_s() is None
    line.put("a", 0, 1)
    assert line.next_s() == 0.0
    served(line)
    assert line.next_s() is None


def test_a_thing_is_forgotten_once_a_new_one_would_stand_as_well():
    line = turns(Pace(bytes_per_s=1_000, burst_bytes=100))
    line.put("a", 0, 1)
    served(line, NOW, 1_000)
    assert line.shares == 1
    line.take(NOW + 0.9)
    assert line.shares == 1
    line.take(NOW + 1.0)
    assert line.shares == 0


def test_to_ask_over_and_over_while_one_has_too_much_costs_no_memory():
    line = turns(Pace(bytes_per_s=1_000, burst_bytes=100))
    line.put("a", 0, 1)
    served(line, NOW, 10_000)
    for number in range(1_000):
        line.put("a", number, 1)
        assert line.take(NOW + 0.001 * number) is None
    assert (len(line), len(line._due), len(line._line), len(line._resting)) == (4, 1, 0, 1)


def test_what_waits_can_be_let_go_and_what_was_had_is_not_forgotten():
    line = turns(Pace(bytes_per_s=1_000, burst_bytes=100))
    line.put("a", 0, 1)
    served(line, NOW, 1_000)
    line.put("a", 1, 1)
    line.put("b", 2, 1)
    assert line.take(NOW) == ("b", 2)
    line.spent("b", 0, NOW)
    line.clear()
    assert (len(line), line.next_s()) == (0, None)
    line.put("a", 3, 1)
    assert line.take(NOW + 0.5) is None
    assert served(line, NOW + 2) == [("a", 3)]


acts = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.integers(0, 400), st.floats(0, 0.5)), max_size=60
)


@given(acts)
def test_all_that_was_taken_in_is_taken_or_dropped_exactly_once(steps):
    line = turns(Pace(bytes_per_s=1_000, burst_bytes=300))
    now_s, number, put, out = NOW, 0, [], []
    for name, puts, size_bytes, pause_s in steps:
        for _ in range(puts):
            number += 1
            put.append(number)
            dropped = line.put(name, number, 1)
            if dropped is not None:
                out.append(dropped)
        if (taken := line.take(now_s)) is not None:
            out.append(taken[1])
            line.spent(taken[0], size_bytes, now_s)
        now_s += pause_s
    for _ in range(len(put)):
        now_s = max(now_s, line.next_s() or 0.0)
        out += [request for _, request in served(line, now_s)]
    assert sorted(out) == put
    assert (len(line), line._bytes) == (0, 0)
    line.take(now_s + 10)
    assert line.shares == 0
