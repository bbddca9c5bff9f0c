"""Does an update cost the same among a million shadows as among a thousand?

    python -m bench.growth [--sizes 1000 10000 100000 1000000] [--seconds 8] [--cache-mb 64]

The bridge without its sockets: messages go through registry, parsing, decision, durable commit (SQLite,
``synchronous=FULL``) and speaker; the broker is a stand-in that takes everything. Each size has a store
of its own, filled in bulk with what the services would have written. Things are drawn evenly, so that
beyond the cache nearly every update reads its document and its thing first. Memory is what the process
holds, with the cache bounded.
"""

import argparse
import asyncio
import gc
import random
import time
from pathlib import Path

import uvloop

from bench.bridge import rss_mb
from bench.names import NAME
from bench.report import emit, say, scratch
from bench.served import BENCH, WISH
from broker_bridge.deadletters import DEAD_LETTERS, DeadLetters
from broker_bridge.inbox import Message
from broker_bridge.poison import Suspects
from broker_bridge.role import Bridge
from broker_bridge.topics import Operation, Request
from gnomon.services import Services, open_services
from infra.clock import SystemClock
from infra.documents.port import Entry, Write
from infra.ids import RandomIds
from infra.settings import load
from registry import rules
from registry import store as registry_store
from registry.models import NewThing, ThingKind
from registry.rules import THINGS_PER_PREMISES_MAX
from registry.store import THINGS
from shadow.commands import Channel, Origin, update
from shadow.decisions import NEVER_MADE, Circumstances, carry_out
from shadow.document import ShadowId
from shadow.records import HISTORY, SHADOWS, body_of, index_of

BATCH = 256
WARM_UP_S = 3.0
FILL_CHUNK = 1_000
BODY = (
    b'{"state":{"reported":{"temperature_c":21.%d,"humidity_pct":40,"hvac":"heating","power_w":%d,'
    b'"mode":"heat"}},"clientToken":"6f1c0a52-2d0b-4f0e-9d2c-%012d"}'
)


class TakesEverything:
    """The session's side, with a broker that has each message at once."""

    def __init__(self, handler: Bridge) -> None:
        self._handler = handler

    def publish(self, topic: str, payload: bytes, expiry_s: int, mark: object | None = None) -> bool:
        if mark is not None:
            self._handler.settled(mark)
        return True

    def acknowledge(self, packet_id: int, connection: int) -> None: ...
    def flush(self) -> None: ...
    async def drained(self) -> None: ...


def bridge_of(services: Services, directory: Path) -> Bridge:
    return Bridge(
        open_session=TakesEverything,  # type: ignore[arg-type]  # as much of a session as is used
        remember_session=lambda: None,
        shadows=services.shadows,
        registry=services.registry,
        jobs=services.ota.jobs,
        streams=services.ota.streams,
        dead_letters=DeadLetters(services.store, services.clock, services.metrics),
        refusals=services.refusals,
        suspects=Suspects(directory / "bridge", 3),
        job_suspects=Suspects(directory / "jobs", 3),
        clock=services.clock,
        metrics=services.metrics,
        journeys=services.journeys,
        ids=services.ids,
        limits=services.settings.limits,
        settings=services.settings.bridge,
    )


async def measure(size: int, seconds: float, cache_mb: int, directory: Path) -> None:
    settings = load(
        environ={},
        overrides={"directory": str(directory), "bridge.cache_bytes_max": str(cache_mb * 1_048_576)},
    )
    async with open_services(settings, SystemClock(), RandomIds(), logs=[DEAD_LETTERS]) as services:
        bridge = bridge_of(services, directory)
        work = [
            asyncio.create_task(services.shadows.run()),
            asyncio.create_task(services.shadows.sweep()),
            asyncio.create_task(bridge._speaker.run()),
        ]
        began = time.monotonic()
        await bridge.connected(session_present=True)
        await fill(services, size)
        say(f"growth: {size:,} things and shadows stored in {time.monotonic() - began:.0f} s")
        chance = random.Random(size)
        await drive(bridge, size, WARM_UP_S, chance)
        gc.collect()
        n, cpu = await drive(bridge, size, seconds, chance)
        how = {"stored_shadows": size, "cache_mb": cache_mb}
        emit("growth.cpu_us_per_update", cpu / n * 1e6, "us", n, **how)
        emit("growth.memory", rss_mb(os_pid()), "MB", 1, **how)
        for one in work:
            one.cancel()


async def fill(services: Services, size: int) -> None:
    """Store things with their shadows: the same bytes as one by one, in large commits."""
    now_ms, limits = services.clock.now_ms(), services.settings.limits
    origin = Origin(BENCH.name, BENCH.role, Channel.HTTP)
    for first in range(0, size, FILL_CHUNK):
        writes = []
        for number in range(first, min(size, first + FILL_CHUNK)):
            name = NAME % number
            home = f"pr-{number // THINGS_PER_PREMISES_MAX}"
            new = NewThing(name, ThingKind.DEVICE, "bench", home)
            record = rules.register(None, new, now_ms, there=number % THINGS_PER_PREMISES_MAX)
            index = {"premises": home, "kind": "device"}
            writes.append(Write(THINGS, name, 0, registry_store._encode(record), index))
            id = ShadowId(name)
            wish = update(id, origin, WISH, limits, None, b"")
            outcome, shadow = carry_out(NEVER_MADE, wish, Circumstances(now_ms, limits))
            assert outcome.change is not None
            row = Entry(HISTORY, id.key, 1, now_ms, outcome.change.row)
            shadow = shadow.swept()
            writes.append(Write(SHADOWS.name, id.key, 0, body_of(shadow), index_of(id, shadow), [row]))
        assert not await services.store.commit(writes)


async def drive(bridge: Bridge, size: int, seconds: float, chance: random.Random) -> tuple[int, float]:
    """Send updates for a while; return how many, and the CPU seconds of the process."""
    n, until, cpu = 0, time.monotonic() + seconds, time.process_time()
    while time.monotonic() < until:
        batch = []
        for _ in range(BATCH):
            n += 1
            request = Request(Operation.UPDATE, ShadowId(NAME % chance.randrange(size)))
            batch.append(Message(request, BODY % (n % 100, n % 2_000, n), 1, 1, False))
        await bridge._dispatcher.serve(batch)
    return n, time.process_time() - cpu


def os_pid() -> int:
    return int(Path("/proc/self").resolve().name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--cache-mb", type=int, default=64)
    options = parser.parse_args()
    for size in options.sizes:
        with scratch() as folder:
            uvloop.run(measure(size, options.seconds, options.cache_mb, Path(folder) / "var"))


if __name__ == "__main__":
    main()
