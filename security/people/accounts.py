"""Accounts of people: made, proved, changed, ended. Rules are in ``persons`` and ``factors``.

Every change is one compare-and-set of the person, with its audit row in the same write; the audit knows the
account's id, never the login name. A try is counted before it is made, so that many at once are not one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from infra.clock import MS_PER_S, Clock
from infra.documents.port import DocumentStore, Entry
from infra.ids import Ids
from security import audit
from security.audit import INSIDE, NOBODY, Refusals, Via
from security.hashing import FULL, Cost, Hashing
from security.people import factors, opaque, passwords, persons, totp
from security.people.errors import (
    AccountStateError,
    ApprovalNeededError,
    InvalidAccountError,
    LastOfficerError,
    LoginRefusedError,
    LoginTakenError,
    PeopleBusyError,
    PersonNotFoundError,
)
from security.people.persons import Invitation, Person, State, Told, Trigger
from security.people.records import LOGINS, PEOPLE, SAVE_ATTEMPTS_MAX, Kept, RecordPage, Records
from security.people.tries import LoginTries, Strangers
from security.policy import Principal, Role
from security.secret import Secret
from security.secretbox import SecretBox
from security.tries import require

ID_BITS: Final = 80
CLAIM_S: Final = 60
"""A login name is kept free so long for an account that is being made."""
OFFICERS_COUNTED_MAX: Final = 100
FIRST: Final = "#first"
"""Stands among the login names for the account of the first security officer."""
RECOVERIES_MAX: Final = 100
"""Further officers that were ever made on the host."""
SECOND: Final = "#second"
"""Stands there, for ever, from when a second security officer logs in."""
ENDING: Final = "#ending"
"""Says which officer is being ended: one at a time, or two could end each other."""
NOBODIES: Final = 64
"""Places where a try of a name that nobody has is written, so that it takes as long as one of a name."""
_NO_NAME: Final = "#"
_ROLES: Final = sorted(role.value for role in persons.PERSON_ROLES)

Listener = Callable[[str], None]
"""Is told the id of an account whose standing has changed. Must not raise or wait."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose a login name is; the document's id is the name, so there is one owner."""

    person: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Factor:
    """A new second factor, shown once."""

    seed: Secret
    uri: Secret
    recovery_codes: tuple[Secret, ...]


@dataclass(frozen=True, slots=True)
class Proved:
    """A person who has just proved who they are, and what they have to be told."""

    person: Person
    notices: tuple[Told, ...]


