"""The jobs protocol on values: what is read of a request, and what becomes of it."""

from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota.executions import ThingJobs, amended, moved
from ota.job_ports import Go, Hold, Never
from ota.job_requests import (
    DETAILS_MAX,
    REQUEST_BYTES_MAX,
    Code,
    Describe,
    InvalidJobRequestError,
    JobOperation,
    ListJobs,
    StartNext,
    Update,
    parse,
)
from ota.jobs import REMEMBERED_MS, GateAsk, Held, JobError, Reply, answer, grant, pushed_lists
from ota.models import Execution, job_id
from ota.states import FINAL, ExecutionState, ExecutionTrigger, JobStatus
from ota.timers import in_progress_until, step_until, up_at_ms
from tests.covers import covers
from tests.unit.test_ota_executions import NOON, ONE, TWO, after, planned

X, S, Op = ExecutionTrigger, ExecutionState, JobOperation
JOB = job_id(ONE)
MIN_MS = 60_000
IN_PROGRESS = {"status": "IN_PROGRESS"}

QUEUED = after(planned(), X.OFFER)
LOADING = after(QUEUED, X.START)
STAGED = after(LOADING, X.STAGED)
ACTIVATING = after(STAGED, X.GO)


def read(body: Any, operation: JobOperation = Op.UPDATE, job: str = JOB):
    return parse(operation, job, body if isinstance(body, bytes) else msgspec.json.encode(body))


def refusal(body: Any, operation: JobOperation = Op.UPDATE, job: str = JOB) -> InvalidJobRequestError:
    with pytest.raises(InvalidJobRequestError) as refused:
        read(body, operation, job)
    return refused.value


def there(*executions: Execution) -> ThingJobs:
    return ThingJobs("th-1").after(executions)


def did(body: Any, *executions: Execution, at_ms: int = NOON + 100_000) -> Reply:
    reply = answer(read(body), there(*executions), at_ms)
    assert isinstance(reply, Reply)
    return reply


def became(body: Any, execution: Execution, at_ms: int = NOON + 100_000) -> Execution:
    (changed,) = did(body, execution, at_ms=at_ms).executions
    return changed


def refused(body: Any, *executions: Execution) -> JobError:
    with pytest.raises(JobError) as error:
        answer(read(body), there(*executions), NOON + 100_000)
    return error.value


# ---------------------------------------------------------------------------- reading


def test_what_is_checked_first_is_told_first():
    assert refusal(b"?", job="no job").code is Code.INVALID_TOPIC
    assert refusal(b"?").code is Code.INVALID_JSON
    assert refusal({"status": "DONE"}).code is Code.INVALID_REQUEST


@pytest.mark.parametrize("job", ["a" * 65, "a.b", "ü", "$nxt", ""])
def test_what_is_no_job_id_is_an_invalid_topic(job: str):
    assert refusal({"clientToken": "t", **IN_PROGRESS}, job=job).token == "t"
    assert refusal({}, Op.GET, job).code is Code.INVALID_TOPIC


@pytest.mark.parametrize("payload", [b"[]", b"1", b"{", b"\xff", b"null", b'{"a":"\xc3"}', b"[" * 20_000])
def test_only_an_object_in_utf_8_is_json_enough(payload: bytes):
    assert refusal(payload, Op.LIST).code is Code.INVALID_JSON


def test_an_empty_payload_is_an_empty_object():
    assert read(b"", Op.LIST) == ListJobs()
    assert read(b"", Op.START_NEXT) == StartNext()
    assert read(b"", Op.GET, "$next") == Describe(campaign=None)
    assert refusal(b"").code is Code.INVALID_REQUEST


def test_a_request_has_a_size():
    body = msgspec.json.encode({"clientToken": "t", "x": ""})
    fits = body[:-2] + b"x" * (REQUEST_BYTES_MAX - len(body)) + b'"}'
    assert read(fits, Op.LIST) == ListJobs(token="t")
    assert refusal(fits[:-2] + b'x"}', Op.LIST).code is Code.INVALID_REQUEST


