"""Accounts: the contracts by which devices take part. The customer care system says what they are."""

from typing import Final

from api import problems
from api.han_schemas import AccountBody, AccountDocument
from api.logins import json_body, read
from api.operations import NAME, WITH_BODY, Answer, Content, Operation, Route, in_path
from api.reading import HttpRequest, query, via_of
from api.replies import Reply, json_reply
from api.services import ApiServices
from registry.errors import AccountNotFoundError
from security.policy import Action, Target, may

ACCOUNT: Final = "account"


class AccountRoutes:
    """Handlers of ``/v1/accounts/{account}``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._accounts = services.accounts

    def routes(self) -> tuple[Route, ...]:
        one = "/v1/accounts/{account:str}"
        return (Route("GET", one, GET_ACCOUNT, self.read), Route("PUT", one, PUT_ACCOUNT, self.put))

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        id = _id(request)
        # An account is told by its id alone, so one of others is never looked up.
        if not may(request.scope["user"], Action.ACCOUNT_READ, Target(account=id)):
            raise AccountNotFoundError(id)
        return json_reply(AccountDocument.of(await self._accounts.account(id)))

    async def put(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, AccountBody)
        account = body.account(_id(request))
        kept = await self._accounts.put(account, request.scope["user"], via_of(request.scope))
        return json_reply(AccountDocument.of(kept))


def _id(request: HttpRequest) -> str:
    id: str = request.scope["path_params"][ACCOUNT]
    return id


TAG: Final = "Accounts"
_BODY: Final = {"customer": "cust-0007", "tariff": "res-tou", "status": "active"}
_PART: Final = in_path(ACCOUNT, "Id of an account", NAME, "account-7")
_CONTENT: Final = Content("application/json", AccountDocument, {"id": "account-7"} | _BODY)

GET_ACCOUNT: Final = Operation(
    id="getAccount",
    tag=TAG,
    summary="Read an account",
    description="`customer` is a reference that the customer care system resolves.",
    action=Action.ACCOUNT_READ,
    parameters=(_PART,),
    answers={200: Answer("The account", _CONTENT)},
    refusals=(problems.ACCOUNT_NOT_FOUND,),
    own_check=True,
)
PUT_ACCOUNT: Final = Operation(
    id="putAccount",
    tag=TAG,
    summary="Say what an account is",
    description="No name, address or telephone number: those stay in the customer care system.",
    action=Action.ACCOUNT_WRITE,
    parameters=(_PART,),
    bodies=json_body(AccountBody, _BODY),
    answers={200: Answer("The account", _CONTENT)},
    refusals=(*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE),
    own_check=True,
)
