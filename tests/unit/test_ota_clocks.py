"""How long devices take, by the vectors of the specification."""

from dataclasses import replace

from ota.clocks import Limits, clocks_of, due_ms, figures
from ota.executions import moved
from ota.models import Execution
from ota.states import ExecutionTrigger
from tests.covers import covers
from tests.unit.test_ota_executions import NOON, planned

X = ExecutionTrigger
LIMIT_MS = 300_000
USUAL = Limits(LIMIT_MS, LIMIT_MS)
AHEAD = Limits(86_400_000, 120_000, prestage=True)


def took(ms: int, **changes) -> Execution:
    one = moved(moved(planned(**changes), X.OFFER, NOON - 60_000), X.START, NOON)
    return moved(one, X.SUCCEED, NOON + ms)


@covers("I3NFR4")
def test_exactly_the_limit_is_met_and_a_millisecond_more_is_not():
    loading = moved(moved(planned(), X.OFFER, NOON), X.START, NOON)
    assert due_ms(loading, USUAL) == NOON + LIMIT_MS
    assert figures([took(LIMIT_MS)], LIMIT_MS, NOON).over == 0
    assert figures([took(LIMIT_MS + 1)], LIMIT_MS, NOON).over == 1


def test_waiting_before_the_start_is_no_time():
    waiting = moved(planned(), X.OFFER, NOON)
    assert clocks_of(waiting, NOON + 10**9).sum_ms == 0
    assert due_ms(waiting, USUAL) is None


def test_a_device_that_was_held_has_two_clocks_and_their_sum_counts():
    staged = moved(moved(moved(planned(), X.OFFER, NOON), X.START, NOON), X.STAGED, NOON + 100_000)
    held = replace(staged, held_at_ms=NOON + 100_010)
    assert due_ms(staged, USUAL) == NOON + LIMIT_MS
    assert due_ms(held, USUAL) is None
    gone = moved(held, X.GO, NOON + 700_000)
    assert due_ms(gone, USUAL) == NOON + 700_000 + 200_000
    done = clocks_of(moved(gone, X.SUCCEED, NOON + 750_000), NOON)
    assert (done.transfer_ms, done.idle_ms, done.activation_ms, done.sum_ms) == (
        100_000,
        600_000,
        50_000,
        150_000,
    )


def test_devices_that_load_ahead_have_a_day_and_then_two_minutes():
    loading = moved(moved(planned(), X.OFFER, NOON), X.START, NOON)
    assert due_ms(loading, AHEAD) == NOON + 86_400_000
    staged = moved(loading, X.STAGED, NOON + 1_000)
    assert due_ms(staged, AHEAD) is None
    assert due_ms(moved(staged, X.GO, NOON + 10_000_000), AHEAD) == NOON + 10_000_000 + 120_000


def test_the_earliest_of_our_deadline_and_the_timers_of_the_protocol_wins():
    loading = moved(moved(planned(), X.OFFER, NOON), X.START, NOON)
    assert due_ms(replace(loading, step_at_ms=NOON + 60_000), USUAL) == NOON + 60_000
    assert due_ms(replace(loading, timeout_at_ms=NOON + 600_000), USUAL) == NOON + LIMIT_MS


@covers("I3NFR4", "I3NFR5")
def test_the_figures_of_a_campaign():
    done = [took(ms * 1_000) for ms in range(1, 101)]
    late = replace(took(1_000), how="late", late=True)
    elsewhere = moved(planned(), X.SUCCEED, NOON)
    flying = moved(moved(planned(), X.OFFER, NOON), X.START, NOON)
    timed_out = moved(flying, X.TIME_OUT, NOON)
    found = figures([*done, late, elsewhere, flying, timed_out], LIMIT_MS, NOON + 100_000)
    assert (found.p50_ms, found.p95_ms, found.p99_ms, found.p100_ms) == (50_000, 95_000, 99_000, 100_000)
    assert (found.over, found.last_hour, found.in_flight) == (2, 102, 1)
    assert figures([], LIMIT_MS, NOON).p100_ms is None
    assert figures(done, LIMIT_MS, NOON + 3_600_000 + 50_000).last_hour == 50
