"""The API on a free port, in a thread with a loop of its own: for clients that block."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from click.testing import Result

from api.server import listen, serve
from gnomon import demo_people
from infra.telemetry import Metrics
from security.policy import Role
from tests.api.rig import Rig, api
from tests.fakes import FakeClock

PATIENCE_S = 30
Run = Callable[..., Result]
"""Runs a command line; ``typed`` is what somebody types, ``ok`` whether it ends well."""


@dataclass(frozen=True, slots=True)
class Served:
    """Where it is, the token that opens it, and its time."""

    url: str
    token: str
    clock: FakeClock


@contextmanager
def served(
    directory: Path,
    *,
    compat_http: bool = False,
    role: Role = Role.CUSTOMER,
    things: tuple[str, ...] = (),
    demo: bool = False,
    clock: FakeClock | None = None,
    prepare: Callable[[Rig], Awaitable[None]] | None = None,
) -> Iterator[Served]:
    """Serve for as long as the block lasts; ``demo`` makes an account for each role.

    ``prepare`` is what is done in it before anybody comes.
    """
    ready: list[tuple[Served, asyncio.AbstractEventLoop, asyncio.Event]] = []
    begun = threading.Event()

    async def run() -> None:
        try:
            async with api(
                directory, url="memory:", compat_http=compat_http, things=things, clock=clock
            ) as rig:
                for thing in things:
                    await _seed(rig, thing)
                if prepare is not None:
                    await prepare(rig)
                listener, stop = listen("127.0.0.1", 0), asyncio.Event()
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                if demo:
                    await demo_people.provide(rig.services, url)
                ready.append((Served(url, f"token-{role}", rig.clock), asyncio.get_running_loop(), stop))
                begun.set()
                await serve(replace(rig.services, metrics=Metrics()), listener, stop)
        finally:
            begun.set()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="served api")
    thread.start()
    assert begun.wait(PATIENCE_S)
    ((where, loop, stop),) = ready
    try:
        yield where
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


async def _seed(rig: Rig, thing: str) -> None:
    shadow = f"/v1/things/{thing}/shadows/@classic"
    for number in range(3):
        await rig.desire({"set": number}, shadow)
    assert msgspec.json.decode((await rig.http.get(shadow)).content)["version"] == 3
