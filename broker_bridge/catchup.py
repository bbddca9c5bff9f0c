"""Catch-up deltas: a thing that comes back is told what it still has to do, without asking (E2).

When a thing connects or subscribes, each of its shadows whose delta is not empty is sent again, on its
own topics or, for what is attached to a gateway, on the gateway's; so it is for a thing that is attached
anew. A thing is served at most once per interval, but its last sign is never forgotten, only delayed; and
all together are paced, because after a power cut a city comes back at once.

The signs are lines of the broker's log. While we were not listening there may have been some: so the
first word of a thing that has given no sign since is one, and where the log tells nothing at all, so is
its first word after a silence. (spec: shadow, section 11)
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import product
from typing import Final, NamedTuple

import structlog

from broker_bridge.presence import Presence, Sign, concerns_delta
from broker_bridge.speaker import Speaker
from infra.clock import Clock
from infra.documents.port import StoreError, StoreUnavailableError
from infra.settings.model import ShadowLimits
from infra.telemetry import Metrics
from registry.models import Standing, ThingKind
from registry.service import RegistryService
from shadow import wire
from shadow.document import ShadowId, difference
from shadow.errors import NoShadowError
from shadow.service import ShadowService

MS_PER_S: Final = 1_000
THINGS_REMEMBERED_MAX: Final = 200_000
"""Things that are present, were heard, or wait for their turn; above it a new sign is counted and dropped."""
SERVED_REMEMBERED_MAX: Final = 20_000
"""Turns whose time is remembered before those that no longer matter are forgotten."""
ATTACHED_PAGE: Final = 100
ATTACHED_PAGES_MAX: Final = 100
RETRY_S: Final = 1.0
"""How long to wait for a store that does not answer."""

_NEVER: Final = float("-inf")

_log = structlog.get_logger(__name__)


class Turn(NamedTuple):
    """What is served together: what a thing hears itself, or what its gateways hear about it."""

    thing: str
    by_gateways: bool = False


class CatchUp:
    """Knows who is there and who is due."""

    def __init__(
        self,
        speaker: Speaker,
        shadows: ShadowService,
        registry: RegistryService,
        clock: Clock,
        limits: ShadowLimits,
        metrics: Metrics,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._speaker = speaker
        self._shadows = shadows
        self._registry = registry
        self._clock = clock
        self._limits = limits
        self._metrics = metrics
        self._sleep = sleep
        self._present: set[str] = set()
        self._heard: dict[str, float] = {}
        self._due: dict[Turn, float] = {}
        self._queue: list[tuple[float, Turn]] = []  # a heap; what `due` does not confirm is outdated
        self._served: dict[Turn, float] = {}
        self._news = asyncio.Event()
        self._blind = True

    @property
    def present(self) -> int:
        """How many things are connected, as far as the broker's log tells."""
        return len(self._present)

    # ------------------------------------------------------------------ signs

    def read(self, presence: Presence | None) -> None:
        """Take in what a line of the broker's log says; None: nothing about a thing."""
        self._blind = False
        if presence is not None:
            self._note(presence)

    def heard(self, thing: str) -> None:
        """A thing spoke: a sign if there was none before. On the way of every request."""
        if self._blind or thing not in self._heard:
            silent_since_s = self._heard.get(thing, _NEVER)
            now_s = self._hear(thing)
            if now_s - silent_since_s >= self._limits.catchup_interval_s:
                self.due(thing)

    def listen(self, *, session_present: bool) -> None:
        """The broker's log is read from now on; what it said before we do not know."""
        self._heard.clear()
        if session_present:
            return
        # All who were there may have missed something. Most have lost their connection as we have: they
        # give a sign when they are back. For the others the interval is time enough.
        for thing in self._present:
            self._put(Turn(thing), self._clock.elapsed_s() + self._limits.catchup_interval_s)
        self._present.clear()

    def due(self, thing: str) -> None:
        """Serve this thing soon: now, or when its interval is over."""
        self._put(Turn(thing), self._clock.elapsed_s())

    def changed(self, thing: str) -> None:
        """Its standing has changed: whoever speaks for it now may have missed something."""
        self._put(Turn(thing, by_gateways=True), self._clock.elapsed_s())

    def _note(self, presence: Presence) -> None:
        thing = presence.thing
        if presence.sign is Sign.TAKEN_OVER:
            return  # the new connection speaks for itself
        if presence.sign is Sign.DISCONNECTED:
            self._present.discard(thing)
            self._heard.pop(thing, None)
            return
        if len(self._present) < THINGS_REMEMBERED_MAX:
            self._present.add(thing)
        self._hear(thing)
        if presence.filter is not None:
            if concerns_delta(presence.filter, thing):
                self.due(thing)
        elif not presence.fresh:
            self.due(thing)

    def _hear(self, thing: str) -> float:
        if len(self._heard) >= THINGS_REMEMBERED_MAX and thing not in self._heard:
            self._heard.clear()  # the next word of each counts as its first
        now_s = self._heard[thing] = self._clock.elapsed_s()
        return now_s

    def _put(self, turn: Turn, at_s: float) -> None:
        at_s = max(at_s, self._served.get(turn, _NEVER) + self._limits.catchup_interval_s)
        known_s = self._due.get(turn)
        if known_s is not None and known_s <= at_s:
            return
        if known_s is None and len(self._due) >= THINGS_REMEMBERED_MAX:
            self._metrics.dropped("catch_up_full")
            return
        self._due[turn] = at_s
        heapq.heappush(self._queue, (at_s, turn))
        self._news.set()

    # ------------------------------------------------------------------ serving

    async def run(self) -> None:
        """Serve who is due, until cancelled."""
        while True:
            self._news.clear()
            pause_s = await self.serve_due()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()

    async def serve_due(self) -> float | None:
        """Serve all who are due now; return after how many seconds to come again, None: at the next sign."""
        while self._queue:
            at_s, turn = self._queue[0]
            if self._due.get(turn) != at_s:
                heapq.heappop(self._queue)
                continue
            now_s = self._clock.elapsed_s()
            if at_s > now_s:
                return at_s - now_s
            heapq.heappop(self._queue)
            del self._due[turn]
            self._remember_served(turn, now_s)
            try:
                await self._serve(turn)
            except StoreUnavailableError as error:
                _log.warning("catch_up_waits_for_the_store", reason=str(error))
                self._put(turn, now_s)
                return RETRY_S
        return None

    async def _serve(self, turn: Turn) -> None:
        thing = turn.thing
        try:
            standing = (await self._registry.standings([thing])).get(thing)
            if standing is None or standing.thing.barred:
                return
            if not turn.by_gateways:
                said = await self._remind_itself(standing)
            elif standing.gateways:
                said = await self._remind(thing, sorted(standing.gateways))
            else:
                return
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - one shadow that cannot be read stops nobody else
            _log.error("catch_up_failed", thing=thing, exc_info=error)
        else:
            if not said:
                self._put(turn, self._clock.elapsed_s())

    async def _remind_itself(self, standing: Standing) -> bool:
        thing, said = standing.thing.name, True
        if standing.thing.has_certificate:
            said = await self._remind(thing, [None])
        if standing.thing.kind is ThingKind.GATEWAY:
            said &= await self._remind_attached(thing)
        return said

    async def _remind_attached(self, gateway: str) -> bool:
        cursor: str | None = None
        said = True
        for _ in range(ATTACHED_PAGES_MAX):
            page = await self._registry.attached_to(gateway, limit=ATTACHED_PAGE, cursor=cursor)
            standings = await self._registry.standings([pair.thing for pair in page.attachments])
            for name, standing in standings.items():
                if not standing.thing.barred and gateway in standing.gateways:
                    said &= await self._remind(name, [gateway])
            cursor = page.next
            if cursor is None:
                break
        return said

    async def _remind(self, thing: str, trees: Sequence[str | None]) -> bool:
        """Send the deltas of a thing into these trees; False when some found no room."""
        said = True
        for id, tree in product(await self._shadows.shadows_of(thing), trees):
            await self._speaker.ready()
            # Read for each tree anew: while we slept a newer version may have been said.
            delta = await self._delta(id)
            if delta is not None:
                said &= self._speaker.remind(id, delta, tree)
                await self._sleep(1 / self._limits.catchup_rate_max)
        return said

    async def _delta(self, id: ShadowId) -> bytes | None:
        try:
            shadow = await self._shadows.view(id)
        except NoShadowError:
            return None
        differs = difference(shadow.desired, shadow.reported)
        if not differs[0]:
            return None
        return wire.delta_message(differs, shadow.version, self._clock.now_ms() // MS_PER_S, None)

    def _remember_served(self, turn: Turn, now_s: float) -> None:
        """Note when a turn was served; drop those of longer ago than an interval, who are due at once."""
        if len(self._served) >= SERVED_REMEMBERED_MAX:
            since_s = now_s - self._limits.catchup_interval_s
            recent = {turn: at_s for turn, at_s in self._served.items() if at_s > since_s}
            self._served = recent if len(recent) < SERVED_REMEMBERED_MAX // 2 else {}
        self._served[turn] = now_s
