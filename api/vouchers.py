"""Vouchers, the codes on labels, PINs and certificates: the people's side of how devices become known."""

from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from api import problems
from api.desk import path_thing
from api.gate import Gate, hidden_before_ms, unseen_before_ms
from api.operations import (
    CURSOR,
    LIMIT,
    NAME,
    THING,
    WITH_BODY,
    Answer,
    Content,
    Operation,
    Route,
    in_path,
    in_query,
)
from api.problems import VOUCHER_NOT_FOUND, ApiError
from api.reading import (
    HttpRequest,
    T,
    a_name,
    decode,
    invalid,
    page_limit,
    query,
    read_body,
    require_json,
    rfc3339,
    via_of,
)
from api.replies import Reply, json_reply, no_content
from api.schemas import Name, Time
from api.services import ApiServices
from registry.models import ThingKind
from security.policy import Action, Principal
from security.secret import Secret
from security.trust.claims import Claim, State, state_at
from security.trust.issued import IssuedRecord, IssuedState
from security.trust.vouchers import LABELS_MAX, Label, NewVoucher, NoSuchVoucherError

VOUCHER: Final = "voucher"
EUI64: Final = "eui64"
NOWHERE: Final = "-"
"""Asked for in the place of a voucher's premises when there is no such voucher: the work is the same."""
_SECRET: Final = ((b"cache-control", b"no-store"),)


class VoucherBody(Struct, forbid_unknown_fields=True):
    """For which device a voucher is wanted. What is left out is as the thing is registered."""

    thing: Name
    premises: Annotated[
        Name | UnsetType, Meta(description="If given, the thing must be registered there.")
    ] = UNSET
    kind: Annotated[
        ThingKind | UnsetType, Meta(description="If given, the registered one must be the same.")
    ] = UNSET
    model: Annotated[
        str, Meta(max_length=128, description="If given, the registered one must be the same.")
    ] = ""


class VoucherDocument(Struct, omit_defaults=True):
    """A voucher, without its code."""

    id: Annotated[str, Meta(description="The user name of HTTP Basic; the code is the password.")]
    thing: Name
    premises: Name
    state: State
    made_at: Time
    expires_at: Time
    used_at: Time | None = None
    serial: Annotated[str, Meta(description="Of the certificate that it brought.")] = ""

    @classmethod
    def of(cls, claim: Claim, now_ms: int) -> "VoucherDocument":
        return cls(
            claim.id,
            claim.thing,
            claim.premises,
            state_at(claim, now_ms),
            rfc3339(claim.made_at_ms),
            rfc3339(claim.expires_at_ms or 0),
            None if claim.used_at_ms is None else rfc3339(claim.used_at_ms),
            claim.serial,
        )


class NewVoucherDocument(Struct):
    """A voucher as it is shown once."""

    id: str
    code: Annotated[
        str, Meta(description="Shown now and never again; hyphens and small letters do not matter.")
    ]
    expires_at: Time


class VoucherList(Struct, omit_defaults=True):
    """A page of vouchers; without ``next`` it is the last."""

    items: list[VoucherDocument]
    next: str | None = None


class LabelRow(Struct, forbid_unknown_fields=True):
    """What is printed on one device."""

    eui64: Annotated[str, Meta(max_length=32, examples=["00124B0001A2B3C4"])]
    code: Annotated[str, Meta(max_length=64, description="6, 8, 12 or 16 bytes and their CRC, hexadecimal.")]
    thing: Annotated[str, Meta(pattern="^[a-zA-Z0-9:_-]{0,64}$", description="Default: the EUI-64.")] = ""
    model: Annotated[str, Meta(max_length=128)] = ""


class LabelBatch(Struct, forbid_unknown_fields=True):
    """Rows of a vendor's delivery manifest."""

    items: Annotated[list[LabelRow], Meta(max_length=LABELS_MAX)]


class LabelsKept(Struct):
    """How many rows are new, and which EUI-64 were there already and stayed as they were."""

    added: int
    known: list[str]


class PinKept(Struct, forbid_unknown_fields=True):
    """A registration PIN as it stands on a label."""

    pin: Annotated[str, Meta(max_length=6)]
    sfdi: Annotated[str, Meta(max_length=15, description="If given, the thing must have or have had it.")] = (
        ""
    )


