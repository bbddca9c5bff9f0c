"""The representative's first steps: find the customer who calls, and record that it is them.

Both are live calls to the customer care system: what it says of a person is shown once and kept nowhere. A
search needs a case, and nobody searches for more customers, or records more verifications, than there can be
calls: a verification shows a customer's address and opens their accounts. (use case 3.2, steps 4 and 5)
"""

from dataclasses import dataclass
from typing import Final

import structlog

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore
from infra.documents.records import SAVE_ATTEMPTS_MAX, Records
from provisioning.asking import Ask
from provisioning.care import CANDIDATES_MAX, Candidate, CareAccount, CustomerCare, SearchBy, masked
from provisioning.errors import CustomerNotFoundError, SessionBusyError, TooManySearchesError
from provisioning.learning import Learning
from provisioning.session import HOUR_MS
from provisioning.verifications import NewVerification, Outcome, Verification, Verifications, check_case
from security import audit
from security.policy import Action

SEARCHES: Final = Collection("customer_searches")
MS_PER_S: Final = 1_000

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Searches:
    """When one representative has searched, or has verified, within the last hour."""

    at_ms: tuple[int, ...] = ()


class Desk:
    """Finds customers and records verifications."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        *,
        care: CustomerCare,
        verifications: Verifications,
        learning: Learning,
        searches_hour_max: int,
    ) -> None:
        self._records = Records(store, SEARCHES.name, Searches)
        self._clock = clock
        self._care = care
        self._verifications = verifications
        self._learning = learning
        self._at_most = searches_hour_max

    async def search(self, by: SearchBy, value: str, case: str, ask: Ask) -> tuple[Candidate, ...]:
        """Return the few customers that this may be, masked.

        Raises:
            CustomerNotFoundError, TooManySearchesError, InvalidRequestError: as they say.
            BadSearchError, CareUnavailableError, CareRefusedError: as the care system says.
        """
        check_case(case)
        await self._count(f"searches/{ask.by.name}", case, ask)
        found = await self._care.search(by, value, CANDIDATES_MAX)
        if not found:
            raise CustomerNotFoundError
        return tuple(masked(one) for one in found)

    async def verify(
        self, customer: str, method: str, outcome: Outcome, case: str, ask: Ask
    ) -> tuple[Verification, tuple[CareAccount, ...]]:
        """Record that the caller is this customer, or is not; return it with the accounts that it opens.

        It counts like a search, and before the care system is asked: who guesses references learns no more
        than who guesses numbers.
        """
        check_case(case)
        await self._count(f"verifications/{ask.by.name}", case, ask)
        found = await self._care.customer(customer)
        if found is None:
            raise CustomerNotFoundError
        accounts = tuple(sorted(one.id for one in found.accounts))
        new = NewVerification(customer=customer, accounts=accounts, method=method, outcome=outcome, case=case)
        recorded = await self._verifications.record(new, ask)
        if outcome is not Outcome.PASSED:
            return recorded, ()
        await self._learning.learn(found)
        return recorded, found.accounts

    async def _count(self, id: str, case: str, ask: Ask) -> None:
        """Count a look at a customer before it is taken, with its row in the audit trail."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._records.load(id)
            now_ms, revision = self._clock.now_ms(), 0 if kept is None else kept.revision
            recent = () if kept is None else kept.record.at_ms
            recent = tuple(at_ms for at_ms in recent if at_ms > now_ms - HOUR_MS)
            if len(recent) >= self._at_most:
                _log.warning("too_many_searches", person=ask.by.name, at_most=self._at_most)
                retry_s = -(-(recent[0] + HOUR_MS - now_ms) // MS_PER_S)
                raise TooManySearchesError(self._at_most, retry_s)
            row = audit.act(
                ask.by,
                ask.via,
                Action.CUSTOMER_FIND,
                id,
                at_ms=now_ms,
                before=revision,
                after=revision + 1,
                reason=case,
            )
            entry = audit.entry(row, revision + 1, life=0)
            if await self._records.put(id, Searches((*recent, now_ms)), revision, entry):
                return
        raise SessionBusyError
