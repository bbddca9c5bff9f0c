"""The composition root: builds what the entry points call, once, from the settings.

Nothing else in the code base makes a service; everybody takes what they need as an argument.
"""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gnomon.proofs import RegistryProofs
from gnomon.reach import Reach
from infra.clock import Clock
from infra.documents.opening import open_store
from infra.documents.port import Collection, DocumentStore
from infra.ids import Ids
from infra.live import Live
from infra.outbox import LANES, Outbox
from infra.outbox import LOG as OUTBOX
from infra.presence import Presence
from infra.settings import Settings
from infra.telemetry import Journeys, Metrics, open_journeys
from ota.collections import COLLECTIONS as OTA
from ota.opening import Ota, open_ota
from programs.collections import COLLECTIONS as PROGRAMS
from programs.collections import LOGS as PROGRAM_LOGS
from programs.opening import Programs, open_programs
from programs.writing import Writing
from provisioning import care_embedded, care_http
from provisioning.care import CustomerCare
from provisioning.care_embedded import EmbeddedCare
from provisioning.center import COLLECTIONS as PROVISIONING
from provisioning.center import ProvisioningCenter, Registers, open_provisioning
from provisioning.hans import Hans
from provisioning.taking_part import TakingPart
from registry.accounts import AccountService
from registry.catalogue import ModelCatalogue
from registry.collections import COLLECTIONS
from registry.devices import DeviceService
from registry.gateways import GatewayService
from registry.meters import MeterService
from registry.service import RegistryService
from security import audit
from security.audit import Refusals
from security.blocks import BLOCKS
from security.hashing import Hashing
from security.heads import Heads
from security.people.people import People, open_people
from security.people.records import COLLECTIONS as PEOPLE
from security.sealer import Sealer
from security.secretbox import DamagedFileError, SecretBox
from security.trust.authority import Authority
from security.trust.center import TrustCenter, open_center
from security.trust.collections import COLLECTIONS as TRUST
from security.trust.issued import IssuedStore
from shadow.records import LOGS, SHADOWS
from shadow.service import ShadowService
from shadow.store import ShadowStore

MASTER_KEY_FILE: Final = "master.key"
AUDIT_KEY_FILE: Final = "audit.key"


class NoPlaceError(Exception):
    """The folder for all that is kept cannot be made."""

    def __init__(self, directory: Path, problem: str) -> None:
        super().__init__(
            f"the folder {directory} cannot be made ({problem}): set `directory` to one that this user may"
            " write"
        )


@dataclass(frozen=True, slots=True)
class Services:
    """All that the entry points may call."""

    settings: Settings
    clock: Clock
    ids: Ids
    store: DocumentStore
    metrics: Metrics
    journeys: Journeys
    live: Live
    shadows: ShadowService
    registry: RegistryService
    models: ModelCatalogue
    accounts: AccountService
    meters: MeterService
    gateways: GatewayService
    devices: DeviceService
    presence: Presence
    programs: Programs
    ota: Ota
    refusals: Refusals
    heads: Heads
    sealer: Sealer
    box: SecretBox
    authority: Authority
    hashing: Hashing
    issued: IssuedStore
    trust: TrustCenter
    people: People
    outbox: Outbox
    care: CustomerCare
    provisioning: ProvisioningCenter


