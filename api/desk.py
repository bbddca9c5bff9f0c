"""How both kinds of shadow routes reach the shadow service: checks 1 to 4, one command, its outcome.

The numbers are the rows of the table of checks (spec: shadow, section 8). Check 5 onwards is the domain's.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from litestar.types import Scope

from api.gate import Gate
from api.reading import request_id
from api.services import ApiServices
from infra.clock import MS_PER_S
from registry.service import UNKNOWN
from security.policy import Principal, may_read
from shadow import wire
from shadow.commands import Channel, Command, Origin, RefusedError, parse_id
from shadow.decisions import Accepted, Rejected, Shadow
from shadow.document import ShadowId, difference
from shadow.errors import ForbiddenError, ThingNotFoundError, TooManyRequestsError

CLASSIC: Final = "@classic"

T = TypeVar("T")


class Desk:
    """Asks the shadow service for one caller at a time, and keeps one thing from taking every place."""

    def __init__(self, services: ApiServices) -> None:
        self._shadows = services.shadows
        self._registry = services.registry
        self._requests_max = services.settings.limits.in_flight_max
        self._gate = Gate(services.registry, services.devices)
        self._in_flight: dict[str, int] = {}

    async def answer(self, id: ShadowId, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what ``ask`` returns, once the thing is known (3) and has a place free (4)."""
        await self.require_thing(id.thing)
        waiting = self._in_flight.get(id.thing, 0)
        if waiting >= self._requests_max:
            raise TooManyRequestsError(f"a thing may have {self._requests_max} requests without an answer")
        self._in_flight[id.thing] = waiting + 1
        try:
            return await ask()
        finally:
            self._leave(id.thing)

    async def require_thing(self, thing: str) -> None:
        """Raise unless the thing is registered (3)."""
        standing = self._registry.standing(thing)
        if standing is None or (standing is UNKNOWN and not await self._registry.standings([thing])):
            raise ThingNotFoundError

    async def submit(self, command: Command, scope: Scope) -> Accepted:
        """Return the outcome of one command, durable; raise what it was refused with."""
        # Again: while its body came the thing may have been removed, and it must leave no shadow behind;
        # or it is the caller's no longer.
        await self._gate.admit(scope)
        (outcome,) = await self._shadows.submit([command])
        if isinstance(outcome, Rejected):
            raise outcome.error
        return outcome

    def _leave(self, thing: str) -> None:
        left = self._in_flight[thing] - 1
        if left:
            self._in_flight[thing] = left
        else:
            del self._in_flight[thing]


def shadow_id(thing: str, shadow: str) -> ShadowId:
    """Return the id for two parts of a path (1)."""
    return parse_id(thing, "" if shadow == CLASSIC else shadow)


def path_id(scope: Scope) -> ShadowId:
    """Return the id that ``…/{thing}/shadows/{shadow}`` names (1)."""
    parts: dict[str, Any] = scope["path_params"]
    return shadow_id(parts["thing"], parts["shadow"])


def path_thing(scope: Scope, part: str = "thing") -> str:
    """Return the name of a thing in the path (1)."""
    name: str = scope["path_params"][part]
    return parse_id(name).thing


def origin_of(scope: Scope) -> Origin:
    """Return who asks, as the shadow service wants to know it."""
    principal: Principal = scope["user"]
    return Origin(principal.name, principal.role, Channel.HTTP, request_id=request_id(scope))


def parsed(parse: Callable[[], T]) -> T:
    """Return what ``parse`` returns; over HTTP nobody waits for the token of a refused request."""
    try:
        return parse()
    except RefusedError as refused:
        raise refused.error from refused


def require_readable(scope: Scope, id: ShadowId) -> None:
    """Raise unless the caller's role may read shadows of this name."""
    principal: Principal = scope["user"]
    if not may_read(principal.role, id.name):
        raise ForbiddenError(f"{principal.role} may not read this shadow")


def document(shadow: Shadow, now_ms: int) -> bytes:
    """Return a shadow as ``get/accepted`` has it."""
    differs = difference(shadow.desired, shadow.reported)
    return wire.document_accepted(
        shadow.desired, shadow.reported, differs, shadow.version, now_ms // MS_PER_S, token=None
    )
