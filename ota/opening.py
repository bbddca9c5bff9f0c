"""Puts the services of this package together, for whoever starts a process or a test."""

from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.blobs import Blobs
from infra.clock import Clock
from infra.documents.port import DocumentStore
from infra.outbox import Outbox
from infra.presence import Presence
from infra.settings.model import ShadowLimits
from infra.telemetry import Metrics
from ota.belongings import Belongings
from ota.blocks import BlockCache
from ota.evidence import Wanted
from ota.images import IMAGE_BYTES_MAX, ImageService
from ota.installed import InstalledService
from ota.job_ports import Hold, Permit, Uses
from ota.job_service import JobService
from ota.keys import KeyActs, SigningKeys
from ota.lane import ExecutionLane
from ota.library import Library
from ota.models import Execution
from ota.notices import Notices
from ota.packing import Contents, NoBundleError, Packing
from ota.releases import ReleaseService
from ota.snapshots import SnapshotService, factory_defaults
from ota.stream_service import StreamService
from ota.watcher import Watcher
from registry.catalogue import ModelCatalogue
from registry.devices import DeviceService
from registry.service import RegistryService
from security.secretbox import SecretBox
from security.trust.authority import Authority
from shadow.service import ShadowService

LOOK_AGAIN_S = 60


class _NoCampaigns:
    """Stands for campaigns where there are none: nothing is given out, and nobody activates anything."""

    async def decide(self, execution: Execution) -> Permit:
        return Hold(f"no campaign {execution.campaign}", LOOK_AGAIN_S)

    async def document(self, execution: Execution) -> bytes:
        raise LookupError(f"there is no campaign {execution.campaign}")

    async def uses(self, _campaign: str) -> Uses:
        return Uses()

    async def contents(self, campaign: str) -> Contents:
        raise NoBundleError(campaign)

    async def wanted(self, _campaigns: Collection[str]) -> Mapping[str, Wanted]:
        return {}


@dataclass(frozen=True, slots=True)
class Ota:
    """All that brings firmware to devices."""

    lane: ExecutionLane
    snapshots: SnapshotService
    installed: InstalledService
    belongings: Belongings
    jobs: JobService
    streams: StreamService
    images: ImageService
    releases: ReleaseService
    keys: SigningKeys
    key_acts: KeyActs
    watcher: Watcher
    notices: Notices
    packing: Packing

    def runs(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what goes on beside, until cancelled."""
        return (
            self.lane.run(),
            self.snapshots.run(),
            self.watcher.run(),
            self.notices.run(),
            self.images.run(),
            self.keys.run(),
        )


def open_ota(
    store: DocumentStore,
    clock: Clock,
    metrics: Metrics,
    *,
    shadows: ShadowService,
    registry: RegistryService,
    devices: DeviceService,
    models: ModelCatalogue,
    presence: Presence,
    outbox: Outbox,
    limits: ShadowLimits,
    directory: Path,
    box: SecretBox,
    authority: Authority,
) -> Ota:
    """Build the services; nothing is read or written yet."""
    lane, campaigns = ExecutionLane(store, clock, metrics), _NoCampaigns()
    jobs = JobService(lane, clock, campaigns, campaigns)
    defaults = factory_defaults(models)
    snapshots = SnapshotService(
        store, clock, shadows=shadows, devices=devices, defaults=defaults, limits=limits
    )
    installed = InstalledService(store, clock)
    images = ImageService(store, clock, Blobs(directory / "images", IMAGE_BYTES_MAX))
    keys = SigningKeys(store, clock, box=box, authority=authority, directory=directory / "secrets")
    releases = ReleaseService(store, clock, images=images, keys=keys, models=models)
    return Ota(
        lane=lane,
        jobs=jobs,
        streams=StreamService(jobs, Library(releases, images, keys), BlockCache()),
        images=images,
        releases=releases,
        keys=keys,
        key_acts=KeyActs(keys, clock),
        watcher=Watcher(
            lane,
            campaigns,
            clock,
            shadows=shadows,
            snapshots=snapshots,
            installed=installed,
            devices=devices,
            registry=registry,
            presence=presence,
            defaults=defaults,
        ),
        notices=Notices(lane, campaigns, outbox, devices, clock),
        packing=Packing(campaigns, images),
        snapshots=snapshots,
        installed=installed,
        belongings=Belongings(snapshots, installed),
    )