@asynccontextmanager
async def open_services(
    settings: Settings,
    clock: Clock,
    ids: Ids,
    *,
    collections: Sequence[Collection] = (),
    logs: Sequence[str] = (),
) -> AsyncIterator[Services]:
    """Build the services over an opened store; close it at the end.

    ``collections`` and ``logs`` are those that the entry points keep in it beside the services' own.
    """
    directory = settings.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoPlaceError(directory, error.strerror or "") from error
    async with AsyncExitStack() as undo:
        store = await open_store(
            store_url(settings),
            [
                SHADOWS,
                *COLLECTIONS,
                *PROGRAMS,
                *PROVISIONING,
                *OTA,
                *TRUST,
                *PEOPLE,
                BLOCKS,
                LANES,
                *care_embedded.COLLECTIONS,
                *collections,
            ],
            [*LOGS, *PROGRAM_LOGS, audit.LOG, OUTBOX, care_embedded.RECORDS, *logs],
        )
        undo.push_async_callback(store.close)
        sampling = random.Random(ids.number())  # noqa: S311 - which requests are traced
        journeys = open_journeys(settings.telemetry, directory, clock, sampling)
        undo.callback(journeys.close)
        metrics, live = Metrics(), Live()
        shadow_store = ShadowStore(store, settings.limits, settings.bridge.cache_bytes_max)
        metrics.gauge("cached_shadows", "Shadows kept in memory", lambda: shadow_store.cached_shadows)
        metrics.gauge("cached_bytes", "Their size", lambda: shadow_store.cached_bytes)
        box = open_box(settings, ids)
        hashing = Hashing()
        undo.callback(hashing.close)
        heads = Heads.open(heads_file(settings), audit_key_file(settings), box, clock)
        sealer = Sealer(store, clock, heads)
        show_sealing(metrics, sealer)
        shadows = ShadowService(shadow_store, clock, ids, settings.limits, metrics, live)
        registry, refusals = RegistryService(store, clock), Refusals(store, clock, ids)
        models, accounts = ModelCatalogue(store, clock), AccountService(store, clock)
        devices, presence = DeviceService(store, clock, registry), Presence()
        meters, gateways = MeterService(store, clock), GatewayService(store, clock, registry)
        hans = Hans(shadows, settings.limits)
        programs = open_programs(
            store,
            clock,
            devices=devices,
            models=models,
            accounts=accounts,
            registry=registry,
            shadows=shadows,
            presence=Reach(presence, registry, hans),
            limits=settings.limits,
        )
        authority, issued = open_authority(settings, box, clock), IssuedStore(store, clock)
        trust = open_center(
            store,
            authority=authority,
            issued=issued,
            box=box,
            hashing=hashing,
            proofs=RegistryProofs(registry, devices),
            refusals=refusals,
            clock=clock,
            ids=ids,
            metrics=metrics,
        )
        care = open_care(settings, store, clock)
        undo.push_async_callback(care.close)
        outbox = Outbox(store, clock, random.Random(ids.number()), metrics)  # noqa: S311 - jitter of retries
        ota = open_ota(
            store,
            clock,
            ids,
            metrics,
            settings.ota,
            live=live,
            shadows=shadows,
            registry=registry,
            devices=devices,
            gateways=gateways,
            models=models,
            presence=presence,
            outbox=outbox,
            limits=settings.limits,
            images_url=f"https://{settings.broker.hosts[0]}:{settings.api.device_port}/v1/ota/images/",
            directory=directory,
            box=box,
            authority=authority,
        )
        provisioning = open_provisioning(
            store,
            clock=clock,
            ids=ids,
            live=live,
            presence=presence,
            settings=settings.provisioning,
            limits=settings.limits,
            registers=Registers(registry, gateways, devices, models, meters, accounts),
            shadows=shadows,
            hans=hans,
            box=box,
            issued=issued,
            pins=trust.pins,
            programs=TakingPart(
                catalogue=programs.catalogue,
                consents=programs.consents,
                enrolments=programs.enrolments,
                accounts=accounts,
                devices=devices,
                models=models,
            ),
            belongings=ota.belongings,
            outbox=outbox,
            care=care,
        )
        yield Services(
            settings=settings,
            clock=clock,
            ids=ids,
            store=store,
            metrics=metrics,
            journeys=journeys,
            live=live,
            shadows=shadows,
            registry=registry,
            models=models,
            accounts=accounts,
            meters=meters,
            gateways=gateways,
            devices=devices,
            presence=presence,
            programs=programs,
            ota=ota,
            refusals=refusals,
            heads=heads,
            sealer=sealer,
            box=box,
            authority=authority,
            hashing=hashing,
            issued=issued,
            trust=trust,
            people=await open_people(
                store,
                clock,
                ids,
                box,
                hashing,
                refusals,
                demo=settings.people.demo,
                more={**Writing(programs.catalogue).table(), **ota.key_acts.table()},
            ),
            outbox=outbox,
            care=care,
            provisioning=provisioning,
        )


