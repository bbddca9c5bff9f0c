"""The row "truth" of the tests: what a device shows decides the bucket of a target, exactly once."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota import data, evidence
from ota.evidence import ELSEWHERE, LATE, ON_SITE, Facts, Wanted, judge
from ota.models import Attempt, Execution
from ota.reports import Report, read
from ota.snapshot import Copy, Snapshot, Why
from ota.states import ACTIVE, AFTER_GO, BEFORE_GO, FINAL, WAITING, ExecutionState, ExecutionTrigger
from shadow.document import Part, part, stamped
from tests.covers import covers
from tests.fakes import NOW_MS

E = ExecutionState
CAMPAIGN = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
NEW, OLD = "6e97" * 16, "0123" * 16
WANTED = Wanted(sha256=NEW, schema=5)
RESET = replace(WANTED, data=data.RESET)
HEALTHY = Report(sha256=NEW, healthy=True, confirmed=True, boot=19, schema=5, status=7)
ON_TRIAL = replace(HEALTHY, confirmed=False)
BEFORE: Any = {"set": {"day": 21.5, "night": 18}, "lang": "en"}
GO_MS, THEN_MS = NOW_MS - 30_000, NOW_MS + 60_000


def config(state: Any, at_s: int = 0) -> Part:
    return part(state, stamped(state, {"timestamp": at_s}))


SNAPSHOT = Snapshot(
    id="s-1",
    thing="hall",
    at_ms=GO_MS,
    why=Why.GATE,
    by="firmware",
    schema=5,
    shadows={"config": Copy(version=3, at_ms=0, reported=BEFORE)},
)
WELL = Facts(
    report=HEALTHY, reported_at_s=NOW_MS // 1_000, config=config(BEFORE), snapshots={"s-1": SNAPSHOT}
)
SILENT = replace(WELL, report=Report(), reported_at_s=0)


def target(state: ExecutionState, **fields: Any) -> Execution:
    after_go: Any = {"go_at_ms": GO_MS, "boot": 18, "snapshot": "s-1"} if state in AFTER_GO else {}
    return Execution(
        campaign=CAMPAIGN,
        thing="hall",
        wave=0,
        place=0,
        proof_index=0,
        state=state,
        **{"started_at_ms": NOW_MS - 60_000, **after_go, **fields},
    )


def claimed(at_ms: int = NOW_MS, **details: str) -> Execution:
    said = {"data": "preserve", "config": data.digest(BEFORE)} | details
    return target(E.CONFIRMING, claimed_at_ms=at_ms, details=said)


def outcome(execution: Execution) -> tuple[str, str, str]:
    return execution.state, execution.reason, execution.how


@covers("I3FR3.1", "I3NFR4")
def test_claim_report_and_configuration_together_are_a_success():
    after = judge(claimed(), WANTED, WELL, NOW_MS)
    assert outcome(after) == ("SUCCEEDED", "", "")
    assert (after.reported_at_ms, after.ended_at_ms, after.data_checked) == (NOW_MS, NOW_MS, True)


def test_a_report_without_a_claim_is_confirming_and_then_closed_by_the_server():
    confirming = judge(target(E.ACTIVATING), WANTED, WELL, NOW_MS)
    assert (confirming.state, confirming.reported_at_ms) == (E.CONFIRMING, NOW_MS)
    assert evidence.wakes_at_ms(confirming, WANTED) == THEN_MS
    assert judge(confirming, WANTED, WELL, THEN_MS - 1) == confirming
    assert outcome(judge(confirming, WANTED, WELL, THEN_MS)) == ("SUCCEEDED", "", "")


def test_an_image_on_trial_is_not_closed_without_a_claim_for_it_may_fall_back():
    trial = replace(WELL, report=ON_TRIAL)
    confirming = judge(target(E.ACTIVATING), WANTED, trial, NOW_MS)
    assert confirming.state is E.CONFIRMING
    assert judge(confirming, WANTED, trial, THEN_MS) == confirming
    fell_back = replace(WELL, report=Report(sha256=OLD, boot=20, status=6), reported_at_s=THEN_MS // 1_000)
    assert judge(confirming, WANTED, fell_back, THEN_MS).state is E.ROLLED_BACK
    over = target(E.TIMED_OUT, reason="deadline", ended_at_ms=NOW_MS - 1)
    assert not judge(over, WANTED, trial, NOW_MS).late


def test_a_claim_of_an_image_on_trial_is_believed():
    assert judge(claimed(), WANTED, replace(WELL, report=ON_TRIAL), NOW_MS).state is E.SUCCEEDED


def test_a_claim_without_a_report_waits_and_then_has_failed():
    waiting = claimed()
    assert judge(waiting, WANTED, SILENT, THEN_MS - 1) == waiting
    assert outcome(judge(waiting, WANTED, SILENT, THEN_MS)) == ("FAILED", "health_missing", "")


def test_a_device_that_merely_runs_the_image_is_not_healthy():
    sick = replace(WELL, report=replace(HEALTHY, healthy=False))
    assert judge(claimed(), WANTED, sick, NOW_MS) == claimed()
    assert outcome(judge(claimed(), WANTED, sick, THEN_MS)) == ("FAILED", "health_missing", "")


@pytest.mark.parametrize("state", [E.ACTIVATING, E.CONFIRMING])
def test_the_old_image_after_a_restart_was_rolled_back(state: ExecutionState):
    fell_back = replace(WELL, report=Report(sha256=OLD, healthy=True, boot=21))
    assert outcome(judge(target(state), WANTED, fell_back, NOW_MS)) == ("ROLLED_BACK", "rolled_back", "")
    with_reason = target(state, details={"fs": "6", "reason": "boot_loop"})
    assert judge(with_reason, WANTED, fell_back, NOW_MS).reason == "boot_loop"
    said_so = replace(WELL, report=Report(sha256=OLD, boot=18, status=6))
    assert judge(target(state), WANTED, said_so, NOW_MS).state is E.ROLLED_BACK


@pytest.mark.parametrize(
    "report",
    [
        Report(sha256=OLD, healthy=True, boot=18),
        Report(sha256=OLD, healthy=True, boot=19, status=5),
        Report(sha256="", boot=21),
        Report(sha256=OLD, boot=17),
    ],
    ids=["no restart yet", "power was lost before it set about it", "says no image", "an older boot"],
)
def test_the_old_image_alone_is_no_rollback(report: Report):
    assert judge(target(E.ACTIVATING), WANTED, replace(WELL, report=report), NOW_MS).state is E.ACTIVATING


def test_what_was_reported_before_go_is_no_rollback():
    stale = replace(WELL, report=Report(sha256=OLD, boot=99), reported_at_s=GO_MS // 1_000 - 1)
    assert judge(target(E.ACTIVATING), WANTED, stale, NOW_MS).state is E.ACTIVATING
    before_go = replace(WELL, report=Report(sha256=OLD, boot=99))
    assert judge(target(E.STAGED), WANTED, before_go, NOW_MS).state is E.STAGED


@covers("I3FR3.1")
@pytest.mark.parametrize(
    ("details", "facts", "expected"),
    [
        pytest.param({"data": "reset"}, WELL, "preserve_failed", id="another mode than ordered"),
        pytest.param(
            {"config": data.digest(BEFORE | {"lang": "de"})},
            replace(WELL, config=config(BEFORE | {"lang": "de"})),
            "preserve_failed",
            id="a value changed, and the device itself says so",
        ),
    ],
)
def test_a_configuration_that_is_not_preserved_is_a_failure_at_once(
    details: Any, facts: Facts, expected: str
):
    after = judge(claimed(**details), WANTED, facts, NOW_MS)
    assert outcome(after) == ("FAILED", expected, "")
    assert after.status == "SUCCEEDED", "what it has claimed it need not claim again"


@covers("I3FR3.1")
@pytest.mark.parametrize(("schema", "state"), [(5, E.FAILED), (6, E.SUCCEEDED)])
def test_a_new_field_comes_with_a_newer_schema_only(schema: int, state: ExecutionState):
    more = BEFORE | {"fan": "auto"}
    shown = replace(WELL, report=replace(HEALTHY, schema=schema), config=config(more))
    assert judge(claimed(config=data.digest(more)), WANTED, shown, NOW_MS).state is state


@covers("I3FR3.1")
def test_a_report_that_left_a_field_out_shows_by_the_digest():
    """The shadow still holds what the device has lost."""
    lost = claimed(config=data.digest({"set": BEFORE["set"]}))
    lost = judge(lost, WANTED, WELL, NOW_MS)
    assert lost.state is E.CONFIRMING
    assert outcome(judge(lost, WANTED, WELL, THEN_MS)) == ("FAILED", "preserve_failed", "")


def test_a_configuration_that_is_on_its_way_is_waited_for():
    said = claimed(config=data.digest(BEFORE))
    behind = replace(WELL, config=config(BEFORE | {"lang": "de"}))
    confirming = judge(said, WANTED, behind, NOW_MS)
    assert (confirming.state, confirming.reported_at_ms) == (E.CONFIRMING, NOW_MS)
    assert judge(confirming, WANTED, WELL, NOW_MS + 1).state is E.SUCCEEDED


@covers("I3FR3.1")
def test_what_was_desired_during_the_upgrade_is_no_loss():
    changed: Any = {"set": {"day": 21.5, "night": 17}, "lang": "en"}
    facts = replace(
        WELL,
        config=config(changed),
        config_wanted=config({"set": {"night": 17}}, GO_MS // 1_000 + 1),
    )
    assert judge(claimed(config=data.digest(changed)), WANTED, facts, NOW_MS).state is E.SUCCEEDED
    before = replace(facts, config_wanted=config({"set": {"night": 17}}, GO_MS // 1_000 - 1))
    assert judge(claimed(config=data.digest(changed)), WANTED, before, NOW_MS).reason == "preserve_failed"


@covers("I3FR3.1")
def test_a_reset_is_done_once_the_factorys_values_and_what_is_desired_are_there():
    factory: Any = {"set": {"day": 20, "night": 16}, "lang": "en"}
    done: Any = {"set": {"day": 20, "night": 17}, "lang": "en"}
    facts = replace(
        WELL,
        config=config(done),
        config_wanted=config({"set": {"night": 17}}),
        defaults={5: factory},
    )
    said = claimed(data="reset", config=data.digest(done))
    assert judge(said, RESET, facts, NOW_MS).state is E.SUCCEEDED
    for unfinished in (
        replace(facts, program_applied=False),
        replace(facts, config=config(BEFORE)),
        replace(facts, defaults={}),
    ):
        waiting = judge(said, RESET, unfinished, NOW_MS)
        assert waiting.state is E.CONFIRMING
        assert judge(waiting, RESET, unfinished, THEN_MS + 1).state is E.CONFIRMING, "until the deadline"
        assert evidence.at_deadline(waiting, RESET) == (ExecutionTrigger.FAIL, "reset_failed")
    assert judge(claimed(data="preserve"), RESET, facts, NOW_MS).reason == "reset_failed"


def test_any_other_deadline_is_a_time_out():
    assert evidence.at_deadline(target(E.LOADING), WANTED) == (ExecutionTrigger.TIME_OUT, "deadline")
    assert evidence.at_deadline(claimed(), RESET) == (ExecutionTrigger.TIME_OUT, "deadline")


def test_a_device_that_was_up_to_date_has_wiped_nothing():
    replayed = target(E.CONFIRMING, claimed_at_ms=NOW_MS, details={"reason": "already_current"})
    assert judge(replayed, RESET, WELL, NOW_MS).state is E.SUCCEEDED


@pytest.mark.parametrize("state", sorted(WAITING))
def test_a_waiting_target_that_has_the_image_is_done_by_whatever_way_it_came(state: ExecutionState):
    waiting = target(state, started_at_ms=0)
    assert judge(waiting, WANTED, SILENT, NOW_MS) == waiting
    assert outcome(judge(waiting, WANTED, WELL, NOW_MS)) == ("SUCCEEDED", "", ELSEWHERE)
    noted = replace(WELL, on_site=frozenset({NEW}))
    assert outcome(judge(waiting, WANTED, noted, NOW_MS)) == ("SUCCEEDED", "", ON_SITE)
    assert outcome(judge(waiting, replace(WANTED, local=True), WELL, NOW_MS)) == ("SUCCEEDED", "", ON_SITE)
    again = replace(waiting, attempt=2, past=(Attempt(number=1, state=E.TIMED_OUT),))
    after = judge(again, WANTED, WELL, NOW_MS)
    assert (outcome(after), after.late) == (("SUCCEEDED", "", LATE), True)


@pytest.mark.parametrize("state", sorted(BEFORE_GO))
def test_on_site_while_it_loads_is_closed_without_a_claim(state: ExecutionState):
    noted = replace(WELL, on_site=frozenset({NEW}))
    confirming = judge(target(state), WANTED, noted, NOW_MS)
    assert confirming.state is E.CONFIRMING
    assert outcome(judge(confirming, WANTED, noted, THEN_MS)) == ("SUCCEEDED", "", ON_SITE)
    stranger = replace(WELL, report=replace(HEALTHY, job="c-" + "0" * 32))
    confirming = judge(target(state), WANTED, stranger, NOW_MS)
    assert outcome(judge(confirming, WANTED, stranger, THEN_MS)) == ("SUCCEEDED", "", ELSEWHERE)


def test_a_success_after_the_time_was_up_stays_in_its_bucket_and_is_marked_once():
    over = target(E.TIMED_OUT, reason="deadline", ended_at_ms=NOW_MS - 1)
    late = judge(over, WANTED, WELL, NOW_MS)
    assert (late.state, late.late, late.ended_at_ms) == (E.TIMED_OUT, True, NOW_MS - 1)
    assert judge(late, WANTED, WELL, NOW_MS + 1) == late
    missing = target(E.FAILED, reason="health_missing")
    assert judge(missing, WANTED, WELL, NOW_MS).late
    broken = target(E.FAILED, reason="preserve_failed")
    assert judge(broken, WANTED, WELL, NOW_MS) == broken


@pytest.mark.parametrize("state", sorted(WAITING | ACTIVE))
def test_a_device_that_was_removed_takes_its_target_along(state: ExecutionState):
    after = judge(target(state), WANTED, replace(WELL, registered=False), NOW_MS)
    assert outcome(after) == ("REMOVED", "thing_removed", "")


@pytest.mark.parametrize("state", sorted(FINAL - {E.TIMED_OUT}))
def test_what_is_over_stays_over(state: ExecutionState):
    assert judge(target(state), WANTED, WELL, NOW_MS) == target(state)
    assert judge(target(state), WANTED, replace(WELL, registered=False), NOW_MS) == target(state)


def test_what_went_on_while_we_looked_is_looked_at_again():
    other = target(E.ACTIVATING, snapshot="s-2", claimed_at_ms=NOW_MS)
    assert judge(other, WANTED, WELL, NOW_MS) == other
    erased = replace(WELL, snapshots={"s-2": None})
    assert judge(other, WANTED, erased, NOW_MS).state is E.SUCCEEDED


def test_a_model_without_a_firmware_shadow_confirms_by_its_test_and_a_new_session():
    wanted = replace(WANTED, by_session=True)
    said = target(E.CONFIRMING, claimed_at_ms=NOW_MS, details={"self_test": "active"})
    back = replace(SILENT, session_at_ms=GO_MS + 1)
    assert judge(said, wanted, back, NOW_MS).state is E.SUCCEEDED
    changed = replace(back, config=config({"lang": "en"}))
    confirming = judge(said, wanted, changed, NOW_MS)
    assert confirming.state is E.CONFIRMING, "its configuration may be on its way"
    assert judge(confirming, wanted, changed, THEN_MS).reason == "preserve_failed"
    assert judge(said, wanted, replace(SILENT, session_at_ms=GO_MS), THEN_MS).reason == "health_missing"
    untested = replace(said, details={})
    assert judge(untested, wanted, back, THEN_MS).reason == "health_missing"


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({}, Report()),
        ({"fw": [], "file": "x", "hw": 3, "schema": True, "boot": -1, "healthy": "yes"}, Report()),
        (
            {
                "fw": {
                    "sha256": NEW,
                    "version": "2.4.0.0",
                    "label": "2.4.0",
                    "counter": 3,
                    "confirmed": False,
                },
                "hw": "d0",
                "schema": 5,
                "slot": "b",
                "boot": 18,
                "healthy": True,
                "job": "c-6f",
                "file": {"status": 7, "loadPercent": 100},
            },
            Report(
                sha256=NEW,
                version="2.4.0.0",
                label="2.4.0",
                counter=3,
                hw="d0",
                schema=5,
                slot="b",
                boot=18,
                healthy=True,
                job="c-6f",
                status=7,
                percent=100,
            ),
        ),
    ],
)
def test_what_a_device_reports_is_read_with_care(reported: Any, expected: Report):
    assert read(reported) == expected


json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["fw", "sha256", "boot", "file", "status", "healthy"]), inner),
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["fw", "hw", "boot", "file", "healthy", "schema"]), json))
def test_reading_never_fails(reported: Any):
    read(reported)


@given(
    st.sampled_from(sorted(E)),
    st.sampled_from([WELL, SILENT, replace(WELL, report=Report(sha256=OLD, boot=30))]),
    st.sampled_from([WANTED, RESET]),
    st.integers(0, 200_000),
    st.booleans(),
)
def test_the_same_facts_decide_once(
    state: ExecutionState, facts: Facts, wanted: Wanted, later_ms: int, has_claimed: bool
):
    """Looking twice at the same moment changes nothing more: a bucket is chosen exactly once."""
    first = target(state, claimed_at_ms=NOW_MS if has_claimed else 0)
    now_ms = NOW_MS + later_ms
    once = judge(first, wanted, facts, now_ms)
    assert judge(once, wanted, facts, now_ms) == once
    if state in FINAL:
        assert once.state is state
