"""Bring a plan to life: its things connect over real MQTT and speak for those that cannot.

    Plan ──► Device per thing ──► Post per certificate (a connection and whom it carries)

A device without IP is carried by its gateways, the preferred one first; when that
one is away, the next takes over. Every device is the state machine of `device`;
here are only sockets, time and who carries whom.

    python -m fleet.simulation --homes 60 --seed 7 --port 8883 --certificates var/fleet
"""

import argparse
import asyncio
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import uvloop
from cryptography import x509

from fleet.appliances import (
    Appliance,
    BroadbandGateway,
    Display,
    LoadSwitch,
    MeterGateway,
    Thermostat,
)
from fleet.connection import OPENING_MAX, Certificates, Connection, Endpoint, Identity, Will, plain_identity
from fleet.device import Device, GoDark, Output, Subscribe, Surroundings
from fleet.figures import run_and_print
from fleet.firmware import Setting
from fleet.flash_file import Kept
from fleet.hardware import Hardware, new_hardware
from fleet.jobs import parse_any
from fleet.makes import MAKES
from fleet.network import Network
from fleet.physics import DAY_S, Climate
from fleet.plan import Boxed, DeviceKind, GatewayPlan, Home, Plan, city
from fleet.program import Programs
from fleet.statistics import Statistics
from fleet.topics import Route, own_route, relayed_route
from infra.clock import MS_PER_S, Clock, SystemClock
from ota.verification import Keys

LOOK_S: Final = 0.25  # how often devices are looked at that asked to be woken
TICKS_MAX: Final = 200  # before messages have their turn again
NO_KEYS: Final[Keys] = MappingProxyType({})  # nothing is installed
NO_FLASHES: Final[Mapping[str, Kept]] = MappingProxyType({})

Identities = Callable[[str, Will], Identity]  # the credentials of a thing, by its name


def choose(current: Route | None, routes: Iterable[Route], is_up: Callable[[Route], bool]) -> Route | None:
    """Return the route to speak by: one's own if up, else the present one, else the first that is up."""
    up = [route for route in routes if is_up(route)]
    if up and up[0].gateway is None:
        return up[0]
    if current in up:
        return current
    return up[0] if up else None


class Carried:
    """A device and the routes by which it may be reached, the preferred one first."""

    __slots__ = ("device", "routes")

    def __init__(self, device: Device, routes: tuple[Route, ...]) -> None:
        self.device = device
        self.routes = routes

    def prefer(self, is_active: Callable[[Route], bool]) -> None:
        """Put the routes that the service prefers before the others; one's own stays the first."""
        self.routes = tuple(
            sorted(self.routes, key=lambda one: one.gateway is not None and not is_active(one))
        )


class Post:
    """What one certificate carries: its own thing, and for a gateway those attached to it."""

    __slots__ = ("_city", "carried", "connection", "is_up", "name")

    def __init__(self, name: str, city: "Simulation") -> None:
        self.name = name
        self._city = city
        self.carried: dict[str, Carried] = {}
        self.connection: Connection | None = None
        self.is_up = False

    def connected(self) -> None:
        self.is_up = True
        self._city.moved(self, 1)

    def disconnected(self) -> None:
        self.is_up = False
        self._city.moved(self, -1)

    def message(self, topic: str, payload: bytes) -> None:
        answer = parse_any(topic)
        carried = self.carried.get(answer.thing) if answer is not None else None
        if answer is None or carried is None:
            self._city.statistics.errors["message for nobody"] += 1
            return
        self._city.send(carried.device, carried.device.take(self._city.now(), answer, payload))
        self._city.heard(carried.device)


