"""What a life cycle that is a table promises, and what is kept of a life."""

from enum import StrEnum

import pytest

from infra.machines import (
    FIRST_TRANSITIONS_KEPT,
    TRANSITIONS_MAX,
    IllegalTransitionError,
    Machine,
    Transition,
    drawing,
    remember,
)


class Light(StrEnum):
    OFF = "OFF"
    ON = "ON"
    BROKEN = "BROKEN"


class Touch(StrEnum):
    SCREW_IN = "screw_in"
    PRESS = "press"
    DROP = "drop"


LAMP: Machine[Light, Touch] = Machine(
    "lamp",
    {
        (None, Touch.SCREW_IN): Light.OFF,
        (Light.OFF, Touch.PRESS): Light.ON,
        (Light.ON, Touch.PRESS): Light.OFF,
        (Light.OFF, Touch.DROP): Light.BROKEN,
    },
)


def step(number: int) -> Transition:
    return Transition(number, "anna", "", "OFF", "press", "ON")


def test_what_follows_stands_in_the_table():
    assert LAMP.after(None, Touch.SCREW_IN) is Light.OFF
    assert LAMP.after(Light.OFF, Touch.PRESS) is Light.ON
    assert LAMP.takes(Light.OFF, Touch.PRESS)


@pytest.mark.parametrize("state", [None, *Light])
@pytest.mark.parametrize("trigger", list(Touch))
def test_a_pair_that_is_not_there_is_refused_and_says_what_it_was(state, trigger):
    if LAMP.takes(state, trigger):
        assert LAMP.after(state, trigger) is LAMP.table[state, trigger]
        return
    with pytest.raises(IllegalTransitionError) as caught:
        LAMP.after(state, trigger)
    assert (caught.value.machine, caught.value.state, caught.value.trigger) == ("lamp", state, trigger)


def test_a_refusal_reads_as_a_sentence():
    with pytest.raises(IllegalTransitionError, match="a lamp that is BROKEN does not take press"):
        LAMP.after(Light.BROKEN, Touch.PRESS)
    with pytest.raises(IllegalTransitionError, match="a lamp that is not there yet does not take drop"):
        LAMP.after(None, Touch.DROP)


def test_final_states_follow_from_the_table():
    assert LAMP.final == {Light.BROKEN}
    assert LAMP.states == set(Light)


def test_the_drawing_has_every_row_once_and_its_ends():
    assert drawing(LAMP) == (
        "stateDiagram-v2\n"
        "    [*] --> OFF: screw_in\n"
        "    OFF --> ON: press\n"
        "    ON --> OFF: press\n"
        "    OFF --> BROKEN: drop\n"
        "    BROKEN --> [*]\n"
    )


def test_a_long_life_keeps_its_beginning_and_its_newest():
    kept: tuple[Transition, ...] = ()
    for number in range(TRANSITIONS_MAX):
        kept = remember(kept, step(number))
    assert [one.at_ms for one in kept] == list(range(TRANSITIONS_MAX)), "as many as may be are all there"
    kept = remember(kept, step(TRANSITIONS_MAX))
    assert len(kept) == TRANSITIONS_MAX
    assert [one.at_ms for one in kept[:FIRST_TRANSITIONS_KEPT]] == list(range(FIRST_TRANSITIONS_KEPT))
    assert [one.at_ms for one in kept[FIRST_TRANSITIONS_KEPT:]] == list(
        range(FIRST_TRANSITIONS_KEPT + 1, TRANSITIONS_MAX + 1)
    )
