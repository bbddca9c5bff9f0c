"""The API of devices: to join, to prove a PIN, and their shadows; they are known by their certificate alone.

A person's token is worth nothing here, and a certificate is worth nothing on the people's listener.
"""

from collections.abc import Callable
from typing import Final

from litestar import Litestar
from litestar.exceptions import HTTPException
from litestar.types import Scope

from api.app import Refusals
from api.aws_shadows import AwsShadows
from api.desk import Desk
from api.edge import Counts, Edge
from api.est import Est
from api.guards import Guard, refuse_unguarded
from api.images import DeviceImages
from api.operations import Route
from api.pins import PinRoutes
from api.problems import ENROLMENT_CHALLENGE
from api.services import ApiServices
from api.signing_keys import KeyListRoute
from infra.documents.port import StoreBrokenError
from registry.models import ThingKind
from security.policy import Principal, Role

PEER: Final = "peer"
"""Where the state of a request holds the serial number of the peer's certificate, None without one."""


class ByCertificate:
    """Believes a certificate of ours while it is good and its thing counts; asked for every request."""

    def __init__(self, services: ApiServices) -> None:
        self._issued = services.trust.issued
        self._registry = services.registry
        self._clock = services.clock

    async def __call__(self, scope: Scope) -> Principal | None:
        """Return who sends this request."""
        serial = scope["state"][PEER]
        record = None if serial is None else await self._issued.by_serial(serial)
        if record is None or not record.is_good(self._clock.now_ms()):
            return None
        standing = (await self._registry.standings([record.thing])).get(record.thing)
        if standing is None or standing.thing.barred or not standing.thing.has_certificate:
            return None
        if record.registration != standing.thing.registration:
            return None
        is_gateway = standing.thing.kind is ThingKind.GATEWAY
        return Principal(record.thing, Role.GATEWAY if is_gateway else Role.DEVICE)


def create_device_app(services: ApiServices, on_broken: Callable[[StoreBrokenError], None]) -> Litestar:
    """Return the application; ``on_broken`` is told when the store must not be used any more."""
    refusals = Refusals(services, on_broken)
    identify = ByCertificate(services)
    app = Litestar(
        [route.handler() for route in device_routes(services, identify)],
        before_request=Guard(services, identify, (ENROLMENT_CHALLENGE,)),
        exception_handlers={HTTPException: refusals, Exception: refusals},
        openapi_config=None,
        logging_config=None,
    )
    refuse_unguarded(app)
    counts = Counts("device_http")
    services.metrics.registry.register(counts)
    app.asgi_handler = Edge(app.asgi_handler, services, counts)
    return app


def device_routes(services: ApiServices, identify: ByCertificate) -> tuple[Route, ...]:
    """Return every route there is on this listener."""
    return (
        *Est(services, identify).routes(),
        *PinRoutes(services).routes(),
        *DeviceImages(services).routes(),
        *KeyListRoute(services).routes(),
        *AwsShadows(services, Desk(services)).routes(),
    )
