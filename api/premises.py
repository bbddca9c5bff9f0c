"""Premises: places where things are, and whose they are. The customer care system says so."""

from typing import Final

from api import problems
from api.gate import PREMISES
from api.logins import json_body, read
from api.operations import NAME, WITH_BODY, Answer, Content, Operation, Route, in_path
from api.reading import HttpRequest, decode, query, read_body, require_json, via_of
from api.replies import Reply, json_reply
from api.schemas import (
    OwnedPremisesDocument,
    PremisesBody,
    PremisesDescriptionBody,
    PremisesDocument,
    PremisesList,
)
from api.services import ApiServices
from registry.models import Location, Premises
from security.policy import Action, Principal, Scope, scope_of

MINE_MAX: Final = 100
"""Premises of one account that are listed; further ones are read by their ids."""


class PremisesRoutes:
    """Handlers of ``/v1/premises/{premises}`` and ``/v1/me/premises``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._registry = services.registry

    def routes(self) -> tuple[Route, ...]:
        path = "/v1/premises/{premises:str}"
        return (
            Route("GET", path, GET_PREMISES, self.read),
            Route("PUT", path, PUT_PREMISES, self.put),
            Route("PUT", f"{path}/description", DESCRIBE_PREMISES, self.describe),
            Route("GET", "/v1/me/premises", LIST_MY_PREMISES, self.mine),
        )

    async def read(self, request: HttpRequest) -> Reply:
        premises = await self._registry.premises(request.scope["path_params"][PREMISES])
        return json_reply(_shown(premises, request.scope["user"]))

    async def put(self, request: HttpRequest) -> Reply:
        """Say whose premises are; what changes hands begins anew for who has it then."""
        scope, limits = request.scope, self._services.limits
        require_json(scope)
        sent = await read_body(request, limits.body_bytes_max, limits.body_timeout_s)
        body = decode(sent, PremisesBody)
        by: Principal = scope["user"]
        id: str = scope["path_params"][PREMISES]
        premises = await self._registry.hand_over(id, body.account or "", by, via_of(scope, sent))
        return json_reply(_shown(premises, by))

    async def describe(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, PremisesDescriptionBody)
        by, via = request.scope["user"], via_of(request.scope)
        id: str = request.scope["path_params"][PREMISES]
        at = Location(body.zone, body.feeder, body.service_point, body.time_zone)
        premises = await self._registry.describe_premises(id, at, by, via)
        return json_reply(_shown(premises, by))

    async def mine(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        by: Principal = request.scope["user"]
        found = await self._registry.premises_of(by.account, MINE_MAX) if by.account else ()
        return json_reply(PremisesList([OwnedPremisesDocument.of(one) for one in found]))


def _shown(premises: Premises, reader: Principal) -> PremisesDocument:
    """Return what a reader learns: field staff not whose they are."""
    if scope_of(reader.role, Action.PREMISES_READ) is Scope.ORDER:
        return PremisesDocument.of(premises)
    return OwnedPremisesDocument.of(premises)


TAG: Final = "Premises"
_EXAMPLE: Final = {"id": "home-7", "epoch": 2, "since": "2026-09-21T12:00:00.000Z", "account": "account-7"}
_CONTENT: Final = Content("application/json", OwnedPremisesDocument, _EXAMPLE)
_PLACE: Final = {"zone": "north", "feeder": "f-12", "service_point": "sp-0007", "time_zone": "Europe/Berlin"}
_PREMISES: Final = in_path(PREMISES, "Id of premises: random, no address", NAME, "home-7")

GET_PREMISES: Final = Operation(
    id="getPremises",
    tag=TAG,
    summary="Read since when premises are whose",
    description="Field staff are not told whose: for them there is no `account`.",
    action=Action.PREMISES_READ,
    parameters=(_PREMISES,),
    answers={200: Answer("The premises", _CONTENT)},
    refusals=(problems.PREMISES_NOT_FOUND,),
)
PUT_PREMISES: Final = Operation(
    id="putPremises",
    tag=TAG,
    summary="Say whose premises are",
    description="Where that changes, a new ownership begins: who had them loses sight of all that is there,"
    " and who gets them sees nothing older.",
    action=Action.PREMISES_WRITE,
    parameters=(_PREMISES,),
    bodies=(Content("application/json", PremisesBody, {"account": "account-7"}),),
    answers={200: Answer("The premises", _CONTENT)},
    refusals=(*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE, problems.PREMISES_NOT_FOUND),
)
DESCRIBE_PREMISES: Final = Operation(
    id="describePremises",
    tag=TAG,
    summary="Say where premises lie, in the utility's terms",
    description="Programs are for zones, and feeders take so many devices. Hours of the day, as of firmware"
    " campaigns, are meant in the time zone; without one, in that of the campaign. No address.",
    action=Action.PREMISES_WRITE,
    parameters=(_PREMISES,),
    bodies=json_body(PremisesDescriptionBody, _PLACE),
    answers={200: Answer("The premises", _CONTENT)},
    refusals=(*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE, problems.PREMISES_NOT_FOUND),
)
LIST_MY_PREMISES: Final = Operation(
    id="listMyPremises",
    tag="Own home",
    summary="List one's own premises",
    action=Action.HOME_READ,
    answers={200: Answer("All of them", Content("application/json", PremisesList, {"items": [_EXAMPLE]}))},
)
