"""By which gateway a device is reached: who is chosen, and that nobody is chosen to and fro."""

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from registry.routes import BACK_AFTER_MS, FAIL_AFTER_MS, Presence, RouteState, choose_route, due_ms
from registry.states import RouteStanding
from tests.covers import covers

NOON = 1_790_000_000_000
STANDBY, ACTIVE, DOWN = RouteStanding.STANDBY, RouteStanding.ACTIVE, RouteStanding.DOWN
METER = RouteState("meter", STANDBY, NOON, 10)
HOME = RouteState("home", STANDBY, NOON, 20)


def up(since_ms=NOON):
    return Presence(gateway_online=True, device_online=True, since_ms=since_ms)


def away(since_ms=NOON):
    return Presence(gateway_online=False, device_online=True, since_ms=since_ms)


def states(routes):
    return {one.gateway: one.state for one in routes}


def test_the_first_choice_is_the_healthy_one_of_the_lowest_priority_number():
    routes, active = choose_route([HOME, METER], {"meter": up(), "home": up()}, NOON)
    assert active == "meter"
    assert states(routes) == {"home": STANDBY, "meter": ACTIVE}
    assert [one.gateway for one in routes] == ["home", "meter"], "their order stays"
    _, active = choose_route([HOME, METER], {"meter": away(), "home": up()}, NOON)
    assert active == "home"


def test_a_gateway_that_is_online_without_the_device_is_no_way_to_it():
    unseen = Presence(gateway_online=True, device_online=False, since_ms=NOON)
    assert choose_route([METER], {"meter": unseen}, NOON) == ((METER,), None)


@covers("S1.4d")
def test_it_fails_over_after_two_minutes_and_not_before():
    routes, _ = choose_route([METER, HOME], {"meter": up(), "home": up()}, NOON)
    lost = {"meter": away(NOON + 1_000), "home": up()}
    just_before = NOON + 1_000 + FAIL_AFTER_MS - 1
    assert choose_route(routes, lost, just_before) == (routes, "meter")
    assert due_ms(routes, lost, just_before) == just_before + 1
    after, active = choose_route(routes, lost, just_before + 1)
    assert active == "home"
    assert states(after) == {"meter": DOWN, "home": ACTIVE}
    assert {one.since_ms for one in after} == {just_before + 1}


@covers("S1.4d")
def test_it_fails_back_after_a_quarter_of_an_hour_of_unbroken_health():
    routes: tuple[RouteState, ...] = (replace(METER, state=DOWN), replace(HOME, state=ACTIVE))
    back = {"meter": up(NOON), "home": up(NOON)}
    routes, active = choose_route(routes, back, NOON + 1)
    assert (active, states(routes)) == ("home", {"meter": STANDBY, "home": ACTIVE})
    due = NOON + BACK_AFTER_MS
    assert due_ms(routes, back, NOON + 1) == due
    assert choose_route(routes, back, due - 1) == (routes, "home")
    routes, active = choose_route(routes, back, due)
    assert (active, states(routes)) == ("meter", {"meter": ACTIVE, "home": STANDBY})
    assert due_ms(routes, back, due) is None


def test_a_worse_route_is_never_moved_to_while_the_better_one_is_healthy():
    routes, _ = choose_route([METER, HOME], {"meter": up(), "home": up()}, NOON)
    assert choose_route(routes, {"meter": up(), "home": up()}, NOON + 10 * BACK_AFTER_MS) == (routes, "meter")


def test_with_nobody_left_nobody_is_active_and_the_first_that_returns_is_taken_at_once():
    routes, _ = choose_route([METER], {"meter": up()}, NOON)
    gone, active = choose_route(routes, {"meter": away(NOON)}, NOON + FAIL_AFTER_MS)
    assert (active, states(gone)) == (None, {"meter": DOWN})
    assert due_ms(gone, {"meter": away(NOON)}, NOON + FAIL_AFTER_MS) is None
    back, active = choose_route(gone, {"meter": up(NOON + FAIL_AFTER_MS)}, NOON + FAIL_AFTER_MS)
    assert (active, states(back)) == ("meter", {"meter": ACTIVE})


