"""What a security officer does to people and systems, and which of it waits for a second person.

To start something takes two: an account, a role, a secret, a key. To stop takes one. While there never were
two officers, the one makes the second alone, or there could never be two. Once there were, who ends the other
gains nothing by it: what takes two waits until the host has made another (see ``first``). All sessions may be
ended by the only officer alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from infra.clock import Clock
from infra.documents.port import DocumentStore
from infra.ids import Ids
from security.audit import Via
from security.people import clients as systems
from security.people import opaque, persons
from security.people.accounts import OFFICERS_COUNTED_MAX, Accounts
from security.people.approvals import Act, Approvals, Held
from security.people.clients import Client, Clients
from security.people.epochs import SystemEpoch
from security.people.keys import TokenKeys
from security.people.persons import Invitation, Person, State
from security.policy import Action, Principal, Role
from security.secret import Secret

ONLY_OFFICER: Final = "the only security officer makes the second"
ONLY_OFFICER_STOPS: Final = "there is no second security officer"


@dataclass(frozen=True, slots=True)
class NewPerson:
    """An account just made; ``held`` is None when it may be used at once."""

    person: Person
    invitation: Secret
    held: Held | None


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret that counts once what is held is approved."""

    secret: Secret
    held: Held


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client just made, with its first secret."""

    client: Client
    secret: Secret
    held: Held


class Acts:
    """Asks for acts, and does them when they are approved."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        ids: Ids,
        accounts: Accounts,
        clients: Clients,
        keys: TokenKeys,
        epoch: SystemEpoch,
        more: Mapping[str, Act],
    ) -> None:
        self._accounts = accounts
        self._clients = clients
        self._keys = keys
        self._epoch = epoch
        self.approvals = Approvals(store, clock, ids, self._table() | dict(more))

    async def make_person(self, login: str, role: Role, account: str, by: Principal, via: Via) -> NewPerson:
        """Make an account."""
        alone = role is Role.SECURITY and await self._never_two()
        person, invitation = await self._accounts.add(
            login, role, account, by, via, held=not alone, reason=ONLY_OFFICER if alone else ""
        )
        if alone:
            return NewPerson(person, invitation, None)
        facts = {"role": role.value} | ({"account": account} if account else {})
        held = await self.approvals.ask("principal.create", f"person/{person.id}", facts, by, via)
        return NewPerson(person, invitation, held)

    async def grant_role(self, id: str, role: Role, account: str, by: Principal, via: Via) -> Held:
        """Ask for another role for a person."""
        person = await self._accounts.person(id)
        persons.check_new(role, account)
        if person.role is Role.SECURITY and role is not Role.SECURITY:
            await self._accounts.check_not_last_officer(id)
        facts = {"role": role.value, "account": account}
        return await self.approvals.ask("role.grant", f"person/{id}", facts, by, via)

    async def reset_person(self, id: str, by: Principal, via: Via) -> NewSecret:
        """Ask that a person who lost a factor may begin anew, with the invitation returned here."""
        await self._accounts.person(id)
        await self._accounts.check_not_last_officer(id)
        secret, invitation = self._accounts.invitation(id)
        facts = {"sha256": invitation.sha256, "until_ms": str(invitation.until_ms)}
        return NewSecret(secret, await self.approvals.ask("principal.reset", f"person/{id}", facts, by, via))

    async def make_client(self, name: str, role: Role, by: Principal, via: Via) -> NewClient:
        """Make a service account."""
        client, secret = await self._clients.add(name, role, by, via, held=True)
        facts = {"role": role.value}
        held = await self.approvals.ask("client.create", f"client/{client.id}", facts, by, via)
        return NewClient(client, secret, held)

    async def add_secret(self, id: str, by: Principal, via: Via) -> NewSecret:
        """Ask for another secret for a client; the one in use goes on counting."""
        systems.with_secret(await self._clients.client(id), "")
        secret = self._clients.secret()
        facts = {"sha256": opaque.digest(secret)}
        return NewSecret(secret, await self.approvals.ask("client.secret", f"client/{id}", facts, by, via))

    async def revoke_all(self, by: Principal, via: Via) -> Held | None:
        """Ask that every session and token ends; None when it is done already."""
        if await self._accounts.active_officers() <= 1:
            await self._epoch.raise_(by, via, reason=ONLY_OFFICER_STOPS)
            return None
        return await self.approvals.ask("revoke_all", "system", {}, by, via)

    async def rotate_key(self, by: Principal, via: Via, *, at_once: bool) -> Held:
        """Ask for another key to sign tokens with."""
        facts = {"at_once": "yes" if at_once else "no"}
        return await self.approvals.ask("signing_key.rotate", "signing_key", facts, by, via)

    async def _never_two(self) -> bool:
        """Tell whether there never were two officers, those counted who have not logged in yet."""
        if await self._accounts.had_two_officers():
            return False
        page = await self._accounts.people(Role.SECURITY, OFFICERS_COUNTED_MAX, None)
        return sum(_counts(one) for one in page.records) <= 1

    def _table(self) -> dict[str, Act]:
        return {
            "principal.create": Act(Action.PRINCIPAL_WRITE, self._approve_person, self._disable_person),
            "principal.reset": Act(Action.PRINCIPAL_WRITE, self._reset),
            "role.grant": Act(Action.ROLE_GRANT, self._set_role),
            "client.create": Act(Action.PRINCIPAL_WRITE, self._approve_client, self._disable_client),
            "client.secret": Act(Action.PRINCIPAL_WRITE, self._take_secret),
            "revoke_all": Act(Action.REVOKE_ALL, self._raise_epoch),
            "signing_key.rotate": Act(Action.SIGNING_KEY_WRITE, self._rotate),
        }

    async def _approve_person(self, held: Held, via: Via, reason: str) -> None:
        await self._accounts.approve(_id(held), held.by, via, reason)

    async def _disable_person(self, held: Held, via: Via, reason: str) -> None:
        await self._accounts.disable(_id(held), held.by, via, reason)

    async def _reset(self, held: Held, via: Via, reason: str) -> None:
        person = await self._accounts.person(_id(held))
        if held.id in person.decisions:
            return
        invitation = Invitation(held.facts["sha256"], int(held.facts["until_ms"]))
        await self._accounts.claim_end(_id(held))
        await self._accounts.reset(_id(held), invitation, held.by, via, reason, decision=held.id)

    async def _set_role(self, held: Held, via: Via, reason: str) -> None:
        role, account = Role(held.facts["role"]), held.facts["account"]
        person = await self._accounts.person(_id(held))
        if held.id in person.decisions:
            return
        if role is not Role.SECURITY:
            await self._accounts.claim_end(_id(held))
        await self._accounts.set_role(_id(held), role, account, held.by, via, reason, decision=held.id)

    async def _approve_client(self, held: Held, via: Via, reason: str) -> None:
        await self._clients.approve(_id(held), held.by, via, reason)

    async def _disable_client(self, held: Held, via: Via, reason: str) -> None:
        await self._clients.disable(_id(held), held.by, via, reason)

    async def _take_secret(self, held: Held, via: Via, reason: str) -> None:
        digest = held.facts["sha256"]
        await self._clients.take_secret(_id(held), digest, held.by, via, reason, decision=held.id)

    async def _raise_epoch(self, held: Held, via: Via, reason: str) -> None:
        await self._epoch.raise_(held.by, via, decision=held.id, reason=reason)

    async def _rotate(self, held: Held, via: Via, reason: str) -> None:  # noqa: ARG002 - all are called alike
        at_once = held.facts["at_once"] == "yes"
        await self._keys.rotate(held.by, via, at_once=at_once, decision=held.id)


def _counts(officer: Person) -> bool:
    """Tell whether an account is an officer or was one: an invitation that was taken back is neither."""
    return officer.state is not State.DISABLED or officer.password is not None


def _id(held: Held) -> str:
    return held.target.partition("/")[2]
