r"""Thousands of devices that take new firmware at once, in one process, as a load.

Each is the whole state machine of `firmware`, with its own flash, its own signatures checked and its own
image read back; only equal blocks are held once. It connects with its own certificate, waits for a job,
loads, restarts (a new connection), and is done when the service has accepted its success.

    python -m fleet.upgrades --certificates var/fleet --things 'load-%05d' --count 10000 \
        --keys keys.json --model norland-t1-wifi --seconds 600

A line of JSON each second: how many are connected, in which state, done and failed; the last line is marked
final and holds the seconds that each device took.
"""

import argparse
import asyncio
import gc
import heapq
import itertools
import math
import random
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import uvloop

from fleet.boot import FileStatus
from fleet.connection import OPENING_MAX, Certificates, Connection, Endpoint, Identity, plain_identity
from fleet.figures import print_line, run_and_print
from fleet.firmware import CONFIG, FIRMWARE, Setting
from fleet.hardware import RESTART_S, Computer, Hardware, new_hardware
from fleet.jobs import JobAnswer, StreamAnswer, own_firmware_filters, parse_any
from fleet.keys import read_keys
from fleet.makes import MAKES, Make
from fleet.statistics import Histogram
from fleet.topics import Answer, own_route, request_topic
from fleet.trees import Tree
from infra.clock import MS_PER_S, Clock, SystemClock
from ota.verification import Keys

LOOK_S: Final = 0.1  # how often devices are looked at that asked to be woken
TICKS_MAX: Final = 500  # before messages have their turn again
WRITES_MAX: Final = 160  # of a device in one upgrade: a power cut comes at one of them
TOPICS_MAX: Final = 4_096  # endings of topics that are kept parsed
ENDED: Final = frozenset({FileStatus.ACTIVATED, FileStatus.ACTIVATION_FAILED})


class Station:
    """One device: its computer, its connection, and what it knows of its own time."""

    __slots__ = (
        "_fleet",
        "_prefix",
        "_settings",
        "_state",
        "computer",
        "connection",
        "done",
        "identity",
        "route",
        "started_at",
        "wakes_at",
    )

    def __init__(self, name: str, number: int, fleet: "Upgrades", identity: Identity) -> None:
        self._fleet = fleet
        self._prefix = len(f"$aws/things/{name}/")
        self._settings: Tree = {}
        self._state = FileStatus.NONE
        self.identity = identity
        self.route = own_route(name)
        self.connection: Connection | None = None
        self.started_at: float | None = None
        self.done = False
        self.wakes_at = math.inf
        hardware = fleet.hardware(number)
        self.computer = Computer(name, hardware, self, fleet.chance)
        self.computer.switch_on(fleet.now())
        fleet.states[FileStatus.NONE] += 1

    # -- for the machine --------------------------------------------------------

    def config(self) -> Tree:
        return self._settings

    def load(self, config: Tree) -> None:
        self._settings = config

    def may_restart(self) -> bool:
        return True

    # -- for the connection -----------------------------------------------------

    def connected(self) -> None:
        assert self.connection is not None
        self._fleet.connected += 1
        self._fleet.connects += 1
        self.connection.subscribe(_filters(self.identity.name))
        now = self._fleet.now()
        self.computer.connected(now, self.route)
        self._look(now)

    def disconnected(self) -> None:
        self._fleet.connected -= 1
        self.computer.disconnected()

    def message(self, topic: str, payload: bytes) -> None:
        answer = _parsed(topic[self._prefix :])
        if answer is None or self.computer.is_dark:
            return
        now = self._fleet.now()
        self.computer.take(now, answer, payload)
        self._look(now)

    def send(self, topic: str, payload: bytes) -> None:
        """Hand a message to the connection, if there is one."""
        if self.connection is not None:
            self.connection.publish(topic, payload)

    # -- for the fleet ----------------------------------------------------------

    def wake(self, now: float) -> None:
        """Do what is due."""
        if self.computer.is_dark:
            if self.computer.switch_on(now):
                self._fleet.connect(self)
        else:
            self.computer.tick(now)
        self._look(now)

    def _look(self, now: float) -> None:
        """Send what is due, note how far it is, and ask to be woken."""
        if self.computer.is_dark:
            self._fleet.disconnect(self)
        else:
            for topic, payload in self.computer.due(now):
                self.send(topic, payload)
            self._note(now)
        self._fleet.wake(self, self.computer.wake_at())

    def _note(self, now: float) -> None:
        firmware, fleet = self.computer.firmware, self._fleet
        if firmware.state is not self._state:
            fleet.states[self._state] -= 1
            self._state = firmware.state
            fleet.states[self._state] += 1
            if self._state is FileStatus.LOADING:
                self.started_at, self.done = now, False
        if self.started_at is not None and not self.done and self._state in ENDED and firmware.settled:
            self.done = True
            fleet.ended(self._state, firmware.reason, now - self.started_at)


