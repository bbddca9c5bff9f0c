"""May this caller do that to this thing? The facts from the registry, the answer from the one table.

What somebody may not read does not exist for them: the answer and the work are those for a thing that is
not there. Who may do something to a thing without reading it, as a security officer may, goes ahead.
(spec: security, 3.2)
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from litestar.types import Scope

from api.problems import (
    DEVICE_NOT_FOUND,
    FORBIDDEN,
    PREMISES_NOT_FOUND,
    THING_NOT_FOUND,
    ApiError,
    Kind,
)
from registry.devices import DeviceService
from registry.rules import check_premises
from registry.service import RegistryService
from security import policy
from security.policy import Action, Principal, Target, may, scope_of
from shadow.commands import parse_id

THINGS: Final = ("gateway", "thing")
"""Parts of a path that name a thing."""
DEVICE: Final = "device"
"""The part of a path that names a device of the registry, which need not be a thing yet."""
PREMISES: Final = "premises"
"""The part of a path that names premises."""
INSIDE: Final = frozenset({"shadow", "version"})
"""Parts of a path that name something within a thing."""

_BY_ACCOUNT: Final = frozenset({policy.Scope.ACCOUNT, policy.Scope.CASE})


class OutOfReachError(ApiError):
    """What was named is not there, or is somebody else's; nobody is told which."""


class Gate:
    """Stands between a caller and what a path or body names."""

    def __init__(self, registry: RegistryService, devices: DeviceService) -> None:
        self._registry = registry
        self._devices = devices

    async def admit(self, scope: Scope) -> None:
        """Raise unless the caller may do what the route does to everything that its path names."""
        principal: Principal = scope["user"]
        action: Action = scope["route_handler"].opt["action"]
        parts: dict[str, Any] = scope["path_params"]
        names = [parse_id(parts[part]).thing for part in THINGS if part in parts]
        if names:
            known = await self._registry.targets(names)
            targets = [known.get(name) for name in names]
            for target in targets:
                _require(principal, action, target, Action.THING_READ, THING_NOT_FOUND)
            scope["state"]["target"] = targets[-1]
        if DEVICE in parts:
            id = parse_id(parts[DEVICE]).thing
            scope["state"]["target"] = await self.require_device(principal, action, id)
        if PREMISES in parts:
            await self.require_premises(principal, action, parts[PREMISES])

    async def require_premises(self, principal: Principal, action: Action, id: str) -> Target:
        """Return the facts about premises; raise unless the caller may do this there."""
        check_premises(id)
        target = await self._registry.place(id)
        _require(principal, action, target, Action.PREMISES_READ, PREMISES_NOT_FOUND)
        return target

    async def require_thing(self, principal: Principal, action: Action, name: str) -> Target:
        """Return the facts about a thing; raise unless the caller may do this to it."""
        target = (await self._registry.targets([name])).get(name)
        return _require(principal, action, target, Action.THING_READ, THING_NOT_FOUND)

    async def require_device(self, principal: Principal, action: Action, id: str) -> Target:
        """Return the facts about a device; raise unless the caller may do this to it.

        Who has to do with a device by its account or its premises must be able to see it as well.
        """
        target = (await self._devices.targets([id])).get(id)
        everywhere = scope_of(principal.role, action) is policy.Scope.ANY
        if target is not None and not everywhere and not may(principal, Action.DEVICE_READ, target):
            target = None
        return _require(principal, action, target, Action.DEVICE_READ, DEVICE_NOT_FOUND)

    async def sees_meters(self, principal: Principal, premises: str) -> bool:
        """Tell whether the caller may see the meters at premises. Those are the utility's, wherever."""
        check_premises(premises)
        target = replace(await self._registry.place(premises), enrolled=True)
        return may(principal, Action.METER_READ, target)

    async def devices(self, ids: Collection[str]) -> Mapping[str, Target]:
        """Return the facts about those devices that are known."""
        return await self._devices.targets(ids)

    async def open_devices(self, principal: Principal, ids: Collection[str]) -> frozenset[str]:
        """Return those of these devices which the caller may see."""
        known = await self._devices.targets(ids)
        return frozenset(id for id, target in known.items() if may(principal, Action.DEVICE_READ, target))

    async def open_to(self, principal: Principal, action: Action, names: Collection[str]) -> frozenset[str]:
        """Return those of these things to which the caller may do this."""
        known = await self._registry.targets(names)
        return frozenset(name for name, target in known.items() if may(principal, action, target))


def hidden_before_ms(scope: Scope) -> int:
    """Return the time before which the past of the thing in the path is not the caller's to see."""
    return unseen_before_ms(scope["user"], scope["state"]["target"])


def unseen_before_ms(principal: Principal, target: Target) -> int:
    """Return the time before which the past of a thing or of premises is not the caller's to see."""
    return target.since_ms if scope_of(principal.role, Action.THING_READ) in _BY_ACCOUNT else 0


def require_past(scope: Scope) -> None:
    """Raise unless the caller may see what the thing in the path was."""
    principal: Principal = scope["user"]
    _require(principal, Action.SHADOW_HISTORY, scope["state"]["target"], Action.THING_READ, THING_NOT_FOUND)


def _require(
    principal: Principal, action: Action, target: Target | None, reading: Action, missing: Kind
) -> Target:
    if target is not None:
        if may(principal, action, target):
            return target
        if may(principal, reading, target):
            raise ApiError(FORBIDDEN, f"{principal.role} may read this, but {action} is not theirs")
    if scope_of(principal.role, action) is policy.Scope.ANY:
        raise ApiError(missing)
    raise OutOfReachError(missing)
