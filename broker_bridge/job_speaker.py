"""What things hear of their jobs: answers, and unasked that their lists or their next job are others now.

The executions in the store are the truth about what is still to be said (``untold``); this is only its
voice. What cannot be said now, because the broker is away or has no room, stays untold and is said later,
as things are then: so nothing is lost, and a word may come twice. (spec: ota, 1 and 4)
"""

import asyncio
from collections.abc import Sequence
from functools import reduce
from itertools import islice
from operator import or_
from typing import Final

import structlog

from broker_bridge.speaker import NO_ROOM_RETRY_S, RETRY_S, Publisher
from broker_bridge.topics import JobRequest, jobs_base
from infra.documents.port import StoreError, StoreUnavailableError
from infra.settings.model import ShadowLimits
from infra.telemetry import Metrics
from ota.executions import PUSHES, Tell
from ota.job_service import Answered, JobService, Told
from ota.lane import Commit
from ota.models import Execution
from registry.models import Standing
from registry.service import RegistryService

NOTED_S: Final = 1.0
"""How often what the broker took is written down."""
LOOK_S: Final = 5.0
"""How often the store is asked for what others left to be said, or a commit of unknown fate."""
THINGS_LEFT_MAX: Final = 100_000
"""Things with something left over that are remembered; the others are found by looking."""
PORTION_THINGS: Final = 500
"""Things whose standing is asked together."""

_log = structlog.get_logger(__name__)

_News = dict[str, tuple[int, int]]
"""By campaign: the number of the news, and what is to be told."""


