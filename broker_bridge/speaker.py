"""What became true, said to those concerned: delta, documents, answers, in this order, per version.

The outbox in each document is the truth about what is still to be said; this is only its voice. What
cannot be said now, because the broker is away, its queue is full, or it is not known yet who listens,
is left in the outbox and said later, in order: while a shadow has something left over, its newer
versions wait behind it. So nothing is lost, and a message may come twice. (spec: shadow, section 7)
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import structlog

from broker_bridge.topics import Request, answer_base
from infra.clock import Clock
from infra.documents.port import StoreUnavailableError
from infra.settings.model import ShadowLimits
from infra.telemetry import Metrics
from registry.service import RegistryService, Unknown
from shadow import wire
from shadow.commands import Channel, Command, Delete, Get, Update
from shadow.decisions import Accepted, Outcome, Rejected
from shadow.document import ShadowId
from shadow.errors import ShadowError
from shadow.service import ShadowService

MS_PER_S = 1_000
RETRY_S = 1.0
"""How long what the store could not tell us waits before it is asked again."""
TOPICS_CACHED_MAX: Final = 32_768

_log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """The session's side: queue a message, write what is queued."""

    def publish(self, topic: str, payload: bytes, expiry_s: int, mark: object | None = None) -> bool: ...
    def flush(self) -> None: ...
    async def drained(self) -> None: ...


