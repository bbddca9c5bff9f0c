"""The audit trail, to be read and verified. Nothing here writes it: an act's row is made with the act."""

import asyncio
from typing import Final

import msgspec

from api import problems
from api.operations import CURSOR, FROM, LIMIT, TO, Answer, Content, Operation, Route
from api.reading import HttpRequest, instant_ms, page_limit, query
from api.replies import Reply, json_reply
from api.schemas import (
    AuditDocument,
    AuditHead,
    AuditList,
    AuditVerification,
    BadPosition,
    PublishedHeadDocument,
)
from api.services import ApiServices
from infra.documents import cursors
from infra.documents.port import InvalidCursorError
from security.chain import EMPTY, BadPositionError, Head, Verification
from security.heads import BadHeadsError
from security.policy import Action
from security.trail import BLOCKS_VERIFIED_MAX, Trail

FOREVER_MS: Final = 2**62
_VERIFY: Final = ("verify",)


class Audit:
    """The handlers of ``/v1/audit``."""

    def __init__(self, services: ApiServices) -> None:
        self._trail = Trail(services.store)
        self._heads = services.heads

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/v1/audit", LIST_AUDIT, self.list),
            Route("GET", "/v1/audit/head", AUDIT_HEAD, self.head),
            Route("GET", "/v1/audit/verify", VERIFY_AUDIT, self.verify),
        )

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("from", "to", "limit", "cursor"))
        from_ms, to_ms = instant_ms(fields, "from"), instant_ms(fields, "to")
        if to_ms is None:
            # The same for all pages of one reading, or their cursors would not belong together.
            to_ms = FOREVER_MS
        page = await self._trail.read(from_ms or 0, to_ms, page_limit(fields), fields.get("cursor"))
        return json_reply(AuditList([AuditDocument.of(one) for one in page.items], page.next))

    async def head(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        head = await self._trail.head()
        if self._heads is None:
            return json_reply(AuditHead(head.number, head.entries, head.hash))
        last = self._heads.last
        published = None if last is None else PublishedHeadDocument(**msgspec.structs.asdict(last))
        key = await asyncio.to_thread(lambda heads: heads.public_pem, self._heads)
        return json_reply(AuditHead(head.number, head.entries, head.hash, published, key))

    async def verify(self, request: HttpRequest) -> Reply:
        """Verify the next blocks: a bounded step, so that nobody keeps the process busy with one request."""
        fields = query(request.scope, ("cursor",))
        verification = _resumed(fields.get("cursor"))
        first = verification.head.number + 1
        try:
            if self._heads is not None:
                verification.published = await asyncio.to_thread(
                    self._heads.between, first, first + BLOCKS_VERIFIED_MAX
                )
            done = await self._trail.verify_some(verification)
        except BadPositionError as error:
            bad = BadPosition(error.block, error.index, error.problem, error.entry)
            return json_reply(_found(verification, bad=bad))
        except BadHeadsError as error:
            return json_reply(_found(verification, bad=BadPosition(0, 0, str(error))))
        return json_reply(_found(verification, next=None if done else _cursor(verification)))


def _found(
    verification: Verification, *, bad: BadPosition | None = None, next: str | None = None
) -> AuditVerification:
    head = verification.head
    return AuditVerification(head.number, head.entries, head.hash, verification.agreed, bad, next)


def _cursor(verification: Verification) -> str:
    head = verification.head
    position = (head.number, head.hash, head.entries, head.upto_ms, verification.agreed)
    return cursors.make(_VERIFY, position)


def _resumed(cursor: str | None) -> Verification:
    """Return the verification that a cursor goes on with; a made-up one deceives its maker only."""
    if cursor is None:
        return Verification({}, EMPTY)
    match cursors.position(cursor, _VERIFY):
        case [int(number), str(hash), int(entries), int(upto_ms), int(agreed)] if 0 < number < 10**12:
            try:
                return Verification({}, Head(number, bytes.fromhex(hash), entries, upto_ms), agreed)
            except ValueError as error:
                raise InvalidCursorError("the cursor was not made by a verification") from error
        case _:
            raise InvalidCursorError("the cursor was not made by a verification: start without one")


_HASH: Final = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

LIST_AUDIT: Final = Operation(
    id="listAuditEntries",
    tag="Operations",
    summary="List privileged acts and refusals: the chain in its order, then what is not sealed yet",
    action=Action.AUDIT_READ,
    parameters=(FROM, TO, LIMIT, CURSOR),
    description="A page can have fewer items than `limit` and still a `next`. An entry that was sealed more "
    "than a day after its act may be left out of a span that ends before; a reading without `to` has all.",
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
                            "block": 7,
                            "position": 2,
                        }
                    ]
                },
            ),
        )
    },
    refusals=(problems.INVALID_CURSOR,),
)
AUDIT_HEAD: Final = Operation(
    id="getAuditHead",
    tag="Operations",
    summary="Where the audit chain ends, and the signed head that was published last",
    action=Action.AUDIT_READ,
    answers={
        200: Answer(
            "The end of the chain",
            Content(
                "application/json",
                AuditHead,
                {
                    "block": 7,
                    "entries": 4_212,
                    "hash": _HASH,
                    "published": {
                        "number": 7,
                        "hash": _HASH,
                        "entries": 4_212,
                        "at": "2026-09-21T12:00:00.000Z",
                        "key": "9f2c4e6a8b0d1f35",
                        "signature": "bm90IGEgc2lnbmF0dXJl",
                    },
                },
            ),
        )
    },
)
VERIFY_AUDIT: Final = Operation(
    id="verifyAuditChain",
    tag="Operations",
    summary="Verify the audit chain, some blocks a call",
    action=Action.AUDIT_VERIFY,
    parameters=(CURSOR,),
    description="Call again with `next` until there is none. `bad` names the first position that is not what "
    "it was. Published heads are read here from where this service publishes them: an auditor who does not "
    "trust its machine runs `gnomon audit verify` with copies of their own.",
    answers={
        200: Answer(
            "What this step found",
            Content(
                "application/json",
                AuditVerification,
                {"block": 64, "entries": 4_212, "hash": _HASH, "agreed": 60, "next": "kZKmdmVyaWZ5"},
            ),
        )
    },
    refusals=(problems.INVALID_CURSOR,),
)