class JobSpeaker:
    """Publishes answers and pushes; remembers which things have something left over."""

    def __init__(
        self,
        session: Publisher,
        jobs: JobService,
        registry: RegistryService,
        limits: ShadowLimits,
        metrics: Metrics,
    ) -> None:
        self._session = session
        self._jobs = jobs
        self._registry = registry
        self._limits = limits
        self._metrics = metrics
        self._left: dict[str, _News] = {}
        self._on_the_way: dict[str, int] = {}
        """By execution: the number of its news that the broker was given."""
        self._taken: list[Told] = []
        """What the broker took, not yet written down."""
        self._connected = asyncio.Event()
        self._work = asyncio.Event()

    @property
    def left(self) -> int:
        """How many things have something left over, as far as they are remembered."""
        return len(self._left)

    # ------------------------------------------------------------------ the connection

    def greet(self) -> None:
        """The broker is there: say what was left unsaid, and let requests come."""
        self._connected.set()

    def silence(self) -> None:
        """The broker is gone: what it did not take is found again in the store."""
        self._connected.clear()
        self._left.clear()
        self._on_the_way.clear()

    async def ready(self) -> None:
        """Return when requests may come: there is a broker, and room for answers."""
        while True:
            await self._connected.wait()
            await self._session.drained()
            if self._connected.is_set():
                return

    # ------------------------------------------------------------------ what is said

    def answer(self, request: JobRequest, answered: Answered) -> None:
        """Queue the answer to a request."""
        topic = f"{request.answers}/{'accepted' if answered.accepted else 'rejected'}"
        room = self._session.publish(topic, answered.body, self._limits.answer_expiry_s)
        if not room and self._connected.is_set():
            self._metrics.dropped("no_room_for_answer")
        if answered.code is not None:
            self._metrics.rejected(answered.code)

    def hear(self, commits: Sequence[Commit]) -> None:
        """Note what a commit left to be said; called right after it."""
        if self._connected.is_set():
            for before, after in commits:
                if before is None or before.news != after.news:
                    self._leave(after)

    def settled(self, told: Told) -> None:
        """The broker has what a thing was told."""
        self._taken.append(told)

    def _leave(self, execution: Execution) -> None:
        bits = execution.untold & PUSHES
        if not bits or self._on_the_way.get(execution.id) == execution.news:
            return
        if execution.thing in self._left or len(self._left) < THINGS_LEFT_MAX:
            self._left.setdefault(execution.thing, {})[execution.campaign] = (execution.news, bits)
            self._work.set()

    # ------------------------------------------------------------------ at work

    async def run(self) -> None:
        """Say what is left over, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._speak(), name="job pushes")
            tasks.create_task(self._look(), name="job pushes left over")
            tasks.create_task(self._note(), name="job pushes taken")

    async def _speak(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                all_said = await self._say_what_is_left()
            except StoreUnavailableError as error:
                _log.warning("job_pushes_wait_for_the_store", reason=str(error))
                await asyncio.sleep(RETRY_S)
                self._work.set()
            else:
                if not all_said:
                    await asyncio.sleep(NO_ROOM_RETRY_S)
                    self._work.set()

    async def _say_what_is_left(self) -> bool:
        """Say all that is left; False when some of it found no room."""
        while self._left and self._connected.is_set():
            things = list(islice(self._left, PORTION_THINGS))
            standings = await self._registry.standings(things)
            for thing in things:
                await self._session.drained()
                if thing in self._left and not await self._say_carefully(thing, standings.get(thing)):
                    return False
            self._session.flush()
        return True

    async def _say_carefully(self, thing: str, standing: Standing | None) -> bool:
        try:
            return await self._say(thing, standing)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - one thing whose jobs cannot be told keeps no other waiting
            _log.error("job_push_failed", thing=thing, exc_info=error)
            self._left.pop(thing, None)  # found again by looking
            return True

    async def _say(self, thing: str, standing: Standing | None) -> bool:
        """Queue what a thing is to hear; False when there was no room for all of it."""
        news = dict(self._left[thing])
        told = Told(thing, {campaign: number for campaign, (number, _) in news.items()})
        trees = _trees(standing)
        if trees:
            messages = await self._messages(
                thing, trees, reduce(or_, (Tell(bits) for _, bits in news.values()))
            )
            if not self._queue(messages, told):
                return False
            self._on_the_way |= {f"{one}:{thing}": number for one, number in told.news.items()}
        else:
            self._taken.append(told)  # nobody is there to hear it
        left = self._left.get(thing, {})
        for campaign, said in news.items():
            if left.get(campaign) == said:
                del left[campaign]
        if not left:
            self._left.pop(thing, None)
        return True

    async def _messages(self, thing: str, trees: Sequence[str | None], bits: Tell) -> list[tuple[str, bytes]]:
        notify, notify_next = await self._jobs.pushes(thing)
        messages: list[tuple[str, bytes]] = []
        for base in (jobs_base(thing, gateway) for gateway in trees):
            if bits & Tell.NOTIFY:
                messages.append((f"{base}/notify", notify))
            if bits & Tell.NEXT:
                messages.append((f"{base}/notify-next", notify_next))
        return messages

    def _queue(self, messages: list[tuple[str, bytes]], told: Told) -> bool:
        # The broker acknowledges in order: the last one stands for all of them.
        expiry_s, last = self._limits.delta_expiry_s, len(messages) - 1
        return all(
            self._session.publish(topic, body, expiry_s, told if place == last else None)
            for place, (topic, body) in enumerate(messages)
        )

    async def _look(self) -> None:
        """Find what is to be said in the store: after a connect, and what others left."""
        while True:
            await self._connected.wait()
            try:
                await self._find()
            except StoreUnavailableError as error:
                _log.warning("job_pushes_wait_for_the_store", reason=str(error))
            await asyncio.sleep(LOOK_S)

    async def _find(self) -> None:
        cursor: str | None = None
        while True:
            page = await self._jobs.lane.pending(cursor)
            if not self._connected.is_set():
                return
            for execution in page.executions:
                self._leave(execution)
            cursor = page.next
            if cursor is None:
                return

    async def _note(self) -> None:
        """Write down what the broker took."""
        while True:
            await asyncio.sleep(NOTED_S)
            taken, self._taken = self._taken, []
            if taken:
                await self._jobs.told(taken)
                for told in taken:
                    self._forget(told)

    def _forget(self, told: Told) -> None:
        """What could not be written down is found again by looking, and said again."""
        for campaign, number in told.news.items():
            if self._on_the_way.get(f"{campaign}:{told.thing}") == number:
                del self._on_the_way[f"{campaign}:{told.thing}"]


def _trees(standing: Standing | None) -> Sequence[str | None]:
    """Return where a thing is spoken to: on its own topics, and on those of its gateways."""
    if standing is None or standing.thing.barred:
        return ()
    own: tuple[str | None, ...] = (None,) if standing.thing.has_certificate else ()
    return (*own, *sorted(standing.gateways))
