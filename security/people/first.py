"""The first security officer: made with a secret that is printed on the host, good for a quarter of an hour.

Who can read the host's output is trusted with it (there is nobody yet who could be asked). Once an officer
has logged in, the secret is worth nothing, and no start makes another.
"""

from typing import Final

from infra.clock import Clock
from infra.ids import Ids
from security.audit import NOBODY, Refusals, Via
from security.people import opaque
from security.people.accounts import FIRST, Accounts, Factor
from security.people.errors import LoginRefusedError
from security.policy import Role
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
        """Return this start's secret, to be shown once; None when there is an officer already."""
        if await self._accounts.active_officers():
            return None
        secret = opaque.new(opaque.FIRST, ids)
        self._digest, self._until_s = opaque.digest(secret), self._clock.elapsed_s() + LIFE_S
        return secret

    async def begin(self, secret: Secret, login: str, password: Secret, via: Via) -> Factor:
        """Make the first officer; again, until their first login, is anew.

        Raises:
            LoginRefusedError: the secret is wrong or too old, or there is an officer.
        """
        right = (
            self._digest is not None
            and len(secret.reveal()) <= opaque.CHARS_MAX
            and opaque.is_same(self._digest, secret)
            and self._clock.elapsed_s() < self._until_s
        )
        if not right or await self._accounts.active_officers():
            self._refusals.note(NOBODY, via, "principal.create", "first", "secret, time, or there is one")
            raise LoginRefusedError
        return await self._accounts.begin(FIRST, login, Role.SECURITY, password, via=via)
