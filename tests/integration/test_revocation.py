"""The four acts on a real broker, with real certificates: who is out, when, and who is not disturbed."""

import asyncio
import socket
import ssl
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count

import pytest

from broker_bridge.topics import SUBSCRIPTIONS
from gnomon.revocations import LocalBroker
from infra.clock import SystemClock
from infra.documents.memory import MemoryStore
from security import audit
from security.policy import Principal, Role
from security.trust import keys
from security.trust.crl import Revoked
from security.trust.revocation import REVOCATIONS, RevocationList, Revocations
from tests.broker_rig import BrokerRig
from tests.certificates import open_authority
from tests.covers import covers
from tests.fakes import FakeClock
from tests.system.mqtt import Thing

pytestmark = pytest.mark.integration

ANNA = Principal("anna", Role.SECURITY)
GONE_S_MAX = 2.0
_names = count(1)


class Issued:
    """What was issued, and what of it was revoked."""

    def __init__(self, rig):
        self.rig = rig
        self.rows = {}
        self.out = []

    def new(self, name=None):
        """Issue a certificate that :meth:`BrokerRig.certificate` finds; return the thing's name."""
        name = name or f"th-{next(_names)}"
        key = keys.make_key()
        issued = self.rig.authority.sign_thing(name, key.public_key())
        folder = self.rig.directory / "things"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.crt").write_bytes(issued.chain_pem)
        (folder / f"{name}.key").write_bytes(keys.key_pem(key))
        self.rows.setdefault(name, []).append(issued)
        return name

    async def revoke_all(self, thing, reason, _by, _via):
        now = datetime.now(UTC).replace(microsecond=0)
        for issued in self.rows.pop(thing, ()):
            self.out.append(Revoked(issued.serial, now, reason, issued.issuer))

    async def revoked(self):
        return self.out


@pytest.fixture(scope="module")
def rig(tmp_path_factory, broker_program):  # noqa: ARG001 - a skip without Mosquitto
    rig = BrokerRig(tmp_path_factory.mktemp("broker"))
    rig.start()
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def issued(rig):
    return Issued(rig)


async def nobody(*_):
    """Leave the registry alone: what the broker does is tested here."""


@contextmanager
def revoking(rig, issued):
    """Run revocations on the broker of the rig."""
    clock = SystemClock()
    with rig.janitor() as janitor:

        async def make():
            return Revocations(
                MemoryStore([REVOCATIONS], [audit.LOG]),
                clock,
                bar=nobody,
                certificates=issued,
                list=RevocationList(rig.authority, issued, clock),
                brokers={"local": LocalBroker(rig.broker, janitor)},
            )

        revocations = rig.call(make())
        running = asyncio.run_coroutine_threadsafe(revocations.run(), rig._loop)
        try:
            yield revocations
        finally:
            running.cancel()


def request(thing):
    return f"$aws/things/{thing}/shadow/update"


