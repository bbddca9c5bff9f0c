"""What our certificates look like: values and a time in, a certificate out; no files, no clock.

Profiles are those of the specification (security, 4.2). Keys and serials come from the operating system's
generator and are meant to be unlike in every run.
"""

import contextlib
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Every TLS handshake of every device checks the root's signature; P-256 is the curve that is cheap there.
CURVE: Final = ec.SECP256R1()
ROOT_LIFE: Final = timedelta(days=20 * 365)
THING_LIFE: Final = timedelta(days=365)
SERVER_LIFE: Final = timedelta(days=90)
BACKDATING: Final = timedelta(hours=1)
"""Devices whose clock is behind accept a new certificate all the same."""
ROOT_BACKDATING: Final = timedelta(days=1)
SERIAL_BITS: Final = 128
NAME_CHARS_MAX: Final = 64
"""A certificate's common name ends here (RFC 5280)."""
HOSTS_MAX: Final = 32
URN: Final = "urn:gnomon:thing:"

_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


class AuthorityError(Exception):
    """No certificate was issued."""


class InvalidHostError(AuthorityError):
    """A server certificate was asked for something that is no host."""


class AuthorityExpiredError(AuthorityError):
    """The root is at the end of its life, or the clock is not within it."""


class ForeignPairError(Exception):
    """These bytes are not a certificate and its key, or not one of this root."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate and its private key (PKCS 8), both as PEM."""

    certificate_pem: bytes
    private_key_pem: bytes

    def __repr__(self) -> str:
        return "Credentials(***)"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def credentials(self) -> Credentials:
        """Return both as PEM."""
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return Credentials(
            self.certificate.public_bytes(encoding),
            self.key.private_bytes(encoding, form, serialization.NoEncryption()),
        )

    def __repr__(self) -> str:
        return "Pair(***)"


def make_root(now: datetime) -> Pair:
    """Return a new root that issues end certificates and no further authorities."""
    key = ec.generate_private_key(CURVE)
    # A number in the name: two roots of two first runs are not mistaken for each other.
    name = _name(f"Gnomon root {secrets.token_hex(4)}")
    builder = (
        _builder(name, name, key.public_key())
        .not_valid_before(now - ROOT_BACKDATING)
        .not_valid_after(now + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def issue_thing(root: Pair, name: str, now: datetime) -> Pair:
    """Return a new key with a certificate for a thing; the caller has checked the name."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(URN + name)])
    return _issue(root, name, names, ExtendedKeyUsageOID.CLIENT_AUTH, now, THING_LIFE)


def issue_server(root: Pair, hosts: Sequence[str], now: datetime) -> Pair:
    """Return a new key with a certificate for a server that is reached under these hosts."""
    names = host_names(hosts)
    common_name = next((host for host in hosts if len(host) <= NAME_CHARS_MAX), None)
    if common_name is None:
        raise InvalidHostError(f"at least one host must have no more than {NAME_CHARS_MAX} characters")
    return _issue(root, common_name, names, ExtendedKeyUsageOID.SERVER_AUTH, now, SERVER_LIFE)


def host_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """Return the names of a server certificate, or raise :class:`InvalidHostError`."""
    if not 1 <= len(hosts) <= HOSTS_MAX:
        raise InvalidHostError(f"a server certificate names 1 to {HOSTS_MAX} hosts, not {len(hosts)}")
    return x509.SubjectAlternativeName([_host_name(host) for host in hosts])


def names_of(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    """Return the alternative names of a certificate of ours."""
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def parse_root(pem: bytes) -> Pair:
    """Read a root back, or raise :class:`ForeignPairError`."""
    root = parse_pair(pem)
    check_issuer(root.certificate, root.certificate)
    try:
        constraints = root.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise ForeignPairError("the certificate does not say that it may issue others") from error
    if not constraints.ca:
        raise ForeignPairError("the certificate may not issue others")
    return root


def parse_pair(pem: bytes) -> Pair:
    """Read a key and its certificate from one text, or raise :class:`ForeignPairError`."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
    except (ValueError, TypeError) as error:
        raise ForeignPairError("there is no key with a certificate") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise ForeignPairError("the key is not the certificate's")
    return Pair(certificate, key)


def check_issuer(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raise :class:`ForeignPairError` unless the one signed the other."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ForeignPairError("the certificate is not signed by this root") from error


def _issue(  # one builder for both profiles: what they share cannot drift apart
    root: Pair,
    common_name: str,
    names: x509.SubjectAlternativeName,
    usage: x509.ObjectIdentifier,
    now: datetime,
    life: timedelta,
) -> Pair:
    _check_alive(root.certificate, now)
    issuer = root.certificate
    issuer_key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key = ec.generate_private_key(CURVE)
    builder = (
        _builder(_name(common_name), issuer.subject, key.public_key())
        .not_valid_before(max(now - BACKDATING, issuer.not_valid_before_utc))
        .not_valid_after(min(now + life, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False
        )
    )
    return Pair(builder.sign(root.key, hashes.SHA256()), key)


def _check_alive(root: x509.Certificate, now: datetime) -> None:
    first, last = root.not_valid_before_utc, root.not_valid_after_utc
    if not first <= now < last:
        raise AuthorityExpiredError(
            f"the root is good from {first:%Y-%m-%d} to {last:%Y-%m-%d}, and the clock says {now:%Y-%m-%d}:"
            " set the clock, or begin with a new root and give every thing a new certificate"
        )


def _builder(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(secrets.randbits(SERIAL_BITS) or 1)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    if not _HOST.fullmatch(host):
        raise InvalidHostError(
            f"{host!r} is neither a host name (letters, digits, - and .) nor an IP address"
        )
    return x509.DNSName(host)
