"""Which keys may sign firmware: officers change them, two together; devices get them as one signed list."""

import base64
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from api import problems
from api.logins import json_body, read
from api.operations import WITH_BODY, Answer, Content, Operation, Route, in_path
from api.people_schemas import ApprovalDocument
from api.problems import SIGNING_KEY_NOT_FOUND
from api.reading import HttpRequest, is_current, query, rfc3339, unpacked, via_of
from api.releases import REASON_CHARS_MAX
from api.replies import Reply, bytes_reply, etag, json_reply, no_content
from api.schemas import Time
from api.services import ApiServices
from ota import key_list
from ota.envelope import Typ
from ota.keys import Asked, KeyState, SigningKey, add_key, parse_key, revoke_key
from ota.verification import KeyRole
from security.policy import Action

KEY: Final = "key"


class SigningKeyBody(Struct, forbid_unknown_fields=True):
    """A key that shall count."""

    public: Annotated[
        str, Meta(max_length=88, description="Raw Ed25519 key; of a vendor also a point of P-256; base64")
    ]
    role: Annotated[KeyRole, Meta(description="`image` or `campaign`")]
    owner: Annotated[str, Meta(max_length=64, description="Id of a vendor; `utility` for campaigns")]


class RevokeKeyBody(Struct, forbid_unknown_fields=True):
    """Why a key counts no longer."""

    reason: Annotated[str, Meta(min_length=1, max_length=REASON_CHARS_MAX)]


class SigningKeyDocument(Struct, omit_defaults=True):
    """A key."""

    kid: str
    role: KeyRole
    owner: str
    state: KeyState
    public: str
    added_at: Time
    revoked_at: Time | None = None

    @classmethod
    def of(cls, key: SigningKey) -> "SigningKeyDocument":
        return cls(
            key.kid,
            key.role,
            key.owner,
            key.state,
            base64.b64encode(key.public).decode(),
            rfc3339(key.added_at_ms),
            None if key.revoked_at_ms is None else rfc3339(key.revoked_at_ms),
        )


class SigningKeyList(Struct):
    """All keys, revoked ones too."""

    number: Annotated[int, Meta(description="Of the list that devices get: rises with every change")]
    items: list[SigningKeyDocument]


class SigningKeys:
    """Handlers of ``/v1/ota/keys``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._keys = services.ota.keys
        self._acts = services.ota.key_acts
        self._approvals = services.people.approvals

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/v1/ota/keys", LIST_SIGNING_KEYS, self.list),
            Route("POST", "/v1/ota/keys", ADD_SIGNING_KEY, self.add),
            Route("POST", "/v1/ota/keys/{key:str}/revoke", REVOKE_SIGNING_KEY, self.revoke),
        )

    async def list(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        ring = await self._keys.ring()
        return json_reply(SigningKeyList(ring.number, [SigningKeyDocument.of(one) for one in ring.keys]))

    async def add(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, SigningKeyBody)
        now_ms = self._services.clock.now_ms()
        return await self._ask(
            request, add_key(parse_key(unpacked(body.public, "public"), body.role, body.owner, now_ms))
        )

    async def revoke(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, RevokeKeyBody)
        return await self._ask(request, revoke_key(request.scope["path_params"][KEY], body.reason))

    async def _ask(self, request: HttpRequest, asked: Asked) -> Reply:
        await self._acts.check(asked)
        by, via = request.scope["user"], via_of(request.scope)
        held = await self._approvals.ask(asked.act, asked.target, asked.facts, by, via)
        return json_reply(ApprovalDocument.of(held), status=202)


class KeyListRoute:
    """The list as devices get it, on both listeners."""

    def __init__(self, services: ApiServices) -> None:
        self._keys = services.ota.keys

    def routes(self) -> tuple[Route, ...]:
        return (Route("GET", key_list.PATH, GET_KEY_LIST, self.read),)

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        ring = await self._keys.ring()
        if not ring.list:
            return no_content()
        if is_current(request.scope, ring.number):
            return Reply(304, [etag(ring.number)])
        return bytes_reply(ring.list, media=Typ.KEYS.encode(), fields=(etag(ring.number),))


TAG: Final = "Firmware keys"
_KEY: Final = in_path(
    KEY, "Name of a key", {"type": "string", "pattern": "^[0-9a-f]{16}$"}, "21fe31dfa154a261"
)
_EXAMPLE: Final[dict[str, Any]] = {
    "kid": "21fe31dfa154a261",
    "role": "image",
    "owner": "acme",
    "state": "active",
    "public": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "added_at": "2026-09-21T12:00:00.000Z",
}
_HELD: Final = {
    202: Answer(
        "Held until a second officer approves it",
        Content(
            "application/json",
            ApprovalDocument,
            {
                "id": "a-abcdefghij234567",
                "act": "signing_key.revoke",
                "action": "signing_key.write",
                "target": "signing_key/21fe31dfa154a261",
                "facts": {"reason": "lost"},
                "by": "p-abcdefghij234567",
                "decision": "waiting",
                "asked_at": "2026-09-21T12:00:00.000Z",
                "until": "2026-09-28T12:00:00.000Z",
            },
        ),
    )
}

LIST_SIGNING_KEYS: Final = Operation(
    id="listSigningKeys",
    tag=TAG,
    summary="List the keys that may sign images or campaigns, and those that might once",
    action=Action.FLEET_READ,
    answers={
        200: Answer(
            "All of them", Content("application/json", SigningKeyList, {"number": 3, "items": [_EXAMPLE]})
        )
    },
)
ADD_SIGNING_KEY: Final = Operation(
    id="addSigningKey",
    tag=TAG,
    summary="Ask that a key may count",
    description="It counts, and devices are told, when a second officer has approved it.",
    action=Action.SIGNING_KEY_WRITE,
    bodies=json_body(
        SigningKeyBody,
        {"public": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "role": "image", "owner": "acme"},
    ),
    answers=_HELD,
    refusals=(*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE, problems.SIGNING_KEY_KNOWN),
    held=True,
)
REVOKE_SIGNING_KEY: Final = Operation(
    id="revokeSigningKey",
    tag=TAG,
    summary="Ask that a key counts no longer",
    description="From the moment a second officer approves it we use nothing that it has signed.",
    action=Action.SIGNING_KEY_WRITE,
    parameters=(_KEY,),
    bodies=json_body(RevokeKeyBody, {"reason": "the vendor has lost it"}),
    answers=_HELD,
    refusals=(*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE, SIGNING_KEY_NOT_FOUND),
    own_check=True,
    held=True,
)
GET_KEY_LIST: Final = Operation(
    id="getKeyList",
    tag=TAG,
    summary="Load the list of keys that may sign firmware",
    description="A COSE_Sign1 with the certificates that lead to our root. Believe none with a lower number"
    " than the one you have.",
    action=Action.OPEN,
    answers={
        200: Answer("The list", Content(str(Typ.KEYS), {"type": "string", "format": "binary"}), ("ETag",)),
        204: Answer("There is no key yet"),
        304: Answer("You have this one", headers=("ETag",)),
    },
)
