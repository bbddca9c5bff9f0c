"""What the registry learns of a customer who has been verified: references, as the care system has them now.

An account is what programs look at, so it is brought up to date while the customer is on the telephone. Whose
premises are changes hands only when the care system says so; but premises that never were anybody's become
those of the account that it names.
"""

from typing import Final

from provisioning.care import CareAccount, CareCustomer
from registry.accounts import Account, AccountService, AccountStatus
from registry.errors import PremisesNotFoundError
from registry.service import RegistryService
from security.policy import Principal, Role

SYSTEM: Final = Principal("provisioning", Role.SYSTEM)


class Learning:
    """Brings accounts of the registry up to date."""

    def __init__(self, accounts: AccountService, registry: RegistryService) -> None:
        self._accounts = accounts
        self._registry = registry

    async def learn(self, customer: CareCustomer) -> None:
        """Keep the customer's accounts, and which premises are theirs; repeated, it changes nothing."""
        for one in customer.accounts:
            status = AccountStatus.ACTIVE if one.status == AccountStatus.ACTIVE else AccountStatus.CLOSED
            account = Account(id=one.id, customer=customer.ref, tariff=one.tariff, status=status)
            await self._accounts.put(account, SYSTEM)
            if one.premises and status is AccountStatus.ACTIVE:
                await self._bind(one)

    async def _bind(self, one: CareAccount) -> None:
        try:
            if not (await self._registry.premises(one.premises)).never_owned:
                return
        except PremisesNotFoundError:
            pass
        await self._registry.hand_over(one.premises, one.id, SYSTEM)
