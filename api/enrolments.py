"""Enrolments and consents: who takes part in what, and who said yes to it.

An enrolment is seen by who may see its device now *and* whose it was made for: with the device of somebody
who moved out, what they took part in does not come into the hands of whoever moved in.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from api import problems
from api.gate import Gate
from api.limits import PAGE_MAX
from api.listing import seen_page
from api.logins import json_body, read
from api.operations import (
    CURSOR,
    LIMIT,
    NAME,
    TIME,
    WITH_BODY,
    Answer,
    Content,
    Operation,
    Route,
    in_path,
    in_query,
)
from api.program_schemas import (
    ConsentBody,
    ConsentDocument,
    ConsentList,
    EnrolmentDocument,
    EnrolmentList,
    MyEnrolmentBody,
    MyProgramDocument,
    MyProgramList,
    NewEnrolmentBody,
    SaidYes,
    page_of,
)
from api.reading import HttpRequest, a_name, instant_ms, invalid, page_limit, query, via_of
from api.replies import Reply, json_reply, no_content
from api.services import ApiServices
from infra.documents.port import StoreUnavailableError
from programs.eligibility import Code, blocking
from programs.errors import EnrolmentNotFoundError, IneligibleError
from programs.records import ConsentChannel, Enrolment, NewConsent
from programs.states import ProgramState
from programs.store import EnrolmentPage
from registry.devices import Device
from security.audit import Via
from security.policy import Action, Principal, Target, may, scope_of
from shadow.errors import ShadowError

ENROLMENT: Final = "enrolment"
HOLDER: Final = "holder"
NO_DEVICE: Final = "-"
"""Asked for in the place of an enrolment's device when there is no such enrolment: the work is the same."""
ReadPage = Callable[[int, str | None], Awaitable[EnrolmentPage]]