def is_let_in(rig, name):
    """Tell whether a broker takes a CONNECT of this name: TLS 1.3 says no only after the handshake."""
    context = ssl.create_default_context(cafile=rig.root_certificate)
    context.load_cert_chain(*rig.certificate(name))
    with (
        suppress(ssl.SSLError, ConnectionError),
        socket.create_connection(("127.0.0.1", rig.device_port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04lamp")
        return connection.recv(4) == b"\x20\x02\x00\x00"
    return False


@covers("A8")
def test_its_session_ends_and_it_does_not_come_back(rig, issued):
    name, other = issued.new(), issued.new()
    with (
        revoking(rig, issued) as revocations,
        rig.bridge() as bridge,
        rig.thing(name) as victim,
        rig.thing(other) as bystander,
    ):
        bridge.subscribe(*SUBSCRIPTIONS)
        victim.publish(request(name), b"before")
        began = time.monotonic()
        assert rig.call(revocations.revoke(name, ANNA))
        victim.wait_connected(False)
        assert time.monotonic() - began < GONE_S_MAX
        time.sleep(1.5)  # it tries to come back after a second
        assert not victim.is_connected
        bystander.publish(request(other), b"after")
        bridge.wait_on(request(other))
        assert bystander.is_connected
        assert [one.payload for one in bridge.received if one.topic == request(name)] == [b"before"]


def test_the_last_of_what_they_say_comes_within_two_seconds_and_others_go_on(rig, issued):
    names, others = [issued.new() for _ in range(8)], [issued.new() for _ in range(4)]
    with revoking(rig, issued) as revocations, rig.bridge() as bridge:
        bridge.subscribe(*SUBSCRIPTIONS)
        things = {name: Thing(rig, name).connect() for name in (*names, *others)}

        async def revoke_all():
            return await asyncio.gather(*(revocations.revoke(name, ANNA) for name in names))

        def talk(until):
            while time.monotonic() < until:
                for name, thing in things.items():
                    thing.send(request(name), b"%f" % time.monotonic())
                time.sleep(0.005)

        talk(time.monotonic() + 0.2)
        began = time.monotonic()
        revoked = asyncio.run_coroutine_threadsafe(revoke_all(), rig._loop)
        talk(began + GONE_S_MAX)
        assert all(revoked.result(5))
        last = {one.topic: float(one.payload) for one in bridge.received}
        gone = [last[request(name)] - began for name in names]
        still = [last[request(name)] - began for name in others]
        for thing in things.values():
            thing.disconnect()
        print("last message after the call, s:", sorted(round(one, 3) for one in gone))
        assert max(gone) < GONE_S_MAX / 2
        assert min(still) > GONE_S_MAX - 0.5


def test_lists_of_one_second_are_each_believed(rig, issued):
    names = [issued.new() for _ in range(5)]
    with revoking(rig, issued) as revocations:
        for name in names:
            assert is_let_in(rig, name)
            assert rig.call(revocations.revoke(name, ANNA))
            assert not is_let_in(rig, name)


def test_who_gets_the_name_next_is_let_in_and_who_had_it_is_not(rig, issued):
    name = issued.new()
    earlier = [file.read_bytes() for file in rig.certificate(name)]
    with revoking(rig, issued) as revocations:
        assert rig.call(revocations.revoke(name, ANNA))
        issued.new(name)
        assert is_let_in(rig, name)
        for file, content in zip(rig.certificate(name), earlier, strict=True):
            file.write_bytes(content)
        assert not is_let_in(rig, name)


def test_a_broker_that_was_killed_comes_back_with_the_list(rig, issued):
    name, other = issued.new(), issued.new()
    with revoking(rig, issued) as revocations:
        assert rig.call(revocations.revoke(name, ANNA))
    rig.call(rig.broker.stop())
    rig.call(rig.broker.start())
    assert not is_let_in(rig, name)
    assert is_let_in(rig, other)


def test_a_list_without_a_reload_keeps_nobody_out(rig, issued):
    name = issued.new()
    rig.call(issued.revoke_all(name, "", None, None))
    rig.authority.write_crl(issued.out)
    assert is_let_in(rig, name)
    with rig.janitor() as janitor:
        rig.call(LocalBroker(rig.broker, janitor).reload())
    assert not is_let_in(rig, name)


@pytest.mark.usefixtures("broker_program")
def test_an_expired_list_keeps_out_everybody(tmp_path):
    clock = FakeClock(SystemClock().now_ms() - 25 * 3_600_000)
    open_authority(tmp_path, clock)
    rig = BrokerRig(tmp_path)
    issued = Issued(rig)
    name = issued.new()
    rig.start()
    try:
        assert rig.authority.crl_is_due
        assert not is_let_in(rig, name)
        rig.call(RevocationList(rig.authority, issued, SystemClock()).issue())
        with rig.janitor() as janitor:
            rig.call(LocalBroker(rig.broker, janitor).reload())
        assert is_let_in(rig, name)
    finally:
        rig.close()
