"""Puts the API together: routes, guard, refusals, the layer around them. No rule lives here."""

from collections.abc import Callable
from typing import Any, Final

import structlog
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException

from api.accounts import AccountRoutes
from api.audit import Audit
from api.aws_shadows import AwsShadows
from api.campaigns import Campaigns
from api.compat import CompatThings
from api.desk import Desk
from api.device_models import DeviceModels
from api.devices import Devices
from api.docs import Docs
from api.edge import Counts, Edge
from api.enrolments import Enrolments
from api.firmware import Firmware
from api.firmware_reports import FirmwareReports
from api.gate import OutOfReachError
from api.gateways import Gateways
from api.guards import ByToken, Guard, refuse_unguarded
from api.images import Images
from api.live import LiveShadows
from api.logins import Logins
from api.me import Me
from api.meters import Meters
from api.moves import MoveRoutes
from api.operations import Route
from api.outbox import OutboxRoutes
from api.people import People
from api.premises import PremisesRoutes
from api.problems import (
    FORBIDDEN,
    INSUFFICIENT_AUTHENTICATION,
    INTERNAL,
    aws_reply,
    describe,
    is_aws,
    problem_reply,
)
from api.programs import ProgramRoutes
from api.reading import HttpRequest, request_id, via_of
from api.releases import Releases
from api.replies import Reply
from api.service_levels import ServiceLevelRoutes
from api.services import ApiServices
from api.sessions import Sessions
from api.shadow_changes import ShadowChanges
from api.shadows import Shadows
from api.signing_keys import KeyListRoute, SigningKeys
from api.status import Status
from api.streams import Places
from api.things import Things
from api.verifications import VerificationRoutes
from api.vouchers import VoucherRoutes
from api.work_orders import WorkOrderRoutes
from infra.documents.port import StoreBrokenError

_log: Final = structlog.get_logger(__name__)


def create_app(services: ApiServices, on_broken: Callable[[StoreBrokenError], None]) -> Litestar:
    """Return the application; ``on_broken`` is told when the store must not be used any more.

    Raises:
        UnguardedRouteError: a route does not name its action.
    """
    routes = all_routes(services)
    refusals = Refusals(services, on_broken)
    identify = ByToken(services.bearer, compat_http=services.settings.api.compat_http)
    app = Litestar(
        [route.handler() for route in routes],
        before_request=Guard(services, identify),
        exception_handlers={HTTPException: refusals, Exception: refusals},
        openapi_config=None,  # we make the document ourselves, so that it says all that is true
        logging_config=None,
    )
    refuse_unguarded(app)
    counts = Counts()
    services.metrics.registry.register(counts)
    # The layer must also see what no route matches, and Litestar's own middleware does not.
    app.asgi_handler = Edge(app.asgi_handler, services, counts)
    return app


def all_routes(services: ApiServices) -> tuple[Route, ...]:
    """Return every route there is, that of the API page last."""
    desk, places = Desk(services), Places(services.limits.streams_max)
    before = (
        *Shadows(services, desk).routes(),
        *ShadowChanges(services, desk).routes(),
        *LiveShadows(services, places).routes(),
        *Things(services).routes(),
        *Gateways(services).routes(),
        *PremisesRoutes(services).routes(),
        *Devices(services).routes(),
        *ProgramRoutes(services).routes(),
        *Enrolments(services).routes(),
        *DeviceModels(services).routes(),
        *Meters(services).routes(),
        *AccountRoutes(services).routes(),
        *Logins(services).routes(),
    )
    after = (
        *People(services).routes(),
        *VoucherRoutes(services).routes(),
        *VerificationRoutes(services).routes(),
        *WorkOrderRoutes(services).routes(),
        *Sessions(services, places).routes(),
        *MoveRoutes(services).routes(),
        *Firmware(services).routes(),
        *Images(services).routes(),
        *Releases(services).routes(),
        *FirmwareReports(services).routes(),
        *SigningKeys(services).routes(),
        *KeyListRoute(services).routes(),
        *OutboxRoutes(services).routes(),
        *Campaigns(services, places).routes(),
        *ServiceLevelRoutes(services).routes(),
        *Audit(services).routes(),
        *Status(services).routes(),
        *AwsShadows(services, desk).routes(),
        *(CompatThings(services).routes() if services.settings.api.compat_http else ()),
    )
    confirmed = frozenset(route.operation.action for route in (*before, *after) if route.operation.confirmed)
    routes = (*before, *Me(services, confirmed).routes(), *after)
    return (*routes, *Docs(routes, services.version).routes())


class Refusals:
    """Turns whatever was raised into an answer; the one place that does."""

    def __init__(self, services: ApiServices, on_broken: Callable[[StoreBrokenError], None]) -> None:
        self._audit = services.refusals
        self._on_broken = on_broken

    def __call__(self, request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        """Return the answer for an error."""
        problem = describe(error)
        id = request_id(request.scope)
        if problem.kind is INTERNAL:
            _log.error(
                "request_failed", request_id=id, route=request.scope.get("path_template"), exc_info=error
            )
        elif isinstance(error, StoreBrokenError):
            self._on_broken(error)
        elif problem.kind in (FORBIDDEN, INSUFFICIENT_AUTHENTICATION):
            self._note(request, problem.detail or problem.message)
        elif isinstance(error, OutOfReachError):
            self._note(request, "not there, or not theirs")
        reply = aws_reply(problem) if is_aws(request.scope) else problem_reply(problem, id)
        return Finished(reply)

    def _note(self, request: HttpRequest, reason: str) -> None:
        """Count a refusal in the audit log; it is folded there, so nobody can flood it."""
        scope = request.scope
        action = scope["route_handler"].opt["operation"].action
        self._audit.note(scope["user"], via_of(scope), action, _target(scope["path_params"]), reason)


class Finished(Response[None]):
    """A :class:`Reply` where Litestar insists on its own class."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(None)
        self._reply = reply

    def to_asgi_response(self, *_: Any, **__: Any) -> Reply:  # noqa: ANN401 - Litestar's business
        return self._reply


def _target(parts: dict[str, Any]) -> str:
    return "/".join(str(part) for part in parts.values())
