"""Who may call what: one guard before every handler, one table of actions, and the default is no.

The guard proves who asks (a bearer token) and that their role may do this *sort* of thing. Whether they
may do it to this shadow is the domain's table (``security.policy``), asked where the shadow is.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.types import Scope

from api.problems import FORBIDDEN, METHOD_NOT_ALLOWED, UNAUTHORIZED, ApiError
from api.reading import HttpRequest, header
from security.policy import Principal, Role, stand_in
from security.tokens import OperatorToken

CHALLENGE: Final = ((b"www-authenticate", b'Bearer realm="gnomon"'),)


class Action(StrEnum):
    """What a route does, in the words of the permission table."""

    OPEN = "open"
    THING_READ = "thing.read"
    THING_REGISTER = "thing.register"
    THING_REMOVE = "thing.remove"
    CERTIFICATE_REVOKE = "certificate.revoke"
    ATTACHMENT_WRITE = "attachment.write"
    SHADOW_READ = "shadow.read"
    SHADOW_HISTORY = "shadow.history"
    SHADOW_WRITE = "shadow.write"
    SHADOW_DELETE = "shadow.delete"
    FLEET_READ = "fleet.read"
    AUDIT_READ = "audit.read"


STAFF: Final = frozenset({Role.OPERATOR, Role.SYSTEM})

ALLOWED: Final[Mapping[Action, frozenset[Role]]] = {
    Action.THING_READ: STAFF,
    Action.THING_REGISTER: STAFF,
    Action.THING_REMOVE: STAFF,
    Action.CERTIFICATE_REVOKE: STAFF,
    Action.ATTACHMENT_WRITE: STAFF,
    Action.SHADOW_READ: STAFF,
    Action.SHADOW_HISTORY: STAFF,
    Action.SHADOW_WRITE: STAFF,
    Action.SHADOW_DELETE: STAFF,
    Action.FLEET_READ: STAFF,
    Action.AUDIT_READ: STAFF,
}
"""An action without a row is nobody's. :data:`Action.OPEN` has none: it never reaches the table."""

COMPAT: Final = Principal("compat", Role.OPERATOR)
"""Who an unchecked AWS signature stands for; only with ``compat_http``, which is never on off loopback."""


class UnguardedRouteError(RuntimeError):
    """A route that does not say what it does would be a hole; the process does not start with one."""


class Guard:
    """Stands before every handler. What it lets through has its principal in ``scope["user"]``."""

    def __init__(self, tokens: OperatorToken, *, compat_http: bool) -> None:
        self._tokens = tokens
        self._compat_http = compat_http

    async def __call__(self, request: HttpRequest) -> None:
        """Let the request pass, or raise."""
        scope = request.scope
        options = scope["route_handler"].opt
        action = options.get("action")
        if action is Action.OPEN:
            return
        if action is None:
            raise ApiError(METHOD_NOT_ALLOWED, "no handler answers this method here")
        principal = self._principal(scope)
        if principal is None:
            raise ApiError(UNAUTHORIZED, fields=CHALLENGE)
        scope["user"] = stand_in(principal) if options["operation"].aws else principal
        if principal.role not in ALLOWED.get(action, ()):
            raise ApiError(FORBIDDEN)

    def _principal(self, scope: Scope) -> Principal | None:
        scheme, _, credentials = (header(scope, b"authorization") or "").partition(" ")
        if self._compat_http and scheme == "AWS4-HMAC-SHA256" and scope["route_handler"].opt["operation"].aws:
            return COMPAT
        # Always asked, also with nothing in hand: every refusal costs the same.
        return self._tokens.principal(credentials if scheme.lower() == "bearer" else "")


def refuse_unguarded(app: Litestar) -> None:
    """Raise unless every route names its action and has the guard before it."""
    for handler in _handlers(app):
        if handler.http_methods == {"OPTIONS"}:
            continue  # made by the framework; without an action, so the guard refuses it
        if not isinstance(handler.opt.get("action"), Action):
            raise UnguardedRouteError(
                f"{handler.name or handler}: declare its action in api.operations.Operation"
            )
        if any(layer.before_request for layer in handler.ownership_layers[1:]):
            raise UnguardedRouteError(f"{handler.name or handler}: another hook stands in the guard's place")


def _handlers(app: Litestar) -> Iterable[HTTPRouteHandler]:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", None) or [getattr(route, "route_handler", None)]:
            if not isinstance(handler, HTTPRouteHandler):
                raise UnguardedRouteError(f"{route.path}: only HTTP handlers can be guarded")
            yield handler