class Accounts:
    """All accounts of people."""

    def __init__(
        self,
        store: DocumentStore,
        clock: Clock,
        ids: Ids,
        box: SecretBox,
        hashing: Hashing,
        refusals: Refusals,
        *,
        cost: Cost = FULL,
    ) -> None:
        self._people = Records(store, PEOPLE, Person, lambda person: {"role": person.role.value})
        self._logins = Records(store, LOGINS, Claim)
        self._clock = clock
        self._ids = ids
        self._box = box
        self._hashing = hashing
        self._refusals = refusals
        self._cost = cost
        self._strangers = Strangers(clock)
        self._login_tries = LoginTries(clock)
        self.listeners: list[Listener] = []

    # Look-ups

    async def person(self, id: str) -> Person:
        """Return a person."""
        return (await self._kept(id)).record

    async def find(self, id: str) -> Person | None:
        """Return a person, if there is one of this id."""
        kept = await self._people.load(id)
        return None if kept is None else kept.record

    async def at(self, place: str) -> Person | None:
        """Return the person that :meth:`begin` made for a place, if there is one."""
        kept = await self._logins.load(place)
        return None if kept is None else await self.find(kept.record.person)

    async def people(self, role: Role | None, limit: int, cursor: str | None) -> RecordPage[Person]:
        """Return a page of people, of one role or all."""
        low, high = (_ROLES[0], _ROLES[-1]) if role is None else (role.value, role.value)
        return await self._people.page("role", low, high, limit, cursor)

    async def active_officers(self) -> int:
        """Return how many security officers can log in (counted up to a bound)."""
        officers = await self.people(Role.SECURITY, OFFICERS_COUNTED_MAX, None)
        return sum(one.state is State.ACTIVE for one in officers.records)

    async def had_two_officers(self) -> bool:
        """Tell whether there ever were two security officers, whatever became of them."""
        return await self._logins.load(SECOND) is not None

    async def needs_host(self) -> bool:
        """Tell whether only who holds the host can make an officer: none is left, or one who had a second."""
        active = await self.active_officers()
        return active == 0 or (active == 1 and await self.had_two_officers())

    # Made and ended

    async def add(
        self,
        login: str,
        role: Role,
        account: str,
        by: Principal,
        via: Via = INSIDE,
        *,
        held: bool,
        reason: str = "",
    ) -> tuple[Person, Secret]:
        """Make an account; return it and the invitation with which its owner chooses a password.

        ``held``: the invitation is worth nothing before :meth:`approve`.
        """
        persons.check_new(role, account)
        id, now_ms = new_id(self._ids), self._clock.now_ms()
        secret, invitation = self._invitation(id, persons.INVITATION_S)
        person = Person(
            id=id,
            login=persons.parse_login(login),
            role=role,
            state=State.HELD if held else State.INVITED,
            made_ms=now_ms,
            account=account,
            invitation=invitation,
        )
        await self._claim(person.login, id)
        entry = self._entry(by, via, "principal.create", id, 0, reason)
        if not await self._people.put(id, person, 0, entry):
            raise PeopleBusyError
        return person, secret

    async def approve(self, id: str, by: Principal, via: Via, reason: str) -> Person:
        """Let a held account be used; again is no error."""

        def rule(person: Person) -> Person:
            return person if person.state is not State.HELD else persons.step(person, Trigger.APPROVED)

        return await self._change(id, rule, "principal.approve", by, via, reason)

    async def set_role(
        self,
        id: str,
        role: Role,
        account: str,
        by: Principal,
        via: Via,
        reason: str,
        *,
        decision: str = "",
    ) -> Person:
        """Give a person another role; all their sessions end. The same ``decision`` again changes nothing."""
        persons.check_new(role, account)

        def rule(person: Person) -> Person:
            if decision in person.decisions or (person.role, person.account) == (role, account):
                return person
            decisions = persons.decided(person.decisions, decision)
            return replace(person, role=role, account=account, epoch=person.epoch + 1, decisions=decisions)

        return await self._change(id, rule, "role.grant", by, via, reason)

    def invitation(self, id: str) -> tuple[Secret, Invitation]:
        """Return a new invitation for an account; :meth:`reset` makes it count."""
        return self._invitation(id, persons.INVITATION_S)

    async def reset(
        self,
        id: str,
        invitation: Invitation,
        by: Principal,
        via: Via,
        reason: str,
        *,
        decision: str = "",
    ) -> Person:
        """Let a person begin anew who has lost a factor; what they had opens nothing any more.

        The same ``decision`` again changes nothing.
        """

        def rule(person: Person) -> Person:
            if decision in person.decisions or person.invitation == invitation:
                return person
            decisions = persons.decided(person.decisions, decision)
            return replace(persons.reset(person, invitation), decisions=decisions)

        return await self._change(id, rule, "principal.reset", by, via, reason)

    async def disable(self, id: str, by: Principal, via: Via = INSIDE, reason: str = "") -> Person:
        """Let nobody log in to an account any more; all its sessions end."""
        await self.claim_end(id)

        def rule(person: Person) -> Person:
            if person.state is State.DISABLED:
                return person
            return replace(persons.step(person, Trigger.DISABLED), epoch=person.epoch + 1)

        return await self._change(id, rule, "principal.disable", by, via, reason)

    async def revoke(self, id: str, by: Principal, via: Via = INSIDE) -> Person:
        """End all sessions of a person, access tokens included."""
        return await self._change(
            id, lambda person: replace(person, epoch=person.epoch + 1), "principal.revoke", by, via
        )

    async def check_not_last_officer(self, id: str) -> None:
        """Raise if this is the only security officer who can log in."""
        person = await self.person(id)
        if (
            person.role is Role.SECURITY
            and person.state is State.ACTIVE
            and await self.active_officers() <= 1
        ):
            raise LastOfficerError

    async def claim_end(self, id: str) -> None:
        """Raise unless this may end as a security officer now; until it has, no other can.

        Raises:
            LastOfficerError: there is no other.
            PeopleBusyError: another one is being ended at this moment.
        """
        person = await self.person(id)
        if person.role is not Role.SECURITY or person.state is not State.ACTIVE:
            return
        kept, now_ms = await self._logins.load(ENDING), self._clock.now_ms()
        if kept is not None and kept.record.person != id and await self._is_ending(kept.record):
            raise PeopleBusyError
        await self.check_not_last_officer(id)
        if not await self._logins.put(ENDING, Claim(id, now_ms), 0 if kept is None else kept.revision):
            raise PeopleBusyError

    async def _is_ending(self, claim: Claim) -> bool:
        other = await self.find(claim.person)
        return (
            other is not None
            and other.role is Role.SECURITY
            and other.state is State.ACTIVE
            and 0 <= self._clock.now_ms() - claim.at_ms < CLAIM_S * MS_PER_S
        )

    # The first officer, and the demo

    async def begin_officer(self, login: str, password: Secret, via: Via) -> Factor:
        """Make a security officer on the word of who holds the host; see :meth:`needs_host`."""
        for number in range(RECOVERIES_MAX + 1):
            place = FIRST if number == 0 else f"{FIRST}-{number}"
            person = await self.at(place)
            if person is None or person.state is State.INVITED:
                return await self.begin(place, login, Role.SECURITY, password, via=via)
        raise LoginRefusedError

    async def begin(
        self, place: str, login: str, role: Role, password: Secret, account: str = "", via: Via = INSIDE
    ) -> Factor:
        """Make the one account that a place in the system is for; again, until its first login, is anew."""
        persons.check_new(role, account)
        login = persons.parse_login(login)
        passwords.check(password.reveal(), login)
        id = await self._place(place)
        hash = await self._hashing.hash(password, self._cost)
        await self._claim(login, id)
        kept = await self._people.load(id)
        if kept is not None and kept.record.state is not State.INVITED:
            raise LoginRefusedError
        seed, codes = totp.new_seed(self._ids), totp.new_recovery_codes(self._ids)
        person = Person(
            id=id,
            login=login,
            role=role,
            state=State.INVITED,
            made_ms=self._clock.now_ms(),
            account=account,
            password=hash,
            totp=self._seal(id, seed),
            recovery=tuple(totp.recovery_hash(code) for code in codes),
        )
        before = 0 if kept is None else kept.revision
        entry = self._entry(
            principal_of(person), via, "principal.create", id, before, reason=place.lstrip("#")
        )
        if not await self._people.put(id, person, before, entry):
            raise PeopleBusyError
        return _factor(login, seed, codes)

    async def accept(self, invitation: Secret, password: Secret, via: Via, *, factor: bool) -> Factor | None:
        """Choose a password with an invitation, which the first login ends; return the second factor.

        Raises:
            LoginRefusedError: this is no invitation (any more).
            ApprovalNeededError: a second person has not approved the account yet.
        """
        kept = await self._invited(invitation, via)
        person = kept.record
        passwords.check(password.reveal(), person.login)
        hash = await self._hashing.hash(password, self._cost)
        after, made = replace(person, password=hash, totp=None, recovery=(), totp_step=0), None
        if factor or person.role in persons.STAFF:
            seed, codes = totp.new_seed(self._ids), totp.new_recovery_codes(self._ids)
            hashes = tuple(totp.recovery_hash(code) for code in codes)
            after = replace(after, totp=self._seal(person.id, seed), recovery=hashes)
            made = _factor(person.login, seed, codes)
        entry = self._entry(principal_of(person), via, "invitation.accept", person.id, kept.revision)
        if not await self._people.put(person.id, after, kept.revision, entry):
            raise PeopleBusyError
        return made

    async def _invited(self, invitation: Secret, via: Via) -> Kept[Person]:
        id = opaque.owner_of(opaque.INVITATION, invitation)
        kept = None if id is None else await self._people.load(id)
        known = None if kept is None else kept.record.invitation
        if (
            kept is None
            or known is None
            or not opaque.is_same(known.sha256, invitation)
            or self._clock.now_ms() >= known.until_ms
            or kept.record.state not in {State.HELD, State.INVITED}
        ):
            self._refusals.note(NOBODY, via, "invitation.accept", "invitation", "no such invitation")
            raise LoginRefusedError
        if kept.record.state is State.HELD:
            raise ApprovalNeededError
        return kept

    # Proofs

    async def log_in(self, login: str, password: Secret, code: str, via: Via, *, address: str = "") -> Proved:
        """Return who has proved both factors. One hash is made, whoever asks for whomever.

        Raises:
            LoginRefusedError: not proved.
            TooManyTriesError: this name was tried too often from there, or much too often from everywhere; or
                too many log in from where they never did.
            HashingBusyError: too many log in at once.
        """
        person = await self._counted_by_login(login, address)
        await self._verify(person, password, via, "login")
        assert person is not None, "nobody has no password"
        kept = await self._kept(person.id)
        for _ in range(SAVE_ATTEMPTS_MAX):
            before = kept.record
            after = None if before.password != person.password else self._with_factor(before, code)
            if after is None:
                raise self._refused(before, via, "login", "factor or state")
            # What is told now is told; what this login itself gives rise to is for the next one.
            new = tuple(one for one in after.notices if one not in before.notices)
            done = replace(persons.proved(after), notices=new)
            if before.state is not done.state and done.role is Role.SECURITY:
                await self._note_officer()
            entry = self._login_entry(before, done, kept.revision, via)
            if await self._put(kept, done, entry):
                self._login_tries.proved(done.login, address)
                return Proved(done, before.notices)
            kept = await self._kept(person.id)
        raise PeopleBusyError

    async def _note_officer(self) -> None:
        """Remember, before an officer becomes active, that there were two."""
        if await self.active_officers() and not await self.had_two_officers():
            # Lost: somebody else has just written it.
            await self._logins.put(SECOND, Claim("", self._clock.now_ms()), 0)

    async def prove(self, id: str, password: Secret, code: str, via: Via, action: str) -> Person:
        """Return a person who has proved both factors again, for a change of their own account."""
        person = await self._counted(id)
        await self._verify(person, password, via, action)
        return await self._factored(person, lambda one: self._with_factor(one, code), via, action)

    async def show_code(self, id: str, code: str, via: Via, action: str) -> Person:
        """Return a person who has just shown a time-based code; a recovery code does not count as fresh."""
        person = await self._counted(id)

        def rule(one: Person) -> Person | None:
            seed = self._seed(one.id, one.totp)
            return None if seed is None else factors.with_code(one, seed, code, self._clock.now_ms())

        return await self._factored(person, rule, via, action)

    async def _factored(
        self, person: Person, rule: Callable[[Person], Person | None], via: Via, action: str
    ) -> Person:
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._kept(person.id)
            after = rule(kept.record) if kept.record.password == person.password else None
            if after is None:
                raise self._refused(person, via, action, "factor or state")
            after = replace(after, failures=0, retry_at_ms=0)
            entry = self._recovery_entry(kept.record, after, kept.revision, via)
            if await self._put(kept, after, entry):
                return after
        raise PeopleBusyError

    async def _verify(self, person: Person | None, password: Secret, via: Via, action: str) -> None:
        hash = None if person is None else person.password
        if len(password.reveal()) > passwords.CHARS_MAX:
            # Never one of ours, and it must not make the hash dearer.
            password, hash = Secret(""), None
        if not await self._hashing.verify(hash, password, self._cost):
            raise self._refused(person, via, action, "password")

    def _refused(self, person: Person | None, via: Via, action: str, reason: str) -> LoginRefusedError:
        by = NOBODY if person is None else principal_of(person)
        self._refusals.note(by, via, action, "" if person is None else f"person/{person.id}", reason)
        return LoginRefusedError()

    async def _counted_by_login(self, login: str, address: str) -> Person | None:
        try:
            name = persons.parse_login(login)
        except InvalidAccountError:
            name = _NO_NAME
        tried = login if name == _NO_NAME else name
        self._login_tries.count(tried, address)
        claim = await self._logins.load(name)
        kept = None if claim is None else await self._people.load(claim.record.person)
        if kept is not None and kept.record.login == name:
            return await self._counted_login(kept.record.id, known=self._login_tries.is_known(name, address))
        self._strangers.count(tried)
        await self._count_nobody()
        return None

    async def _count_nobody(self) -> None:
        """Ask and write as :meth:`_counted_login`: neither a hash nor the disk tells who has an account."""
        place = f"#nobody-{self._ids.number() % NOBODIES}"
        await self._people.load(place)
        kept = await self._logins.load(place)
        claim = Claim("", self._clock.now_ms())
        # Lost: somebody else has just written there, which is all it is for.
        await self._logins.put(place, claim, 0 if kept is None else kept.revision)

    async def _counted_login(self, id: str, *, known: bool) -> Person:
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept, now_ms = await self._kept(id), self._clock.now_ms()
            before = kept.record
            require(0 if known else persons.login_wait_s(before.logins, now_ms))
            after = replace(before, logins=persons.count_login(before.logins, now_ms))
            if await self._put(kept, after, None):
                return after
        raise PeopleBusyError

    async def _counted(self, id: str) -> Person:
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept, now_ms = await self._kept(id), self._clock.now_ms()
            require(persons.wait_s(kept.record.retry_at_ms, now_ms))
            after = persons.count_try(kept.record, now_ms)
            if await self._put(kept, after, None):
                return after
        raise PeopleBusyError

    # One's own account

    async def change_password(self, id: str, password: Secret, code: str, new: Secret, via: Via) -> None:
        """Take another password; all sessions end, this one too."""
        passwords.check(new.reveal(), (await self.person(id)).login)
        proved = await self.prove(id, password, code, via, "password.change")
        hash = await self._hashing.hash(new, self._cost)

        def rule(person: Person) -> Person:
            if person.password != proved.password:
                raise AccountStateError("the password was changed meanwhile: begin again")
            return replace(person, password=hash, epoch=person.epoch + 1)

        await self._change(id, rule, "password.change", principal_of(proved), via)

    async def begin_factor(self, id: str, password: Secret, code: str, via: Via) -> Factor:
        """Return a new second factor; it counts once :meth:`confirm_factor` has seen a code of it."""
        proved = await self.prove(id, password, code, via, "factor.begin")
        seed = totp.new_seed(self._ids)
        sealed = self._seal(id, seed)
        await self._change(
            id, lambda person: replace(person, totp_next=sealed), "factor.begin", principal_of(proved), via
        )
        return _factor(proved.login, seed, ())

    async def confirm_factor(self, id: str, code: str, via: Via) -> tuple[Secret, ...]:
        """Let the new second factor count; return new recovery codes, the old ones are worth nothing."""
        person = await self._counted(id)
        codes = totp.new_recovery_codes(self._ids)
        hashes = tuple(totp.recovery_hash(one) for one in codes)

        def rule(one: Person) -> Person:
            seed = self._seed(id, one.totp_next)
            step = None if seed is None else totp.matching_step(seed, code, self._clock.now_ms(), 0)
            if step is None:
                raise self._refused(person, via, "factor.replace", "factor")
            return replace(
                one,
                totp=one.totp_next,
                totp_next=None,
                totp_step=step,
                recovery=hashes,
                failures=0,
                retry_at_ms=0,
            )

        await self._change(id, rule, "factor.replace", principal_of(person), via)
        return tuple(Secret(one) for one in codes)

    async def note_theft(self, id: str) -> None:
        """End a person's access tokens, and have them told at the next login that a session was stolen."""
        now_ms = self._clock.now_ms()
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._people.load(id)
            if kept is None or await self._put(kept, persons.robbed(kept.record, now_ms), None):
                return
        raise PeopleBusyError

    # Details

    async def _kept(self, id: str) -> Kept[Person]:
        kept = await self._people.load(id) if id.startswith("p-") else None
        if kept is None:
            raise PersonNotFoundError
        return kept

    async def _change(
        self,
        id: str,
        rule: Callable[[Person], Person],
        action: str,
        by: Principal,
        via: Via,
        reason: str = "",
    ) -> Person:
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._kept(id)
            after = rule(kept.record)
            if after == kept.record:
                return after
            if await self._put(kept, after, self._entry(by, via, action, id, kept.revision, reason)):
                return after
        raise PeopleBusyError

    async def _put(self, kept: Kept[Person], after: Person, entry: Entry | None) -> bool:
        before = kept.record
        try:
            return await self._people.put(before.id, after, kept.revision, entry)
        finally:
            if _standing(before) != _standing(after):
                for listener in self.listeners:
                    listener(before.id)

    async def _place(self, place: str) -> str:
        """Return the id of the account that a place is for."""
        kept = await self._logins.load(place)
        if kept is not None:
            return kept.record.person
        claim = Claim(new_id(self._ids), self._clock.now_ms())
        if await self._logins.put(place, claim, 0):
            return claim.person
        kept = await self._logins.load(place)
        assert kept is not None, "places are never deleted"
        return kept.record.person

    async def _claim(self, login: str, id: str) -> None:
        """Make a login name this account's, unless it is somebody's."""
        kept = await self._logins.load(login)
        if kept is not None and kept.record.person != id and await self._is_held(login, kept.record):
            raise LoginTakenError
        before = 0 if kept is None else kept.revision
        if not await self._logins.put(login, Claim(id, self._clock.now_ms()), before):
            raise LoginTakenError

    async def _is_held(self, login: str, claim: Claim) -> bool:
        owner = await self.find(claim.person)
        if owner is not None:
            return owner.login == login
        return self._clock.now_ms() - claim.at_ms < CLAIM_S * MS_PER_S

    def _invitation(self, id: str, life_s: int) -> tuple[Secret, Invitation]:
        secret = opaque.new(opaque.INVITATION, self._ids, id)
        return secret, Invitation(opaque.digest(secret), self._clock.now_ms() + life_s * MS_PER_S)

    def _with_factor(self, person: Person, code: str) -> Person | None:
        return factors.with_factor(person, self._seed(person.id, person.totp), code, self._clock.now_ms())

    def _seal(self, id: str, seed: str) -> bytes:
        return self._box.seal(totp.seed_bytes(seed), f"{PEOPLE}/{id}/totp")

    def _seed(self, id: str, sealed: bytes | None) -> str | None:
        if sealed is None:
            return None
        return totp.seed_text(self._box.open_sealed(sealed, f"{PEOPLE}/{id}/totp"))

    def _login_entry(self, before: Person, after: Person, revision: int, via: Via) -> Entry | None:
        if before.state is not after.state:
            return self._entry(principal_of(before), via, "principal.activate", before.id, revision)
        return self._recovery_entry(before, after, revision, via)

    def _recovery_entry(self, before: Person, after: Person, revision: int, via: Via) -> Entry | None:
        if before.recovery != after.recovery:
            return self._entry(principal_of(before), via, "recovery_code.use", before.id, revision)
        return None

    def _entry(self, by: Principal, via: Via, action: str, id: str, before: int, reason: str = "") -> Entry:
        row = audit.act(
            by,
            via,
            action,
            f"person/{id}",
            at_ms=self._clock.now_ms(),
            before=before,
            after=before + 1,
            reason=reason,
        )
        # Accounts are never deleted, so their revisions never start again.
        return audit.entry(row, before + 1, life=0)


def new_id(ids: Ids) -> str:
    """Return the id of a new person."""
    return f"p-{ids.token(ID_BITS)}"


def principal_of(person: Person) -> Principal:
    """Return a person as the permission table knows them."""
    return Principal(person.id, person.role, person.account)


def _standing(person: Person) -> tuple[Role, str, int, bool]:
    return person.role, person.account, person.generation, person.state is State.ACTIVE


def _factor(login: str, seed: str, codes: tuple[str, ...]) -> Factor:
    return Factor(Secret(seed), Secret(totp.uri(seed, login)), tuple(Secret(code) for code in codes))
