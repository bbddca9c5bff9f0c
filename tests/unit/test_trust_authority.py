"""The authorities: what they issue, what they refuse, and that they are made once."""

import ipaddress
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.ids import RandomIds
from security import private_files
from security.secret import Secret
from security.secretbox import SecretBox
from security.trust import authority as files
from security.trust import certificates, crl, identifiers, keys
from security.trust.authority import (
    Authority,
    AuthorityError,
    AuthorityExpiredError,
    Credentials,
    DamagedFileError,
    ExposedFileError,
    InvalidHostError,
    NoAuthorityError,
    Revoked,
    RootInReachError,
    UncertifiableNameError,
    read_root,
    write_root,
)
from security.trust.certificates import HOSTS_MAX
from tests.certificates import issue_server, issue_service, issue_thing, open_authority
from tests.fakes import FakeClock
from tests.openssl import openssl, refusal

HOSTS = ("localhost", "127.0.0.1", "::1")
DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
KEY = keys.make_key()
FIRST = "issuing-0001.pem"
PASSPHRASE = Secret("correct horse battery")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def authority(tmp_path: Path, clock: FakeClock) -> Authority:
    return open_authority(tmp_path, clock)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ca"


def now(clock: FakeClock) -> datetime:
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)


def certificate(credentials: Credentials) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credentials.certificate_pem)


ISSUE = {
    "thing": lambda authority: issue_thing(authority, "hall-thermostat"),
    "service": lambda authority: issue_service(authority, "bridge"),
    "server": lambda authority: issue_server(authority, HOSTS),
}
PURPOSES = {"thing": "sslclient", "service": "sslclient", "server": "sslserver"}
LIVES = {"thing": 365, "service": 30, "server": 90}


def judged(authority, credentials, purpose, at, tmp_path, *more) -> str:
    presented = tmp_path / "presented.pem"
    presented.write_bytes(credentials.certificate_pem)
    return refusal(authority.root_pem_path, presented, purpose, at, *more)


# Outside judgement


@pytest.mark.parametrize("kind", ISSUE)
def test_openssl_takes_each_kind_for_its_one_purpose_also_against_the_revocation_list(
    authority, clock, tmp_path, kind
):
    credentials = ISSUE[kind](authority)
    lists = ("-crl_check", "-CRLfile", authority.crl_path)
    assert judged(authority, credentials, PURPOSES[kind], now(clock), tmp_path, *lists) == ""
    other = {"sslclient": "sslserver", "sslserver": "sslclient"}[PURPOSES[kind]]
    assert "purpose" in judged(authority, credentials, other, now(clock), tmp_path)


@pytest.mark.parametrize("kind", ISSUE)
def test_openssl_takes_each_kind_from_an_hour_before_for_its_life(authority, clock, tmp_path, kind):
    credentials, life = ISSUE[kind](authority), timedelta(days=LIVES[kind])
    for offset, good in (
        (-timedelta(minutes=59), True),
        (-timedelta(minutes=61), False),
        (life - timedelta(seconds=1), True),
        (life + timedelta(seconds=1), False),
    ):
        at = now(clock) + offset
        assert (judged(authority, credentials, PURPOSES[kind], at, tmp_path) == "") is good, offset


@pytest.mark.parametrize("check", [("-verify_hostname", "localhost"), ("-verify_ip", "127.0.0.1")])
def test_openssl_takes_the_server_under_its_hosts(authority, clock, tmp_path, check):
    assert judged(authority, issue_server(authority, HOSTS), "sslserver", now(clock), tmp_path, *check) == ""


def test_openssl_refuses_another_host(authority, clock, tmp_path):
    check = ("-verify_hostname", "example.com")
    server = issue_server(authority, HOSTS)
    assert "hostname" in judged(authority, server, "sslserver", now(clock), tmp_path, *check)


def test_openssl_takes_the_authorities_for_what_they_are(authority, clock, tmp_path):
    issuing = Credentials(certificates.pem(*authority.issuing()), b"")
    for purpose in ("crlsign", "any"):
        assert judged(authority, issuing, purpose, now(clock), tmp_path) == ""


