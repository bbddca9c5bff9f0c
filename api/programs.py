"""The catalogue: programs, the shapes of what is sent, tariffs. Everybody reads it; two persons write it."""

from typing import Any, Final

from api import problems
from api.logins import json_body, read
from api.operations import CURSOR, EXPECTED, LIMIT, WITH_BODY, Answer, Content, Operation, Route, in_path
from api.people_schemas import ApprovalDocument
from api.program_schemas import (
    ProgramBody,
    ProgramDocument,
    ProgramList,
    ShapeBody,
    ShapeDocument,
    ShapeList,
    TariffBody,
    TariffDocument,
    TariffList,
    page_of,
)
from api.reading import HttpRequest, expected_version, is_current, page_limit, query, via_of
from api.replies import Reply, etag, json_reply
from api.services import ApiServices
from programs.errors import ProgramNotFoundError
from programs.models import Program, Shape, Tariff
from programs.states import ProgramState
from programs.writing import (
    Asked,
    Writing,
    Written,
    close_program,
    publish_program,
    write_program,
    write_shape,
    write_tariff,
)
from security.policy import Action, Principal, may_at_all, needs_second_person


class ProgramRoutes:
    """Handlers of ``/v1/programs``, ``/v1/shapes`` and ``/v1/tariffs``."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._catalogue = services.programs.catalogue
        self._writing = Writing(services.programs.catalogue)
        self._approvals = services.people.approvals

    def routes(self) -> tuple[Route, ...]:
        program, tariff = "/v1/programs/{program:str}", "/v1/tariffs/{tariff:str}"
        shape = "/v1/shapes/{name:str}/{number:str}"
        return (
            Route("GET", "/v1/programs", LIST_PROGRAMS, self.list),
            Route("GET", program, GET_PROGRAM, self.read),
            Route("PUT", program, PUT_PROGRAM, self.put),
            Route("POST", f"{program}/publish", PUBLISH_PROGRAM, self.publish),
            Route("POST", f"{program}/close", CLOSE_PROGRAM, self.close),
            Route("GET", "/v1/shapes", LIST_SHAPES, self.list_shapes),
            Route("GET", shape, GET_SHAPE, self.read_shape),
            Route("PUT", shape, PUT_SHAPE, self.put_shape),
            Route("GET", "/v1/tariffs", LIST_TARIFFS, self.list_tariffs),
            Route("GET", tariff, GET_TARIFF, self.read_tariff),
            Route("PUT", tariff, PUT_TARIFF, self.put_tariff),
        )

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor"))
        shown = [one for one in await self._catalogue.programs() if _may_see(request, one)]
        page, following = page_of(shown, page_limit(fields), fields.get("cursor"))
        return json_reply(ProgramList([ProgramDocument.of(one) for one in page], following))

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        program = await self._catalogue.program(_part(request, "program"))
        if not _may_see(request, program):
            raise ProgramNotFoundError(program.id)
        return _versioned(request, ProgramDocument.of(program), program.version)

    async def put(self, request: HttpRequest) -> Reply:
        expected = expected_version(request.scope)
        body = await read(request, self._services, ProgramBody)
        return await self._write(request, write_program(body.program(_part(request, "program")), expected))

    async def publish(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        program = await self._catalogue.program(_part(request, "program"))
        return await self._write(request, publish_program(program.id, program.version))

    async def close(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return await self._write(request, close_program(_part(request, "program")))

    async def list_shapes(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor"))
        shapes = await self._catalogue.shapes()
        page, following = page_of(shapes, page_limit(fields), fields.get("cursor"))
        return json_reply(ShapeList([ShapeDocument.of(one) for one in page], following))

    async def read_shape(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return json_reply(ShapeDocument.of(await self._catalogue.shape(_shape_id(request))))

    async def put_shape(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, ShapeBody)
        return await self._write(request, write_shape(Shape(_shape_id(request), body.kind, body.schema)))

    async def list_tariffs(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor"))
        tariffs = await self._catalogue.tariffs()
        page, following = page_of(tariffs, page_limit(fields), fields.get("cursor"))
        return json_reply(TariffList([TariffDocument.of(one) for one in page], following))

    async def read_tariff(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        tariff = await self._catalogue.tariff(_part(request, "tariff"))
        return _versioned(request, TariffDocument.of(tariff), tariff.rev)

    async def put_tariff(self, request: HttpRequest) -> Reply:
        expected = expected_version(request.scope)
        body = await read(request, self._services, TariffBody)
        tariff = Tariff(_part(request, "tariff"), body.shape, body.body)
        return await self._write(request, write_tariff(tariff, expected))

    async def _write(self, request: HttpRequest, asked: Asked) -> Reply:
        """Do what is asked, or hold it for a second person where this role needs one."""
        by, via = request.scope["user"], via_of(request.scope)
        await self._writing.check(asked)
        if needs_second_person(by.role, Action.PROGRAM_WRITE):
            held = await self._approvals.ask(asked.act, asked.target, asked.facts, by, via)
            return json_reply(ApprovalDocument.of(held), status=202)
        return _shown(await self._writing.do(asked, by, via))


def _may_see(request: HttpRequest, program: Program) -> bool:
    """Tell whether the caller hears of a program: drafts are for those who write them."""
    by: Principal = request.scope["user"]
    return program.state is not ProgramState.DRAFT or may_at_all(by.role, Action.PROGRAM_WRITE)


def _versioned(request: HttpRequest, document: object, version: int) -> Reply:
    if is_current(request.scope, version):
        return Reply(304, [etag(version)])
    return json_reply(document, fields=(etag(version),))


def _shown(written: Written) -> Reply:
    match written:
        case Program():
            return json_reply(ProgramDocument.of(written), fields=(etag(written.version),))
        case Tariff():
            return json_reply(TariffDocument.of(written), fields=(etag(written.rev),))
        case Shape():
            return json_reply(ShapeDocument.of(written))


def _part(request: HttpRequest, name: str) -> str:
    text: str = request.scope["path_params"][name]
    return text


def _shape_id(request: HttpRequest) -> str:
    return f"{_part(request, 'name')}/{_part(request, 'number')}"


TAG: Final = "Programs"
PROGRAM: Final = in_path(
    "program", "Id of a program", {"type": "string", "pattern": "^[a-z0-9-]{1,32}$"}, "cpp-27"
)
_TARIFF: Final = in_path("tariff", "Id of a tariff", {"type": "string", "pattern": "^[a-z0-9-]{1,32}$"}, "t7")
_SHAPE: Final = (
    in_path("name", "Name of a shape", {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,30}$"}, "tou"),
    in_path("number", "Its version", {"type": "string", "pattern": "^[1-9][0-9]{0,3}$"}, "1"),
)
_PROGRAM_BODY: Final[dict[str, Any]] = {
    "name": "Critical peaks",
    "type": "CPP",
    "requires": [["price", "load.offset"]],
    "exclusive_with": ["tou-res"],
    "tariff_ref": "t7",
    "consent_text_version": "1",
}
_PROGRAM: Final = {"id": "cpp-27", "state": "PUBLISHED", "version": 3} | _PROGRAM_BODY
_SHAPE_BODY: Final = {
    "kind": "tariff",
    "schema": {"type": "object", "properties": {"price": {"type": "string"}}, "additionalProperties": False},
}
_TARIFF_BODY: Final = {"shape": "flat/1", "body": {"price": "0.21"}}
_HELD: Final = {
    202: Answer(
        "Held until a second person approves it",
        Content(
            "application/json",
            ApprovalDocument,
            {
                "id": "a-abcdefghij234567",
                "act": "program.publish",
                "action": "program.write",
                "target": "program/cpp-27",
                "facts": {},
                "by": "p-abcdefghij234567",
                "decision": "waiting",
                "asked_at": "2026-09-21T12:00:00.000Z",
                "until": "2026-09-28T12:00:00.000Z",
            },
        ),
    )
}
_WRITING: Final = "What an operator asks for is held until another one approves it, and done then."
_READ_ONCE: Final = {304: Answer("You have this version", headers=("ETag",))}
_PROGRAM_CONTENT: Final = Content("application/json", ProgramDocument, _PROGRAM)
_SHAPE_CONTENT: Final = Content("application/json", ShapeDocument, {"id": "flat/1"} | _SHAPE_BODY)
_TARIFF_CONTENT: Final = Content("application/json", TariffDocument, {"id": "t7", "rev": 2} | _TARIFF_BODY)
_WITH_VERSION: Final = (
    *WITH_BODY,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.INVALID_ENTRY,
    problems.CATALOGUE_FULL,
    problems.PRECONDITION_FAILED,
    problems.PRECONDITION_REQUIRED,
    problems.SHAPE_NOT_FOUND,
)


def _page(type: type, example: dict[str, Any]) -> dict[int, Answer]:
    return {200: Answer("A page", Content("application/json", type, {"items": [example]}))}


LIST_PROGRAMS: Final = Operation(
    id="listPrograms",
    tag=TAG,
    summary="List the programs of the utility",
    description="By id. Drafts are seen by those who write them.",
    action=Action.PROGRAM_READ,
    parameters=(LIMIT, CURSOR),
    answers=_page(ProgramList, _PROGRAM),
)
GET_PROGRAM: Final = Operation(
    id="getProgram",
    tag=TAG,
    summary="Read a program",
    action=Action.PROGRAM_READ,
    parameters=(PROGRAM,),
    answers={200: Answer("The program", _PROGRAM_CONTENT, ("ETag",))} | _READ_ONCE,
    refusals=(problems.PROGRAM_NOT_FOUND,),
    own_check=True,
)
PUT_PROGRAM: Final = Operation(
    id="putProgram",
    tag=TAG,
    summary="Write a program: a draft, or the next version of what is there",
    description=_WRITING,
    action=Action.PROGRAM_WRITE,
    parameters=(PROGRAM, *EXPECTED),
    bodies=json_body(ProgramBody, _PROGRAM_BODY),
    answers={200: Answer("The program", _PROGRAM_CONTENT, ("ETag",))} | _HELD,
    refusals=(*_WITH_VERSION, problems.TARIFF_NOT_FOUND, problems.ILLEGAL_TRANSITION),
    own_check=True,
    held=True,
)
PUBLISH_PROGRAM: Final = Operation(
    id="publishProgram",
    tag=TAG,
    summary="Offer a program to customers",
    description=f"{_WRITING} If it has changed by then, it is not published.",
    action=Action.PROGRAM_WRITE,
    parameters=(PROGRAM,),
    answers={200: Answer("The program", _PROGRAM_CONTENT, ("ETag",))} | _HELD,
    refusals=(problems.PROGRAM_NOT_FOUND, problems.ILLEGAL_TRANSITION),
    own_check=True,
    held=True,
)
CLOSE_PROGRAM: Final = Operation(
    id="closeProgram",
    tag=TAG,
    summary="End a program for good, and with it every enrolment in it",
    description=f"{_WRITING} It is no stop in an emergency: that is an event's.",
    action=Action.PROGRAM_WRITE,
    parameters=(PROGRAM,),
    answers={200: Answer("The program", _PROGRAM_CONTENT, ("ETag",))} | _HELD,
    refusals=(problems.PROGRAM_NOT_FOUND, problems.ILLEGAL_TRANSITION),
    own_check=True,
    held=True,
)
LIST_SHAPES: Final = Operation(
    id="listShapes",
    tag=TAG,
    summary="List the shapes of tariffs, messages and parameters",
    action=Action.PROGRAM_READ,
    parameters=(LIMIT, CURSOR),
    answers=_page(ShapeList, {"id": "flat/1"} | _SHAPE_BODY),
)
GET_SHAPE: Final = Operation(
    id="getShape",
    tag=TAG,
    summary="Read a shape",
    action=Action.PROGRAM_READ,
    parameters=_SHAPE,
    answers={200: Answer("The shape", _SHAPE_CONTENT)},
    refusals=(problems.SHAPE_NOT_FOUND,),
    own_check=True,
)
PUT_SHAPE: Final = Operation(
    id="putShape",
    tag=TAG,
    summary="Add a shape: a new kind of tariff needs no code",
    description=f"{_WRITING} A shape never changes; another one comes under its next version.",
    action=Action.PROGRAM_WRITE,
    parameters=_SHAPE,
    bodies=json_body(ShapeBody, _SHAPE_BODY),
    answers={200: Answer("The shape", _SHAPE_CONTENT)} | _HELD,
    refusals=(
        *WITH_BODY,
        problems.UNSUPPORTED_MEDIA_TYPE,
        problems.INVALID_ENTRY,
        problems.CATALOGUE_FULL,
        problems.SHAPE_FIXED,
    ),
    own_check=True,
    held=True,
)
LIST_TARIFFS: Final = Operation(
    id="listTariffs",
    tag=TAG,
    summary="List the tariffs",
    action=Action.PROGRAM_READ,
    parameters=(LIMIT, CURSOR),
    answers=_page(TariffList, {"id": "t7", "rev": 2} | _TARIFF_BODY),
)
GET_TARIFF: Final = Operation(
    id="getTariff",
    tag=TAG,
    summary="Read a tariff",
    action=Action.PROGRAM_READ,
    parameters=(_TARIFF,),
    answers={200: Answer("The tariff", _TARIFF_CONTENT, ("ETag",))} | _READ_ONCE,
    refusals=(problems.TARIFF_NOT_FOUND,),
    own_check=True,
)
PUT_TARIFF: Final = Operation(
    id="putTariff",
    tag=TAG,
    summary="Write a tariff; every device that has it gets the new one",
    description=_WRITING,
    action=Action.PROGRAM_WRITE,
    parameters=(_TARIFF, *EXPECTED),
    bodies=json_body(TariffBody, _TARIFF_BODY),
    answers={200: Answer("The tariff", _TARIFF_CONTENT, ("ETag",))} | _HELD,
    refusals=_WITH_VERSION,
    own_check=True,
    held=True,
)