class CertificateDocument(Struct, omit_defaults=True):
    """A certificate of a thing, and what became of it."""

    serial: str
    state: IssuedState
    lfdi: str
    sfdi: str
    not_before: Time
    not_after: Time
    issued_at: Time
    revoked_at: Time | None = None
    reason: str = ""

    @classmethod
    def of(cls, record: IssuedRecord) -> "CertificateDocument":
        return cls(
            record.serial,
            record.state,
            record.lfdi,
            record.sfdi,
            rfc3339(record.not_before_ms),
            rfc3339(record.not_after_ms),
            rfc3339(record.at_ms),
            None if record.revoked_at_ms is None else rfc3339(record.revoked_at_ms),
            record.reason,
        )


class CertificateList(Struct):
    """All that were issued under a name, newest first."""

    items: list[CertificateDocument]
    suspicions: Annotated[int, Meta(description="How often a key of this thing was brought twice.")]


class VoucherRoutes:
    """Handlers of vouchers, labels, PINs and certificates."""

    def __init__(self, services: ApiServices) -> None:
        self._trust = services.trust
        self._vouchers = services.trust.vouchers
        self._limits = services.limits
        self._clock = services.clock
        self._registry = services.registry
        self._gate = Gate(services.registry, services.devices)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/v1/vouchers", CREATE_VOUCHER, self.create),
            Route("GET", "/v1/vouchers", LIST_VOUCHERS, self.list),
            Route("GET", "/v1/vouchers/{voucher:str}", GET_VOUCHER, self.read),
            Route("DELETE", "/v1/vouchers/{voucher:str}", REVOKE_VOUCHER, self.revoke),
            Route("POST", "/v1/install-codes", LOAD_LABELS, self.load_labels),
            Route("DELETE", "/v1/install-codes/{eui64:str}", TAKE_BACK_LABEL, self.take_back_label),
            Route("PUT", "/v1/things/{thing:str}/pin", PUT_PIN, self.keep_pin),
            Route("GET", "/v1/things/{thing:str}/certificates", LIST_CERTIFICATES, self.certificates),
        )

    async def create(self, request: HttpRequest) -> Reply:
        body = await self._body(request, VoucherBody)
        by: Principal = request.scope["user"]
        premises = await self._place(body, by)
        is_gateway = None if body.kind is UNSET else body.kind is ThingKind.GATEWAY
        new = NewVoucher(premises, body.thing, is_gateway, body.model)
        claim, code = await self._vouchers.make(new, by, via_of(request.scope))
        shown = NewVoucherDocument(claim.id, code.reveal(), rfc3339(claim.expires_at_ms or 0))
        location = (b"location", f"/v1/vouchers/{claim.id}".encode())
        return json_reply(shown, status=201, fields=(*_SECRET, location))

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("premises", "limit", "cursor"))
        premises = a_name(fields, "premises")
        if premises is None:
            raise invalid("say whose: premises=…")
        by: Principal = request.scope["user"]
        target = await self._gate.require_premises(by, Action.VOUCHER_CREATE, premises)
        since_ms = unseen_before_ms(by, target)
        page = await self._vouchers.of_premises(premises, page_limit(fields), fields.get("cursor"))
        now_ms = self._clock.now_ms()
        shown = [VoucherDocument.of(one, now_ms) for one in page.claims if one.made_at_ms >= since_ms]
        return json_reply(VoucherList(shown, page.next))

    async def read(self, request: HttpRequest) -> Reply:
        claim = await self._theirs(request)
        return json_reply(VoucherDocument.of(claim, self._clock.now_ms()))

    async def revoke(self, request: HttpRequest) -> Reply:
        claim = await self._theirs(request)
        await self._vouchers.revoke(claim.id, request.scope["user"], via_of(request.scope))
        return no_content()

    async def load_labels(self, request: HttpRequest) -> Reply:
        body = await self._body(request, LabelBatch)
        labels = [Label(row.eui64, Secret(row.code), row.thing, row.model) for row in body.items]
        known = await self._vouchers.load_labels(labels, request.scope["user"], via_of(request.scope))
        return json_reply(LabelsKept(len(labels) - len(known), [*known]), status=201)

    async def take_back_label(self, request: HttpRequest) -> Reply:
        eui64: str = request.scope["path_params"][EUI64]
        await self._vouchers.take_back_label(eui64, request.scope["user"], via_of(request.scope))
        return no_content()

    async def keep_pin(self, request: HttpRequest) -> Reply:
        name = path_thing(request.scope)
        body = await self._body(request, PinKept)
        by, sfdi = request.scope["user"], body.sfdi.replace("-", "")
        await self._trust.pins.keep(name, Secret(body.pin), by, via_of(request.scope), sfdi)
        return no_content()

    async def certificates(self, request: HttpRequest) -> Reply:
        name, since_ms = path_thing(request.scope), hidden_before_ms(request.scope)
        records = await self._trust.issued.of_thing(name)
        registration = (await self._registry.thing(name)).registration
        suspicion = await self._trust.keys.suspicion(name, registration)
        return json_reply(
            CertificateList(
                [CertificateDocument.of(one) for one in records if one.at_ms >= since_ms],
                sum(at_ms >= since_ms for at_ms in suspicion.at_ms),
            )
        )

    async def _place(self, body: VoucherBody, by: Principal) -> str:
        """Return the premises for which a voucher is wanted; raise unless the caller may make one there."""
        if body.premises is not UNSET:
            await self._gate.require_premises(by, Action.VOUCHER_CREATE, body.premises)
            return body.premises
        return (await self._gate.require_thing(by, Action.VOUCHER_CREATE, body.thing)).premises

    async def _theirs(self, request: HttpRequest) -> Claim:
        """Return the voucher in the path; one of other people's premises, or from before, is not there."""
        by: Principal = request.scope["user"]
        try:
            claim = await self._vouchers.voucher(request.scope["path_params"][VOUCHER])
        except NoSuchVoucherError:
            claim = None
        premises = NOWHERE if claim is None else claim.premises
        try:
            target = await self._gate.require_premises(by, Action.VOUCHER_CREATE, premises)
        except ApiError as error:
            raise ApiError(VOUCHER_NOT_FOUND) from error
        if claim is None or claim.made_at_ms < unseen_before_ms(by, target):
            raise ApiError(VOUCHER_NOT_FOUND)
        return claim

    async def _body(self, request: HttpRequest, type: type[T]) -> T:
        require_json(request.scope)
        limits = self._limits
        return decode(await read_body(request, limits.body_bytes_max, limits.body_timeout_s), type)


