"""Ask a service for as much as it is told, and measure from the moment it was meant to.

Open loop: arrivals are planned beforehand (``rate`` a second, at random moments) and latency counts from
the planned moment, so that a stall shows in full. Closed loop: each connection keeps ``window`` requests
open, as fast as answers come. A request is repeated, the same bytes, until it is answered; whatever is
unanswered at the end is *maybe*.

It shares the machine with what it measures: bodies come from templates, an accepted is known by its
topic and a few bytes of its token, and everything that happens in one turn of the loop leaves in one write.

    python -m fleet.load --certificates var/fleet --connections 200 --rate 2000 --seconds 20
"""

import argparse
import asyncio
import random
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import uvloop

from fleet.connection import OPENING_MAX, Certificates, Connection, Endpoint, Identity, plain_identity
from fleet.figures import Figures, print_line, run_and_print
from fleet.history import History
from fleet.shapes import SHAPES, Mode
from fleet.worker import Order, Run, Worker
from infra.clock import Clock, SystemClock
from infra.ids import RandomIds

RUN_BITS: Final = 40  # of chance in a run's name, which begins every token
LOOK_S: Final = 0.5  # how often overdue answers are looked for
PACE_S: Final = 0.001  # the shortest sleep: what falls due meanwhile leaves together
BURST_MAX: Final = 256  # offers before answers have their turn again
CONNECT_S_MAX: Final = 120.0


class NotConnectedError(Exception):
    """Not every connection came up; the text says how many did and what went wrong with the others."""


