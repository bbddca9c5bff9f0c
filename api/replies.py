"""Answers that are bytes already: status, headers and body, sent as they are.

Litestar's own response class spends a third of a small request's time on things we never use (cookies,
background tasks, type encoders), so a :class:`Reply` replaces it.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final, cast

import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

Field = tuple[bytes, bytes]

JSON: Final = b"application/json"
MERGE_PATCH: Final = b"application/merge-patch+json"
JSON_PATCH: Final = b"application/json-patch+json"
PROBLEM: Final = b"application/problem+json"

_encode = msgspec.json.Encoder().encode


class Reply(ASGIResponse):
    """A finished answer."""

    __slots__ = ("fields", "payload", "status")

    def __init__(self, status: int, fields: list[Field], payload: bytes = b"") -> None:
        # The base class is only there so that Litestar takes this for a response; its fields stay unset.
        self.status = status
        self.fields = fields
        self.payload = payload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        await send({"type": "http.response.start", "status": self.status, "headers": self.fields})
        await send({"type": "http.response.body", "body": self.payload, "more_body": False})


class PiecesReply(Reply):
    """An answer that is sent in pieces, each when the one before has gone out.

    Who takes none for ``timeout_s`` is left with what came: its length was told, so the connection is closed.
    """

    __slots__ = ("_pieces", "_timeout_s")

    def __init__(
        self, status: int, fields: list[Field], pieces: Iterable[bytes | memoryview], timeout_s: float
    ) -> None:
        super().__init__(status, fields)
        self._pieces = pieces
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        await send({"type": "http.response.start", "status": self.status, "headers": self.fields})
        for piece in self._pieces:
            # A view is as good as bytes to the transport, and copies nothing.
            body = cast("bytes", piece)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            except TimeoutError:
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def bytes_reply(
    payload: bytes, *, status: int = 200, media: bytes = JSON, fields: Iterable[Field] = ()
) -> Reply:
    """Answer with ``payload`` as it is."""
    length = b"%d" % len(payload)
    return Reply(status, [(b"content-type", media), (b"content-length", length), *fields], payload)


def json_reply(value: Any, *, status: int = 200, media: bytes = JSON, fields: Iterable[Field] = ()) -> Reply:  # noqa: ANN401 - any JSON value
    """Answer with ``value`` as JSON."""
    return bytes_reply(_encode(value), status=status, media=media, fields=fields)


def no_content() -> Reply:
    """Answer that it is done and there is nothing to say."""
    return Reply(204, [])


def etag(version: int) -> Field:
    """Return the header that names a version."""
    return (b"etag", b'"%d"' % version)