TAG: Final = "Joining"
_MADE: Final = {
    "id": "v4fqtlg2xkz6w3yva",
    "code": "ABCD-EFGH-IJKL-MNOP-QRST-UVWX-YZQ",
    "expires_at": "2026-09-22T12:00:00.000Z",
}
_SHOWN: Final = {
    "id": "v4fqtlg2xkz6w3yva",
    "thing": "hall-thermostat",
    "premises": "home-7",
    "state": "issued",
    "made_at": "2026-09-21T12:00:00.000Z",
    "expires_at": "2026-09-22T12:00:00.000Z",
}
_WANTED: Final = {"premises": "home-7", "thing": "hall-thermostat", "kind": "device"}
_LABELS: Final = {"items": [{"eui64": "00124B0001A2B3C4", "code": "83FED3407A939723A5C639B26916D505C3B5"}]}
_CERTIFICATE: Final = {
    "serial": "0f4be7d5f2c44a9d8d0ac5a1a1a2b3c4",
    "state": "active",
    "lfdi": "3E4F45AB31EDFE5B67E343E5E4562E31984E23E5",
    "sfdi": "167261211391",
    "not_before": "2026-09-21T11:00:00.000Z",
    "not_after": "2027-09-21T12:00:00.000Z",
    "issued_at": "2026-09-21T12:00:00.000Z",
}
_VOUCHER: Final = in_path(
    VOUCHER, "Id of a voucher", {"type": "string", "pattern": "^v[a-z2-7]{16}$"}, "v4fqtlg2xkz6w3yva"
)

