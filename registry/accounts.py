"""Accounts: the contract by which devices take part. Whose it is stands in the customer care system.

No name, address or telephone number is kept here; ``customer`` is a reference that only that system resolves.
"""

from collections.abc import Collection as SizedIterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore
from infra.documents.records import Records
from registry.errors import AccountNotFoundError
from registry.rules import check_id, check_text
from security.audit import INSIDE, Via
from security.audited import Audited
from security.policy import Principal

ACCOUNTS: Final = "accounts"
COLLECTION: Final = Collection(ACCOUNTS)


class AccountStatus(StrEnum):
    """Whether the contract runs."""

    ACTIVE = "active"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A contract."""

    id: str
    customer: str
    """The customer care system's reference."""
    tariff: str = ""
    """The id of the tariff it has now; empty where there is none."""
    status: AccountStatus = AccountStatus.ACTIVE


class AccountService:
    """Looks accounts up and keeps what is known of them."""

    def __init__(self, store: DocumentStore, clock: Clock) -> None:
        self._records = Records(store, ACCOUNTS, Account)
        self._audited = Audited(self._records, clock, "account")

    async def account(self, id: str) -> Account:
        """Return an account."""
        kept = await self._records.load(id)
        if kept is None:
            raise AccountNotFoundError(id)
        return kept.record

    async def accounts(self, ids: SizedIterable[str]) -> dict[str, Account]:
        """Return the accounts that are known, by id."""
        return await self._records.load_all(ids)

    async def put(self, account: Account, by: Principal, via: Via = INSIDE) -> Account:
        """Keep what is known of an account."""
        check_id(account.id)
        check_text(account.customer, account.tariff)
        return await self._audited.change(account.id, lambda _before: account, "account.write", by, via)
