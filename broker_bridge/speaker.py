"""What became true, said to those concerned: delta, documents, answers, in this order, per version.

The outbox in each document is the truth about what is still to be said; this is only its voice. What
cannot be said now, because the broker is away, its queue is full, or it is not known yet who listens,
is left in the outbox and said later, in order: while a shadow has something left over, its newer
versions wait behind it. So nothing is lost, and a message may come twice. (spec: shadow, section 7)

There are three states: *away* (no broker: only the outboxes know), *behind* (the outboxes are being read
from the beginning, after a connect or when too much was left over) and in between the normal one, in
which a version is said right after its commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from itertools import groupby
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

MS_PER_S: Final = 1_000
RETRY_S: Final = 1.0
"""How long what the store could not tell us waits before it is asked again."""
NO_ROOM_RETRY_S: Final = 0.05
"""How long what found no room in the session's queue waits before it is tried again."""
LEFT_SHADOWS_MAX: Final = 100_000
"""Shadows with something left over that are remembered; with one more all outboxes are read again."""
TOPICS_CACHED_MAX: Final = 32_768

_log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """The session's side: queue a message, write what is queued."""

    def publish(self, topic: str, payload: bytes, expiry_s: int, mark: object | None = None) -> bool: ...
    def flush(self) -> None: ...
    async def drained(self) -> None: ...


_Message = tuple[str, bytes, int]
"""Topic, payload, expiry in seconds."""