class Load:
    """Many workers on one order. ``run`` once; the figures may be read at any time."""

    def __init__(
        self,
        order: Order,
        things: Sequence[str],
        *,
        endpoint: Endpoint,
        identities: Callable[[str], Identity],
        clock: Clock,
        run_id: str,
        history: History | None = None,
    ) -> None:
        self._run = run = Run(order, run_id, clock, history)
        self.statistics = run.statistics
        self.asked_s = self._cpu_s = 0.0
        self._accepted_in_time = 0
        self._endpoint, self._identities = endpoint, identities
        self._stopping = asyncio.Event()
        self._connections: list[Connection] = []
        self._workers = [Worker(thing, number, run) for number, thing in enumerate(things)]

    @property
    def unanswered(self) -> int:
        """Return how many requests are open or planned."""
        return sum(len(worker.pending) + len(worker.backlog) for worker in self._workers)

    async def run(self) -> None:
        """Connect all, ask for the time ordered, wait for what is open, say goodbye."""
        door = asyncio.Semaphore(OPENING_MAX)
        async with asyncio.TaskGroup() as tasks:
            for worker in self._workers:
                connection = worker.connection = self._connection(worker, door)
                self._connections.append(connection)
                tasks.create_task(connection.run(), name=f"load {worker.source[2]}")
            try:
                await self._all_connected()
                sweeping = tasks.create_task(self._sweep(), name="load sweep")
                await self._ask_for_a_while()
                await self._drain()
                sweeping.cancel()
            finally:
                self._end()

    def stop(self) -> None:
        """Ask no more; ``run`` returns when what is open is answered or given up."""
        self._stopping.set()

    def summary(self) -> dict[str, Any]:
        """Return all figures for a line of JSON."""
        rate = self._accepted_in_time / self.asked_s if self.asked_s else 0.0
        return {
            "run": self._run.id,
            "connections": len(self._workers),
            "asked_s": round(self.asked_s, 3),
            "accepted_per_s": round(rate, 1),
            "unanswered": self.unanswered,
            "unknown": self._run.unknown,
            "shed": self._run.shed,
            "cpu_s": round(self._cpu_s, 3),
            **self.statistics.summary(),
        }

    async def _all_connected(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                while self.statistics.connected < len(self._workers):
                    if await self._rest(PACE_S * 20):
                        return
        except TimeoutError as error:
            raise NotConnectedError(
                f"{self.statistics.connected} of {len(self._workers)} connected in {CONNECT_S_MAX:.0f} s: "
                f"check address and certificates; errors {dict(self.statistics.errors)}"
            ) from error

    async def _ask_for_a_while(self) -> None:
        started_at, cpu_s = self._run.clock.elapsed_s(), _cpu_s()
        self._run.is_asking = True
        if self._run.order.rate is None:
            for worker in self._workers:
                worker.refill()
            await self._rest(self._run.order.seconds)
        else:
            await self._offer_as_planned(started_at, self._run.order.rate)
        self._run.is_asking = False
        self.asked_s = self._run.clock.elapsed_s() - started_at
        self._cpu_s = _cpu_s() - cpu_s
        self._accepted_in_time = self.statistics.accepted

    async def _offer_as_planned(self, started_at: float, rate: float) -> None:
        for turn, planned_s in enumerate(arrivals(rate, self._run.order.seconds, self._run.chance)):
            planned_at = started_at + planned_s
            while (wait_s := planned_at - self._run.clock.elapsed_s()) > 0:
                if await self._rest(max(wait_s, PACE_S)):
                    return
            if turn % BURST_MAX == 0:
                await asyncio.sleep(0)
            self._workers[turn % len(self._workers)].offer(planned_at)

    async def _drain(self) -> None:
        deadline = self._run.clock.elapsed_s() + self._run.order.drain_s
        while self.unanswered and self._run.clock.elapsed_s() < deadline:  # noqa: ASYNC110 - no event per answer
            await asyncio.sleep(PACE_S * 10)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._run.clock.elapsed_s()
            for worker in self._workers:
                worker.repeat_overdue(now)
            if self._run.history is not None:
                self._run.history.flush()

    async def _rest(self, seconds: float) -> bool:
        """Sleep; True if the load was stopped meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _end(self) -> None:
        for worker in self._workers:
            worker.give_up()
        for connection in self._connections:
            connection.stop()
        if self._run.history is not None:
            self._run.history.flush()

    def _connection(self, worker: Worker, door: asyncio.Semaphore) -> Connection:
        return Connection(
            self._endpoint,
            self._identities(worker.source[2]),
            worker,
            door=door,
            chance=self._run.chance,
            errors=self.statistics.errors,
        )


def _cpu_s() -> float:
    """Return what this process has used so far: to be taken off what the machine did for the service."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def arrivals(rate: float, seconds: float, chance: random.Random) -> Iterator[float]:
    """Yield the planned moments of an open loop: random and independent, as those of many people are."""
    at = chance.expovariate(rate)
    while at < seconds:
        yield at
        at += chance.expovariate(rate)


def _figures(load: Load, every_s: float) -> Figures:
    accepted = 0

    def figures() -> dict[str, Any]:
        nonlocal accepted
        before, accepted = accepted, load.statistics.accepted
        rate = {"accepted_per_s": round((accepted - before) / every_s, 1)}
        return rate | load.statistics.summary() | {"unanswered": load.unanswered}

    return figures


async def _run(load: Load, every_s: float) -> None:
    await run_and_print(load.run(), load.stop, _figures(load, every_s), every_s)
    print_line(load.summary() | {"final": True})


def main() -> None:
    """Read the command line and load."""
    parser = _parser()
    options = parser.parse_args()
    clock = SystemClock()
    order = Order(
        seconds=options.seconds,
        rate=options.rate,
        window=options.window,
        mode=Mode(options.mode),
        shape=options.shape,
        shadow=options.shadow,
        is_sequenced=options.sequence,
        seed=options.seed,
        drain_s=options.drain,
    )
    things = [options.things % number for number in range(options.first, options.first + options.connections)]
    with History(options.history, clock) if options.history else nullcontext() as history:
        load = Load(
            order,
            things,
            endpoint=Endpoint(options.host, options.port),
            identities=_identities(parser, options),
            clock=clock,
            run_id=RandomIds().token(RUN_BITS),
            history=history,
        )
        uvloop.run(_run(load, options.every))


def _identities(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Callable[[str], Identity]:
    if options.plain:
        return plain_identity
    if options.certificates is None:
        parser.error("give --certificates DIRECTORY, or --plain for a test listener")
    return Certificates(options.certificates, options.ca).identity


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet.load", description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8883)
    add(
        "--certificates",
        type=Path,
        help="directory with ca.crt and, for each thing, <thing>.crt, <thing>.key",
    )
    add("--ca", type=Path, help="the broker's CA, if it is not ca.crt in that directory")
    add("--plain", action="store_true", help="no TLS, the thing's name as user: test listeners only")
    add("--things", default="load-%05d", help="names of the things, by number (default load-%%05d)")
    add("--first", type=int, default=0, help="number of the first thing")
    add("--connections", type=int, default=100)
    add("--rate", type=float, help="requests a second over all connections; without it: closed loop")
    add("--window", type=int, default=8, help="unanswered requests per connection; a thing may have 10")
    add("--seconds", type=float, default=10.0)
    add("--drain", type=float, default=30.0, help="seconds to wait for answers at the end")
    add("--mode", choices=[mode.value for mode in Mode], default=Mode.REPORTED.value)
    add("--shape", choices=sorted(SHAPES), default="thermostat")
    add("--shadow", default="", help="a named shadow; without it the classic one")
    add("--sequence", action="store_true", help="reports carry {epoch, number}")
    add("--seed", type=int, default=0)
    add("--every", type=float, default=1.0, help="seconds between lines")
    add("--history", type=Path, help="file to append one line a step to, for the crash checker")
    return parser


if __name__ == "__main__":
    main()
