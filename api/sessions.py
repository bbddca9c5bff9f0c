"""Provisioning sessions: from opening one to the customer's having been told.

(spec: han, 5.2 and 5.3)
"""

from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

import msgspec

from api import notices
from api import session_operations as declared
from api.asks import ask
from api.operations import Route
from api.problems import FORBIDDEN, ApiError
from api.reading import HttpRequest, decode, expected_version, ms_of, query, read_body, require_json
from api.replies import Reply, etag, json_reply
from api.services import ApiServices
from api.session_gate import SessionGate
from api.session_schemas import (
    AbortBody,
    ConfirmBody,
    DiscoveryBody,
    GrantBody,
    NewSessionBody,
    ProgramsBody,
    RecordDocument,
    RecordList,
    RemedyDocument,
    RemedyDoneBody,
    RemedyList,
    RemedyNoticeBody,
    RetryBody,
    SelectionBody,
    SessionConsentBody,
    SessionDeviceDocument,
    SessionDeviceList,
    SessionDocument,
    SessionOptionDocument,
    SessionOptionList,
    VerificationOfSessionBody,
    sight_of,
)
from api.streams import Places
from provisioning.asking import Ask
from provisioning.service import Discovery, NewSession
from provisioning.session import Session
from security.policy import Action, Principal, Role, may_at_all

B = TypeVar("B", bound=msgspec.Struct)
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class _Asked(Generic[B]):
    """A change of a session, read: which, what, and who asks for it."""

    id: str
    body: B
    ask: Ask