class Simulation:
    """A city in one asyncio process. ``run`` until ``stop``; ``statistics`` may be read at any time."""

    def __init__(
        self,
        plan: Plan,
        *,
        endpoint: Endpoint,
        identities: Identities,
        clock: Clock,
        seed: int,
        speed: float = 1.0,
        statistics: Statistics | None = None,
        keys: Keys = NO_KEYS,
        roots: Sequence[x509.Certificate] = (),
        flashes: Mapping[str, Kept] = NO_FLASHES,
    ) -> None:
        """``roots``: those that vouch for key lists; ``keys``: without any, whose signatures are believed.

        ``flashes``: those of an earlier city; who has none is new from the factory.
        """
        self.statistics = statistics or Statistics()
        self._endpoint, self._identities, self._clock, self._seed = endpoint, identities, clock, seed
        seconds = clock.now_ms() // MS_PER_S
        self._surroundings = Surroundings(
            self.statistics,
            epoch=seconds,
            started_at=clock.elapsed_s(),
            day_s=seconds % DAY_S,
            speed=speed,
            since_s=clock.now_ms() / MS_PER_S,
        )
        self._firmware = Setting(keys=keys, roots=roots, epoch=seconds, pool={})
        self._flashes = dict(flashes)
        self._lost: set[str] = set()  # connections of things that are dark
        self._climate = Climate(weather_phase=self._chance("weather").uniform(0, 6))
        self._posts: dict[str, Post] = {}
        self._carried: dict[str, Carried] = {}
        self._waiting: list[tuple[float, int, Device]] = []
        self._wakes_at: dict[str, float] = {}
        self._order = itertools.count()  # devices cannot be compared
        self._stopping = asyncio.Event()
        self._door = asyncio.Semaphore(OPENING_MAX)
        self._tasks = asyncio.TaskGroup()  # of the run
        for home in plan.homes:
            self._move_in(home)

    @property
    def devices(self) -> Mapping[str, Device]:
        """Return every thing of the city by name."""
        return {name: carried.device for name, carried in self._carried.items()}

    @property
    def flashes(self) -> Mapping[str, Kept]:
        """Return what survives a power cut, by the names of the things."""
        return self._flashes

    async def run(self) -> None:
        """Connect everything and keep it alive; returns after ``stop``, once all have said goodbye."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._let_time_pass(), name="fleet time")
            for post in self._posts.values():
                post.connection = self._connection(post, self._door)
                tasks.create_task(post.connection.run(), name=f"fleet {post.name}")

    def stop(self) -> None:
        """Say goodbye everywhere and let ``run`` return."""
        self._stopping.set()
        for post in self._posts.values():
            if post.connection is not None:
                post.connection.stop()

    def install(self, home: Home, plan: GatewayPlan) -> None:
        """Bring a further gateway to life in a home while the city runs: a new meter, or a bridge."""
        if plan.name in self._carried or self._stopping.is_set():
            return
        box = self._box(plan, lambda: self._loads_behind(plan.name))
        gateway = self._device(plan.name, plan.model, box, self._network(plan, home.boxed, 0))
        self._settle(gateway, (own_route(gateway.name),))
        self._wake(gateway, self.now())
        self.find(plan.name)

    def cut(self, name: str) -> None:
        """Break the connection of a thing with a certificate, as a power cut would; it comes back."""
        connection = self._posts[name].connection
        if connection is not None:
            connection.break_off()

    def lose(self, name: str) -> None:
        """Let a thing with a certificate be away until it is found again."""
        connection = self._posts[name].connection
        if connection is not None:
            connection.stop()

    def find(self, name: str) -> None:
        """Let a thing connect that is new here, or was lost."""
        post = self._posts[name]
        post.connection = self._connection(post, self._door)
        self._tasks.create_task(post.connection.run(), name=f"fleet {name}")

    # -- for the posts --------------------------------------------------------

    def now(self) -> float:
        """Return the fleet's elapsed time."""
        return self._clock.elapsed_s()

    def moved(self, post: Post, change: int) -> None:
        """Find a route again for everything that this post carries, now that it came or went."""
        self.statistics.connected += change
        self.statistics.connects += change > 0
        for carried in post.carried.values():
            self._reroute(carried)

    def send(self, device: Device, outputs: Iterable[Output]) -> None:
        """Hand a device's outputs to the connection it speaks by."""
        for output in outputs:
            if isinstance(output, GoDark):
                self._go_dark(device)
                return
            assert device.route is not None, "a device says nothing while it is out of reach"
            connection = self._post(device.route, device.name).connection
            assert connection is not None
            if isinstance(output, Subscribe):
                connection.subscribe(output.filters)
            elif not connection.publish(output.topic, output.payload):
                self.statistics.errors["not handed over"] += 1  # repeated when its answer is overdue

    # -- inside ---------------------------------------------------------------

    def _reroute(self, carried: Carried, *, renew: bool = False) -> None:
        """Speak by the best route that is up; ``renew``: the present one is no reason to stay."""
        device = carried.device
        current = None if renew else device.route
        routes = () if device.is_dark or self._stopping.is_set() else carried.routes
        route = choose(current, routes, lambda one: self._post(one, device.name).is_up)
        if route == device.route:
            return
        device.disconnected()
        if route is not None:
            self.send(device, device.connected(self.now(), route))

    def _go_dark(self, device: Device) -> None:
        """Let a device be down until it asked to be woken: its own connection ends as well."""
        device.disconnected()
        if device.name in self._posts:
            self._lost.add(device.name)
            self.lose(device.name)
        self._wake(device, device.wake_at())

    def _switch_on(self, device: Device) -> None:
        """Let a device start again, and connect again."""
        if not device.switch_on(self.now()):
            return
        if device.name in self._lost:
            self._lost.discard(device.name)
            self.find(device.name)
        self._reroute(self._carried[device.name])

    def _post(self, route: Route, thing: str) -> Post:
        return self._posts[route.gateway or thing]

    def heard(self, device: Device) -> None:
        """Wake a device sooner, if it now has to do something sooner."""
        self._wake(device, device.wake_at())

    def _wake(self, device: Device, at: float) -> None:
        if at < self._wakes_at.get(device.name, math.inf):
            self._wakes_at[device.name] = at
            heapq.heappush(self._waiting, (at, next(self._order), device))

    async def _let_time_pass(self) -> None:
        """Wake each device when it asked to be."""
        spread = self._chance("spread")
        for carried in self._carried.values():
            self._wake(carried.device, self.now() + spread.uniform(0, 10))
        while not self._stopping.is_set():
            now = self.now()
            for _ in range(TICKS_MAX):
                if not self._waiting or self._waiting[0][0] > now:
                    break
                at, _, device = heapq.heappop(self._waiting)
                if self._wakes_at.get(device.name) == at:  # otherwise it was woken sooner
                    del self._wakes_at[device.name]
                    if device.is_dark:
                        self._switch_on(device)
                    else:
                        self.send(device, device.tick(now))
                    self._wake(device, max(device.wake_at(), now + LOOK_S))
            is_behind = bool(self._waiting) and self._waiting[0][0] <= now
            await asyncio.sleep(0 if is_behind else LOOK_S)

    # -- moving in ------------------------------------------------------------

    def _move_in(self, home: Home) -> None:
        devices = [
            self._device(plan.name, plan.model, self._appliance(plan.name, plan.kind))
            for plan in home.devices
        ]
        attached = Counter(name for plan in home.devices for name in plan.gateways)
        for gateway_plan in home.gateways:  # first: a gateway subscribes before those it carries speak
            box = self._box(gateway_plan, lambda: sum(one.appliance.power_w() for one in devices))
            network = self._network(gateway_plan, home.boxed, attached[gateway_plan.name])
            gateway = self._device(gateway_plan.name, gateway_plan.model, box, network)
            self._settle(gateway, (own_route(gateway.name),))
        for device_plan, device in zip(home.devices, devices, strict=True):
            own = (own_route(device.name),) if device_plan.has_certificate else ()
            relayed = tuple(relayed_route(one, device.name) for one in device_plan.gateways)
            self._settle(device, own + relayed)

    def _settle(self, device: Device, routes: tuple[Route, ...]) -> None:
        carried = self._carried[device.name] = Carried(device, routes)
        for route in routes:
            name = route.gateway or device.name
            post = self._posts.setdefault(name, Post(name, self))
            post.carried[device.name] = carried

    def _network(self, plan: GatewayPlan, boxed: tuple[Boxed, ...], attached: int) -> Network:
        inside = {one.eui64: one for one in boxed}
        return Network(
            boxed,
            moved=lambda thing, eui64, on: self._attached(plan.name, thing, inside.get(eui64), on=on),
            attached=attached,
            technology=plan.technology,
        )

    def _attached(self, gateway: str, thing: str, boxed: Boxed | None, *, on: bool) -> None:
        """Have a gateway speak for a thing from now on, or no longer."""
        route = relayed_route(gateway, thing)
        if thing not in self._carried:
            if not on or boxed is None or boxed.kind is None:
                return
            programs = Programs(boxed.behaviour)
            appliance = self._appliance(thing, boxed.kind)
            self._settle(self._device(thing, boxed.model, appliance, programs=programs), ())
            self._wake(self._carried[thing].device, self.now())
        carried = self._carried[thing]
        others = tuple(one for one in carried.routes if one != route)
        carried.routes = (*others, route) if on else others
        if on:
            self._posts[gateway].carried[thing] = carried
        else:
            self._posts[gateway].carried.pop(thing, None)
        carried.prefer(lambda one: self._is_active(one, thing))
        self._reroute(carried, renew=True)

    def _is_active(self, route: Route, thing: str) -> bool:
        network = self._carried[route.gateway].device.network if route.gateway in self._carried else None
        return network is not None and network.active(thing)

    def _device(
        self,
        name: str,
        model: str,
        appliance: Appliance,
        network: Network | None = None,
        programs: Programs | None = None,
    ) -> Device:
        chance = self._chance(f"{name} jitter")
        return Device(
            name, appliance, self._surroundings, chance, network, programs, self._hardware(name, model)
        )

    def _hardware(self, name: str, model: str) -> Hardware | None:
        """Return what a device's firmware runs on; None for a model that takes no new one."""
        make = MAKES.get(model)
        if make is None:
            return None
        hardware = new_hardware(make, self._firmware, self._chance(f"{name} flash"))
        kept = self._flashes.get(name)
        if kept is not None and kept.model == model:
            return replace(hardware, flash=kept.flash)
        self._flashes[name] = Kept(model, hardware.flash)
        return hardware

    def _appliance(self, name: str, kind: DeviceKind) -> Appliance:
        chance = self._chance(name)
        match kind:
            case "thermostat":
                return Thermostat(chance, self._climate)
            case "load_switch":
                return LoadSwitch(chance)
            case "display":
                return Display(chance)

    def _loads_behind(self, gateway: str) -> float:
        carried = self._posts[gateway].carried.values()
        return sum(one.device.appliance.power_w() for one in carried if not one.device.is_gateway)

    def _box(self, plan: GatewayPlan, loads: Callable[[], float]) -> Appliance:
        chance = self._chance(plan.name)
        match plan.kind:
            case "meter":
                return MeterGateway(chance, loads)
            case "customer_broadband" | "bridge":
                return BroadbandGateway(chance)

    def _connection(self, post: Post, door: asyncio.Semaphore) -> Connection:
        will = self._carried[post.name].device.will()
        return Connection(
            self._endpoint,
            self._identities(post.name, Will(will.topic, will.payload)),
            post,
            door=door,
            chance=self._chance(f"{post.name} connection"),
            errors=self.statistics.errors,
        )

    def _chance(self, what: str) -> random.Random:
        return random.Random(f"{self._seed}/{what}")


def main() -> None:
    """Read the command line and simulate."""
    parser = argparse.ArgumentParser(
        prog="fleet.simulation", description="A simulated city on a real broker."
    )
    parser.add_argument("--homes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8883)
    parser.add_argument("--speed", type=float, default=1.0, help="how much faster than time houses warm")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between lines of counts")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--certificates", type=Path, help="directory with ca.crt, <thing>.crt, <thing>.key")
    group.add_argument("--plain", action="store_true", help="no TLS, the name as user: test listeners only")
    options = parser.parse_args()
    identities = plain_identity if options.plain else Certificates(options.certificates).identity
    simulation = Simulation(
        city(options.homes, options.seed),
        endpoint=Endpoint(options.host, options.port),
        identities=identities,
        clock=SystemClock(),
        seed=options.seed,
        speed=options.speed,
    )
    statistics = simulation.statistics
    uvloop.run(run_and_print(simulation.run(), simulation.stop, statistics.summary, options.every))


if __name__ == "__main__":
    main()
