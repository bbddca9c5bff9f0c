"""The life of a claim: a table, and one use."""

from dataclasses import replace

import pytest

from security.trust import claims
from security.trust.claims import FINAL, NEXT, Claim, OverError, SpentError, State, Trigger
from security.trust.codes import ClaimKind

NOW = 1_000
CLAIM = Claim(
    id="v1",
    kind=ClaimKind.VOUCHER,
    thing="hall",
    hash="h",
    maker="ada",
    made_at_ms=0,
    expires_at_ms=claims.VOUCHER_LIFE_MS,
)
LABEL = replace(CLAIM, kind=ClaimKind.INSTALL_CODE, expires_at_ms=None)


def test_what_has_ended_never_comes_back():
    assert {State.EXPIRED, State.REVOKED} == FINAL
    assert all(after is not State.ISSUED for after in NEXT.values())


def test_a_use_names_the_key_and_the_gateway():
    used = claims.use(CLAIM, "k1", "gw-1", NOW)
    assert (used.state, used.spki, used.gateway, used.used_at_ms) == (State.USED, "k1", "gw-1", NOW)


def test_the_same_key_may_come_again_and_changes_nothing():
    used = claims.use(CLAIM, "k1", "gw-1", NOW)
    assert claims.use(used, "k1", "gw-1", NOW + 1) is used


@pytest.mark.parametrize(("key", "gateway"), [("k2", "gw-1"), ("k1", "gw-2")])
def test_another_key_or_another_gateway_is_too_late(key, gateway):
    with pytest.raises(SpentError):
        claims.use(claims.use(CLAIM, "k1", "gw-1", NOW), key, gateway, NOW)


def test_a_voucher_ends_to_the_millisecond_used_or_not():
    last = claims.VOUCHER_LIFE_MS - 1
    used = claims.use(CLAIM, "k1", "gw-1", last)
    assert claims.use(used, "k1", "gw-1", last) is used
    for claim in (CLAIM, used):
        assert claims.state_at(claim, last + 1) is State.EXPIRED
        with pytest.raises(OverError):
            claims.use(claim, "k1", "gw-1", last + 1)


def test_a_labels_code_does_not_end_by_itself():
    assert claims.is_live(LABEL, 10**15)


@pytest.mark.parametrize("claim", [CLAIM, claims.use(CLAIM, "k1", "gw-1", NOW)])
def test_what_was_taken_back_is_no_longer_good(claim):
    revoked = claims.revoke(claim, NOW)
    assert revoked.state is State.REVOKED
    assert claims.revoke(revoked, NOW) is revoked
    with pytest.raises(OverError):
        claims.use(revoked, "k1", "gw-1", NOW)


def test_an_expired_one_is_not_taken_back():
    assert claims.revoke(CLAIM, claims.VOUCHER_LIFE_MS) is CLAIM


def test_the_first_certificate_stays_the_one():
    first = claims.answered(CLAIM, "s1", "pem1")
    assert (first.serial, first.certificate) == ("s1", "pem1")
    assert claims.answered(first, "s2", "pem2") is first


@pytest.mark.parametrize("trigger", Trigger)
def test_each_trigger_moves_something(trigger):
    assert any(one is trigger for _, one in NEXT)
