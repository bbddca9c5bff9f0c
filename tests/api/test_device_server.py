"""The devices' listener over TLS: whose certificates it takes, what it shows, and for how long it waits."""

import asyncio
import socket
import ssl
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace

import httpx
import pytest
from cryptography import x509

from api import transport
from api.limits import ApiLimits
from gnomon import joining
from gnomon.joining import Files, JoinError
from infra.clock import SystemClock
from infra.telemetry import Metrics
from security import private_files
from security.trust import certificates, keys
from tests.api.device_rig import EST, certified, over_tls, trusting, write_pair
from tests.api.rig import AWS, HALL, OPERATOR, api
from tests.fakes import FakeClock
from tests.trust import open_authority


@pytest.fixture
async def rig(tmp_path):
    """The API at the real time: OpenSSL knows no other."""
    async with api(tmp_path, clock=FakeClock(SystemClock().now_ms())) as rig:
        yield rig


async def get(url, path, root, files=None):
    async with httpx.AsyncClient(verify=trusting(root, files), timeout=10) as http:
        return await http.get(url + path)


async def test_without_a_certificate_one_may_come_to_join_and_no_further(rig, tmp_path):
    root = rig.services.trust.authority.root_pem
    async with over_tls(rig, tmp_path) as url:
        assert (await get(url, f"{EST}/cacerts", root)).status_code == 200
        assert (await get(url, AWS, root)).status_code == 401


async def test_a_certificate_of_ours_is_who_one_is_and_a_revoked_one_is_nobody(rig, tmp_path):
    root = rig.services.trust.authority.root_pem
    issued, key = await certified(rig)
    files = write_pair(tmp_path, HALL, issued.chain_pem, key)
    leaf_only = write_pair(tmp_path, "leaf", issued.certificate_pem, key)
    await rig.desire({"set": 21})
    async with over_tls(rig, tmp_path) as url:
        for pair in (files, leaf_only):
            answer = await get(url, AWS, root, pair)
            assert answer.json()["state"]["desired"] == {"set": 21}
        await rig.services.trust.issued.revoke([issued.serial], "key_compromise", OPERATOR)
        assert (await get(url, AWS, root, files)).status_code == 401


@pytest.mark.parametrize("kind", ["rogue", "server", "self-signed"])
async def test_a_certificate_that_is_not_a_things_of_ours_ends_the_handshake(rig, tmp_path, kind):
    authority, key = rig.services.trust.authority, keys.make_key()
    if kind == "rogue":
        (tmp_path / "rogue").mkdir()
        clock = FakeClock(rig.services.clock.now_ms())
        chain = open_authority(tmp_path / "rogue", clock).sign_thing(HALL, key.public_key()).chain_pem
    elif kind == "server":
        issuer = authority._newest()
        leaf = certificates.sign_server(issuer, ["localhost"], key.public_key(), authority._now())
        chain = certificates.pem(leaf, issuer.certificate)
    else:
        root = certificates.make_root(authority._now())
        chain, key = certificates.pem(root.certificate), root.key
    files = write_pair(tmp_path, "bad", chain, key)
    async with over_tls(rig, tmp_path) as url:
        with pytest.raises((httpx.ConnectError, httpx.ReadError, ssl.SSLError, httpx.RemoteProtocolError)):
            await get(url, f"{EST}/cacerts", authority.root_pem, files)
        assert (await get(url, f"{EST}/cacerts", authority.root_pem)).status_code == 200


async def test_whoever_trusts_another_root_does_not_take_us_for_the_utility(rig, tmp_path):
    (tmp_path / "other").mkdir()
    clock = FakeClock(rig.services.clock.now_ms())
    other = open_authority(tmp_path / "other", clock).root_pem
    async with over_tls(rig, tmp_path) as url:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await get(url, f"{EST}/cacerts", other)


async def test_a_handshake_that_does_not_come_is_not_waited_for(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "HANDSHAKE_S_MAX", 0.2)
    async with over_tls(rig, tmp_path) as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


@asynccontextmanager
async def half_open(url, count):
    """Open connections that say nothing; yield those that were not closed at once."""
    with ExitStack() as opened:
        port = int(url.rpartition(":")[2])
        held = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)]
        await asyncio.sleep(0.2)
        yield [one for one in held if stays_open(one)]


