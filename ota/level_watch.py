"""Lets Prometheus read the service levels of firmware.

They are looked at each minute and not when it asks: it takes a look at all targets.
"""

import asyncio
from typing import Final

import structlog

from infra.clock import MS_PER_S
from infra.documents.port import StoreBrokenError
from infra.telemetry import Metrics
from ota.campaigns import CampaignService
from ota.service_levels import ServiceLevels, combined

LOOK_S: Final = 60.0

_log: Final = structlog.get_logger(__name__)


class LevelWatch:
    """Keeps the service levels as they were a moment ago."""

    def __init__(self, campaigns: CampaignService, metrics: Metrics) -> None:
        self._campaigns = campaigns
        self._levels = combined((), limit_ms=0, per_hour=0)
        metrics.gauge(
            "upgrade_limit_seconds",
            "A device may take so long for new firmware",
            lambda: self._levels.limit_ms / MS_PER_S,
        )
        metrics.gauge(
            "upgrade_longest_seconds",
            "The device that took longest",
            lambda: (self._levels.longest_ms or 0) / MS_PER_S,
        )
        metrics.gauge(
            "upgrade_over_limit", "Devices that took longer than they may", lambda: self._levels.over
        )
        metrics.gauge("upgrade_aim_per_hour", "Devices to be done in an hour", lambda: self._levels.per_hour)
        metrics.gauge(
            "upgrade_done_last_hour", "Done within the last 60 minutes", lambda: self._levels.last_hour
        )
        metrics.gauge("upgrade_in_flight", "Devices at work", lambda: self._levels.in_flight)

    @property
    def levels(self) -> ServiceLevels:
        """Return what was found last."""
        return self._levels

    async def look(self) -> None:
        """Find out how the fleet stands."""
        self._levels = await self._campaigns.service_levels()

    async def run(self) -> None:
        """Look each minute, until cancelled. A broken store alone ends it."""
        while True:
            try:
                await self.look()
            except StoreBrokenError:
                raise
            except Exception as error:  # noqa: BLE001 - figures alone are missing, and the service goes on
                _log.warning("service_levels_not_looked_at", reason=repr(error))
            await asyncio.sleep(LOOK_S)
