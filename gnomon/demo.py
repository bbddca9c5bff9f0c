"""``gnomon demo``: a demo utility, its simulated fleet, and customers with wishes.

The city is registered once; a later run finds it in the store and continues there. Devices connect over
mutual TLS like any device; their certificates and keys lie below ``var/demo`` because both ends are ours.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec import structs
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fleet.connection import Certificates, Endpoint
from fleet.plan import DevicePlan, Plan, city
from fleet.simulation import Simulation
from fleet.statistics import Histogram, Statistics
from gnomon import demo_people
from gnomon.roles import System, interruptible, running, stop_signal, tasks, welcome
from gnomon.services import Services
from infra.settings import Settings
from registry.errors import PremisesNotFoundError
from registry.models import NewThing, Owner, ThingKind
from security import private_files
from security.audit import INSIDE
from security.policy import Principal, Role
from security.trust import keys
from shadow.commands import Channel, Origin, update
from shadow.document import ShadowId

DEMO: Final = Principal("demo", Role.OPERATOR)
WISH_EVERY_S: Final = 1.0
STATUS_EVERY_S: Final = 1.0
PLAIN_STATUS_EVERY_S: Final = 5.0
"""Where the output is no terminal: a line now and then instead of a live table."""
LINE_RATE_TENTHS_MAX: Final = 100.0
"""From there on tenths of updates a second only make the line long."""
STOP_FLEET_S_MAX: Final = 1.0
NOT_FOUND: Final = 404
HEAT_C_MIN, HEAT_C_MAX = 18.0, 23.0
HEAT_STEP_C: Final = 0.5
ENROLLED_AT_ONCE: Final = 32
"""Their records share commits, which is what takes the time."""


async def run(settings: Settings, *, homes: int, seed: int) -> None:
    """Run the service and the fleet until SIGINT or SIGTERM."""
    settings = structs.replace(settings, people=structs.replace(settings.people, demo=True))
    with interruptible():
        async with running(settings) as system:
            await _demonstrate(system, city(homes, seed), seed)


async def _demonstrate(system: System, plan: Plan, seed: int) -> None:
    console, services = Console(), system.services
    certificates = services.settings.directory / "demo" / "certificates"
    await _settle_in(services, plan, certificates)
    simulation = Simulation(
        plan,
        endpoint=Endpoint("localhost", system.broker.device_port),
        identities=Certificates(certificates).identity,
        clock=services.clock,
        seed=seed,
    )
    console.print(welcome(system), soft_wrap=True, highlight=False)
    console.print(_describe(plan), highlight=False)
    async with tasks(
        _wish(services, plan, random.Random(seed)),  # noqa: S311 - simulated customers
        _show(console, system, simulation.statistics),
    ):
        await _live(simulation)


async def _live(simulation: Simulation) -> None:
    """Run the fleet until a signal; then let it say goodbye, but not for long."""
    async with asyncio.TaskGroup() as group:
        fleet = group.create_task(simulation.run(), name="fleet")
        await stop_signal()
        simulation.stop()
        await asyncio.wait({fleet}, timeout=STOP_FLEET_S_MAX)
        fleet.cancel()


# ---------------------------------------------------------------------------- the city


async def _settle_in(services: Services, plan: Plan, directory: Path) -> None:
    """Register whatever is not registered yet, and give each thing with a certificate its files."""
    trusted = _trust(services, directory)
    for one in plan.homes:
        await _make_known(services, one.premises)
    things = list(_things(plan))
    known = await services.registry.standings([thing.name for thing in things])
    for thing in things:
        if thing.name not in known:
            await services.registry.register(thing, DEMO)
    bare = [
        thing.name
        for thing in things
        if thing.has_certificate and not (trusted and (directory / f"{thing.name}.key").exists())
    ]
    for first in range(0, len(bare), ENROLLED_AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for name in bare[first : first + ENROLLED_AT_ONCE]:
                group.create_task(_enrol(services, name, directory), name=f"enrol {name}")
    home = plan.homes[0].premises
    if (await services.registry.place(home)).account != demo_people.ACCOUNT:
        await services.registry.hand_over(home, demo_people.ACCOUNT, DEMO)
    for device in _devices(plan):
        attached = known[device.name].gateways if device.name in known else frozenset()
        for gateway in device.gateways:
            if gateway not in attached:
                await services.registry.attach(gateway, device.name, DEMO)


async def _make_known(services: Services, premises: str) -> None:
    """Put premises there, as a customer care system does before anything is registered; nobody's as yet."""
    try:
        await services.registry.premises(premises)
    except PremisesNotFoundError:
        await services.registry.hand_over(premises, "", DEMO)


def _things(plan: Plan) -> Iterator[NewThing]:
    for home in plan.homes:
        for gateway in home.gateways:
            yield NewThing(gateway.name, ThingKind.GATEWAY, gateway.model, home.premises, owner=Owner.UTILITY)
        for device in home.devices:
            yield NewThing(device.name, ThingKind.DEVICE, device.model, home.premises, device.has_certificate)


def _devices(plan: Plan) -> Iterator[DevicePlan]:
    for home in plan.homes:
        yield from home.devices


