"""Accounts: two factors, each try counted, nothing told to who guesses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from infra.documents.port import DocumentStore
from security.addresses import OTHERS, network
from security.hashing import HashingBusyError
from security.people import passwords, totp
from security.people.accounts import CLAIM_S, FIRST
from security.people.errors import (
    AccountStateError,
    ApprovalNeededError,
    InvalidAccountError,
    LastOfficerError,
    LoginRefusedError,
    LoginTakenError,
    PeopleBusyError,
    WeakPasswordError,
)
from security.people.persons import (
    DELAY_S_MAX,
    FREE_TRIES,
    INVITATION_S,
    LOGIN_FAILURES_MAX,
    LOGINS_WINDOW_S,
    MAY_TRY,
    NEXT,
    STAFF,
    Failures,
    Notice,
    State,
    Trigger,
    delay_s,
    login_wait_s,
    parse_login,
    wait_s,
)
from security.people.tries import LOGINS_MAX
from security.policy import Role
from security.secret import Secret
from security.tries import TRIES_PER_ADDRESS_MAX, TooManyTriesError
from tests.people_rig import ADDRESS, PASSWORD, SYSTEM, VIA, PeopleRig, opened, process

WRONG = Secret("not the one at all")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[PeopleRig]:
    async with opened(tmp_path) as store:
        yield await process(store, tmp_path)


async def refused(rig: PeopleRig, login: str, password: Secret = PASSWORD, code: str = "") -> None:
    with pytest.raises(LoginRefusedError):
        await rig.people.accounts.log_in(login, password, code, VIA)


# Rules


@pytest.mark.parametrize("text", ["ann", " Ann ", "ANN@Example.org", "a.b_c+d-e", "7"])
def test_a_login_name_is_kept_in_small_letters(text: str):
    assert parse_login(text) == text.strip().lower()


@pytest.mark.parametrize("text", ["", " ", "#first", "-a", "a b", "ä", "a" * 65, "a/b", "a\0", "\ud800"])
def test_what_cannot_be_a_login_name_is_refused(text: str):
    with pytest.raises(InvalidAccountError):
        parse_login(text)


def test_a_failed_try_doubles_the_wait_up_to_a_bound():
    waits = [delay_s(failures) for failures in range(30)]
    assert waits[: FREE_TRIES + 1] == [0] * (FREE_TRIES + 1)
    assert waits[FREE_TRIES + 1 : FREE_TRIES + 4] == [2, 4, 8]
    assert waits == sorted(waits)
    assert waits[-1] == DELAY_S_MAX


def test_a_clock_that_was_set_back_makes_nobody_wait_longer_than_the_bound():
    assert wait_s(10**13, 0) == DELAY_S_MAX
    assert wait_s(0, 10**13) == 0


def test_nobody_gets_in_from_where_no_way_leads():
    assert {State.INVITED, State.ACTIVE} == MAY_TRY
    assert (State.HELD, Trigger.PROVED) not in NEXT
    assert (State.DISABLED, Trigger.PROVED) not in NEXT


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "x" * 11,
        "password1234",
        "Password!!!!",
        "p@ssw0rd1234",
        "P4ssw0rd2026",
        "qwertyuiop12",
        "administrator1",
        "letmein12345",
        "111111111111",
        "ababababababab",
        "abcabcabcabc",
        "iloveyouforever!",
        "my name is ann.lee ok",
        "x" * 257,
    ],
)
def test_a_password_that_is_guessed_first_is_refused(password: str):
    with pytest.raises(WeakPasswordError):
        passwords.check(password, "ann.lee@example.org")


@pytest.mark.parametrize("password", ["gorse under slate rain", "J7q-wm2k-Zp4d", "наш длинный пароль"])
def test_a_password_of_several_words_is_taken(password: str):
    passwords.check(password, "ann.lee")


def test_the_codes_are_those_of_the_standard():
    # RFC 6238, appendix B: the seed of the SHA-1 vectors, the last six digits.
    seed = totp.seed_text(b"12345678901234567890")
    assert [totp.code_at(seed, at // 30) for at in (59, 1_111_111_109, 1_234_567_890, 20_000_000_000)] == [
        "287082",
        "081804",
        "005924",
        "353130",
    ]


def test_a_code_is_good_for_its_own_step_and_its_neighbours_and_once():
    seed, now_ms = totp.seed_text(b"x" * 20), 1_790_000_010_000
    now = totp.step_of(now_ms)
    near = {
        step: totp.matching_step(seed, totp.code_at(seed, step), now_ms, 0)
        for step in range(now - 2, now + 3)
    }
    assert near == {now - 2: None, now - 1: now - 1, now: now, now + 1: now + 1, now + 2: None}
    assert totp.matching_step(seed, totp.code_at(seed, now), now_ms, now) is None
    assert totp.matching_step(seed, totp.code_at(seed, now - 1), now_ms, now) is None


@pytest.mark.parametrize(
    "code", ["", "12345", "1234567", "abcdef", "\uff11\uff12\uff13\uff14\uff15\uff16", "12 456", "-12345"]
)
def test_what_is_no_code_is_none(code: str):
    assert totp.matching_step(totp.seed_text(b"x" * 20), code, 0, -9) is None


# Logging in


async def test_who_proves_both_factors_is_in(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    principal = await rig.who(await rig.log_in(ann))
    assert principal is not None
    assert (principal.name, principal.role, principal.account) == (ann.id, Role.OPERATOR, "")


async def test_a_customer_may_do_with_a_password_alone_and_has_an_account(rig: PeopleRig):
    cat = await rig.member("cat", Role.CUSTOMER, "account-7")
    assert cat.seed is None
    principal = await rig.who(await rig.log_in(cat))
    assert principal is not None
    assert principal.account == "account-7"


@pytest.mark.parametrize("role", sorted(STAFF))
async def test_staff_without_a_second_factor_are_out(rig: PeopleRig, role: Role):
    ann = await rig.member("ann", role)
    assert ann.seed is not None
    await refused(rig, "ann")
    await refused(rig, "ann", code="000000")


async def test_a_customer_who_has_a_second_factor_needs_it(rig: PeopleRig):
    person, invitation = await rig.people.accounts.add("cat", Role.CUSTOMER, "a", SYSTEM, held=False)
    factor = await rig.people.accounts.accept(invitation, PASSWORD, VIA, factor=True)
    assert factor is not None
    await refused(rig, "cat")
    code = totp.code_at(factor.seed.reveal(), totp.step_of(rig.clock.now_ms()))
    assert (await rig.people.accounts.log_in("CAT", PASSWORD, code, VIA)).person.id == person.id


async def test_a_code_works_once_whatever_it_is_used_for(rig: PeopleRig):
    ann = await rig.member("ann", Role.SECURITY)
    code = rig.code(ann)
    await rig.people.accounts.log_in("ann", PASSWORD, code, VIA)
    await refused(rig, "ann", code=code)
    with pytest.raises(LoginRefusedError):
        await rig.people.accounts.show_code(ann.id, code, VIA, "step_up.issue")


async def test_of_two_who_show_one_code_at_once_one_is_in(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    code = rig.code(ann)
    both = await asyncio.gather(
        *(rig.people.accounts.log_in("ann", PASSWORD, code, VIA) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in both) == ["LoginRefusedError", "Proved"]


async def test_a_recovery_code_opens_once_and_is_told_at_the_next_login(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    assert len(ann.recovery) == 10
    first = await rig.people.accounts.log_in("ann", PASSWORD, ann.recovery[3].upper(), VIA)
    assert first.notices == ()
    await refused(rig, "ann", code=ann.recovery[3])
    later = await rig.people.accounts.log_in("ann", PASSWORD, rig.code(ann), VIA)
    assert [one.notice for one in later.notices] == [Notice.RECOVERY_CODE_USED]
    assert (await rig.people.accounts.log_in("ann", PASSWORD, rig.code(ann), VIA)).notices == ()
    assert len((await rig.person(ann)).recovery) == 9
    assert len(await rig.rows("recovery_code.use")) == 1


# What a stranger sees


@pytest.mark.parametrize("login", ["ann", "nobody", "NO BODY", "gone", "waiting", "\0"])
async def test_every_refusal_costs_one_hash(rig: PeopleRig, login: str):
    await rig.member("ann", Role.OPERATOR)
    gone = await rig.member("gone", Role.REP)
    await rig.people.accounts.disable(gone.id, SYSTEM)
    await rig.people.accounts.add("waiting", Role.REP, "", SYSTEM, held=True)
    before = rig.hashing.made
    await refused(rig, login, WRONG)
    assert rig.hashing.made - before == 1


class CountingStore:
    """Tells how often a store was asked, and how."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self.calls = list[str]()

    def __getattr__(self, name: str) -> object:
        if name in {"get", "commit", "find", "append"}:
            self.calls.append(name)
        return getattr(self._store, name)


