"""Server-sent events that resume without gaps and never hold up a shutdown.

A stream keeps no queue. A wake-up says "something changed here"; what changed is read where it lives, from
where the reader was last. A slow reader therefore costs nothing but its place, and a stream that broke off
goes on where it was: its events carry as ``id`` what the feed needs to know for that.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from litestar.types import Receive, Scope, Send

from api.guards import STILL_MAY
from api.problems import TOO_MANY_STREAMS, ApiError
from api.replies import Field, Reply
from api.services import ApiServices
from infra.documents.port import StoreError
from infra.live import Watcher

RETRY: Final = b"retry: 2000\n\n"
"""How long a browser waits before it comes back."""
HEARTBEAT: Final = b": alive\n\n"
FIELDS: Final[tuple[Field, ...]] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)

StillMay = Callable[[], Awaitable[bool]]


class GoneError(Exception):
    """There is nothing left to tell of; the stream ends."""


class Feed(Protocol):
    """What one stream tells. It knows where its reader is."""

    async def opening(self) -> tuple[bytes, ...]:
        """Return the events for a reader who comes; what is wrong here refuses the request."""
        ...

    def news(self) -> AsyncIterator[bytes]:
        """Yield what there is to tell since the last time; raise :class:`GoneError` when it is all over."""
        ...


class Places:
    """The streams that one process has room for."""

    def __init__(self, streams_max: int) -> None:
        self._streams_max = streams_max
        self._open = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for as long as the block lasts."""
        if self._open >= self._streams_max:
            raise ApiError(TOO_MANY_STREAMS, f"{self._streams_max} streams are open")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class EventStream(Reply):
    """One reader's stream of what happens at ``topic``."""

    __slots__ = ("_feed", "_limits", "_live", "_places", "_scope", "_silent_since_s", "_topic")

    def __init__(self, places: Places, services: ApiServices, topic: str, feed: Feed) -> None:
        super().__init__(200, list(FIELDS))
        self._places = places
        self._live = services.live
        self._limits = services.limits
        self._topic = topic
        self._feed = feed
        self._silent_since_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        # Watching begins before the first read, so that nothing falls between the two.
        with self._places.place(), self._live.watch(self._topic) as watcher:
            opening = (RETRY, *await self._feed.opening())
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

    async def _speak(self, watcher: Watcher, opening: tuple[bytes, ...], send: Send) -> None:
        """Send what there is until the watcher is closed, the reader stops reading or the store is gone.

        However it ends, the reader comes back with the ``id`` it has.
        """
        try:
            for event in opening:
                await self._send(event, send)
            while not watcher.closed:
                async for event in self._feed.news():
                    await self._send(event, send)
                await self._wait(watcher)
                # Whatever woke it may have been nothing for this reader, again and again.
                if self._is_silent():
                    await self._send(HEARTBEAT, send)
        except (StoreError, GoneError, TimeoutError):
            return

    async def _until_barred(self) -> None:
        """Return when the reader may no longer see this: signed out, moved out, or it is gone."""
        still_may: StillMay = self._scope["state"][STILL_MAY]
        while True:
            await asyncio.sleep(self._limits.rights_check_s)
            if not await still_may():
                return

    async def _wait(self, watcher: Watcher) -> None:
        """Return when there may be news, or the reader has heard nothing for long enough."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._silent_since_s + self._limits.heartbeat_s):
                await watcher.wait()

    def _is_silent(self) -> bool:
        return _now_s() >= self._silent_since_s + self._limits.heartbeat_s

    async def _send(self, event: bytes, send: Send) -> None:
        async with asyncio.timeout(self._limits.send_timeout_s):
            await send({"type": "http.response.body", "body": event, "more_body": True})
        self._silent_since_s = _now_s()


def event(name: bytes, data: bytes, id: bytes = b"") -> bytes:
    """Spell an event; without an ``id`` the reader keeps the one before."""
    return (b"id: %b\n" % id if id else b"") + b"event: %b\ndata: %b\n\n" % (name, data)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