class _Left:
    """What is known of a shadow with something left over."""

    __slots__ = ("came", "said")

    def __init__(self) -> None:
        self.came = 0
        """Counts what was left, so that what comes while we look is not forgotten."""
        self.said = 0
        """The newest version whose messages are queued."""


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
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._shadows = shadows
        self._registry = registry
        self._clock = clock
        self._limits = limits
        self._metrics = metrics
        self._sleep = sleep
        self._away = True
        self._behind = True
        self._epoch = 0
        """Rises when what was read of outboxes no longer counts: at each connect and each falling behind."""
        self._left: dict[ShadowId, _Left] = {}
        self._work = asyncio.Event()
        self._ready = asyncio.Event()

    @property
    def left(self) -> int:
        """How many shadows have something left over, as far as they are remembered."""
        return len(self._left)

    # ------------------------------------------------------------------ the connection

    async def greet(self) -> None:
        """The broker is there: have :meth:`run` say what outboxes hold; return when requests may come."""
        self._away = False
        self._fall_behind()
        await self._ready.wait()

    def silence(self) -> None:
        """The broker is gone: say nothing until it is greeted again."""
        self._epoch += 1
        self._away = True
        self._ready.clear()
        self._left.clear()

    async def ready(self) -> None:
        """Return when requests may come: the broker has what was said before, and room for answers."""
        while True:
            await self._ready.wait()
            await self._session.drained()
            if self._ready.is_set():
                return

    # ------------------------------------------------------------------ what is said at once

    def hear(self, outcomes: Sequence[Outcome]) -> None:
        """Queue the messages of a batch that was committed just now."""
        if self._away:
            return  # outboxes remember; who asked by MQTT asks again
        asked_by_mqtt = False
        for outcome in outcomes:
            asked_by_mqtt |= outcome.command.origin.channel is Channel.MQTT
            if isinstance(outcome, Accepted) and outcome.change is not None:
                id = outcome.command.id
                if self._behind or id in self._left or not self._say(outcome):
                    self._leave(id)
            elif outcome.command.origin.channel is Channel.MQTT:
                self._answer(outcome)
        # The dispatcher, who waits for these, writes them together with its acknowledgements.
        if not asked_by_mqtt:
            self._session.flush()

    def refuse(self, request: Request, error: ShadowError, token: str | None) -> None:
        """Queue the refusal of a request that never became a command."""
        body = wire.rejected(error, self._clock.now_ms() // MS_PER_S, token)
        topic = f"{answer_base(request.id, request.gateway)}/{request.operation}/rejected"
        self._try(topic, body)

    def remind(self, id: ShadowId, delta: bytes, gateway: str | None) -> bool:
        """Queue a delta unasked (E2); False when that has to be tried again later."""
        if self._away or self._behind:
            return False
        if id in self._left:
            return True  # its newest version is still to be said, and that has the delta
        topic = _tree(id, gateway).delta
        if not self._session.publish(topic, delta, self._limits.delta_expiry_s):
            return False
        self._metrics.catch_ups.inc()
        return True

    def _answer(self, outcome: Outcome) -> None:
        command = outcome.command
        if isinstance(outcome, Rejected):
            self._try(_answer_topic(command, "rejected"), outcome.body)
        elif outcome.replayed and (self._behind or command.id in self._left):
            # Some clients drop a delta whose version an accepted has shown them: they ask again.
            self._metrics.dropped("replay_before_its_delta")
        else:
            self._try(_answer_topic(command, "accepted"), outcome.body)

    def _try(self, topic: str, body: bytes) -> None:
        if not self._session.publish(topic, body, self._limits.answer_expiry_s) and not self._away:
            self._metrics.dropped("no_room_for_answer")

    def _say(self, outcome: Accepted) -> bool:
        """Queue all messages of one version; False when that could not be done now."""
        id, change = outcome.command.id, outcome.change
        assert change is not None
        trees = self._trees(id)
        if trees is None:
            return False
        messages = self._messages(outcome, trees)
        if messages:
            return self._queue(messages, (id, change.version))
        # No acknowledgement will come for this one, and it must not vouch for what is still on the way.
        if change.follows is None or not self._shadows.is_settled(id, change.follows):
            return False
        self._shadows.settle(id, change.version)
        return True

    def _queue(self, messages: list[_Message], mark: tuple[ShadowId, int]) -> bool:
        publish = self._session.publish
        # The broker acknowledges in order: the last of a version stands for all of it.
        last = messages.pop()
        for topic, payload, expiry_s in messages:
            if not publish(topic, payload, expiry_s):
                return False
        return publish(*last, mark)

    def _messages(self, outcome: Accepted, trees: Sequence["_Tree"]) -> list[_Message]:
        """Return the messages of one version in their order."""
        command, change, limits = outcome.command, outcome.change, self._limits
        assert change is not None
        delta, documents = change.delta, change.documents
        messages = [] if delta is None else [(tree.delta, delta, limits.delta_expiry_s) for tree in trees]
        if documents is not None:
            if len(documents) > limits.packet_bytes_max:
                self._metrics.dropped("documents_too_large")
            else:
                messages += [(tree.documents, documents, limits.answer_expiry_s) for tree in trees]
        if command.origin.channel is Channel.MQTT:
            messages.append((_answer_topic(command, "accepted"), outcome.body, limits.answer_expiry_s))
        return messages

    def _trees(self, id: ShadowId) -> Sequence["_Tree"] | None:
        """Return where those listen whom a change concerns; None while that is not known."""
        standing = self._registry.standing(id.thing)
        if standing is Unknown.UNKNOWN:
            return None
        if standing is None or standing.thing.barred:
            return ()
        own = (_tree(id, None),) if standing.thing.has_certificate else ()
        if not standing.gateways:
            return own
        return (*own, *(_tree(id, gateway) for gateway in sorted(standing.gateways)))

    # ------------------------------------------------------------------ what is said later

    async def run(self) -> None:
        """Say what outboxes hold and what was left over, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._say_all_that_waits()
            except StoreUnavailableError as error:
                _log.warning("messages_wait_for_the_store", reason=str(error))
                if not self._away:
                    self._ready.set()  # whoever asks hears 503 meanwhile
                await self._sleep(RETRY_S)
                self._work.set()

    async def _say_all_that_waits(self) -> None:
        if self._away:
            return
        if self._behind:
            await self._catch_up()
        made_room = True
        for id in list(self._left):
            made_room &= await self._say_what_is_left(id)
        if self._left:
            self._work.set()
            if not made_room:
                await self._sleep(NO_ROOM_RETRY_S)

    async def _catch_up(self) -> None:
        """Say what the outboxes of all shadows hold, then be in time again."""
        epoch = self._epoch
        cursor: str | None = None
        while True:
            outcomes, cursor = await self._shadows.unsent(cursor)
            await self._registry.standings({outcome.command.id.thing for outcome in outcomes})
            for id, some in groupby(outcomes, key=_id_of):
                await self._session.drained()
                if epoch != self._epoch:
                    return
                # What came meanwhile waits in `left`, where all of this shadow is said.
                if id not in self._left and not self._say_in_order(id, some, _Left()):
                    self._leave(id)
            if epoch != self._epoch:
                return
            self._session.flush()
            if cursor is None:
                break
        self._behind = False
        self._ready.set()

    async def _say_what_is_left(self, id: ShadowId) -> bool:
        """Say what one shadow has left; False when there was no room for it."""
        epoch, left = self._epoch, self._left.get(id)
        await self._session.drained()
        if left is None or epoch != self._epoch:
            return True
        came = left.came
        outcomes = await self._shadows.unsent_of(id)
        await self._registry.standings([id.thing])
        if epoch != self._epoch:
            return True
        said = self._say_in_order(id, outcomes, left)
        self._session.flush()
        if said and left.came == came:
            del self._left[id]
        return said

    def _say_in_order(self, id: ShadowId, outcomes: Iterable[Accepted], left: _Left) -> bool:
        """Queue all that a shadow has not said, version by version; False when not all of it found room."""
        trees = self._trees(id)
        if trees is None:
            return False
        for messages, version in self._portions(outcomes, trees):
            if version <= left.said:
                continue
            if not messages:
                self._shadows.settle(id, version)  # the outbox holds nothing older, and this has no hearers
            elif not self._queue(messages, (id, version)):
                return False
            left.said = version
        return True

    def _portions(
        self, outcomes: Iterable[Accepted], trees: Sequence["_Tree"]
    ) -> list[tuple[list[_Message], int]]:
        """Return what is to be said together and up to which version it goes.

        A version that has nothing to say goes with the one before: it has arrived when that has.
        """
        portions: list[tuple[list[_Message], int]] = []
        for outcome in outcomes:
            assert outcome.change is not None
            messages, version = self._messages(outcome, trees), outcome.change.version
            if messages or not portions:
                portions.append((messages, version))
            else:
                portions[-1] = (portions[-1][0], version)
        return portions

    def _leave(self, id: ShadowId) -> None:
        left = self._left.get(id)
        if left is None:
            if len(self._left) >= LEFT_SHADOWS_MAX:
                self._fall_behind()
                return
            left = self._left[id] = _Left()
        left.came += 1
        self._work.set()

    def _fall_behind(self) -> None:
        """Have all outboxes read from the beginning; requests wait meanwhile."""
        self._epoch += 1
        self._behind = True
        self._ready.clear()
        self._left.clear()
        self._work.set()


class _Tree(NamedTuple):
    """Where one listener of a shadow hears of its changes."""

    delta: str
    documents: str


@lru_cache(TOPICS_CACHED_MAX)
def _tree(id: ShadowId, gateway: str | None) -> _Tree:
    base = answer_base(id, gateway)
    return _Tree(f"{base}/update/delta", f"{base}/update/documents")


def _id_of(outcome: Accepted) -> ShadowId:
    return outcome.command.id


def _answer_topic(command: Command, word: str) -> str:
    return _answer_topic_of(command.id, command.origin.gateway, _OPERATIONS[type(command)], word)


@lru_cache(TOPICS_CACHED_MAX)
def _answer_topic_of(id: ShadowId, gateway: str | None, operation: str, word: str) -> str:
    return f"{answer_base(id, gateway)}/{operation}/{word}"


_OPERATIONS: Final = {Update: "update", Get: "get", Delete: "delete"}
