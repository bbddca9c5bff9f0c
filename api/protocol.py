"""One connection of HTTP/1.1, with the bounds that uvicorn does not have.

It bounds neither how long a request head may be nor how long it may take, and does not know who has how many
connections open.
"""

import asyncio
from asyncio import TimerHandle
from collections import Counter
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.limits import ApiLimits
from security.addresses import OTHERS, place

_TOO_LONG: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


def bounded(base: type["BoundedProtocol"], limits: ApiLimits) -> type["BoundedProtocol"]:
    """Return the protocol of one listener: with its limits, and with counts of its own."""
    return type(base.__name__, (base,), {"limits": limits, "open_by_address": Counter[str]()})


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request head is too long or does not come; counts those of each address."""

    limits: ClassVar[ApiLimits]
    open_by_address: ClassVar[Counter[str]]

    _address = OTHERS
    _in_head = True
    _head_bytes = 0
    _head_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own override
        super().connection_made(transport)
        if self.client is not None:
            self._address = place(self.client[0])
        self.open_by_address[self._address] += 1
        self._head_timer = self.loop.call_later(self.limits.head_timeout_s, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        self._leave()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._forget_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._wait_for_head(len(data))

    def _wait_for_head(self, received_bytes: int) -> None:
        self._head_bytes += received_bytes
        if self._head_bytes > self.limits.head_bytes_max:
            self.transport.write(_TOO_LONG)
            self.transport.close()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_timeout_s, self.transport.close)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _leave(self) -> None:
        self.open_by_address[self._address] -= 1
        if not self.open_by_address[self._address]:
            del self.open_by_address[self._address]
