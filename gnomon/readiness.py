"""Whether this process can do its work now: the store takes writes, the broker echoes.

Liveness says only that the loop turns; readiness is asked for by whoever sends traffic.
(spec: reliability, rule 3.7)
"""

import asyncio
from typing import Final, Protocol

from broker_bridge.link import LinkError
from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, StoreUnavailableError, Write

PROBE_EVERY_S: Final = 2.0
FIRST_PROBES_EVERY_S: Final = 0.05
PROBE_TIMEOUT_S: Final = 2.0
FRESH_S: Final = 5.0
"""How old the last good answer may be."""
PROBES: Final = Collection("probes")
_PROBE_ID: Final = "readiness"


class Broker(Protocol):
    """The session's side."""

    async def echo(self) -> None:
        """Return when the broker has answered; raise :class:`LinkError` when it cannot."""
        ...


class Readiness:
    """Probes store and broker in the background, so that asking costs nothing."""

    def __init__(self, store: DocumentStore, broker: Broker, clock: Clock) -> None:
        self._store = store
        self._broker = broker
        self._clock = clock
        self._store_wrote_s = float("-inf")
        self._broker_echoed_s = float("-inf")
        self._probed = asyncio.Event()

    async def run(self) -> None:
        """Probe until cancelled: often until all is well for the first time, then now and then."""
        while True:
            async with asyncio.TaskGroup() as probes:
                probes.create_task(self._probe_store(), name="readiness store probe")
                probes.create_task(self._probe_broker(), name="readiness broker probe")
            self._probed.set()
            await asyncio.sleep(FIRST_PROBES_EVERY_S if await self.reasons() else PROBE_EVERY_S)

    async def changed(self) -> None:
        """Return after the next probe."""
        self._probed.clear()
        await self._probed.wait()

    async def reasons(self) -> tuple[str, ...]:
        """Return why the process cannot do its work now; nothing when it can."""
        now_s = self._clock.elapsed_s()
        reasons = []
        if now_s - self._store_wrote_s > FRESH_S:
            reasons.append(f"the store took no write within {FRESH_S:.0f} s")
        if now_s - self._broker_echoed_s > FRESH_S:
            reasons.append(f"the broker did not answer within {FRESH_S:.0f} s")
        return tuple(reasons)

    async def _probe_store(self) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                found = (await self._store.get(PROBES.name, [_PROBE_ID])).get(_PROBE_ID)
                revision = found.revision if found else 0
                await self._store.commit([Write(PROBES.name, _PROBE_ID, revision, b"")])
        except (StoreUnavailableError, TimeoutError):
            return  # a broken store is another matter: it ends the process
        self._store_wrote_s = self._clock.elapsed_s()

    async def _probe_broker(self) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._broker.echo()
        except (LinkError, TimeoutError):
            return
        self._broker_echoed_s = self._clock.elapsed_s()
