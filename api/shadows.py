"""Reading our own shadow resource, ``/v1/things/{thing}/shadows/{shadow}``, now and in the past.

(spec: shadow, 9.2)
"""

from api.desk import CLASSIC, Desk, document, path_id, require_readable
from api.gate import hidden_before_ms, require_past
from api.operations import Route
from api.past import at_time, at_version, sections, snapshot_reply
from api.patching import patch_between
from api.reading import (
    VERSION_MAX,
    HttpRequest,
    cursor_number,
    instant_ms,
    invalid,
    is_current,
    number_cursor,
    page_limit,
    query,
    whole,
)
from api.replies import JSON_PATCH, Reply, bytes_reply, etag, json_reply
from api.schemas import ShadowNames, VersionDocument, VersionList
from api.services import ApiServices
from api.shadow_operations import GET_SHADOW, GET_VERSION, LIST_SHADOWS, LIST_VERSIONS
from security.policy import may_read
from shadow.commands import parse_id
from shadow.document import ShadowId


class Shadows:
    """Handlers that read shadows."""

    def __init__(self, services: ApiServices, desk: Desk) -> None:
        self._shadows = services.shadows
        self._archive = services.shadows.archive
        self._clock = services.clock
        self._desk = desk

    def routes(self) -> tuple[Route, ...]:
        shadow = "/v1/things/{thing:str}/shadows/{shadow:str}"
        return (
            Route("GET", "/v1/things/{thing:str}/shadows", LIST_SHADOWS, self.names),
            Route("GET", shadow, GET_SHADOW, self.read),
            Route("GET", f"{shadow}/history", LIST_VERSIONS, self.history),
            Route("GET", f"{shadow}/history/{{version:str}}", GET_VERSION, self.version),
        )

    async def names(self, request: HttpRequest) -> Reply:
        """List the shadows of a thing."""
        id = parse_id(request.scope["path_params"]["thing"])
        query(request.scope, ())
        role = request.scope["user"].role
        ids = await self._shadows.shadows_of(id.thing)
        return json_reply(ShadowNames([one.name or CLASSIC for one in ids if may_read(role, one.name)]))

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

    async def history(self, request: HttpRequest) -> Reply:
        """List the versions of a shadow, newest first."""
        scope = request.scope
        id = path_id(scope)
        require_readable(scope, id)
        fields = query(scope, ("limit", "cursor", "from", "to"))
        limit, before = page_limit(fields), cursor_number(fields)
        from_ms, to_ms = instant_ms(fields, "from"), instant_ms(fields, "to")
        from_ms = max(from_ms or 0, hidden_before_ms(scope))
        rows = await self._desk.answer(
            id,
            lambda: self._archive.history(id, limit=limit + 1, before=before, from_ms=from_ms, to_ms=to_ms),
        )
        items = [VersionDocument.of(row, scope["user"].name) for row in rows[:limit]]
        return json_reply(VersionList(items, number_cursor(items[-1].version) if len(rows) > limit else None))

    async def version(self, request: HttpRequest) -> Reply:
        """Read one version, or how it differs from another."""
        scope = request.scope
        id = path_id(scope)
        require_readable(scope, id)
        fields, hidden = query(scope, ("diff",)), hidden_before_ms(scope)
        number = whole(scope["path_params"]["version"], "version", 1, VERSION_MAX)
        base = whole(fields["diff"], "diff", 1, VERSION_MAX) if "diff" in fields else None
        snapshot = await self._desk.answer(id, lambda: at_version(self._archive, id, number, hidden))
        if base is None:
            return snapshot_reply(scope, snapshot)
        older = await self._desk.answer(id, lambda: at_version(self._archive, id, base, hidden))
        return json_reply(patch_between(sections(older), sections(snapshot)), media=JSON_PATCH)

    async def _read_past(self, request: HttpRequest, id: ShadowId) -> Reply:
        require_past(request.scope)
        hidden = hidden_before_ms(request.scope)
        fields = query(request.scope, ("version", "at"))
        at_ms = instant_ms(fields, "at")
        if at_ms is not None and "version" in fields:
            raise invalid("ask for a version or for a time, not for both")
        if at_ms is not None:
            snapshot = await self._desk.answer(id, lambda: at_time(self._archive, id, at_ms, hidden))
        else:
            number = whole(fields["version"], "version", 1, VERSION_MAX)
            snapshot = await self._desk.answer(id, lambda: at_version(self._archive, id, number, hidden))
        return snapshot_reply(request.scope, snapshot)