class Enrolments:
    """Handlers of ``/v1/enrolments``, ``/v1/me/enrolments`` and ``/v1/me/consents``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._enrolments = services.programs.enrolments
        self._consents = services.programs.consents
        self._catalogue = services.programs.catalogue
        self._devices = services.devices
        self._accounts = services.accounts
        self._gate = Gate(services.registry, services.devices)

    def routes(self) -> tuple[Route, ...]:
        one, mine = "/v1/enrolments/{enrolment:str}", "/v1/me/enrolments"
        return (
            Route("GET", "/v1/enrolments", LIST_ENROLMENTS, self.list),
            Route("POST", "/v1/enrolments", ENROL, self.enrol),
            Route("GET", one, GET_ENROLMENT, self.read),
            Route("DELETE", one, END_ENROLMENT, self.leave),
            Route("POST", f"{one}/retry", RETRY_ENROLMENT, self.retry),
            Route("POST", f"{one}/pause", PAUSE_ENROLMENT, self.pause),
            Route("POST", f"{one}/lift", LIFT_ENROLMENT, self.lift),
            Route("GET", "/v1/me/programs", LIST_MY_PROGRAMS, self.programs),
            Route("GET", mine, LIST_MY_ENROLMENTS, self.mine),
            Route("POST", mine, ENROL_MINE, self.enrol_mine),
            Route("DELETE", f"{mine}/{{enrolment:str}}", LEAVE, self.leave),
            Route("GET", "/v1/consents", LIST_CONSENTS, self.consents),
            Route("GET", "/v1/me/consents", LIST_MY_CONSENTS, self.consents),
            Route("POST", "/v1/me/consents", GIVE_CONSENT, self.give_mine),
            Route("DELETE", "/v1/me/consents", WITHDRAW_CONSENT, self.withdraw_mine),
        )

    # Reading

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("device", "premises", "limit", "cursor"))
        device, premises = a_name(fields, "device"), a_name(fields, "premises")
        limit, cursor = page_limit(fields), fields.get("cursor")
        if (device is None) is (premises is None):
            raise invalid("say of what: device=…, or premises=…")
        by: Principal = request.scope["user"]
        if device is not None:
            await self._gate.require_device(by, Action.ENROLMENT_READ, device)
            found = await self._in_sight(by, await self._enrolments.of_device(device))
            return _listed(by, found, None)
        return await self._page(by, limit, cursor, partial(self._enrolments.of_premises, premises or ""))

    async def mine(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor"))
        by: Principal = request.scope["user"]
        limit, cursor = page_limit(fields), fields.get("cursor")
        return await self._page(by, limit, cursor, partial(self._enrolments.of_account, by.account))

    async def programs(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor"))
        by: Principal = request.scope["user"]
        offered = await self._catalogue.programs(ProgramState.PUBLISHED)
        page, following = page_of(offered, page_limit(fields), fields.get("cursor"))
        there = (await self._enrolments.of_account(by.account, PAGE_MAX)).enrolments
        items = [
            MyProgramDocument.of(
                program, sorted(one.device for one in there if one.program == program.id and one.is_live)
            )
            for program in page
        ]
        return json_reply(MyProgramList(items, following))

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return _shown(request, await self._theirs(request, Action.ENROLMENT_READ))

    # Taking part

    async def enrol(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, NewEnrolmentBody)
        by, via = _who(request)
        await self._gate.require_device(by, Action.ENROLMENT_REQUEST, body.device)
        device = await self._devices.device(body.device)
        if body.consent is not None:
            await self._gate.require_device(by, Action.CONSENT_GIVE, body.device)
            await self._say_yes(device, body.program, body.consent, by, via)
        return await self._make(request, device, body.program, body.params)

    async def enrol_mine(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, MyEnrolmentBody)
        by, via = _who(request)
        await self._gate.require_device(by, Action.ENROLMENT_REQUEST, body.device)
        device = await self._devices.device(body.device)
        await self._say_yes(device, body.program, _own_word(by, body.text_version), by, via)
        return await self._make(request, device, body.program, body.params)

    async def leave(self, request: HttpRequest) -> Reply:
        """End an enrolment, at once or at a time; it needs nobody else and no reason."""
        at_ms = instant_ms(query(request.scope, ("at",)), "at")
        one = await self._theirs(request, Action.CONSENT_WITHDRAW)
        return _shown(request, await self._enrolments.leave(one.id, *_who(request), at_ms=at_ms))

    async def retry(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        one = await self._theirs(request, Action.ENROLMENT_REQUEST)
        return _shown(request, await self._enrolments.retry(one.id, *_who(request)))

    async def pause(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        one = await self._theirs(request, Action.CONSENT_WITHDRAW)
        return _shown(request, await self._enrolments.pause(one.id, *_who(request)))

    async def lift(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        one = await self._theirs(request, Action.ENROLMENT_REQUEST)
        return _shown(request, await self._enrolments.lift(one.id, *_who(request)))

    # Consents

    async def consents(self, request: HttpRequest) -> Reply:
        device = a_name(query(request.scope, ("device",)), "device")
        if device is None:
            raise invalid("say of what: device=…")
        by: Principal = request.scope["user"]
        target = await self._gate.require_device(by, Action.CONSENT_READ, device)
        said = await self._consents.history(device)
        # What an earlier account said for this device is not this one's to read.
        items = [ConsentDocument.of(one) for one in said if one.account == target.account]
        return json_reply(ConsentList(items))

    async def give_mine(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, ConsentBody)
        by, via = _who(request)
        await self._gate.require_device(by, Action.CONSENT_GIVE, body.device)
        device = await self._devices.device(body.device)
        said = _own_word(by, body.text_version)
        record = await self._consents.give(await self._consent(device, body.program, said), by, via)
        await self._go_on(body.device)
        return json_reply(ConsentDocument.of(record))

    async def withdraw_mine(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("device", "program"))
        device, program = a_name(fields, "device"), a_name(fields, "program")
        if device is None or program is None:
            raise invalid("say which: device=… and program=…")
        by, via = _who(request)
        await self._gate.require_device(by, Action.CONSENT_WITHDRAW, device)
        await self._consents.withdraw(device, program, by, via)
        await self._go_on(device)
        return no_content()

    # Details

    async def _say_yes(self, device: Device, program: str, said: SaidYes, by: Principal, via: Via) -> None:
        """Record a yes, unless something else keeps the device out: then nothing was agreed to."""
        found = (await self._enrolments.options(device.id)).get(program)
        if found is None:
            await self._catalogue.program(program)
            raise IneligibleError(device.id, program, (Code.PROGRAM_CLOSED,))
        refused = blocking(found, (Code.NO_CONSENT, Code.ALREADY_ENROLLED))
        if refused:
            raise IneligibleError(device.id, program, refused)
        await self._consents.give(await self._consent(device, program, said), by, via)

    async def _consent(self, device: Device, program: str, said: SaidYes) -> NewConsent:
        known = (await self._accounts.accounts([device.account])).get(device.account)
        return NewConsent(
            device=device.id,
            program=program,
            account=device.account,
            customer=device.account if known is None else known.customer,
            given_by=said.given_by,
            relation=said.relation,
            channel=said.channel,
            text_version=said.text_version,
        )

    async def _make(
        self, request: HttpRequest, device: Device, program: str, params: dict[str, Any]
    ) -> Reply:
        by, via = _who(request)
        made = await self._enrolments.enrol(
            device.id, program, device.account, device.premises, by, via, params, waiting_for_consent=True
        )
        location = (b"location", f"/v1/enrolments/{made.id}".encode())
        return json_reply(_document(by, made), status=201, fields=(location,))

    async def _theirs(self, request: HttpRequest, action: Action) -> Enrolment:
        """Return the enrolment in the path; one that is not the caller's to see is not there."""
        id: str = request.scope["path_params"][ENROLMENT]
        by: Principal = request.scope["user"]
        try:
            one = await self._enrolments.enrolment(id)
        except EnrolmentNotFoundError:
            one = None
        targets = await self._gate.devices([NO_DEVICE if one is None else one.device])
        if one is None or not _may(by, Action.ENROLMENT_READ, one, targets.get(one.device)):
            raise EnrolmentNotFoundError(id)
        if not _may(by, action, one, targets.get(one.device)):
            raise problems.ApiError(
                problems.FORBIDDEN, f"{by.role} may read this, but {action} is not theirs"
            )
        return one

    async def _page(self, by: Principal, limit: int, cursor: str | None, read: ReadPage) -> Reply:
        async def fetch(limit: int, cursor: str | None) -> tuple[Sequence[Enrolment], str | None]:
            page = await read(limit, cursor)
            return page.enrolments, page.next

        found, following = await seen_page(fetch, partial(self._in_sight, by), limit, cursor)
        return _listed(by, found, following)

    async def _in_sight(self, by: Principal, found: Sequence[Enrolment]) -> Sequence[Enrolment]:
        """Return those which the caller may see."""
        targets = await self._gate.devices({one.device for one in found})
        return [one for one in found if _may(by, Action.ENROLMENT_READ, one, targets.get(one.device))]

    async def _go_on(self, device: str) -> None:
        """Let what follows from a consent happen; what is not done now, the worker does."""
        with suppress(StoreUnavailableError, ShadowError):
            await self._enrolments.reconcile(device)


