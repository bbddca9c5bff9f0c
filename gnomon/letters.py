"""``gnomon dead-letters``: what was kept aside, for eyes and scripts."""

from collections.abc import Callable

import msgspec

from broker_bridge.deadletters import DEAD_LETTERS, DeadLetters
from gnomon.services import store_file, store_url
from infra.clock import SystemClock
from infra.documents.opening import open_store
from infra.settings import Settings
from infra.telemetry import Metrics


async def show(settings: Settings, write: Callable[[str], None]) -> None:
    """Write each dead letter as a line of JSON, oldest first."""
    file = store_file(settings)
    if file is not None and not file.exists():
        return
    store = await open_store(store_url(settings), [], [DEAD_LETTERS])
    try:
        async for letter in DeadLetters(store, SystemClock(), Metrics()).all():
            write(msgspec.json.encode(letter).decode())
    finally:
        await store.close()
