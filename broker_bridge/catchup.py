"""Catch-up deltas: a thing that comes back is told what it still has to do, without asking (E2).

When a thing connects or subscribes, each of its shadows whose delta is not empty is sent again, on its
own topics or, for what is attached to a gateway, on the gateway's. A thing is served at most once per
interval, but its last sign is never forgotten, only delayed; and all together are paced, because after
a power cut a city comes back at once. (spec: shadow, section 11)
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from broker_bridge.presence import Presence, Sign, concerns_delta, parse_line
from broker_bridge.speaker import Speaker
from infra.clock import Clock
from infra.documents.port import StoreUnavailableError
from infra.settings.model import ShadowLimits
from infra.telemetry import Metrics
from registry.models import ThingKind
from registry.service import RegistryService
from shadow import wire
from shadow.document import ShadowId, difference
from shadow.errors import NoShadowError
from shadow.service import ShadowService

MS_PER_S: Final = 1_000
THINGS_REMEMBERED_MAX: Final = 200_000
"""Things that may be present, or wait for their turn; above it new signs are counted and dropped."""
ATTACHED_PAGE: Final = 100
ATTACHED_PAGES_MAX: Final = 100

_log = structlog.get_logger(__name__)


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
        self._due: dict[str, float] = {}
        self._served: dict[str, float] = {}
        self._signs = asyncio.Event()
        self._blind = True

    @property
    def present(self) -> int:
        """How many things are connected, as far as the broker's log tells."""
        return len(self._present)

    def read(self, line: str) -> None:
        """Take in a line of the broker's log."""
        self._blind = False
        presence = parse_line(line)
        if presence is not None:
            self._note(presence)

    def heard(self, thing: str) -> None:
        """A thing spoke: where the log tells nothing, its first word after a silence is the sign."""
        if self._blind:
            now_s = self._clock.elapsed_s()
            if now_s - self._served.get(thing, 0.0) >= self._limits.catchup_interval_s:
                self.due(thing)

    def everybody(self) -> None:
        """The broker forgot its sessions: all who were there may have missed something."""
        for thing in self._present:
            self.due(thing)
        self._present.clear()
        self._blind = True

    def due(self, thing: str) -> None:
        """Serve this thing soon: now, or when its interval is over."""
        if thing in self._due:
            return
        if len(self._due) >= THINGS_REMEMBERED_MAX:
            self._metrics.dropped("catch_up_full")
            return
        self._due[thing] = self._served.get(thing, float("-inf")) + self._limits.catchup_interval_s
        self._signs.set()

    async def run(self) -> None:
        """Serve who is due, until cancelled."""
        while True:
            await self._signs.wait()
            await self._speaker.ready()
            now_s = self._clock.elapsed_s()
            ready = [thing for thing, at_s in self._due.items() if at_s <= now_s]
            for thing in ready:
                del self._due[thing]
                self._served[thing] = now_s
                await self._serve(thing)
            self._forget_old(now_s)
            if not self._due:
                self._signs.clear()
            elif not ready:
                await self._sleep(min(self._due.values()) - now_s)

    def _note(self, presence: Presence) -> None:
        thing = presence.thing
        if presence.sign is Sign.DISCONNECTED:
            self._present.discard(thing)
            return
        if len(self._present) < THINGS_REMEMBERED_MAX:
            self._present.add(thing)
        if presence.filter is not None:
            if concerns_delta(presence.filter, thing):
                self.due(thing)
        elif not presence.fresh:
            self.due(thing)

    async def _serve(self, thing: str) -> None:
        try:
            standing = (await self._registry.standings([thing])).get(thing)
            if standing is None or standing.thing.revoked_at_ms is not None:
                return
            await self._remind(thing, None)
            if standing.thing.kind is ThingKind.GATEWAY:
                await self._remind_attached(thing)
        except StoreUnavailableError as error:
            _log.warning("catch_up_failed", thing=thing, reason=str(error))
            self.due(thing)

    async def _remind_attached(self, gateway: str) -> None:
        cursor: str | None = None
        for _ in range(ATTACHED_PAGES_MAX):
            page = await self._registry.attached_to(gateway, limit=ATTACHED_PAGE, cursor=cursor)
            for attachment in page.attachments:
                await self._remind(attachment.thing, gateway)
            cursor = page.next
            if cursor is None:
                return

    async def _remind(self, thing: str, gateway: str | None) -> None:
        for id in await self._shadows.shadows_of(thing):
            delta = await self._delta(id)
            if delta is not None and self._speaker.remind(id, delta, gateway):
                self._metrics.catch_ups.inc()
                await self._sleep(1 / self._limits.catchup_rate_max)

    async def _delta(self, id: ShadowId) -> bytes | None:
        try:
            shadow = await self._shadows.view(id)
        except NoShadowError:
            return None
        differs = difference(shadow.desired, shadow.reported)
        if not differs[0]:
            return None
        return wire.delta_message(differs, shadow.version, self._clock.now_ms() // MS_PER_S, None)

    def _forget_old(self, now_s: float) -> None:
        """Drop who was served longer than an interval ago: they are due at once anyway."""
        if len(self._served) > THINGS_REMEMBERED_MAX // 10:
            since_s = now_s - self._limits.catchup_interval_s
            self._served = {thing: at_s for thing, at_s in self._served.items() if at_s > since_s}
