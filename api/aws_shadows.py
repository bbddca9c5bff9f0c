"""The AWS-shaped shadow routes (spec: shadow, 9.1): what boto3's ``iot-data`` client calls.

Paths, members and error types are AWS's, to the letter; only the identity is ours.
"""

import base64
import binascii
from bisect import bisect_right
from typing import Final

from api import problems
from api.desk import Desk, document, origin_of, parsed, require_readable
from api.gate import Gate
from api.operations import THING, Answer, Content, Operation, Route, in_query
from api.problems import INVALID_REQUEST, ApiError
from api.reading import HttpRequest, query, read_body, whole
from api.replies import Reply, bytes_reply, json_reply
from api.schemas import DeleteAccepted, NamedShadowList, ShadowDocument, UpdateAccepted, UpdateBody
from api.services import ApiServices
from infra.clock import MS_PER_S
from security.policy import Action, Principal, may_read
from shadow.commands import parse_delete, parse_id, parse_update
from shadow.document import ShadowId
from shadow.errors import InvalidRequestError

PAGE_DEFAULT: Final = 25
PAGE_MAX: Final = 100

NAME: Final = in_query(
    "name",
    "A named shadow; without it the classic one",
    {"type": "string", "pattern": "^[a-zA-Z0-9:_-]{1,64}$"},
    "config",
)
PAGE_SIZE: Final = in_query(
    "pageSize",
    "Names of one page",
    {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT},
)
NEXT_TOKEN: Final = in_query("nextToken", "`nextToken` of the page before", {"type": "string"})

REFUSALS: Final = (problems.THING_NOT_FOUND, problems.TOO_MANY_REQUESTS)
WRITE_REFUSALS: Final = (
    *REFUSALS,
    problems.REQUEST_TIMEOUT,
    problems.PAYLOAD_TOO_LARGE,
    problems.UNSUPPORTED_ENCODING,
)


