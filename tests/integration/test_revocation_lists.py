"""Revocation lists and successions in a real broker: whom it lets in after each reload, and whom not."""

from datetime import UTC, datetime
from functools import partial

import pytest

from infra.clock import SystemClock
from security.trust import crl, keys
from security.trust.authority import Revoked
from tests.broker_rig import BrokerRig
from tests.certificates import open_authority
from tests.fakes import FakeClock
from tests.integration.test_broker_configuration import handshake
from tests.system.mqtt import until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

CONNACK = b"\x20\x02\x00\x00"
HOUR_S = 3_600.0
RELOADED = "Reloading config."


class Gate:
    """A broker with a revocation list, and things whose certificates we know."""

    def __init__(self, directory):
        self.directory = directory
        self.rig = BrokerRig(directory, revocation_file=directory / "ca" / "crl.pem")
        self.authority = self.rig.authority
        self._revoked = list[Revoked]()

    def issue(self, name, *, chain=True):
        key = keys.make_key()
        issued = self.authority.sign_thing(name, key.public_key())
        certificate, private = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        certificate.write_bytes(issued.chain_pem if chain else issued.certificate_pem)
        private.write_bytes(keys.key_pem(key))
        return issued, (certificate, private)

    def lets_in(self, thing):
        return handshake(self.rig, thing[1]) == CONNACK

    def refuses(self, thing):
        return not self.lets_in(thing)

    def revoke(self, thing):
        issued, _ = thing
        self._revoked.append(Revoked(issued.serial, datetime.now(UTC), "key_compromise", issued.issuer))
        self.authority.write_crl(self._revoked)
        self.reload()

    def reload(self):
        before = self.reloads()
        self.rig.broker.reload()
        until(lambda: self.reloads() > before, "it reloads")

    def reloads(self):
        return sum(RELOADED in line for line in self.rig.broker.logged())


@pytest.fixture
def gate(tmp_path):
    gate = Gate(tmp_path)
    gate.rig.start()
    yield gate
    gate.rig.close()


def test_of_two_revocations_within_a_second_each_is_heeded_at_its_reload(gate):
    things = [gate.issue(f"t{number}") for number in range(6)]
    for number, thing in enumerate(things):
        assert gate.lets_in(thing)
        gate.revoke(thing)
        until(partial(gate.refuses, thing), f"t{number} is refused", 2.0)
        assert [gate.lets_in(one) for one in things] == [False] * (number + 1) + [True] * (5 - number)
    lists = crl.parse(gate.authority.crl_path.read_bytes())
    assert lists is not None
    dates = lists.next_update - lists.this_update
    assert dates.total_seconds() < 25 * HOUR_S  # all six within the hour that lists are dated back


def test_an_expired_list_locks_out_everyone_and_a_new_one_lets_them_in_without_a_restart(tmp_path):
    yesterday = FakeClock(SystemClock().now_ms() - round(30 * HOUR_S * 1_000))
    open_authority(tmp_path, yesterday)
    gate = Gate(tmp_path)
    gate.rig.start()
    try:
        thing = gate.issue("t1")
        assert not gate.lets_in(thing)
        gate.authority.refresh_crl()
        gate.reload()
        until(lambda: gate.lets_in(thing), "it is let in again", 2.0)
    finally:
        gate.rig.close()


def test_an_authority_whose_key_was_stolen_is_taken_away_with_all_it_signed(gate):
    old = gate.issue("old")
    gate.authority.renew(gate.authority.root())
    (gate.directory / "ca" / "issuing-0001.pem").unlink()
    open_authority(gate.directory)
    new = gate.issue("new")
    assert new[0].issuer != old[0].issuer
    gate.rig.call(gate.rig.broker.stop())
    gate.rig.start()
    assert gate.lets_in(new)
    assert not gate.lets_in(old)


@pytest.mark.parametrize("chain", [True, False], ids=["with its issuer", "alone"])
def test_a_reload_is_all_that_a_successor_takes(gate, chain):
    old = gate.issue("old", chain=chain)
    gate.authority.renew(gate.authority.root())
    gate.reload()
    gate.authority._clock = FakeClock(SystemClock().now_ms() + round(24 * HOUR_S * 1_000))
    assert len(gate.authority.issuing()) == 2
    newest = gate.authority._living()[-1]
    assert gate.authority._newest() is newest
    gate.authority._clock = SystemClock()
    gate.authority._newest = lambda: newest
    new = gate.issue("new", chain=chain)
    assert new[0].issuer != old[0].issuer
    until(lambda: gate.lets_in(new), "who is of the successor is let in", 2.0)
    assert gate.lets_in(old)
    gate.revoke(new)
    until(lambda: not gate.lets_in(new), "who is of the successor is refused", 2.0)
    gate.revoke(old)
    until(lambda: not gate.lets_in(old), "who is of the old one is refused", 2.0)
