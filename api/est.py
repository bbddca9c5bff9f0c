"""Enrolment over secure transport (RFC 7030), as far as it is offered: ``cacerts`` and the two enrolments.

We never make a device's key: ``serverkeygen`` and ``fullcmc`` are not there. ``simpleenroll`` is proved by a
code, which is the claim's own business; the other two ask the guard for nothing and for a certificate.
"""

import base64
from typing import Final, Protocol

from litestar.types import Scope

from api import problems
from api.operations import WITH_BODY, Answer, Content, Operation, Route
from api.problems import UNSUPPORTED_MEDIA_TYPE, WRONG_CODE, ApiError
from api.reading import HttpRequest, header, media_type, read_body, via_of
from api.replies import Reply, bytes_reply
from api.services import ApiServices
from security.policy import Action, Principal, Role
from security.trust.codes import parse_basic
from security.trust.enrolment import AwaitingApprovalError, Source
from security.trust.requests import REQUEST_BYTES_MAX, certs_only

BASE: Final = "/.well-known/est"
BODY_BYTES_MAX: Final = 2 * REQUEST_BYTES_MAX
"""A request in base64, with its line ends; what it decodes to is bounded where it is read."""
PKCS10: Final = "application/pkcs10"
PKCS7: Final = b"application/pkcs7-mime; smime-type=certs-only"
_BASE64: Final = ((b"content-transfer-encoding", b"base64"),)


class Identify(Protocol):
    """Tells which thing sends a request, None where none is proved."""

    async def __call__(self, scope: Scope) -> Principal | None: ...


class Est:
    """Handlers of ``/.well-known/est``."""

    def __init__(self, services: ApiServices, identify: Identify) -> None:
        self._authority = services.trust.authority
        self._enrolment = services.trust.enrolment
        self._identify = identify
        self._timeout_s = services.limits.body_timeout_s

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", f"{BASE}/cacerts", CACERTS, self.cacerts),
            Route("POST", f"{BASE}/simpleenroll", SIMPLE_ENROLL, self.enrol),
            Route("POST", f"{BASE}/simplereenroll", SIMPLE_REENROLL, self.renew),
        )

    async def cacerts(self, request: HttpRequest) -> Reply:  # noqa: ARG002 - every handler takes it
        return _certificates(self._authority.cacerts())

    async def enrol(self, request: HttpRequest) -> Reply:
        """Give a certificate for a code; a gateway whose certificate was shown is who brought the request."""
        _require_pkcs10(request.scope)
        pair = parse_basic(header(request.scope, b"authorization"))
        if pair is None:
            raise ApiError(WRONG_CODE, "send the claim's id and its code as HTTP Basic")
        body = await read_body(request, BODY_BYTES_MAX, self._timeout_s)
        peer = await self._identify(request.scope)
        gateway = peer.name if peer is not None and peer.role is Role.GATEWAY else ""
        try:
            chain = await self._enrolment.enrol(*pair, body, _source(request.scope, gateway))
        except AwaitingApprovalError as waiting:
            return Reply(202, [(b"retry-after", b"%d" % waiting.retry_s), (b"content-length", b"0")])
        return _certificates(certs_only([_leaf(chain)]))

    async def renew(self, request: HttpRequest) -> Reply:
        _require_pkcs10(request.scope)
        body = await read_body(request, BODY_BYTES_MAX, self._timeout_s)
        serial = request.scope["state"]["peer"]
        chain = await self._enrolment.renew(serial, body, _source(request.scope, ""))
        return _certificates(certs_only([_leaf(chain)]))


def _source(scope: Scope, gateway: str) -> Source:
    client = scope["client"]
    return Source("" if client is None else client[0], via_of(scope), gateway)


def _require_pkcs10(scope: Scope) -> None:
    if media_type(scope) != PKCS10:
        raise ApiError(UNSUPPORTED_MEDIA_TYPE, f"send Content-Type: {PKCS10}")


def _leaf(chain: bytes) -> bytes:
    """Return the first certificate: an answer holds what was issued, and ``cacerts`` the rest."""
    end = b"-----END CERTIFICATE-----\n"
    return chain[: chain.index(end) + len(end)]


def _certificates(pkcs7: bytes) -> Reply:
    return bytes_reply(base64.encodebytes(pkcs7), media=PKCS7, fields=_BASE64)


TAG: Final = "Joining"
_ANSWER: Final = Content(PKCS7.decode(), {"type": "string", "contentEncoding": "base64"})
_REQUEST: Final = Content(
    PKCS10, {"type": "string", "contentEncoding": "base64", "maxLength": BODY_BYTES_MAX}
)
_REFUSALS: Final = (
    *WITH_BODY,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.NOT_ELIGIBLE,
    problems.KEY_KNOWN,
)

CACERTS: Final = Operation(
    id="estCacerts",
    tag=TAG,
    summary="Get the roots and issuing authorities",
    description="Compare the root with what the label says before you trust it.",
    action=Action.OPEN,
    answers={200: Answer("PKCS#7 with certificates only, old and new while both live", _ANSWER)},
)
SIMPLE_ENROLL: Final = Operation(
    id="estSimpleEnroll",
    tag=TAG,
    summary="Get a certificate for a key, by a code",
    description="HTTP Basic: the claim's id and the code. The same code with the same key is answered alike.",
    action=Action.OPEN,
    bodies=(_REQUEST,),
    answers={
        200: Answer("The certificate, as PKCS#7", _ANSWER),
        202: Answer("A person must approve: send the same again", headers=("Retry-After",)),
    },
    refusals=(
        *_REFUSALS,
        problems.WRONG_CODE,
        problems.CODE_USED,
        problems.CODE_OVER,
        problems.MISTYPED_CODE,
        problems.TOO_MANY_TRIES,
    ),
)
SIMPLE_REENROLL: Final = Operation(
    id="estSimpleReenroll",
    tag=TAG,
    summary="Get a certificate for a new key, by the current one",
    description="In the last third of its life, once a day. The current one lives a day longer.",
    action=Action.CERTIFICATE_ENROL,
    bodies=(_REQUEST,),
    answers={200: Answer("The certificate, as PKCS#7", _ANSWER)},
    refusals=(*_REFUSALS, problems.RENEWAL_TOO_EARLY),
)
