"""Gateways: what is known of each, and which things it may speak for."""

from collections.abc import Sequence
from typing import Final

from api import problems
from api.desk import path_thing
from api.gate import Gate
from api.han_schemas import GatewayBody, GatewayDocument, GatewayList
from api.listing import seen_page
from api.logins import json_body, read
from api.operations import (
    CURSOR,
    GATEWAY,
    LIMIT,
    NAME,
    THING,
    WITH_BODY,
    Answer,
    Content,
    Operation,
    Route,
    in_query,
)
from api.reading import HttpRequest, a_name, invalid, page_limit, query, via_of
from api.replies import Reply, json_reply, no_content
from api.schemas import AttachmentDocument, AttachmentList
from api.services import ApiServices
from registry.models import Attachment
from security.policy import Action


class Gateways:
    """Handlers of ``/v1/gateways``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._gateways = services.gateways
        self._registry = services.registry
        self._gate = Gate(services.registry, services.devices)

    def routes(self) -> tuple[Route, ...]:
        pair = "/v1/gateways/{gateway:str}/things/{thing:str}"
        one = "/v1/gateways/{gateway:str}"
        return (
            Route("GET", "/v1/gateways", LIST_GATEWAYS_AT, self.at),
            Route("GET", one, GET_GATEWAY, self.read),
            Route("PUT", one, PUT_GATEWAY, self.put),
            Route("GET", f"{one}/things", LIST_ATTACHED, self.list),
            Route("PUT", pair, ATTACH, self.attach),
            Route("DELETE", pair, DETACH, self.detach),
        )

    async def at(self, request: HttpRequest) -> Reply:
        premises = a_name(query(request.scope, ("premises",)), "premises")
        if premises is None:
            raise invalid("say where: premises=…")
        found = await self._gateways.at(premises)
        seen = await self._gate.open_to(request.scope["user"], Action.THING_READ, [one.id for one in found])
        return json_reply(GatewayList([GatewayDocument.of(one) for one in found if one.id in seen]))

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return json_reply(
            GatewayDocument.of(await self._gateways.gateway(path_thing(request.scope, "gateway")))
        )

    async def put(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, GatewayBody)
        by, via = request.scope["user"], via_of(request.scope)
        if body.parent:
            await self._gate.require_thing(by, Action.THING_READ, body.parent)
        thing = await self._registry.thing(path_thing(request.scope, "gateway"))
        kept = await self._gateways.put(body.gateway(thing.name, thing.premises), by, via)
        return json_reply(GatewayDocument.of(kept))

    async def list(self, request: HttpRequest) -> Reply:
        gateway = path_thing(request.scope, "gateway")
        fields = query(request.scope, ("limit", "cursor"))

        async def fetch(limit: int, cursor: str | None) -> tuple[Sequence[Attachment], str | None]:
            page = await self._registry.attached_to(gateway, limit, cursor)
            return page.attachments, page.next

        async def pick(attachments: Sequence[Attachment]) -> Sequence[Attachment]:
            things = {one.thing for one in attachments}
            shown = await self._gate.open_to(request.scope["user"], Action.THING_READ, things)
            return [one for one in attachments if one.thing in shown]

        found, following = await seen_page(fetch, pick, page_limit(fields), fields.get("cursor"))
        return json_reply(AttachmentList([AttachmentDocument.of(one) for one in found], following))

    async def attach(self, request: HttpRequest) -> Reply:
        scope = request.scope
        gateway, thing = path_thing(scope, "gateway"), path_thing(scope)
        attachment = await self._registry.attach(gateway, thing, scope["user"], via_of(scope))
        return json_reply(AttachmentDocument.of(attachment))

    async def detach(self, request: HttpRequest) -> Reply:
        scope = request.scope
        gateway, thing = path_thing(scope, "gateway"), path_thing(scope)
        await self._registry.detach(gateway, thing, scope["user"], via_of(scope))
        return no_content()


TAG: Final = "Gateways"
_EXAMPLE: Final = {
    "gateway": "home-7-gateway",
    "thing": "hall-thermostat",
    "epoch": 1,
    "since": "2026-09-21T12:00:00.000Z",
}

_FACTS: Final = {
    "kind": "meter",
    "wan": "ami",
    "technologies": ["zigbee-se1"],
    "devices_max": 10,
    "load_control_max": 8,
    "installed_by": "wo-4711",
    "supplier": "norland",
}
_GATEWAY: Final = {"id": "home-7-gateway", "premises": "home-7", "rank": 10} | _FACTS
_CONTENT: Final = Content("application/json", GatewayDocument, _GATEWAY)

LIST_GATEWAYS_AT: Final = Operation(
    id="listGateways",
    tag=TAG,
    summary="List the gateways of premises that may serve now",
    description="Those you may read, the one that comes first first.",
    action=Action.THING_READ,
    parameters=(in_query("premises", "Where", NAME, "home-7"),),
    answers={200: Answer("All of them", Content("application/json", GatewayList, {"items": [_GATEWAY]}))},
)
GET_GATEWAY: Final = Operation(
    id="getGateway",
    tag=TAG,
    summary="Read what is known of a gateway",
    action=Action.THING_READ,
    parameters=(GATEWAY,),
    answers={200: Answer("The gateway", _CONTENT)},
    refusals=(problems.THING_NOT_FOUND, problems.GATEWAY_NOT_FOUND),
)
PUT_GATEWAY: Final = Operation(
    id="putGateway",
    tag=TAG,
    summary="Say what a gateway is, and how much it takes",
    description="Its thing must be registered; the gateway is at that thing's premises. So is a parent.",
    action=Action.GATEWAY_WRITE,
    parameters=(GATEWAY,),
    bodies=json_body(GatewayBody, _FACTS),
    answers={200: Answer("The gateway", _CONTENT)},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.THING_NOT_FOUND,
        problems.GATEWAY_NOT_FOUND,
        problems.NOT_A_GATEWAY,
        problems.PREMISES_MISMATCH,
    ),
)
LIST_ATTACHED: Final = Operation(
    id="listAttachedThings",
    tag=TAG,
    summary="List the things that a gateway may speak for",
    action=Action.THING_READ,
    parameters=(GATEWAY, LIMIT, CURSOR),
    answers={
        200: Answer(
            "A page of attachments", Content("application/json", AttachmentList, {"items": [_EXAMPLE]})
        )
    },
    refusals=(problems.THING_NOT_FOUND, problems.INVALID_CURSOR),
)
ATTACH: Final = Operation(
    id="attachThing",
    tag=TAG,
    summary="Let a gateway speak for a thing of the same premises",
    description="Both must be yours to attach. What is attached already stays as it is, with its epoch.",
    action=Action.ATTACHMENT_WRITE,
    parameters=(GATEWAY, THING),
    answers={200: Answer("The attachment", Content("application/json", AttachmentDocument, _EXAMPLE))},
    refusals=(
        problems.THING_NOT_FOUND,
        problems.NOT_A_GATEWAY,
        problems.PREMISES_MISMATCH,
        problems.TOO_MANY_ATTACHMENTS,
    ),
)
DETACH: Final = Operation(
    id="detachThing",
    tag=TAG,
    summary="Take a gateway's right to speak for a thing away",
    description="It holds from the next message on, also in sessions that are open. A customer does so where"
    " both are theirs; what a gateway or a device of the utility's is attached to is the utility's to end.",
    action=Action.THING_DETACH,
    parameters=(GATEWAY, THING),
    answers={204: Answer("It is detached")},
    refusals=(problems.THING_NOT_FOUND, problems.ATTACHMENT_NOT_FOUND),
)
