"""Things: the devices and gateways that the registry knows."""

from typing import Final

from api import problems
from api.desk import path_thing
from api.gate import Gate
from api.operations import (
    CURSOR,
    IDEMPOTENCY_KEY,
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
from api.reading import (
    HttpRequest,
    a_name,
    decode,
    idempotency_key,
    one_of,
    page_limit,
    query,
    read_body,
    require_json,
    via_of,
)
from api.removal import remove_thing
from api.replies import Reply, json_reply, no_content
from api.schemas import (
    AttachmentDocument,
    AttachmentList,
    NewCustomerThingBody,
    NewThingBody,
    ThingDocument,
    ThingList,
)
from api.services import ApiServices
from registry.errors import ThingExistsError
from registry.models import NewThing, Owner, Thing, ThingKind
from security.policy import Action, Principal, Scope, may, scope_of


class Things:
    """Handlers of ``/v1/things``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._registry = services.registry
        self._gate = Gate(services.registry, services.devices)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/v1/things", LIST_THINGS, self.list),
            Route("POST", "/v1/things", REGISTER_THING, self.register),
            Route("GET", "/v1/things/{thing:str}", GET_THING, self.read),
            Route("DELETE", "/v1/things/{thing:str}", REMOVE_THING, self.remove),
            Route("POST", "/v1/things/{thing:str}/revoke", REVOKE_THING, self.revoke),
            Route("POST", "/v1/things/{thing:str}/suspend", SUSPEND_THING, self.suspend),
            Route("POST", "/v1/things/{thing:str}/resume", RESUME_THING, self.resume),
            Route("GET", "/v1/things/{thing:str}/gateways", LIST_GATEWAYS, self.gateways),
        )

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("premises", "kind", "limit", "cursor"))
        kind = one_of(fields, "kind", ThingKind)
        page = await self._registry.listing.page(
            request.scope["user"],
            premises=a_name(fields, "premises"),
            kind=None if kind is None else ThingKind(kind),
            limit=page_limit(fields),
            cursor=fields.get("cursor"),
        )
        return json_reply(ThingList([ThingDocument.of(thing) for thing in page.things], page.next))

    async def register(self, request: HttpRequest) -> Reply:
        require_json(request.scope)
        key = idempotency_key(request.scope)
        limits = self._services.limits
        by: Principal = request.scope["user"]
        chooses = scope_of(by.role, Action.THING_REGISTER) is Scope.ANY
        sent = await read_body(request, limits.body_bytes_max, limits.body_timeout_s)
        body = decode(sent, NewThingBody if chooses else NewCustomerThingBody)
        await self._gate.require_premises(by, Action.THING_REGISTER, body.premises)
        # Who may register anywhere still does so where there is something: a mistyped id makes no place.
        await self._registry.premises(body.premises)
        new = NewThing(
            body.name,
            body.kind,
            body.model,
            body.premises,
            body.has_certificate,
            body.owner if isinstance(body, NewThingBody) else Owner.CUSTOMER,
        )
        try:
            thing = await self._registry.register(new, by, via_of(request.scope, sent))
        except ThingExistsError:
            # The name is the identity, so a repeat shows by the thing being there just so.
            thing = await self._registry.thing(new.name)
            if key is None or not _is(thing, new):
                raise
        location = (b"location", f"/v1/things/{thing.name}".encode())
        return json_reply(ThingDocument.of(thing), status=201, fields=(location,))

    async def read(self, request: HttpRequest) -> Reply:
        return json_reply(ThingDocument.of(await self._registry.thing(path_thing(request.scope))))

    async def remove(self, request: HttpRequest) -> Reply:
        name = path_thing(request.scope)
        await remove_thing(self._services, name, request.scope["user"], via_of(request.scope))
        return no_content()

    async def revoke(self, request: HttpRequest) -> Reply:
        name = path_thing(request.scope)
        await self._registry.thing(name)
        await self._services.revoke(name, request.scope["user"], via_of(request.scope), "")
        return _shown(request, await self._registry.thing(name))

    async def suspend(self, request: HttpRequest) -> Reply:
        name = path_thing(request.scope)
        thing = await self._registry.suspend(name, request.scope["user"], via_of(request.scope))
        return _shown(request, thing)

    async def resume(self, request: HttpRequest) -> Reply:
        name = path_thing(request.scope)
        thing = await self._registry.resume(name, request.scope["user"], via_of(request.scope))
        return _shown(request, thing)

    async def gateways(self, request: HttpRequest) -> Reply:
        name = path_thing(request.scope)
        attachments = await self._registry.gateways_of(name)
        by: Principal = request.scope["user"]
        shown = await self._gate.open_to(by, Action.THING_READ, {one.gateway for one in attachments})
        return json_reply(
            AttachmentList([AttachmentDocument.of(one) for one in attachments if one.gateway in shown])
        )


def _shown(request: HttpRequest, thing: Thing) -> Reply:
    """Return the thing to who may read it; others are told that it is done, and nothing of it."""
    scope = request.scope
    if may(scope["user"], Action.THING_READ, scope["state"]["target"]):
        return json_reply(ThingDocument.of(thing))
    return no_content()


def _is(thing: Thing, new: NewThing) -> bool:
    found = NewThing(thing.name, thing.kind, thing.model, thing.premises, thing.has_certificate, thing.owner)
    return found == new and not thing.barred


TAG: Final = "Things"
_EXAMPLE: Final = {
    "name": "hall-thermostat",
    "kind": "device",
    "model": "acme-pct-2",
    "premises": "home-7",
    "has_certificate": True,
    "owner": "customer",
    "registered_at": "2026-09-21T12:00:00.000Z",
}
_NEW: Final = {"name": "hall-thermostat", "kind": "device", "model": "acme-pct-2", "premises": "home-7"}
_ATTACHMENT: Final = {
    "gateway": "home-7-gateway",
    "thing": "hall-thermostat",
    "epoch": 1,
    "since": "2026-09-21T12:00:00.000Z",
}
_THING: Final = Content("application/json", ThingDocument, _EXAMPLE)
_CHANGED: Final = {200: Answer("The thing", _THING), 204: Answer("Done; the thing is not yours to read")}

LIST_THINGS: Final = Operation(
    id="listThings",
    tag=TAG,
    summary="List things",
    description="Those you may read, and no word of others. A page may hold fewer than `limit` and still have"
    " a `next`.",
    action=Action.THING_READ,
    parameters=(
        in_query("premises", "Only those at these premises", NAME, "home-7"),
        in_query("kind", "Only those of this kind", {"enum": [str(kind) for kind in ThingKind]}, "device"),
        LIMIT,
        CURSOR,
    ),
    answers={200: Answer("A page of things", Content("application/json", ThingList, {"items": [_EXAMPLE]}))},
    refusals=(problems.INVALID_CURSOR,),
)
REGISTER_THING: Final = Operation(
    id="registerThing",
    tag=TAG,
    summary="Register a thing",
    description="At premises of their own for people; whoever may register anywhere says whose it is. The"
    " premises must be known: the customer care system puts them there."
    " With an Idempotency-Key a repeat that finds the thing there just so is answered alike.",
    action=Action.THING_REGISTER,
    parameters=(IDEMPOTENCY_KEY,),
    bodies=(Content("application/json", NewThingBody, _NEW),),
    answers={201: Answer("The thing", _THING, ("Location",))},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.PREMISES_NOT_FOUND,
        problems.THING_EXISTS,
        problems.PREMISES_FULL,
    ),
)
GET_THING: Final = Operation(
    id="getThing",
    tag=TAG,
    summary="Read a thing",
    action=Action.THING_READ,
    parameters=(THING,),
    answers={200: Answer("The thing", _THING)},
    refusals=(problems.THING_NOT_FOUND,),
)
REMOVE_THING: Final = Operation(
    id="removeThing",
    tag=TAG,
    summary="Remove a thing, its attachments, and its shadows with their history",
    action=Action.THING_REMOVE,
    parameters=(THING,),
    answers={204: Answer("It is gone")},
    refusals=(problems.THING_NOT_FOUND,),
)
REVOKE_THING: Final = Operation(
    id="revokeThing",
    tag=TAG,
    summary="Revoke a thing and all its certificates",
    description="From now on nothing is taken from it; its session is ended, and its certificates let nobody"
    " in any more, also once the name has another owner. There is no way back but to remove it and to"
    " register it anew. Again is no error.",
    action=Action.CERTIFICATE_REVOKE,
    parameters=(THING,),
    answers=_CHANGED,
    refusals=(problems.THING_NOT_FOUND,),
)
SUSPEND_THING: Final = Operation(
    id="suspendThing",
    tag=TAG,
    summary="Take nothing from a thing and tell it nothing, for the time being",
    description="Its session is ended, and ended again when it comes back. Again is no error.",
    action=Action.THING_SUSPEND,
    parameters=(THING,),
    answers=_CHANGED,
    refusals=(problems.THING_NOT_FOUND,),
)
RESUME_THING: Final = Operation(
    id="resumeThing",
    tag=TAG,
    summary="Let a suspended thing go on",
    description="A customer lets go on what a customer suspended; a quarantine is lifted by the utility."
    " What is revoked stays revoked. Again is no error.",
    action=Action.THING_RESUME,
    parameters=(THING,),
    answers=_CHANGED,
    refusals=(problems.THING_NOT_FOUND,),
)
LIST_GATEWAYS: Final = Operation(
    id="listGatewaysOfThing",
    tag=TAG,
    summary="List the gateways that may speak for a thing",
    action=Action.THING_READ,
    parameters=(THING,),
    answers={
        200: Answer("All of them", Content("application/json", AttachmentList, {"items": [_ATTACHMENT]}))
    },
    refusals=(problems.THING_NOT_FOUND,),
)
