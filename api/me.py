"""One's own account: password, second factor, and the fresh second factor that a weighty act needs."""

from typing import Final

from api import problems
from api.logins import FACTOR, NO_STORE, PROVED, json_body, read
from api.operations import Answer, Content, Operation, Route
from api.people_schemas import (
    CodeBody,
    FactorDocument,
    MeDocument,
    PasswordBody,
    ProofBody,
    RecoveryCodes,
    StepUpBody,
    StepUpDocument,
)
from api.reading import HttpRequest, invalid, query, via_of
from api.replies import Reply, json_reply, no_content
from api.services import ApiServices
from security.people.stepup import LIFE_S
from security.policy import Action, Principal
from security.secret import Secret


class Me:
    """Handlers of ``/v1/me`` and ``/v1/step-up``."""

    def __init__(self, services: ApiServices, confirmed: frozenset[Action]) -> None:
        """Prepare; ``confirmed`` is what routes do that wait for a second factor of now."""
        self._services = services
        self._confirmed = {action.value: action for action in confirmed}
        self._accounts = services.people.accounts
        self._step_ups = services.people.step_ups

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/v1/me", GET_ME, self.get),
            Route("PUT", "/v1/me/password", CHANGE_PASSWORD, self.password),
            Route("POST", "/v1/me/factor", BEGIN_FACTOR, self.begin_factor),
            Route("POST", "/v1/me/factor/confirm", CONFIRM_FACTOR, self.confirm_factor),
            Route("POST", "/v1/step-up", STEP_UP, self.step_up),
        )

    async def get(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return json_reply(MeDocument.of(await self._accounts.person(_id(request))))

    async def password(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, PasswordBody)
        await self._accounts.change_password(
            _id(request), Secret(body.password), body.code, Secret(body.new_password), via_of(request.scope)
        )
        return no_content()

    async def begin_factor(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, ProofBody)
        factor = await self._accounts.begin_factor(
            _id(request), Secret(body.password), body.code, via_of(request.scope)
        )
        return json_reply(FactorDocument.of(factor), fields=NO_STORE)

    async def confirm_factor(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, CodeBody)
        codes = await self._accounts.confirm_factor(_id(request), body.code, via_of(request.scope))
        return json_reply(RecoveryCodes([code.reveal() for code in codes]), fields=NO_STORE)

    async def step_up(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, StepUpBody)
        action = self._confirmed.get(body.action)
        if action is None:
            raise invalid(
                f"action is the word that the refusal names, one of: {', '.join(sorted(self._confirmed))}"
            )
        token = await self._step_ups.issue(
            request.scope["user"],
            body.code,
            action,
            body.target,
            body.body_sha256,
            via_of(request.scope),
        )
        return json_reply(StepUpDocument(token.reveal(), LIFE_S), fields=NO_STORE)


def _id(request: HttpRequest) -> str:
    principal: Principal = request.scope["user"]
    return principal.name


TAG: Final = "Own account"
_REFUSED: Final = (*PROVED, problems.PERSON_NOT_FOUND, problems.ACCOUNT_STATE)

GET_ME: Final = Operation(
    id="getMe",
    tag=TAG,
    summary="Read one's own account",
    action=Action.SELF_MANAGE,
    answers={
        200: Answer(
            "The account",
            Content(
                "application/json",
                MeDocument,
                {
                    "id": "p-abcdefghij234567",
                    "login": "ann",
                    "role": "operator",
                    "factor": True,
                    "recovery_codes_left": 10,
                },
            ),
        )
    },
    refusals=(problems.PERSON_NOT_FOUND,),
)
CHANGE_PASSWORD: Final = Operation(
    id="changePassword",
    tag=TAG,
    summary="Change the password; all sessions end, this one too",
    action=Action.SELF_MANAGE,
    bodies=json_body(
        PasswordBody,
        {
            "password": "gorse under slate rain",
            "new_password": "heather over granite wind",
            "code": "287082",
        },
    ),
    answers={204: Answer("It is changed")},
    refusals=(*_REFUSED, problems.WEAK_PASSWORD),
)
BEGIN_FACTOR: Final = Operation(
    id="beginFactor",
    tag=TAG,
    summary="Get another second factor; the one in use stays until a code of the new one has come",
    action=Action.SELF_MANAGE,
    bodies=json_body(ProofBody, {"password": "gorse under slate rain", "code": "287082"}),
    answers={200: FACTOR},
    refusals=_REFUSED,
)
CONFIRM_FACTOR: Final = Operation(
    id="confirmFactor",
    tag=TAG,
    summary="Let the new second factor count, with a code of it",
    action=Action.SELF_MANAGE,
    bodies=json_body(CodeBody, {"code": "287082"}),
    answers={
        200: Answer(
            "New recovery codes, shown once; the old ones are worth nothing",
            Content("application/json", RecoveryCodes, {"recovery_codes": ["abcdefghij234567"]}),
        )
    },
    refusals=_REFUSED,
)
STEP_UP: Final = Operation(
    id="stepUp",
    tag=TAG,
    summary="Show the second factor for one act",
    description="Send the answer in `Gnomon-Step-Up` with exactly that request; its refusal without it names"
    " the `action`. A recovery code does not do.",
    action=Action.SELF_MANAGE,
    bodies=json_body(
        StepUpBody,
        {
            "code": "287082",
            "action": "revoke_all",
            "target": "POST /v1/revoke-all",
            "body_sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        },
    ),
    answers={
        200: Answer(
            "Good once, for two minutes",
            Content("application/json", StepUpDocument, {"step_up": "gnomon_su_…", "expires_in": 120}),
        )
    },
    refusals=_REFUSED,
)
