"""By which gateway a device is reached: kept true while gateways come and go.

One document a device says which gateways may speak for it, how healthy each way was and since when, and which
one is in use. It is looked at when a gateway of it is heard of, and when its time comes; what is chosen is
``registry.routes``' to say. A choice raises ``epoch`` first, durably, and then goes to the gateways: to the
old one before the new one, so that never two are told to be in use. The shadow of the device knows nothing of
all this, and a session under way goes on. (spec: han, 3)
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, IndexValue, StoreBrokenError
from infra.documents.records import SAVE_ATTEMPTS_MAX, Kept, Records
from infra.presence import Presence
from provisioning import han
from provisioning.han import Attached, Han
from provisioning.hans import HanRefusedError, Hans
from registry import routes
from registry.gateways import PRIORITY, GatewayKind, GatewayService
from registry.routes import RouteState, choose_route
from registry.service import RegistryService
from registry.states import RouteStanding
from shadow.decisions import Accepted, Outcome
from shadow.document import Tree
from shadow.service import ShadowService

ROUTES: Final = Collection("routes", ("due_ms",))
DIRTY_MAX: Final = 100_000
"""Things and gateways that wait to be looked at; of more, each comes when its time does."""
DUE_PAGE: Final = 200
AT_ONCE: Final = 1_000
"""Names that are looked up together."""
POLL_S: Final = 5.0
ROUNDS_MAX: Final = 8
"""Looks at one device in a row; what goes on after that is looked at again soon."""
PRIORITY_DEFAULT: Final = PRIORITY[GatewayKind.CUSTOMER_BROADBAND]
PAGE: Final = 1_000
FORGET_MS: Final = 7 * 86_400_000
"""How long a gateway is waited for that is to forget a device: one that was taken out never answers."""
RETRY_S: Final = 1.0
REST_S: Final = 0.1
"""Between two looks, however much is heard: what comes meanwhile is looked at together."""

_log: Final = structlog.get_logger(__name__)


class RoutesBusyError(Exception):
    """Others kept changing the routes of one device: the caller may try again."""

    def __init__(self, thing: str) -> None:
        super().__init__("the routes of this device are being changed by others at the same time: try again")
        self.thing = thing


@dataclass(frozen=True, slots=True)
class Health:
    """How a way is, and since when."""

    gateway_online: bool
    device_online: bool
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """The ways to one device. ``epoch`` rises with each choice."""

    thing: str
    eui64: str
    epoch: int = 0
    routes: tuple[RouteState, ...] = ()
    health: Mapping[str, Health] = field(default_factory=dict)
    leaving: Mapping[str, int] = field(default_factory=dict)
    """Gateways that are to forget the device and have not said so, and since when."""
    due_ms: int | None = None

    @property
    def in_use(self) -> str:
        """The gateway that is told to be in use: also while none is healthy, one is."""
        active = [one.gateway for one in self.routes if one.state is RouteStanding.ACTIVE]
        first = sorted(self.routes, key=lambda one: (not one.pinned, one.priority, one.gateway))
        return next(iter([*active, *(one.gateway for one in first)]), "")


# ---------------------------------------------------------------------------- rules


def advance(
    before: Routes, priorities: Mapping[str, int], hans: Mapping[str, Han], here: frozenset[str], now_ms: int
) -> Routes:
    """Return the routes as they are now.

    ``priorities`` holds the gateways that may speak for the device; ``here`` those that are connected.
    """
    health = {
        gateway: _health(
            before.health.get(gateway), gateway in here, _is_online(before, hans[gateway]), now_ms
        )
        for gateway in sorted(priorities)
    }
    known = {one.gateway: one for one in before.routes}
    standing = tuple(
        known.get(gateway) or RouteState(gateway, RouteStanding.STANDBY, now_ms, priority)
        for gateway, priority in sorted(priorities.items())
    )
    presence = {
        gateway: routes.Presence(one.gateway_online, one.device_online, one.since_ms)
        for gateway, one in health.items()
    }
    chosen, _ = choose_route(standing, presence, now_ms)
    leaving = {
        gateway: before.leaving.get(gateway, now_ms)
        for gateway in sorted({*before.leaving, *known} - set(priorities))
        if before.thing in hans[gateway].wanted
    }
    moments = [*(since_ms + FORGET_MS for since_ms in leaving.values())]
    if (soonest := routes.due_ms(chosen, presence, now_ms)) is not None:
        moments.append(soonest)
    after = replace(before, routes=chosen, health=health, leaving=leaving, due_ms=min(moments, default=None))
    changed = after.in_use != before.in_use or set(priorities) != set(known)
    return replace(after, epoch=before.epoch + 1) if changed else after


def patches(routes: Routes, hans: Mapping[str, Han], now_ms: int) -> list[tuple[str, Tree]]:
    """Return what the gateways are to be told, in order: that one is no longer in use comes first."""
    told = [(gateway, patch) for gateway in sorted(routes.leaving)
            if (patch := _farewell(routes, gateway, hans[gateway], now_ms)) is not None]  # fmt: skip
    for one in sorted(routes.routes, key=lambda one: (one.gateway == routes.in_use, one.gateway)):
        active = one.gateway == routes.in_use
        wanted = Attached(routes.thing, routes.eui64, han.ON, active, routes.epoch)
        if hans[one.gateway].wanted.get(routes.thing) != wanted:
            told.append((one.gateway, han.attach(routes.thing, routes.eui64, routes.epoch, active=active)))
    return told


def _farewell(routes: Routes, gateway: str, report: Han, now_ms: int) -> Tree | None:
    """Return what a gateway is told that is to forget the device; one that is silent is given up."""
    if routes.thing in han.finished(report) or now_ms - routes.leaving[gateway] >= FORGET_MS:
        return han.clear(routes.thing)
    asked = report.wanted.get(routes.thing)
    return None if asked is None or asked.state == han.GONE else han.detach(routes.thing)


def _health(before: Health | None, gateway_online: bool, device_online: bool, now_ms: int) -> Health:
    if before is not None and (before.gateway_online, before.device_online) == (
        gateway_online,
        device_online,
    ):
        return before
    well = gateway_online and device_online
    was_well = before is not None and before.gateway_online and before.device_online
    # Since when the way is healthy, or is not: of two reasons why it is not, the first one counts.
    since_ms = before.since_ms if before is not None and well == was_well else now_ms
    return Health(gateway_online, device_online, since_ms)


def _is_online(routes: Routes, report: Han) -> bool:
    said = report.attached.get(routes.thing)
    return said is not None and said.state == han.ON and said.online


# ---------------------------------------------------------------------------- the keeper


class RouteKeeper:
    """Keeps the routes of what was attached through :meth:`ensure`."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        *,
        registry: RegistryService,
        gateways: GatewayService,
        hans: Hans,
        shadows: ShadowService,
        presence: Presence,
    ) -> None:
        self._records = Records(store, ROUTES.name, Routes, _found_by)
        self._clock = clock
        self._registry = registry
        self._gateways = gateways
        self._hans = hans
        self._presence = presence
        self._dirty: dict[str, None] = {}
        self._work = asyncio.Event()
        shadows.listen(self._heard)
        registry.listeners.append(self.look_at)
        presence.listeners.append(self.look_at)

    async def ensure(self, thing: str, eui64: str) -> None:
        """See to it that the gateways which may speak for a device are told so."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._records.load(thing)
            known = Routes(thing=thing, eui64=eui64) if kept is None else replace(kept.record, eui64=eui64)
            if kept is not None and kept.record == known:
                break
            if await self._records.put(thing, known, 0 if kept is None else kept.revision):
                break
        else:
            raise RoutesBusyError(thing)
        await self.reconcile(thing)

    async def of(self, thing: str) -> Routes | None:
        """Return the routes of a device; None for one that was not attached here."""
        kept = await self._records.load(thing)
        return None if kept is None else kept.record

    async def pin(self, thing: str, gateway: str) -> None:
        """Let one gateway come before all others, as an operator wants it; "" lets none."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._records.load(thing)
            if kept is None:
                return None
            pinned = tuple(replace(one, pinned=one.gateway == gateway) for one in kept.record.routes)
            if await self._records.put(thing, replace(kept.record, routes=pinned), kept.revision):
                return await self.reconcile(thing)
        raise RoutesBusyError(thing)

    async def reconcile(self, thing: str) -> None:
        """Look at one device until there is nothing left to do."""
        for _ in range(ROUNDS_MAX):
            kept = await self._records.load(thing)
            if kept is None or await self._step(kept):
                return
        self.look_at(thing)

    def look_at(self, name: str) -> None:
        """Look at a thing soon, or at the things of a gateway."""
        if len(self._dirty) < DIRTY_MAX:
            self._dirty[name] = None
            self._work.set()

    async def run(self) -> None:
        """Look at whatever was heard of, and at what is due, until cancelled. A broken store ends it."""
        while True:
            try:
                async with asyncio.timeout(POLL_S):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            try:
                await self.pass_once()
            except StoreBrokenError:
                raise
            except Exception as error:  # noqa: BLE001 - looked at again when its time comes
                _log.warning("routes_not_kept", reason=repr(error))
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(REST_S)

    async def pass_once(self) -> None:
        """Look once at all that waits."""
        names, self._dirty = list(self._dirty), {}
        due = await self._records.page("due_ms", 0, self._clock.now_ms(), DUE_PAGE)
        things = dict.fromkeys(one.thing for one in due.records)
        for first in range(0, len(names), AT_ONCE):
            things |= dict.fromkeys(await self._concerned(names[first : first + AT_ONCE]))
        for thing in things:
            try:
                await self.reconcile(thing)
            except HanRefusedError:
                self.look_at(thing)  # the others do not wait for it

    async def _concerned(self, names: Sequence[str]) -> list[str]:
        """Return the devices that these are, or that these gateways speak for.

        Most of those who come and go are neither: a herd of them costs two look-ups together.
        """
        things = [*await self._records.load_all(names)]
        for gateway in await self._gateways.gateways(names):
            things += [pair.thing for pair in (await self._registry.attached_to(gateway, PAGE)).attachments]
            things += (await self._hans.of(gateway)).wanted
        return things

    async def _step(self, kept: Kept[Routes]) -> bool:
        """Look once; True when nothing was left to do."""
        before, now_ms = kept.record, self._clock.now_ms()
        pairs = {one.gateway for one in await self._registry.gateways_of(before.thing)}
        hans = await self._hans.of_all({*pairs, *before.leaving, *(one.gateway for one in before.routes)})
        known = await self._gateways.gateways(pairs)
        priorities = {one: known[one].rank if one in known else PRIORITY_DEFAULT for one in pairs}
        here = frozenset(gateway for gateway in pairs if self._presence.is_here(gateway))
        after = advance(before, priorities, hans, here, now_ms)
        if after != before and not await self._records.put(before.thing, after, kept.revision):
            return False
        todo = patches(after, hans, now_ms)
        for gateway, patch in todo:
            await self._tell(before.thing, gateway, patch)
        return after == before and not todo

    async def _tell(self, thing: str, gateway: str, patch: Tree) -> None:
        try:
            await self._hans.patch(gateway, patch)
        except HanRefusedError as error:
            _log.warning("route_not_told", thing=thing, gateway=gateway, reason=str(error))
            raise

    def _heard(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.command.id.name == han.SHADOW and isinstance(outcome, Accepted):
                self.look_at(outcome.command.id.thing)


def _found_by(routes: Routes) -> dict[str, IndexValue]:
    return {} if routes.due_ms is None else {"due_ms": routes.due_ms}
