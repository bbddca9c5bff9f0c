"""What other systems have not been told yet, and what of it waits for a person. Never what it says."""

from typing import Final

from api import problems
from api.operations import CURSOR, IDEMPOTENCY_KEY, LIMIT, Answer, Content, Operation, Route, in_path
from api.problems import OUTBOX_ITEM_NOT_FOUND, ApiError
from api.reading import HttpRequest, page_limit, query, via_of
from api.replies import Reply, json_reply
from api.services import ApiServices
from api.session_schemas import RecordDocument, RecordList, item_key
from infra.documents.port import Entry
from security import audit
from security.policy import Action

ITEM: Final = "item"
_TARGET: Final = "outbox/"


class OutboxRoutes:
    """Handlers of ``/v1/outbox``."""

    def __init__(self, services: ApiServices) -> None:
        self._outbox = services.outbox
        self._clock = services.clock

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/v1/outbox", LIST_OUTBOX, self.list),
            Route("GET", "/v1/outbox/{item:str}", GET_OUTBOX_ITEM, self.read),
            Route("POST", "/v1/outbox/{item:str}/retry", RETRY_OUTBOX_ITEM, self.retry),
        )

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor"))
        page = await self._outbox.waiting(page_limit(fields), fields.get("cursor"))
        return json_reply(RecordList([RecordDocument.of_item(one) for one in page.items], page.next))

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        item = await self._outbox.item(_key(request))
        if item is None:
            raise ApiError(OUTBOX_ITEM_NOT_FOUND)
        return json_reply(RecordDocument.of_item(item))

    async def retry(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        key, by, via = _key(request), request.scope["user"], via_of(request.scope)
        now_ms = self._clock.now_ms()

        def row(revision: int) -> Entry:
            act = audit.act(
                by,
                via,
                Action.OUTBOX_RETRY,
                f"{_TARGET}{key}",
                at_ms=now_ms,
                before=revision - 1,
                after=revision,
            )
            return audit.entry(act, revision, life=0)

        return json_reply(RecordDocument.of_item(await self._outbox.retry(key, row)))


def _key(request: HttpRequest) -> str:
    shown: str = request.scope["path_params"][ITEM]
    return item_key(shown)


TAG: Final = "Outbox"
_EXAMPLE: Final = {
    "key": "ps-abcdefghij234567abcdefgh~t-1~registered",
    "kind": "han.device.registered",
    "made_at": "2026-09-21T12:00:00.000Z",
    "state": "blocked",
    "attempts": 3,
    "problem": "422 unknown account",
}
_ITEM: Final = Content("application/json", RecordDocument, _EXAMPLE)
_KEY: Final = in_path(
    ITEM,
    "Key of an item",
    {"type": "string", "pattern": "^[A-Za-z0-9:_~.-]{1,256}$"},
    "ps-abcdefghij234567abcdefgh~t-1~registered",
)

LIST_OUTBOX: Final = Operation(
    id="listOutbox",
    tag=TAG,
    summary="List what waits to be told to other systems, the oldest first",
    description="`limit` counts premises: all that waits for one of them is on one page.",
    action=Action.OUTBOX_READ,
    parameters=(LIMIT, CURSOR),
    answers={200: Answer("A page", Content("application/json", RecordList, {"items": [_EXAMPLE]}))},
    refusals=(problems.INVALID_CURSOR,),
)
GET_OUTBOX_ITEM: Final = Operation(
    id="getOutboxItem",
    tag=TAG,
    summary="Read how far an item is",
    action=Action.OUTBOX_READ,
    parameters=(_KEY,),
    answers={200: Answer("The item", _ITEM)},
    refusals=(problems.OUTBOX_ITEM_NOT_FOUND,),
    own_check=True,
)
RETRY_OUTBOX_ITEM: Final = Operation(
    id="retryOutboxItem",
    tag=TAG,
    summary="Try an item again, now",
    description="One that is blocked, or waits. What is delivered stays so.",
    action=Action.OUTBOX_RETRY,
    parameters=(_KEY, IDEMPOTENCY_KEY),
    answers={200: Answer("The item", _ITEM)},
    refusals=(problems.OUTBOX_ITEM_NOT_FOUND,),
    own_check=True,
)
