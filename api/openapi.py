"""The OpenAPI 3.1 document, made from what the routes declare. Pure: routes in, a JSON value out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from api.operations import ALWAYS, GUARDED, STEP_UP, Answer, Content, Operation, Parameter, Route, Schema
from api.problems import INSUFFICIENT_AUTHENTICATION, TYPE_BASE, Kind
from api.schemas import AwsError, ProblemDocument
from security.policy import Action

REF: Final = "#/components/schemas/{name}"
PARAMETERS: Final = "#/components/parameters/"
RESPONSES: Final = "#/components/responses/"
"""Begins what leads to an answer: a refusal, and whatever else several operations answer, stands once."""

HEADERS: Final[Mapping[str, Any]] = {
    "X-Request-Id": {"description": "Names this request in our log", "schema": {"type": "string"}},
    "ETag": {"description": "The version, as an entity tag", "schema": {"type": "string"}, "example": '"41"'},
    "Accept-Ranges": {"description": "Parts may be asked for", "schema": {"type": "string"}},
    "Cache-Control": {"description": "How long it may be kept", "schema": {"type": "string"}},
    "Content-Length": {"description": "How many bytes it has", "schema": {"type": "integer"}},
    "Content-Range": {"description": "Which part it is, of how much", "schema": {"type": "string"}},
    "Upload-Offset": {"description": "How many bytes have come", "schema": {"type": "integer"}},
    "Location": {"description": "Where it is", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "What to send", "schema": {"type": "string"}},
    "x-amzn-errortype": {"description": "The sort of refusal, as AWS names it", "schema": {"type": "string"}},
}

DESCRIPTION: Final = """\
Device shadows and things of a utility's home area networks.

* **Identity.** `Authorization: Bearer <token>`. Who you are decides what there is for you: what is not yours
  is answered as if it were not there (404), what your role never may with 403.
* **Second factor.** Some acts of some roles need a fresh one: 401 `insufficient-user-authentication`, and
  again with the token of that confirmation in `Gnomon-Step-Up`. It counts once, for exactly this request.
* **Refusals** are problem documents (RFC 9457); the last word of `type` never changes. Below `/things` and
  `/api/things` they are spelled as AWS does.
* **Versions.** What has one sends `ETag`; send it back as `If-Match` to change only what you have seen.
* **Lists** take `limit` and `cursor`; `next` is the following cursor, absent on the last page.
* **Times** are RFC 3339 in UTC. A 2xx is sent after the change is on disk.
"""


def openapi(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """Return the document for these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        described = _operation(route.operation)
        paths.setdefault(_path(route.path), {})[route.method.lower()] = described
    parameters = _share_parameters(paths)
    answers = _share_answers(paths)
    schemas = _components(route.operation for route in routes)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gnomon",
            "version": version,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.operation.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": parameters,
            "responses": answers | _refusals(route.operation for route in routes),
            "headers": dict(HEADERS),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _path(path: str) -> str:
    return path.replace(":str}", "}")


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": _responses(operation),
    }
    if operation.description:
        described["description"] = operation.description
    parameters = (*operation.parameters, *_confirmation(operation))
    if parameters:
        described["parameters"] = [_parameter(one) for one in parameters]
    if operation.bodies:
        content = {body.media: _content(body) for body in operation.bodies}
        described["requestBody"] = {"required": operation.body_required, "content": content}
    if operation.action is Action.OPEN:
        described["security"] = []
    return described


def _confirmation(operation: Operation) -> tuple[Parameter, ...]:
    """Return the header of a confirmation, with the word that ``POST /v1/step-up`` wants to hear."""
    if not operation.confirmed:
        return ()
    return (replace(STEP_UP, meaning=f"{STEP_UP.meaning} (`action` is `{operation.action}`)"),)


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.meaning,
        "required": parameter.required,
        "schema": parameter.schema,
    }
    return described if parameter.example is None else described | {"example": parameter.example}