def _who(request: HttpRequest) -> tuple[Principal, Via]:
    return request.scope["user"], via_of(request.scope)


def _may(by: Principal, action: Action, one: Enrolment, device: Target | None) -> bool:
    """Tell whether somebody may do this to an enrolment: it is its own account's."""
    if device is None or not may(by, Action.DEVICE_READ, device):
        return False
    account = device.account if device.account == one.account else ""
    premises = device.premises if device.premises == one.premises else ""
    return may(by, action, replace(device, account=account, premises=premises))


def _own_word(by: Principal, text_version: str) -> SaidYes:
    """Return the yes of somebody who is logged in."""
    return SaidYes(by.name, HOLDER, ConsentChannel.APP, text_version)


def _document(by: Principal, one: Enrolment) -> EnrolmentDocument:
    return EnrolmentDocument.of(one, scope_of(by.role, Action.ENROLMENT_READ))


def _listed(by: Principal, found: Sequence[Enrolment], following: str | None) -> Reply:
    return json_reply(EnrolmentList([_document(by, one) for one in found], following))


def _shown(request: HttpRequest, one: Enrolment) -> Reply:
    return json_reply(_document(request.scope["user"], one))


TAG: Final = "Enrolments"
HOME: Final = "Own home"
_EXAMPLE: Final[dict[str, Any]] = {
    "id": "enr-hall-thermostat-cpp-27",
    "device": "hall-thermostat",
    "program": "cpp-27",
    "premises": "home-7",
    "state": "READY",
    "state_since": "2026-09-21T12:00:40.000Z",
    "since": "2026-09-21T12:00:00.000Z",
    "period": 1,
    "rev": 1,
    "params": {"maxOffset": 20},
    "tariff": "t7",
    "activated_at": "2026-09-21T12:00:20.000Z",
    "ready_at": "2026-09-21T12:00:40.000Z",
    "account": "account-7",
}
_SAID: Final = {
    "id": "con-hall-thermostat-1",
    "device": "hall-thermostat",
    "program": "cpp-27",
    "given_by": "cust-0007",
    "relation": "holder",
    "channel": "phone",
    "text_version": "1",
    "at": "2026-09-21T12:00:00.000Z",
}
_ENROLMENT: Final = in_path(ENROLMENT, "Id of an enrolment", NAME, "enr-hall-thermostat-cpp-27")
_CONTENT: Final = Content("application/json", EnrolmentDocument, _EXAMPLE)
_ONE: Final = {200: Answer("The enrolment", _CONTENT)}
_MADE: Final = {201: Answer("The enrolment", _CONTENT, ("Location",))}
_PAGE: Final = {
    200: Answer("A page", Content("application/json", EnrolmentList, {"items": [_EXAMPLE]})),
}
_CONSENTS: Final = {
    200: Answer("Newest first", Content("application/json", ConsentList, {"items": [_SAID]})),
}
_DEVICE: Final = in_query("device", "Of which device", NAME, "hall-thermostat")
_AT: Final = in_query("at", "When; at once if left out", TIME, "2026-12-31T23:00:00Z")
_ASKING: Final = (
    *WITH_BODY,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.DEVICE_NOT_FOUND,
    problems.PROGRAM_NOT_FOUND,
    problems.INELIGIBLE,
    problems.INVALID_ENTRY,
    problems.INVALID_CONSENT,
    problems.ILLEGAL_TRANSITION,
)


