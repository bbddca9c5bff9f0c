"""Who may call what: one guard before every handler, asking the one table, and the default is no.

The guard proves who asks and that their role may do this *sort* of thing at all. Whether they may do it to
this shadow is the table of shadows (``security.policy``), asked where the shadow is.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.types import Scope

from api.problems import FORBIDDEN, METHOD_NOT_ALLOWED, UNAUTHORIZED, ApiError
from api.reading import HttpRequest, header
from api.services import Bearer
from security.policy import GRANTS, Action, Principal, Role, may_at_all

CHALLENGE: Final = ((b"www-authenticate", b'Bearer realm="gnomon"'),)

COMPAT: Final = Principal("compat", Role.STAND_IN)
"""Who an unchecked AWS signature stands for; only with ``compat_http``, which is never on off loopback."""


class UnguardedRouteError(RuntimeError):
    """A route that does not say what it does would be a hole; the process does not start with one."""


class Identify(Protocol):
    """Tells who sends a request; None for somebody who has proved nothing."""

    async def __call__(self, scope: Scope) -> Principal | None: ...


class ByToken:
    """Believes a bearer token, and with ``compat_http`` any AWS signature on the AWS-shaped routes."""

    def __init__(self, bearer: Bearer, *, compat_http: bool) -> None:
        self._bearer = bearer
        self._compat_http = compat_http

    async def __call__(self, scope: Scope) -> Principal | None:
        """Return who sends this request."""
        scheme, _, credentials = (header(scope, b"authorization") or "").partition(" ")
        if self._compat_http and scheme == "AWS4-HMAC-SHA256" and scope["route_handler"].opt["operation"].aws:
            return COMPAT
        # Always asked, also with nothing in hand: every refusal costs the same.
        return await self._bearer.principal(credentials if scheme.lower() == "bearer" else "")


class Guard:
    """Stands before every handler. What it lets through has its principal in ``scope["user"]``."""

    def __init__(self, identify: Identify) -> None:
        self._identify = identify

    async def __call__(self, request: HttpRequest) -> None:
        """Let the request pass, or raise."""
        scope = request.scope
        action = scope["route_handler"].opt.get("action")
        if action is Action.OPEN:
            return
        if action is None:
            raise ApiError(METHOD_NOT_ALLOWED, "no handler answers this method here")
        principal = await self._identify(scope)
        if principal is None:
            raise ApiError(UNAUTHORIZED, fields=CHALLENGE)
        scope["user"] = principal
        # Before anything is looked up: who may do this to no target learns nothing about any.
        if not may_at_all(principal.role, action):
            raise ApiError(FORBIDDEN)


def refuse_unguarded(app: Litestar) -> None:
    """Raise unless every route names an action that has a row, and has the guard before it."""
    for handler in _handlers(app):
        if handler.http_methods == {"OPTIONS"}:
            continue  # made by the framework; without an action, so the guard refuses it
        action = handler.opt.get("action")
        if not isinstance(action, Action):
            raise UnguardedRouteError(
                f"{handler.name or handler}: declare its action in api.operations.Operation"
            )
        if action is not Action.OPEN and action not in GRANTS:
            raise UnguardedRouteError(f"{handler.name or handler}: give {action} a row in policy.GRANTS")
        if any(layer.before_request for layer in handler.ownership_layers[1:]):
            raise UnguardedRouteError(f"{handler.name or handler}: another hook stands in the guard's place")


def _handlers(app: Litestar) -> Iterable[HTTPRouteHandler]:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", None) or [getattr(route, "route_handler", None)]:
            if not isinstance(handler, HTTPRouteHandler):
                raise UnguardedRouteError(f"{route.path}: only HTTP handlers can be guarded")
            yield handler
