"""What becomes of executions, and what a thing is told of it."""

from dataclasses import replace

import pytest

from infra.machines import IllegalTransitionError
from ota.clocks import clocks_of
from ota.executions import Tell, ThingJobs, amended, moved, next_of, pending_lists, settled
from ota.models import ATTEMPTS_MAX, NEVER, Execution
from ota.rolls import Roll
from ota.states import ExecutionState, ExecutionTrigger, JobStatus

ONE, TWO = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
NOON = 1_790_000_000_000
X = ExecutionTrigger


def planned(campaign: str = ONE, *, thing: str = "th-1", **fields) -> Execution:
    return Execution(
        campaign=campaign,
        thing=thing,
        wave=0,
        place=0,
        proof_index=0,
        state=ExecutionState.PLANNED,
        **fields,
    )


def after(execution: Execution, *triggers: ExecutionTrigger, at_ms: int = NOON) -> Execution:
    for trigger in triggers:
        execution = moved(execution, trigger, at_ms)
        at_ms += 1_000
    return execution


def told_of(before: tuple[Execution, ...], *changed: Execution) -> list[Tell]:
    jobs = ThingJobs("th-1", before)
    return [Tell(one.untold) for one in settled(jobs, jobs.after(changed), changed)]


def test_the_first_version_is_the_queued_one_and_only_what_the_device_sees_makes_another():
    queued = after(planned(), X.OFFER)
    assert (queued.version, queued.queued_at_ms) == (1, NOON)
    assert after(queued, X.NOTIFY).version == 1
    loading = after(queued, X.NOTIFY, X.START)
    assert loading.version == 2
    assert after(loading, X.LOADED, X.STAGED).version == 2
    assert amended(loading, NOON, details={"fs": "1"}).version == 3


def test_an_offer_made_again_has_a_version_of_its_own():
    again = after(planned(), X.OFFER, X.RECALL, X.OFFER)
    assert (again.version, again.queued_at_ms) == (2, NOON + 2_000)
    recalled = after(planned(), X.OFFER, X.RECALL)
    assert (recalled.version, recalled.queued_at_ms, recalled.status) == (1, NEVER, None)


def test_each_step_has_its_time():
    done = after(planned(), X.OFFER, X.START, X.LOADED, X.STAGED, X.GO, X.CONFIRM, X.SUCCEED)
    assert (done.started_at_ms, done.staged_at_ms, done.go_at_ms, done.ended_at_ms) == (
        NOON + 1_000,
        NOON + 3_000,
        NOON + 4_000,
        NOON + 6_000,
    )
    assert done.updated_at_ms == NOON + 6_000


def test_a_clock_that_was_set_back_does_not_hide_a_change():
    assert moved(after(planned(), X.OFFER), X.NOTIFY, NOON - 5_000).updated_at_ms == NOON


def test_nothing_takes_less_than_no_time_when_a_clock_is_set_back():
    begun = moved(after(planned(), X.OFFER), X.START, NOON)
    assert clocks_of(begun, NOON - 3_600_000).sum_ms == 0
    done = moved(moved(begun, X.GO, NOON - 3_600_000), X.SUCCEED, NOON - 3_590_000)
    assert (done.go_at_ms, done.ended_at_ms, done.updated_at_ms) == (NOON, NOON, NOON)
    assert clocks_of(done, NOON - 3_590_000).sum_ms == 0


def test_another_attempt_begins_anew_and_remembers_the_one_before():
    failed = replace(after(planned(), X.OFFER, X.START, X.FAIL), reason="block_hash", details={"fs": "2"})
    again = moved(failed, X.RETRY, NOON + 9_000, retry_at_ms=NOON + 60_000)
    assert (again.state, again.attempt, again.version, again.details) == (ExecutionState.PLANNED, 2, 0, {})
    assert (again.started_at_ms, again.ended_at_ms, again.retry_at_ms) == (NEVER, NEVER, NOON + 60_000)
    (over,) = again.past
    assert (over.number, over.state, over.reason) == (1, ExecutionState.FAILED, "block_hash")
    assert moved(again, X.OFFER, NOON).version == 1


def test_there_are_no_more_attempts_than_the_protocol_can_count():
    failed = replace(after(planned(), X.OFFER, X.FAIL), attempt=ATTEMPTS_MAX)
    with pytest.raises(IllegalTransitionError):
        moved(failed, X.RETRY, NOON)


def test_what_was_begun_comes_first_and_then_what_was_queued_first():
    first, second = after(planned(), X.OFFER), after(planned(TWO), X.OFFER, at_ms=NOON + 1)
    assert next_of([second, first]) == first
    begun = after(second, X.START)
    assert next_of([first, begun]) == begun
    assert pending_lists([first, begun]) == ((begun,), (first,))
    assert next_of([planned()]) is None


def test_what_has_claimed_its_success_is_no_longer_pending():
    claimed = moved(after(planned(), X.OFFER, X.START), X.CONFIRM, NOON, claimed_at_ms=NOON)
    assert claimed.status is JobStatus.SUCCEEDED
    assert next_of([claimed]) is None
    reported = moved(after(planned(), X.OFFER, X.START), X.CONFIRM, NOON, reported_at_ms=NOON)
    assert next_of([reported]) == reported


def test_a_thing_hears_of_what_joins_and_leaves_its_list_and_of_another_next_job_only():
    first, second = after(planned(), X.OFFER), after(planned(TWO), X.OFFER, at_ms=NOON + 1)
    assert told_of((planned(),), first) == [Tell.NOTIFY | Tell.NEXT]
    assert told_of((first, planned(TWO)), second) == [Tell.NOTIFY]
    # The vector: J1 and J2 are queued, J2 is begun: J2 is the next one.
    assert told_of((first, second), after(second, X.START)) == [Tell.NEXT]
    assert told_of((first, second), after(first, X.START)) == [Tell(0)]
    assert told_of((first,), after(first, X.START, X.FAIL)) == [Tell.NOTIFY | Tell.NEXT]
    assert told_of((first,), after(first, X.CANCEL)) == [Tell.NOTIFY | Tell.NEXT]
    assert told_of((first,), after(first, X.NOTIFY)) == [Tell(0)]


def test_a_target_that_is_noted_late_is_not_noted_over_a_newer_one():
    roll, older = Roll(), after(planned(), X.OFFER)
    newer = moved(older, X.START, NOON + 9_000)
    roll.note(newer)
    roll.note(older)
    assert roll.get(older.thing) == newer
    assert +roll.counts == {ExecutionState.LOADING: 1}
