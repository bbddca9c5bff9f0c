"""How somebody proves who they are: people with two factors, systems with a secret. Open to all.

Every refusal is the same 401, whatever was wrong. OAuth's token endpoint spells its own (RFC 6749).
"""

import base64
import binascii
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote_plus

from litestar.types import Scope

from api import problems
from api.operations import WITH_BODY, Answer, Content, Operation, Route
from api.people_schemas import (
    AcceptBody,
    ClientTokenDocument,
    FactorDocument,
    FirstBody,
    JwksDocument,
    LoginBody,
    OAuthError,
    RefreshBody,
    TokenDocument,
)
from api.reading import HttpRequest, decode, header, media_type, query, read_body, require_json, via_of
from api.replies import Field, Reply, json_reply, no_content
from api.services import ApiServices
from security.people.errors import LoginRefusedError
from security.policy import Action
from security.secret import Secret

NO_STORE: Final[tuple[Field, ...]] = ((b"cache-control", b"no-store"),)
FORM: Final = "application/x-www-form-urlencoded"
FORM_FIELDS_MAX: Final = 16
KEYS_AGE_S: Final = 60
"""A new key is published for longer before it signs."""

T = TypeVar("T")


class OAuthRefusal(Exception):  # noqa: N818 - it is an answer, spelled as RFC 6749 has it
    """What the token endpoint refuses with."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.status = status


class Logins:
    """Handlers of ``/v1/login``, ``/v1/token`` and their neighbours."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._people = services.people

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/v1/login", LOG_IN, self.log_in),
            Route("POST", "/v1/token/refresh", REFRESH, self.refresh),
            Route("POST", "/v1/logout", LOG_OUT, self.log_out),
            Route("POST", "/v1/token", ISSUE_TOKEN, self.token),
            Route("POST", "/v1/invitations/accept", ACCEPT, self.accept),
            Route("POST", "/v1/people/first", MAKE_FIRST, self.first),
            Route("GET", "/.well-known/jwks.json", GET_KEYS, self.keys),
        )

    async def log_in(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, LoginBody)
        granted, notices = await self._people.log_in(
            body.login, Secret(body.password), body.code, address(request.scope), via_of(request.scope)
        )
        return json_reply(TokenDocument.of(granted, notices), fields=NO_STORE)

    async def refresh(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, RefreshBody)
        granted = await self._people.sessions.refresh(Secret(body.refresh_token), via_of(request.scope))
        return json_reply(TokenDocument.of(granted), fields=NO_STORE)

    async def log_out(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, RefreshBody)
        await self._people.sessions.close(Secret(body.refresh_token), via_of(request.scope))
        return no_content()

    async def accept(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, AcceptBody)
        place = address(request.scope)
        self._people.tries.take(place)
        factor = await self._people.accounts.accept(
            Secret(body.invitation), Secret(body.password), via_of(request.scope), factor=body.factor
        )
        self._people.tries.give_back(place)
        return json_reply(FactorDocument.of(factor), fields=NO_STORE)

    async def first(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, FirstBody)
        place = address(request.scope)
        self._people.tries.take(place)
        factor = await self._people.first.begin(
            Secret(body.secret), body.login, Secret(body.password), via_of(request.scope)
        )
        self._people.tries.give_back(place)
        return json_reply(FactorDocument.of(factor), fields=NO_STORE)

    async def keys(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        await self._people.keys.refresh()
        age = ((b"cache-control", b"public, max-age=%d" % KEYS_AGE_S),)
        return json_reply(self._people.keys.jwks(), fields=age)

    async def token(self, request: HttpRequest) -> Reply:
        try:
            return await self._token(request)
        except OAuthRefusal as refusal:
            challenge = ((b"www-authenticate", b'Basic realm="gnomon"'),) if refusal.status != 400 else ()  # noqa: PLR2004 - RFC 6749
            return json_reply(
                OAuthError(refusal.error), status=refusal.status, fields=(*NO_STORE, *challenge)
            )

    async def _token(self, request: HttpRequest) -> Reply:
        scope, limits = request.scope, self._services.limits
        form = _form(scope, await read_body(request, limits.body_bytes_max, limits.body_timeout_s))
        if form.get("grant_type") != "client_credentials":
            raise OAuthRefusal("unsupported_grant_type" if "grant_type" in form else "invalid_request")
        id, secret = _credentials(scope, form)
        place = address(scope)
        self._people.tries.take(place)
        try:
            grant = await self._people.clients.grant(id, secret, form.get("scope", "").split(), via_of(scope))
        except LoginRefusedError:
            raise OAuthRefusal("invalid_client", 401) from None
        self._people.tries.give_back(place)
        document = ClientTokenDocument(
            grant.access.token.reveal(), "Bearer", grant.access.life_s, " ".join(grant.scopes)
        )
        return json_reply(document, fields=NO_STORE)


async def read(request: HttpRequest, services: ApiServices, type: type[T]) -> T:
    """Return a request's JSON body; the query is empty."""
    query(request.scope, ())
    require_json(request.scope)
    limits = services.limits
    return decode(await read_body(request, limits.body_bytes_max, limits.body_timeout_s), type)


def address(scope: Scope) -> str:
    """Return where a request came from."""
    client: Any = scope.get("client")
    return str(client[0]) if client else ""


def _form(scope: Scope, body: bytes) -> dict[str, str]:
    if media_type(scope) != FORM:
        raise OAuthRefusal("invalid_request")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS_MAX
        )
    except ValueError:
        raise OAuthRefusal("invalid_request") from None
    form = dict(pairs)
    # RFC 6749, 3.2: a parameter is sent once; those we do not know are ignored.
    if len(form) < len(pairs):
        raise OAuthRefusal("invalid_request")
    return form