class Upgrades:
    """All of them. ``run`` until so many are done, time is up, or ``stop``."""

    def __init__(
        self,
        things: Sequence[str],
        make: Make,
        *,
        endpoint: Endpoint,
        identities: Callable[[str], Identity],
        keys: Keys,
        clock: Clock,
        seed: int = 0,
        restart_s: float = RESTART_S,
        power_cuts: float = 0.0,
    ) -> None:
        self.chance = random.Random(seed)
        self.connected = self.connects = self.succeeded = 0
        self.states: Counter[FileStatus] = Counter()
        self.reasons: Counter[str] = Counter()
        self.seconds = Histogram()
        self.errors: Counter[str] = Counter()
        self._endpoint, self._clock, self._make = endpoint, clock, make
        self._restart_s, self._power_cuts, self._seed = restart_s, power_cuts, seed
        epoch = clock.now_ms() // MS_PER_S
        self._setting = Setting(keys=keys, epoch=epoch, pool={}, sparing=True)
        self._waiting: list[tuple[float, int, Station]] = []
        self._order = itertools.count()
        self._stopping = asyncio.Event()
        self._door = asyncio.Semaphore(OPENING_MAX)
        self._tasks = asyncio.TaskGroup()
        self.stations = [self.station(name, n, identities(name)) for n, name in enumerate(things)]

    async def run(self, seconds: float) -> None:
        """Connect all and let them take what is offered, until every one is done or time is up."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for station in self.stations:
                self.connect(station)
            gc.collect()
            gc.freeze()  # the devices stay: looking through them again and again costs more than it finds
            tasks.create_task(self._let_time_pass(), name="upgrades time")
            try:
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            except TimeoutError:
                self._stopping.set()
            for station in self.stations:
                self.disconnect(station)

    def stop(self) -> None:
        """Say goodbye everywhere and let ``run`` return."""
        self._stopping.set()

    def summary(self) -> dict[str, Any]:
        """Return all figures for a line of JSON."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "devices": len(self.stations),
            "connected": self.connected,
            "connects": self.connects,
            "states": {state.name.lower(): count for state, count in sorted(self.states.items()) if count},
            "succeeded": self.succeeded,
            "failed": dict(sorted(self.reasons.items())),
            "power_cuts": sum(station.computer.power_cuts for station in self.stations),
            "seconds": self.seconds.summary(),
            "errors": dict(sorted(self.errors.items())),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        }

    # -- for the stations -------------------------------------------------------

    def now(self) -> float:
        """Return seconds since 1970."""
        return self._clock.now_ms() / MS_PER_S

    def station(self, name: str, number: int, identity: Identity) -> Station:
        """Return a new device."""
        return Station(name, number, self, identity)

    def hardware(self, number: int) -> Hardware:
        """Return new hardware; a share of it loses its power once."""
        chance = random.Random(f"{self._seed}/{number}") if self._power_cuts else self.chance
        cut_at = chance.randint(1, WRITES_MAX) if chance.random() < self._power_cuts else None
        return new_hardware(self._make, self._setting, chance, restart_s=self._restart_s, cut_at=cut_at)

    def ended(self, state: FileStatus, reason: str, seconds: float) -> None:
        """Count a device that is done."""
        self.seconds.add(seconds)
        if state is FileStatus.ACTIVATED:
            self.succeeded += 1
        else:
            self.reasons[reason] += 1
        # One that failed may have been tried again since.
        if self.seconds.count >= len(self.stations) and all(station.done for station in self.stations):
            self.stop()

    def connect(self, station: Station) -> None:
        """Open a connection for a device that has none."""
        if self._stopping.is_set() or station.connection is not None:
            return
        station.connection = Connection(
            self._endpoint,
            station.identity,
            station,
            door=self._door,
            chance=self.chance,
            errors=self.errors,
        )
        self._tasks.create_task(station.connection.run(), name=f"upgrade {station.identity.name}")

    def disconnect(self, station: Station) -> None:
        """End a device's connection."""
        if station.connection is not None:
            station.connection.stop()
            station.connection = None

    def wake(self, station: Station, at: float) -> None:
        """Wake a device then, unless it is woken before anyway."""
        if at < station.wakes_at:
            station.wakes_at = at
            heapq.heappush(self._waiting, (at, next(self._order), station))

    async def _let_time_pass(self) -> None:
        while not self._stopping.is_set():
            now = self.now()
            for _ in range(TICKS_MAX):
                if not self._waiting or self._waiting[0][0] > now:
                    break
                at, _, station = heapq.heappop(self._waiting)
                if station.wakes_at == at:  # otherwise it was woken before
                    station.wakes_at = math.inf
                    station.wake(now)
            is_behind = bool(self._waiting) and self._waiting[0][0] <= now
            await asyncio.sleep(0 if is_behind else LOOK_S)


