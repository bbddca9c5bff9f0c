"""What is kept of a person, and what may become of it. Pure: values in, values out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from infra.clock import MS_PER_S
from security.people.errors import AccountStateError, InvalidAccountError
from security.policy import Role

STAFF: Final = frozenset({Role.REP, Role.INSTALLER, Role.OPERATOR, Role.SECURITY, Role.AUDITOR})
"""Roles of the utility's own people: a second factor is a must."""
PERSON_ROLES: Final = STAFF | {Role.CUSTOMER}
FREE_TRIES: Final = 3
DELAY_S_MAX: Final = 300
"""A try that fails makes the next one wait, twice as long each time, up to this. Nobody is locked out."""
LOGIN_FAILURES_MAX: Final = 100
"""Logins to one account that may fail within :data:`LOGINS_WINDOW_S`, from wherever they come."""
LOGINS_WINDOW_S: Final = 3_600
NOTICES_MAX: Final = 10
DECISIONS_KEPT_MAX: Final = 16
INVITATION_S: Final = 7 * 86_400
_LOGIN: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
_ACCOUNT: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")


class State(StrEnum):
    """Where an account is in its life."""

    HELD = "held"
    """Asked for by one person, not yet approved by another."""
    INVITED = "invited"
    """May choose a password; becomes active with the first login."""
    ACTIVE = "active"
    DISABLED = "disabled"


class Trigger(StrEnum):
    """What changes the state."""

    APPROVED = "approved"
    PROVED = "proved"
    DISABLED = "disabled"
    RESET = "reset"


NEXT: Final[Mapping[tuple[State, Trigger], State]] = MappingProxyType(
    {
        (State.HELD, Trigger.APPROVED): State.INVITED,
        (State.HELD, Trigger.DISABLED): State.DISABLED,
        (State.INVITED, Trigger.PROVED): State.ACTIVE,
        (State.INVITED, Trigger.RESET): State.INVITED,
        (State.INVITED, Trigger.DISABLED): State.DISABLED,
        (State.ACTIVE, Trigger.PROVED): State.ACTIVE,
        (State.ACTIVE, Trigger.RESET): State.INVITED,
        (State.ACTIVE, Trigger.DISABLED): State.DISABLED,
        (State.DISABLED, Trigger.RESET): State.INVITED,
        (State.DISABLED, Trigger.DISABLED): State.DISABLED,
    }
)
MAY_TRY: Final = frozenset(state for state, trigger in NEXT if trigger is Trigger.PROVED)
"""States in which a right password is worth anything."""


class Notice(StrEnum):
    """What a person is told at the next login."""

    SESSION_STOLEN = "session-stolen"
    """A refresh token came a second time: somebody else has, or had, a copy. That session was ended."""
    RECOVERY_CODE_USED = "recovery-code-used"


@dataclass(frozen=True, slots=True)
class Told:
    """A notice and its time."""

    notice: Notice
    at_ms: int


@dataclass(frozen=True, slots=True)
class Invitation:
    """Lets its holder choose the password; kept as SHA-256."""

    sha256: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class Failures:
    """Logins that failed, and since when they are counted."""

    count: int = 0
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Person:
    """An account of a person. ``id`` is what the audit knows; the login name stays here."""

    id: str
    login: str
    role: Role
    state: State
    made_ms: int
    account: str = ""
    """A customer's own."""
    password: str | None = None
    totp: bytes | None = None
    """The sealed seed."""
    totp_step: int = 0
    """The last step whose code was taken."""
    totp_next: bytes | None = None
    """A seed that takes the place of the other once a code of it has come."""
    recovery: tuple[str, ...] = ()
    invitation: Invitation | None = None
    epoch: int = 1
    failures: int = 0
    """Proofs in a row that failed and were shown by who is logged in: no stranger can add to them."""
    retry_at_ms: int = 0
    logins: Failures = Failures()
    decisions: tuple[str, ...] = ()
    """Held acts that were done to the account, so that none is done twice."""
    notices: tuple[Told, ...] = ()
    thefts: int = 0
    """Sessions of which somebody had a copy."""

    @property
    def generation(self) -> int:
        """That of access tokens: a theft ends them all, and no other session, which gets new ones."""
        return self.epoch + self.thefts


