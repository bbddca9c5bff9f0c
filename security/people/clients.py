"""Service accounts: systems of the utility that hold a secret (RFC 6749, client credentials).

Their role and scopes are fixed in their record; a client that asks for more gets what is allowed of it.
"""

import hmac
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from infra.clock import Clock
from infra.documents.port import DocumentStore, Entry
from infra.ids import Ids
from security import audit
from security.audit import INSIDE, NOBODY, Refusals, Via
from security.people import opaque
from security.people.accounts import ID_BITS, Listener
from security.people.epochs import SystemEpoch
from security.people.errors import (
    AccountStateError,
    ClientNotFoundError,
    InvalidAccountError,
    LoginRefusedError,
    PeopleBusyError,
)
from security.people.persons import decided
from security.people.records import CLIENTS, SAVE_ATTEMPTS_MAX, Kept, RecordPage, Records
from security.people.tokens import AccessToken, AccessTokens, Epochs
from security.policy import Principal, Role
from security.secret import Secret
from security.tries import MINUTE_S, Windows, require

TOKENS_MAX: Final = 20
"""Tokens of one client in :data:`~security.tries.MINUTE_S`: each is a row of the audit, kept for years."""
SECRETS_MAX: Final = 2
"""Alive at once: the one in use, and the one that takes its place."""
SCOPES: Final[Mapping[Role, tuple[str, ...]]] = MappingProxyType(
    {
        Role.CCS: ("premises", "work_orders", "meter_exchange", "account_erase"),
        Role.BL: (
            "read_all",
            "read_bl",
            "write_programs",
            "write_events",
            "write_subscriptions",
            "write_vens",
        ),
        Role.VEN: ("read_targets", "read_ven_objects", "write_reports", "write_subscriptions", "write_vens"),
        Role.VENDOR: ("images",),
        Role.METERDATA: ("meterdata",),
    }
)
"""What a client of a role may ask for; what it asked for is repeated to it, and its role decides."""
CLIENT_ROLES: Final = frozenset(SCOPES)
_OWN_ACCOUNT: Final = frozenset({Role.BL, Role.VEN, Role.VENDOR})
"""Roles with things of their own, which are known by the client's id."""
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9 ._-]{0,63}")
_ROLES: Final = sorted(role.value for role in CLIENT_ROLES)


class ClientState(StrEnum):
    """Where a service account is in its life."""

    HELD = "held"
    ACTIVE = "active"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Client:
    """A service account; ``secrets`` are SHA-256, the newest last."""

    id: str
    name: str
    role: Role
    state: ClientState
    made_ms: int
    secrets: tuple[str, ...]
    epoch: int = 1
    decisions: tuple[str, ...] = ()
    """Held acts that were done to it, so that none is done twice."""


@dataclass(frozen=True, slots=True)
class ClientGrant:
    """A token for a client, and the scopes it asked for and may have."""

    access: AccessToken
    scopes: tuple[str, ...]


def check_new(name: str, role: Role) -> None:
    """Refuse what cannot be a client's."""
    if role not in CLIENT_ROLES:
        raise InvalidAccountError(f"a client has one of the roles: {', '.join(_ROLES)}")
    if not _NAME.fullmatch(name):
        raise InvalidAccountError("a client's name has 1 to 64 of a-z A-Z 0-9 space . _ -")


def allowed_scopes(role: Role, asked: Collection[str]) -> tuple[str, ...]:
    """Return what is allowed of what is asked for; who asks for nothing gets all."""
    return tuple(scope for scope in SCOPES[role] if not asked or scope in asked)


def with_secret(client: Client, digest: str) -> Client:
    """Return the client with a new secret; the newest old one stays alive."""
    if digest in client.secrets:
        return client
    if client.state is ClientState.DISABLED:
        raise AccountStateError("this client is disabled: make another one")
    return replace(client, secrets=(*client.secrets, digest)[-SECRETS_MAX:])