def _credentials(scope: Scope, form: dict[str, str]) -> tuple[str, Secret]:
    """Return a client's id and secret, from the Basic header or from the form, never from both."""
    scheme, _, value = (header(scope, b"authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return form.get("client_id", ""), Secret(form.get("client_secret", ""))
    if "client_secret" in form:
        raise OAuthRefusal("invalid_request")
    try:
        id, colon, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise OAuthRefusal("invalid_client", 401) from None
    if not colon:
        raise OAuthRefusal("invalid_client", 401)
    return unquote_plus(id), Secret(unquote_plus(secret))


TAG: Final = "Login"
PROVED: Final = (
    *WITH_BODY,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.UNAUTHORIZED,
    problems.TOO_MANY_TRIES,
)
_TOKENS: Final = {
    "access_token": "eyJ…",
    "token_type": "Bearer",
    "expires_in": 300,
    "refresh_token": "gnomon_rt_…",
    "refresh_expires_in": 43_200,
}
_PAIR: Final = Answer("A session's tokens", Content("application/json", TokenDocument, _TOKENS))
FACTOR: Final = Answer(
    "The second factor, shown once",
    Content(
        "application/json",
        FactorDocument,
        {
            "totp_seed": "JBSWY3DPEHPK3PXP",
            "totp_uri": "otpauth://totp/Gnomon:ann?secret=JBSWY3DPEHPK3PXP&issuer=Gnomon",
            "recovery_codes": ["abcdefghij234567"],
        },
    ),
)


def json_body(type: type, example: dict[str, Any]) -> tuple[Content, ...]:
    """Declare a JSON body."""
    return (Content("application/json", type, example),)


LOG_IN: Final = Operation(
    id="logIn",
    tag=TAG,
    summary="Open a session with both factors",
    description="Failed tries make the next one wait; `notices` are told once.",
    action=Action.OPEN,
    bodies=json_body(LoginBody, {"login": "ann", "password": "gorse under slate rain", "code": "287082"}),
    answers={200: _PAIR},
    refusals=PROVED,
)
REFRESH: Final = Operation(
    id="refreshTokens",
    tag=TAG,
    summary="Get the next tokens of a session; the refresh token is used up",
    description="One that was used before ends the session: somebody has a copy. Who did not get the answer"
    " may repeat the request once, within 10 s.",
    action=Action.OPEN,
    bodies=json_body(RefreshBody, {"refresh_token": "gnomon_rt_…"}),
    answers={200: _PAIR},
    refusals=PROVED,
)
LOG_OUT: Final = Operation(
    id="logOut",
    tag=TAG,
    summary="End a session; its access token lasts a few minutes more",
    action=Action.OPEN,
    bodies=json_body(RefreshBody, {"refresh_token": "gnomon_rt_…"}),
    answers={204: Answer("It is over, or was no session")},
    refusals=(*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE),
)
ISSUE_TOKEN: Final = Operation(
    id="issueClientToken",
    tag=TAG,
    summary="Get a token as a service (OAuth 2.0 client credentials)",
    description="The secret comes in the form or as HTTP Basic. Who asks for more gets what is allowed.",
    action=Action.OPEN,
    bodies=(
        Content(
            FORM,
            {
                "type": "object",
                "properties": {
                    "grant_type": {"const": "client_credentials"},
                    "client_id": {"type": "string"},
                    "client_secret": {"type": "string"},
                    "scope": {"type": "string"},
                },
                "required": ["grant_type"],
            },
            {"grant_type": "client_credentials", "client_id": "c-abcdefghij234567", "client_secret": "…"},
        ),
    ),
    answers={
        200: Answer(
            "The token",
            Content(
                "application/json",
                ClientTokenDocument,
                {"access_token": "eyJ…", "token_type": "Bearer", "expires_in": 600, "scope": "premises"},
            ),
        ),
        400: Answer(
            "Not asked as RFC 6749 has it",
            Content("application/json", OAuthError, {"error": "unsupported_grant_type"}),
        ),
        401: Answer(
            "Not a client, or not its secret",
            Content("application/json", OAuthError, {"error": "invalid_client"}),
            ("WWW-Authenticate",),
        ),
    },
    refusals=(*WITH_BODY, problems.TOO_MANY_TRIES),
)
ACCEPT: Final = Operation(
    id="acceptInvitation",
    tag=TAG,
    summary="Choose a password with an invitation, and get the second factor",
    description="May be repeated until the first login, which ends the invitation.",
    action=Action.OPEN,
    bodies=json_body(AcceptBody, {"invitation": "gnomon_in_…", "password": "gorse under slate rain"}),
    answers={200: FACTOR},
    refusals=(*PROVED, problems.WEAK_PASSWORD, problems.APPROVAL_NEEDED),
)
MAKE_FIRST: Final = Operation(
    id="makeFirstOfficer",
    tag=TAG,
    summary="Become the first security officer, with the secret that the host printed",
    description="Good for 15 minutes from the start, while nobody is one. The first login completes it.",
    action=Action.OPEN,
    bodies=json_body(
        FirstBody, {"secret": "gnomon_first_…", "login": "ann", "password": "gorse under slate rain"}
    ),
    answers={200: FACTOR},
    refusals=(*PROVED, problems.WEAK_PASSWORD, problems.LOGIN_TAKEN),
)
GET_KEYS: Final = Operation(
    id="getSigningKeys",
    tag=TAG,
    summary="The public keys of access tokens",
    action=Action.OPEN,
    answers={
        200: Answer(
            "A JSON Web Key Set",
            Content(
                "application/json",
                JwksDocument,
                {
                    "keys": [
                        {
                            "kty": "OKP",
                            "crv": "Ed25519",
                            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                            "kid": "abcdefgh",
                            "alg": "EdDSA",
                            "use": "sig",
                        }
                    ]
                },
            ),
        )
    },
)
