"""Which tokens a shadow knows again, for how long, and what it answers to them."""

import pytest

from infra.settings.model import ShadowLimits
from shadow import ledger
from shadow.commands import parse_delete, parse_update
from shadow.decisions import Accepted, Shadow
from shadow.ledger import DELETE, UPDATE, Answered, digest_of, find, remember, token_hash
from tests.fakes import NOW_MS
from tests.shadow_rig import DEVICE, HALL, LIMITS, accepted, delete, rejected, rig, update

S = NOW_MS // 1_000


def answered(body: bytes = b"{}", at: int = S, *, unique: bool = True, version: int = 1) -> Answered:
    return Answered(digest_of(body)[: ledger.DIGEST_BYTES], UPDATE, unique, version, at)


def filled(count: int, limits: ShadowLimits = LIMITS, at: int = S) -> bytes:
    """Return a ledger of `count` tokens, named 0, 1, 2 …"""
    known = ledger.NO_TOKENS
    for number in range(count):
        known = remember(known, token_hash(str(number)), answered(version=number + 1, at=at), limits)
    return known


def knows(known: bytes, token: str, now: int = S) -> Answered | None:
    return find(known, token_hash(token), now, LIMITS)


def test_a_record_comes_back_as_it_went_in():
    for one in (answered(), Answered(b"\xff" * 16, DELETE, unique=False, version=2**53, timestamp=2**33)):
        known = remember(filled(3), token_hash("x"), one, LIMITS)
        assert find(known, token_hash("x"), one.timestamp, LIMITS) == one


def test_as_many_tokens_are_known_as_the_bound_says_and_the_oldest_leaves_first():
    known = filled(LIMITS.dedup_records_max)
    assert all(knows(known, str(number)) for number in range(LIMITS.dedup_records_max))
    known = remember(known, token_hash("one more"), answered(), LIMITS)
    assert knows(known, "0") is None
    assert all(knows(known, str(number)) for number in range(1, LIMITS.dedup_records_max))
    assert knows(known, "one more")


def test_a_bound_of_one_keeps_the_newest():
    limits = ShadowLimits(dedup_records_max=1)
    known = filled(3, limits)
    assert [bool(knows(known, token)) for token in "012"] == [False, False, True]


def test_a_token_written_again_is_the_newest_and_takes_no_second_place():
    again = answered(version=99, unique=False)
    known = remember(filled(LIMITS.dedup_records_max), token_hash("0"), again, LIMITS)
    assert len(known) == len(filled(LIMITS.dedup_records_max))
    known = remember(known, token_hash("one more"), answered(), LIMITS)
    assert knows(known, "0") == again
    assert knows(known, "1") is None


def test_a_token_is_known_until_its_age_and_not_a_second_longer():
    known = filled(1)
    assert knows(known, "0", S + LIMITS.dedup_age_s)
    assert knows(known, "0", S + LIMITS.dedup_age_s + 1) is None


def test_what_is_too_old_leaves_with_the_next_record():
    known = remember(filled(5), token_hash("now"), answered(at=S + LIMITS.dedup_age_s), LIMITS)
    assert len(known) == len(filled(6))
    known = remember(filled(5), token_hash("now"), answered(at=S + LIMITS.dedup_age_s + 1), LIMITS)
    assert len(known) == len(filled(1))


def test_a_token_that_was_too_old_takes_no_second_place():
    known = remember(filled(3), token_hash("0"), answered(at=S + LIMITS.dedup_age_s + 1), LIMITS)
    assert len(known) == len(filled(1))
    assert knows(known, "0", S + LIMITS.dedup_age_s + 1) is not None


def test_bytes_of_a_record_that_look_like_a_token_are_not_one():
    token = token_hash("x")
    lookalike = Answered(token * 2, UPDATE, unique=True, version=1, timestamp=S)
    known = remember(filled(1), token_hash("y"), lookalike, LIMITS)
    assert find(known, token, S, LIMITS) is None
    assert find(remember(known, token, answered(version=7), LIMITS), token, S, LIMITS) == answered(version=7)


async def test_a_repeat_within_the_age_has_no_effect_and_one_after_it_is_new():
    async with rig() as service:
        first = accepted(await service.report({"a": 1}, clientToken="t"))
        service.clock.advance(LIMITS.dedup_age_s)
        again = accepted(await service.report({"a": 1}, clientToken="t"))
        assert (again.replayed, again.body) == (True, first.body)
        service.clock.advance(1)
        later = accepted(await service.report({"a": 1}, clientToken="t"))
        assert (later.replayed, later.version) == (False, 2)