class Speaker:
    """Publishes outcomes; remembers which shadows have something left over."""

    def __init__(
        self,
        session: Publisher,
        shadows: ShadowService,
        registry: RegistryService,
        clock: Clock,
        limits: ShadowLimits,
        metrics: Metrics,
    ) -> None:
        self._session = session
        self._shadows = shadows
        self._registry = registry
        self._clock = clock
        self._limits = limits
        self._metrics = metrics
        self._left: dict[ShadowId, int] = {}
        self._something_left = asyncio.Event()
        self._ready = asyncio.Event()
        self._away = True

    async def ready(self) -> None:
        """Return once the broker is there and has everything that was said before."""
        await self._ready.wait()

    def silence(self) -> None:
        """The broker is gone: say nothing until :meth:`catch_up` has run."""
        self._ready.clear()
        self._away = True
        self._left.clear()

    def hear(self, outcomes: Sequence[Outcome]) -> None:
        """Queue the messages of a batch that was committed just now."""
        if self._away:
            return  # outboxes remember; who asked by MQTT asks again
        ready = self._ready.is_set()
        for outcome in outcomes:
            id = outcome.command.id
            if isinstance(outcome, Accepted) and outcome.change is not None:
                if id in self._left or not ready or not self._say(outcome):
                    self._leave(id)
            elif ready and outcome.command.origin.channel is Channel.MQTT:
                self._answer(outcome.command, outcome)
        self._session.flush()

    def refuse(self, request: Request, error: ShadowError, token: str | None) -> None:
        """Queue the refusal of a request that never became a command."""
        body = wire.rejected(error, self._clock.now_ms() // MS_PER_S, token)
        topic = f"{answer_base(request.id, request.gateway)}/{request.operation}/rejected"
        self._session.publish(topic, body, self._limits.answer_expiry_s)

    def remind(self, id: ShadowId, delta: bytes, gateway: str | None) -> bool:
        """Queue a delta unasked (E2); False when this shadow has something older to say first."""
        if not self._ready.is_set() or id in self._left:
            return False
        topic = answer_base(id, gateway) + "/update/delta"
        return self._session.publish(topic, delta, self._limits.delta_expiry_s)

    async def catch_up(self) -> None:
        """Say what outboxes hold, then be ready. Runs after each connect, before requests are served."""
        self._away = False
        cursor: str | None = None
        while True:
            outcomes, cursor = await self._shadows.unsent(cursor)
            await self._registry.standings({outcome.command.id.thing for outcome in outcomes})
            for outcome in outcomes:
                await self._session.drained()
                if outcome.command.id not in self._left and not self._say(outcome):
                    self._leave(outcome.command.id)
            self._session.flush()
            if cursor is None:
                break
        self._ready.set()

    async def run(self) -> None:
        """Say what was left over, until cancelled."""
        while True:
            await self._something_left.wait()
            self._something_left.clear()
            await self.ready()
            try:
                for id in list(self._left):
                    await self._say_what_is_left(id)
            except StoreUnavailableError as error:
                _log.warning("messages_wait_for_the_store", reason=str(error))
                await asyncio.sleep(RETRY_S)
                self._something_left.set()

    async def _say_what_is_left(self, id: ShadowId) -> None:
        """Say all that one shadow has left; what came while we looked is next."""
        while id in self._left:
            await self._session.drained()
            seen = self._left[id]
            outcomes = await self._shadows.unsent_of(id)
            await self._registry.standings([id.thing])
            if not self._ready.is_set():
                return  # the next catch-up says it
            if all(self._say(outcome) for outcome in outcomes) and self._left.get(id) == seen:
                del self._left[id]
            self._session.flush()

    def _leave(self, id: ShadowId) -> None:
        self._left[id] = self._left.get(id, 0) + 1
        self._something_left.set()

    def _say(self, outcome: Accepted) -> bool:
        """Queue all messages of one version; False when not all of them could be queued."""
        command, change = outcome.command, outcome.change
        assert change is not None
        trees = self._trees(command.id)
        if trees is None:
            return False
        mark = (command.id, change.version)
        messages = self._messages(trees, change.delta, change.documents)
        if command.origin.channel is Channel.MQTT:
            messages.append((_answer_topic(command, "accepted"), outcome.body, self._limits.answer_expiry_s))
        if not messages:
            self._shadows.settle(*mark)
            return True
        publish = self._session.publish
        # The broker acknowledges in order: the last of a version stands for all of it.
        last = messages.pop()
        for topic, payload, expiry_s in messages:
            if not publish(topic, payload, expiry_s):
                return False
        return publish(*last, mark)

    def _messages(
        self, trees: Sequence["_Tree"], delta: bytes | None, documents: bytes | None
    ) -> list[tuple[str, bytes, int]]:
        limits = self._limits
        messages = [] if delta is None else [(tree.delta, delta, limits.delta_expiry_s) for tree in trees]
        if documents is not None:
            if len(documents) > limits.packet_bytes_max:
                self._metrics.dropped("documents_too_large")
            else:
                messages += [(tree.documents, documents, limits.answer_expiry_s) for tree in trees]
        return messages

    def _trees(self, id: ShadowId) -> Sequence["_Tree"] | None:
        """Return where those listen whom a change concerns; None while that is not known."""
        standing = self._registry.standing(id.thing)
        if standing is Unknown.UNKNOWN:
            return None
        if standing is None:
            return ()
        own = (_tree(id, None),) if standing.thing.has_certificate else ()
        if not standing.gateways:
            return own
        return (*own, *(_tree(id, gateway) for gateway in sorted(standing.gateways)))

    def _answer(self, command: Command, outcome: Outcome) -> None:
        word = "rejected" if isinstance(outcome, Rejected) else "accepted"
        self._session.publish(_answer_topic(command, word), outcome.body, self._limits.answer_expiry_s)


class _Tree(NamedTuple):
    """Where one listener of a shadow hears of its changes."""

    delta: str
    documents: str


@lru_cache(TOPICS_CACHED_MAX)
def _tree(id: ShadowId, gateway: str | None) -> _Tree:
    base = answer_base(id, gateway)
    return _Tree(f"{base}/update/delta", f"{base}/update/documents")


def _answer_topic(command: Command, word: str) -> str:
    return _answer_topic_of(command.id, command.origin.gateway, _OPERATIONS[type(command)], word)


@lru_cache(TOPICS_CACHED_MAX)
def _answer_topic_of(id: ShadowId, gateway: str | None, operation: str, word: str) -> str:
    return f"{answer_base(id, gateway)}/{operation}/{word}"


_OPERATIONS: Final = {Update: "update", Get: "get", Delete: "delete"}