class Clients:
    """All service accounts."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        ids: Ids,
        tokens: AccessTokens,
        epoch: SystemEpoch,
        refusals: Refusals,
    ) -> None:
        self._records = Records(store, CLIENTS, Client, lambda client: {"role": client.role.value})
        self._clock = clock
        self._ids = ids
        self._tokens = tokens
        self._epoch = epoch
        self._refusals = refusals
        self._issued = Windows(TOKENS_MAX, MINUTE_S)
        self.listeners: list[Listener] = []

    async def find(self, id: str) -> Client | None:
        """Return a client, if there is one of this id."""
        kept = await self._records.load(id)
        return None if kept is None else kept.record

    async def client(self, id: str) -> Client:
        """Return a client."""
        return (await self._kept(id)).record

    async def clients(self, limit: int, cursor: str | None) -> RecordPage[Client]:
        """Return a page of clients."""
        return await self._records.page("role", _ROLES[0], _ROLES[-1], limit, cursor)

    async def add(
        self, name: str, role: Role, by: Principal, via: Via = INSIDE, *, held: bool, id: str = ""
    ) -> tuple[Client, Secret]:
        """Make a client; return it and its secret, which is shown once."""
        check_new(name, role)
        secret = opaque.new(opaque.CLIENT, self._ids)
        client = Client(
            id=id or f"c-{self._ids.token(ID_BITS)}",
            name=name,
            role=role,
            state=ClientState.HELD if held else ClientState.ACTIVE,
            made_ms=self._clock.now_ms(),
            secrets=(opaque.digest(secret),),
        )
        if not await self._records.put(
            client.id, client, 0, self._entry(by, via, "client.create", client.id, 0, "")
        ):
            raise PeopleBusyError
        return client, secret

    async def approve(self, id: str, by: Principal, via: Via, reason: str) -> Client:
        """Let a held client be used; again is no error."""

        def rule(client: Client) -> Client:
            return (
                client if client.state is not ClientState.HELD else replace(client, state=ClientState.ACTIVE)
            )

        return await self._change(id, rule, "client.approve", by, via, reason)

    def secret(self) -> Secret:
        """Return a new secret; :meth:`take_secret` makes it count."""
        return opaque.new(opaque.CLIENT, self._ids)

    async def take_secret(
        self, id: str, digest: str, by: Principal, via: Via, reason: str, *, decision: str = ""
    ) -> Client:
        """Let another secret count beside the one in use; the same ``decision`` again changes nothing."""

        def rule(client: Client) -> Client:
            if decision in client.decisions:
                return client
            return replace(with_secret(client, digest), decisions=decided(client.decisions, decision))

        return await self._change(id, rule, "client.secret", by, via, reason)

    async def retire_old_secret(self, id: str, by: Principal, via: Via = INSIDE) -> Client:
        """Let only the newest secret count; tokens got with the older one end too."""

        def rule(client: Client) -> Client:
            if len(client.secrets) < SECRETS_MAX:
                return client
            return replace(client, secrets=client.secrets[-1:], epoch=client.epoch + 1)

        return await self._change(id, rule, "client.retire_secret", by, via)

    async def disable(self, id: str, by: Principal, via: Via = INSIDE, reason: str = "") -> Client:
        """Let a client get nothing any more; its tokens end."""

        def rule(client: Client) -> Client:
            if client.state is ClientState.DISABLED:
                return client
            return replace(client, state=ClientState.DISABLED, epoch=client.epoch + 1)

        return await self._change(id, rule, "client.disable", by, via, reason)

    async def grant(self, id: str, secret: Secret, asked: Collection[str], via: Via) -> ClientGrant:
        """Return a token for a client that shows its secret.

        Raises:
            LoginRefusedError: it did not, or it is not active.
            TooManyTriesError: it got too many.
        """
        client = await self.find(id) if id.startswith("c-") and len(id) <= opaque.CHARS_MAX else None
        shown = opaque.digest(secret) if len(secret.reveal()) <= opaque.CHARS_MAX else ""
        right = client is not None and any(
            [_is_same(kept, shown) for kept in client.secrets]  # noqa: C419 - all of them, whichever is right
        )
        if client is None or not right or client.state is not ClientState.ACTIVE:
            by = NOBODY if client is None else principal_of(client)
            target = "client" if client is None else f"client/{client.id}"
            self._refusals.note(by, via, "token.issue", target, "secret or state")
            raise LoginRefusedError
        now_s = self._clock.elapsed_s()
        require(self._issued.wait_s(client.id, now_s))
        self._issued.add(client.id, now_s)
        epochs = Epochs(await self._epoch.current(), client.epoch)
        # Acts without a document: written before the act.
        await self._note(client, via)
        access = self._tokens.issue(client.id, client.role, epochs)
        return ClientGrant(access, allowed_scopes(client.role, asked))

    async def _note(self, client: Client, via: Via) -> None:
        """Write the row of a token that was issued: it changes no document."""
        row = audit.act(
            principal_of(client),
            via,
            "token.issue",
            f"token/{self._ids.token(ID_BITS)}",
            at_ms=self._clock.now_ms(),
            before=0,
            after=1,
        )
        await self._records.append(audit.entry(row, 1, life=0))

    async def _kept(self, id: str) -> Kept[Client]:
        kept = await self._records.load(id)
        if kept is None:
            raise ClientNotFoundError
        return kept

    async def _change(
        self,
        id: str,
        rule: Callable[[Client], Client],
        action: str,
        by: Principal,
        via: Via,
        reason: str = "",
    ) -> Client:
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._kept(id)
            after = rule(kept.record)
            if after == kept.record:
                return after
            entry = self._entry(by, via, action, id, kept.revision, reason)
            try:
                if await self._records.put(id, after, kept.revision, entry):
                    return after
            finally:
                for listener in self.listeners:
                    listener(id)
        raise PeopleBusyError

    def _entry(self, by: Principal, via: Via, action: str, id: str, before: int, reason: str) -> Entry:
        row = audit.act(
            by,
            via,
            action,
            f"client/{id}",
            at_ms=self._clock.now_ms(),
            before=before,
            after=before + 1,
            reason=reason,
        )
        return audit.entry(row, before + 1, life=0)


def principal_of(client: Client) -> Principal:
    """Return a client as the permission table knows it."""
    return Principal(client.id, client.role, client.id if client.role in _OWN_ACCOUNT else "")


def _is_same(kept: str, shown: str) -> bool:
    return hmac.compare_digest(kept, shown)
