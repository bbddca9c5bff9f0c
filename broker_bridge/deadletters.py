"""Requests that could not be handled for a reason that nobody foresaw: their bytes, and the reason.

A log of its own in the store, so that an operator can look and, after a repair, send them again.
"""

import base64
import hashlib
from typing import Final

import msgspec
import structlog

from broker_bridge.inbox import Message
from infra.clock import Clock
from infra.documents.port import DocumentStore, Entry, StoreUnavailableError
from infra.telemetry import Metrics

DEAD_LETTERS: Final = "dead_letters"

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

    async def add(self, message: Message, reason: str) -> None:
        """Keep one message; the same bytes from the same thing are kept once."""
        request, now_ms = message.request, self._clock.now_ms()
        letter = DeadLetter(
            now_ms,
            request.id.thing,
            request.id.name,
            request.operation,
            request.gateway,
            base64.b64encode(message.payload).decode(),
            reason,
        )
        self._metrics.dead_letters.inc()
        key = f"{request.id.key}:{hashlib.sha256(message.payload).hexdigest()[:32]}"
        entry = Entry(DEAD_LETTERS, key, 0, now_ms, msgspec.json.encode(letter))
        try:
            await self._store.append([entry])
        except StoreUnavailableError as error:
            _log.error("dead_letter_lost", thing=request.id.thing, reason=str(error))
