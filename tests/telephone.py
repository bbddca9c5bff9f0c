"""A representative on the telephone with the customer of one home: broker and bridge are real.

For tests and benchmarks that want scenario 3.2 up to some step, in the process that serves it.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet.connection import Certificates, Endpoint
from fleet.plan import Plan
from fleet.provisioning import Scene
from fleet.simulation import Simulation
from gnomon import demo_city
from gnomon.roles import System, running
from gnomon.services import Services
from infra.settings import ApiSettings, BrokerSettings, Settings
from infra.settings.model import PeopleSettings
from provisioning import care_demo
from provisioning.acts import Assignment, Choice
from provisioning.asking import Ask
from provisioning.care import CareCustomer
from provisioning.care_embedded import EmbeddedCare
from provisioning.reconciler import topic
from provisioning.service import Discovery, NewGrant, NewSession
from provisioning.session import Consent, Proof, Session
from provisioning.states import SessionState
from provisioning.verifications import Outcome
from security.policy import Principal, Role
from security.secret import Secret

ROSA = Principal("rosa", Role.REP)
OPERATOR = Principal("otto", Role.OPERATOR)
WAIT_S_MAX = 40.0
LOOK_S_MAX = 1.0
"""A wake-up is a hint: without one a session is looked at all the same."""


class Call:
    """One call, and the session that comes of it."""

    def __init__(
        self,
        services: Services,
        scene: Scene,
        customer: CareCustomer,
        by: Principal = ROSA,
        patience_s: float = WAIT_S_MAX,
    ) -> None:
        self.services, self.scene, self.customer, self.by = services, scene, customer, by
        self.sessions = services.provisioning.sessions
        self.id = ""
        self._patience_s = patience_s
        self._numbers = itertools.count(1)

    def ask(self) -> Ask:
        key = f"{self.by.name}-{self.scene.home.premises}-{next(self._numbers)}"
        return Ask(by=self.by, key=key, digest=key)

    async def until(self, good: Callable[[Session], bool]) -> Session:
        """Return the session once it is so."""
        with self.services.live.watch(topic(self.id)) as watcher:
            async with asyncio.timeout(self._patience_s):
                while not good(session := await self.sessions.session(self.id)):
                    try:
                        async with asyncio.timeout(LOOK_S_MAX):
                            await watcher.wait()
                    except TimeoutError:
                        pass
        return session

    async def until_so(self, so: Callable[[], Awaitable[bool]]) -> None:
        """Wait until what is asked for, over and over, is so."""
        async with asyncio.timeout(self._patience_s):
            while not await so():  # noqa: ASYNC110 - what is asked for has no event
                await asyncio.sleep(0.05)

    async def open(self) -> None:
        """Steps 5 and 6."""
        desk, (account, *_) = self.services.provisioning.desk, self.customer.accounts
        verified, _ = await desk.verify(self.customer.ref, "birthday", Outcome.PASSED, "case-1", self.ask())
        new = NewSession(
            premises=account.premises, account=account.id, verification=verified.id, case="case-1"
        )
        self.id = (await self.sessions.open(new, self.ask())).id

    async def discover(self, *names: str, gateway: str = "") -> None:
        """Step 7 begins, with the labels of these."""
        grants = tuple(
            NewGrant(device=eui64, proof=Proof.INSTALL_CODE, value=Secret(self.scene.labels[eui64]))
            for eui64 in map(self.scene.eui64s.__getitem__, names)
        )
        await self.sessions.discover(self.id, Discovery(grants=grants, gateway=gateway), self.ask())

    async def stop(self) -> Session:
        """Step 7 is over."""
        await self.sessions.stop_discovery(self.id, self.ask())
        return await self.until(lambda one: one.state is SessionState.DISCOVERED)

    async def select(self, names: Iterable[str]) -> None:
        """Steps 8 to 10."""
        choices = [
            Choice(device=self.scene.eui64s[name], take_part=True, name=f"My {name}") for name in names
        ]
        await self.sessions.select(self.id, choices, self.ask())

    async def choose(self, programs: Mapping[str, str]) -> None:
        """Steps 11 and 9: which programs, and that the customer agrees."""
        await self.sessions.options(self.id)
        pairs = [(self.scene.eui64s[name], program) for name, program in programs.items()]
        some = [Assignment(device=device, program=program) for device, program in pairs]
        await self.sessions.choose_programs(self.id, some, self.ask())
        ref = self.customer.ref
        yes = [Consent(device, program, ref, "holder", "phone", "1", "", 0) for device, program in pairs]
        await self.sessions.consent(self.id, yes, self.ask())

    async def provision(self) -> None:
        """Step 12."""
        await self.sessions.provision(self.id, self.ask())

    async def recorded(self) -> Session:
        """Step 13 and the first half of 14."""
        return await self.until(lambda one: one.state is SessionState.RECORDED)

    async def delivered(self) -> None:
        """Step 14: the customer care system has all that there is to know."""

        async def all_are() -> bool:
            items = await self.services.outbox.items(self.scene.home.premises)
            return bool(items) and all(item.state == "delivered" for item in items)

        await self.until_so(all_are)


@dataclass(frozen=True, slots=True)
class Served:
    """A service with the one home."""

    system: System
    simulation: Simulation
    call: Call


@asynccontextmanager
async def serving(directory: Path, scene: Scene, *, people: bool = False) -> AsyncIterator[Served]:
    """Serve the home of a scene, its gateways connected; ``people``: with the demo's logins."""
    settings = Settings(
        directory=directory,
        broker=BrokerSettings(device_port=0),
        api=ApiSettings(port=0, device_port=0),
        people=PeopleSettings(demo=people),
    )
    async with running(settings) as system:
        services = system.services
        assert isinstance(services.care, EmbeddedCare)
        customers = care_demo.customers()
        await services.care.put(customers)
        customer = next(one for one in customers if one.accounts[0].premises == scene.home.premises)
        plan = Plan((scene.home,))
        await demo_city.settle_in(services, plan, directory / "certificates")
        simulation = Simulation(
            plan,
            endpoint=Endpoint("localhost", system.broker.device_port),
            identities=Certificates(directory / "certificates").identity,
            clock=services.clock,
            seed=1,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(simulation.run(), name="simulation")
            try:
                yield Served(system, simulation, Call(services, scene, customer))
            finally:
                simulation.stop()