@pytest.mark.parametrize("login", ["nobody", "NO BODY", "\0"])
async def test_a_name_of_nobody_costs_the_same_calls_of_the_store_as_one_of_somebody(
    tmp_path: Path, login: str
):
    async with opened(tmp_path) as store:
        counting = CountingStore(store)
        rig = await process(counting, tmp_path)  # type: ignore[arg-type]  # it passes all on
        await rig.member("ann", Role.OPERATOR)
        calls = list[list[str]]()
        for name in ("ann", login):
            counting.calls.clear()
            await refused(rig, name, WRONG)
            calls.append(sorted(counting.calls))
        assert calls[0] == calls[1]
        assert "commit" in calls[0]


async def test_a_right_password_costs_one_hash_too(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    before = rig.hashing.made
    await refused(rig, "ann", PASSWORD, "000000")
    await rig.log_in(ann)
    assert rig.hashing.made - before == 2


async def test_a_password_without_end_is_no_password(rig: PeopleRig):
    await rig.member("cat", Role.CUSTOMER)
    await refused(rig, "cat", Secret("x" * 100_000))


@pytest.mark.parametrize("login", ["ann", "nobody"])
async def test_failed_tries_make_the_next_wait_for_a_name_of_somebody_and_of_nobody(
    rig: PeopleRig, login: str
):
    await rig.member("ann", Role.CUSTOMER)
    for _ in range(FREE_TRIES + 1):
        await refused(rig, login, WRONG)
    before = rig.hashing.made
    with pytest.raises(TooManyTriesError) as error:
        await rig.people.accounts.log_in(login, PASSWORD, "", VIA)
    assert error.value.retry_s == 2
    assert rig.hashing.made == before
    rig.clock.advance(2)
    await refused(rig, login, WRONG)
    with pytest.raises(TooManyTriesError) as error:
        await rig.people.accounts.log_in(login, PASSWORD, "", VIA)
    assert error.value.retry_s == 4


async def test_who_waits_gets_in_and_the_count_begins_anew(rig: PeopleRig):
    cat = await rig.member("cat", Role.CUSTOMER)
    for tries in (FREE_TRIES + 1, FREE_TRIES):
        for _ in range(tries):
            with pytest.raises(LoginRefusedError):
                await rig.people.log_in("cat", WRONG, "", ADDRESS, VIA)
        rig.clock.advance(2)
        await rig.log_in(cat)
    assert (await rig.person(cat)).logins.count == 0


@pytest.mark.parametrize("login", ["cat", "nobody"])
async def test_who_fails_elsewhere_keeps_nobody_out(rig: PeopleRig, login: str):
    cat = await rig.member("cat", Role.CUSTOMER)
    for last in range(FREE_TRIES + 1):
        with pytest.raises(LoginRefusedError):
            await rig.people.log_in(login, WRONG, "", f"198.51.100.{last}", VIA)
    with pytest.raises(TooManyTriesError):
        await rig.people.log_in(login, PASSWORD, "", "198.51.100.99", VIA)
    with pytest.raises(LoginRefusedError):
        await rig.people.log_in(login, WRONG, "", ADDRESS, VIA)
    await rig.log_in(cat)


async def fail_from_everywhere(rig: PeopleRig, login: str) -> int:
    """Fail once from each of many networks until it is too often; return how often."""
    for number in range(LOGIN_FAILURES_MAX * 2):
        try:
            await rig.people.log_in(login, WRONG, "", f"10.0.{number}.1", VIA)
        except LoginRefusedError:
            continue
        except TooManyTriesError:
            return number
    raise AssertionError("there is no ceiling")


@pytest.mark.parametrize("login", ["cat", "nobody", "NO BODY"])
async def test_from_everywhere_together_a_name_has_so_many_tries_an_hour(rig: PeopleRig, login: str):
    await rig.member("cat", Role.CUSTOMER)
    assert await fail_from_everywhere(rig, login) == LOGIN_FAILURES_MAX
    with pytest.raises(TooManyTriesError) as error:
        await rig.people.log_in(login, WRONG, "", "10.1.0.1", VIA)
    assert error.value.retry_s == LOGINS_WINDOW_S
    rig.clock.advance(LOGINS_WINDOW_S)
    with pytest.raises(LoginRefusedError):
        await rig.people.log_in(login, WRONG, "", "10.1.0.1", VIA)


async def test_the_ceiling_keeps_nobody_from_where_they_log_in_as_a_rule(rig: PeopleRig):
    cat = await rig.member("cat", Role.CUSTOMER)
    await fail_from_everywhere(rig, "cat")
    await rig.log_in(cat)


async def test_a_stranger_who_fails_stops_no_proof_of_who_is_logged_in(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    await fail_from_everywhere(rig, "ann")
    await rig.people.accounts.show_code(ann.id, rig.code(ann), VIA, "step_up.issue")
    await rig.people.accounts.prove(ann.id, PASSWORD, rig.code(ann), VIA, "password.change")


async def test_proofs_of_who_is_logged_in_are_counted_too(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    code = rig.code(ann)
    for _ in range(FREE_TRIES + 1):
        with pytest.raises(LoginRefusedError):
            await rig.people.accounts.show_code(ann.id, "000000", VIA, "step_up.issue")
    with pytest.raises(TooManyTriesError):
        await rig.people.accounts.prove(ann.id, PASSWORD, code, VIA, "password.change")
    await rig.log_in(ann)


async def test_a_flood_of_logins_hashes_no_more_than_its_ceiling(rig: PeopleRig):
    await rig.member("ann", Role.OPERATOR)
    before = rig.hashing.made
    for number in range(LOGINS_MAX + 50):
        with suppress(LoginRefusedError, TooManyTriesError):
            await rig.people.log_in(f"n{number}", WRONG, "", f"10.{number >> 8}.{number & 255}.1", VIA)
    assert rig.hashing.made - before <= LOGINS_MAX


def test_a_clock_that_was_set_back_keeps_nobody_out():
    failures = Failures(LOGIN_FAILURES_MAX, since_ms=10_000)
    assert login_wait_s(failures, 10_000) == LOGINS_WINDOW_S
    assert login_wait_s(failures, 9_999) == 0


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("2001:db8::7", "2001:db8::/64"),
        ("", OTHERS),
    ],
)
def test_an_address_lies_in_a_network(address: str, name: str):
    assert network(address) == name


async def test_a_recovery_code_that_is_used_for_another_factor_has_a_row(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    await rig.people.accounts.begin_factor(ann.id, PASSWORD, ann.recovery[0], VIA)
    (row,) = await rig.rows("recovery_code.use")
    assert row.target == f"person/{ann.id}"


async def test_many_tries_at_once_are_counted_before_they_are_made(rig: PeopleRig):
    await rig.member("cat", Role.CUSTOMER)
    tries = await asyncio.gather(
        *(rig.people.accounts.log_in("cat", WRONG, "", VIA) for _ in range(40)), return_exceptions=True
    )
    assert sum(isinstance(one, LoginRefusedError) for one in tries) <= FREE_TRIES + 1


async def test_the_count_survives_a_restart(tmp_path: Path):
    async with opened(tmp_path, "sqlite:{directory}/people.db") as store:
        rig = await process(store, tmp_path)
        await rig.member("cat", Role.CUSTOMER)
        await fail_from_everywhere(rig, "cat")
    async with opened(tmp_path, "sqlite:{directory}/people.db") as store:
        rig = await process(store, tmp_path, rig.clock, seed=2)
        with pytest.raises(TooManyTriesError):
            await rig.people.log_in("cat", PASSWORD, "", ADDRESS, VIA)


async def test_more_logins_at_once_than_can_be_hashed_are_told_to_come_back(rig: PeopleRig):
    rig.hashing._waiting_ms = 10**9
    with pytest.raises(HashingBusyError):
        await rig.people.accounts.log_in("nobody", PASSWORD, "", VIA)


async def test_a_try_over_http_is_counted_and_a_right_one_given_back(rig: PeopleRig):
    members = [await rig.member(name, Role.CUSTOMER) for name in ("cat", "dan", "eva")]
    for number in range(TRIES_PER_ADDRESS_MAX * 2):
        await rig.log_in(members[number % 3])
    for number in range(TRIES_PER_ADDRESS_MAX):
        with pytest.raises(LoginRefusedError):
            await rig.people.log_in(f"nobody-{number}", WRONG, "", ADDRESS, VIA)
    with pytest.raises(TooManyTriesError):
        await rig.people.log_in("cat", PASSWORD, "", ADDRESS, VIA)


# Invitations


async def test_an_invitation_may_be_used_again_until_the_first_login_and_not_after(rig: PeopleRig):
    _, invitation = await rig.people.accounts.add("ann", Role.REP, "", SYSTEM, held=False)
    assert await rig.people.accounts.accept(invitation, WRONG, VIA, factor=False) is not None
    factor = await rig.people.accounts.accept(invitation, PASSWORD, VIA, factor=False)
    assert factor is not None
    code = totp.code_at(factor.seed.reveal(), totp.step_of(rig.clock.now_ms()))
    await rig.people.accounts.log_in("ann", PASSWORD, code, VIA)
    with pytest.raises(LoginRefusedError):
        await rig.people.accounts.accept(invitation, PASSWORD, VIA, factor=False)


@pytest.mark.parametrize(
    "text", ["", "gnomon_in_", "gnomon_in_p-x.y", "gnomon_in_..", "x" * 999, "gnomon_in_\ud800.x"]
)
async def test_what_is_no_invitation_is_refused_without_a_hash(rig: PeopleRig, text: str):
    before = rig.hashing.made
    with pytest.raises(LoginRefusedError):
        await rig.people.accounts.accept(Secret(text), PASSWORD, VIA, factor=False)
    assert rig.hashing.made == before


async def test_an_invitation_ends(rig: PeopleRig):
    _, invitation = await rig.people.accounts.add("ann", Role.REP, "", SYSTEM, held=False)
    rig.clock.advance(INVITATION_S)
    with pytest.raises(LoginRefusedError):
        await rig.people.accounts.accept(invitation, PASSWORD, VIA, factor=False)


async def test_an_account_that_waits_for_approval_is_not_used(rig: PeopleRig):
    _, invitation = await rig.people.accounts.add("ann", Role.REP, "", SYSTEM, held=True)
    with pytest.raises(ApprovalNeededError):
        await rig.people.accounts.accept(invitation, PASSWORD, VIA, factor=False)


async def test_a_weak_password_changes_nothing(rig: PeopleRig):
    person, invitation = await rig.people.accounts.add("ann", Role.REP, "", SYSTEM, held=False)
    with pytest.raises(WeakPasswordError):
        await rig.people.accounts.accept(invitation, Secret("password1234"), VIA, factor=False)
    assert await rig.people.accounts.person(person.id) == person


async def test_a_login_name_belongs_to_one(rig: PeopleRig):
    both = await asyncio.gather(
        *(rig.people.accounts.add("Ann", Role.REP, "", SYSTEM, held=False) for _ in range(2)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, LoginTakenError) for one in both) == 1
    with pytest.raises(LoginTakenError):
        await rig.people.accounts.add("ann", Role.REP, "", SYSTEM, held=False)


async def test_a_name_that_a_crash_left_to_nobody_can_be_taken_after_a_minute(rig: PeopleRig):
    await rig.people.accounts._claim("ann", "p-nobodynobodynob")
    with pytest.raises(LoginTakenError):
        await rig.people.accounts.add("ann", Role.REP, "", SYSTEM, held=False)
    rig.clock.advance(CLAIM_S)
    await rig.people.accounts.add("ann", Role.REP, "", SYSTEM, held=False)


@pytest.mark.parametrize(
    ("role", "account"),
    [(Role.CUSTOMER, ""), (Role.OPERATOR, "account-1"), (Role.CCS, ""), (Role.SYSTEM, ""), (Role.DEVICE, "")],
)
async def test_what_cannot_be_a_person_is_refused(rig: PeopleRig, role: Role, account: str):
    with pytest.raises(InvalidAccountError):
        await rig.people.accounts.add("ann", role, account, SYSTEM, held=False)


# One's own account, and what is taken away


async def test_a_changed_password_ends_all_sessions(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    granted, new = await rig.log_in(ann), Secret("heather over granite wind")
    with pytest.raises(LoginRefusedError):
        await rig.people.accounts.change_password(ann.id, WRONG, rig.code(ann), new, VIA)
    assert await rig.who(granted) is not None
    await rig.people.accounts.change_password(ann.id, PASSWORD, rig.code(ann), new, VIA)
    assert await rig.who(granted) is None
    await refused(rig, "ann", PASSWORD, rig.code(ann))
    await rig.log_in(ann, new)


async def test_a_second_factor_is_replaced_once_the_new_one_was_shown(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    factor = await rig.people.accounts.begin_factor(ann.id, PASSWORD, rig.code(ann), VIA)
    await rig.log_in(ann)
    with pytest.raises(LoginRefusedError):
        await rig.people.accounts.confirm_factor(ann.id, "000000", VIA)
    rig.clock.advance(60)
    code = totp.code_at(factor.seed.reveal(), totp.step_of(rig.clock.now_ms()))
    codes = await rig.people.accounts.confirm_factor(ann.id, code, VIA)
    assert len(codes) == 10
    await refused(rig, "ann", code=rig.code(ann))
    await refused(rig, "ann", code=ann.recovery[0])
    ann.seed, ann.step = factor.seed.reveal(), totp.step_of(rig.clock.now_ms())
    await rig.log_in(ann)


async def test_a_customer_can_take_a_second_factor_on(rig: PeopleRig):
    cat = await rig.member("cat", Role.CUSTOMER)
    factor = await rig.people.accounts.begin_factor(cat.id, PASSWORD, "", VIA)
    cat.seed = factor.seed.reveal()
    await rig.people.accounts.confirm_factor(cat.id, rig.code(cat), VIA)
    await refused(rig, "cat")
    await rig.log_in(cat)


async def test_a_disabled_account_opens_nothing_from_then_on(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    granted = await rig.log_in(ann)
    await rig.people.accounts.disable(ann.id, SYSTEM)
    assert await rig.who(granted) is None
    await refused(rig, "ann", code=rig.code(ann))
    assert granted.refresh is not None
    with pytest.raises(LoginRefusedError):
        await rig.people.sessions.refresh(granted.refresh, VIA)


async def test_the_last_security_officer_is_not_disabled(rig: PeopleRig):
    ann = await rig.member("ann", Role.SECURITY)
    with pytest.raises(LastOfficerError):
        await rig.people.accounts.disable(ann.id, SYSTEM)
    await rig.member("bob", Role.SECURITY)
    await rig.people.accounts.disable(ann.id, SYSTEM)
    assert (await rig.person(ann)).state is State.DISABLED


@pytest.mark.parametrize("url", ["memory:", "sqlite:{directory}/people.db"])
async def test_two_officers_do_not_disable_each_other_in_two_processes(tmp_path: Path, url: str):
    async with opened(tmp_path, url) as store:
        one = await process(store, tmp_path)
        two = await process(store, tmp_path, one.clock, seed=2)
        ann, bob = await one.member("ann", Role.SECURITY), await one.member("bob", Role.SECURITY)
        ends = await asyncio.gather(
            one.people.accounts.disable(bob.id, await one.principal(ann), VIA),
            two.people.accounts.disable(ann.id, await two.principal(bob), VIA),
            return_exceptions=True,
        )
        assert sum(isinstance(end, LastOfficerError | PeopleBusyError) for end in ends) == 1
        assert await one.people.accounts.active_officers() == 1


async def test_an_end_that_was_begun_and_not_done_keeps_others_back_for_a_minute(rig: PeopleRig):
    ann, bob = await rig.member("ann", Role.SECURITY), await rig.member("bob", Role.SECURITY)
    await rig.people.accounts.claim_end(ann.id)
    with pytest.raises(PeopleBusyError):
        await rig.people.accounts.disable(bob.id, SYSTEM)
    rig.clock.advance(CLAIM_S)
    await rig.people.accounts.disable(bob.id, SYSTEM)
    with pytest.raises(LastOfficerError):
        await rig.people.accounts.disable(ann.id, SYSTEM)


async def test_another_role_ends_the_sessions_of_the_old_one(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    granted = await rig.log_in(ann)
    await rig.people.accounts.set_role(ann.id, Role.AUDITOR, "", SYSTEM, VIA, "moved")
    assert await rig.who(granted) is None
    principal = await rig.who(await rig.log_in(ann))
    assert principal is not None
    assert principal.role is Role.AUDITOR


async def test_who_lost_a_factor_begins_anew_with_an_invitation(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    granted = await rig.log_in(ann)
    secret, invitation = rig.people.accounts.invitation(ann.id)
    for _ in range(2):
        await rig.people.accounts.reset(ann.id, invitation, SYSTEM, VIA, "lost")
    assert await rig.who(granted) is None
    await refused(rig, "ann", code=rig.code(ann))
    factor = await rig.people.accounts.accept(secret, PASSWORD, VIA, factor=False)
    assert factor is not None
    ann.seed = factor.seed.reveal()
    await rig.log_in(ann)
    assert len(await rig.rows("principal.reset")) == 1


async def test_what_is_held_is_not_reset(rig: PeopleRig):
    person, _ = await rig.people.accounts.add("ann", Role.REP, "", SYSTEM, held=True)
    with pytest.raises(AccountStateError):
        await rig.people.accounts.reset(
            person.id, rig.people.accounts.invitation(person.id)[1], SYSTEM, VIA, ""
        )


# The first officer


async def first(rig: PeopleRig, login: str = "ann") -> str:
    assert rig.people.first_secret is not None
    factor = await rig.people.first.begin(rig.people.first_secret, login, PASSWORD, VIA)
    return factor.seed.reveal()


async def test_the_first_officer_is_made_with_the_secret_of_this_start(rig: PeopleRig):
    seed = await first(rig)
    code = totp.code_at(seed, totp.step_of(rig.clock.now_ms()))
    proved = await rig.people.accounts.log_in("ann", PASSWORD, code, VIA)
    assert (proved.person.role, proved.person.state) == (Role.SECURITY, State.ACTIVE)
    with pytest.raises(LoginRefusedError):
        await first(rig, "eve")


async def test_a_wrong_secret_and_a_late_one_make_nobody(rig: PeopleRig):
    for wrong in ("", "gnomon_first_", "gnomon_first_" + "a" * 52, "x" * 100_000):
        with pytest.raises(LoginRefusedError):
            await rig.people.first.begin(Secret(wrong), "ann", PASSWORD, VIA)
    rig.clock.advance(900)
    with pytest.raises(LoginRefusedError):
        await first(rig)
    assert await rig.people.accounts.active_officers() == 0


async def test_until_the_first_login_it_may_be_done_again_and_there_is_one_account(rig: PeopleRig):
    await first(rig, "eve")
    seed = await first(rig, "ann")
    await refused(rig, "eve")
    code = totp.code_at(seed, totp.step_of(rig.clock.now_ms()))
    await rig.people.accounts.log_in("ann", PASSWORD, code, VIA)
    page = await rig.people.accounts.people(None, 10, None)
    assert [person.login for person in page.records] == ["ann"]
    # The name that was given up is free.
    await rig.people.accounts.add("eve", Role.REP, "", SYSTEM, held=False)


async def test_a_restart_shows_another_secret_while_there_is_no_officer_and_none_after(tmp_path: Path):
    async with opened(tmp_path) as store:
        one = await process(store, tmp_path)
        two = await process(store, tmp_path, one.clock, seed=2)
        assert one.people.first_secret is not None
        assert two.people.first_secret is not None
        with pytest.raises(LoginRefusedError):
            await two.people.first.begin(one.people.first_secret, "ann", PASSWORD, VIA)
        seed = await first(two)
        code = totp.code_at(seed, totp.step_of(two.clock.now_ms()))
        await two.people.accounts.log_in("ann", PASSWORD, code, VIA)
        assert (await process(store, tmp_path, seed=3)).people.first_secret is None


async def test_who_holds_the_host_makes_the_second_officer_when_one_has_gone(rig: PeopleRig, tmp_path: Path):
    seed = await first(rig)
    ann = (await rig.people.accounts.people(None, 10, None)).records[0]
    await rig.people.accounts.log_in(
        "ann", PASSWORD, totp.code_at(seed, totp.step_of(rig.clock.now_ms())), VIA
    )
    bob = await rig.member("bob", Role.SECURITY)
    assert (await process(rig.store, tmp_path, rig.clock, seed=2)).people.first_secret is None
    await rig.people.accounts.disable(ann.id, await rig.principal(bob), VIA)
    later = await process(rig.store, tmp_path, rig.clock, seed=3)
    seed = await first(later, "cyd")
    await later.people.accounts.log_in(
        "cyd", PASSWORD, totp.code_at(seed, totp.step_of(rig.clock.now_ms())), VIA
    )
    assert await later.people.accounts.active_officers() == 2
    with pytest.raises(LoginRefusedError):
        await first(later, "eve")


async def test_a_first_officer_who_never_had_a_second_gets_none_from_the_host(tmp_path: Path, rig: PeopleRig):
    await rig.member("ann", Role.SECURITY)
    assert (await process(rig.store, tmp_path, rig.clock, seed=2)).people.first_secret is None


# What is written


def on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.glob("people.db*"))


async def test_nothing_that_is_written_names_a_person_or_holds_a_secret(tmp_path: Path):
    async with opened(tmp_path, "sqlite:{directory}/people.db") as store:
        rig = await process(store, tmp_path)
        ann = await rig.member("ann.lee", Role.OPERATOR)
        granted = await rig.log_in(ann)
        await refused(rig, "ann.lee", WRONG)
        rows = str(await rig.rows())
        assert ann.seed is not None
        assert granted.refresh is not None
        secrets = [PASSWORD.reveal(), WRONG.reveal(), ann.seed, *ann.recovery, granted.refresh.reveal()]
        assert not [one for one in [*secrets, "ann.lee", ADDRESS] if one in rows]
        assert not [one for one in [*secrets, granted.access.token.reveal()] if one in repr(granted)]
    kept = on_disk(tmp_path)
    assert not [one for one in [*secrets, granted.access.token.reveal()] if one.encode() in kept]
    assert totp.seed_bytes(ann.seed) not in kept


async def test_every_act_has_one_row_and_refusals_are_folded(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    for _ in range(3):
        await refused(rig, "ann", WRONG)
    for _ in range(2):
        await refused(rig, "nobody", WRONG)
    await rig.people.accounts.disable(ann.id, SYSTEM)
    rows = await rig.rows()
    acts = [(row.action, row.actor) for row in rows if row.decision == "allowed" and row.actor != "system"]
    assert sorted(acts) == [
        ("invitation.accept", ann.id),
        ("principal.activate", ann.id),
        ("session.open", ann.id),
    ]
    assert sorted(row.action for row in rows if row.actor == "system") == [
        "principal.create",
        "principal.disable",
        "signing_key.write",
    ]
    assert {(row.actor, row.count) for row in rows if row.decision == "refused"} == {
        (ann.id, 3),
        ("(unknown)", 2),
    }


def test_the_place_of_the_first_officer_can_be_nobodys_login():
    with pytest.raises(InvalidAccountError):
        parse_login(FIRST)