async def test_a_clock_set_back_does_not_forget_a_token():
    async with rig() as service:
        await service.report({"a": 1}, clientToken="t")
        service.clock.jump(-10 * LIMITS.dedup_age_s)
        assert accepted(await service.report({"a": 1}, clientToken="t")).replayed


@pytest.mark.parametrize("token", ["", "empty"])
async def test_a_token_that_says_nothing_counts_as_none_but_is_echoed(token: str):
    async with rig() as service:
        for version in (1, 2):
            outcome = accepted(await service.report({"a": 1}, clientToken=token))
            assert (outcome.version, outcome.replayed) == (version, False)
            assert outcome.body.endswith(b'"clientToken":"%b"}' % token.encode())
        assert (await service.stored()).ledger == ledger.NO_TOKENS


async def test_a_token_with_another_body_is_a_new_request_and_never_replays_again():
    async with rig() as service:
        for version, value in enumerate((1, 2, 2, 1, 1), start=1):
            outcome = accepted(await service.report({"a": value}, clientToken="constant"))
            assert (outcome.version, outcome.replayed) == (version, False)


async def test_a_token_of_an_update_does_not_replay_a_deletion():
    async with rig() as service:
        for version in (1, 3, 5):
            made = await service.report({"a": 1}, clientToken="t")
            assert (accepted(made).version, accepted(made).replayed) == (version, False)
            gone = accepted(await service.one(delete(clientToken="t")))
            assert (gone.version, gone.replayed) == (version, False)


async def test_the_same_bytes_asked_for_a_deletion_are_another_request():
    body = b'{"state":{"reported":{"a":1}},"clientToken":"t"}'  # a deletion ignores all but the token
    async with rig() as service:
        made = await service.one(parse_update(body, HALL, DEVICE, LIMITS))
        gone = await service.one(parse_delete(body, HALL, DEVICE, LIMITS))
        assert (accepted(made).version, accepted(gone).version, accepted(gone).replayed) == (1, 1, False)
        assert not (await service.stored()).exists


async def test_a_refusal_is_not_remembered_so_that_a_retry_is_judged_anew():
    async with rig() as service:
        assert rejected(await service.report({"a": 1}, version=1, clientToken="t")).error.code == 409
        await service.report({"b": 1})
        outcome = accepted(await service.report({"a": 1}, version=1, clientToken="t"))
        assert (outcome.version, outcome.replayed) == (2, False)


async def test_an_idempotency_key_repeats_the_answer_and_refuses_another_body():
    async with rig() as service:
        first = accepted(await service.one(update({"desired": {"a": 1}}, key="k")))
        again = accepted(await service.one(update({"desired": {"a": 1}}, key="k")))
        assert (again.replayed, again.body) == (True, first.body)
        refused = rejected(await service.one(update({"desired": {"a": 2}}, key="k")))
        assert refused.error.code == 422
        assert (await service.stored()).version == 1
        still = accepted(await service.one(update({"desired": {"a": 1}}, key="k")))
        assert (still.replayed, still.body) == (True, first.body)


async def test_an_idempotency_key_of_a_deletion_is_not_one_of_an_update():
    async with rig() as service:
        await service.report({"a": 1})
        first = accepted(await service.one(delete(key="k")))
        assert accepted(await service.one(delete(key="k"))).body == first.body
        assert rejected(await service.one(update({"desired": {"a": 1}}, key="k"))).error.code == 422


async def test_an_idempotency_key_and_a_client_token_of_the_same_text_are_two():
    async with rig() as service:
        await service.desire({"a": 1}, clientToken="k")
        outcome = accepted(await service.one(update({"desired": {"a": 2}}, key="k")))
        assert not outcome.replayed
        assert accepted(await service.desire({"a": 1}, clientToken="k")).replayed


async def test_the_ledger_survives_deletion_restart_and_its_bound():
    async with rig() as service:
        first = accepted(await service.report({"a": 0}, clientToken="0"))
        await service.one(delete())
        assert (await service.stored()).ledger
        for number in range(1, LIMITS.dedup_records_max):
            await service.report({"a": number}, clientToken=str(number))
            service.settle_all()
        store = service.store
    async with rig(store) as service:
        again = accepted(await service.report({"a": 0}, clientToken="0"))
        assert (again.replayed, again.body) == (True, first.body)
        await service.report({"a": 1}, clientToken="one more")
        beyond = accepted(await service.report({"a": 0}, clientToken="0"))
        assert isinstance(beyond, Accepted)
        assert not beyond.replayed


def test_a_fresh_shadow_knows_no_token():
    assert Shadow().ledger == ledger.NO_TOKENS
    assert find(Shadow().ledger, token_hash("x"), S, LIMITS) is None
