"""Step-up: a second factor that was shown a moment ago, for exactly one act.

What was confirmed is what runs: the token is bound to action, target and body, lives two minutes and works
once, whichever process it is shown to.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from infra.clock import MS_PER_S, Clock
from infra.documents.port import DocumentStore
from infra.ids import Ids
from security import audit
from security.audit import Via
from security.people import opaque
from security.people.accounts import Accounts
from security.people.errors import InvalidAccountError, PeopleBusyError
from security.people.records import STEP_UPS, Records
from security.policy import Action, Principal
from security.secret import Secret

LIFE_S: Final = 120
TARGET_CHARS_MAX: Final = 2_048
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StepUp:
    """A token not yet used; the document's id is its SHA-256."""

    person: str
    bound: str
    until_ms: int


def binding(action: Action, target: str, body_sha256: str) -> str:
    """Return what a token is bound to. No part holds a line feed, so no two acts are spelled alike."""
    return hashlib.sha256(f"{action}\n{target}\n{body_sha256}".encode(errors="replace")).hexdigest()


class StepUps:
    """Gives tokens out and takes them back."""

    def __init__(self, store: DocumentStore, clock: Clock, ids: Ids, accounts: Accounts) -> None:
        self._records = Records(store, STEP_UPS, StepUp, lambda one: {"until_ms": one.until_ms})
        self._clock = clock
        self._ids = ids
        self._accounts = accounts

    async def issue(
        self, by: Principal, code: str, action: Action, target: str, body_sha256: str, via: Via
    ) -> Secret:
        """Return a token for one act, for a fresh time-based code.

        Raises:
            LoginRefusedError: the code is not right, or was used.
        """
        _check(target, body_sha256)
        await self._accounts.show_code(by.name, code, via, "step_up.issue")
        token, now_ms = opaque.new(opaque.STEP_UP, self._ids), self._clock.now_ms()
        id = opaque.digest(token)
        step_up = StepUp(by.name, binding(action, target, body_sha256), now_ms + LIFE_S * MS_PER_S)
        row = audit.act(by, via, "step_up.issue", f"step_up/{id[:16]}", at_ms=now_ms, before=0, after=1)
        if not await self._records.put(id, step_up, 0, audit.entry(row, 1, life=0)):
            raise PeopleBusyError
        return token

    async def take(self, by: Principal, action: Action, target: str, body_sha256: str, token: str) -> bool:
        """Tell whether the token is for exactly this act by this person; it is used up then."""
        if not token.startswith(opaque.STEP_UP) or len(token) > opaque.CHARS_MAX:
            return False
        id = opaque.digest(Secret(token))
        kept = await self._records.load(id)
        if kept is None:
            return False
        step_up, now_ms = kept.record, self._clock.now_ms()
        # A clock that was set back lengthens no life.
        lives = 0 < step_up.until_ms - now_ms <= LIFE_S * MS_PER_S
        fits = step_up.person == by.name and step_up.bound == binding(action, target, body_sha256)
        return lives and fits and await self._records.take(id, kept.revision)

    async def sweep(self, limit: int) -> int:
        """Delete what was never used."""
        return await self._records.sweep("until_ms", self._clock.now_ms(), limit)


def _check(target: str, body_sha256: str) -> None:
    if not target.isprintable() or not 1 <= len(target) <= TARGET_CHARS_MAX:
        raise InvalidAccountError(f"target has 1 to {TARGET_CHARS_MAX} printable characters")
    if not _SHA256.fullmatch(body_sha256):
        raise InvalidAccountError("body_sha256 has 64 of 0-9 a-f")
