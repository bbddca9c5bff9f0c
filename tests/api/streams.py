"""A reader of server-sent events that speaks ASGI: a test decides what it takes and when it leaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from litestar import Litestar

PATIENCE_S = 5.0


@dataclass
class Reader:
    """One open stream. ``takes`` cleared = the reader has stopped reading."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    events: list[dict[str, str]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    body: bytes = b""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    takes: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            await self.takes.wait()
            self.body += message.get("body", b"")
            self._read()
            if not message.get("more_body"):
                self.ended.set()
        self._news.set()

    def _read(self) -> None:
        if not self.headers[b"content-type"].startswith(b"text/event-stream"):
            return
        *whole, self.body = self.body.split(b"\n\n")
        for block in whole:
            lines = block.decode().split("\n")
            self.comments += [line for line in lines if line.startswith(":")]
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
            if "data" in fields:
                self.events.append(fields)

    async def until(self, count: int) -> list[dict[str, str]]:
        """Return the first ``count`` events."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.events) < count:
                self._news.clear()
                await self._news.wait()
        return self.events[:count]

    async def until_comment(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.comments:
                self._news.clear()
                await self._news.wait()

    async def until_ended(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.ended.wait()

    @property
    def ids(self) -> list[int]:
        return [int(event["id"]) for event in self.events]


@asynccontextmanager
async def stream(app: Litestar, path: str, token: str, last: str | None = None) -> AsyncIterator[Reader]:
    """Open a stream, and leave it at the end of the block."""
    reader = Reader()
    reader.takes.set()
    headers = [(b"host", b"gnomon"), (b"authorization", b"Bearer " + token.encode())]
    if last is not None:
        headers.append((b"last-event-id", last.encode()))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "server": ("gnomon", 80),
        "client": ("reader", 1),
    }
    async with asyncio.TaskGroup() as group:
        group.create_task(app(scope, reader.receive, reader.send), name="reader")  # type: ignore[arg-type]  # two spellings of ASGI
        try:
            yield reader
        finally:
            reader.takes.set()
            reader.gone.set()
