"""Revocation lists: what is on them, and that of two a verifier believes the newer one."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from security.trust import certificates, crl, keys
from security.trust.authority import Authority
from security.trust.crl import CrlTooSoonError, Revoked
from tests.certificates import open_authority
from tests.fakes import FakeClock
from tests.openssl import openssl, refusal

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
KEY = keys.make_key().public_key()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def authority(tmp_path: Path, clock: FakeClock) -> Authority:
    return open_authority(tmp_path, clock)


def now(clock: FakeClock) -> datetime:
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)


def this_update(authority: Authority) -> datetime:
    lists = crl.parse(authority.crl_path.read_bytes())
    assert lists is not None
    return lists.this_update


def revoked(clock, issued, reason="key_compromise") -> Revoked:
    return Revoked(issued.serial, now(clock), reason, issued.issuer)


def verdict(authority, issued, at, tmp_path, *lists: Path) -> str:
    presented = tmp_path / "presented.pem"
    presented.write_bytes(issued.chain_pem)
    options = [part for path in lists or (authority.crl_path,) for part in ("-CRLfile", path)]
    return refusal(authority.root_pem_path, presented, "sslclient", at, "-crl_check", *options)


# Outside judgement


def test_a_list_is_there_from_the_first_run_and_nobody_is_on_it(authority, clock, tmp_path):
    issued = authority.sign_thing("t1", KEY)
    assert verdict(authority, issued, now(clock), tmp_path) == ""
    assert crl.rows(authority.crl_path.read_bytes()) == []


def test_openssl_refuses_who_is_on_the_list_and_nobody_else(authority, clock, tmp_path):
    bad, good = (authority.sign_thing(name, KEY) for name in ("bad", "good"))
    authority.write_crl([revoked(clock, bad)])
    assert "certificate revoked" in verdict(authority, bad, now(clock), tmp_path)
    assert verdict(authority, good, now(clock), tmp_path) == ""


def test_an_expired_list_locks_out_everyone(authority, clock, tmp_path):
    issued = authority.sign_thing("t1", KEY)
    assert verdict(authority, issued, authority.crl_next_update - timedelta(seconds=1), tmp_path) == ""
    late = authority.crl_next_update + timedelta(seconds=1)
    assert "CRL has expired" in verdict(authority, issued, late, tmp_path)
    clock.advance(DAY_S + 60)
    authority.refresh_crl()
    assert verdict(authority, issued, late, tmp_path) == ""


def test_openssl_believes_the_list_that_was_made_later_whichever_it_met_first(authority, clock, tmp_path):
    first, second = (authority.sign_thing(name, KEY) for name in ("first", "second"))
    lists = []
    for number, rows in enumerate(((), (first,), (first, second))):
        authority.write_crl([revoked(clock, one) for one in rows])
        lists.append(tmp_path / f"{number}.pem")
        lists[-1].write_bytes(authority.crl_path.read_bytes())
    for order in (lists, lists[::-1]):
        for issued in (first, second):
            assert "certificate revoked" in verdict(authority, issued, now(clock), tmp_path, *order)


def test_two_lists_of_one_date_are_the_trap_that_this_avoids(authority, clock, tmp_path):
    issued = authority.sign_thing("t1", KEY)
    lists = []
    for number, rows in enumerate(([], [revoked(clock, issued)])):
        lists.append(tmp_path / f"{number}.pem")
        lists[-1].write_bytes(crl.make(authority._living(), rows, now(clock), None).pem)
    assert verdict(authority, issued, now(clock), tmp_path, *lists) == ""  # although the second list has it
    assert "certificate revoked" in verdict(authority, issued, now(clock), tmp_path, *lists[::-1])


def test_openssl_finds_the_signature_good(authority):
    issuing = authority.authorities_path
    said = openssl("crl", "-in", authority.crl_path, "-CAfile", issuing, "-noout")
    assert said.returncode == 0
    assert "verify OK" in said.stderr + said.stdout


# Dates


def test_each_list_is_dated_later_than_the_last_and_none_in_the_future(authority, clock):
    dates, numbers = [this_update(authority)], []
    for _ in range(50):
        authority.write_crl([])
        dates.append(this_update(authority))
        lists = crl.parse(authority.crl_path.read_bytes())
        assert lists is not None
        numbers.append(lists.number)
    assert all(later - earlier >= timedelta(seconds=1) for earlier, later in pairwise(dates))
    assert dates[-1] <= now(clock)
    assert numbers == sorted(set(numbers))


def test_a_quiet_day_brings_the_date_back_to_an_hour_ago(authority, clock):
    clock.advance(7_200)
    authority.write_crl([])
    assert this_update(authority) == now(clock) - timedelta(hours=1)
    assert authority.crl_next_update == now(clock) + timedelta(hours=24)


def test_the_number_of_lists_in_an_hour_is_bounded_and_the_next_second_has_room(authority, clock):
    (pair,) = authority._living()
    lists = crl.make([pair], [], now(clock), None)
    crowded = crl.Lists(b"", now(clock), lists.next_update, 1, lists.issuers)
    with pytest.raises(CrlTooSoonError):
        crl.make([pair], [], now(clock), crowded)
    clock.advance(1)
    assert crl.make([pair], [], now(clock), crowded).this_update == now(clock)


def test_after_the_clock_was_set_back_lists_are_dated_by_the_clock_again(authority, clock):
    clock.advance(DAY_S / 2)
    authority.write_crl([])
    clock.jump(-DAY_S / 2)
    authority.write_crl([])
    assert this_update(authority) == now(clock) - timedelta(hours=1)


def test_a_list_is_due_after_a_quarter_of_its_life(authority, clock):
    clock.advance(6 * 3_600 - 1)
    assert not authority.crl_is_due
    clock.advance(1)
    assert authority.crl_is_due
    authority.refresh_crl()
    assert not authority.crl_is_due


# What is on it


def test_rows_come_back_as_they_were_written(authority, clock):
    issued = [authority.sign_thing(f"t{number}", KEY) for number in range(3)]
    rows = [
        revoked(clock, one, reason)
        for one, reason in zip(issued, ("key_compromise", "superseded", ""), strict=True)
    ]
    authority.write_crl(rows)
    assert sorted(crl.rows(authority.crl_path.read_bytes()), key=lambda row: row.serial) == sorted(
        rows, key=lambda row: row.serial
    )


@pytest.mark.parametrize("reason", ["", "unspecified", "stolen from the meter cupboard", "remove_from_crl"])
def test_reasons_that_the_standard_does_not_know_are_left_out(authority, clock, tmp_path, reason):
    issued = authority.sign_thing("t1", KEY)
    authority.write_crl([revoked(clock, issued, reason)])
    assert [row.reason for row in crl.rows(authority.crl_path.read_bytes())] == [""]
    assert "certificate revoked" in verdict(authority, issued, now(clock), tmp_path)


def test_a_refresh_keeps_the_rows(authority, clock, tmp_path):
    issued = authority.sign_thing("t1", KEY)
    authority.write_crl([revoked(clock, issued)])
    clock.advance(3_600)
    open_authority(tmp_path, clock).refresh_crl()
    assert "certificate revoked" in verdict(authority, issued, now(clock), tmp_path)


def test_who_was_forgiven_is_not_on_the_next_list(authority, clock, tmp_path):
    issued = authority.sign_thing("t1", KEY)
    authority.write_crl([revoked(clock, issued)])
    authority.write_crl([])
    assert verdict(authority, issued, now(clock), tmp_path) == ""


def test_each_issuing_authority_has_a_list_of_its_own_until_it_ends(authority, clock, tmp_path):
    clock.advance(4.5 * YEAR_S)
    old = authority.sign_thing("old", KEY)
    authority.renew(authority.root())
    clock.advance(DAY_S)
    new = authority.sign_thing("new", KEY)
    assert old.issuer != new.issuer
    rows = [revoked(clock, one) for one in (old, new)]
    authority.write_crl(rows)
    assert authority.crl_path.read_bytes().count(b"BEGIN X509 CRL") == 2
    for issued in (old, new):
        assert "certificate revoked" in verdict(authority, issued, now(clock), tmp_path)
    clock.advance(YEAR_S)
    authority.write_crl(rows)
    lists = crl.parse(authority.crl_path.read_bytes())
    assert lists is not None
    assert lists.issuers == {new.issuer}
    assert [row.serial for row in crl.rows(lists.pem)] == [new.serial]


def test_a_successor_has_a_list_at_once_because_without_one_nobody_of_it_is_let_in(authority, clock):
    authority.renew(authority.root())
    clock.advance(DAY_S / 2)
    lists = crl.parse(authority.crl_path.read_bytes())
    assert lists is not None
    assert lists.issuers == {certificates.key_id(one) for one in authority.issuing()}


def test_ten_thousand_rows_are_written_and_read_back(authority, clock):
    rows = [Revoked(f"{number:032x}", now(clock), "", "") for number in range(1, 10_001)]
    issuer = authority._living()[0].id
    rows = [Revoked(row.serial, row.at, row.reason, issuer) for row in rows]
    authority.write_crl(rows)
    assert crl.rows(authority.crl_path.read_bytes()) == rows


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-----END X509 CRL-----", b"\xff"])
def test_what_is_no_list_is_none(text):
    assert crl.parse(text) is None


def test_a_foreign_list_is_none(authority, clock):
    (pair,) = authority._living()
    builder = x509.CertificateRevocationListBuilder().issuer_name(pair.certificate.subject)
    builder = builder.last_update(now(clock)).next_update(now(clock) + timedelta(days=1))
    text = builder.sign(pair.key, SHA256()).public_bytes(Encoding.PEM)
    assert crl.parse(text) is None
