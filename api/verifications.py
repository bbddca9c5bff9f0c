"""Finding the customer who calls, and recording that it is them.

(spec: han, 5.2, steps 4 and 5)
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

from api import problems
from api.asks import ask
from api.operations import IDEMPOTENCY_KEY, WITH_BODY, Answer, Content, Operation, Route
from api.reading import HttpRequest, T, decode, query, read_body, require_json, rfc3339
from api.replies import Field, Reply, json_reply
from api.schemas import Time
from api.services import ApiServices
from api.session_schemas import Word
from provisioning.care import VALUE_CHARS_MAX, Candidate, CareAccount, SearchBy
from provisioning.verifications import Outcome, Verification
from security.policy import Action

_PERSONAL: Final[tuple[Field, ...]] = ((b"cache-control", b"no-store"),)


class SearchBody(Struct, forbid_unknown_fields=True):
    """What a customer says to be found by."""

    by: SearchBy
    value: Annotated[str, Meta(min_length=1, max_length=VALUE_CHARS_MAX)]
    case: Annotated[Word, Meta(description="Of the call, as the call centre names it", examples=["c-1001"])]


class MaskedAccount(Struct):
    """A contract as it is shown before the caller is verified."""

    number: str
    address: str


class MaskedCustomer(Struct):
    """A customer as shown before the caller is verified: enough to choose by."""

    customer: Annotated[str, Meta(description="How the customer care system calls them")]
    name: str
    accounts: list[MaskedAccount]

    @classmethod
    def of(cls, one: Candidate) -> "MaskedCustomer":
        return cls(
            one.ref, one.name, [MaskedAccount(account.number, account.address) for account in one.accounts]
        )


class MaskedCustomerList(Struct):
    """At most five; who means more has to ask more exactly."""

    items: list[MaskedCustomer]


class VerificationBody(Struct, forbid_unknown_fields=True):
    """How it was made sure who is calling, and how it ended: never what was asked or answered."""

    customer: Word
    method: Annotated[Word, Meta(examples=["questions"])]
    outcome: Outcome
    case: Word


class VerifiedAccount(Struct):
    """A contract of a customer who has been verified."""

    account: str
    number: str
    tariff: str
    status: str
    premises: str
    address: str

    @classmethod
    def of(cls, one: CareAccount) -> "VerifiedAccount":
        return cls(one.id, one.number, one.tariff, one.status, one.premises, one.address)


class VerificationDocument(Struct, omit_defaults=True):
    """A verification. If it was passed, the customer's accounts are open to you until it expires."""

    id: str
    outcome: Outcome
    expires_at: Time
    accounts: list[VerifiedAccount] = []

    @classmethod
    def of(cls, one: Verification, accounts: tuple[CareAccount, ...]) -> "VerificationDocument":
        shown = [VerifiedAccount.of(account) for account in accounts]
        return cls(one.id, one.outcome, rfc3339(one.expires_at_ms), shown)


class VerificationRoutes:
    """Handlers of ``/v1/customer-searches`` and ``/v1/verifications``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._desk = services.provisioning.desk

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/v1/customer-searches", SEARCH_CUSTOMERS, self.search),
            Route("POST", "/v1/verifications", CREATE_VERIFICATION, self.verify),
        )

    async def search(self, request: HttpRequest) -> Reply:
        """Search live; a POST, so that what a person says stands in no address and no log."""
        body, _ = await self._body(request, SearchBody)
        by = ask(request, self._services.ids, quiet=True)
        found = await self._desk.search(body.by, body.value, body.case, by)
        return json_reply(MaskedCustomerList([MaskedCustomer.of(one) for one in found]), fields=_PERSONAL)

    async def verify(self, request: HttpRequest) -> Reply:
        body, sent = await self._body(request, VerificationBody)
        by = ask(request, self._services.ids, sent)
        verification, accounts = await self._desk.verify(
            body.customer, body.method, body.outcome, body.case, by
        )
        if not verification.is_live(self._services.clock.now_ms()):
            accounts = ()  # it came again, long after
        return json_reply(VerificationDocument.of(verification, accounts), status=201, fields=_PERSONAL)

    async def _body(self, request: HttpRequest, type: type[T]) -> tuple[T, bytes]:
        query(request.scope, ())
        require_json(request.scope)
        limits = self._services.limits
        sent = await read_body(request, limits.body_bytes_max, limits.body_timeout_s)
        return decode(sent, type), sent


TAG: Final = "Customers"
_MASKED: Final = {
    "items": [
        {
            "customer": "cu-0007",
            "name": "A••• L•••",
            "accounts": [{"number": "••••07", "address": "•••• M•••, B•••"}],
        }
    ]
}
_VERIFIED: Final = {
    "id": "vf-abcdefghij234567abcdefgh",
    "outcome": "passed",
    "expires_at": "2026-09-21T12:30:00.000Z",
    "accounts": [
        {
            "account": "account-7",
            "number": "70000007",
            "tariff": "standard",
            "status": "active",
            "premises": "home-7",
            "address": "7 Example Mews, Brackwater",
        }
    ],
}

SEARCH_CUSTOMERS: Final = Operation(
    id="searchCustomers",
    tag=TAG,
    summary="Find the customer who calls",
    description="Live, in the customer care system. What is shown is masked until the customer is verified."
    " Each search counts; there are only so many an hour.",
    action=Action.CUSTOMER_FIND,
    bodies=(
        Content("application/json", SearchBody, {"by": "account", "value": "70000007", "case": "c-1001"}),
    ),
    answers={200: Answer("Who it may be", Content("application/json", MaskedCustomerList, _MASKED))},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.CUSTOMER_NOT_FOUND,
        problems.TOO_MANY_SEARCHES,
        problems.CCS_UNAVAILABLE,
    ),
)
CREATE_VERIFICATION: Final = Operation(
    id="createVerification",
    tag=TAG,
    summary="Record that it was made sure who is calling, and how that ended",
    description="What was asked and answered is no part of it. One that was passed opens the customer's"
    " accounts to you for 30 minutes. Each counts; there are only so many an hour.",
    action=Action.VERIFICATION_CREATE,
    parameters=(IDEMPOTENCY_KEY,),
    bodies=(
        Content(
            "application/json",
            VerificationBody,
            {"customer": "cu-0007", "method": "questions", "outcome": "passed", "case": "c-1001"},
        ),
    ),
    answers={201: Answer("It is recorded", Content("application/json", VerificationDocument, _VERIFIED))},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.CUSTOMER_NOT_FOUND,
        problems.TOO_MANY_SEARCHES,
        problems.CCS_UNAVAILABLE,
        problems.IDEMPOTENCY_MISMATCH,
    ),
)
