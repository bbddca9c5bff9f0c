"""The audit log, to be read. Nothing here writes it: an act's row is made with the act."""

from typing import Final

from api import problems
from api.operations import CURSOR, FROM, LIMIT, TO, Answer, Content, Operation, Route
from api.reading import HttpRequest, instant_ms, page_limit, query
from api.replies import Reply, json_reply
from api.schemas import AuditDocument, AuditList
from api.services import ApiServices
from security import audit
from security.policy import Action


class Audit:
    """The handler of ``/v1/audit``."""

    def __init__(self, services: ApiServices) -> None:
        self._store = services.store
        self._clock = services.clock

    def routes(self) -> tuple[Route, ...]:
        return (Route("GET", "/v1/audit", LIST_AUDIT, self.list),)

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("from", "to", "limit", "cursor"))
        from_ms, to_ms = instant_ms(fields, "from"), instant_ms(fields, "to")
        page = await audit.read(
            self._store,
            0 if from_ms is None else from_ms,
            self._clock.now_ms() if to_ms is None else to_ms,
            page_limit(fields),
            fields.get("cursor"),
        )
        return json_reply(AuditList([AuditDocument.of(entry) for entry in page.entries], page.next))


LIST_AUDIT: Final = Operation(
    id="listAuditEntries",
    tag="Operations",
    summary="List privileged acts and refusals, oldest first",
    action=Action.AUDIT_READ,
    parameters=(FROM, TO, LIMIT, CURSOR),
    answers={
        200: Answer(
            "A page of entries",
            Content(
                "application/json",
                AuditList,
                {
                    "items": [
                        {
                            "at": "2026-09-21T12:00:00.000Z",
                            "actor": "operator",
                            "role": "operator",
                            "action": "thing.register",
                            "target": "thing/hall-thermostat",
                            "via": "http",
                            "decision": "allowed",
                            "count": 1,
                        }
                    ]
                },
            ),
        )
    },
    refusals=(problems.INVALID_CURSOR,),
)