CREATE_VOUCHER: Final = Operation(
    id="createVoucher",
    tag=TAG,
    summary="Make a code with which one device joins",
    description="Good for a day and one key. The thing must be registered; its name is enough.",
    action=Action.VOUCHER_CREATE,
    bodies=(Content("application/json", VoucherBody, _WANTED),),
    answers={201: Answer("The code", Content("application/json", NewVoucherDocument, _MADE), ("Location",))},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.PREMISES_NOT_FOUND,
        problems.THING_NOT_FOUND,
        problems.UNFIT_THING,
        problems.TOO_MANY_VOUCHERS,
        problems.TOO_MANY_TRIES,
    ),
)
LIST_VOUCHERS: Final = Operation(
    id="listVouchers",
    tag=TAG,
    summary="List the vouchers of premises, those of the last week",
    action=Action.VOUCHER_CREATE,
    parameters=(in_query("premises", "Whose", NAME, "home-7"), LIMIT, CURSOR),
    answers={200: Answer("A page", Content("application/json", VoucherList, {"items": [_SHOWN]}))},
    refusals=(problems.INVALID_CURSOR, problems.PREMISES_NOT_FOUND),
)
GET_VOUCHER: Final = Operation(
    id="getVoucher",
    tag=TAG,
    summary="Read a voucher",
    action=Action.VOUCHER_CREATE,
    parameters=(_VOUCHER,),
    answers={200: Answer("The voucher", Content("application/json", VoucherDocument, _SHOWN))},
    refusals=(problems.VOUCHER_NOT_FOUND,),
    own_check=True,
)
REVOKE_VOUCHER: Final = Operation(
    id="revokeVoucher",
    tag=TAG,
    summary="Take a voucher back",
    description="A certificate that it has brought stays. Again is no error.",
    action=Action.VOUCHER_CREATE,
    parameters=(_VOUCHER,),
    answers={204: Answer("It is good for nothing")},
    refusals=(problems.VOUCHER_NOT_FOUND,),
    own_check=True,
)
LOAD_LABELS: Final = Operation(
    id="loadInstallCodes",
    tag=TAG,
    summary="Keep the codes on labels, from a vendor's delivery manifest",
    description=f"At most {LABELS_MAX} rows. One that can be no label keeps the whole batch out.",
    action=Action.INSTALL_CODE_WRITE,
    bodies=(Content("application/json", LabelBatch, _LABELS),),
    answers={201: Answer("What was new", Content("application/json", LabelsKept, {"added": 1, "known": []}))},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.INVALID_LABEL,
        problems.TOO_MANY_TRIES,
    ),
)
TAKE_BACK_LABEL: Final = Operation(
    id="takeBackInstallCode",
    tag=TAG,
    summary="Take the code of a label back",
    description="For good: the device of that label joins by a voucher. A certificate that the code has"
    " brought stays. Again is no error.",
    action=Action.INSTALL_CODE_WRITE,
    parameters=(
        in_path(EUI64, "On the label; punctuation does not matter", {"type": "string"}, "00124B0001A2B3C4"),
    ),
    answers={204: Answer("It is good for nothing")},
    refusals=(problems.INSTALL_CODE_NOT_FOUND,),
    own_check=True,
)
PUT_PIN: Final = Operation(
    id="putPin",
    tag=TAG,
    summary="Keep the registration PIN on a thing's label",
    description="It shows the device that we are its utility. It earns no certificate.",
    action=Action.INSTALL_CODE_WRITE,
    parameters=(THING,),
    bodies=(Content("application/json", PinKept, {"pin": "123455"}),),
    answers={204: Answer("It is kept, sealed")},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.THING_NOT_FOUND,
        problems.INVALID_PIN,
    ),
)
LIST_CERTIFICATES: Final = Operation(
    id="listCertificates",
    tag=TAG,
    summary="List the certificates of a thing, newest first",
    action=Action.CERTIFICATE_READ,
    parameters=(THING,),
    answers={
        200: Answer(
            "All of them",
            Content("application/json", CertificateList, {"items": [_CERTIFICATE], "suspicions": 0}),
        )
    },
    refusals=(problems.THING_NOT_FOUND,),
)
