"""The first security officer: made with a secret that is printed on the host, good for a quarter of an hour.

Who can read the host's output is trusted with it (there is nobody yet who could be asked). Once an officer
has logged in, the secret is worth nothing, and no start makes another, until there is nobody again whom two
persons could ask: no officer is left, or one is whose second has gone.
"""

from typing import Final

from infra.clock import Clock
from infra.ids import Ids
from security.audit import NOBODY, Refusals, Via
from security.people import opaque
from security.people.accounts import Accounts, Factor
from security.people.errors import LoginRefusedError
from security.secret import Secret

LIFE_S: Final = 900


class FirstOfficer:
    """Knows the secret of this start when it sees it."""

    def __init__(self, accounts: Accounts, clock: Clock, refusals: Refusals) -> None:
        self._accounts = accounts
        self._clock = clock
        self._refusals = refusals
        self._digest: str | None = None
        self._until_s = 0.0

    async def open(self, ids: Ids) -> Secret | None:
        """Return this start's secret, to be shown once; None when there are officers enough."""
        if not await self._accounts.needs_host():
            return None
        secret = opaque.new(opaque.FIRST, ids)
        self._digest, self._until_s = opaque.digest(secret), self._clock.elapsed_s() + LIFE_S
        return secret

    async def begin(self, secret: Secret, login: str, password: Secret, via: Via) -> Factor:
        """Make an officer; again, until their first login, is anew.

        Raises:
            LoginRefusedError: the secret is wrong or too old, or there are officers enough.
        """
        right = (
            self._digest is not None
            and len(secret.reveal()) <= opaque.CHARS_MAX
            and opaque.is_same(self._digest, secret)
            and self._clock.elapsed_s() < self._until_s
        )
        if not right or not await self._accounts.needs_host():
            self._refusals.note(NOBODY, via, "principal.create", "first", "secret, time, or there is one")
            raise LoginRefusedError
        return await self._accounts.begin_officer(login, password, via)
