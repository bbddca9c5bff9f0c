"""Requests for files as they come from the broker, and their answers on the way back.

Blocks go out with QoS 0: one that is lost is a hole, and a device asks for its holes again. So nothing is
remembered of an answer once it is written, and nothing is prepared that cannot be written at once: while
the way to the broker is full, requests wait here, few for each thing. All answers of a request leave in one
write, and its acknowledgement behind them. (spec: ota, 5)
"""

import asyncio
import re
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

import mqtt5
import structlog

from broker_bridge import dispatch
from broker_bridge.deadletters import DeadLetters
from broker_bridge.fairness import Pace, Turns
from broker_bridge.poison import Suspects
from broker_bridge.topics import StreamOperation, StreamRequest
from infra.documents.port import StoreError, StoreUnavailableError
from infra.ids import Ids
from infra.telemetry import Metrics
from ota.stream_service import Answer, StreamService, refusal
from ota.streams import Code, StreamError, peek_token
from registry.service import RegistryService
from security.audit import Refusals
from shadow.errors import ForbiddenError, ThingNotFoundError

PORTION_BYTES_MAX: Final = 262_144
PORTION_REQUESTS_MAX: Final = 16
"""What is served before others get the processor, and written in one piece; one answer may exceed it."""
REQUEST_BYTES_MIN: Final = 4_096
"""What every request counts for at least, refused or not: a thing asks no more than 256 times a second."""
UNACKNOWLEDGED_MAX: Final = 1_024
"""Requests that wait unacknowledged: a quarter of what the broker sends us unacknowledged in all, so that
downloads do not keep other requests away. What comes beyond it is acknowledged before it is answered."""

_ECHOED: Final = re.compile(r"[a-zA-Z0-9:_-]{1,64}", re.ASCII)
"""Levels of a topic that an answer may repeat; we publish on nothing else that somebody made up."""

_log = structlog.get_logger(__name__)


class Blocks(Protocol):
    """The session's side: messages with QoS 0, the PUBACK of a request, one write for all."""

    def send(self, topic: str, head: bytes, tails: list[bytes]) -> bool: ...
    def acknowledge(self, packet_id: int, connection: int) -> None: ...
    def flush(self) -> None: ...
    async def drained(self) -> None: ...


class _Waiting(NamedTuple):
    request: StreamRequest
    payload: bytes
    packet_id: int
    """0: there is nothing to acknowledge, or it is acknowledged already."""
    connection: int