class Sessions:
    """Handlers of ``/v1/provisioning-sessions``."""

    def __init__(self, services: ApiServices, places: Places) -> None:
        self._services = services
        self._places = places
        self._registry = services.registry
        self._sessions = services.provisioning.sessions
        self._outbox = services.outbox
        self._gate = SessionGate(self._sessions, services.provisioning.verifications, services.registry)

    def routes(self) -> tuple[Route, ...]:
        all_sessions = "/v1/provisioning-sessions"
        one = f"{all_sessions}/{{session:str}}"
        return (
            Route("POST", all_sessions, declared.OPEN_SESSION, self.open),
            Route("GET", one, declared.GET_SESSION, self.read),
            Route("GET", f"{one}/devices", declared.LIST_SESSION_DEVICES, self.devices),
            Route("GET", f"{one}/notices", declared.WATCH_SESSION, self.watch),
            Route("GET", f"{one}/options", declared.LIST_OPTIONS, self.options),
            Route("GET", f"{one}/records", declared.LIST_RECORDS, self.records),
            Route("GET", f"{one}/remedies", declared.LIST_REMEDIES, self.remedies),
            Route("POST", f"{one}/discovery", declared.START_DISCOVERY, self.discover),
            Route("DELETE", f"{one}/discovery", declared.STOP_DISCOVERY, self.stop_discovery),
            Route("POST", f"{one}/grants", declared.ADD_GRANT, self.grant),
            Route("PUT", f"{one}/selection", declared.SELECT_DEVICES, self.select),
            Route("PUT", f"{one}/consent", declared.RECORD_CONSENT, self.consent),
            Route("PUT", f"{one}/programs", declared.CHOOSE_PROGRAMS, self.choose_programs),
            Route("PUT", f"{one}/verification", declared.RENEW_VERIFICATION, self.verify),
            Route("POST", f"{one}/provision", declared.PROVISION, self.provision),
            Route("POST", f"{one}/retry", declared.RETRY, self.retry),
            Route("POST", f"{one}/accept-partial", declared.ACCEPT_PARTIAL, self.accept_partial),
            Route("POST", f"{one}/confirm", declared.CONFIRM, self.confirm),
            Route("POST", f"{one}/abort", declared.ABORT, self.abort),
            Route("POST", f"{one}/remedy-notice", declared.TELL_REMEDIES, self.tell),
            Route("POST", f"{one}/remedy-done", declared.REMEDY_DONE, self.remedy_done),
        )

    # Opening and reading

    async def open(self, request: HttpRequest) -> Reply:
        sent = await self._sent(request)
        by: Principal = request.scope["user"]
        new = await self._for_whom(decode(sent, NewSessionBody).value(), by)
        if new.take_over and not may_at_all(by.role, Action.SESSION_TAKE_OVER):
            raise ApiError(FORBIDDEN, "a session of others is not yours to end")
        opened = await self._sessions.open(new, ask(request, self._services.ids, sent))
        # It may have been opened long ago, under the same key, by a right that is over.
        session = await self._gate.admit(by, Action.SESSION_READ, opened)
        location = (b"location", f"/v1/provisioning-sessions/{session.id}".encode())
        return self._shown(request, session, 201, location)

    async def _for_whom(self, new: NewSession, by: Principal) -> NewSession:
        """Fill in the account for those who are not asked for it."""
        match by.role:
            case Role.INSTALLER:
                return replace(new, account=(await self._registry.place(new.premises)).account)
            case Role.CUSTOMER:
                return replace(new, account=by.account)
            case _:
                return new

    async def read(self, request: HttpRequest) -> Reply:
        return self._shown(request, await self._theirs(request))

    async def devices(self, request: HttpRequest) -> Reply:
        session = await self._theirs(request)
        sight = sight_of(request.scope["user"].role)
        items = [SessionDeviceDocument.of(one, sight) for _, one in sorted(sight.devices(session).items())]
        return json_reply(SessionDeviceList(items, sight.others(session)), fields=(etag(session.revision),))

    async def watch(self, request: HttpRequest) -> Reply:
        session = await self._theirs(request)
        return notices.watch(request, session, self._gate, self._services, self._places)

    async def options(self, request: HttpRequest) -> Reply:
        session = await self._theirs(request)
        shown = sight_of(request.scope["user"].role).devices(session)
        found = await self._sessions.options(session.id)
        options = {device: found[device] for device in found if device in shown}
        return json_reply(SessionOptionList(SessionOptionDocument.all_of(options)))

    async def records(self, request: HttpRequest) -> Reply:
        session = await self._theirs(request)
        items = [RecordDocument.of(one, await self._outbox.item(one.key)) for one in session.records]
        return json_reply(RecordList(items))

    async def remedies(self, request: HttpRequest) -> Reply:
        session = await self._theirs(request)
        sight = sight_of(request.scope["user"].role)
        fitting = await self._sessions.remedies(session.id)
        return json_reply(RemedyList([RemedyDocument.of(one, sight) for one in fitting]))

    # Step 7

    async def discover(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, DiscoveryBody)
        body = asked.body
        how = Discovery(
            priority=body.priority,
            gateway=body.gateway,
            not_before_ms=0 if body.not_before is None else ms_of(body.not_before),
            expected=tuple(one.value() for one in body.expected),
            grants=tuple(one.value_of() for one in body.grants),
        )
        return self._shown(request, await self._sessions.discover(asked.id, how, asked.ask), 202)

    async def stop_discovery(self, request: HttpRequest) -> Reply:
        id, by = await self._asked_for(request)
        return self._shown(request, await self._sessions.stop_discovery(id, by), 202)

    async def grant(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, GrantBody)
        return self._shown(
            request, await self._sessions.grant(asked.id, asked.body.value_of(), asked.ask), 202
        )

    # Steps 8 to 11

    async def select(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, SelectionBody)
        choices = [one.value() for one in asked.body.devices]
        return self._shown(request, await self._sessions.select(asked.id, choices, asked.ask))

    async def consent(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, SessionConsentBody)
        return self._shown(request, await self._sessions.consent(asked.id, asked.body.values(), asked.ask))

    async def choose_programs(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, ProgramsBody)
        assignments = [one.value() for one in asked.body.assignments]
        return self._shown(request, await self._sessions.choose_programs(asked.id, assignments, asked.ask))

    async def verify(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, VerificationOfSessionBody)
        return self._shown(request, await self._sessions.verify(asked.id, asked.body.verification, asked.ask))

    # Steps 12 to 15

    async def provision(self, request: HttpRequest) -> Reply:
        id, by = await self._asked_for(request)
        return self._shown(request, await self._sessions.provision(id, by), 202)

    async def retry(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, RetryBody)
        return self._shown(request, await self._sessions.retry(asked.id, asked.body.devices, asked.ask), 202)

    async def accept_partial(self, request: HttpRequest) -> Reply:
        id, by = await self._asked_for(request)
        return self._shown(request, await self._sessions.accept_partial(id, by))

    async def confirm(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, ConfirmBody)
        body = asked.body
        return self._shown(request, await self._sessions.confirm(asked.id, body.method, body.note, asked.ask))

    async def abort(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, AbortBody)
        return self._shown(request, await self._sessions.abort(asked.id, asked.body.reason, asked.ask))

    # Scenario 3.3

    async def tell(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, RemedyNoticeBody)
        body = asked.body
        session = await self._sessions.tell(asked.id, body.remedies, body.answer, body.chosen, asked.ask)
        return self._shown(request, session)

    async def remedy_done(self, request: HttpRequest) -> Reply:
        asked = await self._asked(request, RemedyDoneBody)
        body = asked.body
        return self._shown(
            request, await self._sessions.remedy_done(asked.id, body.remedy, body.evidence, asked.ask)
        )

    # Parts

    async def _theirs(self, request: HttpRequest) -> Session:
        query(request.scope, ())
        return await self._gate.require(request)

    async def _asked(self, request: HttpRequest, type: type[B]) -> _Asked[B]:
        """Read a change of the session in the path; what of it is secret tells no request from another."""
        session = await self._theirs(request)
        sent = await self._sent(request)
        body = decode(sent, type)
        secret = isinstance(body, DiscoveryBody | GrantBody)
        by = ask(
            request,
            self._services.ids,
            _encode(_without_codes(body)) if secret else sent,
            quiet=secret,
            if_match=expected_version(request.scope),
        )
        return _Asked(session.id, body, by)

    async def _asked_for(self, request: HttpRequest) -> tuple[str, Ask]:
        """Read a change of the session in the path that says all by its address."""
        session = await self._theirs(request)
        return session.id, ask(request, self._services.ids, if_match=expected_version(request.scope))

    async def _sent(self, request: HttpRequest) -> bytes:
        query(request.scope, ())
        require_json(request.scope)
        limits = self._services.limits
        return await read_body(request, limits.body_bytes_max, limits.body_timeout_s)

    def _shown(
        self, request: HttpRequest, session: Session, status: int = 200, *fields: tuple[bytes, bytes]
    ) -> Reply:
        document = SessionDocument.of(session, sight_of(request.scope["user"].role))
        return json_reply(document, status=status, fields=(etag(session.revision), *fields))


def _without_codes(body: msgspec.Struct) -> msgspec.Struct:
    match body:
        case GrantBody():
            return msgspec.structs.replace(body, value="")
        case DiscoveryBody():
            return msgspec.structs.replace(
                body, grants=[msgspec.structs.replace(one, value="") for one in body.grants]
            )
        case _:
            raise AssertionError(f"{type(body)} holds no code")