@pytest.mark.parametrize(
    "member",
    [
        {"status": None},
        {"status": "CANCELED"},
        {"status": 1},
        {"clientToken": 1},
        {"clientToken": "x" * 65},
        {"expectedVersion": "2.0"},
        {"expectedVersion": ""},
        {"expectedVersion": "-1"},
        {"expectedVersion": -1},
        {"expectedVersion": True},
        {"expectedVersion": 2.0},
        {"expectedVersion": "9" * 20},
        {"executionNumber": 0},
        {"executionNumber": "1"},
        {"includeJobDocument": 1},
        {"includeJobExecutionState": "true"},
        {"stepTimeoutInMinutes": 0},
        {"stepTimeoutInMinutes": -2},
        {"stepTimeoutInMinutes": 10_081},
        {"stepTimeoutInMinutes": True},
        {"statusDetails": []},
        {"statusDetails": {"fs": 1}},
        {"statusDetails": {"fs": ""}},
        {"statusDetails": {"a b": "x"}},
        {"statusDetails": {"": "x"}},
        {"statusDetails": {"k" * 129: "x"}},
        {"statusDetails": {"k": "x" * 1_025}},
        {"statusDetails": {"k": "a\nb"}},
        {"statusDetails": {f"k{number}": "x" for number in range(DETAILS_MAX + 1)}},
    ],
)
def test_a_member_of_the_wrong_kind_or_size_is_an_invalid_request(member: dict[str, Any]):
    assert refusal(IN_PROGRESS | member).code is Code.INVALID_REQUEST


def test_what_is_just_within_the_limits_is_taken():
    details = {"k" * 128: "x" * 1_024} | {f"k:{number}": "ä" for number in range(DETAILS_MAX - 1)}
    update = read(
        {**IN_PROGRESS, "statusDetails": details, "stepTimeoutInMinutes": 10_080, "clientToken": "x" * 64}
    )
    assert isinstance(update, Update)
    assert update.details == MappingProxyType(details)
    assert (update.step_min, update.token) == (10_080, "x" * 64)


def test_null_is_as_if_it_were_not_there():
    empty = dict.fromkeys(("statusDetails", "expectedVersion", "clientToken", "executionNumber"))
    update = read(IN_PROGRESS | empty)
    assert isinstance(update, Update)
    assert (update.details, update.expected_version, update.token, update.number) == (None, None, None, None)


@covers("I3FR6.1")
def test_trap_1_the_c_library_sends_the_expected_version_as_text():
    update = read(b'{"status":"IN_PROGRESS","expectedVersion":"2"}')
    assert isinstance(update, Update)
    assert update.expected_version == 2


@given(st.binary(max_size=200), st.sampled_from(Op), st.text(max_size=70))
def test_whatever_comes_is_read_or_refused(payload: bytes, operation: JobOperation, job: str):
    with suppress(InvalidJobRequestError):
        parse(operation, job, payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "status",
    "statusDetails",
    "expectedVersion",
    "executionNumber",
    "clientToken",
    "stepTimeoutInMinutes",
    "includeJobDocument",
)


@given(st.dictionaries(st.sampled_from(NAMES), json_values))
def test_whatever_an_object_holds_it_is_read_or_refused(body: dict[str, Any]):
    with suppress(InvalidJobRequestError):
        read(body)


# ---------------------------------------------------------------------------- get


def test_the_lists_name_what_is_not_over():
    second = after(planned(TWO), X.OFFER, at_ms=NOON + 5_000)
    reply = answer(ListJobs(), there(LOADING, second, planned("3" + ONE[1:])), NOON)
    assert isinstance(reply, Reply)
    assert reply.members == {
        "inProgressJobs": [
            {
                "jobId": JOB,
                "queuedAt": NOON // 1_000,
                "startedAt": NOON // 1_000,
                "lastUpdatedAt": NOON // 1_000,
                "versionNumber": 2,
                "executionNumber": 1,
            }
        ],
        "queuedJobs": [
            {
                "jobId": job_id(TWO),
                "queuedAt": NOON // 1_000 + 5,
                "lastUpdatedAt": NOON // 1_000 + 5,
                "versionNumber": 1,
                "executionNumber": 1,
            }
        ],
    }


def test_trap_2_times_are_seconds():
    reply = answer(ListJobs(), there(QUEUED), NOON)
    assert isinstance(reply, Reply)
    assert reply.members["queuedJobs"][0]["queuedAt"] == NOON // 1_000


def test_a_push_names_ten_jobs_at_most_and_no_empty_list():
    many = [after(planned(f"{number:08d}{ONE[8:]}"), X.OFFER, at_ms=NOON + number) for number in range(12)]
    lists = pushed_lists([*many, after(many[11], X.START)])
    assert len(lists["IN_PROGRESS"]) == 1
    assert len(lists["QUEUED"]) == 9
    assert pushed_lists([]) == {}
    assert pushed_lists([LOADING]).keys() == {"IN_PROGRESS"}


