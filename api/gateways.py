"""Attachments: which gateway may speak for which thing."""

from typing import Final

from api import problems
from api.desk import path_thing
from api.gate import Gate
from api.operations import CURSOR, GATEWAY, LIMIT, THING, Answer, Content, Operation, Route
from api.reading import HttpRequest, page_limit, query, via_of
from api.replies import Reply, json_reply, no_content
from api.schemas import AttachmentDocument, AttachmentList
from api.services import ApiServices
from security.policy import Action


class Gateways:
    """Handlers of ``/v1/gateways/{gateway}/things``."""

    def __init__(self, services: ApiServices) -> None:
        self._registry = services.registry
        self._gate = Gate(services.registry)

    def routes(self) -> tuple[Route, ...]:
        pair = "/v1/gateways/{gateway:str}/things/{thing:str}"
        return (
            Route("GET", "/v1/gateways/{gateway:str}/things", LIST_ATTACHED, self.list),
            Route("PUT", pair, ATTACH, self.attach),
            Route("DELETE", pair, DETACH, self.detach),
        )

    async def list(self, request: HttpRequest) -> Reply:
        gateway = path_thing(request.scope, "gateway")
        fields = query(request.scope, ("limit", "cursor"))
        page = await self._registry.attached_to(gateway, page_limit(fields), fields.get("cursor"))
        things = {one.thing for one in page.attachments}
        shown = await self._gate.open_to(request.scope["user"], Action.THING_READ, things)
        items = [AttachmentDocument.of(one) for one in page.attachments if one.thing in shown]
        return json_reply(AttachmentList(items, page.next))

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
