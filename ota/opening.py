"""Puts the services of this package together, for whoever starts a process or a test."""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from infra.clock import Clock
from infra.documents.port import DocumentStore
from infra.settings.model import ShadowLimits
from infra.telemetry import Metrics
from ota.belongings import Belongings
from ota.installed import InstalledService
from ota.lane import ExecutionLane
from ota.snapshots import SnapshotService, factory_defaults
from registry.catalogue import ModelCatalogue
from registry.devices import DeviceService
from shadow.service import ShadowService


@dataclass(frozen=True, slots=True)
class Ota:
    """All that brings firmware to devices."""

    lane: ExecutionLane
    snapshots: SnapshotService
    installed: InstalledService
    belongings: Belongings

    def runs(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what goes on beside, until cancelled."""
        return self.lane.run(), self.snapshots.run()


def open_ota(
    store: DocumentStore,
    clock: Clock,
    metrics: Metrics,
    *,
    shadows: ShadowService,
    devices: DeviceService,
    models: ModelCatalogue,
    limits: ShadowLimits,
) -> Ota:
    """Build the services; nothing is read or written yet."""
    defaults = factory_defaults(models)
    snapshots = SnapshotService(
        store, clock, shadows=shadows, devices=devices, defaults=defaults, limits=limits
    )
    installed = InstalledService(store, clock)
    return Ota(
        lane=ExecutionLane(store, clock, metrics),
        snapshots=snapshots,
        installed=installed,
        belongings=Belongings(snapshots, installed),
    )
