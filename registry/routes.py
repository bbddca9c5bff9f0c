"""By which gateway a device is reached now. Pure: presence and the time in, states of routes out.

A route is healthy while its gateway is online *and* reports the device online. The device moves away from a
route that was unhealthy for :data:`FAIL_AFTER_MS`, at once to the best that is healthy, and back to a better
one only when that was healthy for :data:`BACK_AFTER_MS` without a break. So a device that was moved to
another route is not moved back within two minutes, and a route that comes and goes is not followed.
(spec: han, 3)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from registry.states import ROUTE, RouteStanding, RouteTrigger

FAIL_AFTER_MS: Final = 120_000
BACK_AFTER_MS: Final = 900_000


@dataclass(frozen=True, slots=True)
class Presence:
    """What is known of a way to a device; ``since_ms`` is since when it is healthy, or is not."""

    gateway_online: bool
    device_online: bool
    since_ms: int

    @property
    def healthy(self) -> bool:
        """Whether the device can be reached this way."""
        return self.gateway_online and self.device_online


@dataclass(frozen=True, slots=True)
class RouteState:
    """One route of a device. ``since_ms`` is when its state began, or when it was attached."""

    gateway: str
    state: RouteStanding
    since_ms: int
    priority: int
    """The lowest comes first."""
    pinned: bool = False
    """An operator wants this one before all others."""


def choose_route(
    routes: Sequence[RouteState], presence: Mapping[str, Presence], now_ms: int
) -> tuple[tuple[RouteState, ...], str | None]:
    """Return the routes of a device as they are now, in their order, and the gateway of the active one.

    A gateway that ``presence`` does not name has been away since its route is what it is.
    """
    seen = {one.gateway: _presence(one, presence) for one in routes}
    stood = {one.gateway: _judged(one, seen[one.gateway], now_ms) for one in routes}
    active = next((one for one in stood.values() if one.state is RouteStanding.ACTIVE), None)
    best = min(
        (one for one in stood.values() if _eligible(one, seen[one.gateway], active, now_ms)),
        key=_order,
        default=None,
    )
    if best is not None:
        if active is not None:
            stood[active.gateway] = _moved(active, RouteTrigger.YIELD, now_ms)
        active = stood[best.gateway] = _moved(best, RouteTrigger.PREFER, now_ms)
    return tuple(stood[one.gateway] for one in routes), None if active is None else active.gateway


def due_ms(routes: Sequence[RouteState], presence: Mapping[str, Presence], now_ms: int) -> int | None:
    """Return when the choice is to be looked at again if nothing is heard meanwhile, None for never.

    ``routes`` are those that :func:`choose_route` has returned.
    """
    active = next((one for one in routes if one.state is RouteStanding.ACTIVE), None)
    moments = [
        moment
        for one in routes
        if (moment := _next_ms(one, _presence(one, presence), active)) is not None and moment > now_ms
    ]
    return min(moments, default=None)


def _presence(route: RouteState, presence: Mapping[str, Presence]) -> Presence:
    return presence.get(route.gateway) or Presence(
        gateway_online=False, device_online=False, since_ms=route.since_ms
    )


def _judged(route: RouteState, seen: Presence, now_ms: int) -> RouteState:
    """Return a route after its own health, whatever the others are."""
    down = route.state is RouteStanding.DOWN
    if down and seen.healthy:
        return _moved(route, RouteTrigger.RECOVER, now_ms)
    if not down and not seen.healthy and now_ms - seen.since_ms >= FAIL_AFTER_MS:
        return _moved(route, RouteTrigger.FAIL, now_ms)
    return route


def _eligible(route: RouteState, seen: Presence, active: RouteState | None, now_ms: int) -> bool:
    """Tell whether the device may move to this route."""
    if route.state is not RouteStanding.STANDBY or not seen.healthy:
        return False
    if active is None:
        return True
    return _order(route) < _order(active) and now_ms - seen.since_ms >= BACK_AFTER_MS


def _next_ms(route: RouteState, seen: Presence, active: RouteState | None) -> int | None:
    if not seen.healthy:
        return None if route.state is RouteStanding.DOWN else seen.since_ms + FAIL_AFTER_MS
    better = active is not None and _order(route) < _order(active)
    return seen.since_ms + BACK_AFTER_MS if better else None


def _moved(route: RouteState, trigger: RouteTrigger, now_ms: int) -> RouteState:
    return replace(route, state=ROUTE.after(route.state, trigger), since_ms=now_ms)


def _order(route: RouteState) -> tuple[bool, int, str]:
    return not route.pinned, route.priority, route.gateway
