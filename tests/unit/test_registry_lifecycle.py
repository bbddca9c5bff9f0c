"""What may become of a device: what comes with a step, what is refused, and what is done only once."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.machines import IllegalTransitionError, Transition
from registry import lifecycle
from registry.errors import DeviceNotFoundError, DeviceTakenError, InvalidDetailError
from registry.lifecycle import PURGE_AFTER_MS, RATED_W_MAX, SETTLED, Device
from registry.models import Owner
from registry.rules import TEXT_CHARS_MAX
from registry.states import DEVICE, DeviceTrigger, Lifecycle
from tests.covers import covers

D, L = DeviceTrigger, Lifecycle
NOON = 1_790_000_000_000
EUI64 = "00124B0014B5D2A1"
SEEN = Device(
    id=EUI64,
    eui64=EUI64,
    model="acme-pct-2",
    maker="Acme",
    hw=3,
    fw="1.4.0",
    premises="home-1",
    premises_epoch=2,
)
WAYS: dict[Lifecycle, tuple[DeviceTrigger, ...]] = {
    L.MANUFACTURED: (D.DELIVERED,),
    L.COMMISSIONED: (D.JOINED,),
    L.DISCOVERED: (D.SEEN,),
    L.AUTHENTICATED: (D.SEEN, D.PROVED),
    L.REGISTERED: (D.SEEN, D.PROVED, D.REGISTER),
    L.SUSPENDED: (D.SEEN, D.PROVED, D.REGISTER, D.SUSPEND),
    L.DEREGISTERED: (D.SEEN, D.PROVED, D.REGISTER, D.DEREGISTER),
    L.REPLACED: (D.SEEN, D.PROVED, D.REGISTER, D.REPLACE),
    L.RETIRED: (D.SEEN, D.RETIRE),
}


def step(before: Device | None, trigger: DeviceTrigger, at_ms: int = NOON, **named: Any) -> Device:
    return lifecycle.step(EUI64, before, trigger, at_ms=at_ms, actor="rita", **named)


def bind(device: Device) -> Device:
    return replace(device, account="a-1", name="Living room", location="Living room")


def device_in(state: Lifecycle) -> Device:
    device: Device | None = None
    for trigger in WAYS[state]:
        device = step(device, trigger, new=SEEN, change=bind if trigger is D.REGISTER else None)
    assert device is not None
    assert device.lifecycle is state
    return device


def test_what_nobody_knew_begins_with_its_first_step_and_its_description():
    device = step(None, D.SEEN, reason="session s-1", new=SEEN)
    assert device == replace(
        SEEN,
        lifecycle=L.DISCOVERED,
        transitions=(Transition(NOON, "rita", "session s-1", "", "seen", "DISCOVERED"),),
    )


def test_what_nobody_describes_is_not_found():
    with pytest.raises(DeviceNotFoundError):
        step(None, D.SEEN)
    with pytest.raises(IllegalTransitionError):
        step(None, D.REGISTER, new=SEEN)


def test_a_description_does_not_replace_what_is_known():
    delivered = device_in(L.MANUFACTURED)
    other = replace(SEEN, serial="other")
    assert step(delivered, D.SEEN, new=other).serial == delivered.serial


@pytest.mark.parametrize("state", list(L))
@pytest.mark.parametrize("trigger", list(D))
def test_every_pair_does_what_the_table_says_or_nothing_or_is_refused(state, trigger):
    before = device_in(state)
    if state in SETTLED[trigger]:
        assert step(before, trigger) is before
    elif DEVICE.takes(state, trigger):
        after = step(before, trigger, NOON + 1, reason="why", change=bind)
        assert after.lifecycle is DEVICE.after(state, trigger)
        assert after.transitions[:-1] == before.transitions
        assert after.transitions[-1] == Transition(
            NOON + 1, "rita", "why", state, trigger, DEVICE.after(state, trigger)
        )
    else:
        with pytest.raises(IllegalTransitionError):
            step(before, trigger, change=bind)


def test_nothing_is_both_settled_and_in_the_table():
    assert not {(state, trigger) for trigger, states in SETTLED.items() for state in states} & set(
        DEVICE.table
    )
    assert set(SETTLED) == set(D)


def test_what_comes_with_a_step_changes_neither_identity_nor_state_nor_history():
    def forge(device: Device) -> Device:
        return replace(device, id="other", lifecycle=L.REGISTERED, transitions=(), fw="2.0.0")

    after = step(device_in(L.DISCOVERED), D.PROVED, change=forge)
    assert (after.id, after.lifecycle, after.fw, len(after.transitions)) == (
        EUI64,
        L.AUTHENTICATED,
        "2.0.0",
        2,
    )
    amended = lifecycle.amend(EUI64, after, forge)
    assert amended == after
    with pytest.raises(DeviceNotFoundError):
        lifecycle.amend(EUI64, None, forge)


@covers("O3")
def test_nobody_registers_what_is_registered_for_somebody_else():
    device = device_in(L.REGISTERED)
    assert step(device, D.REGISTER, change=bind) is device
    for other in (lambda one: replace(one, account="a-2"), lambda one: replace(one, premises="home-2")):
        with pytest.raises(DeviceTakenError):
            step(device, D.REGISTER, change=other)


@pytest.mark.parametrize("missing", ["account", "premises"])
def test_a_device_is_registered_for_an_account_at_premises(missing):
    nothing: dict[str, Any] = {missing: ""}
    with pytest.raises(InvalidDetailError):
        step(device_in(L.AUTHENTICATED), D.REGISTER, change=lambda one: replace(bind(one), **nothing))


@pytest.mark.parametrize("trigger", [D.DEREGISTER, D.REPLACE, D.RETIRE])
def test_who_is_registered_no_more_is_nobodys_and_has_no_name(trigger):
    after = step(device_in(L.REGISTERED), trigger)
    assert (after.account, after.name, after.location, after.premises) == ("", "", "", "home-1")


@pytest.mark.parametrize(
    "details",
    [
        {"name": "x" * (TEXT_CHARS_MAX + 1)},
        {"location": "hall\nstairs"},
        {"fw": "\x00"},
        {"maker": "x" * (TEXT_CHARS_MAX + 1)},
        {"rated_w": RATED_W_MAX + 1},
        {"rated_w": -1},
    ],
)
def test_what_equipment_or_people_say_is_bounded(details):
    with pytest.raises(InvalidDetailError):
        step(None, D.SEEN, new=replace(SEEN, **details))
    with pytest.raises(InvalidDetailError):
        lifecycle.amend(EUI64, device_in(L.DISCOVERED), lambda one: replace(one, **details))


def test_the_longest_words_and_the_greatest_load_are_taken():
    device = step(None, D.SEEN, new=replace(SEEN, name="ü" * TEXT_CHARS_MAX, rated_w=RATED_W_MAX))
    assert len(device.name) == TEXT_CHARS_MAX


@covers("S1.4e")
def test_what_was_left_out_is_forgotten_after_a_day():
    left_out = step(device_in(L.AUTHENTICATED), D.LEFT_OUT)
    assert left_out.lifecycle is L.COMMISSIONED
    assert left_out.purge_at_ms == NOON + PURGE_AFTER_MS
    assert lifecycle.purge(left_out, NOON + PURGE_AFTER_MS - 1) is left_out
    assert lifecycle.purge(left_out, NOON + PURGE_AFTER_MS) == Device(
        id=EUI64, eui64=EUI64, lifecycle=L.COMMISSIONED, transitions=left_out.transitions
    )


def test_what_is_seen_again_is_not_forgotten():
    again = step(step(device_in(L.DISCOVERED), D.LEFT_OUT), D.SEEN)
    assert again.purge_at_ms is None
    assert lifecycle.purge(again, NOON + 2 * PURGE_AFTER_MS) is again


def test_of_what_a_vendor_delivered_stays_what_the_vendor_said():
    new = replace(SEEN, premises="", premises_epoch=0, fw="", serial="s-1", lfdi="ff", owner=Owner.UTILITY)
    delivered = step(None, D.DELIVERED, new=new)
    seen = step(delivered, D.SEEN, change=lambda one: replace(bind(one), premises="home-1", fw="1.4.0"))
    left_out = step(seen, D.LEFT_OUT)
    kept = lifecycle.purge(left_out, NOON + PURGE_AFTER_MS)
    assert kept == replace(new, lifecycle=L.COMMISSIONED, transitions=left_out.transitions)


@given(st.lists(st.sampled_from(D), max_size=40))
def test_whatever_happens_a_device_is_where_its_table_and_its_history_say(triggers):
    device: Device | None = None
    for place, trigger in enumerate(triggers):
        before = device
        try:
            device = step(before, trigger, NOON + place, new=SEEN, change=bind)
        except (IllegalTransitionError, InvalidDetailError):
            continue
        assert device.transitions[-1].after == device.lifecycle
        if device is not before:
            assert device.lifecycle is DEVICE.after(None if before is None else before.lifecycle, trigger)
        if device.lifecycle in {L.REGISTERED, L.SUSPENDED}:
            assert device.account
            assert device.purge_at_ms is None
        if device.lifecycle in {L.DEREGISTERED, L.REPLACED, L.RETIRED}:
            assert (device.account, device.name, device.location) == ("", "", "")
