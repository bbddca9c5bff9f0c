"""Puts the services of this package together, for whoever starts a process or a test."""

from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.blobs import Blobs
from infra.clock import Clock
from infra.documents.port import DocumentStore
from infra.ids import Ids
from infra.live import Live
from infra.outbox import Outbox
from infra.presence import Presence
from infra.settings.model import OtaSettings, ShadowLimits
from infra.telemetry import Metrics
from ota.belongings import Belongings
from ota.blocks import BlockCache
from ota.campaign_ports import ReleaseViews
from ota.campaigns import CampaignService
from ota.equipment import Equipment
from ota.events import NoEvents
from ota.executor import Executor
from ota.facts import FactReader
from ota.gate import CampaignGate
from ota.health import Health
from ota.images import ImageService
from ota.installed import InstalledService
from ota.job_documents import JobDocuments
from ota.job_service import JobService
from ota.keys import KeyActs, SigningKeys
from ota.lane import ExecutionLane
from ota.level_watch import LevelWatch
from ota.library import Library
from ota.manifest import IMAGE_BYTES_MAX
from ota.needs_report import NeedsService
from ota.notices import Notices
from ota.packing import Packing
from ota.releases import ReleaseService
from ota.rolls import Rolls
from ota.snapshots import SnapshotService, factory_defaults
from ota.stream_service import StreamService
from ota.watcher import Watcher
from registry.catalogue import ModelCatalogue
from registry.devices import DeviceService
from registry.gateways import GatewayService
from registry.service import RegistryService
from security.secretbox import SecretBox
from security.trust.authority import Authority
from shadow.service import ShadowService

PROGRESS: Final = "ota/progress"
"""The topic under which is announced that campaigns, or their targets, are not as they were."""


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
    campaigns: CampaignService
    needs: NeedsService
    executor: Executor
    health: Health
    level_watch: LevelWatch

    def runs(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what goes on beside, until cancelled."""
        return (
            self.lane.run(),
            self.snapshots.run(),
            self.watcher.run(),
            self.notices.run(),
            self.images.run(),
            self.keys.run(),
            self.executor.run(),
            self.level_watch.run(),
        )


def open_ota(
    store: DocumentStore,
    clock: Clock,
    ids: Ids,
    metrics: Metrics,
    settings: OtaSettings,
    *,
    live: Live,
    shadows: ShadowService,
    registry: RegistryService,
    devices: DeviceService,
    gateways: GatewayService,
    models: ModelCatalogue,
    presence: Presence,
    outbox: Outbox,
    limits: ShadowLimits,
    images_url: str,
    directory: Path,
    box: SecretBox,
    authority: Authority,
) -> Ota:
    """Build the services; nothing is read or written yet."""
    lane = ExecutionLane(store, clock, metrics)
    defaults, equipment = factory_defaults(models), Equipment(devices, gateways, registry)
    snapshots = SnapshotService(
        store, clock, shadows=shadows, devices=equipment, defaults=defaults, limits=limits
    )
    installed = InstalledService(store, clock)
    images = ImageService(store, clock, Blobs(directory / "images", IMAGE_BYTES_MAX))
    keys = SigningKeys(store, clock, box=box, authority=authority, directory=directory / "secrets")
    releases = ReleaseService(store, clock, images=images, keys=keys, models=models)
    views, rolls = ReleaseViews(releases), Rolls(store, lane)
    facts = FactReader(equipment, registry, models, shadows, lane)
    campaigns = CampaignService(
        store,
        clock,
        ids,
        settings,
        lane=lane,
        rolls=rolls,
        facts=facts,
        models=models,
        releases=views,
        signer=keys,
    )
    health, events = Health(clock), NoEvents()
    jobs = JobService(
        lane,
        clock,
        CampaignGate(campaigns.store, snapshots, events, health, clock),
        JobDocuments(campaigns.store, views, keys, images_url),
    )
    watcher = Watcher(
        lane,
        campaigns,
        clock,
        shadows=shadows,
        snapshots=snapshots,
        installed=installed,
        devices=equipment,
        registry=registry,
        presence=presence,
        defaults=defaults,
    )
    executor = Executor(
        store,
        clock,
        metrics,
        campaigns=campaigns.store,
        lane=lane,
        rolls=rolls,
        facts=facts,
        releases=views,
        signer=keys,
        events=events,
        health=health,
        presence=presence,
        registry=registry,
        looker=watcher,
    )
    # What people do is carried out at once, and whoever watches is told of all that changes.
    campaigns.listeners += [executor.wake, lambda: live.announce(PROGRESS)]
    lane.listen(lambda _commits: live.announce(PROGRESS))
    return Ota(
        lane=lane,
        jobs=jobs,
        streams=StreamService(jobs, Library(releases, images, keys), BlockCache(), clock.elapsed_s),
        images=images,
        releases=releases,
        keys=keys,
        key_acts=KeyActs(keys, clock),
        watcher=watcher,
        notices=Notices(lane, campaigns, outbox, devices, clock),
        packing=Packing(campaigns, images, keys),
        campaigns=campaigns,
        needs=NeedsService(views, facts, models, equipment, clock),
        executor=executor,
        health=health,
        level_watch=LevelWatch(campaigns, metrics),
        snapshots=snapshots,
        installed=installed,
        belongings=Belongings(snapshots, installed),
    )