def test_a_leaf_alone_is_checked_by_who_has_the_authorities_file(authority, clock, tmp_path):
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(authority.sign_thing("t1", KEY.public_key()).certificate_pem)
    assert refusal(authority.authorities_path, leaf, "sslclient", now(clock)) == ""
    assert "issuer" in refusal(authority.root_pem_path, leaf, "sslclient", now(clock))


def test_a_broker_believes_an_issuing_authority_by_itself_and_for_clients_only(authority, clock, tmp_path):
    alone = tmp_path / "alone.pem"
    alone.write_bytes(certificates.trusted_pem(authority.issuing()[0]))
    for kind, purpose, good in (("thing", "sslclient", True), ("server", "sslserver", False)):
        presented = tmp_path / "presented.pem"
        presented.write_bytes(ISSUE[kind](authority).certificate_pem)
        assert (refusal(alone, presented, purpose, now(clock)) == "") is good
    said = openssl("x509", "-in", alone, "-noout", "-text").stdout
    assert "Trusted Uses:" in said
    assert "TLS Web Client Authentication" in said


def test_another_first_run_makes_a_root_that_does_not_vouch_for_ours(authority, clock, tmp_path):
    other = open_authority(tmp_path / "other", clock)
    assert other.root_pem != authority.root_pem
    assert judged(other, issue_thing(authority, "t1"), "sslclient", now(clock), tmp_path)


@pytest.mark.parametrize("make", [ec.SECP384R1, None], ids=["p384", "rsa"])
def test_a_key_of_another_allowed_kind_is_certified_as_well(authority, clock, tmp_path, make):
    key = ec.generate_private_key(make()) if make else rsa.generate_private_key(65_537, 2_048)
    issued = authority.sign_thing("t1", key.public_key())
    assert judged(authority, Credentials(issued.chain_pem, b""), "sslclient", now(clock), tmp_path) == ""
    assert x509.load_der_x509_certificate(issued.der).public_key() == key.public_key()


def test_openssl_reads_the_keys(authority, tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(issue_thing(authority, "t1").private_key_pem)
    assert openssl("pkey", "-in", path, "-noout").returncode == 0


def test_openssl_reads_what_est_hands_out_and_finds_both_authorities(authority):
    said = openssl("pkcs7", "-inform", "DER", "-print_certs", "-noout", input=authority.cacerts())
    assert said.stdout.count("subject=CN = Gnomon root") == 1
    assert said.stdout.count("subject=CN = Gnomon issuing") == 1


# What a certificate says


def test_a_thing_is_its_common_name_and_its_uri_and_nothing_more(authority):
    issued = certificate(issue_thing(authority, "dev-7f3"))
    assert issued.subject == x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-7f3")])
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("urn:gnomon:thing:dev-7f3")]


def test_a_service_is_told_from_a_thing_by_a_name_that_no_thing_can_have(authority):
    issued = certificate(issue_service(authority, "bridge"))
    assert issued.subject.rfc4514_string() == "CN=svc.bridge"
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("urn:gnomon:svc:bridge")]
    with pytest.raises(UncertifiableNameError):
        authority.sign_thing("svc.bridge", KEY.public_key())


@pytest.mark.parametrize("name", ["", "Bridge", "a.b", "-a", "x" * 61, "a b", "a_b", "1a"])
def test_other_names_of_services_are_refused(authority, name):
    with pytest.raises(UncertifiableNameError):
        authority.sign_service(name, KEY.public_key())


@pytest.mark.parametrize(
    ("kind", "usage"),
    [
        ("thing", ExtendedKeyUsageOID.CLIENT_AUTH),
        ("service", ExtendedKeyUsageOID.CLIENT_AUTH),
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
    ],
)
def test_an_end_certificate_has_one_use_and_issues_nothing(authority, kind, usage):
    extensions = certificate(ISSUE[kind](authority)).extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    use = extensions.get_extension_for_class(x509.KeyUsage)
    assert (use.critical, use.value.digital_signature, use.value.key_cert_sign) == (True, True, False)


