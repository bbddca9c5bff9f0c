"""``gnomon demo``: a demo utility, its simulated fleet, and customers with wishes.

The city is registered once; a later run finds it in the store and continues there. Devices connect over
mutual TLS like any device; their certificates and keys lie below ``var/demo`` because both ends are ours.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import structs
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fleet.connection import Certificates, Endpoint
from fleet.flash_file import pack, unpack
from fleet.keyring import read_roots
from fleet.makes import MAKES
from fleet.plan import Plan, city
from fleet.provisioning import with_scenes
from fleet.simulation import Simulation
from fleet.statistics import Histogram, Statistics
from gnomon import demo_crew, demo_devices, demo_firmware
from gnomon.demo_city import DEMO, devices, settle_in, write_labels
from gnomon.roles import System, interruptible, running, stop_signal, tasks, welcome
from gnomon.services import Services
from infra.settings import Settings
from security import private_files
from shadow.commands import Channel, Origin, update
from shadow.document import ShadowId

WISH_EVERY_S: Final = 1.0
STATUS_EVERY_S: Final = 1.0
PLAIN_STATUS_EVERY_S: Final = 5.0
"""Where the output is no terminal: a line now and then instead of a live table."""
LINE_RATE_TENTHS_MAX: Final = 100.0
"""From there on tenths of updates a second only make the line long."""
STOP_FLEET_S_MAX: Final = 1.0
SOAK_S_MAX: Final = 10
"""So long a wave of a firmware campaign is watched here: nobody waits a quarter of an hour at a terminal."""
NOT_FOUND: Final = 404
HEAT_C_MIN, HEAT_C_MAX = 18.0, 23.0
HEAT_STEP_C: Final = 0.5


async def run(settings: Settings, *, homes: int, seed: int) -> None:
    """Run the service and the fleet until SIGINT or SIGTERM."""
    ota = structs.replace(settings.ota, soak_s=min(settings.ota.soak_s, SOAK_S_MAX))
    settings = structs.replace(settings, people=structs.replace(settings.people, demo=True), ota=ota)
    with interruptible():
        async with running(settings) as system:
            await _demonstrate(system, with_scenes(city(homes, seed)), seed)


async def _demonstrate(system: System, plan: Plan, seed: int) -> None:
    console, services = Console(), system.services
    certificates = services.settings.directory / "demo" / "certificates"
    await settle_in(services, plan, certificates)
    await demo_devices.know(services, plan)
    labels, firmware, flashes = (
        services.settings.directory / "demo" / name for name in ("labels", "firmware", "flashes")
    )
    write_labels(plan, labels)
    await demo_firmware.provide(services, firmware, MAKES)
    simulation = Simulation(
        plan,
        endpoint=Endpoint("localhost", system.broker.device_port),
        identities=Certificates(certificates).identity,
        clock=services.clock,
        seed=seed,
        roots=read_roots(certificates / "ca.crt"),
        flashes=unpack(flashes.read_bytes() if flashes.exists() else b""),
    )
    console.print(welcome(system), soft_wrap=True, highlight=False)
    console.print(_describe(plan), highlight=False)
    console.print(f"calls        somebody is about to call: {labels}", soft_wrap=True, highlight=False)
    console.print(
        f"firmware     there is new firmware for the city: {firmware}", soft_wrap=True, highlight=False
    )
    async with tasks(
        _wish(services, plan, random.Random(seed)),  # noqa: S311 - simulated customers
        _show(console, system, simulation.statistics),
        demo_crew.work(services, simulation, certificates),
    ):
        try:
            await _live(simulation)
        finally:
            private_files.replace(flashes, pack(simulation.flashes))


async def _live(simulation: Simulation) -> None:
    """Run the fleet until a signal; then let it say goodbye, but not for long."""
    async with asyncio.TaskGroup() as group:
        fleet = group.create_task(simulation.run(), name="fleet")
        await stop_signal()
        simulation.stop()
        await asyncio.wait({fleet}, timeout=STOP_FLEET_S_MAX)
        fleet.cancel()


def _describe(plan: Plan) -> str:
    gateways = sum(len(home.gateways) for home in plan.homes)
    inside = sum(len(home.devices) for home in plan.homes)
    certificates = gateways + sum(device.has_certificate for device in devices(plan))
    return (
        f"city         {len(plan.homes)} homes, {gateways} gateways, {inside} devices; "
        f"{certificates} connect by themselves"
    )


# ---------------------------------------------------------------------------- customers


async def _wish(services: Services, plan: Plan, chance: random.Random) -> None:
    """Have customers change their thermostats, one every so often, until cancelled."""
    thermostats = [device.name for device in devices(plan) if device.kind == "thermostat"]
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