def open_care(settings: Settings, store: DocumentStore, clock: Clock) -> CustomerCare:
    """Return the customer care system that the settings name; nothing is asked of it yet."""
    if settings.care.adapter == "http":
        return care_http.connect(settings.care, clock)
    return EmbeddedCare(store, clock)


def open_box(settings: Settings, ids: Ids) -> SecretBox:
    """Open the secret box; make its key at the first start, never beside what a lost one has sealed.

    Raises :class:`DamagedFileError`: with another key nothing of it would open, now or later.
    """
    key, authorities = master_key_file(settings), authority_directory(settings)
    if not key.exists():
        sealed = [*sorted(authorities.glob("*.passphrase")), audit_key_file(settings)]
        left = ", ".join(str(file) for file in sealed if file.exists())
        if left:
            raise DamagedFileError(
                key,
                f"is missing, which opens {left}",
                "put back a copy; if there is none, the runbook says in Authorities what is lost",
            )
    return SecretBox.open(key, ids)


def open_authority(settings: Settings, box: SecretBox, clock: Clock) -> Authority:
    """Open the certificate authorities; make them on first run, unless this is production."""
    trust = settings.trust
    return Authority.open(
        authority_directory(settings), box, clock, wide_names=trust.wide_names, production=trust.production
    )


def look_at_authority(settings: Settings, box: SecretBox, clock: Clock) -> Authority:
    """Open the same to say how it is: nothing is written."""
    trust = settings.trust
    return Authority.look(
        authority_directory(settings), box, clock, wide_names=trust.wide_names, production=trust.production
    )


def show_sealing(metrics: Metrics, sealer: Sealer) -> None:
    """Let Prometheus read how far the audit chain is."""
    metrics.gauge("audit_unsealed_rows", "Rows the last sealing left open", lambda: sealer.unsealed)
    metrics.gauge("audit_seal_age_s", "Seconds since all was sealed that can be", lambda: sealer.age_s)
    metrics.gauge("audit_sealing_behind", "1: somebody should look why", lambda: float(sealer.behind))
    metrics.gauge("audit_chain_entries", "Entries of the audit chain", lambda: sealer.head.entries)
    metrics.counter("audit_heads_failed", "Heads that could not be published", lambda: sealer.heads_failed)


def store_url(settings: Settings) -> str:
    """Return where the documents are."""
    return settings.store.url.replace("{directory}", str(settings.directory))


def store_file(settings: Settings) -> Path | None:
    """Return the file of an embedded store."""
    scheme, _, place = store_url(settings).partition(":")
    return Path(place) if scheme == "sqlite" else None


def master_key_file(settings: Settings) -> Path:
    """Return the file with the keys of the secret box; without it nothing that was sealed opens again."""
    return settings.directory / "secrets" / MASTER_KEY_FILE


def authority_directory(settings: Settings) -> Path:
    """Return where the certificate authority keeps its files."""
    return settings.directory / "ca"


def broker_directory(settings: Settings) -> Path:
    """Return where the broker keeps its files."""
    return settings.directory / "broker"


def audit_key_file(settings: Settings) -> Path:
    """Return the file with the sealed key that signs heads of the audit chain."""
    return settings.directory / "secrets" / AUDIT_KEY_FILE


def heads_file(settings: Settings) -> Path:
    """Return where heads of the audit chain are published."""
    return Path(settings.audit.heads_file.replace("{directory}", str(settings.directory)))
