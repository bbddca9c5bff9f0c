"""Sessions: a refresh token that changes at every use, and what happens when an old one comes back.

A family is one login. Its current token gives a new one; one that was used before shows that two hold copies,
so the family ends, all access tokens of its person end, and they are told. All tokens of a family bear its
mark: to know the family's name, which the audit holds, ends no session. Who did not get the answer may ask
once more, for ten seconds and only while the token they did not get is unused.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import structlog

from infra.clock import MS_PER_S, Clock
from infra.documents.port import DocumentStore, Entry
from infra.ids import Ids
from security import audit
from security.audit import NOBODY, Refusals, Via
from security.people import opaque
from security.people.accounts import Accounts, principal_of
from security.people.epochs import SystemEpoch
from security.people.errors import LoginRefusedError, PeopleBusyError
from security.people.persons import STAFF, Person, State
from security.people.records import SAVE_ATTEMPTS_MAX, SESSIONS, Kept, Records
from security.people.tokens import AccessToken, AccessTokens, Epochs
from security.policy import Role
from security.secret import Secret
from security.tries import Windows, require

STAFF_S: Final = 12 * 3_600
CUSTOMER_S: Final = 30 * 86_400
RETRY_S: Final = 10
REFRESHES_MAX: Final = 60
"""Of one family in :data:`REFRESHES_WITHIN_S`: each is a row of the audit, kept for years."""
REFRESHES_WITHIN_S: Final = 3_600.0
SESSIONS_PER_PERSON_MAX: Final = 20
"""Families of one person; a login beyond ends the oldest."""
FAMILY_BITS: Final = 128
MARK_BITS: Final = 128
TOO_MANY: Final = "a newer session took its place"

_log: Final = structlog.get_logger(__name__)


class Verdict(StrEnum):
    """What a refresh token is worth."""

    CURRENT = "current"
    RETRY = "retry"
    """The one before, for whom the answer got lost."""
    STOLEN = "stolen"
    DEAD = "dead"
    """The family has ended."""


@dataclass(frozen=True, slots=True)
class Session:
    """A family of refresh tokens; of each there is only the SHA-256."""

    person: str
    epochs: Epochs
    current: str
    mark: str
    made_ms: int
    until_ms: int
    rotated_ms: int
    previous: str = ""
    retried: bool = False
    ended: str = ""
    """Why it ended."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What somebody gets who has proved who they are."""

    access: AccessToken
    refresh: Secret | None = None
    refresh_s: int = 0


def judge(session: Session, token: Secret, now_ms: int) -> Verdict:
    """Tell what a token of this family is worth now."""
    if session.ended or now_ms >= session.until_ms:
        return Verdict.DEAD
    if opaque.is_same(session.current, token):
        return Verdict.CURRENT
    was_last = session.previous != "" and opaque.is_same(session.previous, token)
    waited_ms = now_ms - session.rotated_ms
    if was_last and not session.retried and 0 <= waited_ms <= RETRY_S * MS_PER_S:
        return Verdict.RETRY
    return Verdict.STOLEN


def rotated(session: Session, verdict: Verdict, fresh: str, now_ms: int) -> Session:
    """Return the session with a fresh token in place of the one that was used."""
    if verdict is Verdict.RETRY:
        # The successor that got lost is worth nothing any more: should it come, two hold copies.
        return replace(session, current=fresh, retried=True)
    return replace(session, previous=session.current, current=fresh, rotated_ms=now_ms, retried=False)


def life_s_of(role: Role) -> int:
    """Return how long a session lasts, however often it is refreshed."""
    return STAFF_S if role in STAFF else CUSTOMER_S


