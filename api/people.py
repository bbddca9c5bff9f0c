"""People, systems and what a security officer does to them; acts that wait for a second person."""

from typing import Final

from api import problems
from api.logins import NO_STORE, json_body, read
from api.operations import CURSOR, LIMIT, WITH_BODY, Answer, Content, Operation, Route, in_path, in_query
from api.people_schemas import (
    ActDocument,
    ApprovalDocument,
    ApprovalList,
    ClientDocument,
    ClientList,
    ClientSecretDocument,
    InvitedDocument,
    NewClientBody,
    NewPersonBody,
    PersonDocument,
    PersonList,
    RoleBody,
    RotateBody,
)
from api.reading import HttpRequest, one_of, page_limit, query, via_of
from api.replies import Reply, json_reply
from api.services import ApiServices
from security.audit import Via
from security.people.approvals import Held
from security.people.errors import ApprovalNotFoundError
from security.people.persons import PERSON_ROLES
from security.policy import Action, Principal, Role, may


class People:
    """Handlers of ``/v1/people``, ``/v1/clients`` and ``/v1/approvals``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._accounts = services.people.accounts
        self._clients = services.people.clients
        self._acts = services.people.acts
        self._approvals = services.people.approvals

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/v1/people", LIST_PEOPLE, self.list),
            Route("POST", "/v1/people", MAKE_PERSON, self.make),
            Route("GET", "/v1/people/{person:str}", GET_PERSON, self.get),
            Route("PUT", "/v1/people/{person:str}/role", GRANT_ROLE, self.grant_role),
            Route("POST", "/v1/people/{person:str}/reset", RESET_PERSON, self.reset),
            Route("POST", "/v1/people/{person:str}/disable", DISABLE_PERSON, self.disable),
            Route("POST", "/v1/people/{person:str}/revoke", REVOKE_SESSIONS, self.revoke),
            Route("GET", "/v1/clients", LIST_CLIENTS, self.list_clients),
            Route("POST", "/v1/clients", MAKE_CLIENT, self.make_client),
            Route("POST", "/v1/clients/{client:str}/secrets", ADD_SECRET, self.add_secret),
            Route("DELETE", "/v1/clients/{client:str}/secrets/old", RETIRE_SECRET, self.retire_secret),
            Route("POST", "/v1/clients/{client:str}/disable", DISABLE_CLIENT, self.disable_client),
            Route("POST", "/v1/revoke-all", REVOKE_ALL, self.revoke_all),
            Route("POST", "/v1/token-keys/rotate", ROTATE_KEY, self.rotate_key),
            Route("GET", "/v1/approvals", LIST_APPROVALS, self.list_approvals),
            Route("GET", "/v1/approvals/{approval:str}", GET_APPROVAL, self.get_approval),
            Route("POST", "/v1/approvals/{approval:str}/approve", APPROVE, self.approve),
            Route("POST", "/v1/approvals/{approval:str}/refuse", REFUSE, self.refuse),
        )

    # People

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("role", "limit", "cursor"))
        role = one_of(fields, "role", sorted(PERSON_ROLES))
        page = await self._accounts.people(
            None if role is None else Role(role), page_limit(fields), fields.get("cursor")
        )
        return json_reply(PersonList([PersonDocument.of(one) for one in page.records], page.next))

    async def make(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, NewPersonBody)
        new = await self._acts.make_person(body.login, body.role, body.account, *_who(request))
        document = InvitedDocument(
            PersonDocument.of(new.person), new.invitation.reveal(), _approval(new.held)
        )
        location = (b"location", f"/v1/people/{new.person.id}".encode())
        return json_reply(document, status=201, fields=(location, *NO_STORE))

    async def get(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return json_reply(PersonDocument.of(await self._accounts.person(_part(request, "person"))))

    async def grant_role(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, RoleBody)
        held = await self._acts.grant_role(_part(request, "person"), body.role, body.account, *_who(request))
        return json_reply(ActDocument.of(held), status=202)

    async def reset(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        id = _part(request, "person")
        new = await self._acts.reset_person(id, *_who(request))
        person = PersonDocument.of(await self._accounts.person(id))
        document = InvitedDocument(person, new.secret.reveal(), ApprovalDocument.of(new.held))
        return json_reply(document, status=202, fields=NO_STORE)

    async def disable(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        person = await self._accounts.disable(_part(request, "person"), *_who(request))
        return json_reply(PersonDocument.of(person))

    async def revoke(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        person = await self._accounts.revoke(_part(request, "person"), *_who(request))
        return json_reply(PersonDocument.of(person))

    # Systems

    async def list_clients(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor"))
        page = await self._clients.clients(page_limit(fields), fields.get("cursor"))
        return json_reply(ClientList([ClientDocument.of(one) for one in page.records], page.next))

    async def make_client(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, NewClientBody)
        new = await self._acts.make_client(body.name, body.role, *_who(request))
        document = ClientSecretDocument(
            ClientDocument.of(new.client), new.secret.reveal(), ApprovalDocument.of(new.held)
        )
        return json_reply(document, status=201, fields=NO_STORE)

    async def add_secret(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        id = _part(request, "client")
        new = await self._acts.add_secret(id, *_who(request))
        client = ClientDocument.of(await self._clients.client(id))
        document = ClientSecretDocument(client, new.secret.reveal(), ApprovalDocument.of(new.held))
        return json_reply(document, status=202, fields=NO_STORE)

    async def retire_secret(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        client = await self._clients.retire_old_secret(_part(request, "client"), *_who(request))
        return json_reply(ClientDocument.of(client))

    async def disable_client(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        client = await self._clients.disable(_part(request, "client"), *_who(request))
        return json_reply(ClientDocument.of(client))

    # Everything at once

    async def revoke_all(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        held = await self._acts.revoke_all(*_who(request))
        return json_reply(ActDocument.of(held), status=200 if held is None else 202)

    async def rotate_key(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, RotateBody)
        by, via = _who(request)
        return json_reply(
            ActDocument.of(await self._acts.rotate_key(by, via, at_once=body.at_once)), status=202
        )

    # Second persons

    async def list_approvals(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor"))
        page = await self._approvals.waiting(page_limit(fields), fields.get("cursor"))
        by, _ = _who(request)
        items = [ApprovalDocument.of(held) for held in page.records if may(by, held.action)]
        return json_reply(ApprovalList(items, page.next))

    async def get_approval(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        held = await self._approvals.held(_part(request, "approval"))
        if not may(request.scope["user"], held.action):
            raise ApprovalNotFoundError
        return json_reply(ApprovalDocument.of(held))

    async def approve(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        held = await self._approvals.approve(_part(request, "approval"), *_who(request))
        return json_reply(ApprovalDocument.of(held))

    async def refuse(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        held = await self._approvals.refuse(_part(request, "approval"), *_who(request))
        return json_reply(ApprovalDocument.of(held))


def _who(request: HttpRequest) -> tuple[Principal, Via]:
    return request.scope["user"], via_of(request.scope)


def _part(request: HttpRequest, name: str) -> str:
    text: str = request.scope["path_params"][name]
    return text


def _approval(held: Held | None) -> ApprovalDocument | None:
    return None if held is None else ApprovalDocument.of(held)


TAG: Final = "People"
_ID: Final = {"type": "string", "pattern": "^[a-z0-9-]{1,128}$"}
PERSON: Final = in_path("person", "Id of a person", _ID, "p-abcdefghij234567")
CLIENT: Final = in_path("client", "Id of a service account", _ID, "c-abcdefghij234567")
APPROVAL: Final = in_path("approval", "Id of what waits", _ID, "a-abcdefghij234567")
_TIME: Final = "2026-09-21T12:00:00.000Z"
_PERSON_EXAMPLE: Final = {
    "id": "p-abcdefghij234567",
    "login": "ann",
    "role": "operator",
    "state": "active",
    "needs_factor": True,
    "made_at": _TIME,
}
_APPROVAL_EXAMPLE: Final = {
    "id": "a-abcdefghij234567",
    "act": "principal.create",
    "action": "principal.write",
    "target": "person/p-abcdefghij234567",
    "facts": {"role": "operator"},
    "by": "p-bcdefghij2345672",
    "decision": "waiting",
    "asked_at": _TIME,
    "until": "2026-09-28T12:00:00.000Z",
}
_CLIENT_EXAMPLE: Final = {
    "id": "c-abcdefghij234567",
    "name": "customer care",
    "role": "ccs",
    "state": "active",
    "keys_alive": 1,
    "made_at": _TIME,
}
_PERSON: Final = Answer("The person", Content("application/json", PersonDocument, _PERSON_EXAMPLE))
_CLIENT: Final = Answer("The client", Content("application/json", ClientDocument, _CLIENT_EXAMPLE))
_APPROVAL: Final = Answer("What was held", Content("application/json", ApprovalDocument, _APPROVAL_EXAMPLE))
_WAITS: Final = Answer(
    "It waits for a second person",
    Content("application/json", ActDocument, {"done": False, "approval": _APPROVAL_EXAMPLE}),
)
_INVITED: Final = Content(
    "application/json",
    InvitedDocument,
    {"person": _PERSON_EXAMPLE, "invitation": "gnomon_in_…", "approval": _APPROVAL_EXAMPLE},
)
_SECRET: Final = Content(
    "application/json",
    ClientSecretDocument,
    {"client": _CLIENT_EXAMPLE, "client_secret": "gnomon_cs_…", "approval": _APPROVAL_EXAMPLE},
)
_BODY: Final = (*WITH_BODY, problems.UNSUPPORTED_MEDIA_TYPE)
_ABOUT_PERSON: Final = (problems.PERSON_NOT_FOUND, problems.ACCOUNT_STATE, problems.LAST_OFFICER)
_ABOUT_CLIENT: Final = (problems.CLIENT_NOT_FOUND, problems.ACCOUNT_STATE)

LIST_PEOPLE: Final = Operation(
    id="listPeople",
    tag=TAG,
    summary="List people",
    action=Action.PRINCIPAL_READ,
    parameters=(
        in_query("role", "Only those of this role", {"enum": sorted(PERSON_ROLES)}, "operator"),
        LIMIT,
        CURSOR,
    ),
    answers={
        200: Answer("A page of people", Content("application/json", PersonList, {"items": [_PERSON_EXAMPLE]}))
    },
    refusals=(problems.INVALID_CURSOR,),
)
MAKE_PERSON: Final = Operation(
    id="makePerson",
    tag=TAG,
    summary="Make an account, which waits for a second officer's approval",
    description="The invitation is shown once: hand it to its owner. While there is one security officer,"
    " the second does not wait.",
    action=Action.PRINCIPAL_WRITE,
    held=True,
    bodies=json_body(NewPersonBody, {"login": "ann", "role": "operator"}),
    answers={201: Answer("The account and its invitation", _INVITED, ("Location",))},
    refusals=(*_BODY, problems.LOGIN_TAKEN),
)
GET_PERSON: Final = Operation(
    id="getPerson",
    tag=TAG,
    summary="Read a person's account",
    action=Action.PRINCIPAL_READ,
    parameters=(PERSON,),
    own_check=True,
    answers={200: _PERSON},
    refusals=(problems.PERSON_NOT_FOUND,),
)
GRANT_ROLE: Final = Operation(
    id="grantRole",
    tag=TAG,
    summary="Ask for another role for a person",
    action=Action.ROLE_GRANT,
    held=True,
    parameters=(PERSON,),
    own_check=True,
    bodies=json_body(RoleBody, {"role": "auditor"}),
    answers={202: _WAITS},
    refusals=(*_BODY, *_ABOUT_PERSON),
)
RESET_PERSON: Final = Operation(
    id="resetPerson",
    tag=TAG,
    summary="Ask that a person who lost a factor may begin anew",
    description="The invitation is shown once, and good when a second officer has approved.",
    action=Action.PRINCIPAL_WRITE,
    held=True,
    parameters=(PERSON,),
    own_check=True,
    answers={202: Answer("It waits for a second person", _INVITED)},
    refusals=_ABOUT_PERSON,
)
DISABLE_PERSON: Final = Operation(
    id="disablePerson",
    tag=TAG,
    summary="Let nobody log in to an account any more; its sessions end. Again is no error",
    action=Action.PRINCIPAL_WRITE,
    stops=True,
    parameters=(PERSON,),
    own_check=True,
    answers={200: _PERSON},
    refusals=_ABOUT_PERSON,
)
REVOKE_SESSIONS: Final = Operation(
    id="revokeSessions",
    tag=TAG,
    summary="End all sessions and access tokens of a person, within 5 seconds",
    action=Action.PRINCIPAL_WRITE,
    stops=True,
    parameters=(PERSON,),
    own_check=True,
    answers={200: _PERSON},
    refusals=(problems.PERSON_NOT_FOUND,),
)
LIST_CLIENTS: Final = Operation(
    id="listClients",
    tag=TAG,
    summary="List service accounts",
    action=Action.PRINCIPAL_READ,
    parameters=(LIMIT, CURSOR),
    answers={
        200: Answer(
            "A page of clients", Content("application/json", ClientList, {"items": [_CLIENT_EXAMPLE]})
        )
    },
    refusals=(problems.INVALID_CURSOR,),
)
MAKE_CLIENT: Final = Operation(
    id="makeClient",
    tag=TAG,
    summary="Make a service account, which waits for a second officer's approval",
    action=Action.PRINCIPAL_WRITE,
    held=True,
    bodies=json_body(NewClientBody, {"name": "customer care", "role": "ccs"}),
    answers={201: Answer("The client and its secret, shown once", _SECRET)},
    refusals=_BODY,
)
ADD_SECRET: Final = Operation(
    id="addClientSecret",
    tag=TAG,
    summary="Ask for another secret of a client; the one in use goes on counting",
    action=Action.PRINCIPAL_WRITE,
    held=True,
    parameters=(CLIENT,),
    own_check=True,
    answers={202: Answer("The secret, shown once; it waits for a second person", _SECRET)},
    refusals=_ABOUT_CLIENT,
)
RETIRE_SECRET: Final = Operation(
    id="retireClientSecret",
    tag=TAG,
    summary="Let only the newest secret of a client count. Again is no error",
    action=Action.PRINCIPAL_WRITE,
    stops=True,
    parameters=(CLIENT,),
    own_check=True,
    answers={200: _CLIENT},
    refusals=(problems.CLIENT_NOT_FOUND,),
)
DISABLE_CLIENT: Final = Operation(
    id="disableClient",
    tag=TAG,
    summary="Let a client get nothing any more; its tokens end. Again is no error",
    action=Action.PRINCIPAL_WRITE,
    stops=True,
    parameters=(CLIENT,),
    own_check=True,
    answers={200: _CLIENT},
    refusals=(problems.CLIENT_NOT_FOUND,),
)
REVOKE_ALL: Final = Operation(
    id="revokeAll",
    tag=TAG,
    summary="End every session and every access token, within 5 seconds",
    description="Waits for a second officer, unless there is none.",
    action=Action.REVOKE_ALL,
    held=True,
    answers={
        200: Answer("It is done", Content("application/json", ActDocument, {"done": True})),
        202: _WAITS,
    },
)
ROTATE_KEY: Final = Operation(
    id="rotateSigningKey",
    tag=TAG,
    summary="Ask for another key to sign access tokens with",
    description="This happens by itself every 30 days. `at_once` is for a key that may be stolen.",
    action=Action.SIGNING_KEY_WRITE,
    held=True,
    bodies=json_body(RotateBody, {"at_once": False}),
    answers={202: _WAITS},
    refusals=_BODY,
)
LIST_APPROVALS: Final = Operation(
    id="listApprovals",
    tag=TAG,
    summary="List what waits for a second person and may be approved in your role, oldest first",
    action=Action.APPROVAL_READ,
    parameters=(LIMIT, CURSOR),
    answers={
        200: Answer(
            "A page of what waits",
            Content("application/json", ApprovalList, {"items": [_APPROVAL_EXAMPLE]}),
        )
    },
    refusals=(problems.INVALID_CURSOR,),
)
GET_APPROVAL: Final = Operation(
    id="getApproval",
    tag=TAG,
    summary="Read what waits, or waited",
    action=Action.APPROVAL_READ,
    parameters=(APPROVAL,),
    own_check=True,
    answers={200: _APPROVAL},
    refusals=(problems.APPROVAL_NOT_FOUND,),
)
APPROVE: Final = Operation(
    id="approve",
    tag=TAG,
    summary="Have an act done that somebody else asked for",
    description="Nobody approves what they asked for, nor a change to themselves.",
    action=Action.APPROVAL_WRITE,
    parameters=(APPROVAL,),
    own_check=True,
    answers={200: _APPROVAL},
    refusals=(
        problems.APPROVAL_NOT_FOUND,
        problems.APPROVAL_CLOSED,
        problems.PERSON_NOT_FOUND,
        problems.CLIENT_NOT_FOUND,
        problems.ACCOUNT_STATE,
        problems.LAST_OFFICER,
    ),
)
REFUSE: Final = Operation(
    id="refuse",
    tag=TAG,
    summary="Decide against an act, or withdraw what one asked for",
    action=Action.APPROVAL_WRITE,
    parameters=(APPROVAL,),
    own_check=True,
    answers={200: _APPROVAL},
    refusals=(problems.APPROVAL_NOT_FOUND, problems.APPROVAL_CLOSED, problems.LAST_OFFICER),
)