class StreamDesk:
    """Takes requests for files in turn and answers them."""

    def __init__(
        self,
        service: StreamService,
        session: Blocks,
        registry: RegistryService,
        dead_letters: DeadLetters,
        suspects: Suspects,
        refusals: Refusals,
        ids: Ids,
        metrics: Metrics,
        pace: Pace,
    ) -> None:
        self._service = service
        self._session = session
        self._registry = registry
        self._dead_letters = dead_letters
        self._suspects = suspects
        self._refusals = refusals
        self._ids = ids
        self._metrics = metrics
        self._turns = Turns[_Waiting](pace)
        self._unacknowledged = 0
        self._arrived = asyncio.Event()
        self.answered = 0
        """Requests, refusals included; only ever rises, as the next two do."""
        self.blocks = 0
        self.bytes = 0

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._turns)

    def received(self, request: StreamRequest, packet: mqtt5.PublishPacket, connection: int) -> None:
        """Take a request, or drop it or an older one with a reason that is counted."""
        waiting = _Waiting(request, packet.payload, packet.packet_id or 0, connection)
        if packet.duplicate and self._suspects.careful:
            # It may be what the last run died of; who still wants the blocks asks again.
            self._drop(waiting, "redelivered_after_a_crash")
            return
        if not (_ECHOED.fullmatch(request.stream) and _ECHOED.fullmatch(request.format)):
            self._drop(waiting, "unknown_topic")
            return
        if waiting.packet_id and self._unacknowledged >= UNACKNOWLEDGED_MAX:
            self._session.acknowledge(waiting.packet_id, connection)
            waiting = waiting._replace(packet_id=0)
        self._unacknowledged += bool(waiting.packet_id)
        share = request.thing if request.gateway is None else f"{request.gateway}/{request.thing}"
        dropped = self._turns.put(share, waiting, len(waiting.payload))
        if dropped is not None:
            self._unacknowledged -= bool(dropped.packet_id)
            self._drop(dropped, "too_many_block_requests")
        self._arrived.set()

    def disconnected(self) -> None:
        """The connection is gone: what waits comes again, from the broker or from who asked."""
        self._turns.clear()
        self._unacknowledged = 0

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._turn()
            await self._session.drained()
            await self._serve_portion()
            await asyncio.sleep(0)

    async def _turn(self) -> None:
        """Return when it is somebody's turn."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = self._turns.next_s()
            if due_s is not None and due_s <= loop.time():
                return
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._arrived.wait()

    async def _serve_portion(self) -> None:
        now_s, size_bytes = asyncio.get_running_loop().time(), 0
        for _ in range(PORTION_REQUESTS_MAX):
            taken = self._turns.take(now_s)
            if taken is None:
                break
            share, waiting = taken
            self._unacknowledged -= bool(waiting.packet_id)
            sent_bytes = await self._serve(waiting)
            self._turns.spent(share, max(sent_bytes, REQUEST_BYTES_MIN), now_s)
            size_bytes += sent_bytes
            if size_bytes >= PORTION_BYTES_MAX:
                break
        self._session.flush()

    async def _serve(self, waiting: _Waiting) -> int:
        """Answer one request and acknowledge it; return how many bytes that took."""
        request, size_bytes = waiting.request, 0
        answer = await self._answer(waiting)
        if answer is not None:
            # While it was looked for, others may have filled the way: lost, it would be asked for again late.
            await self._session.drained()
            topic = f"{request.base}/{answer.word}/{request.format}"
            if self._session.send(topic, answer.head, answer.tails):
                size_bytes = answer.size_bytes
                self._count(answer, size_bytes)
            else:
                self._metrics.dropped("no_room_for_answer")
        if waiting.packet_id:
            self._session.acknowledge(waiting.packet_id, waiting.connection)
        return size_bytes

    def _count(self, answer: Answer, size_bytes: int) -> None:
        self.answered += 1
        if answer.code is not None:
            self._metrics.rejections.inc(answer.code)
        else:
            self.blocks += len(answer.tails)
            self.bytes += size_bytes

    async def _answer(self, waiting: _Waiting) -> Answer | None:
        """Return what is said, None for silence."""
        request = waiting.request
        try:
            await self._admit(request)
            ask = self._service.get if request.operation is StreamOperation.GET else self._service.describe
            return await ask(request.thing, request.stream, request.format, waiting.payload)
        except dispatch.SilenceError as silence:
            self._metrics.dropped(silence.reason)
            dispatch.note_refusal(self._refusals, request, silence.reason)
            return None
        except ForbiddenError:
            dispatch.note_refusal(self._refusals, request, "not attached")
            return _refusal(waiting, Code.FORBIDDEN, "this thing is not attached to this gateway")
        except ThingNotFoundError:
            return _refusal(waiting, Code.NOT_FOUND, "there is no such file for you")
        except StoreUnavailableError:
            return _refusal(waiting, Code.INTERNAL, "ask again later")
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - our bug in one request stops no other
            return await self._fail(waiting, error)

    async def _admit(self, request: StreamRequest) -> None:
        thing, gateway = request.thing, request.gateway
        names = (thing,) if gateway is None else (thing, gateway)
        standings = await self._registry.standings(names)
        # By way of its module: whoever weakens it for a test weakens it for all who ask.
        dispatch.admit(request, standings.get(thing), None if gateway is None else standings.get(gateway))

    async def _fail(self, waiting: _Waiting, error: Exception) -> Answer:
        """Answer a request that met a bug of ours, and keep its bytes."""
        trace, request = self._ids.token(), waiting.request
        _log.error("request_failed", trace=trace, thing=request.thing, shadow="", exc_info=error)
        await self._dead_letters.keep(request, "", waiting.payload, f"trace {trace}")
        return _refusal(waiting, Code.INTERNAL, f"trace {trace}")

    def _drop(self, waiting: _Waiting, reason: str) -> None:
        """Acknowledge what is answered by nothing; written with whatever else is."""
        self._metrics.dropped(reason)
        if waiting.packet_id:
            self._session.acknowledge(waiting.packet_id, waiting.connection)


def _refusal(waiting: _Waiting, code: Code, message: str) -> Answer:
    format = waiting.request.format
    return refusal(StreamError(code, message, peek_token(waiting.payload, format)), format)
