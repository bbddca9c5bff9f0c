"""Coming back costs what was left unsaid, however many shadows rest beside it (spec: shadow, 7.3)."""

from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.documents.opening import open_store
from infra.documents.port import Document, DocumentStore, Page
from infra.live import Live
from infra.settings.model import ShadowLimits
from infra.telemetry import Metrics
from security import audit
from security.policy import Role
from shadow.commands import Channel, Origin, parse_update
from shadow.document import ShadowId
from shadow.records import LOGS, SHADOWS
from shadow.service import ShadowService
from shadow.store import ShadowStore
from tests.fakes import FakeClock, SeededIds
from tests.shadow_rig import running

IDLE, PENDING = 5_000, 7
BATCH = 500
LIMITS = ShadowLimits()
CACHE_BYTES_MAX = 1_000_000


class Counting:
    """The store, and how many documents were read from it."""

    def __init__(self, inner: DocumentStore) -> None:
        self._inner = inner
        self.read_ids: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def get(self, collection: str, ids: Collection[str]) -> dict[str, Document]:
        found = await self._inner.get(collection, ids)
        self.read_ids += found
        return found

    async def find(self, *where: Any, **how: Any) -> Page:
        page = await self._inner.find(*where, **how)
        self.read_ids += [document.id for document in page.documents]
        return page


def service_over(store: Any) -> ShadowService:
    shadows = ShadowStore(store, LIMITS, CACHE_BYTES_MAX)
    return ShadowService(shadows, FakeClock(), SeededIds(), LIMITS, Metrics(), Live())


@pytest.fixture
async def filled(tmp_path: Path) -> AsyncIterator[DocumentStore]:
    """A store with many shadows at rest, and some whose last version nobody was told."""
    store = await open_store(f"sqlite:{tmp_path / 'gnomon.db'}", [SHADOWS], [*LOGS, audit.LOG])
    before = service_over(store)
    async with running(before):
        for first in range(0, IDLE, BATCH):
            await _report(before, [f"idle-{number}" for number in range(first, first + BATCH)])
        for number in range(IDLE):
            before.settle(ShadowId(f"idle-{number}"), 1)
        # Sweeping leaves alone what was written a moment ago.
        before._clock.advance(LIMITS.outbox_sweep_s + 1)  # type: ignore[attr-defined] # it is a FakeClock
        await before.sweep_once()
        await _report(before, [f"pending-{number}" for number in range(PENDING)])
    yield store
    await store.close()


async def test_recovery_reads_only_the_shadows_with_something_unsent(filled: DocumentStore):
    counting = Counting(filled)
    after = service_over(counting)
    async with running(after):
        unsent, cursor = await after.unsent(None)
    assert cursor is None
    assert sorted(outcome.command.id.thing for outcome in unsent) == [f"pending-{n}" for n in range(PENDING)]
    assert {id.partition("/")[0] for id in counting.read_ids} == {f"pending-{n}" for n in range(PENDING)}


async def _report(service: ShadowService, things: Sequence[str]) -> None:
    updates = [
        parse_update(
            b'{"state": {"reported": {"n": 1}}}',
            ShadowId(thing),
            Origin(thing, Role.DEVICE, Channel.MQTT),
            LIMITS,
        )
        for thing in things
    ]
    await service.submit(updates)
