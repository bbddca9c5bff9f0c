"""From a request's bytes to a command: the checks that need no document (spec: shadow, section 8, 5-10).

The parsers refuse in the order of that table, and a refusal still says which ``clientToken`` asked,
because a client that does not see its token waits for ever. No authorization, no store, no clock.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

import msgspec

from infra.settings.model import ShadowLimits
from security.policy import Role
from shadow.document import ShadowId, Tree
from shadow.errors import EncodingError, InvalidRequestError, ShadowError, TooLargeError
from shadow.ledger import digest_of, key_hash, token_hash

VERSION_MAX: Final = 2**53 - 1
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1

_THING = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_SHADOW = re.compile(r"[a-zA-Z0-9:_-]{1,64}")


class Channel(StrEnum):
    """How a request came in, which is where its answer goes."""

    MQTT = "mqtt"
    HTTP = "http"
    SYSTEM = "system"


class Origin(msgspec.Struct, frozen=True):
    """Who asks: the principal's name and role, the way in, and the gateway's tree if it came by one."""

    actor: str
    role: Role
    channel: Channel
    gateway: str | None = None
    request_id: str = ""


class Update(msgspec.Struct, frozen=True, gc=False):
    """Change a shadow. ``state`` holds ``desired`` and/or ``reported``; None removes both."""

    id: ShadowId
    origin: Origin
    token: str | None
    token_hash: bytes | None
    digest: bytes
    state: Tree | None
    version: int | None = None
    sequence: tuple[int, int] | None = None
    strict: bool = False
    """The token is an Idempotency-Key: another body under it is refused instead of taken as new."""

    @property
    def sections(self) -> Tree:
        """The patches by section name."""
        return {"desired": None, "reported": None} if self.state is None else self.state


class Get(msgspec.Struct, frozen=True, gc=False):
    """Read a shadow."""

    id: ShadowId
    origin: Origin
    token: str | None = None


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Delete a shadow; ``version`` as in :class:`Update`."""

    id: ShadowId
    origin: Origin
    token: str | None
    token_hash: bytes | None
    digest: bytes
    version: int | None = None
    strict: bool = False


Command = Update | Get | Delete


class _Request(msgspec.Struct):
    state: Any = msgspec.UNSET
    version: Any = msgspec.UNSET
    clientToken: Any = msgspec.UNSET  # noqa: N815 - the wire's name
    sequence: Any = msgspec.UNSET


_decode = msgspec.json.Decoder(_Request).decode