def _acting(id: str, summary: str, action: Action, description: str = "") -> Operation:
    return Operation(
        id=id,
        tag=TAG,
        summary=summary,
        description=description,
        action=action,
        parameters=(_ENROLMENT,),
        answers=_ONE,
        refusals=(problems.ENROLMENT_NOT_FOUND, problems.ILLEGAL_TRANSITION),
        own_check=True,
    )


LIST_ENROLMENTS: Final = Operation(
    id="listEnrolments",
    tag=TAG,
    summary="List the enrolments of a device, those that have ended too, or those at premises",
    description="Those you may see; a page may hold fewer than `limit` and still have a `next`.",
    action=Action.ENROLMENT_READ,
    parameters=(_DEVICE, in_query("premises", "At which premises", NAME), LIMIT, CURSOR),
    answers=_PAGE,
    refusals=(problems.INVALID_CURSOR, problems.DEVICE_NOT_FOUND),
)
ENROL: Final = Operation(
    id="enrol",
    tag=TAG,
    summary="Let a registered device take part in a program",
    description="For the customer of a live verification. With a yes that was given just now it begins at"
    " once; without one it waits for it. What takes part already is answered as it is. Whoever does not"
    " fit is told every reason (`reasons`), and nothing was agreed to.",
    action=Action.ENROLMENT_REQUEST,
    bodies=json_body(
        NewEnrolmentBody,
        {
            "device": "hall-thermostat",
            "program": "cpp-27",
            "consent": {
                "given_by": "cust-0007",
                "relation": "holder",
                "channel": "phone",
                "text_version": "1",
            },
        },
    ),
    answers=_MADE,
    refusals=_ASKING,
)
GET_ENROLMENT: Final = _acting("getEnrolment", "Read an enrolment", Action.ENROLMENT_READ)
END_ENROLMENT: Final = Operation(
    id="endEnrolment",
    tag=TAG,
    summary="End an enrolment, at once or at a time to come",
    action=Action.CONSENT_WITHDRAW,
    parameters=(_ENROLMENT, _AT),
    answers=_ONE,
    refusals=(problems.ENROLMENT_NOT_FOUND,),
    own_check=True,
)
RETRY_ENROLMENT: Final = _acting(
    "retryEnrolment", "Tell a device once more what it failed to take", Action.ENROLMENT_REQUEST
)
PAUSE_ENROLMENT: Final = _acting(
    "pauseEnrolment", "Let a device stay out for a while", Action.CONSENT_WITHDRAW
)
LIFT_ENROLMENT: Final = _acting("liftEnrolment", "Let a paused device go on", Action.ENROLMENT_REQUEST)
LIST_MY_PROGRAMS: Final = Operation(
    id="listMyPrograms",
    tag=HOME,
    summary="List the programs on offer, and which of one's devices take part",
    description="Whether another device fits is told by its options.",
    action=Action.HOME_READ,
    parameters=(LIMIT, CURSOR),
    answers={
        200: Answer(
            "A page",
            Content(
                "application/json",
                MyProgramList,
                {
                    "items": [
                        {
                            "id": "cpp-27",
                            "name": "Critical peaks",
                            "type": "CPP",
                            "description": "",
                            "consent_text_version": "1",
                            "devices": ["hall-thermostat"],
                        }
                    ]
                },
            ),
        )
    },
)
LIST_MY_ENROLMENTS: Final = Operation(
    id="listMyEnrolments",
    tag=HOME,
    summary="List what one's devices take part in",
    action=Action.HOME_READ,
    parameters=(LIMIT, CURSOR),
    answers=_PAGE,
    refusals=(problems.INVALID_CURSOR,),
)
ENROL_MINE: Final = Operation(
    id="enrolMine",
    tag=HOME,
    summary="Let one's own device take part in a program, and say yes to its text",
    description="Whoever does not fit is told every reason (`reasons`), and nothing was agreed to.",
    action=Action.HOME_WRITE,
    bodies=json_body(
        MyEnrolmentBody, {"device": "hall-thermostat", "program": "cpp-27", "text_version": "1"}
    ),
    answers=_MADE,
    refusals=_ASKING,
)
LEAVE: Final = Operation(
    id="leaveProgram",
    tag=HOME,
    summary="Leave a program, at once or at a time to come",
    description="It needs nobody else, and no reason.",
    action=Action.HOME_WRITE,
    parameters=(_ENROLMENT, _AT),
    answers=_ONE,
    refusals=(problems.ENROLMENT_NOT_FOUND,),
    own_check=True,
)
LIST_CONSENTS: Final = Operation(
    id="listConsents",
    tag=TAG,
    summary="List what was said yes to for a device, and what was taken back",
    action=Action.CONSENT_READ,
    parameters=(replace(_DEVICE, required=True),),
    answers=_CONSENTS,
    refusals=(problems.DEVICE_NOT_FOUND,),
)
LIST_MY_CONSENTS: Final = replace(
    LIST_CONSENTS,
    id="listMyConsents",
    tag=HOME,
    summary="List what one has said yes to for a device",
    action=Action.HOME_READ,
)
GIVE_CONSENT: Final = Operation(
    id="giveConsent",
    tag=HOME,
    summary="Say yes to a program for one of one's devices, or to new firmware (`ota`)",
    description="An enrolment that waits for it goes on.",
    action=Action.HOME_WRITE,
    bodies=json_body(ConsentBody, {"device": "hall-thermostat", "program": "ota", "text_version": "1"}),
    answers={200: Answer("The yes", Content("application/json", ConsentDocument, _SAID))},
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.DEVICE_NOT_FOUND,
        problems.PROGRAM_NOT_FOUND,
        problems.INVALID_CONSENT,
    ),
)
WITHDRAW_CONSENT: Final = Operation(
    id="withdrawConsent",
    tag=HOME,
    summary="Take a yes back; what was begun with it ends",
    description="It needs nobody else, and no reason. Again is no error.",
    action=Action.HOME_WRITE,
    parameters=(
        replace(_DEVICE, required=True),
        in_query("program", "To which program", NAME, "cpp-27"),
    ),
    answers={204: Answer("It is taken back")},
    refusals=(problems.DEVICE_NOT_FOUND,),
)