# ---------------------------------------------------------------------------- describe


def described(execution: Execution | None, job: str = "$next", body: Any = b"") -> Reply:
    executions = () if execution is None else (execution,)
    reply = answer(read(body, Op.GET, job), there(*executions), NOON)
    assert isinstance(reply, Reply)
    return reply


def test_a_job_is_described_by_its_name_and_as_the_next_one():
    for job in ("$next", JOB):
        reply = described(LOADING, job)
        assert reply.document == LOADING
        assert reply.members["execution"]["status"] == "IN_PROGRESS"
        assert described(LOADING, job, {"includeJobDocument": False}).document is None


def test_nothing_comes_next_where_nothing_is_pending():
    for nothing in (None, planned(), after(QUEUED, X.CANCEL), after(QUEUED, X.RECALL)):
        assert described(nothing).members == {}
    assert described(LOADING, body={"executionNumber": 2}).members == {}


@pytest.mark.parametrize("job", [job_id(TWO), "c-1", "get"])
def test_an_unknown_job_is_not_found(job: str):
    with pytest.raises(JobError) as error:
        described(LOADING, job)
    assert error.value.code is Code.RESOURCE_NOT_FOUND


def test_a_recalled_job_is_as_if_it_were_not_there():
    with pytest.raises(JobError) as error:
        described(after(QUEUED, X.RECALL), JOB)
    assert error.value.code is Code.RESOURCE_NOT_FOUND
    assert refused(IN_PROGRESS, after(QUEUED, X.RECALL)).code is Code.RESOURCE_NOT_FOUND


def test_another_attempt_is_another_execution():
    with pytest.raises(JobError) as error:
        described(LOADING, JOB, {"executionNumber": 2})
    assert error.value.code is Code.RESOURCE_NOT_FOUND
    assert refused({**IN_PROGRESS, "executionNumber": 2}, LOADING).code is Code.RESOURCE_NOT_FOUND


def test_a_job_that_is_over_has_reached_its_terminal_state():
    claimed = became({"status": "SUCCEEDED"}, ACTIVATING)
    for over in (after(QUEUED, X.CANCEL), after(LOADING, X.FAIL), claimed):
        with pytest.raises(JobError) as error:
            described(over, JOB)
        assert error.value.code is Code.TERMINAL_STATE_REACHED


# ---------------------------------------------------------------------------- start-next


def start(execution: Execution, body: Any = b"", at_ms: int = NOON) -> Reply:
    reply = answer(read(body, Op.START_NEXT, ""), there(execution), at_ms)
    assert isinstance(reply, Reply)
    return reply


def test_the_next_job_is_begun_with_its_document_and_its_clock():
    reply = start(QUEUED, {"statusDetails": {"fs": "1"}})
    (begun,) = reply.executions
    assert (begun.state, begun.version, begun.started_at_ms) == (S.LOADING, 2, NOON)
    assert begun.details == {"fs": "1"}
    assert reply.document == begun
    assert reply.members["execution"]["versionNumber"] == 2


def test_what_is_begun_is_returned_and_nothing_changes():
    reply = start(LOADING, {"statusDetails": {"fs": "7"}})
    assert (reply.executions, reply.document) == ((), LOADING)


def test_nothing_is_begun_where_nothing_is_pending():
    assert start(planned()).members == {}


# ---------------------------------------------------------------------------- update


@pytest.mark.parametrize(
    ("fs", "state"),
    [("1", S.LOADING), ("3", S.LOADED), ("5", S.STAGED), ("7", S.ACTIVATING), ("8", S.ACTIVATING)],
)
def test_a_file_status_is_a_step(fs: str, state: ExecutionState):
    changed = became({**IN_PROGRESS, "statusDetails": {"fs": fs}}, LOADING)
    assert (changed.state, changed.version) == (state, 3)
    from_the_queue = became({**IN_PROGRESS, "statusDetails": {"fs": fs}}, QUEUED)
    assert (from_the_queue.state, from_the_queue.version) == (state, 2)


