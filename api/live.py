"""A shadow, live: server-sent events that resume without gaps and never hold up a shutdown.

A stream keeps no queue. A wake-up says "something changed here"; what changed is read from the history,
from the version the reader had last. A slow reader therefore costs nothing but its place, and a stream that
broke off goes on where it was: its events carry their version as ``id``.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from litestar.types import Receive, Scope, Send

from api.desk import document, path_id, require_readable
from api.gate import hidden_before_ms
from api.guards import STILL_MAY
from api.operations import Route
from api.problems import TOO_MANY_STREAMS, ApiError
from api.reading import VERSION_MAX, HttpRequest, header, whole
from api.replies import Field, Reply
from api.schemas import VersionDocument
from api.services import ApiServices
from api.shadow_operations import WATCH_SHADOW
from infra.documents.port import StoreError
from infra.live import Watcher
from security.policy import Action, may
from shadow.document import ShadowId
from shadow.errors import NoShadowError
from shadow.history import HistoryRow

ROWS_MAX: Final = 50
"""Rows of history read at once; a reader that is far behind is told in portions."""
RETRY: Final = b"retry: 2000\n\n"
"""How long a browser waits before it comes back."""
HEARTBEAT: Final = b": alive\n\n"
FIELDS: Final[tuple[Field, ...]] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)

StillMay = Callable[[], Awaitable[bool]]

_encode = msgspec.json.Encoder().encode


class LiveShadows:
    """The handler of ``…/live`` and the places of its streams."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._open = 0

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
        return EventStream(self, self._services, id, seen)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for as long as the block lasts."""
        streams_max = self._services.limits.streams_max
        if self._open >= streams_max:
            raise ApiError(TOO_MANY_STREAMS, f"{streams_max} streams are open")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class EventStream(Reply):
    """One reader's stream."""

    __slots__ = ("_id", "_limits", "_scope", "_services", "_shadows", "_streams", "_version")

    def __init__(self, streams: LiveShadows, services: ApiServices, id: ShadowId, seen: int | None) -> None:
        super().__init__(200, list(FIELDS))
        self._streams = streams
        self._services = services
        self._shadows = services.shadows
        self._limits = services.limits
        self._id = id
        self._version = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        # Watching begins before the first read, so that no version falls between the two.
        with self._streams.place(), self._services.live.watch(self._id.key) as watcher:
            opening = [RETRY] if self._version is not None else [RETRY, await self._whole()]
            await send({"type": "http.response.start", "status": self.status, "headers": self.fields})
            async with asyncio.TaskGroup() as group:
                speaking = group.create_task(self._speak(watcher, opening, send), name="event stream")
                listening = group.create_task(_until_gone(receive), name="event stream reader")
                watching = group.create_task(self._until_barred(), name="event stream rights")
                working = {speaking, listening, watching}
                await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                for task in working:
                    task.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _speak(self, watcher: Watcher, opening: list[bytes], send: Send) -> None:
        """Send what there is until the watcher is closed, the reader stops reading or the store is gone.

        However it ends, the reader comes back with the version it has.
        """
        try:
            for event in opening:
                await self._send(event, send)
            while not watcher.closed:
                async for event in self._news():
                    await self._send(event, send)
                if not await self._woken(watcher):
                    await self._send(HEARTBEAT, send)
        except (StoreError, NoShadowError, TimeoutError):
            return

    async def _until_barred(self) -> None:
        """Return when the reader may no longer see this: signed out, moved out, or the thing is gone."""
        still_may: StillMay = self._scope["state"][STILL_MAY]
        while True:
            await asyncio.sleep(self._limits.rights_check_s)
            if not await still_may():
                return

    async def _woken(self, watcher: Watcher) -> bool:
        try:
            async with asyncio.timeout(self._limits.heartbeat_s):
                await watcher.wait()
        except TimeoutError:
            return False
        return True

    async def _news(self) -> AsyncIterator[bytes]:
        """Yield an event for each version since the one the reader has."""
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
        return _event(shadow.version, b"shadow", document(shadow, self._services.clock.now_ms()))

    async def _send(self, event: bytes, send: Send) -> None:
        async with asyncio.timeout(self._limits.send_timeout_s):
            await send({"type": "http.response.body", "body": event, "more_body": True})


def _version_event(row: HistoryRow, reader: str) -> bytes:
    return _event(row.version, b"version", _encode(VersionDocument.of(row, reader)))


def _event(version: int, name: bytes, data: bytes) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (version, name, data)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