def parse_login(text: str) -> str:
    """Return a login name as it is kept; capitals make no difference."""
    login = text.strip().lower()
    if not _LOGIN.fullmatch(login):
        raise InvalidAccountError(
            "a login name has 1 to 64 of a-z 0-9 . _ @ + - and begins with a letter or digit"
        )
    return login


def check_new(role: Role, account: str) -> None:
    """Refuse what cannot be a person's."""
    if role not in PERSON_ROLES:
        raise InvalidAccountError(f"a person has one of the roles: {', '.join(sorted(PERSON_ROLES))}")
    if (role is Role.CUSTOMER) is not bool(account):
        raise InvalidAccountError("a customer has an account, and nobody else has one")
    if account and not _ACCOUNT.fullmatch(account):
        raise InvalidAccountError("an account has 1 to 128 of a-z A-Z 0-9 : _ -")


def step(person: Person, trigger: Trigger) -> Person:
    """Return the person in the next state."""
    after = NEXT.get((person.state, trigger))
    if after is None:
        raise AccountStateError(f"this account is {person.state}: it cannot be {trigger} now")
    return replace(person, state=after)


def count_try(person: Person, now_ms: int) -> Person:
    """Return the person with a proof counted *before* it is made, so that many at once are not one."""
    failures = person.failures + 1
    return replace(person, failures=failures, retry_at_ms=now_ms + delay_s(failures) * MS_PER_S)


def delay_s(failures: int) -> int:
    """Return how long to wait after so many failures in a row."""
    if failures <= FREE_TRIES:
        return 0
    return min(DELAY_S_MAX, 1 << min(failures - FREE_TRIES, 16))


def wait_s(retry_at_ms: int, now_ms: int) -> int:
    """Return how many seconds are left; a clock that was set back makes nobody wait longer than the bound."""
    left_ms = min(retry_at_ms - now_ms, DELAY_S_MAX * MS_PER_S)
    return max(0, -(-left_ms // MS_PER_S))


def count_login(before: Failures, now_ms: int) -> Failures:
    """Return the failures with one counted before it is made."""
    if _is_over(before, now_ms):
        return Failures(1, now_ms)
    return replace(before, count=before.count + 1)


def login_wait_s(failures: Failures, now_ms: int) -> int:
    """Return how long nobody logs in to an account that was tried too often."""
    if failures.count < LOGIN_FAILURES_MAX or _is_over(failures, now_ms):
        return 0
    return max(1, LOGINS_WINDOW_S - (now_ms - failures.since_ms) // MS_PER_S)


def _is_over(failures: Failures, now_ms: int) -> bool:
    # A clock that was set back lengthens nothing.
    return not 0 <= now_ms - failures.since_ms < LOGINS_WINDOW_S * MS_PER_S


def proved(person: Person) -> Person:
    """Return the person after a login that was right."""
    person = step(person, Trigger.PROVED)
    return replace(person, failures=0, retry_at_ms=0, logins=Failures(), invitation=None)


def reset(person: Person, invitation: Invitation) -> Person:
    """Return the person who has to begin anew: no password, no second factor, no session."""
    return replace(
        step(person, Trigger.RESET),
        password=None,
        totp=None,
        totp_next=None,
        recovery=(),
        invitation=invitation,
        epoch=person.epoch + 1,
        failures=0,
        retry_at_ms=0,
        logins=Failures(),
    )


def decided(decisions: tuple[str, ...], decision: str) -> tuple[str, ...]:
    """Return the decisions with one more; what is no decision of two persons has none."""
    return (*decisions, decision)[-DECISIONS_KEPT_MAX:] if decision else decisions


def told(person: Person, notice: Notice, at_ms: int) -> Person:
    """Return the person with something to be told."""
    return replace(person, notices=(*person.notices, Told(notice, at_ms))[-NOTICES_MAX:])


def robbed(person: Person, at_ms: int) -> Person:
    """Return the person after one of their sessions was seen in two hands."""
    return replace(told(person, Notice.SESSION_STOLEN, at_ms), thefts=person.thefts + 1)


def needs_factor(person: Person) -> bool:
    """Tell whether a password alone is not enough."""
    return person.role in STAFF or person.totp is not None