class Sessions:
    """Opens, refreshes and ends sessions."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        ids: Ids,
        tokens: AccessTokens,
        epoch: SystemEpoch,
        accounts: Accounts,
        refusals: Refusals,
    ) -> None:
        self._records = Records(
            store, SESSIONS, Session, lambda one: {"person": one.person, "until_ms": one.until_ms}
        )
        self._clock = clock
        self._ids = ids
        self._tokens = tokens
        self._epoch = epoch
        self._accounts = accounts
        self._refusals = refusals
        self._refreshes = Windows(REFRESHES_MAX, REFRESHES_WITHIN_S)

    async def open(self, person: Person, via: Via) -> Granted:
        """Begin a session for somebody who has just proved who they are."""
        await self._make_room(person, via)
        family, now_ms = self._ids.token(FAMILY_BITS), self._clock.now_ms()
        mark = Secret(self._ids.token(MARK_BITS))
        refresh = self._token(family, mark)
        life_s = life_s_of(person.role)
        session = Session(
            person=person.id,
            epochs=Epochs(await self._epoch.current(), person.epoch),
            current=opaque.digest(refresh),
            mark=opaque.digest(mark),
            made_ms=now_ms,
            until_ms=now_ms + life_s * MS_PER_S,
            rotated_ms=now_ms,
        )
        entry = self._entry(person, via, "session.open", family, 0)
        if not await self._records.put(family, session, 0, entry):
            raise PeopleBusyError
        return Granted(self._access(person, session), refresh, life_s)

    async def refresh(self, token: Secret, via: Via) -> Granted:
        """Return a new pair for a refresh token.

        Raises:
            LoginRefusedError: the token is worth nothing; if it was stolen, its family has ended now.
            TooManyTriesError: there were too many; the token stays good.
        """
        for _ in range(SAVE_ATTEMPTS_MAX):
            family, kept, person = await self._known(token, via)
            now_ms = self._clock.now_ms()
            verdict = judge(kept.record, token, now_ms)
            if verdict is Verdict.DEAD or not await self._counts(kept.record, person):
                self._refusals.note(
                    principal_of(person), via, "session.refresh", f"session/{family}", "ended"
                )
                raise LoginRefusedError
            if verdict is Verdict.STOLEN:
                if await self._end(family, kept, person, via, "session.reuse", "a used refresh token came"):
                    await self._alarm(family, person)
                    raise LoginRefusedError
                continue
            self._count(family)
            fresh = self._token(family, _mark_of(token))
            after = rotated(kept.record, verdict, opaque.digest(fresh), now_ms)
            entry = self._entry(person, via, "session.refresh", family, kept.revision)
            if await self._records.put(family, after, kept.revision, entry):
                left_s = max(1, (after.until_ms - now_ms) // MS_PER_S)
                return Granted(self._access(person, after), fresh, left_s)
        raise PeopleBusyError

    def _count(self, family: str) -> None:
        now_s = self._clock.elapsed_s()
        require(self._refreshes.wait_s(family, now_s))
        self._refreshes.add(family, now_s)

    async def close(self, token: Secret, via: Via) -> None:
        """End a session by its current refresh token; what is no token ends nothing, and is not told so."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            try:
                family, kept, person = await self._known(token, via)
            except LoginRefusedError:
                return
            if judge(kept.record, token, self._clock.now_ms()) is Verdict.DEAD:
                return
            if await self._end(family, kept, person, via, "session.close", ""):
                return
        raise PeopleBusyError

    async def sweep(self, limit: int) -> int:
        """Delete what has been over long since."""
        return await self._records.sweep("until_ms", self._clock.now_ms(), limit)

    async def _known(self, token: Secret, via: Via) -> tuple[str, Kept[Session], Person]:
        family = opaque.owner_of(opaque.REFRESH, token)
        kept = None if family is None else await self._records.load(family)
        person = None if kept is None else await self._accounts.find(kept.record.person)
        is_ours = kept is not None and opaque.is_same(kept.record.mark, _mark_of(token))
        if family is None or kept is None or person is None or not is_ours:
            self._refusals.note(NOBODY, via, "session.refresh", "session", "no such session")
            raise LoginRefusedError
        return family, kept, person

    async def _counts(self, session: Session, person: Person) -> bool:
        now = Epochs(await self._epoch.current(), person.epoch)
        return person.state is State.ACTIVE and session.epochs == now

    async def _end(
        self, family: str, kept: Kept[Session], person: Person, via: Via, action: str, reason: str
    ) -> bool:
        after = replace(kept.record, ended=action)
        entry = self._entry(person, via, action, family, kept.revision, reason)
        return await self._records.put(family, after, kept.revision, entry)

    async def _alarm(self, family: str, person: Person) -> None:
        _log.warning("session_stolen", session=family, person=person.id)
        await self._accounts.note_theft(person.id)

    def _token(self, family: str, mark: Secret) -> Secret:
        return opaque.new(opaque.REFRESH, self._ids, f"{family}.{mark.reveal()}")

    async def _make_room(self, person: Person, via: Via) -> None:
        """Keep a person's sessions below their bound: the oldest gives way."""
        page = await self._records.page("person", person.id, person.id, SESSIONS_PER_PERSON_MAX)
        if len(page.ids) >= SESSIONS_PER_PERSON_MAX:
            oldest = min(range(len(page.ids)), key=lambda place: page.records[place].until_ms)
            kept = await self._records.load(page.ids[oldest])
            if kept is not None:
                entry = self._entry(person, via, "session.close", page.ids[oldest], kept.revision, TOO_MANY)
                await self._records.take(
                    page.ids[oldest], kept.revision, None if kept.record.ended else entry
                )

    def _access(self, person: Person, session: Session) -> AccessToken:
        epochs = replace(session.epochs, own=person.generation)
        return self._tokens.issue(person.id, person.role, epochs)

    def _entry(
        self, person: Person, via: Via, action: str, family: str, before: int, reason: str = ""
    ) -> Entry:
        row = audit.act(
            principal_of(person),
            via,
            action,
            f"session/{family}",
            at_ms=self._clock.now_ms(),
            before=before,
            after=before + 1,
            reason=reason,
        )
        return audit.entry(row, before + 1, life=0)


def _mark_of(token: Secret) -> Secret:
    """Return the mark in a refresh token: what stands between its dots."""
    return Secret(token.reveal()[: opaque.CHARS_MAX].partition(".")[2].partition(".")[0])
