"""Whether a device that has all it needs may activate it now.

The safe answer is: not yet. (spec: ota, 3.3)
"""

import asyncio
from typing import Final

from infra.clock import MS_PER_S, Clock
from infra.documents.port import StoreUnavailableError
from ota.campaign import Campaign
from ota.campaign_store import CampaignStore
from ota.errors import CampaignNotFoundError
from ota.events import Events
from ota.health import Health
from ota.job_ports import Go, Hold, Never, Permit
from ota.models import Execution
from ota.plan import gate_opens_ms
from ota.snapshot import Snapshot
from ota.snapshots import SnapshotService
from ota.states import CampaignState

PAUSED_S: Final = 60
EVENT_S: Final = 60
HEALTH_S: Final = 10
WINDOW_S_MAX: Final = 3_600
"""Devices ask again at least so often, so that a changed mind reaches them."""


class CampaignGate:
    """Asks the campaign, the clock, the events and our own health; takes the snapshot before it says go."""

    def __init__(
        self,
        campaigns: CampaignStore,
        snapshots: SnapshotService,
        events: Events,
        health: Health,
        clock: Clock,
    ) -> None:
        self._campaigns = campaigns
        self._snapshots = snapshots
        self._events = events
        self._health = health
        self._clock = clock
        self._waiting: list[tuple[Execution, asyncio.Future[Snapshot]]] = []
        self._taking = asyncio.Lock()

    async def decide(self, execution: Execution) -> Permit:
        """Return what the device is told; go only once the snapshot is stored."""
        try:
            campaign = (await self._campaigns.load(execution.campaign)).record
        except CampaignNotFoundError:
            return Never()
        if (refusal := self._refusal(campaign, execution)) is not None:
            return refusal
        now_ms = self._clock.now_ms()
        if campaign.terms.blackout and execution.thing in await self._events.quiet([execution.thing], now_ms):
            return Hold("dr_event", EVENT_S)
        snapshot = await self._snapshot(execution)
        # It may have been stopped while the snapshot was taken.
        campaign = (await self._campaigns.load(execution.campaign)).record
        return self._refusal(campaign, execution) or Go(snapshot.id, snapshot.boot)

    def _refusal(self, campaign: Campaign, execution: Execution) -> Hold | Never | None:
        now_ms = self._clock.now_ms()
        if campaign.state is CampaignState.PAUSED:
            return Hold("paused", PAUSED_S)
        if campaign.state is not CampaignState.RUNNING:
            return Never()
        if self._health.unhealthy_since_ms or not self._health.looks_after(campaign.id):
            return Hold("service_health", HEALTH_S)
        opens_ms = gate_opens_ms(now_ms, campaign.terms, execution.time_zone)
        if opens_ms > now_ms:
            return Hold("window", min(-(-(opens_ms - now_ms) // MS_PER_S), WINDOW_S_MAX))
        return None

    async def _snapshot(self, execution: Execution) -> Snapshot:
        """Take the snapshots of all that ask at once in one commit."""
        future: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._waiting.append((execution, future))
        async with self._taking:
            if not future.done():
                await self._take()
        return await future

    async def _take(self) -> None:
        taken, self._waiting = self._waiting, []
        try:
            snapshots = await self._snapshots.before([execution for execution, _ in taken])
        except BaseException as error:
            # Whoever it was that asked first may be gone: the others are told, and ask again.
            told = error if isinstance(error, Exception) else StoreUnavailableError("ask again")
            for _, future in taken:
                if not future.done():
                    future.set_exception(told)
                    future.exception()  # nobody may be waiting for it any more
            raise
        for execution, future in taken:
            if not future.done():
                future.set_result(snapshots[execution.id])
