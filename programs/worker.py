"""Keeps enrolments true: looks at a device when it has answered, is due, or a consent of it has changed.

What wakes it is a hint and holds no data: a hint that is lost costs time, and nothing else. Any number of
processes may do this at once.
"""

import asyncio
from collections.abc import Collection, Iterable
from typing import Final

import structlog

from infra.clock import MS_PER_S, Clock
from infra.documents.port import StoreBrokenError, StoreUnavailableError
from infra.holdoff import HoldOff
from programs.catalogue import ProgramCatalogue
from programs.consents import ConsentService
from programs.enrolments import EnrolmentService
from programs.shadow import SHADOW
from security.policy import THINGS
from shadow.decisions import Accepted, Outcome
from shadow.service import ShadowService

HINTS_MAX: Final = 20_000
"""Devices that wait for a look; above it a hint is dropped, and they are looked at when they are due."""
DUE_MAX: Final = 500
"""Due enrolments of one round."""
AT_ONCE: Final = 8
SPREAD_MAX: Final = 100
"""Devices that hear of one change of the catalogue in one round, so that a herd does not answer at once."""
POLL_S_MAX: Final = 5.0
POLL_S_MIN: Final = 0.2
REST_S: Final = 0.05
"""Between two rounds, however much is heard: a device that talks without end has one look in it."""
TIME_MAX_MS: Final = 2**53

_log: Final = structlog.get_logger(__name__)


class EnrolmentWorker:
    """Runs until cancelled."""

    def __init__(
        self,
        enrolments: EnrolmentService,
        *,
        catalogue: ProgramCatalogue,
        consents: ConsentService,
        shadows: ShadowService,
        clock: Clock,
    ) -> None:
        self._enrolments = enrolments
        self._catalogue = catalogue
        self._consents = consents
        self._clock = clock
        self._hints: set[str] = set()
        self._told = asyncio.Event()
        self._held = HoldOff(clock)
        shadows.listen(self.heard)

    def heard(self, outcomes: Iterable[Outcome]) -> None:
        """Note which devices have written into their ``program`` shadow; on the way of every update."""
        for outcome in outcomes:
            id = outcome.command.id
            if id.name == SHADOW and isinstance(outcome, Accepted) and outcome.change is not None:
                self._hint(outcome)

    async def run(self) -> None:
        """Work until cancelled. A broken store alone ends it."""
        while True:
            try:
                busy = await self.round()
                pause_s = POLL_S_MIN if busy else await self._pause_s()
            except StoreUnavailableError as error:
                _log.warning("enrolments_wait_for_store", reason=str(error))
                pause_s = POLL_S_MAX
            await asyncio.sleep(REST_S)
            await self._sleep(pause_s)

    async def round(self) -> bool:
        """Do everything that is due now; return whether there may be more at once."""
        devices, self._hints = self._hints, set()
        self._told.clear()
        due = await self._enrolments.records.due(self._clock.now_ms(), DUE_MAX)
        devices.update(one.device for one in due.enrolments)
        devices.update(await self._consents.unsettled())
        await self._look_at(devices)
        return await self._spread() or due.next is not None

    def _hint(self, outcome: Accepted) -> None:
        if outcome.command.origin.role in THINGS and len(self._hints) < HINTS_MAX:
            self._hints.add(outcome.command.id.thing)
            self._told.set()

    async def _spread(self) -> bool:
        """Let some devices hear of what has changed in the catalogue; return whether others still have to."""
        changes = await self._catalogue.to_spread()
        for change in changes:
            page = await self._enrolments.records.page(change.field, change.value, SPREAD_MAX, change.cursor)
            await self._look_at([one.device for one in page.enrolments])
            await self._catalogue.spread(change, page.next)
        return bool(changes)

    async def _look_at(self, devices: Collection[str]) -> None:
        """Look at some devices, a few at a time. One that fails is left alone for a while."""
        waiting = self._held.free(sorted(set(devices)))
        for first in range(0, len(waiting), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                looks = [
                    group.create_task(self._look(device), name=f"enrolments of {device}")
                    for device in waiting[first : first + AT_ONCE]
                ]
            silent = [error for look in looks if (error := look.result()) is not None]
            if silent:
                raise silent[0]  # the others would find the same

    async def _look(self, device: str) -> StoreUnavailableError | None:
        """Look at a device; return the error if the store does not answer, which is not its fault."""
        try:
            await self._enrolments.reconcile(device)
        except StoreBrokenError:
            raise
        except StoreUnavailableError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the others go on
            _log.warning("enrolments_not_reconciled", thing=device, reason=repr(error))
            self._held.failed(device)
        else:
            self._held.worked(device)
        return None

    async def _pause_s(self) -> float:
        """Return how long nothing is due; others may make something due earlier, so not for ever."""
        following = await self._enrolments.records.due(TIME_MAX_MS, 1)
        if not following.enrolments or following.enrolments[0].due_ms is None:
            return POLL_S_MAX
        left_s = (following.enrolments[0].due_ms - self._clock.now_ms()) / MS_PER_S
        return min(max(left_s, POLL_S_MIN), POLL_S_MAX)

    async def _sleep(self, pause_s: float) -> None:
        """Wait for a hint, or until the pause is over."""
        try:
            async with asyncio.timeout(pause_s):
                await self._told.wait()
        except TimeoutError:
            return
