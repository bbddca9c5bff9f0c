"""The first-run authority: what it issues, what it refuses, and that its root is made once."""

import ipaddress
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from security.authority import (
    AUTHORITY_FILE,
    ROOT_FILE,
    SERVER_FILE,
    Authority,
    AuthorityError,
    AuthorityExpiredError,
    Credentials,
    DamagedFileError,
    ExposedFileError,
    InvalidHostError,
    UncertifiableNameError,
)
from security.certificates import HOSTS_MAX
from tests.fakes import FakeClock

HOSTS = ("localhost", "127.0.0.1", "::1")
DAY_S = 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def authority(tmp_path: Path, clock: FakeClock) -> Authority:
    return Authority.open(tmp_path / "ca", clock)


def now(clock: FakeClock) -> datetime:
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)


def certificate(credentials: Credentials) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credentials.certificate_pem)


def openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("openssl")
    assert program, "these tests ask openssl for its judgement: install it"
    command = [program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def verify(
    root: Path, credentials: Credentials, purpose: str, at: datetime, folder: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    leaf = folder / "leaf.pem"
    leaf.write_bytes(credentials.certificate_pem)
    moment = str(int(at.timestamp()))
    return openssl(
        "verify",
        "-x509_strict",
        "-CAfile",
        str(root),
        "-purpose",
        purpose,
        "-attime",
        moment,
        *more,
        str(leaf),
    )


# Outside judgement


def test_openssl_takes_a_thing_as_client_and_not_as_server(authority, clock, tmp_path):
    thing = authority.issue_thing("hall-thermostat")
    as_client = verify(authority.root_pem_path, thing, "sslclient", now(clock), tmp_path)
    assert as_client.returncode == 0, as_client.stderr
    as_server = verify(authority.root_pem_path, thing, "sslserver", now(clock), tmp_path)
    assert as_server.returncode != 0
    assert "purpose" in as_server.stderr


@pytest.mark.parametrize("check", [("-verify_hostname", "localhost"), ("-verify_ip", "127.0.0.1")])
def test_openssl_takes_the_server_under_its_hosts_and_not_as_client(authority, clock, tmp_path, check):
    server = authority.issue_server(HOSTS)
    as_server = verify(authority.root_pem_path, server, "sslserver", now(clock), tmp_path, *check)
    assert as_server.returncode == 0, as_server.stderr
    assert verify(authority.root_pem_path, server, "sslclient", now(clock), tmp_path).returncode != 0


def test_openssl_refuses_another_host(authority, clock, tmp_path):
    server = authority.issue_server(HOSTS)
    check = ("-verify_hostname", "example.com")
    assert verify(authority.root_pem_path, server, "sslserver", now(clock), tmp_path, *check).returncode != 0


@pytest.mark.parametrize(
    ("days", "good"), [(-0.03, True), (0, True), (364.9, True), (-0.05, False), (365.1, False)]
)
def test_openssl_takes_a_thing_from_an_hour_before_for_a_year(authority, clock, tmp_path, days, good):
    thing = authority.issue_thing("t1")
    at = now(clock) + timedelta(days=days)
    assert (verify(authority.root_pem_path, thing, "sslclient", at, tmp_path).returncode == 0) is good


def test_another_first_run_makes_a_root_that_does_not_vouch_for_ours(authority, clock, tmp_path):
    other = Authority.open(tmp_path / "other", clock)
    assert other.root_pem != authority.root_pem
    foreign = verify(other.root_pem_path, authority.issue_thing("t1"), "sslclient", now(clock), tmp_path)
    assert foreign.returncode != 0


def test_openssl_reads_the_keys(authority, tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(authority.issue_thing("t1").private_key_pem)
    assert openssl("pkey", "-in", str(path), "-noout").returncode == 0


# What a certificate says


def test_a_thing_is_its_common_name_and_its_uri_and_nothing_more(authority):
    issued = certificate(authority.issue_thing("dev-7f3"))
    assert issued.subject == x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-7f3")])
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("urn:gnomon:thing:dev-7f3")]


@pytest.mark.parametrize(
    ("issue", "usage"),
    [
        (lambda a: a.issue_thing("t1"), ExtendedKeyUsageOID.CLIENT_AUTH),
        (lambda a: a.issue_server(HOSTS), ExtendedKeyUsageOID.SERVER_AUTH),
    ],
    ids=["thing", "server"],
)
def test_an_end_certificate_has_one_use_and_issues_nothing(authority, issue, usage):
    extensions = certificate(issue(authority)).extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    use = extensions.get_extension_for_class(x509.KeyUsage)
    assert (use.critical, use.value.digital_signature, use.value.key_cert_sign) == (True, True, False)


def test_the_root_issues_end_certificates_only(authority):
    root = x509.load_pem_x509_certificate(authority.root_pem)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)


def test_the_server_certificate_names_hosts_and_addresses(authority):
    issued = certificate(authority.issue_server(HOSTS))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    assert names.get_values_for_type(x509.IPAddress) == addresses


def test_lives_are_a_year_for_things_and_ninety_days_for_the_server(authority, clock):
    thing, server = certificate(authority.issue_thing("t1")), certificate(authority.issue_server(HOSTS))
    assert thing.not_valid_before_utc == server.not_valid_before_utc == now(clock) - timedelta(hours=1)
    assert thing.not_valid_after_utc == now(clock) + timedelta(days=365)
    assert server.not_valid_after_utc == now(clock) + timedelta(days=90)


def test_keys_are_p256_in_pkcs8_and_belong_to_their_certificate(authority):
    credentials = authority.issue_thing("t1")
    assert credentials.private_key_pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    key = serialization.load_pem_private_key(credentials.private_key_pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == certificate(credentials).public_key()


def test_serials_are_random_128_bits_and_keys_are_never_shared(authority):
    issued = [certificate(authority.issue_thing("t1")) for _ in range(40)]
    serials = {one.serial_number for one in issued}
    assert len(serials) == 40
    assert all(0 < serial < 2**128 for serial in serials)
    assert any(serial >= 2**120 for serial in serials)
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert len({one.public_key().public_bytes(*spki) for one in issued}) == 40


def test_credentials_do_not_print_themselves(authority):
    credentials = authority.issue_thing("t1")
    assert "PRIVATE" not in repr(credentials) + str(credentials) + f"{credentials!r}"


# The end of the root


def test_nothing_outlives_the_root(authority, clock):
    clock.jump((authority.expires - now(clock)).total_seconds() - 10 * DAY_S)
    for issued in (authority.issue_thing("t1"), authority.issue_server(HOSTS)):
        assert certificate(issued).not_valid_after_utc == authority.expires


@pytest.mark.parametrize(
    "issue",
    [lambda a: a.issue_thing("t1"), lambda a: a.server_credentials(HOSTS)],
    ids=["thing", "server"],
)
def test_an_expired_root_issues_nothing(authority, clock, issue):
    clock.jump((authority.expires - now(clock)).total_seconds())
    with pytest.raises(AuthorityExpiredError, match="set the clock"):
        issue(authority)


def test_a_clock_before_the_root_issues_nothing(authority, clock):
    clock.jump(-2 * DAY_S)
    with pytest.raises(AuthorityExpiredError):
        authority.issue_thing("t1")


def test_a_certificate_never_begins_before_its_root(authority, clock):
    clock.jump(-DAY_S + 60)
    root = x509.load_pem_x509_certificate(authority.root_pem)
    assert certificate(authority.issue_thing("t1")).not_valid_before_utc == root.not_valid_before_utc


# Names


@pytest.mark.parametrize("name", ["a", "A-1", "-", "x" * 64, "9" * 64])
def test_names_of_letters_digits_and_hyphens_are_issued(authority, name):
    issued = certificate(authority.issue_thing(name))
    assert issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name


BAD_NAMES = [
    "", "x" * 65, "+", "#", "/", "$", ".", "a+b", "a#", "a/b", "$SYS", "svc.bridge", " ", "a b", "a\n", "\na",
    "a\0", "a,CN=b", "ä", "\u2160", "\u0661", "a%u", "%c", "a*", "a=b", 'a"b', "a\\b",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("wide", [False, True])
def test_names_the_broker_could_misread_are_never_issued(tmp_path, clock, name, wide):
    authority = Authority.open(tmp_path / "ca", clock, wide_names=wide)
    with pytest.raises(UncertifiableNameError):
        authority.issue_thing(name)
    with pytest.raises(UncertifiableNameError):
        authority.check_name(name)


@pytest.mark.parametrize("name", ["a:b", "a_b", ":", "_"])
def test_the_wider_alphabet_must_be_switched_on(tmp_path, clock, authority, name):
    with pytest.raises(UncertifiableNameError, match="wide_names"):
        authority.issue_thing(name)
    wide = Authority.open(tmp_path / "ca", clock, wide_names=True)
    assert wide.root_pem == authority.root_pem
    assert certificate(wide.issue_thing(name)).subject.rfc4514_string() == f"CN={name}"


# Hosts


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("",),
        ("localhost", ""),
        ("*.example.com",),
        ("a b",),
        ("a_b",),
        ("host:8883",),
        ("https://host",),
        ("host.",),
        (".host",),
        ("a..b",),
        ("ä.example",),
        ("x" * 64,),
        ("x" * 60 + ".example",),
        ("localhost\n",),
        tuple(f"h{number}" for number in range(HOSTS_MAX + 1)),
    ],
)
def test_what_is_no_host_gets_no_server_certificate(authority, tmp_path, hosts):
    with pytest.raises(InvalidHostError):
        authority.issue_server(hosts)
    with pytest.raises(AuthorityError):
        authority.server_credentials(hosts)
    assert not (tmp_path / "ca" / SERVER_FILE).exists()


def test_as_many_hosts_as_allowed_are_issued_and_a_long_one_beside_a_short_one(authority):
    authority.issue_server([f"h{number}" for number in range(HOSTS_MAX)])
    issued = certificate(authority.issue_server(["x" * 60 + ".example", "short.example"]))
    assert issued.subject.rfc4514_string() == "CN=short.example"


# The server's certificate over time


def test_the_same_hosts_get_the_same_certificate(tmp_path, clock, authority):
    first = authority.server_credentials(HOSTS)
    assert authority.server_credentials(HOSTS) == first
    clock.advance(59 * DAY_S)
    assert Authority.open(tmp_path / "ca", clock).server_credentials(HOSTS) == first


def test_a_month_before_its_end_it_is_made_anew(authority, clock):
    first = authority.server_credentials(HOSTS)
    clock.advance(60 * DAY_S)
    second = authority.server_credentials(HOSTS)
    assert second != first
    assert certificate(second).not_valid_after_utc == now(clock) + timedelta(days=90)
    assert authority.server_credentials(HOSTS) == second


def test_other_hosts_get_another_certificate(authority):
    first = authority.server_credentials(HOSTS)
    assert authority.server_credentials(("localhost",)) != first


def test_a_certificate_from_the_future_is_made_anew(authority, clock):
    first = authority.server_credentials(HOSTS)
    clock.jump(-0.5 * DAY_S)
    assert authority.server_credentials(HOSTS) != first


def test_one_that_ends_with_the_root_is_not_made_anew_for_ever(authority, clock):
    clock.jump((authority.expires - now(clock)).total_seconds() - 5 * DAY_S)
    assert authority.server_credentials(HOSTS) == authority.server_credentials(HOSTS)


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_damaged_server_file_is_made_anew(tmp_path, authority, content):
    first = authority.server_credentials(HOSTS)
    (tmp_path / "ca" / SERVER_FILE).write_bytes(content)
    second = authority.server_credentials(HOSTS)
    assert second != first
    assert authority.server_credentials(HOSTS) == second


def test_a_server_key_that_others_could_read_is_made_anew(tmp_path, authority):
    first = authority.server_credentials(HOSTS)
    (tmp_path / "ca" / SERVER_FILE).chmod(0o644)
    assert authority.server_credentials(HOSTS) != first
    assert stat.S_IMODE((tmp_path / "ca" / SERVER_FILE).stat().st_mode) == 0o600


def test_a_server_certificate_of_another_root_is_made_anew(tmp_path, clock, authority):
    other = Authority.open(tmp_path / "other", clock)
    foreign = other.server_credentials(HOSTS)
    (tmp_path / "other" / SERVER_FILE).rename(tmp_path / "ca" / SERVER_FILE)
    assert authority.server_credentials(HOSTS) != foreign


def test_a_thing_in_the_servers_place_is_made_anew(tmp_path, authority):
    thing = authority.issue_thing("localhost")
    path = tmp_path / "ca" / SERVER_FILE
    path.write_bytes(thing.private_key_pem + thing.certificate_pem)
    path.chmod(0o600)
    assert authority.server_credentials(("localhost",)) != thing


# The files


def test_the_root_is_made_once(tmp_path, clock, authority):
    again = Authority.open(tmp_path / "ca", clock)
    assert again.root_pem == authority.root_pem == authority.root_pem_path.read_bytes()


def test_keys_are_for_their_owner_alone_and_the_root_is_for_everybody(tmp_path, authority):
    authority.server_credentials(HOSTS)
    folder = tmp_path / "ca"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {AUTHORITY_FILE: 0o600, SERVER_FILE: 0o600, ROOT_FILE: 0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert b"PRIVATE" not in (folder / ROOT_FILE).read_bytes()


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_the_public_root_file_is_put_right(tmp_path, clock, authority, damage):
    path = tmp_path / "ca" / ROOT_FILE
    path.write_bytes(b"x") if damage == "changed" else path.unlink()
    assert Authority.open(tmp_path / "ca", clock).root_pem_path.read_bytes() == authority.root_pem


def damaged(path: Path, how: str, authority: Authority) -> None:
    key, _, rest = path.read_bytes().partition(b"-----BEGIN CERTIFICATE")
    thing = authority.issue_thing("t1")
    contents = {
        "empty": b"",
        "nonsense": b"nonsense",
        "cut": path.read_bytes()[:-60],
        "no key": b"-----BEGIN CERTIFICATE" + rest,
        "no certificate": key,
        "another key": thing.private_key_pem + b"-----BEGIN CERTIFICATE" + rest,
        "no root": thing.private_key_pem + thing.certificate_pem,
    }
    path.write_bytes(contents[how])


@pytest.mark.parametrize(
    "how", ["empty", "nonsense", "cut", "no key", "no certificate", "another key", "no root"]
)
def test_a_damaged_root_stops_the_start_and_is_never_replaced(tmp_path, clock, authority, how):
    path = tmp_path / "ca" / AUTHORITY_FILE
    damaged(path, how, authority)
    before = path.read_bytes()
    with pytest.raises(DamagedFileError, match="put back a copy"):
        Authority.open(tmp_path / "ca", clock)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_root_key_that_others_may_read_stops_the_start(tmp_path, clock, authority, mode):
    assert authority
    (tmp_path / "ca" / AUTHORITY_FILE).chmod(mode)
    with pytest.raises(ExposedFileError, match="chmod"):
        Authority.open(tmp_path / "ca", clock)


def test_a_directory_that_others_may_write_to_stops_the_start(tmp_path, clock, authority):
    assert authority
    (tmp_path / "ca").chmod(0o770)
    with pytest.raises(ExposedFileError):
        Authority.open(tmp_path / "ca", clock)


def test_of_two_first_runs_at_once_one_makes_the_root(tmp_path):
    first = list[Authority]()

    class Slow(FakeClock):
        """Asked for the time between our look and our write: the other process does all of its start then."""

        def now_ms(self) -> int:
            if not first:
                first.append(Authority.open(tmp_path / "ca", FakeClock()))
            return super().now_ms()

    second = Authority.open(tmp_path / "ca", Slow())
    assert second.root_pem == first[0].root_pem
