"""Requests that could not be handled for a reason that nobody foresaw: their bytes, and the reason.

A log of its own in the store, so that an operator can look (``gnomon dead-letters``) and, after a repair,
send them again. Of one thing only so many are kept: a later one takes the place of an earlier one.
"""

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec
import structlog

from broker_bridge.inbox import Message
from broker_bridge.topics import AnyRequest, Request
from infra.clock import Clock
from infra.documents.port import DocumentStore, Entry, StoreUnavailableError
from infra.telemetry import Metrics

DEAD_LETTERS: Final = "dead_letters"
LETTERS_PER_THING_MAX: Final = 64
PAGE_LETTERS: Final = 100
_FOR_EVER_MS: Final = 2**62

_log = structlog.get_logger(__name__)


class DeadLetter(msgspec.Struct, frozen=True):
    """One message as it is kept; the payload is base64, since it may be anything."""

    at_ms: int
    thing: str
    shadow: str
    operation: str
    gateway: str | None
    payload: str
    reason: str


class DeadLetters:
    """Writes dead letters; a store that is down costs the letter, never the lane."""

    def __init__(self, store: DocumentStore, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics

    async def add(self, message: Message[Request], reason: str) -> None:
        """Keep one message about a shadow; the same request from the same thing is kept once."""
        await self.keep(message.request, message.request.id.name, message.payload, reason)

    async def keep(self, request: AnyRequest, shadow: str, payload: bytes, reason: str) -> None:
        """Keep a request of any kind; ``shadow`` is empty where it is about none."""
        now_ms, thing, gateway = self._clock.now_ms(), request.thing, request.gateway
        kind = "" if isinstance(request, Request) else f"{type(request).__name__}."
        operation = f"{kind}{request.operation.value}"
        letter = DeadLetter(
            now_ms, thing, shadow, operation, gateway, base64.b64encode(payload).decode(), reason
        )
        self._metrics.dead_letters.inc()
        _log.error("dead_letter", thing=thing, shadow=shadow, operation=operation, reason=reason)
        same = f"{operation} {thing} {shadow} {gateway} ".encode() + payload
        place = int.from_bytes(hashlib.sha256(same).digest()[:4]) % LETTERS_PER_THING_MAX
        entry = Entry(DEAD_LETTERS, thing, place, now_ms, msgspec.json.encode(letter))
        try:
            await self._store.append([entry])
        except StoreUnavailableError as error:
            _log.error("dead_letter_lost", thing=thing, reason=str(error))

    async def all(self) -> AsyncIterator[DeadLetter]:
        """Yield what is kept, oldest first."""
        cursor: str | None = None
        while True:
            page = await self._store.scan(DEAD_LETTERS, 0, _FOR_EVER_MS, limit=PAGE_LETTERS, cursor=cursor)
            for entry in page.entries:
                yield msgspec.json.decode(entry.body, type=DeadLetter)
            cursor = page.next
            if cursor is None:
                return