def stays_open(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


async def test_who_opens_connections_and_says_nothing_holds_no_more_than_an_address_may(
    rig, tmp_path, monkeypatch
):
    monkeypatch.setattr(transport, "HANDSHAKES_PER_ADDRESS_MAX", 3)
    root = rig.services.trust.authority.root_pem
    async with over_tls(rig, tmp_path) as url, half_open(url, 8) as held:
        assert len(held) == 3
        held[0].close()
        await asyncio.sleep(0.1)
        assert (await get(url, f"{EST}/cacerts", root)).status_code == 200


async def test_beyond_the_handshakes_of_all_the_next_waits_for_its_turn(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "HANDSHAKES_MAX", 2)
    monkeypatch.setattr(transport, "HANDSHAKE_S_MAX", 0.6)
    root = rig.services.trust.authority.root_pem
    async with over_tls(rig, tmp_path) as url, half_open(url, 2) as held:
        begun = asyncio.get_running_loop().time()
        assert (await get(url, f"{EST}/cacerts", root)).status_code == 200
        assert asyncio.get_running_loop().time() - begun > 0.2
        assert not any(map(stays_open, held))


async def test_connections_count_from_the_first_moment(rig, tmp_path):
    rig.services = replace(rig.services, metrics=Metrics(), limits=ApiLimits(connections_max=2))
    async with over_tls(rig, tmp_path) as url, half_open(url, 5) as held:
        assert len(held) == 2


@asynccontextmanager
async def let_in(url, root, count):
    """Open connections one after the other; yield those whose handshake was done."""
    port, context, streams = int(url.rpartition(":")[2]), trusting(root), []
    for _ in range(count):
        with suppress(OSError):
            streams.append(await asyncio.open_connection("127.0.0.1", port, ssl=context))
        await asyncio.sleep(0.02)
    yield streams
    for _, writer in streams:
        writer.close()


async def test_an_address_holds_no_more_connections_than_one_may_and_gets_them_back(rig, tmp_path):
    rig.services = replace(rig.services, metrics=Metrics(), limits=ApiLimits(connections_per_address_max=3))
    root = rig.services.trust.authority.root_pem
    async with over_tls(rig, tmp_path) as url:
        async with let_in(url, root, 6) as streams:
            assert len(streams) == 3
            with pytest.raises(httpx.TransportError):
                await get(url, f"{EST}/cacerts", root)
        await asyncio.sleep(0.1)
        async with let_in(url, root, 2) as streams:
            assert len(streams) == 2
            assert (await get(url, f"{EST}/cacerts", root)).status_code == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_counts_in_both_versions_of_tls(rig, tmp_path, version):
    issued, key = await certified(rig)
    files = write_pair(tmp_path, HALL, issued.chain_pem, key)
    context = trusting(rig.services.trust.authority.root_pem, files)
    context.minimum_version = context.maximum_version = version
    await rig.desire({"set": 21})
    async with over_tls(rig, tmp_path) as url, httpx.AsyncClient(verify=context) as http:
        assert (await http.get(url + AWS)).status_code == 200


async def test_the_key_on_disk_is_its_owners_alone(rig, tmp_path):
    async with over_tls(rig, tmp_path):
        assert (tmp_path / "api" / "devices.pem").stat().st_mode & 0o777 == 0o600


async def test_plain_http_is_no_way_in(rig, tmp_path):
    async with over_tls(rig, tmp_path) as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as plain:
            plain.settimeout(5)
            plain.sendall(b"GET /.well-known/est/cacerts HTTP/1.1\r\nhost: x\r\n\r\n")
            await asyncio.sleep(0.2)
            assert b"200" not in plain.recv(1_000)


async def test_a_device_renews_and_goes_on_where_it_was_stopped(rig, tmp_path):
    issued, key = await certified(rig)
    files = Files(tmp_path / "device", HALL)
    files.folder.mkdir()
    write_pair(files.folder, HALL, issued.chain_pem, key)
    files.key.chmod(0o600)
    files.root.write_bytes(rig.services.trust.authority.root_pem)
    async with over_tls(rig, tmp_path) as url:
        with pytest.raises(JoinError, match="last third"):
            await asyncio.to_thread(joining.renew, url, files)
        assert not files.next_key.exists(), "it was made for nothing"
        # Made before it was stopped; the answer to it may have been lost.
        private_files.create(files.next_key, keys.key_pem(keys.make_key()))
        begun, old = files.next_key.read_bytes(), files.key.read_bytes()
        # Only our clock moves: to OpenSSL the old certificate is as young as it was.
        rig.clock.advance(250 * 86_400)
        await asyncio.to_thread(joining.renew, url, files)
    assert (files.key.read_bytes(), files.next_key.exists()) == (begun, False)
    assert begun != old
    leaf = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    newest, before = await rig.services.trust.issued.of_thing(HALL)
    assert (newest.serial, before.serial) == (f"{leaf.serial_number:032x}", issued.serial)
    files.next_key.write_bytes(files.key.read_bytes())
    files.next_key.chmod(0o600)
    files.key.write_bytes(old)
    joining.renew(url, files)  # it had been stopped between the two files: nobody is asked
    assert files.key.read_bytes() == begun
