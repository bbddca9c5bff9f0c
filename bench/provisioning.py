"""How long each step of a provisioning session takes while 500 customers are on the telephone at once.

    python -m bench.provisioning [--sessions 500] [--alone 10]

Service, bridge, SQLite with ``synchronous=FULL``, programs, outbox and the embedded customer care system are
real, in one process, beside the broker, as in production. The homes are the simulated fleet in a process of
its own, each with a gateway that is connected by mutual TLS, and one thermostat that is chosen. Each step is
timed from the act of the representative to what they wait for. The equipment takes its own time in it: a
thermostat comes into sight after 0.2 s, a proof takes 0.3 s, being activated and ready 0.7 s. First a few
sessions at once, to have something to compare with, then all.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path

import uvloop

from bench.report import ROOT, emit, say, scratch
from fleet.connection import Certificates, Endpoint
from fleet.figures import run_and_print
from fleet.plan import Plan
from fleet.provisioning import THERMOSTAT, Scene, recognised
from fleet.simulation import Simulation
from gnomon import demo_city
from gnomon.roles import running
from gnomon.services import Services
from infra import logs
from infra.clock import SystemClock
from infra.settings import load
from provisioning.care import CareAccount, CareCustomer
from provisioning.care_embedded import EmbeddedCare
from provisioning.states import DeviceState
from registry.accounts import Account
from security.policy import Principal, Role
from tests.telephone import OPERATOR, Call

FIRST_HOME = 1_000
"""Beyond the homes of the demo's customers."""
PROGRAM = "tou-res"
CONNECTED_S_MAX = 120.0
STEP_S_MAX = 600.0
STEPS = ("open", "first_device", "proved", "select", "programs", "ready", "delivered", "all")

Taken = dict[str, list[float]]


def scenes(homes: int) -> list[Scene]:
    """Return the homes: with the thermostat alone, so that a session is one device."""
    made = [recognised(FIRST_HOME + number) for number in range(homes)]
    return [replace(one, home=replace(one.home, boxed=one.home.boxed[:1])) for one in made]


async def measure(directory: Path, sessions: int, alone: int) -> None:
    settings = load(
        environ={},
        overrides={
            "directory": str(directory),
            "api.port": "0",
            "api.device_port": "0",
            "broker.device_port": "0",
            "logs.level": "warning",
        },
    )
    logs.configure(settings.logs)
    homes, certificates = scenes(sessions + alone), directory / "certificates"
    async with running(settings) as system:
        services = system.services
        say(f"{len(homes)} homes move in")
        customers = [customer(scene) for scene in homes]
        await settle_in(services, homes, customers, certificates)
        fleet = subprocess.Popen(
            [
                *(sys.executable, "-m", "bench.provisioning", "--fleet", str(certificates)),
                *("--homes", str(len(homes)), "--port", str(system.broker.device_port)),
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        try:
            await connected(services, homes)
            for first, count in ((0, alone), (alone, sessions)):
                say(f"{count} sessions at once")
                calls = [
                    Call(services, homes[n], customers[n], Principal(f"rep-{n}", Role.REP), STEP_S_MAX)
                    for n in range(first, first + count)
                ]
                await at_once(calls)
        finally:
            fleet.terminate()
            fleet.wait(30)


def customer(scene: Scene) -> CareCustomer:
    premises = scene.home.premises
    number = premises.removeprefix("pr-")
    account = CareAccount(
        f"acc-{number}", f"99-{number}", PROGRAM, "active", premises, f"{number} Fictitious Street"
    )
    return CareCustomer(
        f"cust-{number}", f"Sample Person {number}", "en", "", f"c{number}@example.com", (account,)
    )


async def settle_in(
    services: Services, homes: Sequence[Scene], customers: Sequence[CareCustomer], certificates: Path
) -> None:
    """Register everything, with the certificate of each gateway; the care system knows the customers."""
    assert isinstance(services.care, EmbeddedCare)
    await services.care.put(customers)
    await demo_city.settle_in(services, Plan(tuple(scene.home for scene in homes)), certificates)
    for one in customers:
        (account,) = one.accounts
        await services.registry.hand_over(account.premises, account.id, OPERATOR)
        await services.accounts.put(Account(id=account.id, customer=one.ref, tariff=account.tariff), OPERATOR)


async def connected(services: Services, homes: Sequence[Scene]) -> None:
    """Wait until all gateways are here and have said how their network is."""
    names = [gateway.name for scene in homes for gateway in scene.home.gateways]
    async with asyncio.timeout(CONNECTED_S_MAX):
        while not all(map(services.presence.is_here, names)):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.5)
    await asyncio.sleep(5)


async def at_once(calls: Sequence[Call]) -> None:
    """Carry out the scenario in all of them together; emit how long each step took."""
    taken: Taken = defaultdict(list)
    began = time.perf_counter()
    await asyncio.gather(*(session(call, taken) for call in calls))
    elapsed, n = time.perf_counter() - began, len(calls)
    for step in STEPS:
        values = sorted(taken[step])
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            emit(f"provisioning.{step}_{name}", values[int(len(values) * share)] * 1e3, "ms", n, sessions=n)
    emit("provisioning.sessions_per_s", n / elapsed, "1/s", n, sessions=n)


async def session(call: Call, taken: Taken) -> None:
    device = call.scene.eui64s[THERMOSTAT]
    began = time.perf_counter()

    async def timed(step: str, *parts: Awaitable[object]) -> None:
        start = time.perf_counter()
        for part in parts:
            await part
        taken[step].append(time.perf_counter() - start)

    await timed("open", call.open())
    start = time.perf_counter()
    await call.discover(THERMOSTAT)
    await call.until(lambda one: device in one.devices)
    taken["first_device"].append(time.perf_counter() - start)
    await timed("proved", call.until(lambda one: one.devices[device].state is DeviceState.AUTH_OK))
    await call.stop()
    await timed("select", call.select([THERMOSTAT]))
    await timed("programs", call.choose({THERMOSTAT: PROGRAM}))
    await timed("ready", call.provision(), call.recorded())
    await timed("delivered", call.delivered())
    taken["all"].append(time.perf_counter() - began)


async def fleet(homes: int, port: int, certificates: Path) -> None:
    """Bring the homes to life."""
    simulation = Simulation(
        Plan(tuple(scene.home for scene in scenes(homes))),
        endpoint=Endpoint("localhost", port),
        identities=Certificates(certificates).identity,
        clock=SystemClock(),
        seed=1,
    )
    await run_and_print(simulation.run(), simulation.stop, simulation.statistics.summary, 60.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--alone", type=int, default=10, help="sessions at once in the run before")
    parser.add_argument("--fleet", type=Path, help="be the fleet, with the certificates that are here")
    parser.add_argument("--homes", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    if options.fleet:
        uvloop.run(fleet(options.homes, options.port, options.fleet))
        return
    with scratch() as directory:
        uvloop.run(measure(Path(directory) / "var", options.sessions, options.alone))


if __name__ == "__main__":
    main()