@lru_cache(maxsize=TOPICS_MAX)
def _parsed(ending: str) -> Answer | JobAnswer | StreamAnswer | None:
    """Read the end of a topic: it is the same for all devices, and no device looks at its own name in it."""
    return parse_any(f"$aws/things/-/{ending}")


def _filters(thing: str) -> tuple[str, ...]:
    route = own_route(thing)
    reports = (request_topic(route, shadow, "update") for shadow in (FIRMWARE, CONFIG))
    answers = (f"{topic}/{outcome}" for topic in reports for outcome in ("accepted", "rejected"))
    return (*answers, *own_firmware_filters(thing))


def _allow_many_files() -> None:
    """Each connection is a descriptor: use as many as the system lets us."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Read the command line and upgrade."""
    parser = argparse.ArgumentParser(prog="fleet.upgrades", description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8883)
    add("--things", default="load-%05d", help="names of the things, by number (default load-%%05d)")
    add("--first", type=int, default=0, help="number of the first thing")
    add("--count", type=int, default=100)
    add("--model", choices=sorted(MAKES), default="norland-t1-wifi")
    add("--keys", type=Path, required=True, help="JSON: whose signatures the devices believe")
    add("--seconds", type=float, default=600.0, help="the longest run")
    add("--restart", type=float, default=RESTART_S, help="seconds that a device is dark when it restarts")
    add("--power-cuts", type=float, default=0.0, help="share of devices that lose their power at some write")
    add("--seed", type=int, default=0)
    add("--every", type=float, default=1.0, help="seconds between lines")
    add("--ca", type=Path, help="the broker's CA, if it is not ca.crt in the directory of certificates")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--certificates", type=Path, help="directory with ca.crt, <thing>.crt, <thing>.key")
    group.add_argument("--plain", action="store_true", help="no TLS, the name as user: test listeners only")
    options = parser.parse_args()
    _allow_many_files()
    identities = plain_identity if options.plain else Certificates(options.certificates, options.ca).identity
    things = [options.things % number for number in range(options.first, options.first + options.count)]

    async def run() -> None:
        upgrades = Upgrades(
            things,
            MAKES[options.model],
            endpoint=Endpoint(options.host, options.port),
            identities=identities,
            keys=read_keys(options.keys),
            clock=SystemClock(),
            seed=options.seed,
            restart_s=options.restart,
            power_cuts=options.power_cuts,
        )
        await run_and_print(upgrades.run(options.seconds), upgrades.stop, upgrades.summary, options.every)
        print_line(upgrades.summary() | {"final": True})

    uvloop.run(run())


if __name__ == "__main__":
    main()
