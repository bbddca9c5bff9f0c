"""By which gateway a device is reached: one at a time, and a change is told to the old one first."""

from hypothesis import given
from hypothesis import strategies as st

from provisioning import han
from provisioning.han import Attached, Han
from provisioning.routes import FORGET_MS, Routes, advance, patches
from registry.routes import BACK_AFTER_MS, FAIL_AFTER_MS
from tests.covers import covers
from tests.fakes import NOW_MS

PRIORITIES = {"gw-meter": 10, "gw-home": 20}


def said(*gateways, online=True):
    """Return what gateways report that speak for the device."""
    entry = Attached("dev", "EUI", "on", False, 1, online)
    return {gateway: Han(attached={"dev": entry}) for gateway in gateways}


def nothing(*gateways):
    return {gateway: Han() for gateway in gateways}


def settled(routes, hans):
    """Return the reports after the gateways were told, as they are asked."""
    return {
        gateway: Han(
            attached=report.attached,
            wanted={"dev": Attached("dev", "EUI", "on", gateway == routes.in_use, routes.epoch)}
            if gateway in {one.gateway for one in routes.routes}
            else {},
        )
        for gateway, report in hans.items()
    }


def begin(priorities=PRIORITIES, hans=None, here=None, now_ms=NOW_MS):
    hans = said(*priorities) if hans is None else hans
    here = frozenset(priorities) if here is None else here
    return advance(Routes(thing="dev", eui64="EUI"), priorities, hans, here, now_ms)


@covers("S1.4d")
def test_the_first_route_is_the_one_with_the_lowest_number_that_is_healthy():
    assert begin().in_use == "gw-meter"
    assert begin(here=frozenset({"gw-home"})).in_use == "gw-home"


def test_a_device_that_nobody_has_heard_yet_is_asked_for_through_the_first():
    routes = begin(hans=nothing(*PRIORITIES), here=frozenset())
    assert routes.in_use == "gw-meter"
    asked = dict(patches(routes, nothing(*PRIORITIES), NOW_MS))
    assert asked["gw-meter"]["desired"]["attach"]["dev"]["active"]
    assert not asked["gw-home"]["desired"]["attach"]["dev"]["active"]


def test_a_failed_route_is_left_after_two_minutes_and_the_old_gateway_hears_it_first():
    before = begin()
    hans = settled(before, said(*PRIORITIES))
    lost = advance(before, PRIORITIES, hans, frozenset({"gw-home"}), NOW_MS + 1)
    assert lost.in_use == "gw-meter"
    assert lost.due_ms == NOW_MS + 1 + FAIL_AFTER_MS
    after = advance(lost, PRIORITIES, hans, frozenset({"gw-home"}), lost.due_ms)
    assert (after.in_use, after.epoch) == ("gw-home", before.epoch + 1)
    assert [gateway for gateway, _ in patches(after, hans, NOW_MS)] == ["gw-meter", "gw-home"]


def test_it_goes_back_after_a_quarter_of_an_hour_of_unbroken_health_only():
    here = frozenset({"gw-home"})
    lost = advance(begin(), PRIORITIES, said(*PRIORITIES), here, NOW_MS)
    moved = advance(lost, PRIORITIES, said(*PRIORITIES), here, NOW_MS + FAIL_AFTER_MS)
    back_ms = NOW_MS + 1_000_000
    back = advance(moved, PRIORITIES, said(*PRIORITIES), frozenset(PRIORITIES), back_ms)
    assert (back.in_use, back.due_ms) == ("gw-home", back_ms + BACK_AFTER_MS)
    later = advance(back, PRIORITIES, said(*PRIORITIES), frozenset(PRIORITIES), back_ms + BACK_AFTER_MS)
    assert later.in_use == "gw-meter"


def test_a_gateway_that_may_no_longer_speak_is_told_to_forget_and_waited_for_a_week():
    before = begin()
    hans = settled(before, said(*PRIORITIES))
    after = advance(before, {"gw-home": 20}, hans, frozenset(PRIORITIES), NOW_MS)
    assert (after.in_use, dict(after.leaving)) == ("gw-home", {"gw-meter": NOW_MS})
    told = dict(patches(after, hans, NOW_MS))
    assert told["gw-meter"] == han.detach("dev")
    gone = Attached("dev", "EUI", "gone", False, 1)
    hans["gw-meter"] = Han(wanted={"dev": gone}, attached={"dev": Attached("dev", "EUI", "on", False, 1)})
    assert "gw-meter" not in dict(patches(after, hans, NOW_MS))
    assert dict(patches(after, hans, NOW_MS + FORGET_MS))["gw-meter"] == han.clear("dev")
    hans["gw-meter"] = Han(wanted={"dev": gone}, attached={"dev": gone})
    assert dict(patches(after, hans, NOW_MS))["gw-meter"] == han.clear("dev")
    hans["gw-meter"] = Han()
    assert dict(advance(after, {"gw-home": 20}, hans, frozenset(PRIORITIES), NOW_MS).leaving) == {}


def test_what_is_as_it_should_be_is_left_alone():
    routes = begin()
    hans = settled(routes, said(*PRIORITIES))
    assert patches(routes, hans, NOW_MS) == []
    assert advance(routes, PRIORITIES, hans, frozenset(PRIORITIES), NOW_MS + 1) == routes


looks = st.lists(
    st.tuples(
        st.frozensets(st.sampled_from(sorted(PRIORITIES))),
        st.frozensets(st.sampled_from(sorted(PRIORITIES))),
        st.integers(1_000, 400_000),
    ),
    max_size=30,
)


@given(looks)
def test_one_route_is_in_use_whatever_comes_and_goes(walk):
    routes, now_ms = begin(), NOW_MS
    for here, online, passed_ms in walk:
        now_ms += passed_ms
        hans = {**said(*online), **{one: Han() for one in PRIORITIES if one not in online}}
        after = advance(routes, PRIORITIES, hans, here, now_ms)
        flags = [patch["desired"]["attach"]["dev"]["active"] for _, patch in patches(after, hans, now_ms)]
        assert flags.count(True) == 1
        assert after.epoch >= routes.epoch
        if after.in_use != routes.in_use:
            assert after.epoch > routes.epoch
        routes = after
