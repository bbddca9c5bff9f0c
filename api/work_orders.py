"""Work orders: what opens premises to the installer they are assigned to.

(spec: han, 5.2, step 6)
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

from api import problems
from api.asks import ask
from api.operations import IDEMPOTENCY_KEY, WITH_BODY, Answer, Content, Operation, Route, in_path
from api.reading import HttpRequest, decode, query, read_body, require_json, rfc3339
from api.replies import Reply, json_reply
from api.schemas import Name, Time
from api.services import ApiServices
from api.session_schemas import Word
from provisioning.work_orders import WorkOrder, WorkOrderState
from security.policy import Action

ORDER: Final = "order"


class WorkOrderBody(Struct, forbid_unknown_fields=True):
    """Who shall work where."""

    premises: Name
    assignee: Annotated[Word, Meta(description="Id of an installer", examples=["p-abcdefghij234567"])]


class WorkOrderDocument(Struct, omit_defaults=True):
    """A work order."""

    id: str
    premises: str
    assignee: str
    state: WorkOrderState
    made_at: Time
    closed_at: Time | None = None

    @classmethod
    def of(cls, one: WorkOrder) -> "WorkOrderDocument":
        return cls(
            one.id,
            one.premises,
            one.assignee,
            one.state,
            rfc3339(one.at_ms),
            None if one.closed_at_ms is None else rfc3339(one.closed_at_ms),
        )


class WorkOrderRoutes:
    """Handlers of ``/v1/work-orders``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._orders = services.provisioning.work_orders

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/v1/work-orders", CREATE_WORK_ORDER, self.create),
            Route("GET", "/v1/work-orders/{order:str}", GET_WORK_ORDER, self.read),
            Route("POST", "/v1/work-orders/{order:str}/close", CLOSE_WORK_ORDER, self.close),
        )

    async def create(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        require_json(request.scope)
        limits = self._services.limits
        sent = await read_body(request, limits.body_bytes_max, limits.body_timeout_s)
        body = decode(sent, WorkOrderBody)
        made = await self._orders.open(body.premises, body.assignee, ask(request, self._services.ids, sent))
        location = (b"location", f"/v1/work-orders/{made.id}".encode())
        return json_reply(WorkOrderDocument.of(made), status=201, fields=(location,))

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return json_reply(WorkOrderDocument.of(await self._orders.work_order(_id(request))))

    async def close(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        closed = await self._orders.close(_id(request), ask(request, self._services.ids))
        return json_reply(WorkOrderDocument.of(closed))


def _id(request: HttpRequest) -> str:
    id: str = request.scope["path_params"][ORDER]
    return id


TAG: Final = "Work orders"
_EXAMPLE: Final = {
    "id": "wo-abcdefghij234567abcdefgh",
    "premises": "home-7",
    "assignee": "p-abcdefghij234567",
    "state": "open",
    "made_at": "2026-09-21T12:00:00.000Z",
}
_ORDER: Final = Content("application/json", WorkOrderDocument, _EXAMPLE)
_ID: Final = in_path(
    ORDER, "Id of a work order", {"type": "string", "pattern": "^[a-zA-Z0-9-]{1,64}$"}, _EXAMPLE["id"]
)

CREATE_WORK_ORDER: Final = Operation(
    id="createWorkOrder",
    tag=TAG,
    summary="Open premises to an installer",
    description="For as long as the order is open.",
    action=Action.WORK_ORDER_WRITE,
    parameters=(IDEMPOTENCY_KEY,),
    bodies=(
        Content("application/json", WorkOrderBody, {"premises": "home-7", "assignee": "p-abcdefghij234567"}),
    ),
    answers={201: Answer("The order", _ORDER, ("Location",))},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.PREMISES_NOT_FOUND,
        problems.IDEMPOTENCY_MISMATCH,
    ),
)
GET_WORK_ORDER: Final = Operation(
    id="getWorkOrder",
    tag=TAG,
    summary="Read a work order",
    action=Action.WORK_ORDER_WRITE,
    parameters=(_ID,),
    answers={200: Answer("The order", _ORDER)},
    refusals=(problems.WORK_ORDER_NOT_FOUND,),
    own_check=True,
)
CLOSE_WORK_ORDER: Final = Operation(
    id="closeWorkOrder",
    tag=TAG,
    summary="Close a work order",
    description="From then on it opens nothing. Again is no error.",
    action=Action.WORK_ORDER_WRITE,
    parameters=(_ID, IDEMPOTENCY_KEY),
    answers={200: Answer("The order", _ORDER)},
    refusals=(problems.WORK_ORDER_NOT_FOUND,),
    own_check=True,
)
