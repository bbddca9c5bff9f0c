"""What failed is left alone, longer each time, and comes back."""

from infra.holdoff import HELD_MAX, HELD_S_MAX, HELD_S_MIN, HoldOff
from tests.fakes import FakeClock


def test_what_fails_again_and_again_waits_longer_each_time_up_to_a_minute():
    clock = FakeClock()
    held, waited = HoldOff(clock), []
    for _ in range(9):
        held.failed("a")
        start_s = clock.elapsed_s()
        while not held.free(["a"]):
            clock.advance(0.5)
        waited.append(clock.elapsed_s() - start_s)
    assert waited == [HELD_S_MIN, 2, 4, 8, 16, 32, HELD_S_MAX, HELD_S_MAX, HELD_S_MAX]


def test_the_others_are_free_in_their_order():
    held = HoldOff(FakeClock())
    held.failed("b")
    assert held.free(["c", "b", "a"]) == ["c", "a"]


def test_what_worked_has_never_failed():
    clock = FakeClock()
    held = HoldOff(clock)
    for _ in range(5):
        held.failed("a")
    held.worked("a")
    assert held.free(["a"]) == ["a"]
    held.failed("a")
    clock.advance(HELD_S_MIN)
    assert held.free(["a"]) == ["a"]


def test_what_nobody_tries_any_more_is_forgotten_and_there_is_an_end_to_what_is_held():
    clock = FakeClock()
    held = HoldOff(clock)
    keys = [str(number) for number in range(HELD_MAX + 1)]
    for key in keys:
        held.failed(key)
    assert held.free(keys) == keys[-1:]
    clock.advance(HELD_S_MIN + HELD_S_MAX)
    assert held.free([]) == []
    held.failed(keys[-1])
    assert held.free(keys) == keys[:-1]
