"""The exchange by which a device sees that we know its registration PIN (spec: security, 4.3)."""

import base64
import binascii
from typing import Final

import msgspec
from msgspec import Struct

from api import problems
from api.operations import WITH_BODY, Answer, Content, Operation, Route
from api.problems import UNAUTHORIZED, ApiError
from api.reading import HttpRequest, decode, invalid, read_body, require_json, via_of
from api.replies import Reply, json_reply, no_content
from api.services import ApiServices
from security.policy import Action
from security.trust.pins import NONCE_BYTES, PROOF_BYTES

PATH: Final = "/.well-known/gnomon/pin"


class PinBody(Struct, forbid_unknown_fields=True):
    """One of the two: the device's nonce, to begin, or its answer to ours."""

    nonce: str | msgspec.UnsetType = msgspec.UNSET
    answer: str | msgspec.UnsetType = msgspec.UNSET


class PinProof(Struct):
    """What proves that we know the PIN, and our question; both base64."""

    proof: str
    nonce: str


class PinRoutes:
    """The handler of the exchange."""

    def __init__(self, services: ApiServices) -> None:
        self._trust = services.trust
        self._limits = services.limits

    def routes(self) -> tuple[Route, ...]:
        return (Route("POST", PATH, PROVE_PIN, self.prove),)

    async def prove(self, request: HttpRequest) -> Reply:
        scope = request.scope
        require_json(scope)
        raw = await read_body(request, self._limits.body_bytes_max, self._limits.body_timeout_s)
        body = decode(raw, PinBody)
        session = await self._trust.issued.by_serial(scope["state"]["peer"])
        if session is None:
            raise ApiError(UNAUTHORIZED)
        match body.nonce, body.answer:
            case str() as nonce, msgspec.UNSET:
                challenge = await self._trust.pins.begin(session, _bytes(nonce, NONCE_BYTES))
                return json_reply(PinProof(_text(challenge.proof), _text(challenge.nonce)))
            case msgspec.UNSET, str() as answer:
                await self._trust.pins.finish(session, _bytes(answer, PROOF_BYTES), via_of(scope))
                return no_content()
            case _:
                raise invalid("send either `nonce` or `answer`")


def _bytes(text: str, length: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("nonce and answer are base64") from error
    if len(data) != length:
        raise invalid(f"this has {length} bytes")
    return data


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


PROVE_PIN: Final = Operation(
    id="provePin",
    tag="Joining",
    summary="See that we know your registration PIN, then show that you do",
    description="First `nonce`; refuse us when `proof` is wrong; then `answer`. It earns no certificate.",
    action=Action.CERTIFICATE_ENROL,
    bodies=(Content("application/json", PinBody, {"nonce": "AAECAwQFBgcICQoLDA0ODw=="}),),
    answers={
        200: Answer("Our proof, and our question", Content("application/json", PinProof)),
        204: Answer("Both sides have proved it"),
    },
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.WRONG_PIN,
        problems.PIN_NOT_KNOWN,
        problems.TOO_MANY_TRIES,
    ),
)