class RefusedError(Exception):
    """A request that was refused while it was read; ``token`` is to be echoed."""

    def __init__(self, error: ShadowError, token: str | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.token = token


def parse_id(thing: str, name: str = "") -> ShadowId:
    """Return the id for two names from outside; raise :class:`InvalidRequestError` for a bad one."""
    if not _THING.fullmatch(thing):
        raise InvalidRequestError("Invalid thing name", "1 to 128 of a-z A-Z 0-9 : _ -")
    if name and not _SHADOW.fullmatch(name):
        raise InvalidRequestError("Invalid shadow name", "1 to 64 of a-z A-Z 0-9 : _ -")
    return ShadowId(thing, name)


def parse_update(
    payload: bytes, id: ShadowId, origin: Origin, limits: ShadowLimits, idempotency_key: str | None = None
) -> Update:
    """Return the update a payload asks for, or raise :class:`RefusedError` with the first failed check.

    With an ``idempotency_key`` that key takes the place of the body's ``clientToken``.
    """
    request = _read(payload, limits)
    token = _echo(request, limits)
    try:
        too_deep = _check_state(request.state, limits.depth_max)
        _check_shape(request.state)
        version = _version(request.version)
        if token is None and request.clientToken is not msgspec.UNSET:
            raise InvalidRequestError(
                "Invalid clientToken", f"a string of at most {limits.token_bytes_max} bytes"
            )
        sequence = _sequence(request)
        if too_deep:
            raise _depth_error(limits)
    except ShadowError as error:
        raise RefusedError(error, token) from error
    return update(id, origin, request.state, limits, token, payload, version, sequence, idempotency_key)


def update(
    id: ShadowId,
    origin: Origin,
    state: Tree | None,
    limits: ShadowLimits,
    token: str | None,
    payload: bytes,
    version: int | None = None,
    sequence: tuple[int, int] | None = None,
    idempotency_key: str | None = None,
) -> Update:
    """Return an update of a state that is well formed already; ``payload`` tells repeats apart."""
    token_hash = _counted(token, limits, idempotency_key)
    strict = idempotency_key is not None
    return Update(id, origin, token, token_hash, digest_of(payload), state, version, sequence, strict)


def parse_get(payload: bytes, id: ShadowId, origin: Origin, limits: ShadowLimits) -> Get:
    """Return the get; a body that is not JSON is ignored, like all in it but the token (spec 1)."""
    return Get(id, origin, _lenient_token(payload, limits))


def parse_delete(
    payload: bytes,
    id: ShadowId,
    origin: Origin,
    limits: ShadowLimits,
    *,
    version: int | None = None,
    idempotency_key: str | None = None,
) -> Delete:
    """Return the deletion; a body that is not JSON is ignored, like all in it but the token (spec 1)."""
    token = _lenient_token(payload, limits)
    return Delete(
        id,
        origin,
        token,
        _counted(token, limits, idempotency_key),
        digest_of(payload),
        version,
        strict=idempotency_key is not None,
    )


def peek_token(payload: bytes, limits: ShadowLimits) -> str | None:
    """Return the token to echo when a request is refused before it is parsed (spec 8, rows 2-4)."""
    return _lenient_token(payload, limits)


def check_tree(tree: Tree, limits: ShadowLimits) -> None:
    """Raise :class:`InvalidRequestError` unless ``tree`` may be a section's patch (spec 2, 3, 8)."""
    if _check_state({"desired": tree}, limits.depth_max):
        raise _depth_error(limits)


def _read(payload: bytes, limits: ShadowLimits) -> _Request:
    if len(payload) > limits.request_bytes_max:
        error: ShadowError = TooLargeError(f"a request may have {limits.request_bytes_max} bytes")
        raise RefusedError(error, None)
    try:
        if not payload.isascii():
            payload.decode()
        return _decode(payload)
    except UnicodeDecodeError as bad:
        raise RefusedError(EncodingError(), None) from bad
    except RecursionError as bad:
        raise RefusedError(_depth_error(limits), None) from bad
    except msgspec.DecodeError as bad:
        raise RefusedError(_invalid_json(str(bad)), None) from bad


def _echo(request: _Request, limits: ShadowLimits) -> str | None:
    token = request.clientToken
    if type(token) is str and _fits(token, limits):
        return token
    return None


def _lenient_token(payload: bytes, limits: ShadowLimits) -> str | None:
    if not payload:
        return None
    try:
        return _echo(_read(payload, limits), limits)
    except RefusedError:
        return None


def _fits(token: str, limits: ShadowLimits) -> bool:
    return len(token) <= limits.token_bytes_max and (
        token.isascii() or len(token.encode()) <= limits.token_bytes_max
    )


def _counted(token: str | None, limits: ShadowLimits, idempotency_key: str | None) -> bytes | None:
    """Return the hash under which a repeat is looked for; None when this token cannot tell repeats."""
    if idempotency_key is not None:
        return key_hash(idempotency_key)
    if not token or token in limits.dedup_tokens_ignored:
        return None
    return token_hash(token)


def _invalid_json(detail: str) -> InvalidRequestError:
    return InvalidRequestError("Invalid JSON", detail)


def _depth_error(limits: ShadowLimits) -> InvalidRequestError:
    return InvalidRequestError(
        f"JSON contains too many levels of nesting; maximum is {limits.depth_max}",
        "the section itself is level 1",
    )


def _check_shape(state: object) -> None:
    if state is msgspec.UNSET:
        raise InvalidRequestError("Missing required node: state")
    if state is None:
        return
    if type(state) is not dict:
        raise InvalidRequestError("State node must be an object")
    for name, section in state.items():
        if name not in {"desired", "reported"}:
            raise InvalidRequestError(
                "State contains an invalid node", "only desired and reported may be written"
            )
        if section is not None and type(section) is not dict:
            raise InvalidRequestError(f"{name.capitalize()} node must be an object")


def _version(version: object) -> int | None:
    if version is msgspec.UNSET:
        return None
    if type(version) is float and version.is_integer():
        version = int(version)
    if type(version) is int and 0 <= version <= VERSION_MAX:
        return version
    raise InvalidRequestError("Invalid version", "a whole number from 0 to 2^53 - 1")


def _sequence(request: _Request) -> tuple[int, int] | None:
    sequence = request.sequence
    if sequence is msgspec.UNSET:
        return None
    if type(sequence) is dict and type(request.state) is dict and "reported" in request.state:
        epoch, number = sequence.get("epoch"), sequence.get("number")
        if (
            type(epoch) is int
            and type(number) is int
            and 0 <= epoch <= INTEGER_MAX
            and 0 <= number <= INTEGER_MAX
        ):
            return epoch, number
    raise InvalidRequestError("Invalid sequence", "{epoch, number}, whole numbers, beside reported")


_HARMLESS: Final = frozenset({str, float, bool})
"""Kinds of value that the decoder has checked already; most values are of these."""


def _check_state(state: object, depth_max: int) -> bool:
    """Check every name and value of ``state``; tell whether it is nested too deeply.

    Depth is reported, not raised, because it comes later in the order of checks.
    """
    try:
        return _check((state,), depth_max + 1, False)  # a section is level 1, so state is 0
    except RecursionError:
        return True


def _check(values: Iterable[Any], levels: int, in_array: bool) -> bool:
    """Check the values of an object or array below which ``levels`` more may hold something."""
    too_deep = False
    for value in values:
        kind = type(value)
        if kind in _HARMLESS:
            continue
        if kind is int:
            if not INTEGER_MIN <= value <= INTEGER_MAX:
                raise _invalid_json("a whole number does not fit 64 bits")
        elif kind is dict:
            for name in value:
                if "\x00" in name:
                    raise _invalid_json("a name holds U+0000")
            if _check(value.values(), levels - 1, in_array) or (levels <= 0 and value):
                too_deep = True
        elif kind is list:
            if _check(value, levels - 1, True) or (levels <= 0 and value):
                too_deep = True
        elif in_array and value is None:
            raise _invalid_json("an array holds null")
    return too_deep
