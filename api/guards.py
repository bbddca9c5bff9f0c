"""Who may call what: one guard before every handler, asking the one table, and the default is no.

The guard proves who asks and that they may do this to what the path names. Whether they may do it to this
shadow is the table of shadows (``security.policy``), asked where the shadow is.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Final, Protocol

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.types import Scope

from api.gate import DEVICE, INSIDE, PREMISES, THINGS, Gate
from api.limits import PATH_PART_CHARS_MAX
from api.problems import (
    CHALLENGE,
    FORBIDDEN,
    INSUFFICIENT_AUTHENTICATION,
    METHOD_NOT_ALLOWED,
    UNAUTHORIZED,
    ApiError,
)
from api.reading import BODY, HttpRequest, header, invalid, read_body
from api.replies import Field
from api.services import ApiServices, Bearer
from infra.documents.port import StoreError
from security.policy import (
    GRANTS,
    Action,
    Principal,
    Role,
    may_at_all,
    needs_second_person,
    needs_step_up,
    speaker,
)

STEP_UP_FIELD: Final = b"gnomon-step-up"
STEP_UP_LIFE_S: Final = 120
STEP_UP_CHALLENGE: Final = (
    (
        b"www-authenticate",
        b'Bearer realm="gnomon", error="insufficient_user_authentication", acr_values="step-up", max_age="%d"'
        % STEP_UP_LIFE_S,
    ),
)
"""As RFC 9470 has it."""
STILL_MAY: Final = "still_may"
"""Where a stream finds what to ask while it is open."""
CHECKED: Final = frozenset({*THINGS, DEVICE, PREMISES, *INSIDE})
"""Parts of a path that the guard looks at itself."""
BY_REACH: Final = frozenset({Role.REP, Role.INSTALLER})
"""Whose rights come and go with a verification or a work order; looked up for each request."""
_PART: Final = re.compile(r"{(\w+):")

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
    """Stands before every handler. What it lets through has its principal in ``scope["user"]``.

    In this order: who is it; may this role do such a thing at all; may they do it to what the path names;
    have they confirmed it by a fresh second factor, where that is needed.
    """

    def __init__(
        self, services: ApiServices, identify: Identify, challenge: tuple[Field, ...] = CHALLENGE
    ) -> None:
        self._identify = identify
        self._challenge = challenge
        self._gate = Gate(services.registry, services.devices)
        self._reach_of = services.provisioning.reach_of
        self._step_ups = services.step_ups
        self._body_bytes_max = max(services.limits.body_bytes_max, services.settings.limits.request_bytes_max)
        self._body_timeout_s = services.limits.body_timeout_s

    async def __call__(self, request: HttpRequest) -> None:
        """Let the request pass, or raise."""
        scope = request.scope
        action = scope["route_handler"].opt.get("action")
        if action is Action.OPEN:
            return
        if action is None:
            raise ApiError(METHOD_NOT_ALLOWED, "no handler answers this method here")
        await self._admit(scope, action)
        if needs_step_up(scope["user"].role, action):
            await self._require_step_up(request, action)
        if scope["route_handler"].opt["operation"].stream:
            scope["state"][STILL_MAY] = partial(self._still_may, scope, action)

    async def _admit(self, scope: Scope, action: Action) -> None:
        principal = await self._identify(scope)
        if principal is None:
            raise ApiError(UNAUTHORIZED, fields=self._challenge)
        thing = scope["path_params"].get("thing")
        scope["user"] = principal = principal if thing is None else speaker(principal, thing)
        # Before anything is looked up: who may do this to no target learns nothing about any.
        if not may_at_all(principal.role, action):
            raise ApiError(FORBIDDEN)
        _refuse_impossible(scope["path_params"])
        if principal.role in BY_REACH:
            reach = principal.reach | await self._reach_of(principal)
            scope["user"] = replace(principal, reach=reach)
        if not scope["route_handler"].opt["operation"].own_check:
            await self._gate.admit(scope)

    async def _require_step_up(self, request: HttpRequest, action: Action) -> None:
        """Raise unless exactly this request was confirmed: its method, path, query and body."""
        scope = request.scope
        token = header(scope, STEP_UP_FIELD)
        if token is None:
            raise _needs_step_up(action)
        body = await read_body(request, self._body_bytes_max, self._body_timeout_s)
        scope["state"][BODY] = body
        digest = sha256(body).hexdigest()
        if not await self._step_ups.take(scope["user"], action, target_of(request), digest, token):
            raise _needs_step_up(action)

    async def _still_may(self, scope: Scope, action: Action) -> bool:
        before: Principal = scope["user"]
        try:
            await self._admit(scope, action)
        except (ApiError, StoreError):
            return False
        now: Principal = scope["user"]
        return (now.name, now.role) == (before.name, before.role)


def _refuse_impossible(parts: Mapping[str, object]) -> None:
    """Raise if a part of the path can be no name of anything: no store would even look for it."""
    for name, part in parts.items():
        if isinstance(part, str) and name not in THINGS and not _is_name(part):
            raise invalid(f"no {name} is named like that")


def _is_name(text: str) -> bool:
    return len(text) <= PATH_PART_CHARS_MAX and text.isprintable()


def target_of(request: HttpRequest) -> str:
    """Return what a step-up token is bound to beside action and body: the request line, as it was sent."""
    query: bytes = request.scope["query_string"]
    path: bytes = request.scope["raw_path"]
    return f"{request.method} {(path + b'?' + query if query else path).decode('latin-1')}"


def _needs_step_up(action: Action) -> ApiError:
    said = f"a fresh second factor is needed for exactly this: confirm {action} at POST /v1/step-up"
    return ApiError(INSUFFICIENT_AUTHENTICATION, said, fields=STEP_UP_CHALLENGE)


def refuse_unguarded(app: Litestar) -> None:
    """Raise unless every route names an action that has a row, and has the guard before it.

    A route whose action takes two persons also says whether it waits for the second, or only stops something.
    """
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
        if _starts(action) and handler.opt["operation"].held is handler.opt["operation"].stops:
            raise UnguardedRouteError(
                f"{handler.name or handler}: {action} takes two persons: say held, or stops"
            )
        parts = {part for path in handler.paths for part in _PART.findall(path)}
        if (unknown := parts - CHECKED) and not handler.opt["operation"].own_check:
            raise UnguardedRouteError(
                f"{handler.name or handler}: nothing checks {sorted(unknown)}: ask the gate in the handler"
            )
        if any(layer.before_request for layer in handler.ownership_layers[1:]):
            raise UnguardedRouteError(f"{handler.name or handler}: another hook stands in the guard's place")


def _starts(action: Action) -> bool:
    return any(needs_second_person(role, action) for role in Role)


def _handlers(app: Litestar) -> Iterable[HTTPRouteHandler]:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", None) or [getattr(route, "route_handler", None)]:
            if not isinstance(handler, HTTPRouteHandler):
                raise UnguardedRouteError(f"{route.path}: only HTTP handlers can be guarded")
            yield handler