def _trust(services: Services, directory: Path) -> bool:
    """Write down the root that all trust; False when it is another one, so that no certificate holds."""
    private_files.make_directory(directory)
    file, root = directory / "ca.crt", services.authority.root_pem
    same = file.exists() and file.read_bytes() == root
    if not same:
        for key in directory.glob("*.key"):
            key.unlink()
        private_files.replace(file, root)
    return same


async def _enrol(services: Services, name: str, directory: Path) -> None:
    """Have a simulated thing make its key; it is we who answer for it, so no code is needed."""
    key = keys.make_key()
    issued = await services.trust.enrolment.certify(name, keys.request(key, name), DEMO, INSIDE)
    private_files.replace(directory / f"{name}.crt", issued.chain_pem)
    # The key last: where there is one, there is a certificate to it.
    private_files.replace(directory / f"{name}.key", keys.key_pem(key))


def _describe(plan: Plan) -> str:
    gateways = sum(len(home.gateways) for home in plan.homes)
    devices = sum(len(home.devices) for home in plan.homes)
    certificates = gateways + sum(device.has_certificate for device in _devices(plan))
    return (
        f"city         {len(plan.homes)} homes, {gateways} gateways, {devices} devices; "
        f"{certificates} connect by themselves"
    )


# ---------------------------------------------------------------------------- customers


async def _wish(services: Services, plan: Plan, chance: random.Random) -> None:
    """Have customers change their thermostats, one every so often, until cancelled."""
    thermostats = [device.name for device in _devices(plan) if device.kind == "thermostat"]
    origin = Origin(DEMO.name, DEMO.role, Channel.HTTP)
    steps = round((HEAT_C_MAX - HEAT_C_MIN) / HEAT_STEP_C)
    while thermostats:
        await asyncio.sleep(WISH_EVERY_S)
        wish = {"desired": {"heat_c": HEAT_C_MIN + HEAT_STEP_C * chance.randint(0, steps)}}
        command = update(
            ShadowId(chance.choice(thermostats)),
            origin,
            wish,
            services.settings.limits,
            None,
            msgspec.json.encode(wish),
        )
        await services.shadows.submit([command])


# ---------------------------------------------------------------------------- the status


@dataclass(frozen=True, slots=True)
class _Glance:
    """The counts at one moment."""

    at_s: float
    updates: int
    accepted: Histogram
    done: Histogram


@dataclass(frozen=True, slots=True)
class _Figures:
    """What is shown: durations and rate are those since the last time."""

    connected: int
    rate: float
    updates: int
    done: Histogram
    accepted: Histogram
    waiting: int
    errors: int

    def line(self) -> str:
        """Return them as a line of a terminal that is 80 wide."""
        rate = f"{self.rate:.1f}" if self.rate < LINE_RATE_TENTHS_MAX else f"{self.rate:.0f}"
        accepted, done = _shares(self.accepted, 0), _shares(self.done, 0)
        return (
            f"things {self.connected}  updates/s {rate}  accepted {accepted}  done {done}"
            f"  errors {self.errors}"
        )

    def table(self) -> Table:
        """Return them for a live view."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, value in (
            ("connected", f"{self.connected}"),
            ("updates/s", f"{self.rate:.1f}"),
            ("updates", f"{self.updates}"),
            ("wish → done p50/p99", _shares(self.done, 1)),
            ("update → accepted p50/p99", _shares(self.accepted, 1)),
            ("requests waiting", f"{self.waiting}"),
            ("errors", f"{self.errors}"),
            ("", "Ctrl-C stops"),
        ):
            table.add_row(name, value)
        return table


async def _show(console: Console, system: System, fleet: Statistics) -> None:
    """Show the fleet's figures until cancelled: a live table, or a line now and then."""
    before = _glance(system, fleet)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(STATUS_EVERY_S)
                now = _glance(system, fleet)
                live.update(_figures(system, fleet, before, now).table(), refresh=True)
                before = now
    console.print("figures      accepted, done (wish → done): p50/p99 since the last line", highlight=False)
    while True:
        await asyncio.sleep(PLAIN_STATUS_EVERY_S)
        now = _glance(system, fleet)
        console.print(_figures(system, fleet, before, now).line(), highlight=False)
        before = now


def _glance(system: System, fleet: Statistics) -> _Glance:
    services = system.services
    return _Glance(
        services.clock.elapsed_s(),
        services.metrics.accepted.value,
        fleet.latency.copy(),
        fleet.convergence.copy(),
    )


def _figures(system: System, fleet: Statistics, before: _Glance, now: _Glance) -> _Figures:
    # A new thing asks before anything was said: 404 is an answer to that, not a fault.
    refused = sum(count for code, count in fleet.rejected.items() if code != NOT_FOUND)
    return _Figures(
        connected=fleet.connected,
        rate=(now.updates - before.updates) / (now.at_s - before.at_s),
        updates=now.updates,
        done=now.done.since(before.done),
        accepted=now.accepted.since(before.accepted),
        waiting=len(system.bridge.inbox),
        errors=refused + sum(fleet.errors.values()),
    )


def _shares(durations: Histogram, digits: int) -> str:
    """Return median and tail in milliseconds."""
    if not durations.count:
        return "-"
    return "/".join(f"{durations.at_share(share) * 1_000:.{digits}f}" for share in (0.50, 0.99)) + " ms"
