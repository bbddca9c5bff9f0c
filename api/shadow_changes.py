"""Changing our own shadow resource (spec: shadow, 9.2): merge patch, JSON patch, restore, delete.

Every change becomes one command of the shadow service, so that the rules, the order of checks and the
repeats are the same as over MQTT. What is ours here is only how HTTP spells it: versions are entity tags,
preconditions are ``version``, an Idempotency-Key is a strict token.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from litestar.types import Scope

from api.desk import CLASSIC, Desk, origin_of, parsed, path_id, require_readable
from api.gate import hidden_before_ms, require_past
from api.operations import Route
from api.past import at_version
from api.patching import Patch, apply_patch
from api.problems import (
    INVALID_PATCH,
    PRECONDITION_FAILED,
    PRECONDITION_REQUIRED,
    UNSUPPORTED_MEDIA_TYPE,
    ApiError,
    help_of,
)
from api.reading import (
    ANY,
    HttpRequest,
    decode,
    entity_tags,
    header,
    idempotency_key,
    invalid,
    media_type,
    read_body,
    require_json,
    version_of,
)
from api.replies import JSON_PATCH, MERGE_PATCH, Reply, bytes_reply, etag, no_content
from api.schemas import RestoreBody
from api.services import ApiServices
from api.shadow_operations import DELETE_SHADOW, PATCH_SHADOW, RESTORE_SHADOW
from shadow.commands import Command, Update, parse_delete, parse_update
from shadow.decisions import Accepted
from shadow.document import ShadowId, Tree, merge_patch_between
from shadow.errors import (
    ForbiddenError,
    InvalidRequestError,
    NoShadowError,
    VersionConflictError,
    VersionPrunedError,
)

WRAPPING_BYTES: Final = 64
"""What we put around a merge patch to make a request document of it; not counted against the caller."""
MEDIA_TYPES: Final = (MERGE_PATCH.decode(), JSON_PATCH.decode())

_Make = Callable[["_Change"], Awaitable[tuple[Update, bool]]]
"""Makes the update that a body asks for, and tells whether a precondition stands before it."""

_encode = msgspec.json.Encoder().encode


class ShadowChanges:
    """Handlers that change shadows."""

    def __init__(self, services: ApiServices, desk: Desk) -> None:
        self._shadows = services.shadows
        self._archive = services.shadows.archive
        self._desk = desk
        self._body_timeout_s = services.limits.body_timeout_s
        self._limits = services.settings.limits
        self._wrapped_limits = msgspec.structs.replace(
            self._limits, request_bytes_max=self._limits.request_bytes_max + WRAPPING_BYTES
        )

    def routes(self) -> tuple[Route, ...]:
        shadow = "/v1/things/{thing:str}/shadows/{shadow:str}"
        return (
            Route("PATCH", shadow, PATCH_SHADOW, self.change),
            Route("DELETE", shadow, DELETE_SHADOW, self.delete),
            Route("POST", f"{shadow}/restore", RESTORE_SHADOW, self.restore),
        )

    async def change(self, request: HttpRequest) -> Reply:
        """Change the desired state by a merge patch or a JSON patch."""
        id = path_id(request.scope)
        require_readable(request.scope, id)  # or preconditions and `test` would tell what is in it
        match media_type(request.scope):
            case "application/merge-patch+json":
                make = self._merge_patch
            case "application/json-patch+json":
                make = self._json_patch
            case _:
                taken = ", ".join(MEDIA_TYPES)
                fields = ((b"accept-patch", taken.encode()),)
                raise ApiError(UNSUPPORTED_MEDIA_TYPE, f"send one of: {taken}", fields=fields)
        return await self._desk.answer(id, lambda: self._write(request, id, make))

    async def restore(self, request: HttpRequest) -> Reply:
        """Make a new version with the desired state of an older one."""
        id = path_id(request.scope)
        require_readable(request.scope, id)
        require_past(request.scope)
        require_json(request.scope)
        return await self._desk.answer(id, lambda: self._write(request, id, self._restoration))

    async def delete(self, request: HttpRequest) -> Reply:
        """Delete a shadow; its history and its versions go on."""
        scope = request.scope
        id = path_id(scope)
        require_readable(scope, id)
        key = idempotency_key(scope)

        async def ask() -> Reply:
            version = await self._expected(request, id)
            delete = parse_delete(
                b"", id, origin_of(scope), self._limits, version=version, idempotency_key=key
            )
            await _conditionally(version is not None, lambda: self._submit(delete, scope))
            return no_content()

        return await self._desk.answer(id, ask)

    async def _write(self, request: HttpRequest, id: ShadowId, make: _Make) -> Reply:
        key = idempotency_key(request.scope)
        update, conditional = await make(_Change(request, id, key, await self._body(request)))
        accepted = await _conditionally(conditional, lambda: self._submit(update, request.scope))
        return bytes_reply(accepted.body, fields=(etag(accepted.version),))

    async def _submit(self, command: Command, scope: Scope) -> Accepted:
        """Return the outcome as the desk does; who names a shadow as the classic one is spelled is told."""
        try:
            return await self._desk.submit(command, scope)
        except ForbiddenError as error:
            if command.id.name != CLASSIC.lstrip("@"):
                raise
            raise ForbiddenError(f"{error.detail}: the shadow without a name is {CLASSIC}") from error

    # Each looks at the body first: a precondition counts only where the request would succeed without it.

    async def _merge_patch(self, change: "_Change") -> tuple[Update, bool]:
        _require_one_value(change.body)
        version = await self._expected(change.request, change.id)
        expected = b"" if version is None else b',"version":%d' % version
        return self._update(change, b'{"state":%b%b}' % (change.body, expected)), version is not None

    async def _json_patch(self, change: "_Change") -> tuple[Update, bool]:
        patch = decode(change.body, Patch)
        version = _required(await self._expected(change.request, change.id))
        desired = await self._desired_at(change, version)
        return self._desire(change, desired, apply_patch(desired, patch), version), True

    async def _restoration(self, change: "_Change") -> tuple[Update, bool]:
        number = decode(change.body, RestoreBody).version
        version = _required(await self._expected(change.request, change.id))
        wanted = await at_version(self._archive, change.id, number, hidden_before_ms(change.request.scope))
        desired = await self._desired_at(change, version) if version else {}
        return self._desire(change, desired, wanted.desired.state, version), True

    def _desire(self, change: "_Change", before: Tree, after: Tree, version: int) -> Update:
        state = {"desired": merge_patch_between(before, after)}
        try:
            payload = _encode({"state": state, "version": version})
        except OverflowError as error:
            raise ApiError(INVALID_PATCH, "a whole number does not fit 64 bits") from error
        return self._update(change, payload)

    def _update(self, change: "_Change", payload: bytes) -> Update:
        origin = origin_of(change.request.scope)
        return parsed(lambda: parse_update(payload, change.id, origin, self._wrapped_limits, change.key))

    async def _desired_at(self, change: "_Change", version: int) -> Tree:
        """Return the desired state that the caller has seen, so that a repeat makes the same request.

        When it is not the current one the service refuses the change, and can say which fields it is about.
        """
        shadow, scope = await self._shadows.view(change.id), change.request.scope
        if shadow.version == version:
            return shadow.desired.state
        try:
            # To try patches on the past is to read it.
            require_past(scope)
            past = await at_version(self._archive, change.id, version, hidden_before_ms(scope))
        except (ApiError, VersionPrunedError) as error:
            raise _precondition_failed(VersionConflictError(shadow.version)) from error
        return past.desired.state

    async def _expected(self, request: HttpRequest, id: ShadowId) -> int | None:
        """Return the version that this change demands, None for any; 0 is "there is none"."""
        match, none_match = header(request.scope, b"if-match"), header(request.scope, b"if-none-match")
        if none_match is not None:
            if match is not None or none_match.strip() != ANY:
                raise invalid("a change takes If-Match with tags, or If-None-Match: *")
            return 0
        return None if match is None else await self._matching(entity_tags(match), id)

    async def _matching(self, tags: frozenset[str], id: ShadowId) -> int:
        versions = {version for tag in tags if (version := version_of(tag)) is not None}
        if len(versions) == 1 and ANY not in tags:
            return versions.pop()
        try:
            current = (await self._shadows.view(id)).version
        except NoShadowError:
            current = 0
        if current and (ANY in tags or current in versions):
            return current
        raise _precondition_failed(VersionConflictError(current))

    async def _body(self, request: HttpRequest) -> bytes:
        return await read_body(request, self._limits.request_bytes_max, self._body_timeout_s)


@dataclass(frozen=True, slots=True)
class _Change:
    """A request to change a shadow, as far as it has been read."""

    request: HttpRequest
    id: ShadowId
    key: str | None
    body: bytes


async def _conditionally(conditional: bool, submit: Callable[[], Awaitable[Accepted]]) -> Accepted:
    """Return the outcome; a version conflict that a precondition asked for is a failed precondition."""
    try:
        return await submit()
    except VersionConflictError as error:
        if not conditional:
            raise
        raise _precondition_failed(error) from error


def _precondition_failed(error: VersionConflictError) -> ApiError:
    return ApiError(PRECONDITION_FAILED, error.detail, members=help_of(error))


def _required(version: int | None) -> int:
    if version is None:
        raise ApiError(PRECONDITION_REQUIRED, "send If-Match with the ETag of what you have read")
    return version


def _require_one_value(body: bytes) -> None:
    """Refuse what is not exactly one JSON value: it is put inside another and must not reach out."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError("Invalid JSON", "the body must be one JSON value") from error
