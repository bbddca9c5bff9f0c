"""What a route declares about itself: who may call it, what it takes, every answer it can give.

The guard reads the action from here, the OpenAPI document and the API page are drawn from it, and a route
without a declaration stops the start-up. A fuzzer compares the declarations with what really comes back.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from litestar.handlers import HTTPRouteHandler
from litestar.types import Method

from api import problems
from api.limits import PAGE_MAX
from api.problems import Kind
from api.reading import HttpRequest
from api.replies import Reply
from security.policy import Action, Role, needs_step_up

Schema = Mapping[str, Any]

TIME: Final[Schema] = {"type": "string", "format": "date-time"}
VERSION: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of the path, the query or the header."""

    name: str
    place: str
    meaning: str
    schema: Schema
    example: Any = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """A body: its media type, what it holds (a struct or a JSON Schema) and an example."""

    media: str
    schema: type | Schema
    example: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One way to say yes."""

    meaning: str
    content: Content | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    id: str
    tag: str
    summary: str
    action: Action
    answers: Mapping[int, Answer]
    refusals: tuple[Kind, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    bodies: tuple[Content, ...] = ()
    body_required: bool = True
    description: str = ""
    aws: bool = False
    """Refusals are spelled as AWS does, not as problem documents."""
    own_check: bool = False
    """The handler asks the gate itself, because the path does not say all that the act is about."""
    stream: bool = False
    """The answer has no end of its own."""
    held: bool = False
    """What is asked for waits for a second person (``security.policy.TWO_PERSONS``)."""
    stops: bool = False
    """It needs no second person, as it only takes something away."""

    @property
    def confirmed(self) -> bool:
        """Whether some roles need a second factor of now for it."""
        return any(needs_step_up(role, self.action) for role in Role)


@dataclass(frozen=True, slots=True)
class Route:
    """A row of a resource's table."""

    method: Method
    path: str
    operation: Operation
    handle: Callable[[HttpRequest], Awaitable[Reply]] = field(compare=False)

    def handler(self) -> HTTPRouteHandler:
        """Return what Litestar registers."""
        options = {"operation": self.operation, "action": self.operation.action}
        return HTTPRouteHandler(
            self.path, http_method=self.method, name=self.operation.id, opt=options, status_code=200
        )(self.handle)


ALWAYS: Final = (problems.INVALID_REQUEST, problems.INTERNAL, problems.UNAVAILABLE, problems.OVERLOADED)
GUARDED: Final = (problems.UNAUTHORIZED, problems.FORBIDDEN)
WITH_BODY: Final = (problems.REQUEST_TIMEOUT, problems.PAYLOAD_TOO_LARGE, problems.UNSUPPORTED_ENCODING)


def in_path(name: str, meaning: str, schema: Schema, example: str) -> Parameter:
    """Declare a part of the path."""
    return Parameter(name, "path", meaning, schema, example, required=True)


def in_query(name: str, meaning: str, schema: Schema, example: Any = None) -> Parameter:  # noqa: ANN401 - any JSON value
    """Declare a query field."""
    return Parameter(name, "query", meaning, schema, example)


def in_header(name: str, meaning: str, schema: Schema, example: str, *, required: bool = False) -> Parameter:
    """Declare a header field."""
    return Parameter(name, "header", meaning, schema, example, required)


NAME: Final[Schema] = {"type": "string", "pattern": "^[a-zA-Z0-9:_-]{1,128}$"}
THING: Final = in_path("thing", "Name of a thing", NAME, "hall-thermostat")
GATEWAY: Final = in_path("gateway", "Name of a gateway", NAME, "home-7-gateway")
LIMIT: Final = in_query(
    "limit",
    "Items of one page",
    {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_MAX},
    10,
)
CURSOR: Final = in_query("cursor", "`next` of the page before", {"type": "string"})
FROM: Final = in_query("from", "Not earlier than this", TIME)
TO: Final = in_query("to", "Not later than this", TIME)
EXPECTED: Final = (
    in_header(
        "If-Match",
        "Change only this version; without either field 428",
        {"type": "string", "pattern": '^"[0-9]{1,16}"$'},
        '"41"',
    ),
    in_header("If-None-Match", "Make only what is new", {"type": "string", "pattern": "^[*]$"}, "*"),
)
"""For what has versions and is put whole."""
STEP_UP: Final = in_header(
    "Gnomon-Step-Up",
    "Token of a second factor shown for exactly this request; some roles need it here",
    {"type": "string"},
    "Zk3n0Jx2r4u8B",
)
IDEMPOTENCY_KEY: Final = in_header(
    "Idempotency-Key",
    "The same request under the same key has its effect once and the same answer each time",
    {"type": "string", "pattern": "^[\\x21-\\x7e]{1,64}$"},
    "6f1c0a52-2d0b-4f0e-9d2c-0b6f6a1d7c11",
)