def test_a_pinned_route_comes_before_all_others_and_is_left_when_it_fails():
    pinned = replace(HOME, pinned=True)
    routes, active = choose_route([METER, pinned], {"meter": up(), "home": up()}, NOON)
    assert active == "home"
    _, active = choose_route(routes, {"meter": up(), "home": away(NOON)}, NOON + FAIL_AFTER_MS)
    assert active == "meter"


def test_of_a_gateway_that_nobody_knows_anything_of_nothing_is_hoped():
    assert choose_route([METER], {}, NOON) == ((METER,), None)
    routes, active = choose_route([METER, HOME], {"home": up()}, NOON + FAIL_AFTER_MS)
    assert (active, states(routes)) == ("home", {"meter": DOWN, "home": ACTIVE})


def test_no_routes_no_choice():
    assert choose_route([], {}, NOON) == ((), None)
    assert due_ms([], {}, NOON) is None


# Whatever happens, in whatever order.


@dataclass
class Home:
    """A device, its gateways as they come and go, and which one was chosen when."""

    routes: tuple[RouteState, ...]
    now_ms: int = NOON
    presence: dict[str, Presence] = field(default_factory=dict)
    active: str | None = None
    left: dict[str, int] = field(default_factory=dict)
    """When the device was moved from here to another route."""

    def pass_by(self, ms: int) -> None:
        """Let time pass, choosing whenever it is due and never else."""
        until = self.now_ms + ms
        while (due := due_ms(self.routes, self.presence, self.now_ms)) is not None and due <= until:
            assert choose_route(self.routes, self.presence, due - 1) == (self.routes, self.active), "too late"
            self.now_ms = due
            self.choose()
        self.now_ms = until
        assert choose_route(self.routes, self.presence, until) == (self.routes, self.active), "not told"

    def hear(self, gateway: str, *, gateway_online: bool, device_online: bool) -> None:
        before, healthy = self.presence.get(gateway), gateway_online and device_online
        changed = before is None or before.healthy is not healthy
        since_ms = self.now_ms if changed or before is None else before.since_ms
        self.presence[gateway] = Presence(gateway_online, device_online, since_ms)
        self.choose()

    def choose(self) -> None:
        before = self.active
        self.routes, self.active = choose_route(self.routes, self.presence, self.now_ms)
        chosen = [one.gateway for one in self.routes if one.state is ACTIVE]
        assert chosen == ([] if self.active is None else [self.active]), "never two"
        self._check(before)
        again = choose_route(self.routes, self.presence, self.now_ms)
        assert again == (self.routes, self.active), "what was chosen stays chosen"

    def _check(self, before: str | None) -> None:
        healthy = {name for name, one in self.presence.items() if one.healthy}
        assert (self.active is not None) or not healthy, "who can be reached is reached"
        if self.active not in (None, before):
            assert self.active in healthy
            since = self.left.get(self.active or "")
            assert since is None or self.now_ms - since >= FAIL_AFTER_MS, "to and fro"
            if before is not None:
                self.left[before] = self.now_ms
        if self.active is not None and self.active not in healthy:
            assert self.now_ms - self.presence[self.active].since_ms < FAIL_AFTER_MS


GATEWAYS = ("bridge", "home", "meter")
events = st.tuples(
    st.one_of(
        st.integers(0, 2_000),
        st.integers(0, 2 * FAIL_AFTER_MS),
        st.sampled_from((FAIL_AFTER_MS, BACK_AFTER_MS)),
    ),
    st.sampled_from(GATEWAYS),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(events, max_size=60), st.permutations([10, 20, 30]), st.sampled_from([None, *GATEWAYS]))
def test_it_never_flaps_and_never_chooses_two(happenings, priorities, pinned):
    home = Home(
        tuple(
            RouteState(name, STANDBY, NOON, priority, pinned=name == pinned)
            for name, priority in zip(GATEWAYS, priorities, strict=True)
        )
    )
    for name in GATEWAYS:
        home.hear(name, gateway_online=False, device_online=False)
    for ms, name, gateway_online, device_online in happenings:
        home.pass_by(ms)
        home.hear(name, gateway_online=gateway_online, device_online=device_online)
