"""A shadow, live: each of its versions as an event, read from the history.

An event's ``id`` is its version, so a stream that broke off goes on with the next one.
"""

from collections.abc import AsyncIterator
from typing import Final

import msgspec
from litestar.types import Scope

from api.desk import document, path_id, require_readable
from api.gate import hidden_before_ms
from api.operations import Route
from api.reading import VERSION_MAX, HttpRequest, header, whole
from api.replies import Reply
from api.schemas import VersionDocument
from api.services import ApiServices
from api.shadow_operations import WATCH_SHADOW
from api.streams import EventStream, GoneError, Places, event
from security.policy import Action, may
from shadow.document import ShadowId
from shadow.errors import NoShadowError
from shadow.history import HistoryRow

ROWS_MAX: Final = 50
"""Rows of history read at once; a reader that is far behind is told in portions."""

_encode = msgspec.json.Encoder().encode


class LiveShadows:
    """The handler of ``…/live``."""

    def __init__(self, services: ApiServices, places: Places) -> None:
        self._services = services
        self._places = places

    def routes(self) -> tuple[Route, ...]:
        return (Route("GET", "/v1/things/{thing:str}/shadows/{shadow:str}/live", WATCH_SHADOW, self.watch),)

    async def watch(self, request: HttpRequest) -> Reply:
        """Begin a stream of a shadow's versions."""
        scope = request.scope
        id = path_id(scope)
        require_readable(scope, id)
        known = header(scope, b"last-event-id")
        seen = whole(known, "Last-Event-ID", 0, VERSION_MAX) if known else None
        # To be told what was missed is to read the past.
        principal, target = scope["user"], scope["state"]["target"]
        seen = seen if may(principal, Action.SHADOW_HISTORY, target) else None
        return EventStream(self._places, self._services, id.key, _Versions(self._services, id, scope, seen))


class _Versions:
    """The versions of a shadow, for one reader."""

    def __init__(self, services: ApiServices, id: ShadowId, scope: Scope, seen: int | None) -> None:
        self._shadows = services.shadows
        self._clock = services.clock
        self._id = id
        self._scope = scope
        self._version = seen

    async def opening(self) -> tuple[bytes, ...]:
        return () if self._version is not None else (await self._whole(),)

    async def news(self) -> AsyncIterator[bytes]:
        """Yield an event for each version since the one the reader has."""
        try:
            async for told in self._since():
                yield told
        except NoShadowError as error:
            raise GoneError from error

    async def _since(self) -> AsyncIterator[bytes]:
        while True:
            seen = self._version or 0
            rows = await self._shadows.archive.history(self._id, limit=ROWS_MAX, before=seen + 1 + ROWS_MAX)
            news = [row for row in reversed(rows) if row.version > seen]
            if not news and rows and rows[0].version >= seen:
                return
            hidden = news and news[0].at_ms < hidden_before_ms(self._scope)
            if not news or news[0].version > seen + 1 or hidden:
                # History does not reach back to the reader, or not for them, or they know a version that
                # never was: begin anew.
                yield await self._whole()
                continue
            for row in news:
                self._version = row.version
                yield _version_event(row, self._scope["user"].name)

    async def _whole(self) -> bytes:
        """Return the event that holds the whole shadow, from which the versions go on."""
        shadow = await self._shadows.view(self._id)
        self._version = shadow.version
        return event(b"shadow", document(shadow, self._clock.now_ms()), b"%d" % shadow.version)


def _version_event(row: HistoryRow, reader: str) -> bytes:
    return event(b"version", _encode(VersionDocument.of(row, reader)), b"%d" % row.version)
