"""What a campaign costs the service beside its devices: looking, planning, stopping.

    python -m bench.campaigns [--devices 10000]

Services as in one process over SQLite, without devices, broker and network; what devices do is done in
the lane. The cost of a tick is CPU of this process.
"""

import argparse
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from bench.report import emit, say, scratch
from gnomon.roles import COLLECTOR_THRESHOLDS
from infra.documents.opening import open_store
from infra.logs import configure
from infra.settings import LogSettings
from infra.settings.model import OtaSettings
from ota.campaign import Wave
from ota.states import ExecutionState, ExecutionTrigger
from tests.campaign_rig import ANN, KEPT, KEPT_LOGS, OTTO, World, name, world

TICKS = 10
X = ExecutionTrigger


@contextmanager
def measured(figure: str, devices: int, n: int = 1) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    emit(f"campaigns.{figure}", wall / n * 1e3, "ms", n, cpu_ms=round(cpu / n * 1e3, 1), devices=devices)


async def run(directory: Path, devices: int) -> None:
    store = await open_store(f"sqlite:{directory}/gnomon.db", KEPT, KEPT_LOGS)
    settings = OtaSettings(devices_per_hour_max=1_000_000, in_flight_max=20_000)
    async with world(directory, settings=settings, inner=store) as one:
        say(f"registering {devices:,} devices")
        names = [name(number) for number in range(devices)]
        for first in range(0, devices, 1_000):
            await one.add(names[first : first + 1_000])
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        await measure(one, names)
    await store.close()


async def measure(one: World, names: list[str]) -> None:
    campaigns, tick, devices = one.ota.campaigns, one.processes[0].tick, len(names)
    terms = campaigns.terms(
        release=one.release, waves=(Wave(percent=100),), per_hour=1_000_000, max_in_flight=20_000, soak_s=0
    )
    draft = await campaigns.create(terms, ANN)
    with measured("dry_run", devices):
        await campaigns.dry_run(draft.id, ANN)
    with measured("submit", devices):
        await campaigns.submit(draft.id, ANN)
    await campaigns.approve(draft.id, OTTO)
    with measured("targets_made", devices):
        await tick()
    with measured("offers", devices, devices):
        while ExecutionState.PLANNED in (await one.states(draft.id)).values():
            for _ in range(TICKS):
                await tick()
                one.clock.advance(1)
    await one.step(draft.id, names, X.START)
    await tick()
    with measured("tick_with_nothing_new", devices, TICKS):
        for _ in range(TICKS):
            await tick()
    with measured("tick_with_something_new", devices, TICKS):
        for number in range(TICKS):
            await one.step(draft.id, names[number : number + 1], X.LOADED)
            await tick()
    one.clock.advance(61)
    with measured("tick_that_counts_all", devices):
        await tick()
    await campaigns.abort(draft.id, "it melts", ANN)
    with measured("abort", devices):
        await tick()
    assert set((await one.states(draft.id)).values()) == {ExecutionState.CANCELED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    asked = parser.parse_args()
    configure(LogSettings(level="error"))
    with scratch() as directory:
        uvloop.run(run(Path(directory), asked.devices))


if __name__ == "__main__":
    main()
