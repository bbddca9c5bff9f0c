"""Acts on what the watch says: ends sessions, puts things into quarantine, writes both down.

Quarantine is a suspension by ``system`` with its cause: nothing is taken from the thing or told to it until a
person lets it go on. A suspended thing's certificate still passes TLS; so it is sent away whenever it comes.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

import structlog

from broker_bridge.janitor import JanitorError
from broker_bridge.presence import Presence, Sign
from broker_bridge.watch import Sentence, Verdict, Watch
from infra.clock import Clock
from infra.documents.port import StoreUnavailableError
from infra.telemetry import Metrics
from registry.errors import RegistryError, ThingNotFoundError
from registry.models import Standing
from registry.rules import RESERVED_PREFIX
from registry.service import RegistryService
from security.audit import INSIDE, Refusals, Via
from security.policy import Principal, Role

WAITING_MAX: Final = 10_000
"""Verdicts, and things that came, waiting each; above it a new one is counted and dropped."""
ARRIVALS_AT_ONCE: Final = 500
TRIES_MAX: Final = 3
RETRY_S: Final = 1.0
WATCH: Final = Principal("gnomon.watch", Role.SYSTEM)
_BY_MQTT: Final = Via("mqtt")
_ACTION: Final = "topic.subscribe"

_log = structlog.get_logger(__name__)


class Kicker(Protocol):
    """Who ends sessions."""

    async def kick(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Case:
    verdict: Verdict
    tries: int = 0


class Warden:
    """Hears the broker's log; :meth:`run` does what follows from it."""

    def __init__(
        self,
        janitor: Kicker,
        registry: RegistryService,
        refusals: Refusals,
        clock: Clock,
        metrics: Metrics,
        watch: Watch | None = None,
    ) -> None:
        self._janitor = janitor
        self._registry = registry
        self._refusals = refusals
        self._clock = clock
        self._metrics = metrics
        self._watch = watch or Watch()
        self._cases: deque[_Case] = deque()
        self._arrivals: dict[str, None] = {}
        self._work = asyncio.Event()
        self.quarantines = 0
        registry.listeners.append(self._changed)

    # ------------------------------------------------------------------ what is heard

    def read(self, presence: Presence) -> None:
        """Take in what a line of the broker's log says about a thing."""
        self._note(self._watch.read(presence, self._clock.elapsed_s()))
        if presence.sign is Sign.CONNECTED:
            self._arrive(presence.thing)

    def begin(self, presences: list[Presence]) -> None:
        """The broker was lost and is there again: this is what its log says of late."""
        for verdict in self._watch.begin(presences, self._clock.elapsed_s()):
            self._note(verdict)
        for thing in _there(presences):
            self._arrive(thing)

    def judge(self, verdict: Verdict) -> None:
        """Take a verdict of somebody else."""
        self._note(verdict)

    def _changed(self, thing: str) -> None:
        self._arrive(thing)

    def _note(self, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        if len(self._cases) >= WAITING_MAX:
            self._metrics.dropped("watch_full")
            return
        self._cases.append(_Case(verdict))
        self._work.set()

    def _arrive(self, thing: str) -> None:
        if thing.startswith(RESERVED_PREFIX):
            return
        if len(self._arrivals) >= WAITING_MAX:
            self._metrics.dropped("watch_full")
            return
        self._arrivals[thing] = None
        self._work.set()

    # ------------------------------------------------------------------ what is done

    async def run(self) -> None:
        """Do what is to be done, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            if not await self.settle():
                self._work.set()
                await asyncio.sleep(RETRY_S)

    async def settle(self) -> bool:
        """Deal with all that waits; False when some of it has to be tried again."""
        again: list[_Case] = []
        while self._cases:
            case = self._cases.popleft()
            if not await self._carry_out(case.verdict):
                again.append(_Case(case.verdict, case.tries + 1))
        self._cases.extend(case for case in again if case.tries < TRIES_MAX)
        return await self._send_away_whom_is_barred() and not self._cases

    async def _carry_out(self, verdict: Verdict) -> bool:
        thing = verdict.thing
        if verdict.filter:
            who = Principal(thing, Role.DEVICE)
            self._refusals.note(who, _BY_MQTT, _ACTION, f"filter/{verdict.filter}", verdict.cause)
        if verdict.sentence is Sentence.QUARANTINE and not await self._quarantine(verdict):
            return False
        return await self._kick(thing)

    async def _quarantine(self, verdict: Verdict) -> bool:
        thing, cause = verdict.thing, verdict.cause
        try:
            await self._registry.suspend(thing, WATCH, INSIDE, cause)
        except ThingNotFoundError:
            _log.error("stranger_misbehaves", thing=thing, cause=cause)
            return True  # it has no rights that could be taken
        except (StoreUnavailableError, RegistryError) as error:
            _log.warning("quarantine_waits", thing=thing, reason=str(error))
            return False
        self.quarantines += 1
        _log.error("thing_quarantined", thing=thing, cause=cause)
        return True

    async def _kick(self, thing: str) -> bool:
        try:
            await self._janitor.kick(thing)
        except JanitorError as error:
            _log.warning("session_not_ended", thing=thing, reason=str(error))
            return False
        return True

    async def _send_away_whom_is_barred(self) -> bool:
        """Look up who came, or has changed; end the sessions of those that count for nothing."""
        still_there: list[str] = []
        while self._arrivals:
            names = list(islice(self._arrivals, ARRIVALS_AT_ONCE))
            try:
                standings = await self._registry.standings(names)
            except StoreUnavailableError as error:
                _log.warning("quarantine_waits", reason=str(error))
                return False
            for name in names:
                self._arrivals.pop(name, None)
            barred = [name for name, standing in standings.items() if _sent_away(standing)]
            async with asyncio.TaskGroup() as group:
                kicks = [group.create_task(self._kick(name), name="warden kick") for name in barred]
            still_there += [name for name, kick in zip(barred, kicks, strict=True) if not kick.result()]
        for name in still_there:
            self._arrive(name)
        return not still_there


def _sent_away(standing: Standing) -> bool:
    # What has no certificate has no session: its gateway speaks for it.
    return standing.thing.barred and standing.thing.has_certificate


def _there(presences: Iterable[Presence]) -> dict[str, None]:
    """Return who is connected after these signs."""
    there: dict[str, None] = {}
    for presence in presences:
        if presence.sign is Sign.CONNECTED:
            there[presence.thing] = None
        elif presence.sign is Sign.DISCONNECTED:
            with suppress(KeyError):
                del there[presence.thing]
    return there