def test_the_root_signs_one_level_of_authorities_and_they_end_certificates_only(authority, clock):
    root, issuing = authority.roots()[0], authority.issuing()[0]
    for one, path_length, curve, days in ((root, 1, "secp384r1", 7_300), (issuing, 0, "secp256r1", 1_825)):
        constraints = one.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value.ca) == (True, True)
        assert constraints.value.path_length == path_length
        use = one.extensions.get_extension_for_class(x509.KeyUsage).value
        assert (use.key_cert_sign, use.crl_sign, use.digital_signature) == (True, True, False)
        key = one.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == curve
        assert one.not_valid_after_utc == now(clock) + timedelta(days=days)


def test_the_server_certificate_names_hosts_and_addresses(authority):
    issued = certificate(issue_server(authority, HOSTS))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    assert names.get_values_for_type(x509.IPAddress) == addresses


def test_what_was_issued_is_told_as_it_will_be_looked_for(authority, clock):
    issued = authority.sign_thing("t1", KEY.public_key())
    made = x509.load_der_x509_certificate(issued.der)
    assert x509.load_pem_x509_certificates(issued.chain_pem) == [made, *authority.issuing()]
    assert x509.load_pem_x509_certificate(issued.certificate_pem) == made
    assert int(issued.serial, 16) == made.serial_number
    assert len(issued.serial) == 32
    assert issued.lfdi == identifiers.lfdi(issued.der)
    assert issued.sfdi == identifiers.sfdi(issued.lfdi)
    assert issued.issuer == certificates.key_id(authority.issuing()[0])
    assert issued.not_before == now(clock) - timedelta(hours=1)
    assert issued.not_after == now(clock) + timedelta(days=365)


def test_serials_are_random_128_bits(authority):
    issued = [int(authority.sign_thing("t1", KEY.public_key()).serial, 16) for _ in range(40)]
    assert len(set(issued)) == 40
    assert all(0 < serial < 2**128 for serial in issued)
    assert any(serial >= 2**120 for serial in issued)


def test_credentials_do_not_print_themselves(authority):
    credentials = issue_thing(authority, "t1")
    assert "PRIVATE" not in repr(credentials) + str(credentials) + f"{credentials!r}"
    assert "KEY" not in repr(authority.root()) + str(authority.root())


# The end of the authorities


def test_nothing_outlives_its_authority(authority, clock):
    clock.jump((authority.expires - now(clock)).total_seconds() - 10 * DAY_S)
    for issued in (issue_thing(authority, "t1"), issue_server(authority, HOSTS)):
        assert certificate(issued).not_valid_after_utc == authority.expires


@pytest.mark.parametrize(
    "issue",
    [lambda a: a.sign_thing("t1", KEY.public_key()), lambda a: a.server_credentials(HOSTS)],
    ids=["thing", "server"],
)
def test_an_expired_authority_issues_nothing(authority, clock, issue):
    clock.jump((authority.expires - now(clock)).total_seconds())
    with pytest.raises(AuthorityExpiredError, match="set the clock"):
        issue(authority)


def test_a_clock_before_the_authority_issues_nothing(authority, clock):
    clock.jump(-2 * DAY_S)
    with pytest.raises(AuthorityExpiredError):
        authority.sign_thing("t1", KEY.public_key())


def test_a_certificate_never_begins_before_its_authority(authority, clock):
    clock.jump(-DAY_S + 60)
    begins = certificate(issue_thing(authority, "t1")).not_valid_before_utc
    assert begins == authority.issuing()[0].not_valid_before_utc


# Names


@pytest.mark.parametrize("name", ["a", "A-1", "-", "x" * 64, "9" * 64])
def test_names_of_letters_digits_and_hyphens_are_issued(authority, name):
    issued = certificate(issue_thing(authority, name))
    assert issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name


