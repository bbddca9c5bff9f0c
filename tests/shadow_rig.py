"""The shadow service over a store, a still clock and a listener: what the suites of `shadow/` drive."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from infra.documents.memory import MemoryStore
from infra.documents.port import Collection, DocumentStore, Write
from infra.live import Live
from infra.settings.model import ShadowLimits
from infra.telemetry import Metrics
from security import audit
from security.policy import Role
from shadow.commands import (
    Channel,
    Command,
    Delete,
    Get,
    Origin,
    Update,
    parse_delete,
    parse_get,
    parse_update,
)
from shadow.decisions import Accepted, Outcome, Rejected, Shadow
from shadow.document import ShadowId, part
from shadow.records import LOGS, SHADOWS, body_of, index_of
from shadow.service import ShadowService
from shadow.store import ShadowStore
from shadow.wire import version_json
from tests.fakes import FakeClock, SeededIds
from tests.faulty_store import FaultyStore

HALL = ShadowId("hall")
LIMITS = ShadowLimits()
CACHE_BYTES_MAX = 10_000_000
DEVICE = Origin("hall", Role.DEVICE, Channel.MQTT)
ANNA = Origin("anna", Role.STAND_IN, Channel.HTTP, request_id="req-1")
SYSTEM = Origin("programs", Role.SYSTEM, Channel.SYSTEM)
COLLECTIONS: Sequence[Collection] = (SHADOWS,)
ALL_LOGS: Sequence[str] = (*LOGS, audit.LOG)


@dataclass
class Rig:
    """One service as a process would run it, with what it told its listener."""

    store: FaultyStore
    shadows: ShadowStore
    service: ShadowService
    clock: FakeClock
    limits: ShadowLimits
    live: Live
    heard: list[Outcome] = field(default_factory=list)

    async def submit(self, *commands: Command) -> list[Outcome]:
        return await self.service.submit(commands)

    async def one(self, command: Command) -> Outcome:
        (outcome,) = await self.service.submit([command])
        return outcome

    async def report(self, state: Any, id: ShadowId = HALL, **members: Any) -> Outcome:
        return await self.one(update({"reported": state}, id, limits=self.limits, **members))

    async def desire(self, state: Any, id: ShadowId = HALL, **members: Any) -> Outcome:
        return await self.one(update({"desired": state}, id, limits=self.limits, **members))

    async def stored(self, id: ShadowId = HALL) -> Shadow:
        """Return what the store holds, whatever is cached."""
        fresh = ShadowStore(self.store.inner, self.limits, CACHE_BYTES_MAX)
        return (await fresh.load([id]))[id].shadow

    def settle_all(self) -> None:
        """Say that the broker has everything it was told."""
        for outcome in self.heard:
            if isinstance(outcome, Accepted) and outcome.change is not None:
                self.service.settle(outcome.command.id, outcome.change.version)


def memory() -> MemoryStore:
    return MemoryStore(COLLECTIONS, ALL_LOGS)


@asynccontextmanager
async def rig(
    store: DocumentStore | None = None,
    *,
    limits: ShadowLimits = LIMITS,
    clock: FakeClock | None = None,
    cache_bytes_max: int = CACHE_BYTES_MAX,
) -> AsyncIterator[Rig]:
    """Run a service over ``store`` (memory if there is none) for as long as the block lasts."""
    made = make_rig(store, limits=limits, clock=clock, cache_bytes_max=cache_bytes_max)
    async with running(made.service):
        yield made


def make_rig(
    store: DocumentStore | None = None,
    *,
    limits: ShadowLimits = LIMITS,
    clock: FakeClock | None = None,
    cache_bytes_max: int = CACHE_BYTES_MAX,
) -> Rig:
    """Build a service that does not run yet."""
    documents = store if isinstance(store, FaultyStore) else FaultyStore(store or memory())
    clock, live = clock or FakeClock(), Live()
    shadows = ShadowStore(documents, limits, cache_bytes_max)
    service = ShadowService(shadows, clock, SeededIds(), limits, Metrics(), live)
    made = Rig(documents, shadows, service, clock, limits, live)
    service.listen(made.heard.extend)
    return made


@asynccontextmanager
async def running(service: ShadowService) -> AsyncIterator[None]:
    lane = asyncio.create_task(service.run(), name="lane")
    try:
        yield
    finally:
        lane.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await lane


def update(
    state: Any,
    id: ShadowId = HALL,
    origin: Origin = DEVICE,
    limits: ShadowLimits = LIMITS,
    key: str | None = None,
    **members: Any,
) -> Update:
    """Return the update that a body with this state asks for."""
    payload = msgspec.json.encode({"state": state, **members})
    return parse_update(payload, id, origin, limits, key)


def delete(
    id: ShadowId = HALL,
    origin: Origin = DEVICE,
    key: str | None = None,
    version: int | None = None,
    **members: Any,
) -> Delete:
    payload = msgspec.json.encode(members) if members else b""
    return parse_delete(payload, id, origin, LIMITS, version=version, idempotency_key=key)


def get(id: ShadowId = HALL, origin: Origin = DEVICE, **members: Any) -> Get:
    return parse_get(msgspec.json.encode(members) if members else b"", id, origin, LIMITS)


def accepted(outcome: Outcome) -> Accepted:
    assert isinstance(outcome, Accepted), outcome.error
    return outcome


def rejected(outcome: Outcome) -> Rejected:
    assert isinstance(outcome, Rejected), outcome
    return outcome


def shadow_from(document: Any) -> Shadow:
    """Return the shadow that shows as ``{"state", "metadata", "version", "timestamp"}``."""
    state, stamps = document["state"], document["metadata"]
    desired, reported = (part(state.get(name, {}), stamps.get(name, {})) for name in ("desired", "reported"))
    return Shadow(
        desired=desired,
        reported=reported,
        version=document["version"],
        at_ms=document["timestamp"] * 1_000,
        exists=True,
        json=version_json(desired, reported, document["version"]),
    )


def shown(shadow: Shadow) -> Any:
    """Return the contrary of :func:`shadow_from`; None when there is nothing to show."""
    if not shadow.exists:
        return None
    parts = {"desired": shadow.desired, "reported": shadow.reported}
    return {
        "state": {name: part.state for name, part in parts.items() if part.state},
        "metadata": {name: part.stamps for name, part in parts.items() if part.state},
        "version": shadow.version,
        "timestamp": shadow.timestamp,
    }


async def put(store: DocumentStore, id: ShadowId, shadow: Shadow) -> None:
    """Store a shadow that has no history."""
    write = Write(SHADOWS.name, id.key, 0, body_of(shadow), index_of(id, shadow))
    assert not await store.commit([write])
