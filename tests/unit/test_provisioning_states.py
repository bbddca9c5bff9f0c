"""The tables of provisioning: what is not in them is refused, and nothing in them is out of reach."""

from itertools import product

import pytest

from infra.machines import IllegalTransitionError
from provisioning.session import ToldRemedy, move, see, step, treat, turn
from provisioning.states import (
    DEVICE_IN_SESSION,
    REMEDY,
    SESSION,
    WINDOW,
    DeviceState,
    RemedyState,
    RemedyTrigger,
    SeenTrigger,
    SessionState,
    SessionTrigger,
    WindowState,
    WindowTrigger,
)
from tests.covers import covers
from tests.fakes import NOW_MS
from tests.homes import session, window

MACHINES = [
    (SESSION, SessionState, SessionTrigger),
    (DEVICE_IN_SESSION, DeviceState, SeenTrigger),
    (WINDOW, WindowState, WindowTrigger),
    (REMEDY, RemedyState, RemedyTrigger),
]


@pytest.mark.parametrize(
    ("machine", "states", "triggers"), MACHINES, ids=lambda one: getattr(one, "name", "")
)
def test_a_pair_without_a_row_is_refused(machine, states, triggers):
    for state, trigger in product([None, *states], triggers):
        if (state, trigger) in machine.table:
            assert machine.after(state, trigger) in states
        else:
            with pytest.raises(IllegalTransitionError):
                machine.after(state, trigger)


@pytest.mark.parametrize(
    ("machine", "states", "triggers"), MACHINES, ids=lambda one: getattr(one, "name", "")
)
def test_no_state_is_out_of_reach_and_no_trigger_without_a_row(machine, states, triggers):
    reached: set[object] = set()
    before: set[object] = {None}
    while before != reached:
        reached = set(before)
        before |= {after for (state, _), after in machine.table.items() if state in reached}
    assert set(states) <= reached
    assert {trigger for _, trigger in machine.table} == set(triggers)


@covers("3.2/15")
def test_confirmed_is_reached_from_recorded_only():
    ways = {state for (state, _), after in SESSION.table.items() if after is SessionState.CONFIRMED}
    assert ways == {SessionState.RECORDED}


@pytest.mark.parametrize(("state", "trigger"), list(product(SessionState, SessionTrigger)))
def test_an_illegal_step_leaves_the_session_as_it_was(state, trigger):
    before = session(state)
    if SESSION.takes(state, trigger):
        after = move(before, trigger, NOW_MS, actor="rosa", reason="why")
        (kept,) = after.transitions
        assert (kept.at_ms, kept.actor, kept.reason) == (NOW_MS, "rosa", "why")
        assert (kept.before, kept.trigger, kept.after) == (state, trigger, after.state)
        assert after.revision == before.revision + 1
    else:
        with pytest.raises(IllegalTransitionError):
            move(before, trigger, NOW_MS)
        assert before == session(state)


def test_a_session_waits_as_long_as_its_state_may_take():
    day_ms = 86_400_000
    assert move(session(SessionState.DISCOVERED), SessionTrigger.SELECTION, NOW_MS).expires_at_ms == (
        NOW_MS + 7_200_000
    )
    assert move(session(SessionState.DISCOVERING), SessionTrigger.NONE_RECOGNIZED, NOW_MS).expires_at_ms == (
        NOW_MS + 14 * day_ms
    )
    assert move(
        session(SessionState.NOT_RECOGNIZED), SessionTrigger.REMEDY_ACCEPTED, NOW_MS
    ).expires_at_ms == (NOW_MS + 60 * day_ms)
    assert move(session(SessionState.ACKED), SessionTrigger.RECORDS_DURABLE, NOW_MS).expires_at_ms == 0


def test_devices_windows_and_remedies_move_by_their_tables():
    with pytest.raises(IllegalTransitionError):
        step(see("00124B0014B5D2A1", NOW_MS), SeenTrigger.SEND, NOW_MS)
    with pytest.raises(IllegalTransitionError):
        turn(window(WindowState.CLOSED), WindowTrigger.OPENED)
    told = ToldRemedy("bridge", "bridge", 1, "EUR", 1, RemedyState.TOLD)
    with pytest.raises(IllegalTransitionError):
        treat(told, RemedyTrigger.DONE)
