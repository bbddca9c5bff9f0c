"""The API page, the page of problems and the OpenAPI document. Open to all; made when first asked for."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import msgspec

from api.openapi import openapi
from api.operations import Answer, Content, Operation, Route
from api.page import api_page, problem_page
from api.problems import KINDS
from api.reading import HttpRequest
from api.replies import Field, Reply, bytes_reply
from security.policy import Action

HTML: Final = b"text/html; charset=utf-8"
PAGE_FIELDS: Final[tuple[Field, ...]] = (
    # Nothing is loaded from anywhere: no script at all, the style is in the page.
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
)


class Docs:
    """Handlers of ``/``, ``/docs`` and what lies below."""

    def __init__(self, routes: Sequence[Route], version: str) -> None:
        self._routes = routes
        self._version = version

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/", _page("getRoot", "Goes to the API page"), self.root),
            Route("GET", "/docs", _page("getApiPage", "The API page"), self.page),
            Route("GET", "/docs/problems", _page("getProblemPage", "What each refusal means"), self.problems),
            *self._listed(),
        )

    async def root(self, request: HttpRequest) -> Reply:  # noqa: ARG002 - all handlers are called alike
        return Reply(307, [(b"location", b"/docs"), (b"content-length", b"0")])

    async def page(self, request: HttpRequest) -> Reply:  # noqa: ARG002 - all handlers are called alike
        return bytes_reply(self._page, media=HTML, fields=PAGE_FIELDS)

    async def problems(self, request: HttpRequest) -> Reply:  # noqa: ARG002 - all handlers are called alike
        return bytes_reply(self._problems, media=HTML, fields=PAGE_FIELDS)

    async def document(self, request: HttpRequest) -> Reply:  # noqa: ARG002 - all handlers are called alike
        return bytes_reply(self._document)

    @cached_property
    def _openapi(self) -> dict[str, Any]:
        return openapi([*self._routes, *self._listed()], self._version)

    @cached_property
    def _document(self) -> bytes:
        return msgspec.json.encode(self._openapi)

    @cached_property
    def _page(self) -> bytes:
        return api_page(self._openapi)

    @cached_property
    def _problems(self) -> bytes:
        return problem_page(KINDS)

    def _listed(self) -> tuple[Route, ...]:
        return (Route("GET", "/docs/openapi.json", GET_DOCUMENT, self.document),)


def _page(id: str, summary: str) -> Operation:
    answers = {200: Answer("A page", Content("text/html", {"type": "string"}))}
    return Operation(id=id, tag="Pages", summary=summary, action=Action.OPEN, answers=answers)


GET_DOCUMENT: Final = Operation(
    id="getOpenApi",
    tag="Operations",
    summary="This document",
    action=Action.OPEN,
    answers={200: Answer("OpenAPI 3.1", Content("application/json", {"type": "object"}))},
)
