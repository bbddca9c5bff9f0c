"""The life cycles of the registry, row by row: what the specification says, and nothing else."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.machines import IllegalTransitionError, Machine
from registry.states import (
    DEVICE,
    GATEWAY_HAN,
    ROUTE,
    DeviceTrigger,
    HanState,
    HanTrigger,
    Lifecycle,
    RouteStanding,
    RouteTrigger,
)
from tests.covers import covers

D, L = DeviceTrigger, Lifecycle
MACHINES = (
    (DEVICE, Lifecycle, DeviceTrigger),
    (GATEWAY_HAN, HanState, HanTrigger),
    (ROUTE, RouteStanding, RouteTrigger),
)
DEVICE_ROWS: dict[DeviceTrigger, tuple[set[Any], Lifecycle]] = {
    D.DELIVERED: ({None}, L.MANUFACTURED),
    D.JOINED: ({None, L.MANUFACTURED}, L.COMMISSIONED),
    D.SEEN: ({None, L.MANUFACTURED, L.COMMISSIONED, L.DEREGISTERED}, L.DISCOVERED),
    D.PROVED: ({L.DISCOVERED}, L.AUTHENTICATED),
    D.REGISTER: ({L.AUTHENTICATED}, L.REGISTERED),
    D.LEFT_OUT: ({L.DISCOVERED, L.AUTHENTICATED}, L.COMMISSIONED),
    D.SUSPEND: ({L.REGISTERED}, L.SUSPENDED),
    D.LIFT: ({L.SUSPENDED}, L.REGISTERED),
    D.DEREGISTER: ({L.REGISTERED, L.SUSPENDED}, L.DEREGISTERED),
    D.REPLACE: ({L.REGISTERED}, L.REPLACED),
    D.RETIRE: (set(L) - {L.REPLACED, L.RETIRED}, L.RETIRED),
}


@covers("O3")
def test_the_life_of_a_device_is_as_specified():
    assert dict(DEVICE.table) == {
        (state, trigger): after for trigger, (states, after) in DEVICE_ROWS.items() for state in states
    }
    assert DEVICE.final == {L.REPLACED, L.RETIRED}


@pytest.mark.parametrize(
    ("machine", "states", "triggers"), MACHINES, ids=lambda one: getattr(one, "name", "")
)
def test_every_state_can_be_reached_and_every_trigger_does_something(machine, states, triggers):
    assert machine.states == set(states)
    assert {trigger for _, trigger in machine.table} == set(triggers)
    reached: set[object] = {None}
    while more := {after for (state, _), after in machine.table.items() if state in reached} - reached:
        reached |= more
    assert reached == {None, *states}


def walk(machine: Machine[Any, Any], triggers) -> list[object]:
    state, states = None, []
    for trigger in triggers:
        try:
            state = machine.after(state, trigger)
        except IllegalTransitionError:
            continue
        states.append(state)
    return states


@covers("3.2/2", "O1")
@given(st.lists(st.sampled_from(DeviceTrigger), max_size=60))
def test_no_device_is_registered_that_has_not_proved_itself_since_it_was_seen(triggers):
    states = walk(DEVICE, triggers)
    for place, state in enumerate(states):
        if state is L.REGISTERED:
            assert states[place - 1] in {L.AUTHENTICATED, L.SUSPENDED}
        if state is L.AUTHENTICATED:
            assert states[place - 1] is L.DISCOVERED
        if state in {L.REPLACED, L.RETIRED}:
            assert place == len(states) - 1, "nothing comes after the end"


@given(st.lists(st.sampled_from(RouteTrigger), max_size=40))
def test_a_route_that_is_down_serves_nobody_before_it_was_on_standby(triggers):
    states = walk(ROUTE, triggers)
    for before, after in itertools.pairwise(states):
        assert (before, after) != (RouteStanding.DOWN, RouteStanding.ACTIVE)
