"""The tables of programs and enrolments: every pair of state and trigger, and what is not in them."""

from itertools import product

import pytest

from infra.machines import IllegalTransitionError
from programs.advance import step
from programs.records import Enrolment
from programs.states import (
    ENROLMENT,
    LIVE,
    PROGRAM,
    TOLD,
    EnrolmentState,
    EnrolmentTrigger,
    ProgramState,
    ProgramTrigger,
)
from tests.fakes import NOW_MS

MACHINES = [(ENROLMENT, EnrolmentState, EnrolmentTrigger), (PROGRAM, ProgramState, ProgramTrigger)]


@pytest.mark.parametrize(("state", "trigger"), list(product(EnrolmentState, EnrolmentTrigger)), ids=str)
def test_every_pair_either_has_a_row_or_is_refused_and_changes_nothing(state, trigger):
    one = Enrolment(
        id="enr-1", device="d", program="p", account="a", premises="h", state=state, state_ms=1, since_ms=1
    )
    following = ENROLMENT.table.get((state, trigger))
    if following is None:
        with pytest.raises(IllegalTransitionError):
            step(one, trigger, NOW_MS, "otto")
        assert one.transitions == ()
    else:
        after = step(one, trigger, NOW_MS, "otto", "because")
        assert (after.state, after.state_ms) == (following, NOW_MS)
        (kept,) = after.transitions
        assert (kept.at_ms, kept.actor, kept.reason) == (NOW_MS, "otto", "because")
        assert (kept.before, kept.trigger, kept.after) == (state, trigger, following)


@pytest.mark.parametrize(("machine", "states", "triggers"), MACHINES)
def test_no_state_is_out_of_reach_and_no_trigger_without_use(machine, states, triggers):
    reached, before = {None}, None
    while reached != before:
        before = set(reached)
        reached |= {after for (state, _), after in machine.table.items() if state in before}
    assert reached - {None} == set(states)
    assert {trigger for _, trigger in machine.table} == set(triggers)


@pytest.mark.parametrize("state", sorted(LIVE))
def test_whatever_lives_can_be_ended(state):
    assert ENROLMENT.after(state, EnrolmentTrigger.END) in {EnrolmentState.ENDING, EnrolmentState.ENDED}


def test_a_device_is_told_of_what_lives_once_its_customer_has_said_yes():
    assert {EnrolmentState.PENDING_CONSENT} == LIVE - TOLD