@pytest.mark.parametrize(("fs", "before"), [("1", STAGED), ("3", STAGED), ("5", ACTIVATING)])
def test_a_step_back_is_refused_and_says_how_it_stands(fs: str, before: Execution):
    error = refused({**IN_PROGRESS, "statusDetails": {"fs": fs}, "expectedVersion": 99}, before)
    assert (error.code, error.execution) == (Code.INVALID_STATE_TRANSITION, before)


def test_back_into_the_queue_is_refused():
    assert refused({"status": "QUEUED"}, LOADING).code is Code.INVALID_STATE_TRANSITION


@pytest.mark.parametrize(
    ("details", "state"),
    [
        ({"receive": "3/128"}, S.LOADING),
        ({"self_test": "ready"}, S.ACTIVATING),
        ({"self_test": "active"}, S.ACTIVATING),
    ],
)
def test_a_freertos_agent_is_understood(details: dict[str, str], state: ExecutionState):
    assert became({**IN_PROGRESS, "statusDetails": details}, LOADING).state is state
    assert became({**IN_PROGRESS, "statusDetails": details}, ACTIVATING).state is S.ACTIVATING


def test_trap_5_details_that_we_do_not_know_are_kept_and_read_back():
    kept = became({**IN_PROGRESS, "statusDetails": {"self_test": "active", "updatedBy": "0x1"}}, LOADING)
    assert described(kept, "$next").members["execution"]["statusDetails"] == {
        "self_test": "active",
        "updatedBy": "0x1",
    }


def test_details_replace_those_before_and_stay_when_none_are_given():
    first = became({**IN_PROGRESS, "statusDetails": {"fs": "1", "a": "x"}}, LOADING)
    assert became(IN_PROGRESS, first).details == {"fs": "1", "a": "x"}
    assert became({**IN_PROGRESS, "statusDetails": {}}, first).details == {}


def test_every_accepted_update_is_one_version():
    assert became(IN_PROGRESS, LOADING).version == LOADING.version + 1
    assert became({"status": "SUCCEEDED"}, QUEUED).version == QUEUED.version + 1


@pytest.mark.parametrize("expected", [1, "3", 0])
def test_another_version_than_the_expected_one_is_told(expected: int | str):
    error = refused({**IN_PROGRESS, "expectedVersion": expected}, LOADING)
    assert (error.code, error.execution) == (Code.VERSION_MISMATCH, LOADING)


def test_the_expected_version_is_taken_as_number_and_as_text():
    for expected in (2, "2", "02"):
        assert became({**IN_PROGRESS, "expectedVersion": expected}, LOADING).version == 3


def test_state_and_document_come_only_when_asked():
    plain = did(IN_PROGRESS, LOADING)
    assert (plain.members, plain.document) == ({}, None)
    asked = did({**IN_PROGRESS, "includeJobExecutionState": True, "includeJobDocument": True}, LOADING)
    assert asked.members == {
        "executionState": {"status": "IN_PROGRESS", "statusDetails": {}, "versionNumber": 3}
    }
    assert asked.document is not None


def test_a_claim_waits_for_the_fact_and_the_device_need_not_say_it_again():
    claimed = became({"status": "SUCCEEDED", "statusDetails": {"fs": "8"}}, ACTIVATING)
    assert (claimed.state, claimed.status) == (S.CONFIRMING, JobStatus.SUCCEEDED)
    assert claimed.claimed_at_ms == NOON + 100_000
    error = refused({"status": "SUCCEEDED", "clientToken": "again"}, claimed)
    assert (error.code, error.execution) == (Code.INVALID_STATE_TRANSITION, claimed)


def test_a_claim_after_the_report_is_noted_in_place():
    reported = moved(ACTIVATING, X.CONFIRM, NOON, reported_at_ms=NOON)
    claimed = became({"status": "SUCCEEDED"}, reported)
    assert (claimed.state, claimed.claimed_at_ms) == (S.CONFIRMING, NOON + 100_000)


@pytest.mark.parametrize("before", [QUEUED, LOADING, STAGED, ACTIVATING])
def test_a_failure_is_final_with_its_reason(before: Execution):
    failed = became({"status": "FAILED", "statusDetails": {"fs": "4", "reason": "image_hash"}}, before)
    assert (failed.state, failed.reason, failed.status) == (S.FAILED, "image_hash", JobStatus.FAILED)


