"""People and systems over a real store: time by hand, hashes that cost nothing and are counted."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.documents.opening import open_store
from infra.documents.port import DocumentStore
from security import audit
from security.audit import AuditEntry, Refusals, Via
from security.hashing import Cost, Hashing
from security.people import totp
from security.people.accounts import principal_of
from security.people.approvals import Act
from security.people.people import People, open_people
from security.people.persons import Person
from security.people.records import COLLECTIONS
from security.people.sessions import Granted
from security.policy import Principal, Role
from security.secret import Secret
from security.secretbox import SecretBox
from tests.fakes import NOW_MS, FakeClock, SeededIds

CHEAP = Cost(1, 8, 1, about_ms=1)
SYSTEM = Principal("system", Role.SYSTEM)
VIA = Via("http", "request-1")
PASSWORD = Secret("gorse under slate rain")
ADDRESS = "192.0.2.7"


class CountingHashing(Hashing):
    """Knows how many hashes were made: what a stranger could measure, without a clock."""

    def __init__(self) -> None:
        super().__init__(cores=1, waiting_ms_max=1_000)
        self.made = 0

    async def hash(self, secret: Secret, cost: Cost) -> str:
        self.made += 1
        return await super().hash(secret, cost)

    async def verify(self, hash: str | None, secret: Secret, cost: Cost) -> bool:
        self.made += 1
        return await super().verify(hash, secret, cost)


@dataclass
class Known:
    """A person of the tests, with what only they know."""

    id: str
    login: str
    seed: str | None = None
    recovery: tuple[str, ...] = ()
    step: int = 0


@dataclass
class PeopleRig:
    """One process's people; several may stand on one store."""

    people: People
    store: DocumentStore
    clock: FakeClock
    ids: SeededIds
    hashing: CountingHashing
    refusals: Refusals

    async def member(self, login: str, role: Role, account: str = "") -> Known:
        """Make a person who has logged in once."""
        accounts = self.people.accounts
        account = account or ("account-1" if role is Role.CUSTOMER else "")
        person, invitation = await accounts.add(login, role, account, SYSTEM, held=False)
        factor = await accounts.accept(invitation, PASSWORD, VIA, factor=False)
        known = Known(person.id, login)
        if factor is not None:
            known.seed = factor.seed.reveal()
            known.recovery = tuple(code.reveal() for code in factor.recovery_codes)
        await self.log_in(known)
        return known

    def code(self, known: Known) -> str:
        """Return a code that was not used yet; lets time pass if it has to."""
        if known.seed is None:
            return ""
        if known.step >= totp.step_of(self.clock.now_ms()):
            self.clock.advance(totp.STEP_S)
        known.step = totp.step_of(self.clock.now_ms())
        return totp.code_at(known.seed, known.step)

    async def log_in(self, known: Known, password: Secret = PASSWORD) -> Granted:
        granted, _ = await self.people.log_in(known.login, password, self.code(known), ADDRESS, VIA)
        return granted

    async def person(self, known: Known) -> Person:
        return await self.people.accounts.person(known.id)

    async def principal(self, known: Known) -> Principal:
        return principal_of(await self.person(known))

    async def who(self, granted: Granted) -> Principal | None:
        return await self.people.identities.principal(granted.access.token.reveal())

    async def rows(self, action: str = "") -> list[AuditEntry]:
        await self.refusals.flush()
        entries = list[AuditEntry]()
        cursor = None
        while True:
            page = await audit.read(self.store, 0, NOW_MS * 2, 1_000, cursor)
            entries += page.entries
            cursor = page.next
            if cursor is None:
                break
        return [one for one in entries if action in {"", one.action}]


@asynccontextmanager
async def opened(directory: Path, url: str = "memory:") -> AsyncIterator[DocumentStore]:
    store = await open_store(
        url.replace("{directory}", str(directory)), list(COLLECTIONS), [audit.LOG], testing=True
    )
    try:
        yield store
    finally:
        await store.close()


async def process(
    store: DocumentStore,
    directory: Path,
    clock: FakeClock | None = None,
    seed: int = 1,
    more: Mapping[str, Act] | None = None,
) -> PeopleRig:
    """Start one process over the store."""
    clock, ids, hashing = clock or FakeClock(), SeededIds(seed), CountingHashing()
    refusals = Refusals(store, clock, ids)
    box = SecretBox.open(directory / "secrets" / "master.key", ids)
    people = await open_people(store, clock, ids, box, hashing, refusals, cost=CHEAP, more=more)
    return PeopleRig(people, store, clock, ids, hashing, refusals)


class SharedStore:
    """The same store for a second process: what it knows may be outdated."""

    exclusive = False

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)
