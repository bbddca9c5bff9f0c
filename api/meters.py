"""Meters: which stands where, and when the metering network heard of it last."""

from typing import Final

from api import problems
from api.gate import Gate
from api.han_schemas import MeterBody, MeterDocument, MeterList
from api.logins import json_body, read
from api.operations import NAME, WITH_BODY, Answer, Content, Operation, Route, in_path, in_query
from api.reading import HttpRequest, a_name, invalid, query, via_of
from api.replies import Reply, json_reply
from api.services import ApiServices
from registry.errors import MeterNotFoundError
from security.policy import Action

METER: Final = "meter"
NOWHERE: Final = "-"
"""Asked for in the place of a meter's premises when there is no such meter: the work is the same."""


class Meters:
    """Handlers of ``/v1/meters``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._meters = services.meters
        self._registry = services.registry
        self._gate = Gate(services.registry, services.devices)

    def routes(self) -> tuple[Route, ...]:
        one = "/v1/meters/{meter:str}"
        return (
            Route("GET", "/v1/meters", LIST_METERS, self.list),
            Route("GET", one, GET_METER, self.read),
            Route("PUT", one, PUT_METER, self.put),
        )

    async def list(self, request: HttpRequest) -> Reply:
        premises = a_name(query(request.scope, ("premises",)), "premises")
        if premises is None:
            raise invalid("say where: premises=…")
        found = await self._meters.at(premises)
        if not await self._gate.sees_meters(request.scope["user"], premises):
            found = ()
        return json_reply(MeterList([MeterDocument.of(one) for one in found]))

    async def read(self, request: HttpRequest) -> Reply:
        """Answer with a meter; one at premises of others is not there."""
        query(request.scope, ())
        id: str = request.scope["path_params"][METER]
        try:
            meter = await self._meters.meter(id)
        except MeterNotFoundError:
            meter = None
        premises = NOWHERE if meter is None else meter.premises
        if not await self._gate.sees_meters(request.scope["user"], premises) or meter is None:
            raise MeterNotFoundError(id)
        return json_reply(MeterDocument.of(meter))

    async def put(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, MeterBody)
        await self._registry.premises(body.premises)
        meter = body.meter(request.scope["path_params"][METER])
        kept = await self._meters.put(meter, request.scope["user"], via_of(request.scope))
        return json_reply(MeterDocument.of(kept))


TAG: Final = "Meters"
_BODY: Final = {
    "model": "norland-t1",
    "premises": "home-7",
    "fw": "2.1.0",
    "installed_at": "2026-09-01T08:00:00.000Z",
    "technologies": ["zigbee-se1"],
    "comms_seen_at": "2026-09-21T12:00:00.000Z",
    "gateway": "home-7-gateway",
}
_EXAMPLE: Final = {"id": "meter-7"} | _BODY
_METER: Final = in_path(METER, "Id of a meter", NAME, "meter-7")
_CONTENT: Final = Content("application/json", MeterDocument, _EXAMPLE)

LIST_METERS: Final = Operation(
    id="listMeters",
    tag=TAG,
    summary="List the meters that stand at premises",
    action=Action.METER_READ,
    parameters=(in_query("premises", "Where", NAME, "home-7"),),
    answers={200: Answer("All of them", Content("application/json", MeterList, {"items": [_EXAMPLE]}))},
)
GET_METER: Final = Operation(
    id="getMeter",
    tag=TAG,
    summary="Read a meter, also one that was taken out",
    action=Action.METER_READ,
    parameters=(_METER,),
    answers={200: Answer("The meter", _CONTENT)},
    refusals=(problems.METER_NOT_FOUND,),
    own_check=True,
)
PUT_METER: Final = Operation(
    id="putMeter",
    tag=TAG,
    summary="Say what is known of a meter",
    description="Without `installed_at` it is known, and does not hang on the wall yet. Which one came in"
    " place of which is said by an exchange, and stays.",
    action=Action.METER_WRITE,
    parameters=(_METER,),
    bodies=json_body(MeterBody, _BODY),
    answers={200: Answer("The meter", _CONTENT)},
    refusals=(*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE, problems.PREMISES_NOT_FOUND),
    own_check=True,
)
