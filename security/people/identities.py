"""From a bearer token to a principal: the token says who, the store says what they are now."""

from dataclasses import dataclass
from typing import Final, Protocol

from infra.clock import Clock
from security.people.epochs import SystemEpoch
from security.people.keys import FRESH_S, TokenKeys
from security.people.tokens import AccessTokens
from security.policy import Principal

STANDINGS_MAX: Final = 10_000
"""Accounts remembered at a time; the oldest is forgotten first."""


@dataclass(frozen=True, slots=True)
class Standing:
    """An account as requests are judged by: only one that is active has one."""

    principal: Principal
    epoch: int


class Standings(Protocol):
    """Looks an account up."""

    async def standing(self, id: str) -> Standing | None:
        """Return how the account stands; None when nothing may be done with it."""
        ...


class Identities:
    """Tells who holds a token; what was taken from somebody counts at most :data:`FRESH_S` later."""

    def __init__(
        self, tokens: AccessTokens, keys: TokenKeys, epoch: SystemEpoch, standings: Standings, clock: Clock
    ) -> None:
        self._tokens = tokens
        self._keys = keys
        self._epoch = epoch
        self._standings = standings
        self._clock = clock
        self._known: dict[str, tuple[Standing | None, float]] = {}

    async def principal(self, bearer: str) -> Principal | None:
        """Return whose token this is, None for every text that is no good token now."""
        await self._keys.refresh()
        claims = self._tokens.verify(bearer)
        if claims is None or claims.epochs.system != await self._epoch.current():
            return None
        standing = await self._standing(claims.subject)
        return None if standing is None or standing.epoch != claims.epochs.own else standing.principal

    def forget(self, id: str) -> None:
        """Look the account up anew: it has changed."""
        self._known.pop(id, None)

    async def _standing(self, id: str) -> Standing | None:
        now_s = self._clock.elapsed_s()
        standing, loaded_s = self._known.get(id, (None, None))
        if loaded_s is not None and now_s - loaded_s <= FRESH_S:
            return standing
        standing = await self._standings.standing(id)
        self._known.pop(id, None)
        if len(self._known) >= STANDINGS_MAX:
            del self._known[next(iter(self._known))]
        self._known[id] = (standing, now_s)
        return standing