@pytest.mark.parametrize("reason", ["self_test", "health_timeout", "boot_loop", "preserve_failed"])
def test_a_device_that_is_back_on_its_old_image_has_rolled_back(reason: str):
    for details in ({"fs": "6", "reason": reason}, {"reason": reason}):
        failed = became({"status": "FAILED", "statusDetails": details}, ACTIVATING)
        assert (failed.state, failed.reason, failed.status) == (S.ROLLED_BACK, reason, JobStatus.FAILED)


def test_one_that_was_only_offered_has_failed_whatever_it_says_it_went_back_to():
    failed = became({"status": "FAILED", "statusDetails": {"fs": "6", "reason": "boot_loop"}}, QUEUED)
    assert (failed.state, failed.reason) == (S.FAILED, "boot_loop")


def test_a_refusal_comes_before_the_device_has_changed_anything():
    rejected = became({"status": "REJECTED", "statusDetails": {"reason": "downgrade"}}, QUEUED)
    assert (rejected.state, rejected.reason) == (S.REJECTED, "downgrade")
    assert refused({"status": "REJECTED"}, ACTIVATING).code is Code.INVALID_STATE_TRANSITION


@pytest.mark.parametrize("trigger", [X.FAIL, X.CANCEL, X.TIME_OUT, X.REJECT, X.REMOVE])
def test_what_is_over_stays_so_and_says_how_it_ended(trigger: ExecutionTrigger):
    over = after(LOADING, trigger)
    assert over.state in FINAL
    error = refused(IN_PROGRESS, over)
    assert (error.code, error.execution) == (Code.INVALID_STATE_TRANSITION, over)


# ---------------------------------------------------------------------------- the same again


def test_the_same_request_is_answered_the_same_for_thirty_seconds_and_changes_nothing():
    body = {**IN_PROGRESS, "clientToken": "t", "statusDetails": {"fs": "3"}, "includeJobExecutionState": True}
    first = became(body, LOADING, at_ms=NOON)
    (known,) = first.remembered
    again = did(body, first, at_ms=NOON + REMEMBERED_MS)
    assert (again.executions, again.replay) == ((), known.answer)
    assert became(body, first, at_ms=NOON + REMEMBERED_MS + 1).version == 4


def test_the_same_last_word_is_answered_the_same_although_the_job_is_over():
    body = {"status": "FAILED", "clientToken": "t"}
    assert did(body, became(body, LOADING)).replay


def test_a_constant_token_with_another_body_is_another_request():
    first = became({**IN_PROGRESS, "clientToken": "t", "statusDetails": {"fs": "1"}}, LOADING)
    assert became({**IN_PROGRESS, "clientToken": "t", "statusDetails": {"fs": "3"}}, first).version == 4


def test_without_a_token_nothing_is_taken_for_a_repetition():
    assert became(IN_PROGRESS, became(IN_PROGRESS, LOADING)).version == 4


def test_a_constant_token_does_not_bring_back_a_job_that_is_over():
    body = {"clientToken": "constant"}
    (begun,) = start(QUEUED, body).executions
    over = moved(begun, X.CANCEL, NOON)
    second = after(planned(TWO), X.OFFER)
    reply = answer(read(body, Op.START_NEXT, ""), there(over, second), NOON + 1)
    assert isinstance(reply, Reply)
    assert reply.members["execution"]["jobId"] == job_id(TWO)


def test_few_answers_are_remembered():
    execution = LOADING
    for number in range(5):
        execution = became({**IN_PROGRESS, "clientToken": str(number)}, execution)
    assert [one.token for one in execution.remembered] == ["3", "4"]


# ---------------------------------------------------------------------------- the gate

GATE = {**IN_PROGRESS, "statusDetails": {"fs": "5", "gate": "ask"}}


def gate(**members: Any) -> Update:
    ask = read(GATE | members)
    assert isinstance(ask, Update)
    return ask


@pytest.mark.parametrize("before", [LOADING, after(LOADING, X.LOADED), STAGED])
def test_leave_to_activate_is_asked_of_the_gate(before: Execution):
    assert answer(gate(), there(before), NOON) == GateAsk(before)


def test_go_is_the_point_of_no_return_and_is_told_in_the_state():
    reply = grant(gate(), Go("snap-1", 17), there(LOADING), NOON + 1)
    assert isinstance(reply, Reply)
    (gone,) = reply.executions
    assert (gone.state, gone.snapshot, gone.boot, gone.version) == (S.ACTIVATING, "snap-1", 17, 3)
    assert (gone.staged_at_ms, gone.go_at_ms) == (NOON + 1, NOON + 1)
    assert reply.members["executionState"]["statusDetails"] == {"fs": "5", "gate": "go"}