BAD_NAMES = [
    "", "x" * 65, "+", "#", "/", "$", ".", "a+b", "a#", "a/b", "$SYS", "svc.bridge", " ", "a b", "a\n", "\na",
    "a\0", "a,CN=b", "ä", "\u2160", "\u0661", "a%u", "%c", "a*", "a=b", 'a"b', "a\\b",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("wide", [False, True])
def test_names_the_broker_could_misread_are_never_issued(tmp_path, clock, name, wide):
    authority = open_authority(tmp_path, clock, wide_names=wide)
    with pytest.raises(UncertifiableNameError):
        authority.sign_thing(name, KEY.public_key())
    with pytest.raises(UncertifiableNameError):
        authority.check_name(name)


@pytest.mark.parametrize("name", ["a:b", "a_b", ":", "_"])
def test_the_wider_alphabet_must_be_switched_on(tmp_path, clock, authority, name):
    with pytest.raises(UncertifiableNameError, match="wide_names"):
        authority.sign_thing(name, KEY.public_key())
    wide = open_authority(tmp_path, clock, wide_names=True)
    assert wide.root_pem == authority.root_pem
    assert certificate(issue_thing(wide, name)).subject.rfc4514_string() == f"CN={name}"


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
def test_what_is_no_host_gets_no_server_certificate(authority, folder, hosts):
    with pytest.raises(InvalidHostError):
        authority.server_credentials(hosts)
    assert not list(folder.glob("server-*"))


def test_as_many_hosts_as_allowed_are_issued_and_a_long_one_beside_a_short_one(authority):
    authority.server_credentials([f"h{number}" for number in range(HOSTS_MAX)])
    issued = certificate(authority.server_credentials(["x" * 60 + ".example", "short.example"]))
    assert issued.subject.rfc4514_string() == "CN=short.example"


# The server's certificate over time


def server_file(folder: Path) -> Path:
    (file,) = folder.glob("server-*.pem")
    return file


def test_the_same_hosts_get_the_same_certificate(tmp_path, clock, authority):
    first = authority.server_credentials(HOSTS)
    assert authority.server_credentials(HOSTS) == first
    clock.advance(59 * DAY_S)
    assert open_authority(tmp_path, clock).server_credentials(HOSTS) == first


def test_a_month_before_its_end_it_is_made_anew(authority, clock):
    first = authority.server_credentials(HOSTS)
    clock.advance(60 * DAY_S)
    second = authority.server_credentials(HOSTS)
    assert second != first
    assert certificate(second).not_valid_after_utc == now(clock) + timedelta(days=90)
    assert authority.server_credentials(HOSTS) == second


def test_each_set_of_hosts_keeps_a_certificate_of_its_own(authority):
    first = authority.server_credentials(HOSTS)
    second = authority.server_credentials(("localhost",))
    assert first != second
    assert authority.server_credentials(HOSTS) == first
    assert authority.server_credentials(("localhost",)) == second


def test_a_certificate_from_the_future_is_made_anew(authority, clock):
    first = authority.server_credentials(HOSTS)
    clock.jump(-0.5 * DAY_S)
    assert authority.server_credentials(HOSTS) != first


def test_one_that_ends_with_its_authority_is_not_made_anew_for_ever(authority, clock):
    clock.jump((authority.expires - now(clock)).total_seconds() - 5 * DAY_S)
    assert authority.server_credentials(HOSTS) == authority.server_credentials(HOSTS)


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_damaged_server_file_is_made_anew(authority, folder, content):
    first = authority.server_credentials(HOSTS)
    server_file(folder).write_bytes(content)
    second = authority.server_credentials(HOSTS)
    assert second != first
    assert authority.server_credentials(HOSTS) == second


def test_a_server_key_that_others_could_read_is_made_anew(authority, folder):
    first = authority.server_credentials(HOSTS)
    server_file(folder).chmod(0o644)
    assert authority.server_credentials(HOSTS) != first
    assert stat.S_IMODE(server_file(folder).stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["foreign", "thing", "without chain"])
def test_another_certificate_in_the_servers_place_is_made_anew(tmp_path, clock, authority, folder, kind):
    first = authority.server_credentials(("localhost",))
    others = {
        "foreign": open_authority(tmp_path / "other", clock).server_credentials(("localhost",)),
        "thing": issue_thing(authority, "localhost"),
        "without chain": Credentials(certificates.pem(certificate(first)), first.private_key_pem),
    }
    path, other = server_file(folder), others[kind]
    path.write_bytes(other.private_key_pem + other.certificate_pem)
    path.chmod(0o600)
    shown = authority.server_credentials(("localhost",))
    assert shown.certificate_pem not in (other.certificate_pem, first.certificate_pem)


# The files


def test_the_authorities_are_made_once(tmp_path, clock, authority):
    again = open_authority(tmp_path, clock)
    assert again.root_pem == authority.root_pem == authority.root_pem_path.read_bytes()
    assert again.issuing() == authority.issuing()


def test_opening_again_changes_no_file(tmp_path, clock, authority, folder):
    assert authority
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    clock.advance(3_600)
    open_authority(tmp_path, clock)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert after == before


def test_keys_are_encrypted_and_for_their_owner_alone_and_certificates_are_for_everybody(authority, folder):
    authority.server_credentials(HOSTS)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    secret = {files.ROOT_KEY_FILE, files.ROOT_PASSPHRASE_FILE, files.ISSUING_PASSPHRASE_FILE, FIRST}
    public = {files.ROOT_FILE, files.AUTHORITIES_FILE, files.CRL_FILE}
    assert {modes[name] for name in secret | {server_file(folder).name}} == {0o600}
    assert {modes[name] for name in public} == {0o644}
    assert modes.keys() == secret | public | {server_file(folder).name, "lock"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in (files.ROOT_KEY_FILE, FIRST):
        text = (folder / name).read_bytes()
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in text
        assert b"BEGIN PRIVATE KEY" not in text
    assert not any(b"PRIVATE" in (folder / name).read_bytes() for name in public)


def test_passphrases_open_with_the_master_key_only(tmp_path, clock, authority, folder):
    assert authority
    box = SecretBox.open(tmp_path / "another", RandomIds())
    with pytest.raises(DamagedFileError, match="master key"):
        Authority.open(folder, box, clock)


@pytest.mark.parametrize("name", [files.ROOT_FILE, files.AUTHORITIES_FILE])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_public_files_are_put_right(tmp_path, clock, authority, folder, name, damage):
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(b"x") if damage == "changed" else path.unlink()
    again = open_authority(tmp_path, clock)
    assert again.root_pem == authority.root_pem
    assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_lost_revocation_list_is_never_made_again_as_an_empty_one(
    tmp_path, clock, authority, folder, damage
):
    thing = authority.sign_thing("t1", KEY.public_key())
    revoked = Revoked(thing.serial, now(clock), "key_compromise", thing.issuer)
    authority.write_crl([revoked])
    path = folder / files.CRL_FILE
    path.write_bytes(b"x") if damage == "changed" else path.unlink()
    again = open_authority(tmp_path, clock)
    assert not path.exists() or path.read_bytes() == b"x"
    for touch in (again.refresh_crl, again.alarms, lambda: again.renew(again.root())):
        with suppress(DamagedFileError):
            touch()
        assert not path.exists() or path.read_bytes() == b"x"
    with pytest.raises(DamagedFileError, match="recorded"):
        again.refresh_crl()
    assert again.crl_path == path
    again.write_crl([revoked])
    assert [row.serial for row in crl.rows(path.read_bytes())] == [thing.serial]


@pytest.mark.parametrize("name", [files.ROOT_FILE, files.AUTHORITIES_FILE, files.CRL_FILE])
def test_who_only_looks_writes_nothing(tmp_path, clock, authority, folder, name):
    assert authority
    (folder / name).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with suppress(DamagedFileError):
        Authority.look(
            folder, SecretBox.open(next(tmp_path.glob("**/master.key")), RandomIds()), clock
        ).alarms()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_root_is_gone_only_when_its_copy_will_last(tmp_path, authority, folder, monkeypatch):
    flushed = []

    def flush(path):
        flushed.append((path, authority.root_in_reach))

    monkeypatch.setattr(private_files, "flush_directory", flush)
    (tmp_path / "medium").mkdir()
    copy = authority.move_root(tmp_path / "medium", PASSPHRASE)
    assert flushed == [(tmp_path / "medium", True), (folder, False)]
    assert copy.stat().st_mode & 0o777 == 0o600


def damaged(path: Path, how: str, authority: Authority) -> None:
    key, _, rest = path.read_bytes().partition(b"-----BEGIN CERTIFICATE")
    thing = issue_thing(authority, "t1")
    contents = {
        "empty": b"",
        "nonsense": b"nonsense",
        "cut": path.read_bytes()[:-60],
        "no key": b"-----BEGIN CERTIFICATE" + rest,
        "no certificate": key,
        "another key": thing.private_key_pem + b"-----BEGIN CERTIFICATE" + rest,
        "no authority": key + thing.certificate_pem,
    }
    path.write_bytes(contents[how])


@pytest.mark.parametrize("name", [files.ROOT_KEY_FILE, FIRST])
@pytest.mark.parametrize(
    "how", ["empty", "nonsense", "cut", "no key", "no certificate", "another key", "no authority"]
)
def test_a_damaged_authority_stops_the_start_and_is_never_replaced(
    tmp_path, clock, authority, folder, name, how
):
    damaged(folder / name, how, authority)
    before = (folder / name).read_bytes()
    with pytest.raises(DamagedFileError, match="put back a copy"):
        open_authority(tmp_path, clock)
    assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("name", [FIRST, files.ISSUING_PASSPHRASE_FILE, files.ROOT_PASSPHRASE_FILE])
def test_a_lost_file_stops_the_start_unless_the_root_can_replace_it(tmp_path, clock, authority, folder, name):
    (folder / name).unlink()
    if name == FIRST:
        again = open_authority(tmp_path, clock)
        assert again.roots() == authority.roots()
        assert again.issuing() != authority.issuing()
    else:
        with pytest.raises(DamagedFileError, match="put back a copy"):
            open_authority(tmp_path, clock)
        assert not (folder / name).exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
@pytest.mark.parametrize("name", [files.ROOT_KEY_FILE, FIRST, files.ISSUING_PASSPHRASE_FILE])
def test_a_secret_that_others_may_read_stops_the_start(tmp_path, clock, authority, folder, name, mode):
    assert authority
    (folder / name).chmod(mode)
    with pytest.raises(ExposedFileError, match="chmod"):
        open_authority(tmp_path, clock)


def test_a_directory_that_others_may_write_to_stops_the_start(tmp_path, clock, authority, folder):
    assert authority
    folder.chmod(0o770)
    with pytest.raises(ExposedFileError):
        open_authority(tmp_path, clock)


def test_of_two_first_runs_at_once_one_makes_the_authorities(tmp_path):
    first = list[Authority]()

    class Slow(FakeClock):
        """Asked for the time between our look and our write: the other process does all of its start then."""

        def now_ms(self) -> int:
            if not first:
                first.append(open_authority(tmp_path, FakeClock()))
            return super().now_ms()

    second = open_authority(tmp_path, Slow())
    assert second.root_pem == first[0].root_pem
    assert second.issuing() == first[0].issuing()


def test_the_root_of_an_earlier_version_stops_the_start_and_stays(tmp_path, clock, folder):
    folder.mkdir(mode=0o700)
    (folder / files.OLD_FILE).write_bytes(b"old")
    with pytest.raises(NoAuthorityError, match="move it away"):
        open_authority(tmp_path, clock)
    assert [path.name for path in folder.iterdir()] == [files.OLD_FILE]


# The root's place


def test_the_first_run_leaves_the_root_in_reach(authority):
    assert authority.root_in_reach


def test_production_refuses_a_root_in_reach_and_makes_none_by_itself(tmp_path, clock, authority):
    assert authority
    with pytest.raises(RootInReachError, match="gnomon ca move-root"):
        open_authority(tmp_path, clock, production=True)
    with pytest.raises(NoAuthorityError, match="gnomon ca init"):
        open_authority(tmp_path / "new", clock, production=True)
    assert not list((tmp_path / "new" / "ca").iterdir())


def test_after_the_root_was_moved_production_starts_and_signs(tmp_path, clock, authority, folder):
    medium = tmp_path / "medium"
    medium.mkdir()
    root = authority.root()
    path = authority.move_root(medium, PASSPHRASE)
    assert not {files.ROOT_KEY_FILE, files.ROOT_PASSPHRASE_FILE} & {one.name for one in folder.iterdir()}
    again = open_authority(tmp_path, clock, production=True)
    assert not again.root_in_reach
    assert again.root_pem == authority.root_pem
    assert judged(again, issue_thing(again, "t1"), "sslclient", now(clock), tmp_path) == ""
    assert read_root(path, PASSPHRASE).certificate == root.certificate
    with pytest.raises(NoAuthorityError, match="--root"):
        again.root()


def test_a_root_that_cannot_be_written_there_stays(tmp_path, authority):
    path = authority.move_root(tmp_path, PASSPHRASE)
    kept = path.read_bytes()
    other = open_authority(tmp_path / "other", FakeClock())
    (tmp_path / f"gnomon-root-{other.root().id[:8]}.pem").write_bytes(b"taken")
    with pytest.raises(FileExistsError):
        other.move_root(tmp_path, PASSPHRASE)
    with pytest.raises(FileNotFoundError):
        other.move_root(tmp_path / "none", PASSPHRASE)
    assert other.root_in_reach
    assert path.read_bytes() == kept


def test_openssl_opens_a_moved_root_with_its_passphrase_only(tmp_path, authority):
    path = authority.move_root(tmp_path, PASSPHRASE)
    assert openssl("pkey", "-in", path, "-passin", f"pass:{PASSPHRASE.reveal()}", "-noout").returncode == 0
    assert openssl("pkey", "-in", path, "-passin", "pass:wrong", "-noout").returncode != 0
    with pytest.raises(certificates.ForeignPairError, match="passphrase"):
        read_root(path, Secret("wrong"))


def test_a_root_made_elsewhere_founds_an_authority_that_never_had_it(tmp_path, clock, folder):
    root = certificates.make_root(now(clock))
    write_root(tmp_path / "root.pem", root, PASSPHRASE)
    box = SecretBox.open(tmp_path / "secrets" / "master.key", RandomIds())
    founded = Authority.found(folder, box, clock, read_root(tmp_path / "root.pem", PASSPHRASE))
    assert not founded.root_in_reach
    again = open_authority(tmp_path, clock, production=True)
    assert judged(again, issue_thing(again, "t1"), "sslclient", now(clock), tmp_path) == ""
    with pytest.raises(AuthorityError, match="already"):
        Authority.found(folder, box, clock, root)


# Succession


def test_a_successor_signs_from_the_next_day_on_and_what_the_old_one_signed_stays_good(
    tmp_path, clock, authority
):
    serving = open_authority(tmp_path, clock)  # another process, which is not told
    clock.advance(4.2 * YEAR_S)
    old = issue_thing(serving, "old")
    authority.renew(authority.root())
    meanwhile = issue_thing(serving, "meanwhile")
    clock.advance(DAY_S)
    new = issue_thing(serving, "new")
    first, second = serving.issuing()
    for early in (old, meanwhile):
        certificate(early).verify_directly_issued_by(first)
    certificate(new).verify_directly_issued_by(second)
    serving.refresh_crl()
    lists = ("-crl_check", "-CRLfile", authority.crl_path)
    for credentials in (old, meanwhile, new):
        assert judged(authority, credentials, "sslclient", now(clock), tmp_path, *lists) == ""
    trusted = certificates.trusted_pem(first) + certificates.trusted_pem(second)
    assert authority.authorities_path.read_bytes() == authority.root_pem + trusted
    said = openssl("pkcs7", "-inform", "DER", "-print_certs", "-noout", input=serving.cacerts())
    assert said.stdout.count("subject=CN = Gnomon issuing") == 2
    clock.advance(0.9 * YEAR_S)
    assert serving.issuing() == (second,)
    assert open_authority(tmp_path, clock).authorities_path.read_bytes().count(b"BEGIN") == 2


def test_the_server_shows_a_certificate_of_the_successor_when_its_own_ends(authority, clock):
    clock.advance(4.9 * YEAR_S)
    first = authority.server_credentials(HOSTS)
    authority.renew(authority.root())
    clock.advance(20 * DAY_S)
    second = authority.server_credentials(HOSTS)
    assert second != first
    certificate(second).verify_directly_issued_by(authority.issuing()[-1])
    assert certificate(second).not_valid_after_utc == now(clock) + timedelta(days=90)


def test_an_expired_root_makes_no_successor(authority, clock):
    root = authority.root()
    clock.advance(20.1 * YEAR_S)
    with pytest.raises(AuthorityExpiredError, match="root authority"):
        authority.renew(root)


def test_a_new_root_is_published_beside_the_old_one_before_anything_is_signed_under_it(
    tmp_path, clock, authority
):
    clock.advance(12 * YEAR_S)
    authority.renew(authority.root())
    successor = certificates.make_root(now(clock))
    authority.trust(successor.certificate)
    assert len(authority.roots()) == 2
    assert authority.root_pem_path.read_bytes().count(b"BEGIN") == 2
    said = openssl("pkcs7", "-inform", "DER", "-print_certs", "-noout", input=authority.cacerts())
    assert said.stdout.count("subject=CN = Gnomon root") == 2
    authority.trust(successor.certificate)
    assert len(authority.roots()) == 2
    old = issue_thing(authority, "old")
    clock.advance(0.5 * YEAR_S)
    authority.renew(successor)
    clock.advance(DAY_S)
    new = issue_thing(authority, "new")
    alone = tmp_path / "alone.pem"
    alone.write_bytes(certificates.pem(successor.certificate))
    presented = tmp_path / "new.pem"
    presented.write_bytes(new.certificate_pem)
    assert refusal(alone, presented, "sslclient", now(clock)) == ""
    assert judged(authority, old, "sslclient", now(clock), tmp_path) == ""
    clock.advance(8 * YEAR_S)
    assert open_authority(tmp_path, clock).roots() == (successor.certificate,)


def test_without_the_root_of_an_issuing_authority_it_does_not_start(tmp_path, clock, authority, folder):
    authority.move_root(tmp_path, PASSPHRASE)
    other = certificates.make_root(now(clock))
    (folder / files.ROOT_FILE).write_bytes(certificates.pem(other.certificate))
    with pytest.raises(DamagedFileError, match="lacks the root"):
        open_authority(tmp_path, clock)
    (folder / files.ROOT_FILE).unlink()
    with pytest.raises(DamagedFileError, match="put back a copy"):
        open_authority(tmp_path, clock)


# Alarms


def subjects(authority: Authority) -> set[str]:
    return {alarm.subject for alarm in authority.alarms()}


def test_a_new_authority_alarms_nobody(authority):
    assert authority.alarms() == ()


def test_what_ends_too_soon_is_told_with_its_remedy(authority, clock):
    clock.advance(12 * 3_600 + 1)
    assert subjects(authority) == {"revocation list"}
    authority.refresh_crl()
    assert authority.alarms() == ()
    clock.advance(4 * YEAR_S)
    authority.refresh_crl()
    (alarm,) = authority.alarms()
    assert (alarm.subject, alarm.remedy) == ("issuing authority", "gnomon ca renew")
    clock.advance(11 * YEAR_S)
    authority.renew(authority.root())
    authority.refresh_crl()
    assert subjects(authority) == {"root"}
    authority.trust(certificates.make_root(now(clock)).certificate)
    assert authority.alarms() == ()


def test_the_end_of_everything_is_told_as_well(authority, clock):
    clock.advance(21 * YEAR_S)
    assert subjects(authority) == {"root", "issuing authority", "revocation list"}