class AwsShadows:
    """Handlers of the AWS-shaped shadow routes."""

    def __init__(self, services: ApiServices, desk: Desk) -> None:
        self._services = services
        self._shadow_limits = services.settings.limits
        self._desk = desk
        self._gate = Gate(services.registry, services.devices)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/things/{thing:str}/shadow", GET_SHADOW, self.read),
            Route("POST", "/things/{thing:str}/shadow", UPDATE_SHADOW, self.update),
            Route("DELETE", "/things/{thing:str}/shadow", DELETE_SHADOW, self.delete),
            Route("GET", "/api/things/shadow/ListNamedShadowsForThing/{thing:str}", LIST_SHADOWS, self.names),
        )

    async def read(self, request: HttpRequest) -> Reply:
        id = _id(request)
        require_readable(request.scope, id)
        shadow = await self._desk.answer(id, lambda: self._services.shadows.view(id))
        return bytes_reply(document(shadow, self._services.clock.now_ms()))

    async def update(self, request: HttpRequest) -> Reply:
        id = _id(request)

        async def ask() -> Reply:
            body = await self._body(request)
            update = parsed(lambda: parse_update(body, id, origin_of(request.scope), self._shadow_limits))
            return bytes_reply((await self._desk.submit(update, request.scope)).body)

        return await self._desk.answer(id, ask)

    async def delete(self, request: HttpRequest) -> Reply:
        id = _id(request)

        async def ask() -> Reply:
            delete = parse_delete(
                await self._body(request), id, origin_of(request.scope), self._shadow_limits
            )
            return bytes_reply((await self._desk.submit(delete, request.scope)).body)

        return await self._desk.answer(id, ask)

    async def names(self, request: HttpRequest) -> Reply:
        scope = request.scope
        id = parse_id(scope["path_params"]["thing"])
        require_readable(scope, id)
        fields = query(scope, (), ignore_others=True)
        size = whole(fields["pageSize"], "pageSize", 1, PAGE_MAX) if "pageSize" in fields else PAGE_DEFAULT
        after = _name_of(fields["nextToken"]) if "nextToken" in fields else ""
        reader: Principal = scope["user"]
        known = await self._gate.open_to(reader, Action.SHADOW_READ, [id.thing])
        ids = await self._services.shadows.shadows_of(id.thing) if known else ()
        names = sorted(one.name for one in ids if one.name and may_read(reader.role, one.name))
        page = names[bisect_right(names, after) :][: size + 1]
        following = _token_of(page[size - 1]) if len(page) > size else None
        body = {"results": page[:size], "timestamp": self._services.clock.now_ms() // MS_PER_S}
        return json_reply(body | {"nextToken": following} if following else body)

    async def _body(self, request: HttpRequest) -> bytes:
        return await read_body(
            request, self._shadow_limits.request_bytes_max, self._services.limits.body_timeout_s
        )


def _id(request: HttpRequest) -> ShadowId:
    scope = request.scope
    name = query(scope, (), ignore_others=True).get("name")
    if name == "":
        raise InvalidRequestError("Invalid shadow name", "leave `name` out for the classic shadow")
    return parse_id(scope["path_params"]["thing"], name or "")


def _token_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _name_of(token: str) -> str:
    try:
        name = base64.b64decode(token, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise ApiError(INVALID_REQUEST, "nextToken was not made by this list") from error
    if not name or _token_of(name) != token:
        raise ApiError(INVALID_REQUEST, "nextToken was not made by this list")
    return name


_DOCUMENT_EXAMPLE: Final = {
    "state": {"desired": {"set": 21.5}, "reported": {"set": 20}, "delta": {"set": 21.5}},
    "metadata": {
        "desired": {"set": {"timestamp": 1790000100}},
        "reported": {"set": {"timestamp": 1790000050}},
        "delta": {"set": {"timestamp": 1790000100}},
    },
    "version": 41,
    "timestamp": 1790000107,
}

GET_SHADOW: Final = Operation(
    id="awsGetThingShadow",
    tag="AWS-shaped",
    summary="Read a shadow",
    action=Action.SHADOW_READ,
    parameters=(THING, NAME),
    answers={200: Answer("The shadow", Content("application/json", ShadowDocument, _DOCUMENT_EXAMPLE))},
    refusals=(*REFUSALS, problems.SHADOW_NOT_FOUND),
    aws=True,
)
UPDATE_SHADOW: Final = Operation(
    id="awsUpdateThingShadow",
    tag="AWS-shaped",
    summary="Change a shadow",
    description="The body is a request document, with any content type.",
    action=Action.SHADOW_DESIRE,
    parameters=(THING, NAME),
    bodies=(
        Content(
            "application/json", UpdateBody, {"state": {"desired": {"set": 21.5}}, "clientToken": "app-3"}
        ),
    ),
    answers={
        200: Answer(
            "What was written",
            Content(
                "application/json",
                UpdateAccepted,
                {
                    "state": {"desired": {"set": 21.5}},
                    "metadata": {"desired": {"set": {"timestamp": 1790000100}}},
                    "version": 41,
                    "timestamp": 1790000100,
                    "clientToken": "app-3",
                },
            ),
        )
    },
    refusals=(*WRITE_REFUSALS, problems.VERSION_CONFLICT, problems.STALE_SEQUENCE),
    aws=True,
)
DELETE_SHADOW: Final = Operation(
    id="awsDeleteThingShadow",
    tag="AWS-shaped",
    summary="Delete a shadow",
    action=Action.SHADOW_DELETE,
    parameters=(THING, NAME),
    answers={
        200: Answer(
            "The version that was deleted",
            Content("application/json", DeleteAccepted, {"version": 42, "timestamp": 1790000300}),
        )
    },
    refusals=(*WRITE_REFUSALS, problems.SHADOW_NOT_FOUND),
    aws=True,
)
LIST_SHADOWS: Final = Operation(
    id="awsListNamedShadowsForThing",
    tag="AWS-shaped",
    summary="List the named shadows of a thing",
    description="An unknown thing has none, nor has one that is not yours.",
    action=Action.SHADOW_READ,
    parameters=(THING, PAGE_SIZE, NEXT_TOKEN),
    answers={
        200: Answer(
            "A page of names, sorted",
            Content(
                "application/json", NamedShadowList, {"results": ["config", "diag"], "timestamp": 1790000000}
            ),
        )
    },
    aws=True,
    own_check=True,
)
