"""Shapes at work: a body against its shape, and a shape against what a shape may be. Pure.

Shapes are JSON Schema and come from people, so nothing in one may reach out or take for ever: no reference
is fetched, patterns run in linear time, and what is wrong is said without the values themselves.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import jsonschema_rs
import msgspec

from programs.errors import PROBLEMS_MAX, InvalidEntryError
from programs.models import Body, Shape, ShapeKind, check_shape_id

SCHEMA_BYTES_MAX: Final = 16_384
BODY_BYTES_MAX: Final = 8_192
"""Of a body in a shape: half a ``program`` shadow, which holds it twice once the device has reported it."""
DEPTH_MAX: Final[Mapping[ShapeKind, int]] = {ShapeKind.TARIFF: 4, ShapeKind.MESSAGE: 4, ShapeKind.PARAMS: 3}
"""Levels of nesting, the body's own one counted: what a shadow takes less the names above the body."""
VALIDATORS_MAX: Final = 256
PATTERN_BYTES_MAX: Final = 65_536
PROBLEM_CHARS_MAX: Final = 200
OURS: Final[Mapping[ShapeKind, frozenset[str]]] = {
    ShapeKind.TARIFF: frozenset({"schema", "rev"}),
    ShapeKind.MESSAGE: frozenset(),
    ShapeKind.PARAMS: frozenset(),
}
"""Fields that we put beside a body on the wire, so that no body has them."""

_encode: Final = msgspec.json.Encoder(order="deterministic").encode


def check_shape(shape: Shape) -> None:
    """Raise :class:`InvalidEntryError` unless bodies can be checked against this shape."""
    check_shape_id(shape.id)
    what = f"shape/{shape.id}"
    if shape.schema.get("type") != "object":
        raise InvalidEntryError(what, ['schema: says "type": "object"'])
    if len(_encode(shape.schema)) > SCHEMA_BYTES_MAX:
        raise InvalidEntryError(what, [f"schema: at most {SCHEMA_BYTES_MAX} bytes"])
    try:
        _validator(shape)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise InvalidEntryError(what, [f"schema: {_first_line(str(error))}"]) from error


class Checker:
    """Checks bodies; keeps the shapes it has met ready, which is what takes the time."""

    def __init__(self) -> None:
        self._ready: dict[str, jsonschema_rs.Validator] = {}

    def check(self, shape: Shape, body: Body, what: str) -> None:
        """Raise :class:`InvalidEntryError` with what keeps ``body`` from being of this shape."""
        problems = list(_plain_problems(shape.kind, body))
        if not problems:
            found = self._of(shape).iter_errors(dict(body))
            problems = [_problem(error) for error, _ in zip(found, range(PROBLEMS_MAX), strict=False)]
        if problems:
            raise InvalidEntryError(what, problems)

    def _of(self, shape: Shape) -> jsonschema_rs.Validator:
        ready = self._ready.get(shape.id)
        if ready is None:
            if len(self._ready) >= VALIDATORS_MAX:
                self._ready.clear()
            ready = self._ready[shape.id] = _validator(shape)
        return ready


def _validator(shape: Shape) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator(
        dict(shape.schema),
        validate_formats=False,
        offline=True,
        mask="it",
        pattern_options=jsonschema_rs.RegexOptions(PATTERN_BYTES_MAX, PATTERN_BYTES_MAX),
    )


def _plain_problems(kind: ShapeKind, body: Body) -> Iterator[str]:
    """Yield what no shape needs to say, because shadows could not carry it."""
    yield from (f"{name}: this field is ours" for name in sorted(OURS[kind] & body.keys()))
    if len(_encode(body)) > BODY_BYTES_MAX:
        yield f"a body has at most {BODY_BYTES_MAX} bytes"
    elif _depth(body, DEPTH_MAX[kind]) > DEPTH_MAX[kind]:
        yield f"a body is nested at most {DEPTH_MAX[kind]} levels"
    elif _holds_null(body):
        yield "null: leave the field out instead"


def _depth(value: Any, deepest: int) -> int:  # noqa: ANN401 - any JSON value
    """Return the levels of nesting; looks no further than one below ``deepest``."""
    if not isinstance(value, Mapping | list | tuple) or deepest < 0:
        return 0
    inner = value.values() if isinstance(value, Mapping) else value
    return 1 + max((_depth(one, deepest - 1) for one in inner), default=0)


def _holds_null(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    if isinstance(value, Mapping):
        return any(map(_holds_null, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_null, value))
    return value is None


def _problem(error: jsonschema_rs.ValidationError) -> str:
    place = "/".join(str(part) for part in error.instance_path) or "body"
    return f"{place}: {_first_line(error.message)}"


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0][:PROBLEM_CHARS_MAX]
