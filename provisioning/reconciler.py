"""Keeps sessions moving: look, decide, write, do, and look again, until nothing changes.

Nothing here is needed for correctness but that it is called again some time: what is wanted stands in the
document, and is wanted until it is observed. Wake-ups are hints of this process; ``due_ms`` and the states
that wait for something outside are found in the store, by any process, also after a crash.
"""

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from infra.clock import Clock
from infra.documents.port import StoreBrokenError, StoreUnavailableError
from infra.holdoff import HoldOff
from infra.live import Live
from infra.presence import Presence
from provisioning import han
from provisioning.advance import advance
from provisioning.effects import Effect
from provisioning.executor import Executor, Outcome
from provisioning.observing import Observing
from provisioning.store import LATER, SOON, SessionStore
from provisioning.tries import ProofTries
from provisioning.verifications import Verifications
from registry.models import ThingKind
from registry.service import RegistryService

ROUNDS_MAX: Final = 40
"""Looks at one session in a row: a step of each device and some more."""
SOON_S: Final = 1.0
LATER_S: Final = 60.0
SWEEP_S: Final = 3_600.0
REST_S: Final = 0.1
"""Between two looks at all, however much is announced."""
CAME_MAX: Final = 500
"""Things that came since the last look. Whom of more nobody noticed is found with what waits for days."""
GUESTS_MAX: Final = 50
GUESTS_S: Final = 15.0
"""So long a session is looked at whose premises a gateway has come to: it has yet to speak."""
KEPT_MS: Final = 400 * 86_400_000
"""How long a session that is over can be read."""

_log: Final = structlog.get_logger(__name__)


class Reconciler:
    """Looks at sessions."""

    def __init__(
        self,
        sessions: SessionStore,
        observing: Observing,
        executor: Executor,
        verifications: Verifications,
        tries: ProofTries,
        clock: Clock,
        live: Live,
        registry: RegistryService,
        presence: Presence,
    ) -> None:
        self._sessions = sessions
        self._observing = observing
        self._executor = executor
        self._verifications = verifications
        self._tries = tries
        self._clock = clock
        self._live = live
        self._registry = registry
        self._presence = presence
        self._held = HoldOff(clock)
        self._came: dict[str, None] = {}
        self._guests: dict[str, float] = {}
        """Sessions at whose premises a gateway has come, and until when they are looked at."""
        presence.listeners.append(self._moved)
        self._looked_later_s = -LATER_S
        self._swept_s = -SWEEP_S

    async def reconcile(self, id: str) -> None:
        """Look at one session until there is nothing left to do now."""
        outcome, last = Outcome(), tuple[Effect, ...]()
        for _ in range(ROUNDS_MAX):
            kept = await self._sessions.load(id)
            if kept is None:
                return
            observed = await self._observing.look(kept.record, outcome.refused, outcome.copied)
            after = advance(kept.record, observed, self._clock.now_ms())
            changed = after.session != kept.record
            if changed:
                if not await self._sessions.put(after.session, kept.revision):
                    continue  # somebody else was first: look again
                self.announce(id)
            elif after.effects == last:
                return  # nothing is wanted, or nothing came of it: that is tried again at the next look
            await self._executor.carry_out(after.session, after.effects, outcome)
            last = after.effects

    def announce(self, id: str) -> None:
        """Wake whoever follows a session: it has changed."""
        self._live.announce(topic(id))

    async def run(self) -> None:
        """Look at whatever waits, until cancelled. A broken store alone ends it."""
        with self._live.watch(han.SHADOW) as watcher:
            while not watcher.closed:
                try:
                    await self.pass_once()
                except StoreBrokenError:
                    raise
                except Exception as error:  # noqa: BLE001 - looked at again in a moment, and the service goes on
                    _log.warning("sessions_not_looked_at", reason=repr(error))
                await asyncio.sleep(REST_S)
                try:
                    async with asyncio.timeout(SOON_S):
                        await watcher.wait()
                except TimeoutError:
                    pass

    async def pass_once(self) -> None:
        """Look once at all that waits."""
        now_s = self._clock.elapsed_s()
        ids = dict.fromkeys(
            (
                *await self._sessions.due(self._clock.now_ms()),
                *await self._sessions.watched(SOON),
                *await self._with_guests(now_s),
            )
        )
        if now_s - self._looked_later_s >= LATER_S:
            self._looked_later_s = now_s
            ids |= dict.fromkeys(await self._sessions.watched(LATER))
        for id in self._held.free(ids):
            await self._carefully(id)
        if now_s - self._swept_s >= SWEEP_S:
            self._swept_s = now_s
            await self._sessions.drop_over(self._clock.now_ms() - KEPT_MS)
            await self._verifications.sweep()
            await self._tries.sweep()

    def _moved(self, name: str) -> None:
        if self._presence.is_here(name) and len(self._came) < CAME_MAX:
            self._came[name] = None

    async def _with_guests(self, now_s: float) -> Collection[str]:
        """Return the sessions at whose premises a gateway has come: they may wait for just that."""
        came, self._came = self._came, {}
        for standing in (await self._registry.standings(came)).values() if came else ():
            home = standing.premises
            if standing.thing.kind is ThingKind.GATEWAY and home is not None and home.open_session:
                self._guests[home.open_session] = now_s + GUESTS_S
        at_last = list(self._guests.items())[-GUESTS_MAX:]
        self._guests = {id: until_s for id, until_s in at_last if until_s > now_s}
        return self._guests

    async def _carefully(self, id: str) -> None:
        try:
            await self.reconcile(id)
        except StoreBrokenError:
            raise
        except Exception as error:  # noqa: BLE001 - one session keeps no other waiting
            _log.warning("session_not_looked_at", session=id, reason=repr(error))
            if not isinstance(error, StoreUnavailableError):  # that is not its fault
                self._held.failed(id)
        else:
            self._held.worked(id)


def topic(id: str) -> str:
    """Return what is announced when a session has changed."""
    return f"session/{id}"
