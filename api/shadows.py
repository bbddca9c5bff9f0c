"""Our own shadow resource, ``/v1/things/{thing}/shadows/{shadow}`` (spec: shadow, 9.2).

Every change becomes one command of the shadow service, so that the rules, the order of checks and the
repeats are the same as over MQTT. What is ours here is only how HTTP spells it: versions are entity tags,
preconditions are ``version``, an Idempotency-Key is a strict token.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from api.desk import CLASSIC, Desk, document, origin_of, parsed, path_id, require_readable
from api.operations import Route
from api.patching import Patch, apply_patch, patch_between
from api.problems import (
    INVALID_PATCH,
    PRECONDITION_FAILED,
    PRECONDITION_REQUIRED,
    UNSUPPORTED_MEDIA_TYPE,
    VERSION_NOT_FOUND,
    ApiError,
    help_of,
)
from api.reading import (
    ANY,
    VERSION_MAX,
    HttpRequest,
    cursor_number,
    decode,
    entity_tags,
    header,
    idempotency_key,
    instant_ms,
    invalid,
    is_current,
    media_type,
    number_cursor,
    page_limit,
    query,
    read_body,
    require_json,
    rfc3339,
    version_of,
    whole,
)
from api.replies import JSON_PATCH, MERGE_PATCH, Reply, bytes_reply, etag, json_reply, no_content
from api.schemas import RestoreBody, ShadowNames, VersionDocument, VersionList
from api.services import ApiServices
from api.shadow_operations import (
    DELETE_SHADOW,
    GET_SHADOW,
    GET_VERSION,
    LIST_SHADOWS,
    LIST_VERSIONS,
    PATCH_SHADOW,
    RESTORE_SHADOW,
)
from infra.clock import MS_PER_S
from shadow import wire
from shadow.commands import Update, parse_delete, parse_id, parse_update
from shadow.decisions import Accepted
from shadow.document import ShadowId, Tree, merge_patch_between
from shadow.errors import InvalidRequestError, NoShadowError, VersionConflictError, VersionPrunedError
from shadow.history import Snapshot

WRAPPING_BYTES: Final = 64
"""What we put around a merge patch to make a request document of it; not counted against the caller."""
MEDIA_TYPES: Final = (MERGE_PATCH.decode(), JSON_PATCH.decode())

_Make = Callable[["_Change"], Awaitable[tuple[Update, bool]]]
"""Makes the update that a body asks for, and tells whether a precondition stands before it."""

_encode = msgspec.json.Encoder().encode


class Shadows:
    """Handlers of our own shadow resource."""

    def __init__(self, services: ApiServices, desk: Desk) -> None:
        self._services = services
        self._shadows = services.shadows
        self._clock = services.clock
        self._desk = desk
        self._limits = services.settings.limits
        self._wrapped_limits = msgspec.structs.replace(
            self._limits, request_bytes_max=self._limits.request_bytes_max + WRAPPING_BYTES
        )

    def routes(self) -> tuple[Route, ...]:
        shadow = "/v1/things/{thing:str}/shadows/{shadow:str}"
        return (
            Route("GET", "/v1/things/{thing:str}/shadows", LIST_SHADOWS, self.names),
            Route("GET", shadow, GET_SHADOW, self.read),
            Route("PATCH", shadow, PATCH_SHADOW, self.change),
            Route("DELETE", shadow, DELETE_SHADOW, self.delete),
            Route("GET", f"{shadow}/history", LIST_VERSIONS, self.history),
            Route("GET", f"{shadow}/history/{{version:str}}", GET_VERSION, self.version),
            Route("POST", f"{shadow}/restore", RESTORE_SHADOW, self.restore),
        )

    async def names(self, request: HttpRequest) -> Reply:
        """List the shadows of a thing."""
        id = parse_id(request.scope["path_params"]["thing"])
        query(request.scope, ())
        await self._desk.require_thing(id.thing)
        return json_reply(
            ShadowNames([one.name or CLASSIC for one in await self._shadows.shadows_of(id.thing)])
        )

    async def read(self, request: HttpRequest) -> Reply:
        """Read a shadow as it is, or as it was."""
        scope = request.scope
        id = path_id(scope)
        require_readable(scope, id)
        if scope["query_string"]:
            return await self._read_past(request, id)
        shadow = await self._desk.answer(id, lambda: self._shadows.view(id))
        if is_current(scope, shadow.version):
            return Reply(304, [etag(shadow.version)])
        return bytes_reply(document(shadow, self._clock.now_ms()), fields=(etag(shadow.version),))

    async def change(self, request: HttpRequest) -> Reply:
        """Change the desired state by a merge patch or a JSON patch."""
        id = path_id(request.scope)
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
        require_json(request.scope)
        return await self._desk.answer(id, lambda: self._write(request, id, self._restoration))

    async def delete(self, request: HttpRequest) -> Reply:
        """Delete a shadow; its history and its versions go on."""
        scope = request.scope
        id = path_id(scope)
        key = idempotency_key(scope)

        async def ask() -> Reply:
            version = await self._expected(request, id)
            delete = parse_delete(
                b"", id, origin_of(scope), self._limits, version=version, idempotency_key=key
            )
            await _conditionally(version is not None, lambda: self._desk.submit(delete))
            return no_content()

        return await self._desk.answer(id, ask)

    async def history(self, request: HttpRequest) -> Reply:
        """List the versions of a shadow, newest first."""
        scope = request.scope
        id = path_id(scope)
        require_readable(scope, id)
        fields = query(scope, ("limit", "cursor", "from", "to"))
        limit, before = page_limit(fields), cursor_number(fields)
        from_ms, to_ms = instant_ms(fields, "from"), instant_ms(fields, "to")
        rows = await self._desk.answer(
            id,
            lambda: self._shadows.archive.history(
                id, limit=limit + 1, before=before, from_ms=from_ms, to_ms=to_ms
            ),
        )
        items = [VersionDocument.of(row) for row in rows[:limit]]
        return json_reply(VersionList(items, number_cursor(items[-1].version) if len(rows) > limit else None))

    async def version(self, request: HttpRequest) -> Reply:
        """Read one version, or how it differs from another."""
        scope = request.scope
        id = path_id(scope)
        require_readable(scope, id)
        fields = query(scope, ("diff",))
        number = whole(scope["path_params"]["version"], "version", 1, VERSION_MAX)
        base = whole(fields["diff"], "diff", 1, VERSION_MAX) if "diff" in fields else None
        snapshot = await self._desk.answer(id, lambda: self._at_version(id, number))
        if base is None:
            return _snapshot_reply(scope, snapshot)
        older = await self._desk.answer(id, lambda: self._at_version(id, base))
        return json_reply(patch_between(_sections(older), _sections(snapshot)), media=JSON_PATCH)

    # ------------------------------------------------------------------ reading

    async def _read_past(self, request: HttpRequest, id: ShadowId) -> Reply:
        fields = query(request.scope, ("version", "at"))
        at_ms = instant_ms(fields, "at")
        if at_ms is not None and "version" in fields:
            raise invalid("ask for a version or for a time, not for both")
        if at_ms is not None:
            snapshot = await self._desk.answer(id, lambda: self._at_time(id, at_ms))
        else:
            number = whole(fields["version"], "version", 1, VERSION_MAX)
            snapshot = await self._desk.answer(id, lambda: self._at_version(id, number))
        return _snapshot_reply(request.scope, snapshot)

    async def _at_version(self, id: ShadowId, number: int) -> Snapshot:
        try:
            return await self._shadows.archive.at_version(id, number)
        except NoShadowError as error:
            raise ApiError(VERSION_NOT_FOUND, f"version {number} was never made, or is a deletion") from error

    async def _at_time(self, id: ShadowId, at_ms: int) -> Snapshot:
        try:
            return await self._shadows.archive.at_time(id, at_ms)
        except NoShadowError as error:
            raise ApiError(VERSION_NOT_FOUND, "there was no such shadow then") from error

    # ------------------------------------------------------------------ writing

    async def _write(self, request: HttpRequest, id: ShadowId, make: _Make) -> Reply:
        key = idempotency_key(request.scope)
        update, conditional = await make(_Change(request, id, key, await self._body(request)))
        accepted = await _conditionally(conditional, lambda: self._desk.submit(update))
        return bytes_reply(accepted.body, fields=(etag(accepted.version),))

    # Each looks at the body first: a precondition counts only where the request would succeed without it.

    async def _merge_patch(self, change: "_Change") -> tuple[Update, bool]:
        _require_one_value(change.body)
        version = await self._expected(change.request, change.id)
        expected = b"" if version is None else b',"version":%d' % version
        return self._update(change, b'{"state":%b%b}' % (change.body, expected)), version is not None

    async def _json_patch(self, change: "_Change") -> tuple[Update, bool]:
        patch = decode(change.body, Patch)
        version = _required(await self._expected(change.request, change.id))
        desired = await self._desired_at(change.id, version)
        return self._desire(change, desired, apply_patch(desired, patch), version), True

    async def _restoration(self, change: "_Change") -> tuple[Update, bool]:
        number = decode(change.body, RestoreBody).version
        version = _required(await self._expected(change.request, change.id))
        wanted = await self._at_version(change.id, number)
        desired = await self._desired_at(change.id, version) if version else {}
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

    async def _desired_at(self, id: ShadowId, version: int) -> Tree:
        """Return the desired state that the caller has seen, so that a repeat makes the same request.

        When it is not the current one the service refuses the change, and can say which fields it is about.
        """
        shadow = await self._shadows.view(id)
        if shadow.version == version:
            return shadow.desired.state
        try:
            return (await self._shadows.archive.at_version(id, version)).desired.state
        except (NoShadowError, VersionPrunedError) as error:
            raise _precondition_failed(VersionConflictError(shadow.version)) from error

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
        return await read_body(request, self._limits.request_bytes_max, self._services.limits.body_timeout_s)


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


def _sections(snapshot: Snapshot) -> Tree:
    both = {"desired": snapshot.desired.state, "reported": snapshot.reported.state}
    return {name: state for name, state in both.items() if state}


def _snapshot_reply(scope: Any, snapshot: Snapshot) -> Reply:  # noqa: ANN401 - Litestar's scope
    if is_current(scope, snapshot.version):
        return Reply(304, [etag(snapshot.version)])
    document = wire.version_json(snapshot.desired, snapshot.reported, snapshot.version)
    at = b',"timestamp":%d,"at":"%b"}' % (snapshot.at_ms // MS_PER_S, rfc3339(snapshot.at_ms).encode())
    return bytes_reply(document[:-1] + at, fields=(etag(snapshot.version),))
