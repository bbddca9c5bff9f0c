"""All of this package, put together: what the composition root opens and the entry points hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from infra.clock import Clock
from infra.documents.port import DocumentStore
from infra.ids import Ids
from security.audit import Refusals, Via
from security.hashing import FULL, Cost, Hashing
from security.people import accounts as persons
from security.people import clients as systems
from security.people.accounts import Accounts
from security.people.acts import Acts
from security.people.approvals import Act, Approvals
from security.people.clients import Clients, ClientState
from security.people.epochs import SystemEpoch
from security.people.first import FirstOfficer
from security.people.identities import Identities, Standing
from security.people.keys import TokenKeys
from security.people.persons import State, Told
from security.people.sessions import Granted, Sessions
from security.people.stepup import StepUps
from security.people.tokens import AccessTokens
from security.secret import Secret
from security.secretbox import SecretBox
from security.tries import AddressTries

SWEEP_S: Final = 600
SWEPT_MAX: Final = 1_000
"""Documents of one kind that one sweep deletes."""

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class People:
    """People and systems."""

    accounts: Accounts
    sessions: Sessions
    clients: Clients
    step_ups: StepUps
    acts: Acts
    keys: TokenKeys
    tokens: AccessTokens
    epoch: SystemEpoch
    identities: Identities
    first: FirstOfficer
    tries: AddressTries
    first_secret: Secret | None
    """Shown once on the host while there is no security officer."""

    @property
    def approvals(self) -> Approvals:
        return self.acts.approvals

    async def log_in(
        self, login: str, password: Secret, code: str, address: str, via: Via
    ) -> tuple[Granted, tuple[Told, ...]]:
        """Open a session for who proves both factors; return it with what they have to be told."""
        self.tries.take(address)
        proved = await self.accounts.log_in(login, password, code, via, address=address)
        self.tries.give_back(address)
        return await self.sessions.open(proved.person, via), proved.notices

    async def sweep(self) -> None:
        """Delete what is over, finish what was begun, and make a new key when it is time."""
        await self.sessions.sweep(SWEPT_MAX)
        await self.step_ups.sweep(SWEPT_MAX)
        await self.approvals.finish(SWEPT_MAX)
        await self.approvals.sweep(SWEPT_MAX)
        if await self.keys.rotate_if_due():
            _log.info("signing_key_rotated")


class _Both:
    """Looks an account up by its id: a person's or a client's."""

    def __init__(self, accounts: Accounts, clients: Clients) -> None:
        self._accounts = accounts
        self._clients = clients

    async def standing(self, id: str) -> Standing | None:
        if id.startswith("p-"):
            person = await self._accounts.find(id)
            if person is None or person.state is not State.ACTIVE:
                return None
            return Standing(persons.principal_of(person), person.generation)
        client = await self._clients.find(id)
        if client is None or client.state is not ClientState.ACTIVE:
            return None
        return Standing(systems.principal_of(client), client.epoch)


async def open_people(
    store: DocumentStore,
    clock: Clock,
    ids: Ids,
    box: SecretBox,
    hashing: Hashing,
    refusals: Refusals,
    *,
    cost: Cost = FULL,
    demo: bool = False,
    more: Mapping[str, Act] | None = None,
) -> People:
    """Put it together over an opened store.

    ``demo``: somebody else makes the first officer. ``more`` are acts of others that need a second person.
    """
    keys = TokenKeys(store, box, clock, ids)
    await keys.open()
    tokens, epoch = AccessTokens(keys, clock, ids), SystemEpoch(store, clock)
    accounts = Accounts(store, clock, ids, box, hashing, refusals, cost=cost)
    clients = Clients(store, clock, ids, tokens, epoch, refusals)
    identities = Identities(tokens, keys, epoch, _Both(accounts, clients), clock)
    accounts.listeners.append(identities.forget)
    clients.listeners.append(identities.forget)
    first = FirstOfficer(accounts, clock, refusals)
    return People(
        accounts=accounts,
        sessions=Sessions(store, clock, ids, tokens, epoch, accounts, refusals),
        clients=clients,
        step_ups=StepUps(store, clock, ids, accounts),
        acts=Acts(store, clock, ids, accounts, clients, keys, epoch, more or {}),
        keys=keys,
        tokens=tokens,
        epoch=epoch,
        identities=identities,
        first=first,
        tries=AddressTries(clock),
        first_secret=None if demo else await first.open(ids),
    )