def test_who_asks_again_after_go_hears_the_same():
    again = answer(gate(), there(ACTIVATING), NOON)
    assert isinstance(again, Reply)
    assert again.members["executionState"]["statusDetails"]["gate"] == "go"
    assert again.executions[0].state is S.ACTIVATING


def test_hold_is_throttled_and_noted_once():
    held = grant(gate(), Hold("window", 60), there(LOADING), NOON)
    assert isinstance(held, Held)
    assert (held.error.code, held.error.message, held.error.retry_after_s) == (
        Code.REQUEST_THROTTLED,
        "hold: window",
        60,
    )
    (waiting,) = held.executions
    assert (waiting.state, waiting.reason, waiting.version) == (S.STAGED, "hold: window", LOADING.version)
    again = grant(gate(), Hold("window", 60), there(waiting), NOON + 60_000)
    assert isinstance(again, Held)
    assert again.executions == ()
    gone = grant(gate(), Go(), there(waiting), NOON + 90_000)
    assert gone.executions[0].reason == ""


def test_never_is_an_invalid_transition():
    with pytest.raises(JobError) as error:
        grant(gate(), Never(), there(STAGED), NOON)
    assert error.value.code is Code.INVALID_STATE_TRANSITION


def test_what_was_stopped_while_the_gate_thought_does_not_go():
    with pytest.raises(JobError) as error:
        grant(gate(), Go(), there(after(STAGED, X.CANCEL)), NOON)
    assert error.value.code is Code.INVALID_STATE_TRANSITION
    with pytest.raises(JobError) as error:
        grant(gate(expectedVersion=2), Go(), there(became(IN_PROGRESS, STAGED)), NOON)
    assert error.value.code is Code.VERSION_MISMATCH


def test_a_job_that_was_not_begun_has_no_gate():
    assert refused(GATE, QUEUED).code is Code.INVALID_STATE_TRANSITION


# ---------------------------------------------------------------------------- timers


def test_the_timers_of_the_specification():
    until = in_progress_until(NOON, 20)
    assert until == NOON + 20 * MIN_MS
    for at_min, step_min, up_min in ((5, 7, 12), (10, 5, 15), (13, 9, 20)):
        assert step_until(NOON + at_min * MIN_MS, step_min, until) == NOON + up_min * MIN_MS
    assert step_until(NOON, -1, until) == 0
    assert step_until(NOON, 10_080, 0) == NOON + 10_080 * MIN_MS


def test_a_timer_runs_from_the_start_and_a_step_replaces_the_one_before():
    begun = start(replace(QUEUED, timeout_min=20), at_ms=NOON).executions[0]
    assert (begun.timeout_at_ms, begun.step_at_ms, up_at_ms(begun)) == (
        NOON + 20 * MIN_MS,
        0,
        NOON + 20 * MIN_MS,
    )
    stepped = became({**IN_PROGRESS, "stepTimeoutInMinutes": 7}, begun, at_ms=NOON + 5 * MIN_MS)
    assert up_at_ms(stepped) == NOON + 12 * MIN_MS
    kept = became(IN_PROGRESS, stepped, at_ms=NOON + 6 * MIN_MS)
    assert up_at_ms(kept) == NOON + 12 * MIN_MS
    cleared = became({**IN_PROGRESS, "stepTimeoutInMinutes": -1}, kept, at_ms=NOON + 6 * MIN_MS)
    assert up_at_ms(cleared) == NOON + 20 * MIN_MS
    assert up_at_ms(LOADING) is None


def test_the_seconds_that_are_left_are_told():
    begun = start(QUEUED, {"stepTimeoutInMinutes": 2}, at_ms=NOON).executions[0]
    reply = answer(Describe(campaign=None), there(begun), NOON + 30_500)
    assert isinstance(reply, Reply)
    assert reply.members["execution"]["approximateSecondsBeforeTimedOut"] == 89
    assert "approximateSecondsBeforeTimedOut" not in described(LOADING).members["execution"]


def test_details_cannot_be_changed_from_outside():
    ask = read({**IN_PROGRESS, "statusDetails": {"a": "b"}})
    assert isinstance(ask, Update)
    assert isinstance(ask.details, MappingProxyType)
    assert amended(LOADING, NOON, details=dict(ask.details or {})).details == {"a": "b"}
