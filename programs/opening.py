"""Puts the services of this package together, for whoever starts a process or a test."""

from dataclasses import dataclass

from infra.clock import Clock
from infra.documents.port import DocumentStore
from infra.settings.model import ShadowLimits
from programs.catalogue import ProgramCatalogue
from programs.consents import ConsentService
from programs.enrolments import EnrolmentService
from programs.ports import Presence
from programs.worker import EnrolmentWorker
from registry.accounts import AccountService
from registry.catalogue import ModelCatalogue
from registry.devices import DeviceService
from registry.service import RegistryService
from shadow.service import ShadowService


@dataclass(frozen=True, slots=True)
class Programs:
    """What the utility offers, who said yes, who takes part, and who keeps that true."""

    catalogue: ProgramCatalogue
    consents: ConsentService
    enrolments: EnrolmentService
    worker: EnrolmentWorker


def open_programs(
    store: DocumentStore,
    clock: Clock,
    *,
    devices: DeviceService,
    models: ModelCatalogue,
    accounts: AccountService,
    registry: RegistryService,
    shadows: ShadowService,
    presence: Presence,
    limits: ShadowLimits,
) -> Programs:
    """Build the services; nothing is read or written yet."""
    catalogue = ProgramCatalogue(store, clock)
    consents = ConsentService(store, clock, catalogue)
    enrolments = EnrolmentService(
        store,
        clock,
        catalogue=catalogue,
        consents=consents,
        devices=devices,
        models=models,
        accounts=accounts,
        registry=registry,
        shadows=shadows,
        presence=presence,
        limits=limits,
    )
    worker = EnrolmentWorker(enrolments, catalogue=catalogue, consents=consents, shadows=shadows, clock=clock)
    return Programs(catalogue, consents, enrolments, worker)
