"""Sessions, clients, step-up and second persons: what was taken is gone, what was used does not come back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.documents.port import Entry
from security.people import opaque
from security.people.acts import ONLY_OFFICER, ONLY_OFFICER_STOPS
from security.people.approvals import LIFE_S as APPROVAL_LIFE_S
from security.people.approvals import Act, Decision, Held
from security.people.clients import SCOPES, TOKENS_MAX, allowed_scopes
from security.people.errors import (
    ApprovalClosedError,
    ApprovalNeededError,
    ApprovalNotFoundError,
    InvalidAccountError,
    LastOfficerError,
    LoginRefusedError,
    NotTheirsToApproveError,
    OwnApprovalError,
    PersonNotFoundError,
)
from security.people.keys import FRESH_S
from security.people.persons import Notice, State
from security.people.sessions import (
    CUSTOMER_S,
    REFRESHES_MAX,
    REFRESHES_WITHIN_S,
    RETRY_S,
    SESSIONS_PER_PERSON_MAX,
    STAFF_S,
    TOO_MANY,
    Granted,
)
from security.people.stepup import LIFE_S as STEP_UP_LIFE_S
from security.policy import Action, Principal, Role
from security.secret import Secret
from security.tries import MINUTE_S, TooManyTriesError
from tests.people_rig import (
    ADDRESS,
    PASSWORD,
    SYSTEM,
    VIA,
    Known,
    PeopleRig,
    SharedStore,
    opened,
    process,
)

BODY = "ab" * 32
TARGET = "POST /v1/revoke-all"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[PeopleRig]:
    async with opened(tmp_path) as store:
        yield await process(store, tmp_path)


def token(granted: Granted) -> Secret:
    assert granted.refresh is not None
    return granted.refresh


async def refresh(rig: PeopleRig, granted: Granted) -> Granted:
    return await rig.people.sessions.refresh(token(granted), VIA)


async def is_refused(rig: PeopleRig, granted: Granted) -> bool:
    try:
        await refresh(rig, granted)
    except LoginRefusedError:
        return True
    return False


# Refresh


async def test_a_refresh_token_is_used_once_and_gives_the_next(rig: PeopleRig):
    first = await rig.log_in(await rig.member("ann", Role.OPERATOR))
    second = await refresh(rig, first)
    third = await refresh(rig, second)
    assert len({token(one).reveal() for one in (first, second, third)}) == 3
    assert await rig.who(third) == await rig.who(first)
    assert len(await rig.rows("session.refresh")) == 2


async def test_a_used_token_that_comes_back_ends_its_family_and_is_told(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    first = await rig.log_in(ann)
    second = await refresh(rig, first)
    third = await refresh(rig, second)
    assert await is_refused(rig, first)
    assert await is_refused(rig, third), "whoever holds the newest may be the thief"
    (row,) = await rig.rows("session.reuse")
    assert row.actor == ann.id
    _, notices = await rig.people.log_in("ann", PASSWORD, rig.code(ann), ADDRESS, VIA)
    assert [one.notice for one in notices] == [Notice.SESSION_STOLEN]


async def test_other_sessions_of_the_person_live_on(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    one, other = await rig.log_in(ann), await rig.log_in(ann)
    await refresh(rig, await refresh(rig, one))
    assert await is_refused(rig, one)
    assert not await is_refused(rig, other)


async def test_a_theft_ends_access_tokens_at_once_and_other_sessions_get_new_ones(rig: PeopleRig):
    ann, bob = [await rig.member(name, Role.OPERATOR) for name in ("ann", "bob")]
    first, other, bobs = [await rig.log_in(one) for one in (ann, ann, bob)]
    newest = await refresh(rig, await refresh(rig, first))
    assert await rig.who(newest) is not None
    assert await is_refused(rig, first)
    assert [await rig.who(one) for one in (first, newest, other)] == [None] * 3
    assert await rig.who(await refresh(rig, other)) is not None
    assert await rig.who(await rig.log_in(ann)) is not None
    assert await rig.who(bobs) is not None


async def test_a_session_that_is_refreshed_without_end_has_to_wait_and_loses_nothing(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    granted, other = await rig.log_in(ann), await rig.log_in(ann)
    for _ in range(REFRESHES_MAX):
        granted = await refresh(rig, granted)
    with pytest.raises(TooManyTriesError) as error:
        await refresh(rig, granted)
    assert error.value.retry_s == REFRESHES_WITHIN_S
    assert len(await rig.rows("session.refresh")) == REFRESHES_MAX
    await refresh(rig, other)
    rig.clock.advance(REFRESHES_WITHIN_S)
    await refresh(rig, granted)


async def test_who_did_not_get_the_answer_may_ask_once_more_within_ten_seconds(rig: PeopleRig):
    first = await rig.log_in(await rig.member("ann", Role.OPERATOR))
    lost = await refresh(rig, first)
    rig.clock.advance(RETRY_S)
    second = await refresh(rig, first)
    await refresh(rig, second)
    assert await is_refused(rig, lost), "two hold copies then"


@pytest.mark.parametrize("case", ["late", "a second time", "the successor was used"])
async def test_a_retry_is_a_theft_when(rig: PeopleRig, case: str):
    first = await rig.log_in(await rig.member("ann", Role.OPERATOR))
    second = await refresh(rig, first)
    match case:
        case "late":
            rig.clock.advance(RETRY_S + 0.001)
        case "a second time":
            await refresh(rig, first)
        case _:
            second = await refresh(rig, second)
    assert await is_refused(rig, first)
    assert await is_refused(rig, second)
    assert len(await rig.rows("session.reuse")) == 1


async def test_of_two_who_use_one_token_at_once_both_cannot_go_on(rig: PeopleRig):
    first = await rig.log_in(await rig.member("ann", Role.OPERATOR))
    pair = await asyncio.gather(refresh(rig, first), refresh(rig, first))
    used = [await is_refused(rig, one) for one in pair]
    assert True in used


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.CUSTOMER])
async def test_a_session_ends_however_often_it_is_refreshed(rig: PeopleRig, role: Role):
    granted = await rig.log_in(await rig.member("ann", role))
    life_s = CUSTOMER_S if role is Role.CUSTOMER else STAFF_S
    assert granted.refresh_s == life_s
    rig.clock.advance(life_s / 2)
    granted = await refresh(rig, granted)
    assert granted.refresh_s == life_s / 2
    rig.clock.advance(life_s / 2)
    assert await is_refused(rig, granted)


async def test_who_logs_out_is_out(rig: PeopleRig):
    granted = await rig.log_in(await rig.member("ann", Role.OPERATOR))
    await rig.people.sessions.close(token(granted), VIA)
    await rig.people.sessions.close(token(granted), VIA)
    assert await is_refused(rig, granted)
    assert len(await rig.rows("session.close")) == 1


@pytest.mark.parametrize(
    "text", ["", "gnomon_rt_", "gnomon_rt_a.b", "x" * 10_000, "gnomon_rt_\0.b", "gnomon_rt_ä.b"]
)
async def test_what_is_no_refresh_token_is_refused(rig: PeopleRig, text: str):
    with pytest.raises(LoginRefusedError):
        await rig.people.sessions.refresh(Secret(text), VIA)
    await rig.people.sessions.close(Secret(text), VIA)


async def test_a_restart_forgets_no_session_and_no_theft(tmp_path: Path):
    async with opened(tmp_path, "sqlite:{directory}/people.db") as store:
        rig = await process(store, tmp_path)
        ann = await rig.member("ann", Role.OPERATOR)
        one, other = await rig.log_in(ann), await rig.log_in(ann)
        newer = await refresh(rig, other)
    async with opened(tmp_path, "sqlite:{directory}/people.db") as store:
        rig = await process(store, tmp_path, rig.clock, seed=2)
        assert await rig.who(one) is not None
        assert not await is_refused(rig, one)
        rig.clock.advance(RETRY_S + 1)
        assert await is_refused(rig, other)
        assert await is_refused(rig, newer)


async def test_a_person_has_so_many_sessions_and_the_oldest_gives_way(rig: PeopleRig):
    cat = await rig.member("cat", Role.CUSTOMER)
    all = list[Granted]()
    for _ in range(SESSIONS_PER_PERSON_MAX + 1):
        rig.clock.advance(5)
        all.append(await rig.log_in(cat))
    assert await is_refused(rig, all[0])
    assert not await is_refused(rig, all[1])


async def test_what_is_over_is_swept(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    await rig.log_in(ann)
    by = await rig.principal(ann)
    await rig.people.step_ups.issue(by, rig.code(ann), Action.REVOKE_ALL, TARGET, BODY, VIA)
    rig.clock.advance(STAFF_S + 1)
    await rig.people.sweep()
    for collection in ("sessions", "step_ups"):
        page = await rig.store.find(collection, "until_ms", 0, 2**53, limit=10)
        assert page.documents == ()


# Epochs


async def test_all_tokens_of_a_person_die_with_one_write(rig: PeopleRig):
    ann = await rig.member("ann", Role.OPERATOR)
    bob = await rig.member("bob", Role.REP)
    of_ann, of_bob = await rig.log_in(ann), await rig.log_in(bob)
    await rig.people.accounts.revoke(ann.id, SYSTEM)
    assert await rig.who(of_ann) is None
    assert await is_refused(rig, of_ann)
    assert await rig.who(of_bob) is not None
    assert await rig.who(await rig.log_in(ann)) is not None


async def test_revoke_all_ends_everything_and_everybody_may_log_in_again(rig: PeopleRig):
    ann, bob = await rig.member("ann", Role.OPERATOR), await rig.member("bob", Role.CUSTOMER)
    client, secret = await rig.people.clients.add("care", Role.CCS, SYSTEM, held=False)
    grant = await rig.people.clients.grant(client.id, secret, (), VIA)
    before = [await rig.log_in(ann), await rig.log_in(bob), Granted(grant.access)]
    await rig.people.epoch.raise_(SYSTEM)
    assert [await rig.who(one) for one in before] == [None, None, None]
    assert await is_refused(rig, before[0])
    assert await rig.who(await rig.log_in(ann)) is not None
    assert len(await rig.rows("revoke_all")) == 1


@pytest.mark.parametrize("act", ["revoke all", "revoke", "disable", "role", "theft"])
async def test_another_process_believes_no_token_five_seconds_later(tmp_path: Path, act: str):
    async with opened(tmp_path) as store:
        one = await process(store, tmp_path)
        two = await process(SharedStore(store), tmp_path, one.clock, seed=2)  # type: ignore[arg-type]  # it passes all on
        ann = await one.member("ann", Role.OPERATOR)
        granted = await one.log_in(ann)
        assert await two.who(granted) is not None
        match act:
            case "revoke all":
                await one.people.epoch.raise_(SYSTEM)
            case "revoke":
                await one.people.accounts.revoke(ann.id, SYSTEM)
            case "disable":
                await one.people.accounts.disable(ann.id, SYSTEM)
            case "role":
                await one.people.accounts.set_role(ann.id, Role.REP, "", SYSTEM, VIA, "")
            case _:
                await one.people.accounts.note_theft(ann.id)
        assert await one.who(granted) is None
        assert FRESH_S < 5
        one.clock.advance(FRESH_S + 0.1)
        assert await two.who(granted) is None


# Clients


@pytest.mark.parametrize("role", sorted(SCOPES))
async def test_a_client_gets_a_token_of_its_role_and_no_refresh_token(rig: PeopleRig, role: Role):
    client, secret = await rig.people.clients.add("system", role, SYSTEM, held=False)
    grant = await rig.people.clients.grant(client.id, secret, (), VIA)
    principal = await rig.who(Granted(grant.access))
    assert principal is not None
    assert (principal.name, principal.role) == (client.id, role)
    assert grant.scopes == SCOPES[role]


async def test_a_client_that_gets_tokens_without_end_has_to_wait(rig: PeopleRig):
    (client, secret), other = [
        await rig.people.clients.add("system", Role.CCS, SYSTEM, held=False) for _ in range(2)
    ]
    for _ in range(TOKENS_MAX):
        await rig.people.clients.grant(client.id, secret, (), VIA)
    with pytest.raises(TooManyTriesError):
        await rig.people.clients.grant(client.id, secret, (), VIA)
    assert len(await rig.rows("token.issue")) == TOKENS_MAX
    await rig.people.clients.grant(other[0].id, other[1], (), VIA)
    rig.clock.advance(MINUTE_S)
    await rig.people.clients.grant(client.id, secret, (), VIA)


def test_who_asks_for_more_gets_what_is_allowed_of_it():
    assert allowed_scopes(Role.BL, ["write_events", "everything"]) == ("write_events",)
    assert allowed_scopes(Role.VEN, ["everything"]) == ()


@pytest.mark.parametrize("secret", ["", "gnomon_cs_", "x" * 10_000, "gnomon_cs_" + "a" * 52, "\ud800"])
async def test_a_wrong_secret_gets_nothing(rig: PeopleRig, secret: str):
    client, _ = await rig.people.clients.add("care", Role.CCS, SYSTEM, held=False)
    for id in (client.id, "c-nobody", "", "\ud800", "c-" + "x" * 10_000):
        with pytest.raises(LoginRefusedError):
            await rig.people.clients.grant(id, Secret(secret), (), VIA)


async def test_two_secrets_are_alive_while_one_takes_the_others_place(rig: PeopleRig):
    clients = rig.people.clients
    client, old = await clients.add("care", Role.CCS, SYSTEM, held=False)
    new, newer = clients.secret(), clients.secret()
    await clients.take_secret(client.id, opaque.digest(new), SYSTEM, VIA, "")
    for secret in (old, new):
        await clients.grant(client.id, secret, (), VIA)
    granted = Granted((await clients.grant(client.id, old, (), VIA)).access)
    await clients.retire_old_secret(client.id, SYSTEM)
    assert await rig.who(granted) is None
    with pytest.raises(LoginRefusedError):
        await clients.grant(client.id, old, (), VIA)
    for secret in (newer, clients.secret()):
        await clients.take_secret(client.id, opaque.digest(secret), SYSTEM, VIA, "")
    with pytest.raises(LoginRefusedError):
        await clients.grant(client.id, new, (), VIA)
    await clients.grant(client.id, newer, (), VIA)


async def test_a_client_that_is_held_or_disabled_gets_nothing(rig: PeopleRig):
    clients = rig.people.clients
    client, secret = await clients.add("care", Role.CCS, SYSTEM, held=True)
    with pytest.raises(LoginRefusedError):
        await clients.grant(client.id, secret, (), VIA)
    await clients.approve(client.id, SYSTEM, VIA, "")
    granted = Granted((await clients.grant(client.id, secret, (), VIA)).access)
    await clients.disable(client.id, SYSTEM)
    assert await rig.who(granted) is None
    with pytest.raises(LoginRefusedError):
        await clients.grant(client.id, secret, (), VIA)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.SYSTEM, Role.DEVICE, Role.CUSTOMER])
async def test_a_client_has_no_role_of_a_person(rig: PeopleRig, role: Role):
    with pytest.raises(InvalidAccountError):
        await rig.people.clients.add("care", role, SYSTEM, held=False)


# Step-up


async def stepped(rig: PeopleRig, ann: Known, action: Action = Action.REVOKE_ALL) -> str:
    by = await rig.principal(ann)
    issued = await rig.people.step_ups.issue(by, rig.code(ann), action, TARGET, BODY, VIA)
    return issued.reveal()


async def test_a_step_up_is_for_exactly_one_act_and_once(rig: PeopleRig):
    ann = await rig.member("ann", Role.SECURITY)
    by, shown = await rig.principal(ann), await stepped(rig, ann)
    take = rig.people.step_ups.take
    other = replace(by, name="p-somebodyelseaaaa")
    assert not await take(other, Action.REVOKE_ALL, TARGET, BODY, shown)
    assert not await take(by, Action.ROLE_GRANT, TARGET, BODY, shown)
    assert not await take(by, Action.REVOKE_ALL, TARGET + "?a=1", BODY, shown)
    assert not await take(by, Action.REVOKE_ALL, TARGET, "cd" * 32, shown)
    assert await take(by, Action.REVOKE_ALL, TARGET, BODY, shown)
    assert not await take(by, Action.REVOKE_ALL, TARGET, BODY, shown)


async def test_of_two_processes_one_takes_a_step_up(tmp_path: Path):
    async with opened(tmp_path) as store:
        one = await process(store, tmp_path)
        two = await process(store, tmp_path, one.clock, seed=2)
        ann = await one.member("ann", Role.SECURITY)
        by, shown = await one.principal(ann), await stepped(one, ann)
        taken = await asyncio.gather(
            *(rig.people.step_ups.take(by, Action.REVOKE_ALL, TARGET, BODY, shown) for rig in (one, two))
        )
        assert sorted(taken) == [False, True]


async def test_a_step_up_lives_two_minutes_also_when_the_clock_is_set_back(rig: PeopleRig):
    ann = await rig.member("ann", Role.SECURITY)
    by, shown = await rig.principal(ann), await stepped(rig, ann)
    rig.clock.jump(-1)
    assert not await rig.people.step_ups.take(by, Action.REVOKE_ALL, TARGET, BODY, shown)
    rig.clock.jump(1)
    rig.clock.advance(STEP_UP_LIFE_S)
    assert not await rig.people.step_ups.take(by, Action.REVOKE_ALL, TARGET, BODY, shown)


async def test_a_step_up_needs_a_code_that_is_fresh_and_no_recovery_code(rig: PeopleRig):
    ann = await rig.member("ann", Role.SECURITY)
    by = await rig.principal(ann)
    for code in ("000000", ann.recovery[0], ""):
        with pytest.raises(LoginRefusedError):
            await rig.people.step_ups.issue(by, code, Action.REVOKE_ALL, TARGET, BODY, VIA)


async def test_a_customer_without_a_second_factor_has_no_step_up(rig: PeopleRig):
    by = await rig.principal(await rig.member("cat", Role.CUSTOMER))
    with pytest.raises(LoginRefusedError):
        await rig.people.step_ups.issue(by, "000000", Action.ACCOUNT_EXPORT, TARGET, BODY, VIA)


@pytest.mark.parametrize(
    "text", ["", "x", "gnomon_su_", "gnomon_su_" + "a" * 52, "gnomon_su_" + "x" * 10_000, "\ud800"]
)
async def test_what_is_no_step_up_is_none(rig: PeopleRig, text: str):
    by = await rig.principal(await rig.member("ann", Role.SECURITY))
    assert not await rig.people.step_ups.take(by, Action.REVOKE_ALL, TARGET, BODY, text)


@pytest.mark.parametrize(
    ("target", "body"), [("", BODY), ("a\nb", BODY), ("x" * 5_000, BODY), (TARGET, ""), (TARGET, "AB" * 32)]
)
async def test_a_step_up_for_nothing_is_refused_before_the_code_is_used(
    rig: PeopleRig, target: str, body: str
):
    ann = await rig.member("ann", Role.SECURITY)
    with pytest.raises(InvalidAccountError):
        await rig.people.step_ups.issue(await rig.principal(ann), "", Action.REVOKE_ALL, target, body, VIA)
    assert (await rig.person(ann)).failures == 0


# Second persons


@pytest.fixture
async def officers(rig: PeopleRig) -> tuple[Principal, Principal]:
    ann, bob = await rig.member("ann", Role.SECURITY), await rig.member("bob", Role.SECURITY)
    return await rig.principal(ann), await rig.principal(bob)


Officers = tuple[Principal, Principal]


async def test_a_new_account_waits_for_a_second_officer(rig: PeopleRig, officers: Officers):
    ann, bob = officers
    new = await rig.people.acts.make_person("op", Role.OPERATOR, "", ann, VIA)
    assert new.held is not None
    with pytest.raises(ApprovalNeededError):
        await rig.people.accounts.accept(new.invitation, PASSWORD, VIA, factor=False)
    with pytest.raises(OwnApprovalError):
        await rig.people.approvals.approve(new.held.id, ann, VIA)
    done = await rig.people.approvals.approve(new.held.id, bob, VIA)
    assert done.decision is Decision.DONE
    assert await rig.people.accounts.accept(new.invitation, PASSWORD, VIA, factor=False) is not None
    with pytest.raises(ApprovalClosedError):
        await rig.people.approvals.approve(new.held.id, bob, VIA)
    (row,) = await rig.rows("principal.approve")
    assert row.actor == ann.name
    assert bob.name in row.reason
    (row,) = await rig.rows("approval.approve")
    assert row.actor == bob.name


async def test_nobody_approves_a_change_to_their_own_role(rig: PeopleRig, officers: Officers):
    ann, bob = officers
    held = await rig.people.acts.grant_role(bob.name, Role.OPERATOR, "", ann, VIA)
    with pytest.raises(OwnApprovalError):
        await rig.people.approvals.approve(held.id, bob, VIA)
    assert (await rig.people.accounts.person(bob.name)).role is Role.SECURITY
    eve = await rig.principal(await rig.member("eve", Role.SECURITY))
    await rig.people.approvals.approve(held.id, eve, VIA)
    assert (await rig.people.accounts.person(bob.name)).role is Role.OPERATOR


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR, Role.REP, Role.CUSTOMER])
async def test_only_who_might_ask_may_approve(rig: PeopleRig, officers: Officers, role: Role):
    ann, _ = officers
    other = await rig.principal(await rig.member("other", role))
    held = await rig.people.acts.rotate_key(ann, VIA, at_once=False)
    for decide in (rig.people.approvals.approve, rig.people.approvals.refuse):
        with pytest.raises(NotTheirsToApproveError):
            await decide(held.id, other, VIA)
    assert (await rig.people.approvals.held(held.id)).decision is Decision.WAITING


async def test_what_is_refused_is_undone_and_does_not_wait_any_more(rig: PeopleRig, officers: Officers):
    ann, bob = officers
    new = await rig.people.acts.make_person("op", Role.OPERATOR, "", ann, VIA)
    assert new.held is not None
    await rig.people.approvals.refuse(new.held.id, ann, VIA)
    assert (await rig.people.accounts.person(new.person.id)).state is State.DISABLED
    with pytest.raises(ApprovalClosedError):
        await rig.people.approvals.approve(new.held.id, bob, VIA)
    assert (await rig.people.approvals.waiting(10, None)).records == ()


async def test_what_nobody_decides_in_time_is_over(rig: PeopleRig, officers: Officers):
    ann, bob = officers
    held = await rig.people.acts.rotate_key(ann, VIA, at_once=True)
    rig.clock.advance(APPROVAL_LIFE_S)
    with pytest.raises(ApprovalClosedError):
        await rig.people.approvals.approve(held.id, bob, VIA)
    with pytest.raises(ApprovalNotFoundError):
        await rig.people.approvals.held("a-nothing")


async def test_revoke_all_waits_for_a_second_officer_and_happens_once(rig: PeopleRig, officers: Officers):
    ann, bob = officers
    granted = await rig.log_in(await rig.member("op", Role.OPERATOR))
    held = await rig.people.acts.revoke_all(ann, VIA)
    assert held is not None
    assert await rig.who(granted) is not None
    await rig.people.approvals.approve(held.id, bob, VIA)
    assert await rig.who(granted) is None
    epoch = await rig.people.epoch.current()
    await rig.people.acts._raise_epoch(held, VIA, "again, after a crash")
    assert await rig.people.epoch.current() == epoch


async def test_a_client_and_its_next_secret_wait_too(rig: PeopleRig, officers: Officers):
    ann, bob = officers
    new = await rig.people.acts.make_client("care", Role.CCS, ann, VIA)
    for secret in (new.secret, Secret("x")):
        with pytest.raises(LoginRefusedError):
            await rig.people.clients.grant(new.client.id, secret, (), VIA)
    await rig.people.approvals.approve(new.held.id, bob, VIA)
    await rig.people.clients.grant(new.client.id, new.secret, (), VIA)
    second = await rig.people.acts.add_secret(new.client.id, bob, VIA)
    with pytest.raises(LoginRefusedError):
        await rig.people.clients.grant(new.client.id, second.secret, (), VIA)
    await rig.people.approvals.approve(second.held.id, ann, VIA)
    for secret in (new.secret, second.secret):
        await rig.people.clients.grant(new.client.id, secret, (), VIA)


async def approve_and_die(monkeypatch: pytest.MonkeyPatch, rig: PeopleRig, id: str, by: Principal) -> None:
    """Approve what is held in a process that is killed when it has done it, before it says so."""

    approvals = rig.people.approvals
    put = approvals._records.put
    with monkeypatch.context() as dying:

        async def until_done(id: str, record: Held, before: int, entry: Entry | None = None) -> bool:
            if record.decision is Decision.DONE:
                raise RuntimeError("killed")
            return await put(id, record, before, entry)

        dying.setattr(approvals._records, "put", until_done)
        with pytest.raises(RuntimeError):
            await approvals.approve(id, by, VIA)


async def test_a_person_who_began_anew_is_not_reset_again(
    rig: PeopleRig, officers: Officers, monkeypatch: pytest.MonkeyPatch
):
    ann, bob = officers
    op = await rig.member("op", Role.OPERATOR)
    reset = await rig.people.acts.reset_person(op.id, ann, VIA)
    await approve_and_die(monkeypatch, rig, reset.held.id, bob)
    factor = await rig.people.accounts.accept(reset.secret, PASSWORD, VIA, factor=True)
    assert factor is not None
    op.seed, op.step = factor.seed.reveal(), 0
    await rig.log_in(op)
    before = await rig.person(op)
    await rig.people.sweep()
    assert await rig.person(op) == before
    assert (await rig.people.approvals.held(reset.held.id)).decision is Decision.DONE


async def test_a_role_that_was_changed_again_does_not_come_back(
    rig: PeopleRig, officers: Officers, monkeypatch: pytest.MonkeyPatch
):
    ann, bob = officers
    op = await rig.member("op", Role.OPERATOR)
    first = await rig.people.acts.grant_role(op.id, Role.AUDITOR, "", ann, VIA)
    await approve_and_die(monkeypatch, rig, first.id, bob)
    second = await rig.people.acts.grant_role(op.id, Role.REP, "", ann, VIA)
    await rig.people.approvals.approve(second.id, bob, VIA)
    await rig.people.sweep()
    assert (await rig.person(op)).role is Role.REP


async def test_keys_are_made_once_for_one_decision(
    rig: PeopleRig, officers: Officers, monkeypatch: pytest.MonkeyPatch
):
    ann, bob = officers
    held = await rig.people.acts.rotate_key(ann, VIA, at_once=True)
    await approve_and_die(monkeypatch, rig, held.id, bob)
    granted = await rig.log_in(await rig.member("op", Role.OPERATOR))
    await rig.people.sweep()
    assert await rig.who(granted) is not None


async def test_a_secret_that_was_retired_is_not_taken_again(
    rig: PeopleRig, officers: Officers, monkeypatch: pytest.MonkeyPatch
):
    ann, bob = officers
    new = await rig.people.acts.make_client("ccs", Role.CCS, ann, VIA)
    await rig.people.approvals.approve(new.held.id, bob, VIA)
    second = await rig.people.acts.add_secret(new.client.id, ann, VIA)
    await approve_and_die(monkeypatch, rig, second.held.id, bob)
    third = await rig.people.acts.add_secret(new.client.id, ann, VIA)
    await rig.people.approvals.approve(third.held.id, bob, VIA)
    await rig.people.clients.retire_old_secret(new.client.id, ann, VIA)
    before = await rig.people.clients.client(new.client.id)
    await rig.people.sweep()
    assert await rig.people.clients.client(new.client.id) == before


async def test_who_approves_a_customer_sees_whose_account_it_opens(rig: PeopleRig, officers: Officers):
    ann, _ = officers
    new = await rig.people.acts.make_person("cat", Role.CUSTOMER, "account-9", ann, VIA)
    assert new.held is not None
    assert new.held.facts == {"role": "customer", "account": "account-9"}


async def test_the_only_officer_makes_the_second_alone_and_nobody_else(rig: PeopleRig):
    ann = await rig.principal(await rig.member("ann", Role.SECURITY))
    second = await rig.people.acts.make_person("bob", Role.SECURITY, "", ann, VIA)
    assert second.held is None
    assert {row.reason for row in await rig.rows("principal.create")} == {"", ONLY_OFFICER}
    third = await rig.people.acts.make_person("eve", Role.SECURITY, "", ann, VIA)
    assert third.held is not None, "the second may not have logged in, but there is one"
    assert (await rig.people.acts.make_person("op", Role.OPERATOR, "", ann, VIA)).held is not None


async def test_who_knows_the_name_of_a_session_ends_nothing(rig: PeopleRig):
    ann = await rig.member("ann", Role.CUSTOMER)
    granted = await rig.log_in(ann)
    family = opaque.owner_of(opaque.REFRESH, token(granted))
    assert f"session/{family}" in {row.target for row in await rig.rows("session.open")}
    for guess in (f"gnomon_rt_{family}.x", f"gnomon_rt_{family}.x.y", f"gnomon_rt_{family}.."):
        with pytest.raises(LoginRefusedError):
            await rig.people.sessions.refresh(Secret(guess), VIA)
        await rig.people.sessions.close(Secret(guess), VIA)
    await refresh(rig, granted)
    assert await rig.rows("session.reuse") == []


async def test_a_session_that_makes_room_for_a_newer_one_has_a_row(rig: PeopleRig):
    ann = await rig.member("ann", Role.CUSTOMER)
    for _ in range(SESSIONS_PER_PERSON_MAX):
        rig.clock.advance(5)
        await rig.log_in(ann)
    assert [row.reason for row in await rig.rows("session.close")] == [TOO_MANY]


async def test_who_disables_the_other_officer_makes_no_second_one_alone(rig: PeopleRig, officers: Officers):
    ann, bob = officers
    await rig.people.accounts.disable(bob.name, ann, VIA)
    puppet = await rig.people.acts.make_person("eve", Role.SECURITY, "", ann, VIA)
    assert puppet.held is not None
    with pytest.raises(ApprovalNeededError):
        await rig.people.accounts.accept(puppet.invitation, PASSWORD, VIA, factor=True)


async def test_nor_does_who_had_the_other_given_another_role(rig: PeopleRig, officers: Officers):
    ann, bob = officers
    await rig.people.accounts.set_role(bob.name, Role.REP, "", SYSTEM, VIA, "moved")
    assert (await rig.people.acts.make_person("eve", Role.SECURITY, "", ann, VIA)).held is not None


async def test_an_invitation_that_never_arrived_is_taken_back_and_made_anew(rig: PeopleRig):
    ann = await rig.principal(await rig.member("ann", Role.SECURITY))
    lost = await rig.people.acts.make_person("bob", Role.SECURITY, "", ann, VIA)
    await rig.people.accounts.disable(lost.person.id, ann, VIA)
    assert (await rig.people.acts.make_person("bobby", Role.SECURITY, "", ann, VIA)).held is None


async def test_an_officer_is_not_reset_once_they_are_the_last(rig: PeopleRig, officers: Officers):
    ann, bob = officers
    third = await rig.principal(await rig.member("cyd", Role.SECURITY))
    reset = await rig.people.acts.reset_person(bob.name, ann, VIA)
    await rig.people.accounts.disable(third.name, ann, VIA)
    await rig.people.accounts.disable(ann.name, bob, VIA)
    with pytest.raises(LastOfficerError):
        await rig.people.approvals.approve(reset.held.id, third, VIA)
    assert await rig.people.accounts.active_officers() == 1


async def test_the_only_officer_can_end_all_sessions_alone(rig: PeopleRig):
    ann = await rig.member("ann", Role.SECURITY)
    granted = await rig.log_in(ann)
    assert await rig.people.acts.revoke_all(await rig.principal(ann), VIA) is None
    assert await rig.who(granted) is None
    assert [row.reason for row in await rig.rows("revoke_all")] == [ONLY_OFFICER_STOPS]


async def test_the_last_officer_is_given_no_other_role(rig: PeopleRig):
    ann = await rig.principal(await rig.member("ann", Role.SECURITY))
    with pytest.raises(LastOfficerError):
        await rig.people.acts.grant_role(ann.name, Role.REP, "", ann, VIA)


async def test_what_was_approved_by_a_process_that_died_is_done_by_the_next(
    rig: PeopleRig, officers: Officers, monkeypatch: pytest.MonkeyPatch
):
    ann, bob = officers
    new = await rig.people.acts.make_person("op", Role.OPERATOR, "", ann, VIA)
    assert new.held is not None
    act = rig.people.approvals._acts["principal.create"]

    async def dies(*_: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as dying:
        dying.setitem(rig.people.approvals._acts, "principal.create", replace(act, run=dies))
        with pytest.raises(RuntimeError):
            await rig.people.approvals.approve(new.held.id, bob, VIA)
    assert (await rig.people.accounts.person(new.person.id)).state is State.HELD
    await rig.people.sweep()
    assert (await rig.people.accounts.person(new.person.id)).state is State.INVITED
    assert (await rig.people.approvals.held(new.held.id)).decision is Decision.DONE
    assert await rig.people.approvals.finish(10) == 0


async def test_what_cannot_be_done_any_more_is_told_and_keeps_nothing_else_from_being_done(
    rig: PeopleRig, officers: Officers
):
    ann, bob = officers
    op = await rig.member("op", Role.OPERATOR)
    held = await rig.people.acts.reset_person(op.id, ann, VIA)
    new = await rig.people.acts.make_person("new", Role.REP, "", ann, VIA)
    assert new.held is not None
    await rig.people.accounts.disable(new.person.id, SYSTEM)
    await rig.people.approvals.refuse(held.held.id, ann, VIA)
    facts = {"sha256": "", "until_ms": "0"}
    gone = await rig.people.approvals.ask("principal.reset", "person/p-aaaaaaaaaaaaaaaa", facts, ann, VIA)
    with pytest.raises(PersonNotFoundError):
        await rig.people.approvals.approve(gone.id, bob, VIA)
    assert (await rig.people.approvals.held(gone.id)).decision is Decision.FAILED
    await rig.people.sweep()
    assert (await rig.person(op)).state is State.ACTIVE


async def test_others_can_add_acts_of_their_own(tmp_path: Path):
    ran = list[str]()

    async def run(held: Held, _via: object, reason: str) -> None:
        ran.append(f"{held.facts['event']} {reason.partition(' (')[0]}")

    async with opened(tmp_path) as store:
        rig = await process(store, tmp_path, more={"event.approve": Act(Action.EVENT_APPROVE, run)})
        one = await rig.principal(await rig.member("one", Role.OPERATOR))
        two = await rig.principal(await rig.member("two", Role.OPERATOR))
        held = await rig.people.approvals.ask("event.approve", "event/e-1", {"event": "e-1"}, one, VIA)
        await rig.people.approvals.approve(held.id, two, VIA)
        assert ran == [f"e-1 approved by {two.name}"]