def _share_parameters(paths: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put what several operations take in the place that is returned, and what leads there in theirs."""
    taking = [
        operation for item in paths.values() for operation in item.values() if "parameters" in operation
    ]
    shared = _shared((f"{one['in']}-{one['name']}", one) for each in taking for one in each["parameters"])
    for operation in taking:
        operation["parameters"] = [_reference(PARAMETERS, one, shared) for one in operation["parameters"]]
    return shared


def _share_answers(paths: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put what several operations answer in the place that is returned, and what leads there in theirs."""
    every = [operation["responses"] for item in paths.values() for operation in item.values()]
    shared = _shared(
        (_called(status, one), one) for each in every for status, one in each.items() if "$ref" not in one
    )
    for responses in every:
        responses |= {status: _reference(RESPONSES, one, shared) for status, one in responses.items()}
    return shared


def _called(status: str, answer: Mapping[str, Any]) -> str:
    """Return the status of an answer, and the shape of what is in it."""
    shapes = [content["schema"].get("$ref", "") for content in answer.get("content", {}).values()]
    return "-".join((status, *(shape.rpartition("/")[2] for shape in shapes if shape)))


def _shared(used: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return what stands in several places, once, by what it is called and a number."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for name, one in used:
        alike.setdefault(name, []).append(one)
    shared: dict[str, Any] = {}
    for name, parts in sorted(alike.items()):
        several = [one for at, one in enumerate(parts) if parts.index(one) == at and parts.count(one) > 1]
        shared |= {f"{name}-{number}": one for number, one in enumerate(several, 1)}
    return shared


def _reference(begin: str, part: Mapping[str, Any], shared: Mapping[str, Any]) -> Mapping[str, Any]:
    names = [name for name, one in shared.items() if one == part]
    return {"$ref": begin + names[0]} if names else part


def resolve(document: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a part of the document, or what it leads to."""
    if "$ref" not in part:
        return part
    _, _, kind, name = part["$ref"].split("/")
    found: Mapping[str, Any] = document["components"][kind][name]
    return found


def _responses(operation: Operation) -> dict[str, Any]:
    responses = {status: _answer(answer) for status, answer in operation.answers.items()}
    for status, kinds in _by_status(refusals_of(operation)).items():
        refused = _refused(status, kinds, aws=operation.aws)
        if status in responses:
            responses[status]["content"] |= refused["content"]
        else:
            responses[status] = {"$ref": RESPONSES + _name(status, kinds, aws=operation.aws)}
    return {str(status): responses[status] for status in sorted(responses)}


def _refusals(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the refusals of all operations by the names that lead to them."""
    shared = {
        _name(status, kinds, aws=operation.aws): _refused(status, kinds, aws=operation.aws)
        for operation in operations
        for status, kinds in _by_status(refusals_of(operation)).items()
        if status not in operation.answers
    }
    return dict(sorted(shared.items()))


def _name(status: int, kinds: Sequence[Kind], *, aws: bool) -> str:
    # What every operation may answer with tells none from another.
    slugs = (kind.slug for kind in kinds if kind not in ALWAYS)
    return "-".join((str(status), *(("aws",) if aws else ()), *slugs))


def refusals_of(operation: Operation) -> tuple[Kind, ...]:
    """Return every refusal that an operation may answer with, those of all routes included."""
    guarded = () if operation.action is Action.OPEN else GUARDED
    if operation.confirmed:
        guarded = (*guarded, INSUFFICIENT_AUTHENTICATION)
    return tuple(dict.fromkeys((*ALWAYS, *guarded, *operation.refusals)))


def _by_status(kinds: Iterable[Kind]) -> dict[int, list[Kind]]:
    by_status: dict[int, list[Kind]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return by_status


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.meaning, "headers": _headers(answer.headers)}
    if answer.content is not None:
        described["content"] = {answer.content.media: _content(answer.content)}
    return described


def _refused(status: int, kinds: Sequence[Kind], *, aws: bool) -> dict[str, Any]:
    retry = ("Retry-After",) if status in {429, 503} else ()
    challenge = ("WWW-Authenticate",) if status == 401 else ()  # noqa: PLR2004 - HTTP's number
    media, schema, example = (
        ("application/json", AwsError, {"message": kinds[0].title})
        if aws
        else ("application/problem+json", ProblemDocument, _example(kinds[0]))
    )
    return {
        "description": "; ".join(kind.title for kind in kinds),
        "headers": _headers((*retry, *challenge, *(("x-amzn-errortype",) if aws else ()))),
        "content": {media: _content(Content(media, schema, example))},
    }


def _example(kind: Kind) -> dict[str, Any]:
    return {"type": TYPE_BASE + kind.slug, "title": kind.title, "status": kind.status}


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *names)}


def _content(content: Content) -> dict[str, Any]:
    schema = content.schema if isinstance(content.schema, Mapping) else _schema(content.schema)
    described = {"schema": schema}
    return described if content.example is None else described | {"example": content.example}


def _schema(shape: Any) -> Schema:  # noqa: ANN401 - any type that msgspec knows
    if isinstance(shape, type):
        return {"$ref": REF.format(name=shape.__name__)}
    (schema,), _ = msgspec.json.schema_components([shape], ref_template=REF)
    return schema


def _components(operations: Iterable[Operation]) -> dict[str, Any]:
    contents = [
        content
        for operation in operations
        for content in (
            *operation.bodies,
            *(one.content for one in operation.answers.values() if one.content),
        )
    ]
    types = [content.schema for content in contents if not isinstance(content.schema, Mapping)]
    _, components = msgspec.json.schema_components([*types, ProblemDocument, AwsError], ref_template=REF)
    return dict(sorted(components.items()))
